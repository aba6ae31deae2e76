//! `quorate kv get|put|delete|list`

use std::io::Read;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use quorate_api::{DeleteAnswer, KeyValue, ListAnswer};
use quorate_client::{Consistency, List, Put};

use super::connect::ConnectArgs;
use super::error::CliError;
use super::output::{Format, print, print_bytes, print_json, table, warn};

pub(super) const EXAMPLES: &str = "\
Examples:
  quorate kv put greeting hello
  quorate kv get greeting
  quorate kv list users/ --keys-only
  quorate kv delete greeting

`quorate kv put --help` and the like tell more.";

const GET_EXAMPLES: &str = "\
Examples:
  quorate kv get greeting
  quorate kv get greeting -w json
  quorate kv get greeting --consistency serializable     from the node itself, even without a leader

Exit code 5 when there is no such key.";

const PUT_EXAMPLES: &str = "\
Examples:
  quorate kv put greeting hello
  quorate kv put photo --file cat.jpg
  date | quorate kv put now -
  quorate kv put lock me --create             only if there is no such key
  quorate kv put greeting hi --revision 12    only if the key is at revision 12

Exit code 4 when the revision is another one.";

const DELETE_EXAMPLES: &str = "\
Examples:
  quorate kv delete greeting
  quorate kv delete greeting --revision 12

Exit code 5 when there is no such key.";

const LIST_EXAMPLES: &str = "\
Examples:
  quorate kv list
  quorate kv list users/ --limit 20
  quorate kv list users/ --keys-only";

