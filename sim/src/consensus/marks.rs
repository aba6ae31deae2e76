//! "Sometimes" marks: situations that must come about in some seed, else the generator of plans is blind to them.
//!
//! A checker that sees nothing wrong has proved little when nothing happened. Each mark is a situation that a mistake
//! needs in order to show. `quorate-sim core` and `run` print in how many seeds each of theirs came about; with
//! [`enough_seeds`] one that never did fails the command.

use super::Engine;

/// So many seeds bring every mark of a simulation about.
pub fn enough_seeds(engine: Engine) -> u64 {
    match engine {
        Engine::Core => 1_000,
        Engine::Nodes => 300,
    }
}

macro_rules! marks {
    ($($engine:ident { $($mark:ident, $name:literal, $nodes:literal: $sentence:literal;)* })*) => {
        /// A situation that must come about in some seed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mark {
            $($(#[doc = $sentence] $mark,)*)*
        }

        impl Mark {
            /// All of them.
            pub const ALL: &[Mark] = &[$($(Mark::$mark,)*)*];

            /// Those of one simulation.
            pub fn of(engine: Engine) -> impl Iterator<Item = Mark> {
                Mark::ALL.iter().copied().filter(move |mark| mark.engine() == engine)
            }

            /// What it is called in reports.
            pub fn name(self) -> &'static str {
                match self {
                    $($(Mark::$mark => $name,)*)*
                }
            }

            /// The situation in a sentence.
            pub fn sentence(self) -> &'static str {
                match self {
                    $($(Mark::$mark => $sentence,)*)*
                }
            }

            /// Which simulation brings it about.
            pub fn engine(self) -> Engine {
                match self {
                    $($(Mark::$mark => Engine::$engine,)*)*
                }
            }

            /// The least number of first voters with which it can come about.
            pub fn nodes_min(self) -> u64 {
                match self {
                    $($(Mark::$mark => $nodes,)*)*
                }
            }
        }
    };
}

