//! `quorate stream append`

use clap::Args;
use quorate_api::{AppendAnswer, AppendRequest, NewRecord, Placed};

use super::super::connect::ConnectArgs;
use super::super::error::CliError;
use super::super::kv::OnceArgs;
use super::super::output::{Format, print, print_json, read_input, warn};

pub(super) const EXAMPLES: &str = "\
Examples:
  quorate stream append orders hello
  quorate stream append orders one two three         as one batch
  quorate stream append orders paid --key ada        to the partition of ada
  quorate stream append orders paid --id 17          not again if 17 was appended before
  quorate stream append orders - < letter.txt        standard input as one record
  seq 1000 | quorate stream append orders --lines    a record a line of standard input, as one batch

Exit code 5 when there is no such stream.";

#[derive(Debug, Args)]
pub(in super::super) struct AppendArgs {
    /// The stream
    stream: String,
    /// What the records say; standard input as one record for `-`, and without any
    values: Vec<String>,
    /// A record a line of standard input
    #[arg(long, conflicts_with = "values")]
    lines: bool,
    /// Records of one key are in one partition, in order
    #[arg(long)]
    key: Option<String>,
    /// The message id, which suppresses duplicates. Of several records each has its own, with `-1`, `-2` and so on behind
    /// it: send the same records again under the same id
    #[arg(long)]
    id: Option<String>,
    /// From 0 (batch) to 4 (critical)
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=4))]
    priority: Option<u8>,
    /// The partition
    #[arg(long, conflicts_with = "key")]
    partition: Option<u32>,
    #[command(flatten)]
    once: OnceArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn run(args: AppendArgs) -> Result<(), CliError> {
    let values = values_of(args.values, args.lines)?;
    if values.is_empty() {
        warn("standard input has no lines; nothing was appended");
        return show(args.connect.format, &AppendAnswer { placed: Vec::new() });
    }
    let several = values.len() > 1;
    let numbered = (1..).zip(values);
    let id = |number: u64| {
        let id = args.id.as_ref()?;
        Some(if several {
            format!("{id}-{number}")
        } else {
            id.clone()
        })
    };
    let records = numbered.map(|(number, value)| NewRecord {
        key: args.key.clone().map(Into::into),
        id: id(number).map(Into::into),
        priority: args.priority,
        ..NewRecord::new(value)
    });
    let request = AppendRequest {
        records: records.collect(),
        partition: args.partition,
    };
    let client = args.once.client(&args.connect).await?;
    let answer = client.append(&args.stream, &request).await?;
    show(args.connect.format, &answer)
}

fn show(format: Format, answer: &AppendAnswer) -> Result<(), CliError> {
    match format {
        Format::Json => print_json(answer),
        Format::Table => print(&answer.placed.iter().map(placed).collect::<String>()),
    }
}

/// What is to be appended.
fn values_of(values: Vec<String>, by_lines: bool) -> Result<Vec<Vec<u8>>, CliError> {
    match values.as_slice() {
        [] if by_lines => Ok(lines_of(&read_input()?)),
        [] => Ok(vec![read_input()?]),
        [only] if only == "-" => Ok(vec![read_input()?]),
        values if values.iter().any(|value| value == "-") => Err(CliError::Usage(
            "`-` is standard input as one record; it stands alone".to_owned(),
        )),
        _ => Ok(values.into_iter().map(String::into_bytes).collect()),
    }
}

/// The lines of a text, of which the last one may lack its end.
fn lines_of(text: &[u8]) -> Vec<Vec<u8>> {
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    lines
        .map(|line| line.strip_suffix(b"\n").unwrap_or(line).to_vec())
        .collect()
}

fn placed(run: &Placed) -> String {
    let last = run.first_offset + u64::from(run.count).saturating_sub(1);
    let offsets = match run.count {
        1 => format!("offset {}", run.first_offset),
        _ => format!("offsets {} to {last}", run.first_offset),
    };
    let before = if run.duplicate { " (was there before)" } else { "" };
    format!("OK, partition {} {offsets}{before}\n", run.partition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_records_are_is_told_in_a_line() {
        let run = |count, duplicate| Placed {
            partition: 1,
            first_offset: 7,
            count,
            duplicate,
        };
        assert_eq!(placed(&run(1, false)), "OK, partition 1 offset 7\n");
        assert_eq!(
            placed(&run(3, true)),
            "OK, partition 1 offsets 7 to 9 (was there before)\n"
        );
    }

    #[test]
    fn every_line_is_a_record_and_no_lines_are_none() {
        assert_eq!(lines_of(b"one\n\ntwo"), [&b"one"[..], b"", b"two"]);
        assert_eq!(lines_of(b"one\n"), [b"one"]);
        assert_eq!(lines_of(b""), Vec::<Vec<u8>>::new());
    }
}
