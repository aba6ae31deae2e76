//! Mistakes made on purpose, to see whether the simulation notices them.
//!
//! Each one re-creates, at the line where it would be made, a fault that a real implementation had. The switches exist
//! only with the feature `planted-bugs`, which no production build turns on; without it [`Planted`] is empty, and every
//! question is answered "no" when the code is compiled.

/// The switches of one crate, for those who depend on its feature `planted-bugs`: `Planted`, the mistake that is made if any,
/// and `PlantedBug`, all that can be. Each is documented with a sentence, and named as on the command line.
#[doc(hidden)]
#[macro_export]
macro_rules! planted_bugs {
    ($($(#[doc = $text:literal])+ $bug:ident = $name:literal,)+) => {
        /// The mistake that is made, if any.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Planted {
            #[cfg(feature = "planted-bugs")]
            bug: Option<PlantedBug>,
        }

        impl Planted {
            /// None of them.
            pub const NONE: Planted = Planted {
                #[cfg(feature = "planted-bugs")]
                bug: None,
            };

            /// The mistake `bug`.
            #[cfg(feature = "planted-bugs")]
            pub const fn with(bug: PlantedBug) -> Planted {
                Planted { bug: Some(bug) }
            }

            /// Whether this mistake is made.
            #[inline(always)]
            pub(crate) fn is(self, bug: PlantedBug) -> bool {
                #[cfg(feature = "planted-bugs")]
                return self.bug == Some(bug);
                #[cfg(not(feature = "planted-bugs"))]
                {
                    let _ = bug;
                    false
                }
            }
        }

        /// A mistake that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum PlantedBug {
            $($(#[doc = $text])+ $bug,)+
        }

        impl PlantedBug {
            /// All of them.
            pub const ALL: &'static [PlantedBug] = &[$(PlantedBug::$bug),+];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(PlantedBug::$bug => $name,)+
                }
            }

            /// What goes wrong with it.
            pub fn sentence(self) -> &'static str {
                match self {
                    $(PlantedBug::$bug => concat!($($text),+).trim_ascii(),)+
                }
            }
        }
    };
}

