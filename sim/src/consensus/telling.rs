//! What both simulations tell of a run in the same words.

use std::collections::BTreeSet;

use quorate_core::raft::{Body, Index, Membership, NodeId, Role};

use super::network::Cut;
use super::plan::{FaultKind, Shape, Who, line_of};
use super::schedule::Time;
use crate::trace::{self, Event, FaultClass, name_of};

/// A fault that comes `now`, and what it hits.
pub(crate) fn fault(
    kind: &FaultKind,
    now: Time,
    find: impl Fn(Who) -> NodeId,
    cut_of: impl Fn(Shape) -> Cut,
) -> Event {
    let (class, nodes, links, lasts) = extent(kind, &find, cut_of);
    Event::Fault {
        fault: name_of(kind).into(),
        class,
        nodes: nodes.into_iter().map(|who| find(who).0).collect(),
        links: links.into_iter().map(|(from, to)| (from.0, to.0)).collect(),
        until: lasts.map(|lasts| now + lasts),
        about: line_of(kind).into(),
    }
}

/// Where a fault strikes, whom, which links, and for how long where it does not end by itself.
fn extent(
    kind: &FaultKind,
    find: impl Fn(Who) -> NodeId,
    cut_of: impl Fn(Shape) -> Cut,
) -> (FaultClass, Vec<Who>, Cut, Option<Time>) {
    use FaultClass::{Clock, Disk, Network, Process};
    let (here, nowhere) = (|who: Who| vec![who], Cut::new);
    match *kind {
        FaultKind::Crash { victim, .. } | FaultKind::CrashAt { victim, .. } => {
            (Process, here(victim), nowhere(), None)
        }
        FaultKind::PowerCut { .. } => (Process, Vec::new(), nowhere(), None),
        FaultKind::Pause { victim, duration } => (Process, here(victim), nowhere(), Some(duration)),
        FaultKind::Partition { shape, duration } | FaultKind::Hold { shape, duration } => {
            (Network, victims(shape), cut_of(shape), Some(duration))
        }
        FaultKind::Flap {
            one,
            other,
            times,
            period,
        } => {
            let (from, to) = (find(one), find(other));
            let lasts = u64::from(times) * period;
            (Network, Vec::new(), vec![(from, to), (to, from)], Some(lasts))
        }
        FaultKind::Clog {
            from, to, duration, ..
        } => (Network, Vec::new(), vec![(find(from), find(to))], Some(duration)),
        FaultKind::FalseAlarm {
            at_node, duration, ..
        } => (Network, here(at_node), nowhere(), Some(duration)),
        FaultKind::Storm { duration, .. } => (Network, Vec::new(), nowhere(), Some(duration)),
        FaultKind::ClockStep { victim, .. } => (Clock, here(victim), nowhere(), None),
        FaultKind::SlowDisk { victim, duration, .. } | FaultKind::StalledDisk { victim, duration } => {
            (Disk, here(victim), nowhere(), Some(duration))
        }
        FaultKind::FailedSync { victim, .. } | FaultKind::Rot { victim, .. } | FaultKind::Wipe { victim } => {
            (Disk, here(victim), nowhere(), None)
        }
    }
}

/// The nodes that a partition is about.
fn victims(shape: Shape) -> Vec<Who> {
    match shape {
        Shape::Alone(one) | Shape::Unheard(one) | Shape::Deaf(one) | Shape::Bridge(one) => vec![one],
        Shape::Two(one, other) => vec![one, other],
        Shape::Link(..) | Shape::Sides(_) | Shape::Pairs(_) => Vec::new(),
    }
}

/// A membership that is committed.
pub(crate) fn membership(index: Index, membership: &Membership) -> Event {
    let numbers = |ids: &BTreeSet<NodeId>| ids.iter().map(|id| id.0).collect::<Vec<_>>();
    Event::Membership {
        index: index.0,
        voters: numbers(membership.voters()),
        outgoing: numbers(membership.outgoing()),
        learners: numbers(membership.learners()),
    }
}

/// The part that a node plays.
pub(crate) fn role(role: Role) -> trace::Role {
    match role {
        Role::Leader => trace::Role::Leader,
        Role::PreCandidate => trace::Role::PreCandidate,
        Role::Candidate => trace::Role::Candidate,
        Role::Follower => trace::Role::Follower,
        Role::Learner => trace::Role::Learner,
        Role::Witness => trace::Role::Witness,
        Role::Failed => trace::Role::Failed,
    }
}

/// A message in few words.
pub(crate) fn about(body: &Body) -> String {
    match body {
        Body::Append {
            previous,
            entries,
            commit,
        } => {
            let last = entries.last().map_or(*previous, |entry| entry.position);
            format!("after {previous} to {last}, commit {commit}")
        }
        other => {
            let text = format!("{other:?}");
            let fields = text.split_once(' ').map_or("", |(_, fields)| fields);
            fields.trim_start_matches("{ ").trim_end_matches(" }").to_owned()
        }
    }
}
