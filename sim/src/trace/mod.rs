//! The trace of a run: everything that happened, one JSON object a line, for the report page and for other programs.
//!
//! The first line is a [`Header`], every other one a [`Record`]: when, and an [`Event`]. Invariants:
//! - records are in the order in which things happened, so `at` never falls;
//! - what a node is (its role, its log) is told when it changes, and again after it has started;
//! - every `arrived` and `lost` names a message that a `sent` before it told of, and every `answered` an `asked`.
//!
//! Both simulations write this format, and none of it is about one of them. A field or event more makes no new version;
//! another meaning of what there is does.

mod journal;

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead};

use serde::{Deserialize, Serialize};

pub use journal::Journal;

/// What the first line names the format.
pub const FORMAT: &str = "quorate-trace";

/// The version that this simulator writes and reads.
pub const VERSION: u32 = 1;

/// The number of a node.
pub type Node = u64;

/// The first line: which run this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: Cow<'static, str>,
    /// [`VERSION`].
    pub version: u32,
    /// Which simulation: `core`, or `full`.
    pub simulation: Cow<'static, str>,
    /// The seed of the run.
    pub seed: u64,
    /// Voters at the beginning, numbered from 1.
    pub nodes: u64,
}

impl Header {
    /// The header of a run that begins.
    pub fn new(simulation: &'static str, seed: u64, nodes: u64) -> Header {
        Header {
            format: Cow::Borrowed(FORMAT),
            version: VERSION,
            simulation: Cow::Borrowed(simulation),
            seed,
            nodes,
        }
    }
}

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Nanoseconds of simulated time since the run began.
    pub at: u64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The process of a node starts, for the `life`-th time.
    Started {
        /// The node.
        node: Node,
        /// Counted from 1.
        life: u32,
    },
    /// The process of a node ended, whatever the reason.
    Stopped {
        /// The node.
        node: Node,
    },
    /// A node never starts again.
    Gone {
        /// The node.
        node: Node,
    },
    /// A process stands still.
    Paused {
        /// The node.
        node: Node,
    },
    /// A process that stood still moves again.
    Resumed {
        /// The node.
        node: Node,
    },
    /// The part that a node plays, its term or its leader changed.
    Role {
        /// The node.
        node: Node,
        /// Its part.
        role: Role,
        /// Its term.
        term: u64,
        /// The leader that it knows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        leader: Option<Node>,
    },
    /// Positions in the log of a node changed.
    Log {
        /// The node.
        node: Node,
        /// The last index known to be committed.
        commit: u64,
        /// The last index that its state machine has applied.
        applied: u64,
        /// The last index that its disk holds.
        durable: u64,
        /// The last index.
        last: u64,
    },
    /// A message leaves a node.
    Sent {
        /// Its number in this run.
        message: u64,
        /// Who sends it.
        from: Node,
        /// Whom it is for.
        to: Node,
        /// What it is, such as `append` or `heartbeat`.
        kind: Cow<'static, str>,
        /// The term it is of.
        term: u64,
        /// What it says, in words.
        #[serde(default, skip_serializing_if = "str::is_empty")]
        about: Cow<'static, str>,
    },
    /// A message, or a repetition of it, reaches a process that runs.
    Arrived {
        /// Its number.
        message: u64,
    },
    /// A message reaches nobody.
    Lost {
        /// Its number.
        message: u64,
        /// Why.
        why: Loss,
    },
    /// Something breaks.
    Fault {
        /// What, such as `crash` or `partition`.
        fault: Cow<'static, str>,
        /// Where.
        class: FaultClass,
        /// The nodes it hits; none when it hits links, or everything.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        nodes: Vec<Node>,
        /// The directed links it hits.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        links: Vec<(Node, Node)>,
        /// Nanoseconds since the run began until when it lasts, unless it is healed before; none when it is over at once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<u64>,
        /// More of it, in words.
        #[serde(default, skip_serializing_if = "str::is_empty")]
        about: Cow<'static, str>,
    },
    /// Faults end.
    Healed {
        /// The nodes whose faults end; none when all do.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nodes: Option<Vec<Node>>,
    },
    /// A client or an operator asks a node something.
    Asked {
        /// The number of the request in this run.
        request: u64,
        /// Whom.
        node: Node,
        /// What.
        operation: Operation,
        /// What, in words.
        #[serde(default, skip_serializing_if = "str::is_empty")]
        about: Cow<'static, str>,
    },
    /// It learns what came of it.
    Answered {
        /// The number of the request.
        request: u64,
        /// What came of it.
        answer: Answer,
        /// More of it, in words.
        #[serde(default, skip_serializing_if = "str::is_empty")]
        about: Cow<'static, str>,
    },
    /// A membership is committed.
    Membership {
        /// The entry that holds it.
        index: u64,
        /// Who votes.
        voters: Vec<Node>,
        /// Who voted before, while both majorities are needed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        outgoing: Vec<Node>,
        /// Who does not vote.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        learners: Vec<Node>,
    },
    /// A node tells something of itself.
    Told {
        /// The node.
        node: Node,
        /// What kind of thing, such as `campaign` or `stepped-down`.
        kind: Cow<'static, str>,
        /// What, in words.
        about: Cow<'static, str>,
    },
    /// Something that there is no event for.
    Note {
        /// What, in words.
        about: Cow<'static, str>,
    },
    /// A checker found that a property does not hold. Nothing happens after it.
    Violation {
        /// The property.
        checker: Cow<'static, str>,
        /// What was seen, in words.
        seen: Cow<'static, str>,
        /// Steps of consensus since the run began, where they are counted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        steps: Option<u64>,
    },
}

