//! Lays a trace out for drawing, record by record.

use std::collections::BTreeMap;

use super::timeline::{Broken, Fault, Timeline};
use crate::trace::{Answer, Event, Loss, Node, Role, name_of};

/// What became of a message; the page knows the numbers.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrived = 0,
    Repeated = 1,
    UnderWay = 2,
    Cut = 3,
    Dropped = 4,
    Down = 5,
}

/// Until it is known what came of a request.
const NO_ANSWER: u64 = 3;

/// The parts that nodes play, in the order of their numbers.
pub(super) const PARTS: [&str; 10] = [
    "leader",
    "pre-candidate",
    "candidate",
    "follower",
    "learner",
    "witness",
    "failed",
    "paused",
    "down",
    "gone",
];
const PAUSED: u64 = 7;
const DOWN: u64 = 8;
const GONE: u64 = 9;

/// A timeline that grows.
#[derive(Default)]
pub(super) struct Layout {
    timeline: Timeline,
    places: BTreeMap<String, u64>,
    lives: BTreeMap<Node, Life>,
    /// Where the rows of messages begin whose end is not known, by their numbers.
    under_way: BTreeMap<u64, usize>,
    /// The rows of messages that arrived, for those that arrive again.
    arrived: BTreeMap<u64, usize>,
    /// Where the rows of requests without an answer begin, by their numbers.
    asked: BTreeMap<u64, usize>,
}

/// What a node is now, and since when.
#[derive(Clone, Copy, Default)]
struct Life {
    since: u64,
    state: Option<State>,
    /// What it was when it was paused.
    paused: Option<State>,
}

type State = [u64; 3];

impl Layout {
    /// Takes in what happens next.
    pub(super) fn add(&mut self, at: u64, event: &Event) {
        self.timeline.end = self.timeline.end.max(at);
        match event {
            Event::Role { .. }
            | Event::Started { .. }
            | Event::Stopped { .. }
            | Event::Gone { .. }
            | Event::Paused { .. }
            | Event::Resumed { .. } => self.life(at, event),
            Event::Log {
                node,
                commit,
                applied,
                durable,
                last,
            } => {
                let row = [*node, at, *commit, *applied, *durable, *last];
                self.timeline.positions.extend(row);
            }
            Event::Sent {
                message,
                from,
                to,
                kind,
                term,
                about,
            } => {
                let (kind, about) = (self.string(kind), self.string(about));
                self.under_way.insert(*message, self.timeline.messages.len());
                let fate = Fate::UnderWay as u64;
                let row = [at, at, *from, *to, kind, fate, *term, about];
                self.timeline.messages.extend(row);
            }
            Event::Arrived { message } => self.arrived(at, *message),
            Event::Lost { message, why } => self.lost(at, *message, *why),
            Event::Asked {
                request,
                node,
                operation,
                about,
            } => {
                let about = self.string(about);
                self.asked.insert(*request, self.timeline.requests.len());
                let row = [*node, at, at, *operation as u64, NO_ANSWER, about, 0];
                self.timeline.requests.extend(row);
            }
            Event::Answered {
                request,
                answer,
                about,
            } => self.answered(at, *request, *answer, about),
            Event::Fault { .. } | Event::Healed { .. } => self.fault(at, event),
            Event::Membership { .. } | Event::Told { .. } | Event::Note { .. } | Event::Violation { .. } => {
                self.event(at, event);
            }
        }
    }

