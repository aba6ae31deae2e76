//! Consensus: Raft with pre-vote, check-quorum, learners, joint consensus and asynchronous durability.
//!
//! [`Raft`] is a state machine in the strict sense. [`Raft::step`] takes one [`Input`]; [`Raft::drain`] hands out what
//! has to be done about all inputs since the last drain. A driver that steps many inputs before it drains gets one
//! write and one append a peer for all of them, which is how group commit and batching come about.
//!
//! Invariants, asserted in release builds too:
//! - `base <= applied <= handed <= commit <= last` and `durable <= last`; what is applied is durable here;
//! - term, commit and applied never go down; a vote never changes within a term;
//! - a message that promises durability leaves only when its write was acknowledged ([`durability`]);
//! - the leader's own log counts towards a majority only as far as its disk holds it.
//!
//! One concept a file: [`receive`] (messages and terms), [`election`], [`heartbeat`], [`propose`] (clients' commands),
//! [`replication`] (the leader's side), [`following`] (the follower's), [`commit`], [`read`], [`lease`], [`transfer`],
//! [`handover`] (why a leader gives up), [`priority`], [`change`] (membership), [`learner`] (when one may vote),
//! [`witness`], [`install`] (snapshots), [`repair`] (of a damaged log), [`disk`] (how the disk fares), [`feature`] (gates),
//! [`quorum_loss`], [`failure`] (the end), [`forced`] (a start after the loss of a majority), [`divergence`] and
//! [`outline`] (a node that has what the others lack), [`load`] (what is held for others).

mod boot;
mod change;
mod commit;
mod config;
mod disk;
mod divergence;
mod durability;
mod effects;
mod election;
mod entries;
mod entry;
mod failure;
mod feature;
mod fingerprint;
mod following;
mod forced;
mod handover;
mod heartbeat;
mod id;
mod input;
mod install;
mod learner;
mod lease;
mod load;
mod log;
mod membership;
mod message;
mod outcome;
mod outline;
mod pipeline;
mod planted;
mod priority;
mod progress;
mod propose;
mod quorum;
mod quorum_loss;
mod read;
mod receive;
mod repair;
mod replication;
mod role;
mod status;
mod tail;
mod trace;
mod transfer;
mod witness;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use self::commit::ApplyCursor;
use self::durability::Durability;
use self::failure::Failure;
use self::lease::Promise;
use self::log::Log;
use self::priority::Precedence;
use self::quorum_loss::QuorumWatch;
use self::read::PendingReads;
use self::role::{Follower, Leader, Owed, Part, Transfer};
use crate::time::Instant;

pub use boot::{Boot, BootError};
pub use config::Config;
pub use disk::DiskHealth;
pub use divergence::Quarantine;
pub use effects::{Apply, Committed, Effects, Fetch, SnapshotOp, Write};
pub use entries::Entries;
pub use entry::{Base, Entry, HardState, Payload};
pub use feature::FeatureLevel;
pub use forced::{ForcedStart, ForcedStartError};
pub use id::{DirectoryId, FetchId, Index, Lineage, NodeId, Position, Term, Token, WriteId};
pub use input::{DiskError, FetchError, Input, LinkEvent, Operation, ReadMode, SnapshotEvent};
pub use lease::{LeaseGrant, LeaseReads, LeaseRequest};
pub use load::Load;
pub use membership::{Change, ChangeError, Member, Membership};
pub use message::{Body, Message, PreVote};
pub use outcome::{Outcome, Refusal};
pub use outline::{Comparison, Fork, OnlyHere, Outline};
pub use planted::{Planted, PlantedBug};
pub use status::{Advance, PeerState, PeerStatus, Role, Status};
pub use trace::{HandoverReason, StepDown, TraceEvent};

/// One member of a group that agrees on a log.
#[derive(Clone, Debug)]
pub struct Raft {
    config: Config,
    id: NodeId,
    hard_state: HardState,
    log: Log,
    commit: Index,
    cursor: ApplyCursor,
    part: Part,
    election_due: Instant,
    /// Until then a follower that lost its leader asks again soon when it is refused: others learn of the loss a few
    /// milliseconds apart.
    eager_until: Instant,
    precedence: Precedence,
    /// What this node promised to a leader, or may have promised before it started.
    promise: Option<Promise>,
    quorum: QuorumWatch,
    durability: Durability,
    /// Commands of this node's clients that are in the log and not applied, oldest first.
    owed: VecDeque<Owed>,
    /// When replies that no commit has settled are given up; set when leadership ends.
    owed_until: Option<Instant>,
    /// A hand-over that ended this node's leadership, until it is known who leads.
    handed_over: Option<Transfer>,
    reads: PendingReads,
    fetches: BTreeMap<FetchId, FetchReason>,
    next_fetch: FetchId,
    failed: Option<Failure>,
    /// Where the log ended before damage took its end, as long as it has not reached that position again.
    repair: Option<Position>,
    random: ChaCha12Rng,
    now: Instant,
    output: Effects,
}

/// What fetched entries are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FetchReason {
    Apply,
    Replicate(NodeId),
}

