//! `quorate stream create|list|describe|delete|append|read|tail|group`

use std::time::Duration;

use clap::{Args, Subcommand};
use quorate_api::{
    CreateStream, DuplicateWindow, RecordsAnswer, StreamInfo, StreamRecord, StreamRetention, StreamsAnswer,
};
use quorate_client::{Consistency, ReadFrom, TailBatch, TailFrom, TailRequest, Tailed};

use super::connect::ConnectArgs;
use super::error::CliError;
use super::kv::{OnceArgs, shown};
use super::output::{Format, print, print_bytes, print_json, table, warn};
use super::units::{size, time};

mod append;
mod group;

pub(super) const EXAMPLES: &str = "\
Examples:
  quorate stream create orders --partitions 2 --retention-age 24h
  quorate stream append orders 'first' 'second'      two records, all or none
  quorate stream append orders paid --key ada --id 17    once, however often it is sent
  quorate stream read orders --from 0                from an offset
  quorate stream tail orders --follow                what comes, as it comes
  quorate stream group create orders billing         a group of consumers with a cursor";

const CREATE_EXAMPLES: &str = "\
Examples:
  quorate stream create orders
  quorate stream create orders --partitions 4
  quorate stream create clicks --retention-age 7d --retention-bytes 1GiB
  quorate stream create clicks --retention-records 1000000 --duplicates 0

Exit code 4 when there is a stream of this name.";

const LIST_EXAMPLES: &str = "\
Examples:
  quorate stream list
  quorate stream list app. --output json";

const DESCRIBE_EXAMPLES: &str = "\
Examples:
  quorate stream describe orders
  quorate stream describe orders --output json

Exit code 5 when there is no such stream.";

const DELETE_EXAMPLES: &str = "\
Examples:
  quorate stream delete orders

Exit code 5 when there is no such stream.";

const READ_EXAMPLES: &str = "\
Examples:
  quorate stream read orders                         from the first record that is kept
  quorate stream read orders --from 100 --limit 10
  quorate stream read orders --since 5m              of the last five minutes
  quorate stream read orders --partition 1 --priority 3

Exit code 4 when retention dropped the record at the offset.";

const TAIL_EXAMPLES: &str = "\
Examples:
  quorate stream tail orders                         the records that are kept, and ends
  quorate stream tail orders --follow                what comes, until interrupted
  quorate stream tail orders --follow --from first   everything, and what comes
  quorate stream tail --prefix app. --follow         all streams whose names begin with app.
  quorate stream tail orders --follow -w json        one JSON object a line and record

Goes on at another node when its node goes, without a gap or a repeat.
Exit code 4 when retention drops records before they were told.";