    fn string(&mut self, text: &str) -> u64 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = self.timeline.strings.len() as u64;
        self.timeline.strings.push(text.to_owned());
        self.places.insert(text.to_owned(), place);
        place
    }

    fn say(&mut self, at: u64, node: Node, kind: &str, about: &str) {
        let row = [at, node, self.string(kind), self.string(about)];
        self.timeline.events.extend(row);
    }

    fn life(&mut self, at: u64, event: &Event) {
        let (node, state) = match *event {
            Event::Role {
                node,
                role,
                term,
                leader,
            } => {
                let state = [role_number(role), term, leader.unwrap_or_default()];
                let life = self.lives.entry(node).or_default();
                if let Some(paused) = &mut life.paused {
                    *paused = state;
                    return;
                }
                (node, Some(state))
            }
            Event::Started { node, life } => {
                self.say(at, node, "started", &format!("life {life}"));
                (node, None)
            }
            Event::Stopped { node } => (node, Some([DOWN, 0, 0])),
            Event::Gone { node } => (node, Some([GONE, 0, 0])),
            Event::Paused { node } => (node, Some([PAUSED, 0, 0])),
            Event::Resumed { node } => (node, self.lives.get(&node).and_then(|life| life.paused)),
            _ => return,
        };
        match event {
            Event::Role { .. } | Event::Started { .. } => {}
            _ => self.say(at, node, &name_of(event), ""),
        }
        let life = self.lives.entry(node).or_default();
        let before = *life;
        let paused = match event {
            Event::Paused { .. } => before.state,
            _ => None,
        };
        *life = Life {
            since: at,
            state,
            paused,
        };
        self.span(node, before, at);
    }

    fn span(&mut self, node: Node, life: Life, to: u64) {
        if let Some([part, term, leader]) = life.state {
            let row = [node, life.since, to, part, term, leader];
            self.timeline.spans.extend(row);
        }
    }

    fn arrived(&mut self, at: u64, message: u64) {
        if let Some(row) = self.under_way.remove(&message) {
            self.set_fate(row, at, Fate::Arrived);
            self.arrived.insert(message, row);
        } else if let Some(first) = self.arrived.get(&message).copied() {
            let again = self.timeline.messages[first..first + 8].to_vec();
            let row = self.timeline.messages.len();
            self.timeline.messages.extend(again);
            self.set_fate(row, at, Fate::Repeated);
        }
    }

    fn lost(&mut self, at: u64, message: u64, why: Loss) {
        let fate = match why {
            Loss::Cut => Fate::Cut,
            Loss::Dropped => Fate::Dropped,
            Loss::Down => Fate::Down,
        };
        if let Some(row) = self.under_way.remove(&message) {
            self.set_fate(row, at, fate);
        }
    }

    fn set_fate(&mut self, row: usize, at: u64, fate: Fate) {
        self.timeline.messages[row + 1] = at;
        self.timeline.messages[row + 5] = fate as u64;
    }

    fn answered(&mut self, at: u64, request: u64, answer: Answer, about: &str) {
        let about = self.string(about);
        let Some(row) = self.asked.remove(&request) else {
            return;
        };
        let answer = match answer {
            Answer::Acknowledged => 0,
            Answer::Refused => 1,
            Answer::Unknown => 2,
        };
        let row = &mut self.timeline.requests[row..row + 7];
        (row[2], row[4], row[6]) = (at, answer, about);
    }

    fn fault(&mut self, at: u64, event: &Event) {
        match event {
            Event::Fault {
                fault,
                class,
                nodes,
                links,
                until,
                about,
            } => self.timeline.faults.push(Fault {
                from: at,
                to: until.map_or(at, |until| until / 1_000),
                class: *class,
                name: fault.clone().into_owned(),
                nodes: nodes.clone(),
                links: links.clone(),
                about: about.clone().into_owned(),
            }),
            Event::Healed { nodes } => {
                self.timeline.healed.push(at);
                let about = match nodes {
                    Some(nodes) => format!("the faults of {nodes:?} end"),
                    None => "all faults end".to_owned(),
                };
                self.say(at, 0, "healed", &about);
                let over = |fault: &&mut Fault| match nodes {
                    // A fault of some other node may go on.
                    Some(nodes) => fault.nodes.iter().all(|node| nodes.contains(node)),
                    None => true,
                };
                for fault in self.timeline.faults.iter_mut().filter(over) {
                    fault.to = fault.to.min(at.max(fault.from));
                }
            }
            _ => {}
        }
    }

    fn event(&mut self, at: u64, event: &Event) {
        match event {
            Event::Membership {
                index,
                voters,
                outgoing,
                learners,
            } => {
                let mut about = format!("at {index}: voters {voters:?}");
                for (name, nodes) in [("outgoing", outgoing), ("learners", learners)] {
                    if !nodes.is_empty() {
                        about += &format!(", {name} {nodes:?}");
                    }
                }
                self.say(at, 0, "membership", &about);
            }
            Event::Told { node, kind, about } => self.say(at, *node, kind, about),
            Event::Note { about } => self.say(at, 0, "note", about),
            Event::Violation { checker, seen, steps } => {
                self.say(at, 0, "violation", &format!("{checker}: {seen}"));
                self.timeline.violation = Some(Broken {
                    at,
                    checker: checker.clone().into_owned(),
                    seen: seen.clone().into_owned(),
                    steps: *steps,
                });
            }
            _ => {}
        }
    }

    /// What is still going on lasts to the end.
    pub(super) fn finish(mut self, nodes_first: u64) -> Timeline {
        let end = self.timeline.end;
        let lives: Vec<(Node, Life)> = self.lives.iter().map(|(node, life)| (*node, *life)).collect();
        for (node, life) in lives {
            self.span(node, life, end);
        }
        for row in self.under_way.into_values() {
            self.timeline.messages[row + 1] = end;
        }
        for row in self.asked.into_values() {
            self.timeline.requests[row + 2] = end;
        }
        // Some nodes are only spoken to.
        let rows = self.timeline.messages.as_chunks::<8>().0.iter();
        let receivers = rows.map(|[_, _, _, to, ..]| *to);
        let mut nodes: Vec<Node> = (1..=nodes_first)
            .chain(self.lives.keys().copied())
            .chain(receivers)
            .collect();
        nodes.sort_unstable();
        nodes.dedup();
        self.timeline.nodes = nodes;
        self.timeline
    }
}

