//! The vocabulary of the scripts.
//!
//! Nodes are called `n1`, `n2`, ...; a link `n1->n2`; a message on a link is named by its place or its kind: `first`
//! (when nothing is said), `last`, `all`, or a kind such as `append`, `heard`, `vote-request`.
//!
//! | command | what happens |
//! |---|---|
//! | `cluster n1 n2 n3 [key=value ...]` | new voters with blank disks; keys are limits of the configuration |
//! | `cluster n1:200 n2 n3:witness` | the same, with a priority, or as a witness |
//! | `given n1 term 3 [vote n2] log 1@1=a 2@3=b` | the node restarts on a disk that holds this |
//! | `join n4 [witness]` | a blank node starts that knows the first membership |
//! | `join n4 at n1` | a blank node starts that was told the membership of n1 |
//! | `timeout n1` | a follower's election time-out, or on a leader the longest wait for a majority, passes |
//! | `heartbeat n1` | the leader's heartbeat interval passes |
//! | `silence n2 ...` | the smallest election time-out passes at these nodes; no timer fires |
//! | `pass n1 n2 40ms` | time passes at nodes, and their timers fire as they are due |
//! | `work n1 800ms` | time passes everywhere, everything settles, and a client of n1 writes, once a heartbeat interval |
//! | `elect n1` | all nodes have lost their leader, `n1` campaigns, everything settles |
//! | `deliver`, `drop`, `duplicate`, `postpone` `n1->n2 [which]` | to messages that wait; `deliver all`, `drop all` for every link |
//! | `keep n1->n2 [which] as NAME`, `release NAME` | a message is held back, and delivered much later |
//! | `cut n1->n2`, `cut n1-n2`, `isolate n3`, `heal` | messages sent from here on are lost, until healed |
//! | `lost n1->n2`, `refused n1->n2`, `connected n1->n2` | n1's transport says so of its link to n2 |
//! | `gather n1`, `go n1` | inputs are taken in without carrying anything out, then all at once |
//! | `persist n1 [all\|together]` | the oldest write becomes durable; all; or all with one acknowledgement |
//! | `disk-error n1` | the oldest write fails, and none after it is tried |
//! | `slow-disk n1 20ms` | from here on every write of n1 takes so long |
//! | `stall-disk n1`, `stall-apply n1`, `resume n1` | settling passes over these, until resumed |
//! | `apply n1 [all]`, `fetch n1` | the state machine applies; a read of the log is answered |
//! | `settle` | everything but timers and snapshots takes its course until nothing is under way |
//! | `propose n1 x=1`, `read n2 [by-lease]` | a client of the node asks |
//! | `transfer n1 n2`, `change n1 add-learner n4, promote n4, demote n1, remove n2, prioritise n3 200`, `change n1 add-witness n4` | an operator asks |
//! | `binary n1 2` | from its next start on, n1 supports features up to level 2; also what it says when it joins |
//! | `crash n2`, `restart n2` | the process ends, with what was not written; it starts again |
//! | `damage n2 3 [unsure]` | the log of a node that is down is not readable from 3 on; nor is known where it ended |
//! | `force n2 8` | the operator of a node that is down makes it begin lineage 8, alone; the others are of lineage 7 |
//! | `compare n2 n1` | n2 asks n1 which entries only n2 has, and whether its own lineage has ended |
//! | `convert n2` | the operator of a node that is down configures it as a witness, or as none |
//! | `compact n1 5` | the state up to 5 is durable, and the log may be purged |
//! | `snapshot n1->n3 arrives\|reported\|fails\|again` | the oldest transfer ends; `arrives` tells both ends, `again` keeps it |
//! | `state`, `log`, `messages`, `peers n1`, `members`, `values`, `unanswered` | a look |

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::raft::*;

use super::disk::Disk;
use super::words;
use super::world::{Link, World};

