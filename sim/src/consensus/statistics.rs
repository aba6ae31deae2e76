//! Counts of what happened, to see that a run was not idle.

use super::Engine;

macro_rules! statistics {
    ($($(#[$documentation:meta])* $name:ident: $title:literal,)*) => {
        /// Counts of what happened in one run or in many.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Statistics {
            $($(#[$documentation])* pub $name: u64,)*
        }

        impl Statistics {
            /// Adds another run.
            pub fn add(&mut self, other: &Statistics) {
                $(self.$name += other.$name;)*
            }

            /// Every count with its name.
            fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$(($title, self.$name),)*]
            }
        }
    };
}

statistics! {
    /// Inputs that consensus handled.
    steps: "steps",
    /// Nanoseconds of simulated time.
    nanoseconds: "simulated nanoseconds",
    /// Terms with a leader.
    elections: "elections",
    /// Campaigns that asked for votes.
    campaigns: "campaigns",
    /// Log entries that were committed.
    commits: "commits",
    /// Requests of clients, whether or not anybody was there to hear them.
    requests: "requests",
    /// Commands whose client heard the reply.
    acknowledged: "acknowledged commands",
    /// Requests whose client does not know what came of them.
    unknown: "requests with an unknown fate",
    /// Linearizable reads that were answered.
    reads: "linearizable reads",
    /// Changes of keys that watchers were told.
    watched: "changes told to watchers",
    /// Marks of progress that watchers were told.
    marks: "marks of progress",
    /// Times that a watcher went on with another connection.
    resumed: "watches that went on",
    /// Keep-alives of leases that were answered.
    keep_alives: "keep-alives",
    /// Times that a node refused an expiry that was decided in an earlier term.
    stale_expiries: "refused expiries of an earlier term",
    /// Sessions that moved to another node.
    session_moves: "moves of sessions",
    /// Records of streams that were appended.
    records: "records appended",
    /// Messages that were appended again and known.
    known_messages: "repeated messages",
    /// Records that retention dropped.
    dropped_records: "records dropped by retention",
    /// Messages sent.
    messages: "messages",
    /// Appends sent, with entries or without.
    appends: "appends",
    /// Appends that a follower refused since its log did not agree.
    appends_refused: "refused appends",
    /// Processes that were killed.
    crashes: "crashes",
    /// Processes that were killed at a boundary of their input and output.
    boundary_crashes: "crashes at a boundary",
    /// Writes of which a crash left the beginning.
    torn: "torn writes",
    /// Disks that failed a sync.
    disk_errors: "disk errors",
    /// Disks that stood still.
    stalls: "stalled disks",
    /// Leaders that stepped down since their disk stood still.
    stalled_leaders: "leaders with a stalled disk",
    /// Leaders that handed over since their disk was slow.
    slow_leaders: "leaders with a slow disk",
    /// Leaders that handed over to a preferred node.
    preferred: "hand-overs to a preferred node",
    /// Pre-votes that a preferred node held off.
    vetoes: "vetoes",
    /// Times that the cluster's feature level rose.
    levels: "feature levels reached",
    /// Binaries that a node refused to start since they lack features that its log uses.
    old_binaries: "old binaries refused",
    /// Nodes that stopped since the cluster began to use features which their binary lacks.
    stopped_by_features: "nodes stopped by features",
    /// Disks that were wiped.
    wiped: "wiped disks",
    /// Logs that rotted.
    rotten: "rotten logs",
    /// Times that links were cut.
    partitions: "partitions",
    /// Times that a node stood still.
    pauses: "pauses",
    /// Log ends that were replaced.
    truncations: "truncations",
    /// Reads of old entries from disk.
    fetches: "fetches from disk",
    /// Purges of the log.
    purges: "purges",
    /// Snapshots that began their way.
    snapshots_sent: "snapshots sent",
    /// Transfers of snapshots that went on where an earlier one broke off.
    snapshots_resumed: "transfers resumed",
    /// Snapshots that replaced a state.
    snapshots: "snapshots installed",
    /// Commands that witnesses were sent the places of.
    omitted: "commands left out for witnesses",
    /// Bases of logs that witnesses were sent instead of a snapshot.
    bases_sent: "bases sent to witnesses",
    /// Changes that would have left too many witnesses.
    witnesses_refused: "changes with too many witnesses",
    /// Hand-overs of the leadership that succeeded.
    transfers: "transfers",
    /// Memberships that were committed.
    memberships: "membership changes",
    /// Learners that the leader's duty promoted.
    promotions: "promotions by duty",
    /// Nodes that were forced to start alone.
    forced_starts: "forced starts",
    /// Committed writes that only lost nodes had.
    lost_writes: "writes lost with their nodes",
    /// Nodes of a lineage that had ended which came back.
    came_back: "nodes of an ended lineage",
    /// Times that a quorum was healed while the faults of others stayed.
    quorums: "quorums healed alone",
    /// Nanoseconds from healing a quorum to its agreement.
    quorum_recovery: "nanoseconds of recovery of quorums",
    /// Transactions over several keys that were judged.
    transactions: "transactions judged",
    /// Keys whose history could not be judged in time.
    undecided: "keys not judged in time",
    /// Nanoseconds from healing everything to full agreement.
    recovery: "nanoseconds of recovery",
}

/// Counts that nobody keeps of production nodes: they are taken from within consensus or the state machine, or are about
/// what only the core simulation does.
const NOT_OF_NODES: [&str; 22] = [
    "keep-alives",
    "refused expiries of an earlier term",
    "moves of sessions",
    "records appended",
    "repeated messages",
    "records dropped by retention",
    "appends",
    "refused appends",
    "hand-overs to a preferred node",
    "vetoes",
    "feature levels reached",
    "old binaries refused",
    "nodes stopped by features",
    "fetches from disk",
    "purges",
    "transfers resumed",
    "changes with too many witnesses",
    "membership changes",
    "promotions by duty",
    "nodes of an ended lineage",
    "quorums healed alone",
    "nanoseconds of recovery of quorums",
];

/// Counts that the core simulation does not keep: it has no watchers and no transactions over several keys, judges every history, and every client learns what
/// came of its requests.
const NOT_OF_CORE: [&str; 6] = [
    "transactions judged",
    "requests with an unknown fate",
    "changes told to watchers",
    "marks of progress",
    "watches that went on",
    "keys not judged in time",
];

impl Statistics {
    /// Every count that is kept of what was simulated, with its name.
    pub fn named(&self, engine: Engine) -> Vec<(&'static str, u64)> {
        let left_out = match engine {
            Engine::Core => &NOT_OF_CORE[..],
            Engine::Nodes => &NOT_OF_NODES[..],
        };
        let mut counts = self.all();
        counts.retain(|(name, _)| !left_out.contains(name));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_there() {
        let all: Vec<&str> = Statistics::default()
            .all()
            .iter()
            .map(|(name, _)| *name)
            .collect();
        for name in NOT_OF_NODES.iter().chain(&NOT_OF_CORE) {
            assert!(all.contains(name), "{name}");
        }
    }
}
