//! `quorate kv get|put|delete|list|compact`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use quorate_api::{CompactAnswer, DeleteAnswer, DeleteRangeAnswer, KeyValue, ListAnswer, PutAnswer};
use quorate_client::{Attach, Client, Consistency, Delete, Fresh, List, Order, Put, Range, SortBy};

use super::connect::ConnectArgs;
use super::error::CliError;
use super::output::{Format, print, print_bytes, print_json, read_input, table, warn};

pub(super) const EXAMPLES: &str = "\
Examples:
  quorate kv put greeting hello
  quorate kv get greeting
  quorate kv list users/ --keys-only
  quorate kv delete greeting
  quorate kv compact 1000

`quorate kv put --help` and the like tell more.";

const GET_EXAMPLES: &str = "\
Examples:
  quorate kv get greeting
  quorate kv get greeting --output json
  quorate kv get greeting --revision 12                   what it was then
  quorate kv get greeting --consistency serializable      from the node itself, even without a leader

Exit code 5 when there is no such key.";

const PUT_EXAMPLES: &str = "\
Examples:
  quorate kv put greeting hello
  quorate kv put photo --file cat.jpg
  date | quorate kv put now -
  quorate kv put lock me --create             only if there is no such key
  quorate kv put greeting hi --revision 12    only if the key is at revision 12
  quorate kv put member here --lease 7        goes when lease 7 ends

Exit code 4 when the revision is another one.";

const DELETE_EXAMPLES: &str = "\
Examples:
  quorate kv delete greeting
  quorate kv delete greeting --revision 12
  quorate kv delete users/ --prefix           every key that begins so

Exit code 5 when there is no such key.";

const COMPACT_EXAMPLES: &str = "\
Examples:
  quorate kv compact 1000     revision 1000 can still be read, and none before it

The leader does this by itself for what is old, as the configuration says.";

const LIST_EXAMPLES: &str = "\
Examples:
  quorate kv list
  quorate kv list users/ --limit 20
  quorate kv list users/ --keys-only
  quorate kv list users/ --count-only
  quorate kv list --sort mod-revision --descending --limit 10     what changed last
  quorate kv list users/ --revision 12                            as it was then";

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
    /// Forget what keys were before a revision
    #[command(after_help = COMPACT_EXAMPLES)]
    Compact(CompactArgs),
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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SortArg {
    Key,
    Version,
    CreateRevision,
    ModRevision,
    Value,
}

impl From<SortArg> for SortBy {
    fn from(argument: SortArg) -> SortBy {
        match argument {
            SortArg::Key => SortBy::Key,
            SortArg::Version => SortBy::Version,
            SortArg::CreateRevision => SortBy::CreateRevision,
            SortArg::ModRevision => SortBy::ModRevision,
            SortArg::Value => SortBy::Value,
        }
    }
}

/// How fresh a read must be, and as of when.
#[derive(Debug, Args)]
struct FreshArgs {
    /// How fresh the answer must be
    #[arg(long, value_enum, default_value = "linearizable")]
    consistency: ConsistencyArg,
    /// As it was at this revision
    #[arg(long, value_name = "REVISION")]
    revision: Option<u64>,
    /// The node must have come to this revision, as an earlier write answered it
    #[arg(long, value_name = "REVISION")]
    min_revision: Option<u64>,
}