/// Runs one command.
pub(super) fn run(world: &mut World, text: &str) {
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    let words: Vec<&str> = rest.split_whitespace().collect();
    world.detailed = !matches!(verb, "settle" | "elect" | "work");
    match verb {
        "cluster" | "given" | "join" => setup(world, verb, &words),
        "timeout" | "heartbeat" | "silence" | "pass" | "work" | "elect" | "settle" => {
            time(world, verb, &words)
        }
        "deliver" | "drop" | "duplicate" | "postpone" | "keep" | "release" => network(world, verb, &words),
        "cut" | "isolate" | "heal" | "lost" | "refused" | "connected" => links(world, verb, &words),
        "gather" | "go" | "persist" | "disk-error" | "slow-disk" | "stall-disk" | "stall-apply"
        | "resume" | "apply" | "fetch" => {
            machine(world, verb, &words);
        }
        "binary" | "convert" | "crash" | "restart" | "force" | "compare" | "damage" | "compact"
        | "snapshot" => fate(world, verb, &words),
        "propose" | "read" | "transfer" | "change" => request(world, verb, rest),
        _ => look(world, verb, &words),
    }
}

fn node(word: &str) -> NodeId {
    let number = word.strip_prefix('n').and_then(|digits| digits.parse().ok());
    NodeId(number.unwrap_or_else(|| panic!("not a node: {word}")))
}

fn link(word: &str) -> Link {
    let (from, to) = word
        .split_once("->")
        .unwrap_or_else(|| panic!("not a link: {word}"));
    (node(from), node(to))
}

fn position(word: &str) -> Position {
    let (index, term) = word
        .split_once('@')
        .unwrap_or_else(|| panic!("not a position: {word}"));
    Position {
        term: Term(term.parse().unwrap()),
        index: Index(index.parse().unwrap()),
    }
}

fn member(id: NodeId) -> Member {
    Member::new(
        words::node(id),
        DirectoryId(u128::from(id.0)),
        &format!("{}:9000", words::node(id)),
        &format!("{}:8000", words::node(id)),
    )
}

/// A first member, such as `n1`, `n1:200` with a priority, or `n1:witness`.
fn founder(word: &str) -> (NodeId, Member) {
    let (name, part) = word.split_once(':').unwrap_or((word, ""));
    let mut founder = member(node(name));
    founder.witness = part == "witness";
    if let Ok(priority) = part.parse() {
        founder.priority = priority;
    }
    (node(name), founder)
}

fn setup(world: &mut World, verb: &str, words: &[&str]) {
    match verb {
        "cluster" => {
            world.config.retained_entries = 0;
            world.config.lagging_entries_max = 0;
            world.config.purge_step = 1;
            world.boot_tail = usize::MAX;
            let (settings, names): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.contains('='));
            for setting in settings {
                configure(world, setting);
            }
            let members: BTreeMap<NodeId, Member> = names.iter().map(|name| founder(name)).collect();
            for (id, member) in &members {
                let membership = Membership::bootstrap(Lineage(7), members.clone());
                world.disks.insert(*id, Disk::blank(membership, member.witness));
                world.start(*id);
            }
        }
        "join" => {
            let founder = |(id, disk): (&NodeId, &Disk)| {
                let mut founder = member(*id);
                founder.witness = disk.witness;
                (*id, founder)
            };
            let members: BTreeMap<NodeId, Member> = world.disks.iter().map(founder).collect();
            let id = node(words[0]);
            let known = match words.get(2) {
                Some(teller) => world.nodes[&node(teller)].raft.status().membership.clone(),
                None => Membership::bootstrap(Lineage(7), members),
            };
            let witness = words.get(1) == Some(&"witness");
            world.disks.insert(id, Disk::blank(known, witness));
            world.start(id);
        }
        _ => given(world, words),
    }
}

fn configure(world: &mut World, setting: &str) {
    let (key, value) = setting.split_once('=').unwrap();
    let number: u64 = value.parse().unwrap_or_else(|_| panic!("not a number: {value}"));
    let config = &mut world.config;
    match key {
        "append-bytes" => config.append_bytes_max = number,
        "in-flight-bytes" => config.in_flight_bytes_max = number,
        "uncommitted-bytes" => config.uncommitted_bytes_max = number,
        "tail-bytes" => config.tail_bytes_max = number,
        "apply-bytes" => config.apply_bytes_max = number,
        "reads" => config.reads_max = usize::try_from(number).unwrap(),
        "retained" => config.retained_entries = number,
        "lagging" => config.lagging_entries_max = number,
        "lease-drift-ppm" => {
            config.lease_reads = Some(LeaseReads {
                clock_drift_max: u32::try_from(number).unwrap(),
            });
        }
        "handover-ms" => config.handover_interval = Duration::from_millis(number),
        "boot-tail" => world.boot_tail = usize::try_from(number).unwrap(),
        "tells-of-quorum" => world.tells_of_quorum = number == 1,
        _ => panic!("no such setting: {key}"),
    }
}

