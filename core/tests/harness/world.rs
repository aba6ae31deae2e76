//! The nodes of a script, with their links, disks and clocks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use quorate_core::Instant;
use quorate_core::raft::*;

use super::checks::{Before, Checks};
use super::disk::{Disk, State};
use super::words;

/// One step of a state machine.
#[derive(Clone, Debug)]
pub(super) enum ToApply {
    Entry(Entry, Option<Token>),
    Install(Base),
}

/// One node: what its process holds, and is gone with it.
pub(super) struct Node {
    pub(super) raft: Raft,
    pub(super) writes: VecDeque<Write>,
    pub(super) applies: VecDeque<ToApply>,
    pub(super) fetches: VecDeque<Fetch>,
    pub(super) state: State,
    /// Reads that may be answered when the state machine has come so far.
    reads: Vec<(Index, String)>,
    /// Whether inputs are gathered before anything is carried out, as a busy driver does.
    pub(super) gathering: bool,
}

/// A snapshot on its way.
pub(super) struct Transfer {
    pub(super) term: Term,
    pub(super) state: State,
}

pub(super) type Link = (NodeId, NodeId);

#[derive(Default)]
pub(super) struct World {
    pub(super) config: Config,
    /// The features that a node's binary supports; 1 when nothing is said.
    pub(super) binaries: BTreeMap<NodeId, u16>,
    /// Entries that a restarted node has in memory.
    pub(super) boot_tail: usize,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) disks: BTreeMap<NodeId, Disk>,
    clocks: BTreeMap<NodeId, Instant>,
    pub(super) links: BTreeMap<Link, VecDeque<Message>>,
    pub(super) cut: BTreeSet<Link>,
    /// Who was refused by whom for its lineage.
    strangers: BTreeSet<Link>,
    pub(super) stalled_disks: BTreeSet<NodeId>,
    /// How long a write takes.
    pub(super) slow_disks: BTreeMap<NodeId, Duration>,
    pub(super) stalled_applies: BTreeSet<NodeId>,
    pub(super) snapshots: BTreeMap<Link, VecDeque<Transfer>>,
    pub(super) kept: BTreeMap<String, (Link, Message)>,
    requests: BTreeMap<Token, (NodeId, String)>,
    next_token: u64,
    checks: Checks,
    /// Whether messages, writes and entries to apply are told, or only what comes of them.
    pub(super) detailed: bool,
    /// Whether it is told when nodes lose the quorum.
    pub(super) tells_of_quorum: bool,
    pub(super) told: Vec<String>,
}

impl World {
    pub(super) fn tell(&mut self, line: String) {
        self.told.push(line);
    }

    pub(super) fn now(&self, id: NodeId) -> Instant {
        self.clocks.get(&id).copied().unwrap_or_default()
    }

    pub(super) fn pass(&mut self, id: NodeId, time: Duration) {
        let later = self.now(id) + time;
        self.clocks.insert(id, later);
    }

    pub(super) fn pass_until(&mut self, id: NodeId, instant: Instant) {
        let later = self.now(id).max(instant);
        self.clocks.insert(id, later);
    }

