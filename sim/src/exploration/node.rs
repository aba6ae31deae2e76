//! One node with its disk: what it does with one thing that happens to it.
//!
//! What a node does depends on nothing but its own state and on what happens, so that each pair of the two is played
//! once, however many states of the cluster it occurs in.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use quorate_core::Instant;
use quorate_core::raft::{
    Apply, Body, Boot, Config, Effects, Index, Input, Membership, Message, NodeId, Planted, Position, Raft,
    Role, Term, Token, TraceEvent,
};

use super::disk::Disk;

/// A node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    raft: Raft,
    pub(super) disk: Disk,
    now: Instant,
    /// What its state machine has applied, in this life.
    pub(super) applied: Vec<Position>,
    /// Whether its writes become durable at any later moment, and not before it goes on.
    pub(super) slow: bool,
    planted: Planted,
}

/// What happens to a node.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    /// Its disk is slow from the beginning on.
    Slow,
    /// A message arrives.
    Message(NodeId, Message),
    /// A message arrives when no leader was heard of for the smallest election time-out, and its own timer has not fired yet.
    LateMessage(NodeId, Message),
    /// Its next timer fires.
    Timeout,
    /// The oldest write becomes durable, and it hears of it.
    Persist,
    /// A client proposes a command, the one with this number.
    Propose(u8),
    /// It crashes, keeps so many of the writes under way, and starts again.
    Crash(usize),
}

/// What came of it.
#[derive(Clone, Debug)]
pub(super) struct Consequence {
    pub(super) node: Node,
    /// What it sent, and to whom.
    pub(super) sent: Vec<(NodeId, Message)>,
    /// The terms in which it was elected.
    pub(super) elected: Vec<Term>,
}

impl Node {
    pub(super) fn new(id: NodeId, membership: &Membership, planted: Planted) -> Node {
        let boot = Boot::blank(id, membership.clone());
        Node {
            id,
            raft: raft(boot, Instant::ORIGIN, planted),
            disk: Disk::new(membership.clone()),
            now: Instant::ORIGIN,
            applied: Vec::new(),
            slow: false,
            planted,
        }
    }

    pub(super) fn fingerprint(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        self.raft.fingerprint().hash(&mut hash);
        format!("{:?}", self.disk).hash(&mut hash);
        self.applied.hash(&mut hash);
        self.slow.hash(&mut hash);
        hash.finish()
    }

    pub(super) fn term(&self) -> Term {
        self.raft.progress().term
    }

    pub(super) fn leads(&self) -> bool {
        self.raft.status().role == Role::Leader
    }

    pub(super) fn has_a_timer(&self) -> bool {
        self.raft.deadline().is_some()
    }

    /// Whether the entry at this position is in its log, durable or on the way there.
    pub(super) fn holds(&self, position: Position) -> bool {
        let written = self.disk.under_way.iter().flat_map(|write| &write.entries);
        self.disk.durable.position(position.index) == Some(position)
            || written.map(|entry| entry.position).any(|held| held == position)
    }

    /// Whether a message to it can still mean anything. An answer to what it asked in a term that it has left for good
    /// is ignored whenever it comes.
    pub(super) fn heeds(&self, message: &Message) -> bool {
        let left = self.disk.durable.hard_state.term;
        match message.body {
            // A promise names the term that it is for; whoever gives it may teach a later one.
            Body::PreVoteResponse { proposed, .. } => proposed > left || message.term > left,
            Body::VoteResponse { .. }
            | Body::AppendAccepted { .. }
            | Body::AppendRejected { .. }
            | Body::HeartbeatResponse { .. } => message.term >= left,
            _ => true,
        }
    }

    /// What it does when `happening` happens, or what it breaks with that.
    pub(super) fn after(&self, happening: Happening) -> Result<Consequence, String> {
        let mut next = Consequence {
            node: self.clone(),
            sent: Vec::new(),
            elected: Vec::new(),
        };
        let input = match happening {
            Happening::Slow => {
                next.node.slow = true;
                return Ok(next);
            }
            Happening::Message(from, message) => Input::Receive { from, message },
            Happening::LateMessage(from, message) => {
                next.node.wait_for_a_leader();
                Input::Receive { from, message }
            }
            Happening::Timeout => {
                let due = self.raft.deadline().expect("a timer is armed");
                next.node.now = next.node.now.max(due);
                Input::Timeout
            }
            Happening::Persist => next.node.persisted().expect("a write is under way"),
            Happening::Propose(number) => Input::Propose {
                token: Token(u64::from(number)),
                command: vec![number].into(),
            },
            Happening::Crash(kept) => {
                next.node.crash(kept);
                return Ok(next);
            }
        };
        next.step(input)?;
        Ok(next)
    }