fn given(world: &mut World, words: &[&str]) {
    let id = node(words[0]);
    world.nodes.remove(&id);
    world.disks_are_given();
    let disk = world.disks.get_mut(&id).expect("the node is of the cluster");
    disk.hard_state = HardState::default();
    disk.entries.clear();
    let mut words = words[1..].iter();
    while let Some(word) = words.next() {
        match *word {
            "term" => disk.hard_state.term = Term(words.next().unwrap().parse().unwrap()),
            "vote" => disk.hard_state.vote = Some(node(words.next().unwrap())),
            "log" => {
                for word in words.by_ref() {
                    let (at, what) = word.split_once('=').unwrap_or((word, ""));
                    let payload = match what {
                        "" => Payload::Empty,
                        "omitted" => Payload::Omitted,
                        command => Payload::Command(Bytes::from(command.replace(':', "=").into_bytes())),
                    };
                    let position = position(at);
                    disk.entries.push(Entry { position, payload });
                }
            }
            other => panic!("given what? {other}"),
        }
    }
    world.start(id);
}

fn time(world: &mut World, verb: &str, words: &[&str]) {
    let named: Vec<NodeId> = words
        .iter()
        .filter(|word| word.starts_with('n'))
        .map(|word| node(word))
        .collect();
    match verb {
        "timeout" => {
            for id in named {
                world.pass(id, world.config.election_timeout_max);
                world.step(id, Input::Timeout);
            }
        }
        "heartbeat" => {
            for id in named {
                world.pass(id, world.config.heartbeat_interval);
                world.step(id, Input::Timeout);
            }
        }
        "silence" => {
            for id in named {
                world.pass(id, world.config.election_timeout_min);
            }
        }
        "pass" => {
            for id in named {
                pass(world, id, duration(words.last().unwrap()));
            }
        }
        "work" => work(world, named[0], duration(words.last().unwrap())),
        "elect" => {
            let id = named[0];
            let others: Vec<NodeId> = world.nodes.keys().copied().filter(|other| *other != id).collect();
            for other in others {
                if world.nodes[&other].raft.status().role != Role::Leader {
                    world.pass(other, world.config.election_timeout_min);
                }
            }
            world.pass(id, world.config.election_timeout_max);
            world.step(id, Input::Timeout);
            // It may let preferred nodes go first, which do not come forward.
            if let Some(due) = world.nodes[&id].raft.deadline()
                && matches!(world.nodes[&id].raft.status().role, Role::Follower)
            {
                world.pass_until(id, due);
                world.step(id, Input::Timeout);
            }
            world.settle();
        }
        _ => world.settle(),
    }
}

fn duration(word: &str) -> Duration {
    let milliseconds = word.strip_suffix("ms").and_then(|digits| digits.parse().ok());
    Duration::from_millis(milliseconds.unwrap_or_else(|| panic!("not a time: {word}")))
}

/// The name of the writes that `work` does; of their answers nothing is told.
const WORK: &str = "work=1";

/// Lets time pass everywhere while clients of a node write.
fn work(world: &mut World, id: NodeId, time: Duration) {
    let slice = world.config.heartbeat_interval;
    for _ in 0..time.as_nanos().div_ceil(slice.as_nanos()) {
        let running: Vec<NodeId> = world.nodes.keys().copied().collect();
        for other in running {
            pass(world, other, slice);
        }
        if world.nodes.contains_key(&id) {
            let token = world.request(id, WORK);
            let command = Bytes::from_static(WORK.as_bytes());
            world.step(id, Input::Propose { token, command });
        }
        world.settle();
    }
    world.told.retain(|line| !line.starts_with(WORK));
}

