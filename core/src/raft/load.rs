//! What a node holds in memory for others, and the most that it takes on: beyond that it says no, or waits.

use super::Raft;
use super::role::Part;

/// What a node holds at one moment, and the bounds that its configuration sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Reads that wait: for a heartbeat round on a leader, for the leader's answer on others.
    pub reads: usize,
    /// The most of them; more are answered with [`Outcome::Busy`](super::Outcome::Busy).
    pub reads_max: usize,
    /// On a leader, the bytes of entries that are not committed, or not on its disk. None before its own first entry is
    /// both: what it found in its log may be more than it would have taken on.
    pub uncommitted_bytes: u64,
    /// Beyond so many of them a command is answered with [`Outcome::Busy`](super::Outcome::Busy).
    pub uncommitted_bytes_max: u64,
    /// On a leader, the bytes that were sent to one follower and not acknowledged: of the follower with the most.
    pub in_flight_bytes: u64,
    /// From so many of them on nothing more is sent to it.
    pub in_flight_bytes_max: u64,
    /// Messages that wait for writes.
    pub held: usize,
    /// Writes that are not acknowledged.
    pub writes: usize,
    /// Pieces of the log that are being read back: one for the state machine, and one for each follower.
    pub fetches: usize,
}

impl Raft {
    /// What this node holds for others.
    pub fn load(&self) -> Load {
        let (held, writes) = self.durability.count();
        let load = Load {
            reads_max: self.config.reads_max,
            uncommitted_bytes_max: self.config.uncommitted_bytes_max,
            in_flight_bytes_max: self.config.in_flight_bytes_max,
            held,
            writes,
            fetches: self.fetches.len(),
            ..Load::default()
        };
        match &self.part {
            Part::Leader(leader) => Load {
                reads: leader.reads_under_way(),
                uncommitted_bytes: match self.commit.min(self.log.durable()) >= leader.opened_at {
                    true => self.log.tail().unsettled_bytes(),
                    false => 0,
                },
                in_flight_bytes: leader
                    .peers
                    .values()
                    .map(|peer| peer.in_flight_bytes())
                    .max()
                    .unwrap_or(0),
                ..load
            },
            Part::Follower(_) | Part::Candidate(_) => Load {
                reads: self.reads.count(),
                ..load
            },
        }
    }
}
