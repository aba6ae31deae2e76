//! What requests about data have in common: how fresh a read must be, and how a change is carried out.

use bytes::Bytes;
use http::{HeaderMap, Uri};
use quorate_api::{Consistency, ProblemCode, headers};
use quorate_core::state::{Command, Query as StateQuery, REQUEST_KEY_BYTES_MAX, Reply, RequestId, Revision};

use super::Shared;
use super::answer::Failure;
use super::backend::{BackendError, ReadOptions, ReadReply, WriteOptions};
use super::query::Query;

/// How fresh a read must be, and as of when.
#[derive(Clone, Copy)]
pub(super) struct Read<'a> {
    consistency: Consistency,
    min_revision: Revision,
    /// As of which revision; none for the latest.
    pub(super) revision: Option<Revision>,
    uri: &'a Uri,
}

impl<'a> Read<'a> {
    /// The parameters that say it.
    pub(super) const PARAMETERS: [&'static str; 3] = ["consistency", "min_revision", "revision"];

    pub(super) fn of(query: &Query, uri: &'a Uri) -> Result<Read<'a>, Failure> {
        let revision = query.revision("revision")?;
        Ok(Read {
            consistency: query.consistency()?,
            // What the state was at a revision is known once it has come there.
            min_revision: query.revision("min_revision")?.max(revision).unwrap_or_default(),
            revision,
            uri,
        })
    }

    /// The latest state, as seen by all.
    pub(super) fn latest(uri: &'a Uri) -> Read<'a> {
        Read {
            consistency: Consistency::Linearizable,
            min_revision: Revision::default(),
            revision: None,
            uri,
        }
    }

    /// The latest state, as seen by all, in which this revision is made.
    pub(super) fn with(made: Revision, uri: &'a Uri) -> Read<'a> {
        Read {
            min_revision: made,
            ..Read::latest(uri)
        }
    }

    pub(super) fn uri(&self) -> &'a Uri {
        self.uri
    }

    pub(super) fn consistency(&self) -> Consistency {
        self.consistency
    }
}

/// How a change is carried out.
#[derive(Clone)]
pub(super) struct Change<'a> {
    redirect: bool,
    /// Under which key of the client's choice it is carried out once.
    request: Option<Bytes>,
    uri: &'a Uri,
}

impl<'a> Change<'a> {
    /// From the parameter `redirect` and the header `Idempotency-Key`.
    pub(super) fn read(query: &Query, headers: &HeaderMap, uri: &'a Uri) -> Result<Change<'a>, Failure> {
        Ok(Change {
            redirect: query.switch("redirect")?,
            request: request_key(headers)?,
            uri,
        })
    }
}

impl Change<'_> {
    /// Whether it is carried out once, however often it is asked for.
    pub(super) fn is_once(&self) -> bool {
        self.request.is_some()
    }
}

fn request_key(headers: &HeaderMap) -> Result<Option<Bytes>, Failure> {
    let Some(key) = headers.get(headers::IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    if key.is_empty() || key.len() > REQUEST_KEY_BYTES_MAX {
        return Err(Failure::bad_request(
            format!("the header Idempotency-Key has {} bytes", key.len()),
            format!(
                "expected 1 to {REQUEST_KEY_BYTES_MAX} bytes, different ones for each request, such as a UUID"
            ),
        ));
    }
    Ok(Some(Bytes::copy_from_slice(key.as_bytes())))
}

impl Shared {
    /// Reads keys, with about `bytes_max` bytes of them.
    pub(super) async fn read(
        &self,
        query: StateQuery,
        bytes_max: usize,
        read: Read<'_>,
    ) -> Result<ReadReply, Failure> {
        let options = self.read_options(read);
        self.until_leader(options.deadline, false, || {
            self.backend.read(query.clone(), bytes_max, options)
        })
        .await
        .map_err(|error| misdirected(error, read.uri))
    }

    pub(super) fn read_options(&self, read: Read<'_>) -> ReadOptions {
        ReadOptions {
            consistency: read.consistency,
            min_revision: read.min_revision,
            deadline: self.deadline(),
        }
    }

    /// Replicates and applies a command, once if its client gave it a key.
    pub(super) async fn change(&self, command: Command, change: Change<'_>) -> Result<Reply, Failure> {
        let deadline = self.deadline();
        let options = WriteOptions {
            deadline,
            forward: !change.redirect,
        };
        let is_once = change.request.is_some();
        let command = match change.request {
            None => command,
            Some(key) => Command::Once {
                request: RequestId::Key(key),
                command: command.encode(),
            },
        };
        let reply = self
            .until_leader(deadline, true, || self.backend.write(command.clone(), options))
            .await;
        reply.map_err(|error| {
            let mut failure = misdirected(error, change.uri);
            if is_once && failure.problem.code == ProblemCode::UnknownOutcome {
                failure.problem.action =
                    "send it again with the same Idempotency-Key: it is carried out once".to_owned();
            }
            failure
        })
    }
}

/// The problem, with the leader to turn to when another node has to do it.
pub(super) fn misdirected(error: BackendError, uri: &Uri) -> Failure {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Failure::from(error).redirected(path)
}