/// Lets time pass at one node, with a stop at each of its deadlines.
fn pass(world: &mut World, id: NodeId, time: Duration) {
    let end = world.now(id) + time;
    for _ in 0..1_000 {
        let due = world.nodes.get(&id).and_then(|node| node.raft.deadline());
        match due {
            Some(due) if due <= end => {
                world.pass_until(id, due);
                world.step(id, Input::Timeout);
            }
            _ => {
                world.pass_until(id, end);
                return;
            }
        }
    }
    panic!("a timer fires without end");
}

/// Takes the messages that `which` names off a link.
fn take(world: &mut World, link: Link, which: &str) -> Vec<Message> {
    let queue = world.links.entry(link).or_default();
    let taken: Vec<Message> = match which {
        "all" => queue.drain(..).collect(),
        "last" => queue.pop_back().into_iter().collect(),
        "first" => queue.pop_front().into_iter().collect(),
        kind => {
            let found = queue
                .iter()
                .position(|message| words::kind(&message.body) == kind);
            found.and_then(|place| queue.remove(place)).into_iter().collect()
        }
    };
    if taken.is_empty() && which != "all" {
        let (from, to) = link;
        panic!(
            "no such message waits from {} to {}",
            words::node(from),
            words::node(to)
        );
    }
    taken
}

fn network(world: &mut World, verb: &str, words: &[&str]) {
    if verb == "release" {
        let (link, message) = world
            .kept
            .get(words[0])
            .expect("a message was kept under this name")
            .clone();
        world.deliver(link, message);
        return;
    }
    if words == ["all"] {
        let queues = std::mem::take(&mut world.links);
        for (link, messages) in queues {
            for message in messages {
                if verb == "deliver" {
                    world.deliver(link, message);
                }
            }
        }
        return;
    }
    let link = link(words[0]);
    let which = words.get(1).filter(|word| **word != "as").unwrap_or(&"first");
    for message in take(world, link, which) {
        let queue = world.links.entry(link).or_default();
        match verb {
            "deliver" => world.deliver(link, message),
            "drop" => {}
            "duplicate" => {
                queue.push_front(message.clone());
                queue.push_back(message);
            }
            "postpone" => queue.push_back(message),
            _ => {
                world
                    .kept
                    .insert((*words.last().unwrap()).to_owned(), (link, message));
            }
        }
    }
}

fn links(world: &mut World, verb: &str, words: &[&str]) {
    match verb {
        "cut" => {
            for word in words {
                if let Some((one, other)) = word.split_once("->") {
                    world.cut.insert((node(one), node(other)));
                } else {
                    let (one, other) = word.split_once('-').expect("a link, or a pair such as n1-n2");
                    world.cut.insert((node(one), node(other)));
                    world.cut.insert((node(other), node(one)));
                }
            }
            drop_cut(world);
        }
        "isolate" => {
            let id = node(words[0]);
            let others: Vec<NodeId> = world.disks.keys().copied().filter(|other| *other != id).collect();
            for other in others {
                world.cut.insert((id, other));
                world.cut.insert((other, id));
            }
            drop_cut(world);
        }
        "heal" => world.cut.clear(),
        _ => {
            let event = match verb {
                "lost" => LinkEvent::Lost,
                "refused" => LinkEvent::Refused,
                _ => LinkEvent::Connected,
            };
            for word in words {
                let (id, peer) = link(word);
                world.step(id, Input::Link { peer, event });
            }
        }
    }
}

/// What waits on a link that is cut is lost with it.
fn drop_cut(world: &mut World) {
    let cut = &world.cut;
    world.links.retain(|link, _| !cut.contains(link));
}

