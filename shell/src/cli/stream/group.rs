//! `quorate stream group create|list|show|fetch|commit|pause|resume|delete`

use clap::{Args, Subcommand, ValueEnum};
use quorate_api::{CommitCursor, FetchAnswer, GroupChanged, GroupInfo, GroupStart};

use super::super::connect::ConnectArgs;
use super::super::error::CliError;
use super::super::kv::OnceArgs;
use super::super::output::{Format, print, print_bytes, print_json, table, warn};
use super::line;

pub(super) const EXAMPLES: &str = "\
Examples:
  quorate stream group create orders billing         begins with the first record that is kept
  quorate stream group fetch orders billing          what comes next; comes again until it is committed
  quorate stream group commit orders billing 0:12    of partition 0 the record at offset 12 is next
  quorate stream group pause orders billing          gets nothing until it is resumed
  quorate stream group list orders                   how far each group is";

#[derive(Debug, Subcommand)]
pub(in super::super) enum GroupCommand {
    /// Make a group
    Create(CreateArgs),
    /// List the groups of a stream
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show how far a group is
    Show(GroupArgs),
    /// Show what comes next for a group
    Fetch(FetchArgs),
    /// Say what a group has consumed
    Commit(CommitArgs),
    /// Let a group get nothing for now
    Pause(ChangeArgs),
    /// Let a paused group go on
    Resume(ChangeArgs),
    /// Delete a group
    Delete(ChangeArgs),
}

#[derive(Debug, Args)]
pub(in super::super) struct CreateArgs {
    /// The stream
    stream: String,
    /// The name of the group
    group: String,
    /// Where it begins
    #[arg(long, value_enum, default_value = "first")]
    start: StartArg,
    #[command(flatten)]
    once: OnceArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StartArg {
    /// With the first record that is kept
    First,
    /// With the next record that is appended
    Next,
}

#[derive(Debug, Args)]
pub(in super::super) struct ListArgs {
    /// The stream
    stream: String,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(in super::super) struct GroupArgs {
    /// The stream
    stream: String,
    /// The group
    group: String,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(in super::super) struct FetchArgs {
    /// The stream
    stream: String,
    /// The group
    group: String,
    /// One partition only
    #[arg(long)]
    partition: Option<u32>,
    /// How many records to show
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: u64,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(in super::super) struct CommitArgs {
    /// The stream
    stream: String,
    /// The group
    group: String,
    /// Partitions, each with the next offset to consume behind a colon
    #[arg(required = true, value_name = "PARTITION:OFFSET", value_parser = cursor)]
    cursors: Vec<CommitCursor>,
    #[command(flatten)]
    once: OnceArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(in super::super) struct ChangeArgs {
    /// The stream
    stream: String,
    /// The group
    group: String,
    #[command(flatten)]
    once: OnceArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

fn cursor(text: &str) -> Result<CommitCursor, String> {
    let parsed = text
        .split_once(':')
        .and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
    let (partition, next_offset) = parsed.ok_or("expected a partition and an offset, such as 0:12")?;
    Ok(CommitCursor {
        partition,
        next_offset,
    })
}

pub(super) async fn run(command: GroupCommand) -> Result<(), CliError> {
    match command {
        GroupCommand::Create(args) => {
            let client = args.once.client(&args.connect).await?;
            let start = match args.start {
                StartArg::First => GroupStart::First,
                StartArg::Next => GroupStart::Next,
            };
            let changed = client.create_group(&args.stream, &args.group, start).await?;
            show_changed(&args.connect, &changed)
        }
        GroupCommand::List(args) => {
            let answer = args.connect.client()?.groups(&args.stream).await?;
            match args.connect.format {
                Format::Json => print_json(&answer),
                Format::Table => print(&listing(&answer.groups)),
            }
        }
        GroupCommand::Show(args) => {
            let group = args.connect.client()?.group(&args.stream, &args.group).await?;
            match args.connect.format {
                Format::Json => print_json(&group),
                Format::Table => print(&listing(&[group])),
            }
        }
        GroupCommand::Fetch(args) => fetch(args).await,
        GroupCommand::Commit(args) => {
            let client = args.once.client(&args.connect).await?;
            let changed = client.commit(&args.stream, &args.group, args.cursors).await?;
            show_changed(&args.connect, &changed)
        }
        GroupCommand::Pause(args) => set_paused(args, true).await,
        GroupCommand::Resume(args) => set_paused(args, false).await,
        GroupCommand::Delete(args) => {
            let client = args.once.client(&args.connect).await?;
            let deleted = client.delete_group(&args.stream, &args.group).await?;
            match args.connect.format {
                Format::Json => print_json(&deleted),
                Format::Table => print(&format!("OK, group {} deleted\n", deleted.deleted)),
            }
        }
    }
}

async fn set_paused(args: ChangeArgs, paused: bool) -> Result<(), CliError> {
    let client = args.once.client(&args.connect).await?;
    let changed = client.pause_group(&args.stream, &args.group, paused).await?;
    show_changed(&args.connect, &changed)
}

fn show_changed(connect: &ConnectArgs, changed: &GroupChanged) -> Result<(), CliError> {
    if connect.format == Format::Json {
        return print_json(changed);
    }
    let cursors = changed.cursors.iter();
    let cursors: Vec<String> = cursors
        .map(|cursor| format!("{}:{}", cursor.partition, cursor.next_offset))
        .collect();
    let paused = if changed.paused { ", paused" } else { "" };
    print(&format!("OK, next {}{paused}\n", cursors.join(" ")))
}

fn listing(groups: &[GroupInfo]) -> String {
    if groups.is_empty() {
        return "no groups\n".to_owned();
    }
    let heads = ["GROUP", "STATE", "PARTITION", "NEXT", "BEHIND"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for group in groups {
        let state = if group.paused { "paused" } else { "running" };
        rows.extend(group.cursors.iter().map(|cursor| {
            vec![
                group.name.clone(),
                state.to_owned(),
                cursor.partition.to_string(),
                cursor.next_offset.to_string(),
                cursor.behind.to_string(),
            ]
        }));
    }
    table(&rows)
}

async fn fetch(args: FetchArgs) -> Result<(), CliError> {
    let client = args.connect.client()?;
    let fetched: FetchAnswer = client
        .fetch(&args.stream, &args.group, args.partition, Some(args.limit))
        .await?;
    if args.connect.format == Format::Json {
        return print_json(&fetched);
    }
    let lines = fetched
        .batches
        .iter()
        .flat_map(|batch| batch.records.iter().flat_map(|record| line(Some(batch), record)));
    print_bytes(&lines.collect::<Vec<u8>>())?;
    if fetched.paused {
        warn("the group is paused, and gets nothing until it is resumed");
    }
    if fetched.missed > 0 {
        warn(&format!(
            "retention dropped {} records that the group had not consumed",
            fetched.missed
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_a_partition_and_an_offset() {
        let expected = CommitCursor {
            partition: 1,
            next_offset: 12,
        };
        assert_eq!(cursor("1:12"), Ok(expected));
        assert!(cursor("12").is_err());
        assert!(cursor("a:b").is_err());
    }
}
