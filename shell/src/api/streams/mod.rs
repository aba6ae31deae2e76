//! Event streams: `/v1/streams`.

use quorate_api::{Problem, ProblemCode};
use quorate_core::state::{ALL_PARTITIONS_MAX, GROUPS_MAX, StreamRefusal};

/// Why the state machine did not change a stream.
pub(super) fn problem(refusal: StreamRefusal) -> Problem {
    let detail = refusal.to_string();
    let problem = |code, action| Problem::new(code, detail, action);
    match refusal {
        StreamRefusal::Malformed(_) => problem(ProblemCode::BadRequest, "nothing changed; mend the request"),
        StreamRefusal::NoSuchStream => problem(
            ProblemCode::StreamNotFound,
            "nothing changed; GET /v1/streams lists the streams, POST /v1/streams creates one",
        ),
        StreamRefusal::StreamExists => problem(
            ProblemCode::StreamExists,
            "nothing changed; use it, or take another name",
        ),
        StreamRefusal::TooManyStreams => problem(
            ProblemCode::QuotaReached,
            "nothing changed; GET /v1/streams lists the streams, DELETE /v1/streams/{name} deletes one",
        )
        .with_limit(ALL_PARTITIONS_MAX as u64),
        StreamRefusal::NoSuchPartition { .. } => problem(
            ProblemCode::PartitionNotFound,
            "nothing changed; GET /v1/streams/{name} shows the partitions",
        ),
        StreamRefusal::NoSuchGroup => problem(
            ProblemCode::GroupNotFound,
            "nothing changed; POST /v1/streams/{name}/groups creates a group",
        ),
        StreamRefusal::GroupExists => problem(
            ProblemCode::GroupExists,
            "nothing changed; use it, or take another name",
        ),
        StreamRefusal::TooManyGroups => problem(
            ProblemCode::QuotaReached,
            "nothing changed; DELETE /v1/streams/{name}/groups/{group} deletes a group",
        )
        .with_limit(GROUPS_MAX as u64),
        StreamRefusal::CursorAhead { next, .. } => {
            let action = "nothing changed; commit the offset after the last record that was consumed";
            let mut problem = problem(ProblemCode::FutureOffset, action);
            problem.next_offset = Some(next.0);
            problem
        }
    }
}
