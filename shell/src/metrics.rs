//! What a node counts and measures, for Prometheus.
//!
//! The names are those of the requirements: `raft_*` for consensus, `quorate_*` for the rest. Updating a metric is an
//! atomic store, for a histogram a short lock; encoding reads them all.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use quorate_api::{NodeName, Role};

use crate::logging;

type Number = Gauge<u64, AtomicU64>;
type Labels = [(&'static str, String); 1];

const ROLES: [Role; 5] = [
    Role::Leader,
    Role::Follower,
    Role::Candidate,
    Role::Learner,
    Role::Witness,
];

/// The bounds of all histograms in seconds: what a disk, a round trip and a commit take, from 25 us to 5 s.
const BOUNDS: [f64; 16] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 5.0,
];

/// A histogram of times.
#[derive(Clone, Debug)]
pub struct Durations(Histogram);

impl Durations {
    fn new() -> Durations {
        Durations(Histogram::new(BOUNDS))
    }

    /// Counts one time.
    pub fn observe(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }
}

/// The metrics of one node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    node: Labels,
    term: Number,
    commit_index: Number,
    apply_index: Number,
    leader: Number,
    state: Family<Labels, Number>,
    peers_connected: Number,
    replication_lag: Family<Labels, Number>,
    elections: Counter,
    append_entries_sent: Number,
    votes_received: Number,
    cluster_role: Family<Labels, Number>,
    sessions_active: Family<Labels, Number>,
    peer_round_trip: Family<Labels, Histogram, fn() -> Histogram>,
    watchers: Number,
    watchers_behind: Number,
    watch_events: Counter,
    /// From sending a request to another node to its answer.
    pub rpc: Durations,
    /// One fdatasync of the log.
    pub fsync: Durations,
    /// From taking a command to its commit.
    pub commit: Durations,
    /// Applying one command to the state.
    pub apply: Durations,
}

impl Metrics {
    /// All metrics of `node`, at zero.
    pub fn new(node: &NodeName, wal_sync: bool) -> Metrics {
        let metrics = Metrics {
            registry: Registry::default(),
            node: [("node", node.to_string())],
            term: Number::default(),
            commit_index: Number::default(),
            apply_index: Number::default(),
            leader: Number::default(),
            state: Family::default(),
            peers_connected: Number::default(),
            replication_lag: Family::default(),
            elections: Counter::default(),
            append_entries_sent: Number::default(),
            votes_received: Number::default(),
            cluster_role: Family::default(),
            sessions_active: Family::default(),
            peer_round_trip: Family::new_with_constructor(|| Histogram::new(BOUNDS)),
            watchers: Number::default(),
            watchers_behind: Number::default(),
            watch_events: Counter::default(),
            rpc: Durations::new(),
            fsync: Durations::new(),
            commit: Durations::new(),
            apply: Durations::new(),
        };
        metrics.set_role(Role::Follower);
        metrics.set_sessions_active(0);
        metrics.set_replication_lag(node.as_str(), 0);
        metrics.registered(wal_sync)
    }

    fn registered(mut self, wal_sync: bool) -> Metrics {
        let registry = &mut self.registry;
        registry.register(
            "raft_term",
            "Current term; rises with every election",
            self.term.clone(),
        );
        registry.register(
            "raft_commit_index",
            "Last committed index",
            self.commit_index.clone(),
        );
        registry.register(
            "raft_apply_index",
            "Last index applied to the state",
            self.apply_index.clone(),
        );
        registry.register(
            "raft_leader",
            "Number of the leader that this node knows, 0 for none",
            self.leader.clone(),
        );
        registry.register(
            "raft_state",
            "1 for the part that this node plays, 0 for the others",
            self.state.clone(),
        );
        registry.register(
            "raft_peers_connected",
            "Other nodes connected to",
            self.peers_connected.clone(),
        );
        let help =
            "Entries that a node is behind the leader: on the leader of each, elsewhere of the node itself";
        registry.register("raft_replication_lag", help, self.replication_lag.clone());
        // The encoder adds `_total` to the name of a counter, so the two counts whose documented names lack it are
        // exposed as gauges.
        registry.register(
            "raft_elections",
            "Elections that this node began",
            self.elections.clone(),
        );
        let help = "Append messages sent to other nodes";
        registry.register("raft_append_entries_sent", help, self.append_entries_sent.clone());
        registry.register(
            "raft_votes_received",
            "Votes granted to this node",
            self.votes_received.clone(),
        );
        registry.register("quorate_cluster_term", "Current term", self.term.clone());
        let help = "Last committed index";
        registry.register("quorate_cluster_commit_index", help, self.commit_index.clone());
        registry.register(
            "quorate_cluster_role",
            "1 for the leader, 0 for the others",
            self.cluster_role.clone(),
        );
        registry.register(
            "quorate_sessions_active",
            "Sessions placed on the node",
            self.sessions_active.clone(),
        );
        let help = "Time from a request to another node to its answer";
        registry.register("quorate_raft_rpc_duration_seconds", help, self.rpc.0.clone());
        registry.register(
            "quorate_fsync_duration_seconds",
            "Time of one fdatasync of the log",
            self.fsync.0.clone(),
        );
        let help = "Time from taking a command to its commit";
        registry.register("quorate_commit_duration_seconds", help, self.commit.0.clone());
        let help = "Time to apply one command to the state";
        registry.register("quorate_apply_duration_seconds", help, self.apply.0.clone());
        let help = "Round trip to another node";
        registry.register(
            "quorate_peer_round_trip_seconds",
            help,
            self.peer_round_trip.clone(),
        );
        let help = "Watches that this node serves";
        registry.register("quorate_watchers", help, self.watchers.clone());
        let help = "Watches that are so far behind that they read the history";
        registry.register("quorate_watchers_behind", help, self.watchers_behind.clone());
        let help = "Events handed to watches";
        registry.register("quorate_watch_events", help, self.watch_events.clone());
        let sync = Number::default();
        sync.set(u64::from(wal_sync));
        let help = "1 when every write is synced before it is acknowledged; 0 risks acknowledged writes";
        registry.register("quorate_wal_sync", help, sync);
        let help = "Lines of the log that could not be written";
        registry.register("quorate_log_lines_dropped", help, logging::lines_dropped());
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("quorate_build", "The version of the program", version);
        self
    }