planted_bugs! {
    /// An entry of an earlier term is committed by counting replicas (logcabin#44, CCF#4485).
    CommitsEarlierTerm = "commits-earlier-term",
    /// A heartbeat moves the commit index past what is known to match (copycat#265, scylladb#9965, ra#508).
    HeartbeatCommitsBeyondMatch = "heartbeat-commits-beyond-match",
    /// A heartbeat's answer moves the match index over a divergent tail (ratis#1519).
    HeartbeatMovesMatch = "heartbeat-moves-match",
    /// A late append removes the entries behind it (akka-entity-replication#152).
    LateAppendTruncates = "late-append-truncates",
    /// Rewritten entries are not written again after a truncation (ra#637).
    TruncationIsNotRewritten = "truncation-is-not-rewritten",
    /// Bytes of committed entries are never taken off the count of uncommitted ones (cockroach#31689).
    UncommittedBytesLeak = "uncommitted-bytes-leak",
    /// A vote leaves before it is on disk (robustmq#2039).
    VoteLeavesBeforeSync = "vote-leaves-before-sync",
    /// Term and vote are written one after the other (hashicorp/raft#661).
    VoteIsWrittenApart = "vote-is-written-apart",
    /// Entries are written before the term that they belong to (openraft's order of I/O).
    EntriesBeforeTerm = "entries-before-term",
    /// The acknowledgement of a write counts for entries that were rewritten since (etcd raft, asynchronous writes).
    LateAcknowledgementCounts = "late-acknowledgement-counts",
    /// The leader counts its own log before its disk holds it (d-engine#446).
    LeaderCountsFromMemory = "leader-counts-from-memory",
    /// A follower accepts entries before its disk holds them (d-engine#446).
    FollowerAcceptsFromMemory = "follower-accepts-from-memory",
    /// A candidate counts its own vote before its disk holds it.
    OwnVoteFromMemory = "own-vote-from-memory",
    /// A candidate asks for votes before its own vote and the end of its log are on disk.
    CandidateAsksBeforeSync = "candidate-asks-before-sync",
    /// The pipeline wedges: what was acknowledged stays counted as under way (hashicorp/raft#612).
    InFlightLeak = "in-flight-leak",
    /// A lost append is never noticed.
    LostAppendIsForgotten = "lost-append-is-forgotten",
    /// Stepping down within a term clears the vote.
    SteppingDownClearsVote = "stepping-down-clears-vote",
    /// A refused vote counts as granted (openraft#1220).
    RefusedVoteCounts = "refused-vote-counts",
    /// A vote of an earlier term counts in this one.
    StaleVoteCounts = "stale-vote-counts",
    /// Only the length of logs is compared, not their last terms.
    LongerLogWins = "longer-log-wins",
    /// The refusal of a pre-vote teaches no term, so that a longer log of a lower term never gets through
    /// (openraft#1796).
    PreVoteTeachesNoTerm = "pre-vote-teaches-no-term",
    /// A node that asks for pre-votes refuses those of its peers (raft-rs#84).
    PreCandidateRefusesPeers = "pre-candidate-refuses-peers",
    /// A leader that no majority hears leads on (openraft#2080; the partial partitions of OmniPaxos).
    LeaderWithoutQuorumStays = "leader-without-quorum-stays",
    /// A leader campaigns (openraft#1839).
    LeaderCampaigns = "leader-campaigns",
    /// The membership changes before the leader has committed an entry of its own term (canonical/raft#336,
    /// openraft#2051).
    ChangeBeforeFirstCommit = "change-before-first-commit",
    /// A new leader leaves a joint membership that is not committed (camunda#60086).
    JointIsLeftUncommitted = "joint-is-left-uncommitted",
    /// A joint membership is left only by the leader that entered it (etcd#12136).
    JointIsLeftByNobodyElse = "joint-is-left-by-nobody-else",
    /// A learner becomes a voter however far behind it is.
    LearnerIsPromotedBehind = "learner-is-promoted-behind",
    /// A membership is in force only when it is committed (etcd#11284, etcd#12359).
    MembershipInForceWhenCommitted = "membership-in-force-when-committed",
    /// A truncation leaves the memberships that it removes in force (scylladb#30936).
    TruncationKeepsMembership = "truncation-keeps-membership",
    /// During a joint phase only the new voters' majority commits.
    JointCommitsByOneMajority = "joint-commits-by-one-majority",
    /// During a joint phase only the new voters' majority elects.
    JointElectsByOneMajority = "joint-elects-by-one-majority",
    /// An acceptance below the snapshot that was sent is ignored, and nothing is sent again (etcd-io/raft#110,
    /// etcd#10225).
    AcceptanceBelowSnapshotIsIgnored = "acceptance-below-snapshot-is-ignored",
    /// An old snapshot replaces a newer state (databend#7294).
    OldSnapshotIsInstalled = "old-snapshot-is-installed",
    /// The membership from before survives the install of a snapshot (openraft#1809).
    InstallKeepsMembership = "install-keeps-membership",
    /// The install of a snapshot strands waiting clients, and nobody gives them up later either (openraft#1762).
    InstallStrandsClients = "install-strands-clients",
    /// A read is answered before the leader has committed in its own term (etcd#7331, tikv#9239).
    ReadBeforeFirstCommit = "read-before-first-commit",
    /// A read joins a heartbeat round that was sent before it came (etcd#20418).
    ReadJoinsEarlierRound = "read-joins-earlier-round",
    /// A leader answers reads without asking a majority.
    ReadWithoutQuorum = "read-without-quorum",
    /// The log before new entries is not compared.
    PreviousIsNotCompared = "previous-is-not-compared",
    /// An append's commit index counts for entries that it did not compare. Appends here begin at the first difference,
    /// which would hide it: with this mistake they begin further back.
    AppendCommitsBeyondMatch = "append-commits-beyond-match",
    /// A witness grants every vote, since it has no data to lose.
    WitnessVotesBlindly = "witness-votes-blindly",
    /// A witness campaigns.
    WitnessCampaigns = "witness-campaigns",
    /// A witness is sent what no disk with data holds yet, and counts for its commit.
    WitnessIsAheadOfData = "witness-is-ahead-of-data",
    /// An acceptance of an earlier term counts in this one.
    StaleAcceptanceCounts = "stale-acceptance-counts",
    /// A node whose damaged log is being repaired votes (NuRaft#185, nats-server#7587).
    RepairingNodeVotes = "repairing-node-votes",
    /// A log that lost its end to damage passes for one that never was longer (TigerBeetle, protocol-aware recovery).
    DamagedEndIsForgotten = "damaged-end-is-forgotten",
    /// A node that replaces a wiped one gets its id (openraft#2002).
    ReplacementKeepsId = "replacement-keeps-id",
    /// A lost link ends a promise that a lease relies on.
    LinkLossBreaksPromise = "link-loss-breaks-promise",
    /// A node that starts again votes although it may have promised not to.
    RestartForgetsPromise = "restart-forgets-promise",
    /// A node promises something before its disk knows that it has lived, and forgets it when it starts again.
    FirstPromiseIsForgotten = "first-promise-is-forgotten",
    /// A leader uses a lease that it gave back to its heir.
    ReleasedLeaseIsUsed = "released-lease-is-used",
    /// The word to take over waives promises that were made after it left.
    LateReleaseWaivesLaterPromises = "late-release-waives-later-promises",
    /// A lease is counted from when the promise came, not from when it was asked for.
    LeaseCountsFromReceipt = "lease-counts-from-receipt",
    /// A lease lasts as long as the promise, as if no clock drifted.
    LeaseIgnoresDrift = "lease-ignores-drift",
    /// A forced start keeps the lineage, so that the nodes that were left out take part again.
    ForcedStartKeepsLineage = "forced-start-keeps-lineage",
    /// A forced start keeps the voters that were lost, so that nobody is elected.
    ForcedStartKeepsVoters = "forced-start-keeps-voters",
    /// A node forgets the answers to requests, and clients, when it finds them old: each on its own.
    SessionExpiresLocally = "session-expires-locally",
    /// The answers to requests are not part of snapshots.
    DuplicatesAreNotInTheSnapshot = "duplicates-are-not-in-the-snapshot",
    /// A leader that was deposed revokes leases that its successor renewed (etcd#12528, etcd#15247).
    StaleLeaderRevokes = "stale-leader-revokes",
}
