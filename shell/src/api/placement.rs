//! Where sessions go: drain, capacity and rebalance of nodes.
//!
//! Each of them is one command, with which the leader's duty goes on whether or not anybody waits. A handler waits for
//! what came of it within the time of a request.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, Uri};
use quorate_api::{
    CapacityRequest, Consistency, DrainAnswer, DrainRequest, PlacementChanged, RebalanceAnswer,
};
use quorate_core::raft::NodeId;
use quorate_core::state::{Command, Drain, Reply, Revision, SessionCommand, SessionReply};

use super::Shared;
use super::answer::{Failure, json};
use super::backend::{Placement, ReadOptions};
use super::openapi::parameters::Carrying;
use super::openapi::problems::problems;
use super::query::Query;
use super::requests::{Change, misdirected};
use super::sessions::member;

/// How long a handler pauses before it looks again.
const LOOK: Duration = Duration::from_millis(50);
/// What of the time of a request is left for the answer.
const ANSWER: Duration = Duration::from_millis(200);

problems! {
    DrainProblems = WRITE READ BODY [MemberNotFound];
}

/// Gives the sessions of a node away, and no new ones to it.
#[utoipa::path(
    post, path = "/cluster/nodes/{id}/drain", operation_id = "drainNode", tag = "cluster",
    params(
        ("id" = String, Path, description = "The name of a node"),
        Carrying,
    ),
    request_body(content = Option<DrainRequest>),
    responses(
        (status = 200, description = "What came of it within the time of a request", body = DrainAnswer),
        DrainProblems,
    ),
)]
pub(super) async fn drain(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["redirect"])?;
    let change = Change::read(&query, &headers, &uri)?;
    let node = member(&shared.backend.members()?, &name)?;
    let request: DrainRequest = shared
        .read_optional_json(&headers, body)
        .await?
        .unwrap_or_default();
    let before = shared.placement(&uri).await?;
    let drain = if request.force { Drain::Forced } else { Drain::Yes };
    shared
        .change_placement(SessionCommand::Drain { node, drain }, change)
        .await?;
    let after = shared
        .wait_for_moves(&uri, |placement| sessions_of(placement, node) == 0)
        .await?;
    let left = sessions_of(&after, node);
    let errors = match left {
        0 => Vec::new(),
        _ if after.due > 0 => vec![format!(
            "{left} sessions are still being moved; the cluster goes on"
        )],
        _ if !others_are_open(&after, node) => vec![format!(
            "no other node takes sessions, all are draining, away or without capacity; {left} sessions stay until one does"
        )],
        _ => vec![format!(
            "no other node has room for {left} sessions; they stay until one has, or with \"force\""
        )],
    };
    Ok(json(&DrainAnswer {
        success: left == 0,
        migrated_sessions: sessions_of(&before, node).saturating_sub(left),
        failed_sessions: left,
        errors,
    }))
}

problems! {
    UndrainProblems = WRITE [MemberNotFound];
}

/// Ends the drain of a node.
#[utoipa::path(
    post, path = "/cluster/nodes/{id}/undrain", operation_id = "undrainNode", tag = "cluster",
    params(
        ("id" = String, Path, description = "The name of a node"),
        Carrying,
    ),
    responses(
        (status = 200, description = "The node takes sessions again", body = PlacementChanged),
        UndrainProblems,
    ),
)]
pub(super) async fn undrain(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["redirect"])?;
    let change = Change::read(&query, &headers, &uri)?;
    let node = member(&shared.backend.members()?, &name)?;
    let drain = Drain::No;
    let changed = shared
        .change_placement(SessionCommand::Drain { node, drain }, change)
        .await?;
    Ok(json(&done(changed)))
}

problems! {
    SetCapacityProblems = WRITE BODY [MemberNotFound];
}

