//! Why a request failed, and what that says about its effect.

use std::time::Duration;

use quorate_api::{Problem, ProblemCode};
use thiserror::Error;

/// Why a request failed. Only after [`Error::UnknownOutcome`] may a write have taken effect.
#[derive(Debug, Error)]
pub enum Error {
    /// A text is no endpoint.
    #[error("`{endpoint}` is no endpoint: {reason}")]
    Endpoint {
        /// The text.
        endpoint: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No endpoint could be reached, or the connection broke before the request was sent.
    #[error("cannot reach {endpoint}: {reason}")]
    Connection {
        /// The last one that was tried.
        endpoint: String,
        /// What the system said.
        reason: String,
    },
    /// No answer in time; nothing was appended.
    #[error("no answer within {} ms", .after.as_millis())]
    TimedOut {
        /// How long was waited.
        after: Duration,
    },
    /// The write reached a node and its fate is not known: it may be applied, now or later, or never.
    #[error("the outcome of the write is unknown: {reason}; read the key before writing again")]
    UnknownOutcome {
        /// The node that it was sent to.
        endpoint: String,
        /// What happened instead of an answer.
        reason: String,
    },
    /// What was asked for is not there.
    #[error("{0}")]
    NotFound(Box<Problem>),
    /// A compare-and-set found another revision; nothing changed.
    #[error("{problem}")]
    Conflict {
        /// The key's revision; 0 when there is no such key.
        current_revision: u64,
        /// What the node said.
        problem: Box<Problem>,
    },
    /// What was asked for is older than what is kept.
    #[error("{problem}")]
    Compacted {
        /// The oldest revision that there is.
        oldest_revision: u64,
        /// What the node said.
        problem: Box<Problem>,
    },
    /// The record at an offset was dropped by retention.
    #[error("{problem}")]
    OffsetDeleted {
        /// The first offset that is kept.
        first_offset: u64,
        /// What the node said.
        problem: Box<Problem>,
    },
    /// The node refused for another reason.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// The answer is none that this client understands.
    #[error("{endpoint} does not answer like a Quorate node: {reason}")]
    Protocol {
        /// The node.
        endpoint: String,
        /// What is odd.
        reason: String,
    },
}

impl Error {
    pub(crate) fn from_problem(endpoint: &str, problem: Box<Problem>) -> Error {
        match problem.code {
            ProblemCode::UnknownOutcome => Error::UnknownOutcome {
                endpoint: endpoint.to_owned(),
                reason: problem.detail,
            },
            ProblemCode::RevisionConflict => Error::Conflict {
                current_revision: problem.current_revision.unwrap_or(0),
                problem,
            },
            ProblemCode::Compacted => Error::Compacted {
                oldest_revision: problem.oldest_revision.unwrap_or(0),
                problem,
            },
            ProblemCode::OffsetDeleted => Error::OffsetDeleted {
                first_offset: problem.first_offset.unwrap_or(0),
                problem,
            },
            ProblemCode::KeyNotFound
            | ProblemCode::LeaseNotFound
            | ProblemCode::MemberNotFound
            | ProblemCode::StreamNotFound
            | ProblemCode::PartitionNotFound
            | ProblemCode::GroupNotFound
            | ProblemCode::SessionNotFound
            | ProblemCode::SectionNotFound
            | ProblemCode::SettingNotFound
            | ProblemCode::SchemaNotFound
            | ProblemCode::NotFound => Error::NotFound(problem),
            _ => Error::Refused(problem),
        }
    }

    /// What the node said, when it said something.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Error::NotFound(problem)
            | Error::Refused(problem)
            | Error::Conflict { problem, .. }
            | Error::OffsetDeleted { problem, .. }
            | Error::Compacted { problem, .. } => Some(problem),
            _ => None,
        }
    }

    /// Whether the same request may succeed later, or at another node, and certainly changed nothing.
    pub fn is_temporary(&self) -> bool {
        match self {
            Error::Connection { .. } | Error::TimedOut { .. } => true,
            Error::Endpoint { .. } | Error::UnknownOutcome { .. } | Error::Protocol { .. } => false,
            Error::NotFound(problem)
            | Error::Refused(problem)
            | Error::Conflict { problem, .. }
            | Error::OffsetDeleted { problem, .. }
            | Error::Compacted { problem, .. } => problem.code.is_safe_to_retry(),
        }
    }

    /// A stable word for counting errors by kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::Endpoint { .. } => "endpoint",
            Error::Connection { .. } => "connection",
            Error::TimedOut { .. } => "timed_out",
            Error::UnknownOutcome { .. } => "unknown_outcome",
            Error::Protocol { .. } => "protocol",
            Error::NotFound(problem)
            | Error::Refused(problem)
            | Error::Conflict { problem, .. }
            | Error::OffsetDeleted { problem, .. }
            | Error::Compacted { problem, .. } => problem.code.as_str(),
        }
    }
}
