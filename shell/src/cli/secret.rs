//! `quorate secret new`

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::error::CliError;
use super::output::print;
use crate::port::system::{ListenerOptions, ports};
use crate::transport::Secret;

const EXAMPLES: &str = "\
Examples:
  quorate secret new > cluster.secret
  quorate secret new --output cluster.secret     readable by this user only

Every node of a cluster needs the same secret, and nobody else may have it.";

#[derive(Debug, Subcommand)]
pub(super) enum SecretCommand {
    /// Make a new secret
    #[command(after_help = EXAMPLES)]
    New(NewArgs),
}

#[derive(Debug, Args)]
pub(super) struct NewArgs {
    /// A file to write it to, which must not exist yet
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(command: &SecretCommand) -> Result<(), CliError> {
    let SecretCommand::New(args) = command;
    let text = new_secret()?;
    match &args.output {
        None => print(&format!("{text}\n")),
        Some(path) => write_secret(path, &text)
            .map_err(|error| CliError::io(format!("write the secret to {}", path.display()), error)),
    }
}

/// The text of a new cluster secret.
pub(super) fn new_secret() -> Result<String, CliError> {
    let ports = ports(ListenerOptions {
        tcp_nodelay: true,
        keepalive: true,
    });
    let secret = Secret::generate(&*ports.entropy).map_err(|error| CliError::io("make a secret", error))?;
    Ok(secret.reveal())
}

/// Writes a secret where only this user can read it. Never overwrites one: nodes that know the old one would be
/// cut off.
pub(super) fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}