#[derive(Debug, Subcommand)]
pub(super) enum StreamSubcommand {
    /// Make a stream
    #[command(after_help = CREATE_EXAMPLES)]
    Create(CreateArgs),
    /// List streams
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show a stream with its partitions
    #[command(after_help = DESCRIBE_EXAMPLES)]
    Describe(DescribeArgs),
    /// Delete a stream, its records and its groups
    #[command(after_help = DELETE_EXAMPLES)]
    Delete(DeleteArgs),
    /// Append records
    #[command(after_help = append::EXAMPLES)]
    Append(append::AppendArgs),
    /// Read records from an offset or a time
    #[command(after_help = READ_EXAMPLES)]
    Read(ReadArgs),
    /// Follow streams
    #[command(after_help = TAIL_EXAMPLES)]
    Tail(TailArgs),
    /// Consumer groups
    #[command(subcommand, after_help = group::EXAMPLES)]
    Group(group::GroupCommand),
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The name
    name: String,
    /// How many partitions it has
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    partitions: u32,
    /// Drop records that are older: a number with ms, s, m, h or d behind it
    #[arg(long, value_name = "TIME", value_parser = time)]
    retention_age: Option<Duration>,
    /// Keep about so many bytes of records; KiB, MiB or GiB may stand behind the number
    #[arg(long, value_name = "BYTES", value_parser = size)]
    retention_bytes: Option<u64>,
    /// Keep about so many records
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    retention_records: Option<u64>,
    /// Remember so many message ids; 0 for none
    #[arg(long, value_name = "NUMBER", default_value_t = 65_536)]
    duplicates: u32,
    /// Remember message ids for so long
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = time)]
    duplicates_age: Duration,
    #[command(flatten)]
    once: OnceArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// What the names begin with
    #[arg(default_value = "")]
    prefix: String,
    /// Only those whose names come after this one
    #[arg(long, value_name = "NAME")]
    after: Option<String>,
    /// How many to show
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    limit: u64,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct DescribeArgs {
    /// The stream
    stream: String,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// The stream
    stream: String,
    #[command(flatten)]
    once: OnceArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct ReadArgs {
    /// The stream
    stream: String,
    /// The partition
    #[arg(long, default_value_t = 0)]
    partition: u32,
    /// The first offset; otherwise the first that is kept
    #[arg(long, value_name = "OFFSET", conflicts_with = "since")]
    from: Option<u64>,
    /// Only records that are not older than this
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Duration>,
    /// How many to show
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: u64,
    /// Only records of this priority or a higher one
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=4))]
    priority: Option<u8>,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct TailArgs {
    /// The stream; one of STREAM and --prefix says what to follow
    #[arg(conflicts_with = "prefix")]
    stream: Option<String>,
    /// What the names of the streams begin with; empty for all
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// One partition only
    #[arg(long, requires = "stream")]
    partition: Option<u32>,
    /// Go on with what comes, until interrupted
    #[arg(long, short)]
    follow: bool,
    /// Where to begin: first, next, or an offset of one partition; without --follow first, with it next
    #[arg(long, value_parser = from)]
    from: Option<TailFrom>,
    /// Only records of this priority or a higher one
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=4))]
    priority: u8,
    #[command(flatten)]
    connect: ConnectArgs,
}

fn from(text: &str) -> Result<TailFrom, String> {
    match text {
        "first" => Ok(TailFrom::First),
        "next" => Ok(TailFrom::Next),
        _ => match text.parse() {
            Ok(offset) => Ok(TailFrom::Offset(offset)),
            Err(_) => Err("expected first, next, or an offset".to_owned()),
        },
    }
}