fn machine(world: &mut World, verb: &str, words: &[&str]) {
    let id = node(words[0]);
    let how = words.get(1).copied();
    match (verb, how) {
        ("gather", _) => world.nodes.get_mut(&id).unwrap().gathering = true,
        ("go", _) => {
            world.nodes.get_mut(&id).unwrap().gathering = false;
            world.carry_out(id);
        }
        ("persist", Some("all")) => while world.persist(id) {},
        ("persist", Some("together")) => world.persist_together(id),
        ("persist", _) => assert!(world.persist(id), "no write is under way"),
        ("disk-error", _) => {
            // Whatever was to be written after it never is.
            let writes = std::mem::take(&mut world.nodes.get_mut(&id).unwrap().writes);
            let write = writes.front().expect("a write is under way").id;
            let result = Err(DiskError("input/output error".to_owned()));
            world.step(id, Input::Persisted { write, result });
        }
        ("slow-disk", Some(time)) => drop(world.slow_disks.insert(id, duration(time))),
        ("stall-disk", _) => drop(world.stalled_disks.insert(id)),
        ("stall-apply", _) => drop(world.stalled_applies.insert(id)),
        ("resume", _) => {
            world.stalled_disks.remove(&id);
            world.stalled_applies.remove(&id);
        }
        ("apply", Some("all")) => while world.apply(id) {},
        ("apply", _) => assert!(world.apply(id), "nothing is to be applied"),
        _ => assert!(world.fetch(id), "nothing is read"),
    }
}

fn fate(world: &mut World, verb: &str, words: &[&str]) {
    match verb {
        "binary" => drop(world.binaries.insert(node(words[0]), words[1].parse().unwrap())),
        "convert" => {
            let disk = world.disks.get_mut(&node(words[0])).unwrap();
            disk.witness = !disk.witness;
        }
        "force" => world.force(node(words[0]), Lineage(words[1].parse().unwrap())),
        "compare" => world.compare(node(words[0]), node(words[1])),
        "crash" => words.iter().for_each(|word| world.crash(node(word))),
        "restart" => words.iter().for_each(|word| world.start(node(word))),
        "damage" => {
            let (id, from) = (node(words[0]), Index(words[1].parse().unwrap()));
            assert!(!world.nodes.contains_key(&id), "{} runs", words::node(id));
            let sure = words.get(2) != Some(&"unsure");
            world.disks.get_mut(&id).unwrap().damage(from, sure);
        }
        "compact" => {
            let (id, index) = (node(words[0]), Index(words[1].parse().unwrap()));
            let applied = world.nodes[&id].raft.status().applied;
            assert!(index <= applied, "only what is applied can be stored");
            world.disks.get_mut(&id).unwrap().store_state(index);
            world.step(id, Input::Snapshot(SnapshotEvent::StateDurable { index }));
        }
        _ => snapshot(world, link(words[0]), words[1]),
    }
}

fn snapshot(world: &mut World, (from, to): Link, what: &str) {
    let queue = world.snapshots.entry((from, to)).or_default();
    if what == "fails" || what == "reported" {
        queue.pop_front().expect("a snapshot is under way");
        let complete = what == "reported";
        world.step(from, Input::Snapshot(SnapshotEvent::Sent { to, complete }));
        return;
    }
    let transfer = queue.front().expect("a snapshot is under way");
    let (term, state) = (transfer.term, transfer.state.clone());
    let base = Box::new(state.base());
    world.disks.get_mut(&to).unwrap().files.push(state);
    world.step(to, Input::Snapshot(SnapshotEvent::Received { from, term, base }));
    if what == "arrives" {
        snapshot(world, (from, to), "reported");
    }
}

fn request(world: &mut World, verb: &str, rest: &str) {
    let (name, what) = rest.split_once(' ').unwrap_or((rest, ""));
    let id = node(name);
    match verb {
        "propose" => {
            for command in what.split_whitespace() {
                let token = world.request(id, command);
                let command = Bytes::from(command.to_owned().into_bytes());
                world.step(id, Input::Propose { token, command });
            }
        }
        "read" => {
            let token = world.request(id, &format!("a read of {name}"));
            let mode = match what {
                "by-lease" => ReadMode::Lease,
                _ => ReadMode::ReadIndex,
            };
            world.step(id, Input::Read { token, mode });
        }
        "transfer" => {
            let token = world.request(id, "the transfer");
            let target = (!what.is_empty()).then(|| node(what));
            let operation = Operation::Transfer { target };
            world.step(id, Input::Admin { token, operation });
        }
        _ => {
            let token = world.request(id, "the change");
            let changes = what.split(',').map(|words| change(world, words.trim())).collect();
            let operation = Operation::ChangeMembership(changes);
            world.step(id, Input::Admin { token, operation });
        }
    }
}

