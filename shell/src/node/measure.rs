//! What the consensus lane counts and times.

use std::collections::BTreeMap;

use quorate_api::{NodeName, Role as ApiRole};
use quorate_core::Instant;
use quorate_core::raft::{Body, NodeId, Role, TraceEvent};

use super::consensus::Consensus;
use super::show::api_role;

/// What is kept between two measurements.
#[derive(Default)]
pub(super) struct Measured {
    role: Option<ApiRole>,
    /// When the oldest unanswered request to each peer left.
    asked: BTreeMap<NodeId, Instant>,
    /// The nodes whose lag is shown.
    lagging: Vec<String>,
}

impl Consensus {
    /// Counts a message on its way out.
    pub(super) fn message_sent(&mut self, to: NodeId, body: &Body) {
        let appends = matches!(body, Body::Append { .. });
        if appends {
            self.metrics.count_appends_sent(1);
        }
        if appends || matches!(body, Body::Heartbeat { .. }) {
            let now = self.ports.clock.now();
            self.measured.asked.entry(to).or_insert(now);
        }
    }

    /// Times the answer to the oldest unanswered request.
    pub(super) fn message_received(&mut self, from: NodeId, body: &Body) {
        let answers = matches!(
            body,
            Body::AppendAccepted { .. } | Body::AppendRejected { .. } | Body::HeartbeatResponse { .. }
        );
        if answers && let Some(asked) = self.measured.asked.remove(&from) {
            self.metrics.rpc.observe(self.ports.clock.now().since(asked));
        }
    }

    pub(super) fn count(&self, event: &TraceEvent) {
        match event {
            TraceEvent::Campaign { pre_vote: false, .. } => self.metrics.count_election(),
            TraceEvent::VoteReceived { granted: true, .. } => self.metrics.count_vote_received(),
            _ => {}
        }
    }

    /// Shows where consensus stands; cheap enough for every round of the loop.
    pub(super) fn show_progress(&self) {
        let progress = self.raft.progress();
        self.metrics
            .set_progress(progress.term.0, progress.commit.0, progress.applied.0);
    }

    /// Shows what changes seldom or costs more.
    pub(super) fn show_gauges(&mut self) {
        let status = self.raft.status();
        let role = api_role(status.role);
        if self.measured.role != Some(role) {
            self.metrics.set_role(role);
            self.measured.role = Some(role);
        }
        let name = |id: NodeId| {
            status
                .membership
                .members()
                .get(&id)
                .map(|member| member.name.clone())
        };
        let number = |id: NodeId| {
            let name = name(id).and_then(|name| NodeName::new(name).ok());
            name.and_then(|name| name.as_number()).unwrap_or(id.0)
        };
        self.metrics.set_leader(status.leader.map(number));
        self.metrics.set_peers_connected(self.peers.connected() as u64);
        let mut lags: Vec<(String, u64)> = status
            .peers
            .iter()
            .filter_map(|peer| Some((name(peer.id)?, status.last.index.0.saturating_sub(peer.matched.0))))
            .collect();
        if status.role != Role::Leader {
            lags.push((
                self.peers.name.clone(),
                status.commit.0.saturating_sub(status.applied.0),
            ));
        }
        let shown: Vec<String> = lags.iter().map(|(name, _)| name.clone()).collect();
        for gone in self.measured.lagging.iter().filter(|name| !shown.contains(name)) {
            self.metrics.forget_node(gone);
        }
        for (name, lag) in lags {
            self.metrics.set_replication_lag(&name, lag);
        }
        self.measured.lagging = shown;
    }
}