pub(super) async fn run(command: StreamSubcommand) -> Result<(), CliError> {
    match command {
        StreamSubcommand::Create(args) => create(args).await,
        StreamSubcommand::List(args) => list(args).await,
        StreamSubcommand::Describe(args) => describe(args).await,
        StreamSubcommand::Delete(args) => delete(args).await,
        StreamSubcommand::Append(args) => append::run(args).await,
        StreamSubcommand::Read(args) => read(args).await,
        StreamSubcommand::Tail(args) => tail(args).await,
        StreamSubcommand::Group(command) => group::run(command).await,
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

async fn create(args: CreateArgs) -> Result<(), CliError> {
    let client = args.once.client(&args.connect).await?;
    let stream = CreateStream {
        name: args.name,
        partitions: args.partitions,
        retention: StreamRetention {
            age_ms: args.retention_age.map(milliseconds),
            bytes: args.retention_bytes,
            records: args.retention_records,
        },
        duplicates: Some(DuplicateWindow {
            count: args.duplicates,
            age_ms: milliseconds(args.duplicates_age),
        }),
    };
    let created = client.create_stream(&stream).await?;
    match args.connect.format {
        Format::Json => print_json(&created),
        Format::Table => print(&format!(
            "OK, stream {} has {} partitions\n",
            created.name,
            created.partitions.len()
        )),
    }
}

async fn list(args: ListArgs) -> Result<(), CliError> {
    let client = args.connect.client()?;
    let answer = client
        .streams(&args.prefix, args.after.as_deref(), Some(args.limit))
        .await?;
    match args.connect.format {
        Format::Json => return print_json(&answer),
        Format::Table => print(&listing(&answer))?,
    }
    if let (true, Some(last)) = (answer.more, answer.streams.last()) {
        warn(&format!(
            "there are more streams; go on with --after {}",
            last.name
        ));
    }
    Ok(())
}

fn listing(answer: &StreamsAnswer) -> String {
    if answer.streams.is_empty() {
        return "no streams\n".to_owned();
    }
    let heads = ["STREAM", "PARTITIONS", "RECORDS", "BYTES", "GROUPS"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(answer.streams.iter().map(|stream| {
        vec![
            stream.name.clone(),
            stream.partitions.len().to_string(),
            stream.records.to_string(),
            stream.bytes.to_string(),
            stream.groups.len().to_string(),
        ]
    }));
    table(&rows)
}

async fn describe(args: DescribeArgs) -> Result<(), CliError> {
    let client = args.connect.client()?;
    let stream = client.stream(&args.stream, Consistency::Linearizable).await?;
    match args.connect.format {
        Format::Json => print_json(&stream),
        Format::Table => print(&card(&stream)),
    }
}

fn card(stream: &StreamInfo) -> String {
    let bound = |bound: Option<String>| bound.unwrap_or_else(|| "-".to_owned());
    let kept = |number: Option<u64>| bound(number.map(|number| number.to_string()));
    let deleted = &stream.deleted;
    let policy = |kept: String, deleted: &quorate_api::Deleted| {
        format!(
            "{kept} ({} records, {} bytes dropped)",
            deleted.records, deleted.bytes
        )
    };
    let age = stream
        .retention
        .age_ms
        .map(|age| format!("{}s", age as f64 / 1000.0));
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut text = table(&[
        row("stream", stream.name.clone()),
        row("records", stream.records.to_string()),
        row("bytes", stream.bytes.to_string()),
        row("bytes in", stream.bytes_in.to_string()),
        row("bytes out here", stream.bytes_out.to_string()),
        row("kept by age", policy(bound(age), &deleted.age)),
        row(
            "kept by bytes",
            policy(kept(stream.retention.bytes), &deleted.bytes),
        ),
        row(
            "kept by records",
            policy(kept(stream.retention.records), &deleted.records),
        ),
        row(
            "message ids",
            format!(
                "{} of {}s",
                stream.duplicates.count,
                stream.duplicates.age_ms / 1000
            ),
        ),
        row(
            "groups",
            bound((!stream.groups.is_empty()).then(|| stream.groups.join(", "))),
        ),
    ]);
    text.push('\n');
    let heads = ["PARTITION", "FIRST", "NEXT", "BYTES"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(stream.partitions.iter().map(|partition| {
        vec![
            partition.partition.to_string(),
            partition.first_offset.to_string(),
            partition.next_offset.to_string(),
            partition.bytes.to_string(),
        ]
    }));
    text.push_str(&table(&rows));
    text
}

async fn delete(args: DeleteArgs) -> Result<(), CliError> {
    let client = args.once.client(&args.connect).await?;
    let deleted = client.delete_stream(&args.stream).await?;
    match args.connect.format {
        Format::Json => print_json(&deleted),
        Format::Table => print(&format!("OK, {} records deleted\n", deleted.records)),
    }
}

async fn read(args: ReadArgs) -> Result<(), CliError> {
    let client = args.connect.client()?;
    let from = match (args.from, args.since) {
        (Some(offset), _) => ReadFrom::Offset(offset),
        (None, Some(age)) => ReadFrom::Time(since(age)),
        (None, None) => ReadFrom::First,
    };
    let answer: RecordsAnswer = client
        .records(
            &args.stream,
            args.partition,
            from,
            Some(args.limit),
            args.priority,
        )
        .await?;
    match args.connect.format {
        Format::Json => return print_json(&answer),
        Format::Table => {
            let lines = answer.records.iter().flat_map(|record| line(None, record));
            print_bytes(&lines.collect::<Vec<u8>>())?;
        }
    }
    if answer.next_offset < answer.end_offset {
        warn(&format!(
            "there are more records; go on with --from {}",
            answer.next_offset
        ));
    }
    Ok(())
}

/// So long ago, in milliseconds since 1970.
fn since(age: Duration) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    milliseconds(now.unwrap_or_default().saturating_sub(age))
}

/// A record as a line, with its stream and partition where several are followed.
fn line(of: Option<&TailBatch>, record: &StreamRecord) -> Vec<u8> {
    let mut line = match of {
        Some(batch) => format!("{}/{}  ", batch.stream, batch.partition).into_bytes(),
        None => Vec::new(),
    };
    line.extend_from_slice(format!("{}  ", record.offset).as_bytes());
    if let Some(key) = &record.record.key {
        line.extend_from_slice(format!("{}  ", shown(key, 40)).as_bytes());
    }
    line.extend_from_slice(&record.record.value);
    line.push(b'\n');
    line
}

async fn tail(args: TailArgs) -> Result<(), CliError> {
    let usual = if args.follow {
        TailFrom::Next
    } else {
        TailFrom::First
    };
    if args.stream.is_none() && args.prefix.is_none() {
        return Err(CliError::Usage(
            "nothing says what to follow: name a stream, or give --prefix what the names of streams begin with ('' for all)"
                .to_owned(),
        ));
    }
    let request = TailRequest {
        name: args.stream.clone().or(args.prefix.clone()).unwrap_or_default(),
        prefix: args.stream.is_none(),
        partition: args.partition,
        from: args.from.unwrap_or(usual),
        priority: args.priority,
    };
    // Whether anybody is there at all shall be known at once; a failover later on takes its time.
    args.connect.client()?.status().await?;
    let client = args.connect.builder()?.rounds_max(u32::MAX).build();
    let mut tail = client.tail(request);
    let mut begun = false;
    loop {
        match tail.next().await {
            Ok(Tailed::Records(batch)) => show(&args, &batch)?,
            // The second mark comes when there is nothing more to tell.
            Ok(Tailed::Progress) if begun && !args.follow => return Ok(()),
            Ok(Tailed::Progress) => begun = true,
            Err(error) if begun && error.is_temporary() => {
                warn(&format!("{error}; looking for a node that goes on"));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn show(args: &TailArgs, batch: &TailBatch) -> Result<(), CliError> {
    let several = args.partition.is_none();
    let mut output = Vec::new();
    for record in &batch.records {
        match args.connect.format {
            Format::Json => {
                serde_json::to_writer(&mut output, &OneRecord::new(batch, record)).map_err(|error| {
                    CliError::Other(format!("a record cannot be written as JSON: {error}"))
                })?;
                output.push(b'\n');
            }
            Format::Table => output.extend(line(several.then_some(batch), record)),
        }
    }
    print_bytes(&output)
}

/// A record with where it is.
#[derive(serde::Serialize)]
struct OneRecord<'a> {
    stream: &'a str,
    partition: u32,
    #[serde(flatten)]
    record: &'a StreamRecord,
}

impl<'a> OneRecord<'a> {
    fn new(batch: &'a TailBatch, record: &'a StreamRecord) -> OneRecord<'a> {
        OneRecord {
            stream: &batch.stream,
            partition: batch.partition,
            record,
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_api::NewRecord;

    use super::*;

    #[test]
    fn a_record_is_one_line_with_its_place() {
        let record = StreamRecord {
            offset: 7,
            time_ms: 0,
            record: NewRecord {
                key: Some("ada".into()),
                ..NewRecord::new("paid")
            },
        };
        let batch = TailBatch {
            stream: "orders".to_owned(),
            stream_id: 1,
            partition: 0,
            records: Vec::new(),
            next_offset: 8,
        };
        assert_eq!(line(Some(&batch), &record), b"orders/0  7  ada  paid\n");
        assert_eq!(line(None, &record), b"7  ada  paid\n");
        let json = serde_json::to_string(&OneRecord::new(&batch, &record)).expect("JSON");
        assert_eq!(
            json,
            r#"{"stream":"orders","partition":0,"offset":7,"time_ms":0,"value":"paid","key":"ada"}"#
        );
    }
}