fn change(world: &World, text: &str) -> Change {
    let (what, name) = text
        .split_once(' ')
        .unwrap_or_else(|| panic!("not a change: {text}"));
    let id = node(name.split(' ').next().unwrap_or(name));
    match what {
        "add-learner" | "add-witness" => {
            let named = name.split_once(" named ").map(|(_, name)| name);
            Change::AddLearner(Member {
                name: named.map_or_else(|| words::node(id), str::to_owned),
                features: FeatureLevel(world.binaries.get(&id).copied().unwrap_or(1)),
                witness: what == "add-witness",
                ..member(id)
            })
        }
        "promote" => Change::Promote(id),
        "demote" => Change::Demote(id),
        "remove" => Change::Remove(id),
        "prioritise" => Change::Prioritise {
            id,
            priority: name.split(' ').nth(1).unwrap().parse().unwrap(),
        },
        other => panic!("no such change: {other}"),
    }
}

fn look(world: &mut World, verb: &str, words: &[&str]) {
    let named: Vec<NodeId> = if words.is_empty() {
        world.disks.keys().copied().collect()
    } else {
        words.iter().map(|word| node(word)).collect()
    };
    let lines: Vec<String> = match verb {
        "state" => named.iter().map(|id| state(world, *id)).collect(),
        "log" => named.iter().map(|id| log(world, *id)).collect(),
        "messages" => messages(world),
        "unanswered" => world.unanswered(),
        "peers" => {
            let status = world.nodes[&named[0]].raft.status();
            status.peers.iter().map(words::peer).collect()
        }
        "members" => {
            let running = named.iter().filter_map(|id| world.nodes.get_key_value(id));
            running
                .map(|(id, node)| {
                    let status = node.raft.status();
                    let (at, members) = (status.membership_position, words::membership(status.membership));
                    format!("{}: {members} (at {at})", words::node(*id))
                })
                .collect()
        }
        "values" => {
            let running = named.iter().filter_map(|id| world.nodes.get_key_value(id));
            running
                .map(|(id, node)| {
                    let values = node
                        .state
                        .values
                        .iter()
                        .map(|(key, value)| format!("{key}={value}"));
                    let values = values.collect::<Vec<_>>().join(" ");
                    format!("{}: {values} (at {})", words::node(*id), node.state.position)
                })
                .collect()
        }
        _ => panic!("no such command: {verb}"),
    };
    for line in lines {
        world.tell(line);
    }
}

fn state(world: &World, id: NodeId) -> String {
    let name = words::node(id);
    let Some(node) = world.nodes.get(&id) else {
        return format!("{name} is down");
    };
    let status = node.raft.status();
    let optional = |id: Option<NodeId>| id.map_or("-".to_owned(), words::node);
    format!(
        "{name} {:9} term {} vote {} leader {} last {} durable {} commit {} applied {}",
        words::role(status.role),
        status.term,
        optional(status.vote),
        optional(status.leader),
        status.last,
        status.durable,
        status.commit,
        status.applied,
    )
}

fn log(world: &World, id: NodeId) -> String {
    let entries = world.log(id);
    let name = words::node(id);
    let base = match world.nodes.get(&id).map(|node| node.raft.status().base.position) {
        Some(base) => base,
        None => world.disks[&id].base.position,
    };
    let after = if base.index > Index(0) {
        format!("after {base}: ")
    } else {
        String::new()
    };
    format!("{name}: {after}{}", words::entries(&entries))
}

fn messages(world: &World) -> Vec<String> {
    let waiting = world.links.iter().flat_map(|((from, to), queue)| {
        queue.iter().map(move |message| {
            format!(
                "{} -> {}: {}",
                words::node(*from),
                words::node(*to),
                words::message(message)
            )
        })
    });
    let snapshots = world.snapshots.iter().flat_map(|((from, to), queue)| {
        queue.iter().map(move |transfer| {
            let at = transfer.state.position;
            format!(
                "{} => {}: a snapshot at {at}",
                words::node(*from),
                words::node(*to)
            )
        })
    });
    waiting.chain(snapshots).collect()
}
