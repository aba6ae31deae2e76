//! A node under arbitrary inputs: honest answers of its disk and its state machine, requests of clients, time, and
//! messages from members and strangers with every mixture of plausible, stale and absurd terms, indexes, positions and
//! memberships. After each step its term, vote, commit and promises are checked, and in the end that every request was
//! answered exactly once.
//!
//! What happens is drawn from dice: a seeded stream in tests, the bytes of a fuzzer in `fuzz/`.

mod dice;
pub(crate) mod stored;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use quorate_core::Instant;
use quorate_core::raft::*;

pub(crate) use dice::Dice;

pub(crate) const OWN: NodeId = NodeId(1);

/// A member of a cluster in which the node under test is a witness, or another one is.
fn member(id: u64, witness: bool) -> Member {
    Member {
        priority: 99 + id as u8,
        witness: id % 3 == if witness { OWN.0 } else { 2 },
        ..Member::named(id.to_string(), DirectoryId(u128::from(id)))
    }
}

fn voters(count: u64, witness: bool) -> Membership {
    Membership::bootstrap(
        Lineage(7),
        (1..=count).map(|id| (NodeId(id), member(id, witness))).collect(),
    )
}

/// A membership as the wire could carry it, sound or not.
fn any_membership(dice: &mut Dice, witness: bool) -> Membership {
    let mut set = |most: u64| -> BTreeSet<u64> {
        let count = dice.below(most + 1);
        (0..count).map(|_| dice.below(6)).collect()
    };
    let (voters, outgoing, learners) = (set(4), set(2), set(2));
    let mut members: BTreeMap<u64, Member> = voters
        .iter()
        .chain(&outgoing)
        .chain(&learners)
        .map(|id| (*id, member(*id, witness)))
        .collect();
    if dice.one_in(4) {
        members.pop_first();
    }
    let next_id = if dice.one_in(4) { dice.near(3) } else { 9 };
    let level = if dice.one_in(200) { dice.below(4) as u16 } else { 1 };
    let lineage = if dice.one_in(20) { 8u128 } else { 7 };
    let forks: Vec<Fork> = Vec::new();
    let parts = (
        lineage, voters, outgoing, learners, members, next_id, level, forks,
    );
    postcard::from_bytes(&postcard::to_stdvec(&parts).unwrap()).unwrap()
}

/// The node under test, with an honest driver.
pub(crate) struct Bench {
    raft: Raft,
    witness: bool,
    now: Instant,
    dice: Dice,
    /// One message in so many is of another term.
    calm: u64,
    /// Terms in which a leader replaced entries, perhaps such as it had sent itself: no acceptance can hold then.
    contradicted: BTreeSet<Term>,
    /// What the disk holds, and the writes under way.
    log: Vec<Entry>,
    base: Base,
    hard_state: HardState,
    writes: VecDeque<Write>,
    applies: VecDeque<Apply>,
    fetches: VecDeque<Fetch>,
    applied: BTreeMap<Index, Entry>,
    waiting: BTreeSet<Token>,
    next_token: u64,
    sent: Vec<(NodeId, Message)>,
    disk_failed: bool,
}

impl Bench {
    /// A node that starts from what it finds on its disk; it can run only when that is playable.
    ///
    /// # Errors
    /// When it refuses to start from that.
    pub(crate) fn start(mut dice: Dice, boot: Boot, witness: bool) -> Result<Bench, BootError> {
        let config = Config {
            retained_entries: dice.below(3),
            lagging_entries_max: dice.below(5),
            purge_step: 1,
            tail_bytes_max: dice.below(400),
            append_bytes_max: 1 + dice.below(200),
            in_flight_bytes_max: 1 + dice.below(400),
            uncommitted_bytes_max: 100 + dice.below(400),
            apply_bytes_max: 1 + dice.below(200),
            reads_max: 3,
            lease_reads: dice.one_in(2).then_some(LeaseReads {
                clock_drift_max: 10_000,
            }),
            witness,
            ..Config::default()
        };
        let now = Instant::from_nanoseconds(1);
        let seed = [dice.below(256) as u8; 32];
        let (hard_state, base) = (boot.hard_state, boot.base.clone());
        let raft = Raft::new(config, boot.clone(), seed, now)?;
        Ok(Bench {
            raft,
            witness,
            now,
            calm: 1 + dice.below(30),
            contradicted: BTreeSet::new(),
            dice,
            log: if stored::is_playable(&boot) {
                stored::entries(&boot)
            } else {
                vec![]
            },
            base,
            hard_state,
            writes: VecDeque::new(),
            applies: VecDeque::new(),
            fetches: VecDeque::new(),
            applied: BTreeMap::new(),
            waiting: BTreeSet::new(),
            next_token: 0,
            sent: vec![],
            disk_failed: false,
        })
    }

