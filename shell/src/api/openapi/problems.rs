//! Which problems an operation can answer: every one with its status, code and meaning.

use std::collections::BTreeMap;

use quorate_api::{PROBLEM_CONTENT_TYPE, Problem, ProblemCode};
use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, HeaderBuilder, Ref, RefOr, Response, ResponseBuilder};

use ProblemCode::*;

/// What any request may answer.
pub(in crate::api) const ANY: &[ProblemCode] = &[TooManyConnections];
/// What a request with parameters or headers that are read may answer.
pub(in crate::api) const READ: &[ProblemCode] = &[
    BadRequest,
    NotLeader,
    NoLeader,
    QuorumLost,
    Busy,
    Unavailable,
    TimedOut,
    Witness,
    Internal,
];
/// What a change may answer.
pub(in crate::api) const WRITE: &[ProblemCode] = &[
    BadRequest,
    NotLeader,
    NoLeader,
    QuorumLost,
    Busy,
    Unavailable,
    TimedOut,
    UnknownOutcome,
    QuotaReached,
    Refused,
    IdempotencyKeyReused,
    Internal,
];
/// What a request with a body may answer.
pub(in crate::api) const BODY: &[ProblemCode] = &[RequestTimeout, BodyTooLarge];
/// What a request for events as they happen may answer.
pub(in crate::api) const WATCH: &[ProblemCode] = &[
    BadRequest,
    Compacted,
    StateReplaced,
    TooManyWatchers,
    QuorumLost,
    Unavailable,
    Witness,
    Internal,
];
/// What a change of the membership may answer.
pub(in crate::api) const MEMBERSHIP: &[ProblemCode] = &[
    BadRequest,
    NotLeader,
    NoLeader,
    QuorumLost,
    Busy,
    Unavailable,
    TimedOut,
    UnknownOutcome,
    Refused,
    Internal,
];

/// Declares the problems of operations, to be named among their responses: `Name = SETS [Codes];`, where a code may have
/// another status than it usually comes with.
macro_rules! problems {
    ($($name:ident = $($set:ident)+ [$($code:ident $(with $status:literal)?),* $(,)?];)*) => {$(
        #[doc = "The problems of an operation."]
        pub(in crate::api) enum $name {}

        impl utoipa::IntoResponses for $name {
            fn responses() -> std::collections::BTreeMap<
                String,
                utoipa::openapi::RefOr<utoipa::openapi::Response>,
            > {
                use quorate_api::ProblemCode;
                let sets: &[&[ProblemCode]] = &[
                    $crate::api::openapi::problems::ANY,
                    $($crate::api::openapi::problems::$set,)+
                ];
                let usual = sets.iter().copied().flatten().map(|code| (code.status(), *code));
                let own: &[(u16, ProblemCode)] = &[$((
                    [$($status,)? ProblemCode::$code.status()][0],
                    ProblemCode::$code,
                )),*];
                $crate::api::openapi::problems::responses(usual.chain(own.iter().copied()))
            }
        }
    )*};
}
pub(in crate::api) use problems;

problems! {
    AnyProblems = ANY [];
}

/// A response for each status.
pub(in crate::api) fn responses(
    problems: impl Iterator<Item = (u16, ProblemCode)>,
) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<u16, Vec<ProblemCode>> = BTreeMap::new();
    for (status, code) in problems {
        let codes = by_status.entry(status).or_default();
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    by_status
        .into_iter()
        .map(|(status, codes)| (status.to_string(), response(&codes).into()))
        .collect()
}

fn response(codes: &[ProblemCode]) -> Response {
    let meanings: Vec<String> = codes
        .iter()
        .map(|code| format!("`{code}`: {}", code.meaning()))
        .collect();
    let one_of_them = ObjectBuilder::new().property(
        "code",
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(codes.iter().map(|code| code.as_str()))),
    );
    let schema = AllOfBuilder::new()
        .item(Ref::from_schema_name(Problem::name()))
        .item(one_of_them);
    let mut response = ResponseBuilder::new().description(meanings.join("\n\n")).content(
        PROBLEM_CONTENT_TYPE,
        ContentBuilder::new()
            .schema(Some(RefOr::T(schema.build().into())))
            .example(Some(example(codes[0])))
            .build(),
    );
    if codes.iter().any(|code| code.status() == 503) {
        let header = HeaderBuilder::new()
            .schema(ObjectBuilder::new().schema_type(Type::Integer))
            .description(Some("After how many seconds to try again."));
        response = response.header("Retry-After", header.build());
    }
    if codes.contains(&NotLeader) {
        let header =
            HeaderBuilder::new().description(Some("The same path at the leader, where it is known."));
        response = response.header("Location", header.build());
    }
    response.build()
}

fn example(code: ProblemCode) -> serde_json::Value {
    json!(Problem::new(
        code,
        "what happened, to what",
        "what to do about it"
    ))
}
