//! The description of the client port: OpenAPI 3.1, made from the handlers, and a page to read it.
//!
//! A handler says beside itself (`#[utoipa::path]`) at which path and by which method it is reached, what it takes and
//! what it answers; its path is registered from there, so that a handler without a description is reached by nobody. The
//! schemas are those of the types that it reads and writes ([`quorate_api`]). Tests hold the rest together: the router's
//! table has what the document has and nothing more, each handler takes the parameters that the document names, and every
//! answer in the tests of this module fits the document.
//!
//! - [`problems`]: which problems an operation can answer;
//! - [`parameters`]: what many operations take.

#[cfg(test)]
pub(super) mod contract;
pub(super) mod parameters;
pub(super) mod problems;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_SECURITY_POLICY, HeaderValue};
use quorate_api::{
    Problem, ProblemCode, SessionChange, SettingsChange, TailBatch, TailLine, TailMark, TxnDelete,
    TxnDeleted, TxnFound, TxnGet, TxnPut, TxnPutDone, TxnTaken, WatchChange, WatchMark,
};
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, Paths};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::Shared;
use super::answer::with_type;
use problems::AnyProblems;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Quorate",
        description = "Keys, leases, watches, transactions, sessions, event streams and settings on a cluster that survives the \
                       failure of machines, and the cluster itself. Every node answers every request. Errors are \
                       `application/problem+json` with a stable `code`."
    ),
    servers((url = "/", description = "The node that served this document")),
    components(schemas(
        Problem, ProblemCode, SessionChange, SettingsChange, TailBatch, TailLine, TailMark,
        TxnDelete, TxnDeleted, TxnFound, TxnGet, TxnPut, TxnPutDone, TxnTaken, WatchChange, WatchMark,
    )),
    tags(
        (name = "keys", description = "Keys with values, revisions and history"),
        (name = "transactions", description = "Several reads and writes as one change"),
        (name = "watches", description = "What becomes of keys, as it happens"),
        (name = "leases", description = "Keys that go when nobody keeps them alive"),
        (name = "sessions", description = "Sessions that are placed on nodes, each with one owner at a time"),
        (name = "streams", description = "Event streams: append, read, follow, and consumer groups"),
        (name = "settings", description = "Sections of settings, each with a schema if it has one"),
        (name = "cluster", description = "Members, leadership, and where sessions may go"),
        (name = "node", description = "Health and metrics of the node that answers, and this document"),
    )
)]
struct Description;

/// A router without any routes, which collects their descriptions.
pub(super) fn router() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::with_openapi(Description::openapi())
}

/// The same handlers at another path.
pub(super) fn also_at(
    path: &str,
    (schemas, paths, methods): UtoipaMethodRouter<Arc<Shared>>,
) -> UtoipaMethodRouter<Arc<Shared>> {
    let mut there = Paths::new();
    for (original, mut item) in paths.paths {
        for (method, operation) in operations(&mut item) {
            let id = operation.operation_id.take().unwrap_or_default();
            operation.operation_id =
                Some(id + &path.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_"));
            operation.description = Some(format!("The same as `{method} {original}`."));
        }
        there.paths.insert(path.to_owned(), item);
    }
    (schemas, there, methods)
}

fn operations(item: &mut utoipa::openapi::PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    [
        ("GET", &mut item.get),
        ("PUT", &mut item.put),
        ("POST", &mut item.post),
        ("DELETE", &mut item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// A path as OpenAPI writes it, which has no sign for the rest of a path.
fn described(path: &str) -> String {
    path.replace("{*", "{")
}

/// The document and the page, as they are served.
#[derive(Clone)]
pub(super) struct Served {
    document: Bytes,
    page: Bytes,
}

impl Served {
    /// Of the routes that were collected. Paths are written as OpenAPI writes them.
    pub(super) fn of(mut description: utoipa::openapi::OpenApi) -> Served {
        let paths = std::mem::take(&mut description.paths.paths);
        description.paths.paths = paths
            .into_iter()
            .map(|(path, item)| (described(&path), item))
            .collect();
        let document = description
            .to_json()
            .expect("the description has string keys and no failing parts");
        // In a script element only this character could be taken for its end.
        let page = include_str!("page.html").replace("\"OPENAPI\"", &document.replace('<', "\\u003c"));
        Served {
            document: document.into(),
            page: page.into(),
        }
    }
}

/// This document.
///
/// It describes the program of the node that answers, which needs no cluster for it.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "getOpenApi", tag = "node",
    responses(
        (status = 200, description = "The document, OpenAPI 3.1", body = Object, content_type = "application/json"),
        AnyProblems,
    ),
)]
pub(super) async fn document(State(shared): State<Arc<Shared>>) -> Response {
    with_type(
        StatusCode::OK,
        "application/json",
        shared.described.document.clone(),
    )
}

/// A page to read this document.
///
/// It loads nothing else, from this node or from elsewhere.
#[utoipa::path(
    get, path = "/docs", operation_id = "getDocs", tag = "node",
    responses(
        (status = 200, description = "The page", body = String, content_type = "text/html"),
        AnyProblems,
    ),
)]
pub(super) async fn page(State(shared): State<Arc<Shared>>) -> Response {
    let mut response = with_type(
        StatusCode::OK,
        "text/html; charset=utf-8",
        shared.described.page.clone(),
    );
    response.headers_mut().insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
        ),
    );
    response
}