    /// Whether the node ever led.
    pub(crate) fn has_led(&self) -> bool {
        let is_heartbeat = |message: &Message| matches!(message.body, Body::Heartbeat { .. });
        self.sent.iter().any(|(_, message)| is_heartbeat(message))
    }

    /// How the node is.
    pub(crate) fn status(&self) -> Status<'_> {
        self.raft.status()
    }

    /// Puts in what may contradict what is committed; mostly only what does not, since that sets the node aside for good.
    fn step_unless_set_aside(&mut self, input: Input) {
        let mut trial = self.raft.clone();
        trial.step(self.now, input.clone());
        if trial.status().quarantine.is_none() || self.dice.one_in(50) {
            self.step(input);
        }
    }

    fn step(&mut self, input: Input) {
        let (term, vote, commit) = {
            let status = self.raft.status();
            (status.term, status.vote, status.commit)
        };
        self.raft.step(self.now, input);
        let load = self.raft.load();
        assert!(load.reads <= load.reads_max, "more reads wait than may: {load:?}");
        let status = self.raft.status();
        let others = status.membership.members().len();
        assert!(
            load.fetches <= others + 1,
            "more is read back than is needed: {load:?}"
        );
        assert!(status.term >= term, "the term went down");
        assert!(status.commit >= commit, "the commit went down");
        assert!(status.commit <= status.last.index);
        assert!(
            status.term > term || vote.is_none() || status.vote == vote,
            "the vote changed"
        );
        if !self.dice.one_in(3) {
            self.drain();
        }
    }

    fn drain(&mut self) {
        let mut effects = Effects::default();
        self.raft.drain(&mut effects);
        for (token, _) in effects.outcome {
            assert!(self.waiting.remove(&token), "a request is answered twice");
        }
        for apply in &effects.apply {
            if let Apply::Committed(committed) = apply {
                for (_, token) in &committed.tokens {
                    assert!(self.waiting.remove(token), "a request is answered twice");
                }
            }
        }
        for event in &effects.trace {
            if let TraceEvent::Truncated { .. } | TraceEvent::SnapshotAccepted { .. } = event {
                self.contradicted.insert(self.raft.status().term);
            }
        }
        assert!(
            !self.witness || effects.apply.is_empty(),
            "a witness applies nothing"
        );
        for (to, message) in &effects.send {
            assert_ne!(*to, OWN, "nobody talks to itself");
            self.check_promise(*to, message);
        }
        let silent = effects.send.is_empty() && effects.write.is_empty() && effects.apply.is_empty();
        assert!(silent || !self.disk_failed, "an ended node does something");
        self.sent.extend(effects.send);
        self.writes.extend(effects.write);
        self.applies.extend(effects.apply);
        self.fetches.extend(effects.fetch);
        for operation in effects.snapshot {
            if let SnapshotOp::Purge(base) = operation {
                self.log
                    .retain(|entry| entry.position.index > base.position.index);
                self.base = base;
            }
        }
    }

    fn check_promise(&self, to: NodeId, message: &Message) {
        let kept = self.hard_state;
        match message.body {
            Body::VoteResponse { granted: true } => assert!(
                kept.term > message.term || (kept.term == message.term && kept.vote == Some(to)),
                "a vote was given before the disk kept it"
            ),
            Body::AppendAccepted { matched }
                if kept.term == message.term && !self.contradicted.contains(&kept.term) =>
            {
                let last = self.log.last().map_or(self.base.position, |entry| entry.position);
                assert!(
                    last.index >= matched,
                    "an acceptance of what the disk does not hold"
                );
            }
            _ => {}
        }
    }

    /// The disk fails, which is final: whoever waits is answered, and nothing is sent, written or promised from here on.
    fn fail(&mut self, input: Input) {
        self.step(input);
        self.drain();
        assert_eq!(
            self.raft.status().role,
            Role::Failed,
            "a disk error ends the node"
        );
        assert_eq!(self.raft.deadline(), None, "an ended node waits for nothing");
        assert!(self.waiting.is_empty(), "an ended node owes an answer");
        self.disk_failed = true;
        // What was under way when it failed may still be done, and changes nothing.
        self.writes.clear();
    }

    /// Whether the disk failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.disk_failed
    }

    fn persist(&mut self) {
        let Some(write) = self.writes.pop_front() else {
            return;
        };
        if self.dice.one_in(2_000) {
            let error = DiskError("unwritable".to_owned());
            return self.fail(Input::Persisted {
                write: write.id,
                result: Err(error),
            });
        }
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(base) = write.reset {
            self.base = *base;
            self.log.clear();
        }
        if let Some(first) = write.entries.first() {
            let index = first.position.index;
            self.log.retain(|entry| entry.position.index < index);
            self.log.extend_from_slice(&write.entries);
        }
        self.step(Input::Persisted {
            write: write.id,
            result: Ok(()),
        });
    }

    fn apply(&mut self) {
        match self.applies.pop_front() {
            None => {}
            Some(Apply::Committed(committed)) => {
                let mut last = Index(0);
                for (entry, _) in committed.iter() {
                    last = entry.position.index;
                    let before = self.applied.insert(last, entry.clone());
                    assert!(before.is_none(), "an entry is applied twice");
                }
                self.step(Input::Applied { index: last });
            }
            Some(Apply::Install(base)) => self.step(Input::Snapshot(SnapshotEvent::Installed {
                index: base.position.index,
            })),
        }
    }

    fn fetch(&mut self) {
        let Some(fetch) = self.fetches.pop_front() else {
            return;
        };
        let wanted =
            |entry: &&Entry| entry.position.index >= fetch.first && entry.position.index <= fetch.last;
        let entries: Vec<Entry> = self.log.iter().filter(wanted).take(3).cloned().collect();
        if self.dice.one_in(200) {
            let error = DiskError("unreadable".to_owned());
            return self.fail(Input::Fetched {
                fetch: fetch.id,
                result: Err(FetchError::Disk(error)),
            });
        }
        let complete = entries
            .first()
            .is_some_and(|entry| entry.position.index == fetch.first);
        let result = if complete {
            Ok(entries)
        } else {
            Err(FetchError::Purged)
        };
        self.step(Input::Fetched {
            fetch: fetch.id,
            result,
        });
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        let token = Token(self.next_token);
        self.waiting.insert(token);
        token
    }

    fn request(&mut self) {
        let token = self.token();
        let input = match self.dice.below(8) {
            0..4 => Input::Propose {
                token,
                command: Bytes::from_static(b"x=1"),
            },
            4..6 => Input::Read {
                token,
                mode: if self.dice.one_in(2) {
                    ReadMode::Lease
                } else {
                    ReadMode::ReadIndex
                },
            },
            6 => Input::Admin {
                token,
                operation: Operation::Transfer {
                    target: Some(NodeId(self.dice.below(6))),
                },
            },
            _ => {
                let id = NodeId(self.dice.below(6));
                let change = match self.dice.below(4) {
                    0 => Change::AddLearner(member(self.dice.below(9), self.witness)),
                    1 => Change::Promote(id),
                    2 => Change::Demote(id),
                    _ => Change::Remove(id),
                };
                Input::Admin {
                    token,
                    operation: Operation::ChangeMembership(vec![change]),
                }
            }
        };
        self.step(input);
    }

    fn position(&mut self) -> Position {
        let status = self.raft.status();
        let (term, index) = if self.dice.one_in(3) {
            (status.base.position.term, status.base.position.index)
        } else if self.dice.one_in(2) {
            (status.last.term, status.commit)
        } else {
            (status.last.term, status.last.index)
        };
        if self.dice.one_in(3) {
            return Position { term, index };
        }
        Position {
            term: Term(self.dice.near(term.0)),
            index: Index(self.dice.near(index.0)),
        }
    }

    fn payload(&mut self) -> Payload {
        match self.dice.below(6) {
            0 => Payload::Empty,
            1 => Payload::Membership(Box::new(any_membership(&mut self.dice, self.witness))),
            _ if self.witness != self.dice.one_in(50) => Payload::Omitted,
            _ => Payload::Command(Bytes::from_static(b"y=2")),
        }
    }

    fn entries(&mut self, previous: Position) -> Vec<Entry> {
        let mut before = previous;
        let count = self.dice.below(4);
        (0..count)
            .map(|_| {
                before.index = Index(before.index.0.wrapping_add(1));
                if self.dice.one_in(4) {
                    before.term = Term(before.term.0.wrapping_add(1));
                }
                let mut position = before;
                if self.dice.one_in(20) {
                    position = self.position();
                }
                Entry {
                    position,
                    payload: self.payload(),
                }
            })
            .collect()
    }

    fn message(&mut self) {
        let status = self.raft.status();
        let (own_term, commit, last) = (status.term.0, status.commit.0, status.last.index.0);
        let from = NodeId(self.dice.below(7));
        let term = if !self.dice.one_in(self.calm) {
            own_term
        } else {
            self.dice.near(own_term)
        };
        let granted = !self.dice.one_in(3);
        let round = self.dice.near(2);
        let body = match self.dice.below(17) {
            0 => Body::PreVoteRequest {
                last: self.position(),
            },
            1 => Body::PreVoteResponse {
                proposed: Term(if granted {
                    own_term.saturating_add(1)
                } else {
                    self.dice.near(own_term)
                }),
                answer: match self.dice.below(6) {
                    0 => PreVote::Vetoed,
                    1 => PreVote::Refused,
                    2 => PreVote::Repairing,
                    _ => PreVote::Granted,
                },
            },
            2 => Body::VoteRequest {
                last: self.position(),
                transfer: self.dice.one_in(2).then_some(round),
            },
            3 | 4 => Body::VoteResponse { granted },
            5..9 => {
                let previous = self.position();
                Body::Append {
                    previous,
                    entries: self.entries(previous).into(),
                    commit: Index(self.dice.near(commit)),
                }
            }
            9 => Body::AppendAccepted {
                matched: Index(self.dice.near(last)),
            },
            10 => Body::AppendRejected {
                previous: Index(self.dice.near(last)),
                hint: self.position(),
            },
            11 => Body::Heartbeat {
                commit: Index(self.dice.near(last)),
                round,
                lease: self.dice.one_in(2).then(|| LeaseRequest {
                    sent: self.dice.near(1),
                    duration: self.dice.near(200_000_000),
                }),
            },
            12 => Body::HeartbeatResponse {
                round,
                matched: Index(self.dice.near(last)),
                disk: DiskHealth {
                    write_latency_us: (!self.dice.one_in(3)).then(|| self.dice.near(5_000) as u32),
                    stalled: self.dice.one_in(3),
                },
                features: FeatureLevel(self.dice.near(1) as u16),
                lease: self.dice.one_in(2).then(|| LeaseGrant {
                    sent: self.dice.near(self.now.as_nanoseconds()),
                    clock: self.dice.near(1_000_000_000),
                }),
            },
            13 => Body::TimeoutNow { released: round },
            14 => Body::ReadRequest {
                request: round,
                lease: granted,
            },
            15 => {
                let position = self.position();
                let membership = voters(3, self.witness);
                Body::Begin {
                    base: Box::new(Base { position, membership }),
                }
            }
            _ => Body::ReadResponse {
                request: round,
                index: granted.then_some(Index(self.dice.near(commit))),
            },
        };
        let from = match body {
            Body::Append { .. } | Body::Begin { .. } | Body::Heartbeat { .. } if granted => {
                self.leader_of(term)
            }
            _ => from,
        };
        let message = Message {
            term: Term(term),
            body,
        };
        // What the wire carries is what arrives.
        let bytes = quorate_core::wire::encode(quorate_core::wire::Kind::Message, &message);
        let message = quorate_core::wire::decode(quorate_core::wire::Kind::Message, &bytes).unwrap();
        self.step_unless_set_aside(Input::Receive { from, message });
    }

    fn leader_of(&self, term: u64) -> NodeId {
        NodeId(2 + term % 4)
    }

    fn snapshot(&mut self) {
        let position = self.position();
        let membership = if self.dice.one_in(3) {
            any_membership(&mut self.dice, self.witness)
        } else {
            voters(3, self.witness)
        };
        let status = self.raft.status();
        let event = match self.dice.below(4) {
            0 => SnapshotEvent::StateDurable {
                index: status.applied,
            },
            1 => SnapshotEvent::Sent {
                to: NodeId(self.dice.below(6)),
                complete: self.dice.one_in(2),
            },
            _ => {
                let term = status.term.0;
                let term = self.dice.near(term);
                SnapshotEvent::Received {
                    from: self.leader_of(term),
                    term: Term(term),
                    base: Box::new(Base { position, membership }),
                }
            }
        };
        self.step_unless_set_aside(Input::Snapshot(event));
    }

    fn time(&mut self) {
        let wait = Duration::from_millis(self.dice.below(200));
        self.now = match self.raft.deadline() {
            Some(due) if self.dice.one_in(2) => due.max(self.now),
            _ => self.now + wait,
        };
        self.step(Input::Timeout);
    }

    /// The others elect this node and follow it for a moment, so that it is seen leading too.
    fn lead(&mut self) {
        self.now = self.now + Duration::from_secs(1);
        self.step(Input::Timeout);
        let voters: Vec<NodeId> = self.raft.status().membership.members().keys().copied().collect();
        for vote in [false, true] {
            for from in voters.clone() {
                let term = self.raft.status().term;
                let body = if vote {
                    Body::VoteResponse { granted: true }
                } else {
                    Body::PreVoteResponse {
                        proposed: Term(term.0 + 1),
                        answer: PreVote::Granted,
                    }
                };
                self.step(Input::Receive {
                    from,
                    message: Message { term, body },
                });
            }
            self.drain();
            while !self.writes.is_empty() {
                self.persist();
                self.drain();
            }
        }
        assert!(
            !self.witness || self.raft.status().role != Role::Leader,
            "a witness leads"
        );
        self.request();
        self.drain();
        let (term, last) = (self.raft.status().term, self.raft.status().last.index);
        for from in voters {
            let body = Body::AppendAccepted { matched: last };
            self.step(Input::Receive {
                from,
                message: Message { term, body },
            });
        }
    }

    /// Lets things happen until so many did, or the dice are spent, and checks the end.
    pub(crate) fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            if self.dice.is_spent() {
                break;
            }
            match self.dice.below(32) {
                0..16 => self.message(),
                16..20 => self.persist(),
                20..23 => self.apply(),
                23 => self.fetch(),
                24..27 => self.request(),
                27 => self.snapshot(),
                28 => {
                    let peer = NodeId(2 + self.dice.below(5));
                    let events = [LinkEvent::Connected, LinkEvent::Lost, LinkEvent::Refused];
                    let event = events[self.dice.below(3) as usize];
                    self.step(Input::Link { peer, event });
                }
                29 if self.dice.one_in(4) => self.lead(),
                30 if self.dice.one_in(50) => self.step(Input::Superseded {
                    by: Box::new(Lineage(9)),
                }),
                _ => self.time(),
            }
        }
        self.drain();
        // The end of the node settles whatever is open.
        self.raft.step(
            self.now,
            Input::Persisted {
                write: WriteId(u64::MAX),
                result: Err(DiskError("the end".to_owned())),
            },
        );
        self.drain();
        assert_eq!(
            self.waiting,
            BTreeSet::new(),
            "these requests were never answered"
        );
    }
}
