//! `quorate watch`

use clap::{Args, ValueEnum};
use quorate_api::{KeyValue, WatchChange, WatchEvent};
use quorate_client::{Filter, Keys, WatchRequest, Watched};

use super::connect::ConnectArgs;
use super::error::CliError;
use super::output::{Format, print, print_bytes, warn};

pub(super) const EXAMPLES: &str = "\
Examples:
  quorate watch greeting                       what becomes of one key
  quorate watch --prefix users/ --prev         of all that begin with users/, with what was there before
  quorate watch --prefix ''                    of all keys
  quorate watch a --end n                      of the keys from a up to and without n
  quorate watch greeting --from-revision 12    first what became of it since revision 12
  quorate watch --prefix users/ -w json        one JSON object a line and revision

Goes on at another node when its node goes, without a gap or a repeat, until it is interrupted.
Exit code 4 when the changes to begin with are compacted.";

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// The key
    #[arg(required_unless_present = "prefix", conflicts_with = "prefix")]
    key: Option<String>,
    /// What the keys begin with; empty for all keys
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// The key after the last one, when KEY is the first of a range
    #[arg(long, value_name = "KEY", requires = "key")]
    end: Option<String>,
    /// The first revision to tell of; otherwise what is yet to come
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(u64).range(1..))]
    from_revision: Option<u64>,
    /// Tell what was there before
    #[arg(long, visible_alias = "previous")]
    prev: bool,
    /// Leave out a kind of changes
    #[arg(long, value_enum)]
    filter: Option<FilterArg>,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FilterArg {
    /// Do not tell of keys that get a value
    NoPuts,
    /// Do not tell of keys that are removed
    NoDeletes,
}

impl WatchArgs {
    fn request(&self) -> Result<WatchRequest, CliError> {
        let bytes = |text: &str| text.as_bytes().to_vec();
        let keys = match (&self.key, &self.prefix, &self.end) {
            (Some(key), _, _) if key.is_empty() => {
                let message =
                    "the key is empty (was a variable of the shell empty?); --prefix '' watches all keys";
                return Err(CliError::Usage(message.to_owned()));
            }
            (Some(key), _, Some(end)) => Keys::Range(bytes(key), Some(bytes(end))),
            (Some(key), _, None) => Keys::Only(bytes(key)),
            (None, prefix, _) => Keys::Prefix(bytes(prefix.as_deref().unwrap_or_default())),
        };
        Ok(WatchRequest {
            keys,
            from_revision: self.from_revision,
            previous: self.prev,
            filter: match self.filter {
                None => Filter::Nothing,
                Some(FilterArg::NoPuts) => Filter::Puts,
                Some(FilterArg::NoDeletes) => Filter::Deletes,
            },
        })
    }
}

pub(super) async fn run(args: WatchArgs) -> Result<(), CliError> {
    let request = args.request()?;
    // Whether anybody is there at all shall be known at once; a failover later on takes its time.
    args.connect.client()?.status().await?;
    let client = args.connect.builder()?.rounds_max(u32::MAX).build();
    let mut watch = client.watch(request);
    let mut begun = false;
    loop {
        match watch.next().await {
            Ok(Watched::Change(change)) => show(&change, args.connect.format)?,
            Ok(Watched::Progress { .. }) => begun = true,
            Err(error) if begun && error.is_temporary() => {
                let from = watch.position().map_or(0, |position| position + 1);
                warn(&format!(
                    "{error}; looking for a node that goes on from revision {from}"
                ));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn show(change: &WatchChange, format: Format) -> Result<(), CliError> {
    match format {
        Format::Json => {
            let mut line = serde_json::to_string(change)
                .map_err(|error| CliError::Other(format!("the change cannot be written as JSON: {error}")))?;
            line.push('\n');
            print(&line)
        }
        Format::Table => {
            let lines: Vec<u8> = change
                .events
                .iter()
                .flat_map(|event| line(change.revision, event))
                .collect();
            print_bytes(&lines)
        }
    }
}

fn line(revision: u64, event: &WatchEvent) -> Vec<u8> {
    let (head, value, previous) = match event {
        WatchEvent::Put { entry, previous } => ("put   ", Some(&entry.value), previous),
        WatchEvent::Delete { previous, .. } => ("delete", None, previous),
    };
    let mut line = format!("{revision}  {head}  ").into_bytes();
    line.extend_from_slice(event.key());
    if let Some(value) = value {
        line.extend_from_slice(b"  ");
        line.extend_from_slice(value);
    }
    if let Some(KeyValue { value, .. }) = previous {
        line.extend_from_slice(b"  (was ");
        line.extend_from_slice(value);
        line.push(b')');
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use quorate_api::KeyName;

    use super::*;

    #[test]
    fn a_change_is_one_line() {
        let entry = |value: &'static str| KeyValue {
            key: "greeting".into(),
            value: value.into(),
            ..KeyValue::default()
        };
        let put = WatchEvent::Put {
            entry: entry("hi"),
            previous: Some(entry("hello")),
        };
        assert_eq!(line(12, &put), b"12  put     greeting  hi  (was hello)\n");
        let delete = WatchEvent::Delete {
            entry: KeyName("greeting".into()),
            previous: None,
        };
        assert_eq!(line(13, &delete), b"13  delete  greeting\n");
    }
}
