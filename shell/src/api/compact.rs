//! Forgetting old revisions: `POST /v1/compact`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, Uri};
use quorate_api::{CompactAnswer, CompactRequest};
use quorate_core::state::{Command, Reply, Revision};

use super::Shared;
use super::answer::{Failure, json};
use super::openapi::parameters::Carrying;
use super::openapi::problems::problems;
use super::query::Query;
use super::requests::Change;

problems! {
    CompactProblems = WRITE BODY [Compacted, FutureRevision];
}

/// Forgets what the keys were before a revision.
#[utoipa::path(
    post, path = "/v1/compact", operation_id = "compact", tag = "keys",
    params(
        Carrying,
    ),
    request_body(content = CompactRequest),
    responses(
        (status = 200, description = "Older revisions can no longer be read", body = CompactAnswer),
        CompactProblems,
    ),
)]
pub(super) async fn compact(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["redirect"])?;
    let change = Change::read(&query, &headers, &uri)?;
    let request: CompactRequest = shared.read_json(&headers, body, r#"{"revision": 1000}"#).await?;
    let revision = Revision(request.revision);
    match shared.change(Command::Compact { revision }, change).await? {
        Reply::Compacted { revision } => Ok(json(&CompactAnswer {
            revision: revision.0,
            compacted: request.revision,
        })),
        _ => Err(Failure::unexpected_reply()),
    }
}