    /// Starts a process on the node's disk.
    pub(super) fn start(&mut self, id: NodeId) {
        assert!(!self.nodes.contains_key(&id), "{} runs already", words::node(id));
        let disk = self.disks.get_mut(&id).expect("the node has a disk");
        let boot = disk.boot(id, self.boot_tail);
        let state = disk.state.clone();
        // A clock that starts anew must not matter; a random stream that repeats itself would.
        let lives = self.clocks.get(&id).map_or(1, |now| now.as_nanoseconds() | 1);
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&lives.to_le_bytes());
        seed[8] = id.0 as u8;
        self.pass(id, Duration::from_nanos(1));
        let config = Config {
            features: FeatureLevel(self.binaries.get(&id).copied().unwrap_or(1)),
            witness: self.disks[&id].witness,
            ..self.config.clone()
        };
        let raft = match Raft::new(config, boot, seed, self.now(id)) {
            Ok(raft) => raft,
            Err(error @ (BootError::FeaturesLacking { .. } | BootError::OtherPart { .. })) => {
                self.tell(format!("{} does not start: {error}", words::node(id)));
                return;
            }
            Err(error) => panic!("the disk is sound, yet {error}"),
        };
        let node = Node {
            raft,
            writes: VecDeque::new(),
            applies: VecDeque::new(),
            fetches: VecDeque::new(),
            state,
            reads: Vec::new(),
            gathering: false,
        };
        self.nodes.insert(id, node);
    }

    /// Ends the process; what it had not written is gone, and what its clients waited for stays unanswered.
    pub(super) fn crash(&mut self, id: NodeId) {
        let node = self.nodes.remove(&id).expect("the node runs");
        for (_, name) in node.reads {
            self.tell(format!("{name} is left unanswered"));
        }
        let lost: Vec<Token> = self
            .requests
            .iter()
            .filter(|(_, (at, _))| *at == id)
            .map(|(token, _)| *token)
            .collect();
        for token in lost {
            let (_, name) = self.requests.remove(&token).unwrap();
            self.tell(format!("{name} is left unanswered"));
        }
    }

    /// A new request of a client of `id`.
    pub(super) fn request(&mut self, id: NodeId, name: &str) -> Token {
        self.next_token += 1;
        let token = Token(self.next_token);
        self.requests.insert(token, (id, name.to_owned()));
        token
    }

    /// What clients wait for.
    pub(super) fn unanswered(&self) -> Vec<String> {
        let asked = self
            .requests
            .values()
            .map(|(id, name)| format!("{name} waits at {}", words::node(*id)));
        let ready = self.nodes.iter().flat_map(|(id, node)| {
            let line = move |(index, name): &(Index, String)| {
                format!("{name} waits at {} for index {index}", words::node(*id))
            };
            node.reads.iter().map(line)
        });
        asked.chain(ready).collect()
    }

    /// Ends a request. Every request is answered exactly once.
    fn answered(&mut self, token: Token) -> String {
        let (_, name) = self
            .requests
            .remove(&token)
            .unwrap_or_else(|| panic!("{token:?} is answered twice, or was never asked"));
        name
    }

    /// Feeds one input, at the node's own time, and carries the effects out as far as the script allows.
    pub(super) fn step(&mut self, id: NodeId, input: Input) {
        let now = self.now(id);
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let before = Before::of(&node.raft.status());
        node.raft.step(now, input);
        if !node.gathering {
            self.carry_out(id);
        }
        let node = &self.nodes[&id];
        let status = node.raft.status();
        let commit = status.commit;
        let position = self
            .log(id)
            .iter()
            .map(|entry| entry.position)
            .find(|position| position.index == commit)
            .unwrap_or(Position {
                term: status.term,
                index: Index(0),
            });
        if !node.gathering {
            self.checks.stepped(&before, &status, position, &self.disks);
        }
    }

    /// The log as the node sees it: what its disk holds, with the writes under way.
    pub(super) fn log(&self, id: NodeId) -> Vec<Entry> {
        let mut disk = self.disks[&id].clone();
        if let Some(node) = self.nodes.get(&id) {
            for write in &node.writes {
                disk.write(write);
            }
        }
        disk.entries
    }

    pub(super) fn carry_out(&mut self, id: NodeId) {
        let mut effects = Effects::default();
        self.nodes.get_mut(&id).unwrap().raft.drain(&mut effects);
        let name = words::node(id);
        for event in effects.trace {
            if let TraceEvent::Elected { term } = event {
                let lineage = self.lineage(id);
                self.checks.elected(lineage, id, term, &self.disks[&id]);
            }
            let quorum = matches!(event, TraceEvent::QuorumLost | TraceEvent::QuorumRegained);
            if !quorum || self.tells_of_quorum {
                self.tell(format!("{name} {}", words::trace(&event)));
            }
        }
        for (token, outcome) in effects.outcome {
            let request = self.answered(token);
            self.tell(format!("{request}: {}", words::outcome(&outcome)));
            if let Outcome::ReadReady { index } = outcome {
                self.nodes.get_mut(&id).unwrap().reads.push((index, request));
            }
        }
        for write in effects.write {
            self.tell_detail(format!("{name} writes {}", words::write(&write)));
            self.nodes.get_mut(&id).unwrap().writes.push_back(write);
        }
        for apply in effects.apply {
            match apply {
                Apply::Committed(committed) => {
                    for (entry, token) in committed.iter() {
                        self.tell_detail(format!("{name} commits {}", words::entry(entry)));
                        let one = ToApply::Entry(entry.clone(), token);
                        self.nodes.get_mut(&id).unwrap().applies.push_back(one);
                    }
                }
                Apply::Install(base) => {
                    self.tell(format!("{name} loads the snapshot at {}", base.position));
                    self.nodes
                        .get_mut(&id)
                        .unwrap()
                        .applies
                        .push_back(ToApply::Install(*base));
                }
            }
        }
        for fetch in effects.fetch {
            self.tell_detail(format!(
                "{name} reads its log from {} to {}",
                fetch.first, fetch.last
            ));
            self.nodes.get_mut(&id).unwrap().fetches.push_back(fetch);
        }
        for operation in effects.snapshot {
            self.snapshot_operation(id, operation);
        }
        for (to, message) in effects.send {
            self.send(id, to, message);
        }
        self.answer_reads(id);
    }

    fn snapshot_operation(&mut self, id: NodeId, operation: SnapshotOp) {
        let name = words::node(id);
        match operation {
            SnapshotOp::Send { to, term } => {
                let state = self.nodes[&id].state.clone();
                let position = state.position;
                self.tell(format!("{name} => {}: a snapshot at {position}", words::node(to)));
                let queue = self.snapshots.entry((id, to)).or_default();
                queue.push_back(Transfer { term, state });
            }
            SnapshotOp::Purge(base) => {
                self.tell(format!("{name} purges its log up to {}", base.position));
                self.disks.get_mut(&id).unwrap().purge(&base);
            }
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        self.checks.promised(from, to, &message, &self.disks[&from]);
        let lost = self.cut.contains(&(from, to));
        self.tell_detail(format!(
            "{} -> {}: {}{}",
            words::node(from),
            words::node(to),
            words::message(&message),
            if lost { " (lost)" } else { "" }
        ));
        if !lost {
            self.links.entry((from, to)).or_default().push_back(message);
        }
    }

    fn tell_detail(&mut self, line: String) {
        if self.detailed {
            self.tell(line);
        }
    }

    /// A disk was put in place by the script: what was seen before is no measure any more.
    pub(super) fn disks_are_given(&mut self) {
        self.checks = Checks::default();
    }

    /// The lineage of a node that runs.
    fn lineage(&self, id: NodeId) -> Lineage {
        self.nodes[&id].raft.status().membership.lineage()
    }

    /// Delivers one message; as the transport does, none of another lineage.
    pub(super) fn deliver(&mut self, (from, to): Link, message: Message) {
        if !self.nodes.contains_key(&to) {
            return;
        }
        if self.nodes.contains_key(&from) && self.lineage(from) != self.lineage(to) {
            if self.strangers.insert((from, to)) {
                let (from, to) = (words::node(from), words::node(to));
                self.tell(format!("{to} refuses {from}, which is of another lineage"));
            }
            return;
        }
        self.step(to, Input::Receive { from, message });
    }

    /// Forces a start of a node that is down: it begins `lineage`, alone.
    pub(super) fn force(&mut self, id: NodeId, lineage: Lineage) {
        assert!(!self.nodes.contains_key(&id), "{} runs", words::node(id));
        let config = Config {
            features: FeatureLevel(self.binaries.get(&id).copied().unwrap_or(1)),
            witness: self.disks[&id].witness,
            ..self.config.clone()
        };
        let disk = self.disks.get_mut(&id).expect("the node has a disk");
        let forced = match disk.boot(id, 0).forced(lineage, &config) {
            Ok(forced) => forced,
            Err(error) => {
                self.tell(format!("{} is not forced to start: {error}", words::node(id)));
                return;
            }
        };
        disk.write(&forced.write);
        // Whatever was said is of connections that have ended.
        self.links.retain(|(from, to), _| *from != id && *to != id);
        let left_out: Vec<String> = forced.left_out.iter().map(|(id, _)| words::node(*id)).collect();
        self.tell(format!(
            "{} begins lineage {} with its log up to {}, of which {} is known to be committed; without {}",
            words::node(id),
            lineage.0,
            forced.kept,
            forced.committed,
            left_out.join(" ")
        ));
    }

    /// A node asks another one how its log stands to that one's, and whether its own lineage has ended.
    pub(super) fn compare(&mut self, id: NodeId, other: NodeId) {
        let membership = self.nodes[&other].raft.status().membership.clone();
        let own = self.nodes[&id].raft.outline();
        let fork = membership.fork_of(self.lineage(id)).cloned();
        let theirs = fork
            .as_ref()
            .map_or_else(|| self.nodes[&other].raft.outline(), |fork| fork.log.clone());
        let (name, to) = (words::node(id), words::node(other));
        let told = match own.compared_with(&theirs) {
            Comparison::Contained => format!("{to} has all that {name} has"),
            Comparison::Unknown => format!("whether {to} has all that {name} has cannot be told"),
            Comparison::OnlyHere(only) => format!(
                "only {name}, and not {to}, has {}{} to {}: {} entries",
                if only.at_least { "at least " } else { "" },
                only.first,
                only.last,
                only.count()
            ),
        };
        self.tell(told);
        if fork.is_some() {
            let by = Box::new(membership.lineage());
            self.step(id, Input::Superseded { by });
        }
    }

    /// Makes the node's oldest write durable. False when there is none.
    pub(super) fn persist(&mut self, id: NodeId) -> bool {
        let Some(write) = self.nodes.get_mut(&id).and_then(|node| node.writes.pop_front()) else {
            return false;
        };
        if let Some(time) = self.slow_disks.get(&id) {
            self.pass(id, *time);
        }
        self.disks.get_mut(&id).unwrap().write(&write);
        self.step(
            id,
            Input::Persisted {
                write: write.id,
                result: Ok(()),
            },
        );
        true
    }

    /// Makes all of the node's writes durable with one sync, which is acknowledged once.
    pub(super) fn persist_together(&mut self, id: NodeId) {
        let writes = std::mem::take(&mut self.nodes.get_mut(&id).unwrap().writes);
        let disk = self.disks.get_mut(&id).unwrap();
        for write in &writes {
            disk.write(write);
        }
        if let Some(write) = writes.back() {
            let (write, result) = (write.id, Ok(()));
            self.step(id, Input::Persisted { write, result });
        }
    }

    /// Applies the node's oldest committed entry. False when there is none.
    pub(super) fn apply(&mut self, id: NodeId) -> bool {
        let Some(node) = self.nodes.get_mut(&id) else {
            return false;
        };
        let Some(apply) = node.applies.pop_front() else {
            return false;
        };
        match apply {
            ToApply::Entry(entry, token) => {
                node.state.apply(&entry);
                let lineage = node.raft.status().membership.lineage();
                self.checks.applied(lineage, id, &entry);
                let index = entry.position.index;
                if let Some(token) = token {
                    let request = self.answered(token);
                    self.tell(format!("{request}: acknowledged by {}", words::node(id)));
                }
                self.step(id, Input::Applied { index });
            }
            ToApply::Install(base) => {
                let disk = self.disks.get_mut(&id).unwrap();
                disk.load(&base);
                node.state = disk.state.clone();
                let index = base.position.index;
                self.step(id, Input::Snapshot(SnapshotEvent::Installed { index }));
            }
        }
        self.answer_reads(id);
        true
    }

    fn answer_reads(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let at = node.state.position.index;
        let (ready, waiting) = std::mem::take(&mut node.reads)
            .into_iter()
            .partition(|(index, _)| *index <= at);
        node.reads = waiting;
        let values: Vec<String> = node
            .state
            .values
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let ready: Vec<(Index, String)> = ready;
        for (_, name) in ready {
            let values = values.join(" ");
            self.tell(format!("{name} at {} sees [{values}]", words::node(id)));
        }
    }

    /// Answers the node's oldest read of its log. False when there is none.
    pub(super) fn fetch(&mut self, id: NodeId) -> bool {
        let Some(fetch) = self.nodes.get_mut(&id).and_then(|node| node.fetches.pop_front()) else {
            return false;
        };
        let disk = &self.disks[&id];
        let result = if fetch.first <= disk.base.position.index {
            Err(FetchError::Purged)
        } else {
            let mut bytes = 0;
            let wanted = disk.entries.iter().filter(|entry| {
                let index = entry.position.index;
                bytes += if index >= fetch.first { entry.size() } else { 0 };
                index == fetch.first
                    || (index > fetch.first && index <= fetch.last && bytes <= fetch.bytes_max)
            });
            Ok(wanted.cloned().collect())
        };
        let fetch = fetch.id;
        self.step(id, Input::Fetched { fetch, result });
        true
    }

    /// Lets everything take its course, but for snapshots and timers, until nothing is under way.
    pub(super) fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.progress() && !self.notify_commits() {
                return;
            }
        }
        panic!("no rest: nodes keep each other busy without time passing");
    }

    fn progress(&mut self) -> bool {
        let mut progress = false;
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            while !self.stalled_disks.contains(&id) && self.persist(id) {
                progress = true;
            }
            while self.fetch(id) {
                progress = true;
            }
            while !self.stalled_applies.contains(&id) && self.apply(id) {
                progress = true;
            }
        }
        let links: Vec<Link> = self.links.keys().copied().collect();
        for link in links {
            if let Some(message) = self.links.get_mut(&link).and_then(VecDeque::pop_front) {
                self.deliver(link, message);
                progress = true;
            }
        }
        progress
    }

    /// Lets the moment pass after which a leader tells of a commit that no append carried.
    fn notify_commits(&mut self) -> bool {
        let notice = self.config.commit_notice_delay;
        let mut progress = false;
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            let status = self.nodes[&id].raft.status();
            let leads = status.role == Role::Leader;
            let Some(due) = self.nodes[&id].raft.deadline() else {
                continue;
            };
            if leads && due <= self.now(id) + notice {
                self.pass_until(id, due);
                self.step(id, Input::Timeout);
                progress = true;
            }
        }
        progress
    }
}