marks! {
    Core {
        // Elections.
        SplitVote, "split vote", 2: "Two nodes campaign in one term.";
        TwoLeaders, "two leaders", 2: "A node is elected while the leader of an earlier term still leads.";
        LeaderCrashesUncommitted, "leader crashes with uncommitted entries", 1: "A leader is killed whose log ends after what it has committed.";
        PauseDeposesLeader, "leader wakes up deposed", 2: "A leader stood still, and another one was elected meanwhile.";
        PreVoteRefused, "pre-vote refused", 2: "A node that hears its leader, or has more in its log, promises a candidate no vote.";
        PreVoteVetoed, "pre-vote vetoed by priority", 2: "A preferred node vetoes the pre-vote of a less preferred one.";
        VoteLosesToLog, "vote refused for a longer log", 2: "A free vote is refused since the candidate's log lacks something.";
        LearnerVotes, "vote of a node that takes itself for a learner", 2: "A node grants a vote by whose log it has none: it was promoted, and has not heard of it.";
        WitnessDecidesElection, "witness decides an election", 3: "Without the votes of witnesses the leader would have no majority.";
        StepsDownUnheard, "leader steps down without a majority", 2: "A leader steps down since no majority answered.";
        StepsDownRemoved, "leader steps down removed", 1: "A leader steps down since the membership that it committed has no vote for it.";
        // Log and commit.
        TruncatesMany, "truncation of several entries", 2: "A leader replaces more than one entry at the end of a log.";
        TruncatesMembership, "truncation of a membership", 2: "A leader replaces a membership that was in force at the end of a log.";
        OldAppendAfterTruncation, "late append after a truncation", 2: "An append of a leader of the past comes where entries of a later term stand now.";
        RepeatedAppend, "repeated append", 2: "An append comes whose entries are all in the log already.";
        EarlierTermCommits, "entries of an earlier term committed", 2: "With its own first entry a leader commits entries that it found in its log.";
        WitnessDecidesCommit, "witness decides a commit", 3: "Without witnesses an entry that a leader commits would have no majority.";
        ReadBack, "entries read back", 1: "Entries that are not in memory any more are read back from the log.";
        FetchPurged, "entries purged while they were read", 1: "Entries are purged between the request to read them back and the answer.";
        // Membership.
        JointChangesLeader, "joint phase survives its leader", 2: "A joint phase is left under another leader than it was begun under.";
        JointReplaces, "voters replaced in one step", 2: "A joint phase has voters that come and voters that go.";
        LeaderOutside, "leader outside of its membership", 2: "A leader changes the membership to one in which it has no vote, and leads until that is committed.";
        StrangerCampaigns, "removed voter campaigns", 2: "A node campaigns that the committed membership does not have as a voter.";
        LearnerPromoted, "learner promoted by duty", 1: "A leader's duty makes a learner that caught up a voter.";
        ChangePending, "change refused while another is pending", 1: "A change of the membership is refused since the one before is not committed.";
        LearnerRefused, "learner refused a vote", 1: "A learner that lacks too much of the log, or does not answer, is not made a voter.";
        WipedReplaced, "wiped member replaced", 3: "A member that lost its disk for ever leaves the membership.";
        WitnessesRefused, "too many witnesses refused", 2: "A change is refused since it would leave too many witnesses.";
        // Leadership handed over.
        TransferDone, "transfer completed", 2: "An operator's hand-over of the leadership succeeds.";
        TransferRefused, "transfer refused", 1: "A hand-over is refused at once.";
        TransferAborted, "transfer aborted", 2: "The target of a hand-over does not take over in time, and the leader leads on.";
        DiskHandover, "hand-over from a slow disk", 2: "A leader hands over since its disk is much slower than the others'.";
        PreferredHandover, "hand-over to a preferred node", 2: "A leader hands over to a node that the members prefer.";
        StalledLeader, "leader leaves its stalled disk", 2: "A leader steps down since a write to its disk is stuck.";
        FailedLeader, "leader's disk fails", 1: "A leader steps down since its disk failed.";
        // Reads and leases.
        FollowerRead, "read answered by a follower", 2: "A node that does not lead answers a linearizable read.";
        ReadLosesLeader, "read loses its leader", 2: "A read is refused since its leader was lost, or was none.";
        LeaseRead, "lease read served", 1: "A leader answers a read alone, by its lease.";
        LeaseWaitedOut, "lease waited out", 2: "A node lost its leader within a lease, and campaigned only after it.";
        PromiseRefusesVote, "vote refused by a promise", 2: "A free vote is refused to a candidate with a log good enough, since a lease was promised.";
        ClockDrifts, "clock seen to drift", 2: "A leader sees that a follower's clock drifts further than leases allow.";
        // Snapshots.
        SnapshotInstalled, "snapshot installed", 1: "A received snapshot takes the place of a log.";
        SnapshotOverDiverged, "snapshot over a diverged log", 2: "A received snapshot takes the place of a log with entries that were never committed.";
        InstallAnswersClients, "install answers waiting clients", 2: "Clients of a former leader are told that their fate is unknown, as a snapshot replaces its log.";
        SnapshotLate, "snapshot comes too late", 1: "A snapshot comes that ends before what its receiver knows to be committed.";
        SnapshotLost, "snapshot lost on its way", 1: "The transfer of a snapshot fails.";
        TransferResumed, "transfer resumed", 2: "A transfer goes on behind the pieces that came before another one broke off.";
        TransferGivenUp, "transfer given up because the snapshot changed", 2: "The part of a snapshot that its sender has no more makes room for another one.";
        // Disks and processes.
        RepairFinished, "repair finished", 3: "A damaged log is whole again by what its leader sent.";
        RepairWithholdsVote, "vote withheld by a repair", 3: "A node whose log waits for repair gives no vote.";
        TornWrite, "torn write", 1: "A crash leaves the beginning of a write.";
        UnheardWrite, "durable and unheard", 1: "A process is killed after a write became durable and before anybody heard of it.";
        AllDown, "all processes down", 1: "No process runs.";
        // The quorum, features, clients.
        QuorumLost, "quorum lost", 2: "A node has known no leader for so long that it says so.";
        QuorumRegained, "quorum regained", 2: "A node that had lost the quorum knows a leader again.";
        QuorumHealedAlone, "quorum healed alone", 3: "A quorum works while the faults of the others last.";
        FeaturesRise, "feature level risen", 1: "The cluster begins to use features that all members support.";
        OldBinaryRefused, "old binary refused", 1: "A binary does not start on a log that uses features which it lacks.";
        OldBinaryStops, "old binary stops", 1: "A node stops since the cluster began to use features which its binary lacks.";
        Busy, "client told to wait", 1: "A command is refused since too much is under way.";
        UnknownCommitted, "unknown fate, and committed", 1: "A command whose client was told that its fate is unknown was committed.";
        RefusedThenDone, "refused, and done elsewhere", 2: "A command that one node refused is acknowledged by another.";
    }
    Nodes {
        // How what a client has under way over QUIC ends without an answer.
        QuicRefused, "nobody listens for QUIC", 1: "A client over QUIC hears from its own machine that nobody listens at a node any more.";
        QuicReset, "QUIC reset by the next process", 1: "A node that has started again resets the connection that a client had with the process before.";
        QuicSilent, "node silent over QUIC", 1: "A client over QUIC gives a node up that keeps silent.";
        QuicStopping, "pipeline ended by a node that stops", 1: "A node that stops takes no more requests on a pipeline, and has done nothing of one that was on its way.";
    }
}

/// The marks of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks(u128);

impl FromIterator<Mark> for Marks {
    fn from_iter<Of: IntoIterator<Item = Mark>>(all: Of) -> Marks {
        let mut marks = Marks::default();
        all.into_iter().for_each(|mark| marks.note(mark));
        marks
    }
}

impl Marks {
    /// The situation came about.
    pub(super) fn note(&mut self, mark: Mark) {
        self.0 |= 1 << mark as u32;
    }

    /// The situation came about when `holds`.
    pub(super) fn note_if(&mut self, holds: bool, mark: Mark) {
        self.0 |= u128::from(holds) << mark as u32;
    }

    /// Whether the situation came about.
    pub fn has(self, mark: Mark) -> bool {
        self.0 >> mark as u32 & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_has_a_name_and_a_place_of_its_own() {
        let mut names: Vec<&str> = Mark::ALL.iter().map(|mark| mark.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Mark::ALL.len());
        assert!(Mark::ALL.len() <= 128, "a run has room for 128 marks");
        let mut marks = Marks::default();
        for mark in Mark::ALL {
            assert!(!marks.has(*mark));
            marks.note(*mark);
            assert!(marks.has(*mark));
        }
    }
}
