//! `quorate members add|remove`

use clap::{Args, Subcommand};
use quorate_api::{AddMember, MemberChanged, NodeName};

use super::connect::ConnectArgs;
use super::error::CliError;
use super::output::{Format, print, print_json};

pub(super) const EXAMPLES: &str = "\
Examples:
  quorate members add 4 10.0.0.4:9100
  quorate members remove 4
  quorate nodes                          the members at present";

const ADD_EXAMPLES: &str = "\
Examples:
  quorate members add 4 10.0.0.4:9100
  quorate members add dr1 192.0.2.1:4321 --learner";

const REMOVE_EXAMPLES: &str = "\
Examples:
  quorate members remove 4";

#[derive(Debug, Subcommand)]
pub(super) enum MembersCommand {
    /// Take in a running node that belongs to no cluster; it catches up and then votes
    #[command(after_help = ADD_EXAMPLES)]
    Add(AddArgs),
    /// Let a node go
    #[command(after_help = REMOVE_EXAMPLES)]
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// Its name
    name: NodeName,
    /// Where other nodes reach it
    #[arg(value_name = "HOST:PORT")]
    address: String,
    /// It follows for good and never votes
    #[arg(long)]
    learner: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// Its name
    name: NodeName,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn run(command: MembersCommand) -> Result<(), CliError> {
    match command {
        MembersCommand::Add(args) => {
            let (host, port) = args
                .address
                .rsplit_once(':')
                .and_then(|(host, port)| Some((host, port.parse().ok()?)))
                .ok_or_else(|| CliError::Usage(format!("expected HOST:PORT, found `{}`", args.address)))?;
            let member = AddMember {
                id: args.name,
                host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
                port,
                learner: args.learner,
            };
            show(
                args.connect
                    .client_for_change()
                    .await?
                    .add_member(&member)
                    .await?,
                args.connect.format,
            )
        }
        MembersCommand::Remove(args) => show(
            args.connect
                .client_for_change()
                .await?
                .remove_member(&args.name)
                .await?,
            args.connect.format,
        ),
    }
}

fn show(changed: MemberChanged, format: Format) -> Result<(), CliError> {
    match format {
        Format::Json => print_json(&changed),
        Format::Table => print(&format!("{}: {}\n", changed.id, changed.message)),
    }
}