/// Sets how many sessions a node may have.
#[utoipa::path(
    put, path = "/cluster/nodes/{id}/capacity", operation_id = "setCapacity", tag = "cluster",
    params(
        ("id" = String, Path, description = "The name of a node"),
        Carrying,
    ),
    request_body(content = CapacityRequest),
    responses(
        (status = 200, description = "The node has this capacity", body = PlacementChanged),
        SetCapacityProblems,
    ),
)]
pub(super) async fn set_capacity(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["redirect"])?;
    let change = Change::read(&query, &headers, &uri)?;
    let node = member(&shared.backend.members()?, &name)?;
    let request: CapacityRequest = shared
        .read_json(&headers, body, r#"{"max_sessions": 100}"#)
        .await?;
    let capacity = request.max_sessions;
    let changed = shared
        .change_placement(SessionCommand::SetCapacity { node, capacity }, change)
        .await?;
    Ok(json(&done(changed)))
}

problems! {
    RebalanceProblems = WRITE READ [];
}

/// Moves sessions until the nodes are level.
#[utoipa::path(
    post, path = "/cluster/rebalance", operation_id = "rebalance", tag = "cluster",
    params(
        Carrying,
    ),
    responses(
        (status = 200, description = "What came of it within the time of a request", body = RebalanceAnswer),
        RebalanceProblems,
    ),
)]
pub(super) async fn rebalance(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["redirect"])?;
    let change = Change::read(&query, &headers, &uri)?;
    let (_, due) = shared.change_placement(SessionCommand::Rebalance, change).await?;
    let after = shared.wait_for_moves(&uri, |_| false).await?;
    let sessions_moved = due.saturating_sub(after.due);
    let reason = (after.due == 0 && sessions_moved == 0).then(|| {
        let open = after.nodes.iter().filter(|load| load.is_open()).count();
        let why = match open {
            0 | 1 => {
                "there are no two nodes that take sessions: the others are draining, away or without capacity"
            }
            _ => "the nodes are level already, as far as they have room",
        };
        why.to_owned()
    });
    Ok(json(&RebalanceAnswer {
        success: after.due == 0,
        sessions_moved,
        reason,
    }))
}

fn done((revision, _): (Revision, u64)) -> PlacementChanged {
    PlacementChanged {
        success: true,
        revision: revision.0,
    }
}

/// Whether a node other than this one takes sessions.
fn others_are_open(placement: &Placement, node: NodeId) -> bool {
    let mut nodes = placement.nodes.iter();
    nodes.any(|load| load.node != node && load.is_open())
}

fn sessions_of(placement: &Placement, node: NodeId) -> u64 {
    let mut nodes = placement.nodes.iter();
    nodes
        .find(|load| load.node == node)
        .map_or(0, |load| load.sessions)
}

impl Shared {
    /// The revision after a change, and how many moves are due then.
    async fn change_placement(
        &self,
        command: SessionCommand,
        change: Change<'_>,
    ) -> Result<(Revision, u64), Failure> {
        match self.change(Command::Session(command), change).await? {
            Reply::Session(SessionReply::Placement { revision, due, .. }) => Ok((revision, due)),
            _ => Err(Failure::unexpected_reply()),
        }
    }

    /// Waits until nothing is to be moved, or `enough` is done, or the time of a request is nearly over.
    async fn wait_for_moves(
        &self,
        uri: &Uri,
        enough: impl Fn(&Placement) -> bool,
    ) -> Result<Placement, Failure> {
        let give_up = self.clock.now() + self.timeouts.request.saturating_sub(ANSWER);
        loop {
            let placement = self.placement(uri).await?;
            if placement.due == 0 || enough(&placement) || self.clock.now() >= give_up {
                return Ok(placement);
            }
            self.clock.sleep_until(self.clock.now() + LOOK).await;
        }
    }

    /// Waits until a leader has said which nodes sessions can go to, as the first one of a cluster does at once, but no longer
    /// than for a leader.
    pub(super) async fn wait_for_hosts(&self) {
        let give_up = self.clock.now() + self.timeouts.leader_wait;
        while !self.backend.knows_hosts() && self.clock.now() < give_up {
            self.clock.sleep_until(self.clock.now() + LOOK).await;
        }
    }

    async fn placement(&self, uri: &Uri) -> Result<Placement, Failure> {
        let options = ReadOptions {
            consistency: Consistency::Linearizable,
            min_revision: Revision::ABSENT,
            deadline: self.deadline(),
        };
        self.until_leader(options.deadline, false, || self.backend.placement(options))
            .await
            .map_err(|error| misdirected(error, uri))
    }
}