impl Raft {
    /// A node with what it remembers. It begins as a follower without a leader.
    ///
    /// # Errors
    /// When the settings make no sense or the recovered parts contradict each other.
    pub fn new(config: Config, boot: Boot, seed: [u8; 32], now: Instant) -> Result<Raft, BootError> {
        config.validate()?;
        boot.check()?;
        let log = Log::new(&boot, config.planted);
        let memberships = boot.memberships.iter().map(|(_, membership)| membership);
        for membership in memberships.chain([&boot.base.membership]) {
            config.fits(boot.id, membership)?;
        }
        let tail = boot.tail;
        let mut raft = Raft {
            id: boot.id,
            hard_state: boot.hard_state,
            commit: boot.applied,
            cursor: ApplyCursor::new(boot.applied),
            log,
            part: Part::Follower(Follower::default()),
            election_due: now,
            eager_until: now,
            precedence: Precedence::new(now),
            promise: None,
            quorum: QuorumWatch::new(now),
            durability: Durability::starting(boot.hard_state),
            owed: VecDeque::new(),
            owed_until: None,
            handed_over: None,
            reads: PendingReads::default(),
            fetches: BTreeMap::new(),
            next_fetch: FetchId(1),
            failed: None,
            repair: boot
                .repair
                .filter(|_| !config.planted.is(PlantedBug::DamagedEndIsForgotten)),
            random: ChaCha12Rng::from_seed(seed),
            now,
            output: Effects::default(),
            config,
        };
        if !tail.iter().all(|entry| raft.holds_such(&entry.payload)) {
            return Err(BootError::Inconsistent(
                "a witness's log has commands, or another's has none where they were",
            ));
        }
        raft.promise = raft.promise_of_earlier_life();
        raft.wait_for_election();
        raft.consider_repaired();
        Ok(raft)
    }

    /// Handles one input. `now` is sampled after the input was taken from its queue and never goes back.
    ///
    /// # Panics
    /// When `now` goes back, when the driver breaks a promise of its interface, or when an invariant is broken. No
    /// message of another node, however malformed, makes it panic.
    pub fn step(&mut self, now: Instant, input: Input) {
        assert!(now >= self.now, "time never goes back");
        self.now = now;
        if self.failed.is_some() {
            self.refuse_after_failure(input);
            return;
        }
        match input {
            Input::Timeout => {}
            Input::Receive { from, message } => self.receive(from, message),
            Input::Propose { token, command } => self.propose(token, command),
            Input::Read { token, mode } => self.read(token, mode),
            Input::Admin { token, operation } => self.administer(token, operation),
            Input::Persisted { write, result } => self.persisted(write, result),
            Input::Applied { index } => self.applied(index),
            Input::Fetched { fetch, result } => self.fetched(fetch, result),
            Input::Snapshot(event) => self.snapshot_event(event),
            Input::Link { peer, event } => self.link(peer, event),
            Input::Superseded { by } => self.superseded(*by),
        }
        self.consider_repaired();
        self.run_timers();
        self.check();
    }

    /// Moves out everything that has to be done since the last drain, at the end of what `effects` holds.
    pub fn drain(&mut self, effects: &mut Effects) {
        if self.failed.is_none() {
            self.ask_reads();
            self.log.seal();
            self.replicate();
            self.hand_over_committed();
            self.write_what_changed();
            self.log.shrink(self.commit, self.config.tail_bytes_max);
        }
        self.output.move_to(effects);
    }

    /// When [`Input::Timeout`] is due; none when nothing waits for time.
    pub fn deadline(&self) -> Option<Instant> {
        if self.failed.is_some() {
            return None;
        }
        let part = match &self.part {
            Part::Follower(_) | Part::Candidate(_) => self.can_campaign().then_some(self.election_due),
            Part::Leader(leader) => Some(self.leader_deadline(leader)),
        };
        let quorum = self.quorum_deadline();
        let handover = self.handed_over.as_ref().map(|transfer| transfer.deadline);
        [part, quorum, self.reads.deadline(), self.owed_until, handover]
            .into_iter()
            .flatten()
            .min()
    }

