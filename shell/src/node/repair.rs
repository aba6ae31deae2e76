//! What an operator hears of a node whose damaged log is being repaired.

use std::time::Duration;

use quorate_core::Instant;
use quorate_core::raft::Position;

use super::consensus::Consensus;

/// How long a node in repair waits for a leader before it says what that may mean, and how often it says so again.
const PATIENCE: Duration = Duration::from_secs(10);

/// When a node in repair last had a leader, or last said that it has none.
#[derive(Debug, Default)]
pub(super) struct Patience {
    since: Option<Instant>,
}

/// Says that a log is being repaired, or that only unused room of it was damaged.
pub(super) fn announce(damage: Option<&str>, repair: Option<Position>) {
    let damage = damage.unwrap_or("it was damaged before the last start");
    match repair {
        Some(until) => tracing::warn!(
            %until,
            "the log is being repaired by the other nodes, and this node does not vote until it is whole: {damage}"
        ),
        None => tracing::warn!("the log lost nothing, since only unused room was damaged: {damage}"),
    }
}

impl Consensus {
    /// Without a leader nobody repairs anything. That the others are merely not up yet cannot be told from their being
    /// damaged too, so the operator hears of both.
    pub(super) fn watch_repair(&mut self, now: Instant) {
        let status = self.raft.status();
        let Some(until) = status.repairing.filter(|_| status.leader.is_none()) else {
            self.patience.since = None;
            return;
        };
        let since = *self.patience.since.get_or_insert(now);
        if now.since(since) < PATIENCE {
            return;
        }
        self.patience.since = Some(now);
        tracing::warn!(
            %until,
            "this node's log is being repaired, and no leader is known: a majority of nodes with whole logs must run. \
             When too many logs are damaged for that, the cluster cannot go on by itself: keep every data directory as it is"
        );
    }
}
