//! What a node holds in memory for others, and the most that it takes on: beyond that it says no, or waits.

use super::Raft;
use super::role::Part;

/// What a node holds at one moment. Each quantity stands beside its bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Reads that wait: for a heartbeat round on a leader, for the leader's answer on others.
    pub reads: usize,
    /// The most of them; more are answered with [`Outcome::Busy`](super::Outcome::Busy).
    pub reads_max: usize,
    /// On a leader, the bytes of entries that are not committed; none until it has committed one of its own: what it
    /// found in its log may be more than it would have taken on.
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
            ..Load::default()
        };
        match &self.part {
            Part::Leader(leader) => Load {
                reads: leader.reads_under_way(),
                uncommitted_bytes: match self.commit >= leader.opened_at {
                    true => self.log.tail().uncommitted_bytes(),
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