    /// Whether it judges this message by when it heard of a leader.
    pub(super) fn may_be_late(&self, message: &Message) -> bool {
        let status = self.raft.status();
        let asks = matches!(
            message.body,
            Body::PreVoteRequest { .. } | Body::VoteRequest { .. }
        );
        asks && status.role == Role::Follower && status.leader.is_some()
    }

    /// Lets so much time pass in vain that it takes a leader for lost when it is asked, but not so much that it asks itself.
    fn wait_for_a_leader(&mut self) {
        let silent = self.now + Config::default().election_timeout_min;
        let due = self.raft.deadline().unwrap_or(silent);
        let before = due - Duration::from_nanos(1);
        self.now = self.now.max(silent.min(before));
    }

    fn crash(&mut self, kept: usize) {
        self.disk.crash(kept);
        self.raft = raft(self.disk.durable.boot(self.id), self.now, self.planted);
        self.applied.clear();
    }

    /// The oldest write becomes durable, which the node is to hear of; none when none is under way.
    fn persisted(&mut self) -> Option<Input> {
        let write = self.disk.sync()?;
        Some(Input::Persisted {
            write: write.id,
            result: Ok(()),
        })
    }

    /// No vote and no acceptance leaves before the disk holds what it promises.
    fn check_promise(&self, message: &Message) -> Result<(), String> {
        let durable = &self.disk.durable;
        let hard_state = durable.hard_state;
        let kept = match &message.body {
            Body::VoteResponse { granted: true } => {
                hard_state.term >= message.term && hard_state.vote.is_some()
            }
            Body::VoteRequest { last, .. } => {
                let own = hard_state.term == message.term && hard_state.vote == Some(self.id);
                hard_state.term > message.term || (own && durable.last() >= *last)
            }
            Body::AppendAccepted { matched } => *matched == Index(0) || durable.position(*matched).is_some(),
            _ => true,
        };
        if kept {
            Ok(())
        } else {
            Err(format!(
                "no promise before it is durable: node {} says {message:?}",
                self.id
            ))
        }
    }
}

impl Consequence {
    /// Steps the node, and carries out everything that needs no time. A disk that is not slow is done at once.
    fn step(&mut self, input: Input) -> Result<(), String> {
        self.step_once(input)?;
        while !self.node.slow
            && let Some(persisted) = self.node.persisted()
        {
            self.step_once(persisted)?;
        }
        Ok(())
    }

    fn step_once(&mut self, input: Input) -> Result<(), String> {
        let node = &mut self.node;
        node.raft.step(node.now, input);
        let mut effects = Effects::default();
        loop {
            node.raft.drain(&mut effects);
            if effects.is_empty() {
                return Ok(());
            }
            node.disk.under_way.extend(effects.write.drain(..));
            for apply in effects.apply.drain(..) {
                let Apply::Committed(committed) = apply else {
                    return Err("a snapshot is installed, and there is none".to_owned());
                };
                for entry in &committed.entries {
                    node.applied.push(entry.position);
                    let index = entry.position.index;
                    node.raft.step(node.now, Input::Applied { index });
                }
            }
            for (to, message) in effects.send.drain(..) {
                node.check_promise(&message)?;
                self.sent.push((to, message));
            }
            for event in effects.trace.drain(..) {
                if let TraceEvent::Elected { term } = event {
                    self.elected.push(term);
                }
            }
            effects.outcome.clear();
            if !effects.fetch.is_empty() || !effects.snapshot.is_empty() {
                return Err("entries are missing in memory, and everything is small".to_owned());
            }
        }
    }
}

fn raft(boot: Boot, now: Instant, planted: Planted) -> Raft {
    let config = Config {
        planted,
        ..Config::default()
    };
    Raft::new(config, boot, [1; 32], now).expect("the disk is sound")
}