/// The part that a node plays; the names of consensus, and what a page shows of nodes that do not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Leads.
    Leader,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Follows, and votes.
    Follower,
    /// Follows.
    Learner,
    /// Follows without the commands, and votes.
    Witness,
    /// Its disk failed.
    Failed,
}

/// Why a message reaches nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// The link is cut.
    Cut,
    /// The network dropped it.
    Dropped,
    /// Nobody runs where it arrives.
    Down,
}

/// Where something breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultClass {
    /// Between nodes.
    Network,
    /// A process.
    Process,
    /// A disk.
    Disk,
    /// A clock.
    Clock,
}

/// What is asked of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// A command.
    Write,
    /// A linearizable read.
    Read,
    /// A change of the membership.
    ChangeMembership,
    /// A hand-over of the leadership.
    Transfer,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is done.
    Acknowledged,
    /// Nothing was done.
    Refused,
    /// It may be done or not.
    Unknown,
}

/// Why a text is no trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It cannot be read.
    #[error(transparent)]
    Input(#[from] io::Error),
    /// A line is none of a trace.
    #[error("line {line} is none of a trace: {error}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// It is something else, or of another version.
    #[error("this is {format} of version {version}; this simulator reads {FORMAT} of version {VERSION}")]
    Format {
        /// What it says it is.
        format: String,
        /// Its version.
        version: u32,
    },
}

/// Reads a trace, line by line.
///
/// # Errors
/// When the text is no trace, or one of another version.
pub fn read(text: impl BufRead) -> Result<(Header, Vec<Record>), TraceError> {
    let mut lines = text.lines();
    let syntax = |line| move |error| TraceError::Syntax { line, error };
    let first = lines.next().transpose()?.unwrap_or_default();
    let header: Header = serde_json::from_str(&first).map_err(syntax(1))?;
    if header.format != FORMAT || header.version != VERSION {
        return Err(TraceError::Format {
            format: header.format.into_owned(),
            version: header.version,
        });
    }
    let mut records = Vec::new();
    for (place, line) in lines.enumerate() {
        records.push(serde_json::from_str(&line?).map_err(syntax(place + 2))?);
    }
    Ok((header, records))
}

/// A name as it is written in a trace: that of a variant, in lower case and with hyphens.
pub fn name_of(value: &impl fmt::Debug) -> String {
    let text = format!("{value:?}");
    let variant = text
        .split(|character: char| !character.is_ascii_alphanumeric())
        .next();
    let mut name = String::new();
    for character in variant.unwrap_or_default().chars() {
        if character.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(character.to_ascii_lowercase());
    }
    name
}

/// For people: a line without the time.
impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = serde_json::to_value(self).map_err(|_| fmt::Error)?;
        let serde_json::Value::Object(fields) = value else {
            return Err(fmt::Error);
        };
        if let Some(serde_json::Value::String(name)) = fields.get("event") {
            write!(formatter, "{name}")?;
        }
        for (name, value) in fields.iter().filter(|(name, _)| *name != "event") {
            match value {
                serde_json::Value::String(text) => write!(formatter, " {name}={text}")?,
                other => write!(formatter, " {name}={other}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_of_another_format_or_version_is_refused() {
        let refused = |text: &str| read(text.as_bytes()).expect_err("it is refused").to_string();
        let other = r#"{"format":"quorate-trace","version":9,"simulation":"core","seed":1,"nodes":3}"#;
        assert!(refused(other).contains("version 9"), "{}", refused(other));
        assert!(refused("").contains("line 1"), "{}", refused(""));
        let header = serde_json::to_string(&Header::new("core", 1, 3)).expect("it is JSON");
        assert!(refused(&format!("{header}\nnonsense\n")).contains("line 2"));
    }

    #[test]
    fn variants_are_named_in_lower_case_with_hyphens() {
        #[derive(Debug)]
        enum Example {
            OneWord,
            WithFields { _field: u8 },
        }
        assert_eq!(name_of(&Example::OneWord), "one-word");
        assert_eq!(name_of(&Example::WithFields { _field: 1 }), "with-fields");
    }
}
