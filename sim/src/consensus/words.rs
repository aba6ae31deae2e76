//! Commands as people write them, for those who read what a run did.

use bytes::Bytes;
use quorate_core::state::{
    Command, Operand, Operation, RequestId, SchemaChange, SectionChange, SessionCommand, SettingsChange,
    StreamCommand, Transaction,
};

use super::checker::client::Serial;

/// A command, with what tells it from others and which attempt it is.
pub(super) fn command_in_words(command: &[u8], serial: Option<Serial>, attempt: u32) -> String {
    let what = match Command::decode(command) {
        Ok(command) => in_words(&command),
        Err(error) => error.to_string(),
    };
    let serial = serial.map_or(String::new(), |serial| format!(", write {serial}"));
    let attempt = if attempt > 1 {
        format!(", attempt {attempt}")
    } else {
        String::new()
    };
    format!("{what}{serial}{attempt}")
}

fn text(key: &Bytes) -> String {
    String::from_utf8_lossy(key).into_owned()
}

fn in_words(command: &Command) -> String {
    match command {
        Command::Put(put) => format!("put {}", text(&put.key)),
        Command::Delete(delete) => format!("delete {:?}", delete.range),
        Command::Transact(transaction) => guarded_in_words(transaction),
        Command::Compact { revision } => format!("compact up to revision {revision}"),
        Command::Grant { lease, ttl } => match lease {
            Some(lease) => format!("grant lease {lease} for {ttl:?}"),
            None => format!("grant a lease for {ttl:?}"),
        },
        Command::Revoke { lease } => format!("revoke lease {lease}"),
        Command::Expire { term, leases } => {
            let leases: Vec<String> = leases.iter().map(|(lease, _)| lease.to_string()).collect();
            format!("expire leases {} as decided in term {term}", leases.join(", "))
        }
        Command::Register => "register a client".to_owned(),
        Command::Once { request, command } => {
            let what =
                Command::decode(command).map_or_else(|error| error.to_string(), |inner| in_words(&inner));
            match request {
                RequestId::Key(key) => format!("once as {}: {what}", text(key)),
                RequestId::Numbered { client, number, .. } => {
                    format!("once as number {number} of client {client}: {what}")
                }
            }
        }
        Command::Forget { before } => format!("forget what was last used before {before}"),
        Command::Session(command) => session_in_words(command),
        Command::Stream(command) => stream_in_words(command),
        Command::Settings(command) => settings_in_words(&command.change),
    }
}

fn session_in_words(command: &SessionCommand) -> String {
    match command {
        SessionCommand::Create { session, .. } => match session {
            Some(session) => format!("create session {session}"),
            None => "create a session".to_owned(),
        },
        SessionCommand::Touch { session, epoch, .. } => match epoch {
            Some(epoch) => format!("touch session {session} in epoch {epoch}"),
            None => format!("touch session {session}"),
        },
        SessionCommand::Delete { session, .. } => format!("end session {session}"),
        SessionCommand::SetCapacity { node, capacity } => format!("let {node} have {capacity} sessions"),
        SessionCommand::Drain { node, drain } => format!("drain {node}: {drain:?}"),
        SessionCommand::Rebalance => "rebalance sessions".to_owned(),
        SessionCommand::Sight { term, nodes } => {
            let nodes = nodes
                .iter()
                .map(|(node, presence)| format!("{node} {presence:?}"));
            let nodes: Vec<String> = nodes.collect();
            format!("sighted in term {term}: {}", nodes.join(", "))
        }
        SessionCommand::Step { term } => format!("move a few sessions as decided in term {term}"),
    }
}

fn stream_in_words(command: &StreamCommand) -> String {
    match command {
        StreamCommand::Create { name, .. } => format!("create stream {name}"),
        StreamCommand::Delete { name } => format!("delete stream {name}"),
        StreamCommand::Append(append) => {
            format!(
                "append {} records to stream {}",
                append.records.len(),
                append.stream
            )
        }
        StreamCommand::Trim { term, cuts, forget } => format!(
            "trim {} partitions and the ids of {} streams as decided in term {term}",
            cuts.len(),
            forget.len()
        ),
        StreamCommand::CreateGroup { stream, group, .. } => {
            format!("create group {group} of stream {stream}")
        }
        StreamCommand::DeleteGroup { stream, group } => format!("delete group {group} of stream {stream}"),
        StreamCommand::Commit { stream, group, .. } => format!("commit group {group} of stream {stream}"),
        StreamCommand::Pause {
            stream,
            group,
            paused,
        } => {
            let what = if *paused { "pause" } else { "resume" };
            format!("{what} group {group} of stream {stream}")
        }
    }
}

fn settings_in_words(change: &SettingsChange) -> String {
    let section_in_words = |change: &SectionChange| {
        let entries = change.settings.entries();
        let mut words: Vec<String> = entries
            .map(|(key, value)| match value {
                Some(_) => format!("set {}/{key}", change.section),
                None => format!("remove {}/{key}", change.section),
            })
            .collect();
        match &change.schema {
            SchemaChange::Stays => {}
            SchemaChange::Set(_) => words.push(format!("set the schema of {}", change.section)),
            SchemaChange::Removed => words.push(format!("remove the schema of {}", change.section)),
        }
        words.join(", ")
    };
    let words: Vec<String> = change.sections.iter().map(section_in_words).collect();
    words.join("; ")
}

/// A put under a condition; anything else only by its size.
fn guarded_in_words(transaction: &Transaction) -> String {
    let block = transaction.blocks.first();
    let condition = block.and_then(|block| match &block.compare.first()?.with {
        Operand::ModRevision(revision) => Some(*revision),
        _ => None,
    });
    let put = block.and_then(|block| match block.then.first()? {
        Operation::Put(put) => Some(put),
        _ => None,
    });
    match (condition, put) {
        (Some(revision), Some(put)) => format!("put {} if at revision {revision}", text(&put.key)),
        _ => format!("a transaction of {} blocks", transaction.blocks.len()),
    }
}
