//! `quorate txn`

use std::path::PathBuf;

use clap::Args;
use quorate_api::{TxnAnswer, TxnRequest, TxnResponse};

use super::connect::ConnectArgs;
use super::error::CliError;
use super::kv::{OnceArgs, entries_table};
use super::output::{Format, print, print_json, read_input};

pub(super) const EXAMPLES: &str = r#"Examples:
  quorate txn transfer.json
  quorate txn transfer.json --idempotency-key transfer-17    carried out once, however often it is repeated
  echo '{"then": [{"put": {"key": "a", "value": "1"}}, {"put": {"key": "b", "value": "2"}}]}' | quorate txn

A transaction in a file, which takes a lock or shows who has it:
  {
    "compare": [{"key": "lock", "version": 0}],
    "then":    [{"put": {"key": "lock", "value": "me"}}],
    "else":    [{"get": {"key": "lock"}}]
  }

compare   key, prefix, or start and end; one of version, create_revision, mod_revision, value and lease;
          and a relation: =, !=, > or < (= when it is left out)
then      operations: get, put, delete, and txn for a nested one, when all comparisons hold
else      operations otherwise

Exit code 0 whichever way it went; the answer tells. 2 when the text is no transaction."#;

#[derive(Debug, Args)]
pub(super) struct TxnArgs {
    /// A file with the transaction as JSON; `-` reads standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    once: OnceArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn run(args: TxnArgs) -> Result<(), CliError> {
    let from_input = args.file.as_os_str() == "-";
    let name = if from_input {
        "standard input".to_owned()
    } else {
        args.file.display().to_string()
    };
    let text = match from_input {
        true => read_input()?,
        false => std::fs::read(&args.file).map_err(|error| CliError::io(format!("read {name}"), error))?,
    };
    let transaction: TxnRequest = serde_json::from_slice(&text)
        .map_err(|error| CliError::Usage(format!("{name} is no transaction: {error}")))?;
    let client = args.once.client(&args.connect).await?;
    let answer = client.transact(&transaction).await?;
    match args.connect.format {
        Format::Json => print_json(&answer),
        Format::Table => print(&report(&answer)),
    }
}

fn report(answer: &TxnAnswer) -> String {
    let mut text = format!("{}, revision {}\n", way(answer.succeeded), answer.revision);
    add_responses(&mut text, &answer.responses, "");
    text
}

fn way(succeeded: bool) -> &'static str {
    if succeeded { "then" } else { "else" }
}

/// One paragraph an operation, indented as deep as it is nested.
fn add_responses(text: &mut String, responses: &[TxnResponse], indent: &str) {
    for response in responses {
        let (line, entries) = match response {
            TxnResponse::Put(put) => ("put".to_owned(), put.previous.as_slice()),
            TxnResponse::Delete(delete) => {
                (format!("delete: {}", delete.deleted), delete.previous.as_slice())
            }
            TxnResponse::Get(found) => {
                let count = found.count.unwrap_or(found.entries.len() as u64);
                let more = if found.more { " and more" } else { "" };
                (format!("get: {count}{more}"), found.entries.as_slice())
            }
            TxnResponse::Txn(taken) => {
                text.push_str(&format!("{indent}txn: {}\n", way(taken.succeeded)));
                add_responses(text, &taken.responses, &format!("{indent}  "));
                continue;
            }
        };
        text.push_str(&format!("{indent}{line}\n"));
        if !entries.is_empty() {
            for line in entries_table(entries).lines() {
                text.push_str(&format!("{indent}  {line}\n"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_shown_as_deep_as_it_is_nested() {
        let answer: TxnAnswer = serde_json::from_str(
            r#"{"revision": 3, "succeeded": true, "responses": [
                {"put": {}},
                {"txn": {"succeeded": false, "responses": [
                    {"delete": {"deleted": 2}},
                    {"get": {"entries": [
                        {"key": "a", "value": "1", "create_revision": 1, "mod_revision": 2, "version": 2}
                    ], "more": true}}
                ]}},
                {"get": {"entries": [], "more": false, "count": 9}}
            ]}"#,
        )
        .unwrap();
        let expected = "\
then, revision 3
put
txn: else
  delete: 2
  get: 1 and more
    KEY  REVISION  VERSION  LEASE  VALUE
    a    2         2        -      1
get: 9
";
        assert_eq!(report(&answer), expected);
    }

    #[test]
    fn the_example_of_the_help_is_a_transaction() {
        let begin = EXAMPLES.find("  {\n").expect("an example");
        let end = EXAMPLES.find("\n\ncompare").expect("its end");
        let transaction: TxnRequest = serde_json::from_str(&EXAMPLES[begin..end]).unwrap();
        assert_eq!((transaction.compare.len(), transaction.then.len()), (1, 1));
    }
}