    /// Where consensus stands.
    pub fn set_progress(&self, term: u64, commit_index: u64, apply_index: u64) {
        self.term.set(term);
        self.commit_index.set(commit_index);
        self.apply_index.set(apply_index);
    }

    /// The part that this node plays.
    pub fn set_role(&self, role: Role) {
        for other in ROLES {
            let labels = [("state", other.as_str().to_owned())];
            self.state.get_or_create(&labels).set(u64::from(other == role));
        }
        self.cluster_role
            .get_or_create(&self.node)
            .set(u64::from(role == Role::Leader));
    }

    /// The number of the leader that this node knows: its name when that is a number, else its consensus id.
    pub fn set_leader(&self, leader: Option<u64>) {
        self.leader.set(leader.unwrap_or(0));
    }

    /// How many other nodes are connected.
    pub fn set_peers_connected(&self, count: u64) {
        self.peers_connected.set(count);
    }

    /// How many entries `node` is behind the leader.
    pub fn set_replication_lag(&self, node: &str, entries: u64) {
        self.replication_lag
            .get_or_create(&[("node", node.to_owned())])
            .set(entries);
    }

    /// Forgets what is known of another node: it left, or this node no longer leads.
    pub fn forget_node(&self, node: &str) {
        self.replication_lag.remove(&[("node", node.to_owned())]);
    }

    /// Sessions placed on this node.
    pub fn set_sessions_active(&self, count: u64) {
        self.sessions_active.get_or_create(&self.node).set(count);
    }

    /// This node began an election.
    pub fn count_election(&self) {
        self.elections.inc();
    }

    /// This node sent append messages.
    pub fn count_appends_sent(&self, count: u64) {
        self.append_entries_sent.inc_by(count);
    }

    /// A vote was granted to this node.
    pub fn count_vote_received(&self) {
        self.votes_received.inc();
    }

    /// The round trips to `peer`. Worth keeping by those who measure often.
    pub fn peer_round_trip(&self, peer: &str) -> Durations {
        Durations(
            self.peer_round_trip
                .get_or_create(&[("peer", peer.to_owned())])
                .clone(),
        )
    }

    /// How many watches this node serves.
    pub fn set_watchers(&self, count: u64) {
        self.watchers.set(count);
    }

    /// How many of them read the history.
    pub fn set_watchers_behind(&self, count: u64) {
        self.watchers_behind.set(count);
    }

    /// Events were handed to a watch.
    pub fn count_watch_events(&self, count: u64) {
        self.watch_events.inc_by(count);
    }

    /// All metrics in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        encode(&mut text, &self.registry).expect("writing to memory does not fail");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics::new(&NodeName::new("node1").unwrap(), true)
    }

    #[test]
    fn the_documented_names_are_exposed_as_they_are() {
        let metrics = metrics();
        metrics.set_progress(5, 1234, 1230);
        metrics.set_role(Role::Leader);
        metrics.set_leader(Some(1));
        metrics.set_peers_connected(2);
        metrics.set_replication_lag("node2", 7);
        metrics.count_election();
        metrics.count_appends_sent(3);
        metrics.count_vote_received();
        metrics.set_sessions_active(5);
        metrics.rpc.observe(Duration::from_millis(3));
        let text = metrics.encode();
        for line in [
            "raft_term 5",
            "raft_commit_index 1234",
            "raft_apply_index 1230",
            "raft_leader 1",
            "raft_state{state=\"leader\"} 1",
            "raft_state{state=\"follower\"} 0",
            "raft_peers_connected 2",
            "raft_replication_lag{node=\"node2\"} 7",
            "raft_elections_total 1",
            "raft_append_entries_sent 3",
            "raft_votes_received 1",
            "quorate_cluster_term 5",
            "quorate_cluster_commit_index 1234",
            "quorate_cluster_role{node=\"node1\"} 1",
            "quorate_sessions_active{node=\"node1\"} 5",
            "quorate_raft_rpc_duration_seconds_bucket{le=\"0.01\"} 1",
            "quorate_fsync_duration_seconds_count 0",
            "quorate_commit_duration_seconds_count 0",
            "quorate_apply_duration_seconds_count 0",
            "quorate_wal_sync 1",
        ] {
            assert!(
                text.lines().any(|other| other == line),
                "`{line}` is missing in:\n{text}"
            );
        }
        assert!(text.contains("quorate_build_info{version="), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_node_that_left_is_forgotten() {
        let metrics = metrics();
        metrics.set_replication_lag("node2", 7);
        metrics
            .peer_round_trip("node2")
            .observe(Duration::from_micros(100));
        assert!(
            metrics
                .encode()
                .contains("quorate_peer_round_trip_seconds_count{peer=\"node2\"} 1")
        );
        metrics.forget_node("node2");
        assert!(!metrics.encode().contains("raft_replication_lag{node=\"node2\"}"));
    }
}