fn role_number(role: Role) -> u64 {
    match role {
        Role::Leader => 0,
        Role::PreCandidate => 1,
        Role::Candidate => 2,
        Role::Follower => 3,
        Role::Learner => 4,
        Role::Witness => 5,
        Role::Failed => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{FaultClass, Header, Operation, Record};

    fn timeline(events: Vec<(u64, Event)>) -> Timeline {
        let records: Vec<Record> = events
            .into_iter()
            .map(|(micros, event)| Record {
                at: micros * 1_000,
                event,
            })
            .collect();
        Timeline::of(&Header::new("core", 7, 2), &records)
    }

    fn role(node: Node, role: Role, term: u64) -> Event {
        let leader = None;
        Event::Role {
            node,
            role,
            term,
            leader,
        }
    }

    #[test]
    fn a_pause_and_a_crash_are_spans_of_their_own() {
        let timeline = timeline(vec![
            (0, Event::Started { node: 1, life: 1 }),
            (0, role(1, Role::Follower, 1)),
            (10, role(1, Role::Leader, 2)),
            (20, Event::Paused { node: 1 }),
            (30, Event::Resumed { node: 1 }),
            (40, Event::Stopped { node: 1 }),
            (50, Event::Started { node: 1, life: 2 }),
            (50, role(1, Role::Follower, 2)),
            (60, Event::Note { about: "end".into() }),
        ]);
        let spans: Vec<(u64, u64, &str)> = timeline
            .spans
            .as_chunks::<6>()
            .0
            .iter()
            .map(|[_, from, to, part, ..]| {
                let part = usize::try_from(*part).expect("a part");
                (*from, *to, PARTS[part])
            })
            .collect();
        let wanted = [
            (0, 10, "follower"),
            (10, 20, "leader"),
            (20, 30, "paused"),
            (30, 40, "leader"),
            (40, 50, "down"),
            (50, 60, "follower"),
        ];
        assert_eq!(spans, wanted);
        assert_eq!(timeline.nodes, [1, 2]);
    }

    #[test]
    fn messages_end_where_they_arrive_or_are_lost_and_repetitions_are_rows() {
        let sent = |message| Event::Sent {
            message,
            from: 1,
            to: 2,
            kind: "append".into(),
            term: 1,
            about: "".into(),
        };
        let why = Loss::Cut;
        let timeline = timeline(vec![
            (1, sent(1)),
            (2, sent(2)),
            (2, Event::Lost { message: 2, why }),
            (3, sent(3)),
            (5, Event::Arrived { message: 1 }),
            (8, Event::Arrived { message: 1 }),
        ]);
        let ends: Vec<(u64, u64, u64)> = timeline
            .messages
            .as_chunks::<8>()
            .0
            .iter()
            .map(|row| (row[0], row[1], row[5]))
            .collect();
        let fates = [Fate::Arrived, Fate::Cut, Fate::UnderWay, Fate::Repeated].map(|fate| fate as u64);
        let wanted = [
            (1, 5, fates[0]),
            (2, 2, fates[1]),
            (3, 8, fates[2]),
            (1, 8, fates[3]),
        ];
        assert_eq!(ends, wanted);
    }

    #[test]
    fn healing_ends_faults_that_would_last_longer() {
        let fault = |nodes: Vec<Node>, until: u64| Event::Fault {
            fault: "pause".into(),
            class: FaultClass::Process,
            nodes,
            links: Vec::new(),
            until: Some(until * 1_000),
            about: "".into(),
        };
        let timeline = timeline(vec![
            (1, fault(vec![1], 100)),
            (2, fault(vec![2], 100)),
            (3, fault(vec![1], 4)),
            (10, Event::Healed { nodes: Some(vec![1]) }),
            (20, Event::Healed { nodes: None }),
        ]);
        let ends: Vec<u64> = timeline.faults.iter().map(|fault| fault.to).collect();
        assert_eq!(ends, [10, 20, 4]);
    }

    #[test]
    fn a_request_without_an_answer_lasts_to_the_end() {
        let asked = |request| Event::Asked {
            request,
            node: 1,
            operation: Operation::Read,
            about: "".into(),
        };
        let answer = Answer::Refused;
        let timeline = timeline(vec![
            (1, asked(1)),
            (2, asked(2)),
            (
                4,
                Event::Answered {
                    request: 1,
                    answer,
                    about: "".into(),
                },
            ),
            (9, Event::Note { about: "end".into() }),
        ]);
        let rows: Vec<(u64, u64, u64)> = timeline
            .requests
            .as_chunks::<7>()
            .0
            .iter()
            .map(|row| (row[1], row[2], row[4]))
            .collect();
        assert_eq!(rows, [(1, 4, 1), (2, 9, NO_ANSWER)]);
    }
}