    /// A look at the node.
    pub fn status(&self) -> Status<'_> {
        Status {
            id: self.id,
            term: self.hard_state.term,
            vote: self.hard_state.vote,
            role: self.role(),
            leader: self.leader(),
            commit: self.commit,
            applied: self.cursor.applied(),
            last: self.log.last(),
            durable: self.log.durable(),
            base: self.log.base(),
            membership: self.log.membership(),
            membership_position: self.log.membership_position(),
            peers: self.peer_statuses(),
            transfer: self
                .leading()
                .and_then(|leader| leader.transfer.as_ref())
                .map(|transfer| transfer.target),
            quorum_contact: self.leading().map(|leader| self.quorum_contact(leader)),
            lease_until: self.leading().and_then(|leader| self.lease_until(leader)),
            disk: self.disk_health(),
            repairing: self.repairing(),
            read_only: self.quorum.is_lost(),
            quarantine: match self.failed {
                Some(Failure::Quarantined(quarantine)) => Some(quarantine),
                Some(Failure::Disk | Failure::Unfit(_)) | None => None,
            },
        }
    }

    /// How far the node is.
    pub fn progress(&self) -> Advance {
        Advance {
            term: self.hard_state.term,
            commit: self.commit,
            applied: self.cursor.applied(),
        }
    }

    fn role(&self) -> Role {
        match &self.part {
            _ if self.failed.is_some() => Role::Failed,
            Part::Follower(_) if self.config.witness => Role::Witness,
            Part::Follower(_) if !self.log.membership().is_voter(self.id) => Role::Learner,
            Part::Follower(_) => Role::Follower,
            Part::Candidate(candidate) if candidate.pre_vote => Role::PreCandidate,
            Part::Candidate(_) => Role::Candidate,
            Part::Leader(_) => Role::Leader,
        }
    }

    /// The leader that this node knows.
    fn leader(&self) -> Option<NodeId> {
        match &self.part {
            Part::Follower(follower) => follower.leader,
            Part::Candidate(_) => None,
            Part::Leader(_) => Some(self.id),
        }
    }

    fn leading(&self) -> Option<&Leader> {
        match &self.part {
            Part::Leader(leader) => Some(leader),
            Part::Follower(_) | Part::Candidate(_) => None,
        }
    }

    fn leading_mut(&mut self) -> Option<&mut Leader> {
        match &mut self.part {
            Part::Leader(leader) => Some(leader),
            Part::Follower(_) | Part::Candidate(_) => None,
        }
    }

    /// Whether this node makes the mistake `bug`.
    #[inline(always)]
    fn planted(&self, bug: PlantedBug) -> bool {
        self.config.planted.is(bug)
    }

    fn administer(&mut self, token: Token, operation: Operation) {
        if self.leading().is_none() {
            self.answer(
                token,
                Outcome::NotLeader {
                    leader: self.leader(),
                },
            );
            return;
        }
        match operation {
            Operation::ChangeMembership(changes) => self.change_membership(token, &changes),
            Operation::Transfer { target } => self.transfer_leadership(token, target),
        }
    }

    fn fetched(&mut self, fetch: FetchId, result: Result<Vec<Entry>, FetchError>) {
        let Some(reason) = self.fetches.remove(&fetch) else {
            return;
        };
        if let Err(FetchError::Disk(error)) = result {
            self.fail(error);
            return;
        }
        match reason {
            FetchReason::Apply => self.fetched_to_apply(fetch, result.ok().map(Entries::from)),
            FetchReason::Replicate(peer) => {
                self.fetched_to_replicate(peer, fetch, result.ok().map(Entries::from))
            }
        }
    }

    fn link(&mut self, peer: NodeId, event: LinkEvent) {
        match event {
            LinkEvent::Connected => self.link_connected(peer),
            LinkEvent::Lost | LinkEvent::Refused => self.link_cut(peer),
        }
    }

    fn run_timers(&mut self) {
        if self.failed.is_some() {
            return;
        }
        match &self.part {
            Part::Follower(_) | Part::Candidate(_) => self.run_election_timer(),
            Part::Leader(_) if self.planted(PlantedBug::LeaderCampaigns) && self.now >= self.election_due => {
                self.run_election_timer()
            }
            Part::Leader(_) => self.run_leader_timers(),
        }
        self.watch_quorum();
        self.expire_reads();
        self.expire_owed();
        self.expire_handover();
    }

    fn send(&mut self, to: NodeId, body: Body) {
        self.output.send.push((
            to,
            Message {
                term: self.hard_state.term,
                body,
            },
        ));
    }

    fn answer(&mut self, token: Token, outcome: Outcome) {
        self.output.outcome.push((token, outcome));
    }

    fn request_fetch(&mut self, first: Index, last: Index, bytes_max: u64, reason: FetchReason) -> FetchId {
        let id = self.next_fetch;
        self.next_fetch = id.next();
        self.fetches.insert(id, reason);
        self.output.fetch.push(Fetch {
            id,
            first,
            last,
            bytes_max,
        });
        id
    }

    /// A duration between the two, evenly.
    fn random_between(&mut self, shortest: Duration, longest: Duration) -> Duration {
        let span = longest.saturating_sub(shortest).as_nanos() as u64 + 1;
        // The bias of a remainder is below one in 2^34 for spans of seconds.
        shortest + Duration::from_nanos(self.random.next_u64() % span)
    }

    fn check(&self) {
        let last = self.log.last();
        assert!(self.log.base().position.index <= self.cursor.applied() || self.cursor.is_installing());
        assert!(
            self.cursor.handed() <= self.commit,
            "only committed entries are applied"
        );
        let applied = self.cursor.applied();
        assert!(applied <= self.cursor.handed(), "what is applied was handed out");
        assert!(
            applied <= self.log.durable() || self.cursor.is_installing(),
            "what is applied is durable here"
        );
        assert!(self.commit <= last.index, "what is committed is in the log");
        assert!(self.log.durable() <= last.index, "what is durable is in the log");
        assert!(
            last.term <= self.hard_state.term,
            "no entry is of a later term than the node has seen"
        );
    }
}
