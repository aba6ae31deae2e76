//! What must hold after every step, checked as it happens and at a cost that does not grow with the run.
//!
//! | checker | what it sees to |
//! |---|---|
//! | [`election`] | at most one leader a term, chosen by a majority of durable votes (Raft paper, figure 3, "Election Safety") |
//! | [`log`] | one entry a position and one predecessor an entry ("Log Matching"); a leader never overwrites its own ("Leader Append-Only") |
//! | [`commit`] | what a leader commits never changes, is on a majority's disks, and was committed by an entry of the leader's own term; every later leader has it ("Leader Completeness") |
//! | [`matching`] | what a leader takes a follower to hold is on that follower's disk |
//! | [`state`] | the same index gives the same state on every node ("State Machine Safety") |
//! | [`membership`] | a leader changes the membership only after the last change is committed, quorums overlap (Raft dissertation, 4.3), ids are given once, who becomes a voter has caught up, and the last membership of a log is in force |
//! | [`promise`] | no vote and no acknowledgement leaves before the disk holds what it promises; no vote is given twice, and none with a damaged log |
//! | [`contact`] | a leader that no majority reaches steps down |
//! | [`progress`] | terms, commit and applied indexes of a node only rise, and `purged <= commit`, `applied <= commit <= last`; no entry is purged whose effect is not on disk |
//! | [`queues`] | what a node holds for others is bounded |
//! | [`flood`] | however messages fare, a leader sends an entry a bounded number of times; looked at when the run ends |
//! | [`handover`] | leaders hand over of their own accord seldom, and not at all when no disk is worse than another |
//! | [`lease`] | nobody is elected while another leader holds a lease, by that leader's own clock, and no leader gets one when another was elected (Raft dissertation, section 6.4.1) |
//! | [`grants`] | leases that are kept alive last, whoever leads (etcd#12528, etcd#15247) |
//! | [`sessions`] | a session has one owner in an epoch, and epochs rise (Kleppmann, "How to do distributed locking") |
//! | [`once`] | requests made several times are carried out once, and every attempt has the same answer (Raft dissertation, section 6.3) |
//! | [`streams`] | offsets of streams are dense, a repeated message is known, cursors are never ahead, and what nodes store of streams is what was appended |
//! | [`client`] | every request gets one answer; what was acknowledged is in the log once; reads see what was acknowledged before |

pub(super) mod client;
pub(crate) mod commit;
pub(super) mod contact;
pub(crate) mod election;
pub(super) mod flood;
pub(super) mod grants;
pub(super) mod handover;
pub(super) mod lease;
pub(super) mod log;
pub(super) mod matching;
pub(super) mod membership;
pub(super) mod once;
pub(crate) mod progress;
pub(crate) mod promise;
pub(super) mod queues;
pub(super) mod sessions;
pub(crate) mod state;
pub(super) mod streams;

/// A broken property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Breach {
    /// The property.
    pub(crate) checker: &'static str,
    /// What was seen, in words.
    pub(crate) seen: String,
}

/// Whether a property holds.
pub(crate) type Verdict = Result<(), Breach>;

/// A property that holds only when `holds`; `seen` says what was seen when it does not.
pub(crate) fn demand(holds: bool, checker: &'static str, seen: impl FnOnce() -> String) -> Verdict {
    if holds {
        Ok(())
    } else {
        Err(Breach {
            checker,
            seen: seen(),
        })
    }
}

/// All checkers that look across nodes.
#[derive(Debug)]
pub(super) struct Checkers {
    pub(super) elections: election::Elections,
    pub(super) entries: log::Entries,
    pub(super) committed: commit::CommittedLog,
    pub(super) states: state::States,
    pub(super) promises: promise::Promises,
    pub(super) clients: client::Clients,
    pub(super) handovers: handover::Handovers,
    pub(super) grants: grants::Grants,
    pub(super) once: once::Requests,
    pub(super) sessions: sessions::Sessions,
    pub(super) streams: streams::Streams,
}

impl Checkers {
    /// Checkers at the beginning of a run; without `checks` only what the run itself asks them is kept. Clocks run fast or
    /// slow by so many parts of a million.
    pub(super) fn new(checks: bool, clock_skew: u64) -> Checkers {
        Checkers {
            elections: election::Elections::default(),
            entries: log::Entries::default(),
            committed: commit::CommittedLog::new(checks),
            states: state::States::default(),
            promises: promise::Promises::default(),
            clients: client::Clients::new(checks),
            handovers: handover::Handovers::default(),
            grants: grants::Grants::new(clock_skew),
            once: once::Requests::default(),
            sessions: sessions::Sessions::default(),
            streams: streams::Streams::default(),
        }
    }
}