#[derive(Debug, Subcommand)]
pub(super) enum KvCommand {
    /// Read a key
    #[command(after_help = GET_EXAMPLES)]
    Get(GetArgs),
    /// Write a key
    #[command(after_help = PUT_EXAMPLES)]
    Put(PutArgs),
    /// Remove a key
    #[command(visible_alias = "del", after_help = DELETE_EXAMPLES)]
    Delete(DeleteArgs),
    /// List keys with their values
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List(ListArgs),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ConsistencyArg {
    /// Sees every write acknowledged before
    Linearizable,
    /// The same, without asking the other nodes while the leader holds a lease
    Lease,
    /// What the node itself has, which may be old
    Serializable,
}

impl From<ConsistencyArg> for Consistency {
    fn from(argument: ConsistencyArg) -> Consistency {
        match argument {
            ConsistencyArg::Linearizable => Consistency::Linearizable,
            ConsistencyArg::Lease => Consistency::Lease,
            ConsistencyArg::Serializable => Consistency::Serializable,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// The key
    #[arg(value_parser = key)]
    key: String,
    /// How fresh the answer must be
    #[arg(long, value_enum, default_value = "linearizable")]
    consistency: ConsistencyArg,
    /// Write the value without a line end behind it
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct PutArgs {
    /// The key
    #[arg(value_parser = key)]
    key: String,
    /// The value; `-` reads it from standard input
    #[arg(required_unless_present = "file")]
    value: Option<String>,
    /// A file that holds the value
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    file: Option<PathBuf>,
    #[command(flatten)]
    expected: ExpectedArgs,
    /// Write only if there is no such key
    #[arg(long, conflicts_with = "revision")]
    create: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// The key
    #[arg(value_parser = key)]
    key: String,
    #[command(flatten)]
    expected: ExpectedArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct ExpectedArgs {
    /// Only if the key is at this revision
    #[arg(long, value_name = "REVISION")]
    revision: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// What the keys begin with
    #[arg(default_value = "")]
    prefix: String,
    /// The first key to show
    #[arg(long, value_name = "KEY")]
    start: Option<String>,
    /// How many to show
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: u64,
    /// Show keys without values
    #[arg(long)]
    keys_only: bool,
    /// How fresh the answer must be
    #[arg(long, value_enum, default_value = "linearizable")]
    consistency: ConsistencyArg,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// A key as it was typed.
fn key(text: &str) -> Result<String, &'static str> {
    match text {
        "" => Err("a key has at least one character (was a variable of the shell empty?)"),
        text => Ok(text.to_owned()),
    }
}

pub(super) async fn run(command: KvCommand) -> Result<(), CliError> {
    match command {
        KvCommand::Get(args) => get(args).await,
        KvCommand::Put(args) => put(args).await,
        KvCommand::Delete(args) => delete(args).await,
        KvCommand::List(args) => list(args).await,
    }
}

async fn get(args: GetArgs) -> Result<(), CliError> {
    let client = args.connect.client()?;
    let entry = client.get(args.key.as_bytes(), args.consistency.into()).await?;
    let Some(entry) = entry else {
        return Err(CliError::NotFound(format!("there is no key `{}`", args.key)));
    };
    match args.connect.format {
        Format::Json => print_json(&entry),
        Format::Table => {
            let mut bytes = entry.value.to_vec();
            if !args.raw {
                bytes.push(b'\n');
            }
            print_bytes(&bytes)
        }
    }
}

async fn put(args: PutArgs) -> Result<(), CliError> {
    let client = args.connect.client_for_change().await?;
    let value = match (&args.file, args.value) {
        (Some(path), _) => {
            std::fs::read(path).map_err(|error| CliError::io(format!("read {}", path.display()), error))?
        }
        (None, Some(value)) if value == "-" => {
            let mut bytes = Vec::new();
            std::io::stdin()
                .lock()
                .read_to_end(&mut bytes)
                .map_err(|error| CliError::io("read standard input", error))?;
            bytes
        }
        (None, value) => value.unwrap_or_default().into_bytes(),
    };
    let put = Put {
        expected_revision: if args.create {
            Some(0)
        } else {
            args.expected.revision
        },
        previous: false,
    };
    let answer = client.put(args.key.as_bytes(), value, put).await?;
    match args.connect.format {
        Format::Json => print_json(&answer),
        Format::Table => print(&format!("OK, revision {}\n", answer.revision)),
    }
}

async fn delete(args: DeleteArgs) -> Result<(), CliError> {
    let client = args.connect.client_for_change().await?;
    let put = Put {
        expected_revision: args.expected.revision,
        previous: false,
    };
    let answer: DeleteAnswer = client.delete(args.key.as_bytes(), put).await?;
    if args.connect.format == Format::Json {
        print_json(&answer)?;
    }
    if answer.deleted == 0 {
        return Err(CliError::NotFound(format!("there is no key `{}`", args.key)));
    }
    match args.connect.format {
        Format::Json => Ok(()),
        Format::Table => print(&format!("OK, revision {}\n", answer.revision)),
    }
}

async fn list(args: ListArgs) -> Result<(), CliError> {
    let list = List {
        prefix: args.prefix.into_bytes(),
        start: args.start.map(String::into_bytes),
        end: None,
        limit: usize::try_from(args.limit).ok(),
        consistency: args.consistency.into(),
    };
    let answer = args.connect.client()?.list(&list).await?;
    match args.connect.format {
        Format::Json => print_json(&answer)?,
        Format::Table => print(&listing(&answer, args.keys_only))?,
    }
    if answer.more && args.connect.format == Format::Table {
        let last = answer.entries.last().map(|entry| shown(&entry.key, usize::MAX));
        warn(&format!(
            "there are more keys; go on with --start {}",
            last.unwrap_or_default()
        ));
    }
    Ok(())
}

fn listing(answer: &ListAnswer, keys_only: bool) -> String {
    if keys_only {
        let line = |entry: &KeyValue| format!("{}\n", shown(&entry.key, usize::MAX));
        return answer.entries.iter().map(line).collect();
    }
    if answer.entries.is_empty() {
        return "no keys\n".to_owned();
    }
    const VALUE_WIDTH_MAX: usize = 60;
    let mut rows = vec![
        ["KEY", "REVISION", "VERSION", "VALUE"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(answer.entries.iter().map(|entry| {
        vec![
            shown(&entry.key, usize::MAX),
            entry.mod_revision.to_string(),
            entry.version.to_string(),
            shown(&entry.value, VALUE_WIDTH_MAX),
        ]
    }));
    table(&rows)
}

/// Bytes as one line of at most `width_max` characters.
fn shown(bytes: &[u8], width_max: usize) -> String {
    // Only the part that may be shown is looked at, however long the value is.
    let head = &bytes[..bytes.len().min(width_max.saturating_mul(4))];
    let text = head.escape_ascii().to_string();
    let text = match std::str::from_utf8(head) {
        Ok(plain) if !plain.chars().any(char::is_control) => plain.to_owned(),
        _ => text,
    };
    if text.chars().count() <= width_max && head.len() == bytes.len() {
        return text;
    }
    let cut: String = text.chars().take(width_max.saturating_sub(1)).collect();
    format!("{cut}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_shown_on_one_line() {
        assert_eq!(shown(b"plain", 10), "plain");
        assert_eq!(shown("größe".as_bytes(), 10), "größe");
        assert_eq!(shown(b"a\nb\xff", 20), "a\\nb\\xff");
        assert_eq!(shown(b"0123456789", 5), "0123…");
        assert_eq!(shown(&[b'x'; 1000], 5), "xxxx…");
    }
}