impl From<&FreshArgs> for Fresh {
    fn from(arguments: &FreshArgs) -> Fresh {
        Fresh {
            consistency: arguments.consistency.into(),
            min_revision: arguments.min_revision,
            revision: arguments.revision,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// The key
    #[arg(value_parser = key)]
    key: String,
    #[command(flatten)]
    fresh: FreshArgs,
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
    /// The lease with which the key goes, or `keep` for the one that it has
    #[arg(long, value_name = "ID", value_parser = attach)]
    lease: Option<Attach>,
    #[command(flatten)]
    write: WriteArgs,
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
    /// Remove every key that begins with it
    #[arg(long, conflicts_with = "revision")]
    prefix: bool,
    #[command(flatten)]
    write: WriteArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct CompactArgs {
    /// The oldest revision that can still be read afterwards
    revision: u64,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What every write of keys takes.
#[derive(Debug, Args)]
struct WriteArgs {
    /// Show what was there before
    #[arg(long)]
    previous: bool,
    #[command(flatten)]
    once: OnceArgs,
}

/// How a write is carried out once.
#[derive(Debug, Args)]
pub(super) struct OnceArgs {
    /// Carry the write out once under this key, however often it is repeated
    #[arg(long, value_name = "KEY", value_parser = request_key)]
    idempotency_key: Option<String>,
}

impl OnceArgs {
    /// A client for the write.
    pub(super) async fn client(&self, connect: &ConnectArgs) -> Result<Client, CliError> {
        match &self.idempotency_key {
            // It may be sent to a node that says nothing, since it is sent to another one then.
            Some(key) => Ok(connect.client()?.once(key)),
            None => connect.client_for_change().await,
        }
    }
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
    /// The key after the last one to show
    #[arg(long, value_name = "KEY")]
    end: Option<String>,
    /// How many to show
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: u64,
    /// Show keys without values
    #[arg(long)]
    keys_only: bool,
    /// Show how many there are, and nothing else
    #[arg(long)]
    count_only: bool,
    /// In which order
    #[arg(long, value_enum, default_value = "key")]
    sort: SortArg,
    /// The greatest first
    #[arg(long)]
    descending: bool,
    #[command(flatten)]
    fresh: FreshArgs,
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

fn attach(text: &str) -> Result<Attach, String> {
    match text {
        "keep" => Ok(Attach::Keep),
        _ => super::lease::id(text).map(Attach::Lease),
    }
}

/// A key of a request, as it can stand in a header.
fn request_key(text: &str) -> Result<String, &'static str> {
    if (1..=128).contains(&text.len()) && text.chars().all(|character| character.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 128 visible ASCII characters, such as a UUID")
    }
}

pub(super) async fn run(command: KvCommand) -> Result<(), CliError> {
    match command {
        KvCommand::Get(args) => get(args).await,
        KvCommand::Put(args) => put(args).await,
        KvCommand::Delete(args) => delete(args).await,
        KvCommand::List(args) => list(args).await,
        KvCommand::Compact(args) => compact(args).await,
    }
}

async fn get(args: GetArgs) -> Result<(), CliError> {
    let client = args.connect.client()?;
    let entry = client.get(args.key.as_bytes(), &args.fresh).await?;
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
    let client = args.write.once.client(&args.connect).await?;
    let value = match (&args.file, args.value) {
        (Some(path), _) => {
            std::fs::read(path).map_err(|error| CliError::io(format!("read {}", path.display()), error))?
        }
        (None, Some(value)) if value == "-" => read_input()?,
        (None, value) => value.unwrap_or_default().into_bytes(),
    };
    let put = Put {
        expected_revision: if args.create {
            Some(0)
        } else {
            args.expected.revision
        },
        previous: args.write.previous,
        lease: args.lease.unwrap_or_default(),
    };
    let answer: PutAnswer = client.put(args.key.as_bytes(), value, put).await?;
    match args.connect.format {
        Format::Json => print_json(&answer),
        Format::Table => done(answer.revision, answer.previous.as_slice()),
    }
}

async fn delete(args: DeleteArgs) -> Result<(), CliError> {
    let client = args.write.once.client(&args.connect).await?;
    if args.prefix {
        let range = Range::prefix(args.key);
        let answer: DeleteRangeAnswer = client.delete_range(&range, args.write.previous).await?;
        return match args.connect.format {
            Format::Json => print_json(&answer),
            Format::Table => {
                print(&format!(
                    "{} deleted, revision {}\n",
                    answer.deleted, answer.revision
                ))?;
                print_previous(&answer.previous)
            }
        };
    }
    let delete = Delete {
        expected_revision: args.expected.revision,
        previous: args.write.previous,
    };
    let answer: DeleteAnswer = client.delete(args.key.as_bytes(), delete).await?;
    if args.connect.format == Format::Json {
        print_json(&answer)?;
    }
    if answer.deleted == 0 {
        return Err(CliError::NotFound(format!("there is no key `{}`", args.key)));
    }
    match args.connect.format {
        Format::Json => Ok(()),
        Format::Table => done(answer.revision, answer.previous.as_slice()),
    }
}

fn done(revision: u64, previous: &[KeyValue]) -> Result<(), CliError> {
    print(&format!("OK, revision {revision}\n"))?;
    print_previous(previous)
}

/// What keys were before, if that is known.
fn print_previous(previous: &[KeyValue]) -> Result<(), CliError> {
    match previous {
        [] => Ok(()),
        entries => print(&format!("before:\n{}", entries_table(entries))),
    }
}

async fn compact(args: CompactArgs) -> Result<(), CliError> {
    let client = args.connect.client_for_change().await?;
    let answer: CompactAnswer = client.compact(args.revision).await?;
    match args.connect.format {
        Format::Json => print_json(&answer),
        Format::Table => print(&format!(
            "OK, revisions from {} to {} can be read\n",
            answer.compacted, answer.revision
        )),
    }
}

async fn list(args: ListArgs) -> Result<(), CliError> {
    let by_key = matches!(args.sort, SortArg::Key);
    let list = List {
        range: Range {
            prefix: args.prefix.into_bytes(),
            start: args.start.map(String::into_bytes),
            end: args.end.map(String::into_bytes),
        },
        limit: usize::try_from(args.limit).ok(),
        sort: args.sort.into(),
        order: if args.descending {
            Order::Descending
        } else {
            Order::Ascending
        },
        keys_only: args.keys_only,
        count: false,
        count_only: args.count_only,
        fresh: Fresh::from(&args.fresh),
    };
    let answer = args.connect.client()?.list(&list).await?;
    match args.connect.format {
        Format::Json => print_json(&answer)?,
        Format::Table => print(&listing(&answer, args.keys_only))?,
    }
    if answer.more && args.connect.format == Format::Table {
        let last = answer.entries.last().map(|entry| shown(&entry.key, usize::MAX));
        let flag = if args.descending { "--end" } else { "--start" };
        match last.filter(|_| by_key) {
            Some(last) => warn(&format!("there are more keys; go on with {flag} {last}")),
            None => warn("there are more keys; raise --limit to see them"),
        }
    }
    Ok(())
}

fn listing(answer: &ListAnswer, keys_only: bool) -> String {
    if let (Some(count), []) = (answer.count, answer.entries.as_slice()) {
        return format!("{count}\n");
    }
    if keys_only {
        let line = |entry: &KeyValue| format!("{}\n", shown(&entry.key, usize::MAX));
        return answer.entries.iter().map(line).collect();
    }
    if answer.entries.is_empty() {
        return "no keys\n".to_owned();
    }
    entries_table(&answer.entries)
}

/// Keys with their values, one a line.
pub(super) fn entries_table(entries: &[KeyValue]) -> String {
    const VALUE_WIDTH_MAX: usize = 60;
    let mut rows = vec![
        ["KEY", "REVISION", "VERSION", "LEASE", "VALUE"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(entries.iter().map(|entry| {
        vec![
            shown(&entry.key, usize::MAX),
            entry.mod_revision.to_string(),
            entry.version.to_string(),
            entry.lease.map_or("-".to_owned(), |lease| lease.to_string()),
            shown(&entry.value, VALUE_WIDTH_MAX),
        ]
    }));
    table(&rows)
}

/// Bytes as one line of at most `width_max` characters.
pub(super) fn shown(bytes: &[u8], width_max: usize) -> String {
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
    fn a_key_of_a_request_can_stand_in_a_header() {
        assert!(request_key("6ba7b810-9dad").is_ok());
        for text in ["", "a b", "ä", "a\n", &"x".repeat(129)] {
            assert!(request_key(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_value_is_shown_on_one_line() {
        assert_eq!(shown(b"plain", 10), "plain");
        assert_eq!(shown("größe".as_bytes(), 10), "größe");
        assert_eq!(shown(b"a\nb\xff", 20), "a\\nb\\xff");
        assert_eq!(shown(b"0123456789", 5), "0123…");
        assert_eq!(shown(&[b'x'; 1000], 5), "xxxx…");
    }
}
