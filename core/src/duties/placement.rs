//! Which nodes are there to have sessions, and when the next step of moves is due.
//!
//! A node that the leader has heard nothing of for longer than a grace time is silent: its sessions go to others. The
//! time counts from when the leader last heard of it, or from when it began to lead: a new leader waits the whole time
//! again, so that an election moves nobody's sessions. A node that comes back is there again at once, and keeps what it
//! still has. Where sessions go is decided in [`state`](crate::state), when the command is applied.
//!
//! What was proposed and has not changed the state yet is proposed again after a while only: it may have been lost.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Instant;
use crate::raft::{NodeId, Status, Term};
use crate::state::{Command, NodeLoad, Presence, SessionCommand, StateMachine};

/// When a command is proposed again that has not been applied.
const PROPOSED_AGAIN: Duration = Duration::from_secs(1);
/// The least time between two steps, so that the work of moving leaves room for other work.
const STEP: Duration = Duration::from_millis(20);

/// A node that may have sessions, as the leader knows it: a voter with a state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// The node.
    pub id: NodeId,
    /// When the leader last heard of it; none for the leader itself.
    pub heard: Option<Instant>,
}

/// What the leader knows about hosts, and what it has proposed.
#[derive(Clone, Debug)]
pub struct Placement {
    grace: Duration,
    leading: Option<Leading>,
}

#[derive(Clone, Debug)]
struct Leading {
    term: Term,
    since: Instant,
    sighted: Option<Proposed<Vec<(NodeId, Presence)>>>,
    stepped: Option<Proposed<Vec<NodeLoad>>>,
}

/// Something that was proposed for a situation, and when.
#[derive(Clone, Debug)]
struct Proposed<T> {
    at: Instant,
    situation: T,
}

impl<T: PartialEq> Proposed<T> {
    fn is_under_way(&self, now: Instant, situation: &T) -> bool {
        self.situation == *situation && now < self.at + PROPOSED_AGAIN
    }
}

impl Host {
    /// The hosts that a leader knows, itself among them.
    pub fn all(status: &Status<'_>) -> Vec<Host> {
        let heard = |id: NodeId| {
            status
                .peers
                .iter()
                .find(|peer| peer.id == id)
                .map(|peer| peer.heard)
        };
        let voters = status.membership.voters().iter().copied();
        voters
            .filter(|id| !status.membership.is_witness(*id))
            // Of a voter that is new to the leader it knows nothing yet.
            .filter(|id| *id == status.id || heard(*id).is_some())
            .map(|id| Host { id, heard: heard(id) })
            .collect()
    }
}

impl Placement {
    /// With the time that a node may be silent before its sessions go to others.
    pub fn new(grace: Duration) -> Placement {
        Placement { grace, leading: None }
    }

    /// This node does not lead.
    pub fn follow(&mut self) {
        self.leading = None;
    }

    /// What is to be proposed now by a leader of `term`, who knows these hosts.
    pub fn due(&mut self, now: Instant, term: Term, hosts: &[Host], state: &StateMachine) -> Vec<Command> {
        let leading = match &mut self.leading {
            Some(leading) if leading.term == term => leading,
            leading => leading.insert(Leading {
                term,
                since: now,
                sighted: None,
                stepped: None,
            }),
        };
        let grace = self.grace;
        let nodes = leading.news(now, grace, hosts, state);
        let mut commands = Vec::new();
        if nodes.is_empty() {
            leading.sighted = None;
        } else if !under_way(&leading.sighted, now, &nodes) {
            let situation = nodes.clone();
            leading.sighted = Some(Proposed { at: now, situation });
            commands.push(Command::Session(SessionCommand::Sight { term, nodes }));
        }
        if leading.step_is_due(now, state) {
            commands.push(Command::Session(SessionCommand::Step { term }));
        }
        commands
    }
}

fn under_way<T: PartialEq>(proposed: &Option<Proposed<T>>, now: Instant, situation: &T) -> bool {
    proposed
        .as_ref()
        .is_some_and(|proposed| proposed.is_under_way(now, situation))
}

impl Leading {
    /// What the state does not know yet of nodes.
    fn news(
        &self,
        now: Instant,
        grace: Duration,
        hosts: &[Host],
        state: &StateMachine,
    ) -> Vec<(NodeId, Presence)> {
        let known: BTreeMap<NodeId, NodeLoad> = state.session_nodes().map(|load| (load.node, load)).collect();
        let mut news = Vec::new();
        for host in hosts {
            let heard = host.heard.map_or(now, |heard| heard.max(self.since));
            let presence = if now.since(heard) >= grace {
                Presence::Silent
            } else {
                Presence::Present
            };
            if known.get(&host.id).map(|load| load.place.presence) != Some(presence) {
                news.push((host.id, presence));
            }
        }
        for load in known.values() {
            let is_host = hosts.iter().any(|host| host.id == load.node);
            // One that has nothing left is told of once more, and then forgotten.
            if !is_host && (load.place.presence != Presence::Removed || load.sessions == 0) {
                news.push((load.node, Presence::Removed));
            }
        }
        news
    }

    fn step_is_due(&mut self, now: Instant, state: &StateMachine) -> bool {
        if !state.wants_session_step() {
            self.stepped = None;
            return false;
        }
        let situation: Vec<NodeLoad> = state.session_nodes().collect();
        let too_soon = self
            .stepped
            .as_ref()
            .is_some_and(|stepped| now < stepped.at + STEP);
        if too_soon || under_way(&self.stepped, now, &situation) {
            return false;
        }
        self.stepped = Some(Proposed { at: now, situation });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Index, Position};

    const GRACE: Duration = Duration::from_secs(10);

    fn at(milliseconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_millis(milliseconds)
    }

    /// A leader of term 1 with its state: node 1, which has heard of the others at some time.
    struct Bench {
        state: StateMachine,
        placement: Placement,
        hosts: Vec<Host>,
    }

    impl Bench {
        fn new() -> Bench {
            let mut bench = Bench {
                state: StateMachine::new(),
                placement: Placement::new(GRACE),
                hosts: [1, 2, 3].map(host).to_vec(),
            };
            bench.settle(at(0));
            bench
        }

        fn hear(&mut self, id: u64, now: Instant) {
            let mut hosts = self.hosts.iter_mut();
            let host = hosts.find(|host| host.id == NodeId(id)).expect("a host");
            host.heard = Some(now);
        }

        fn due(&mut self, now: Instant) -> Vec<Command> {
            self.placement.due(now, Term(1), &self.hosts, &self.state)
        }

        fn apply(&mut self, command: &Command) {
            let position = Position {
                term: Term(1),
                index: Index(self.state.applied().index.0 + 1),
            };
            self.state.apply(position, &command.encode()).expect("a command");
        }

        /// Applies what is due at `now`, and a little later, until nothing is.
        fn settle(&mut self, now: Instant) {
            let mut now = now;
            for _ in 0..100 {
                let commands = self.due(now);
                if commands.is_empty() {
                    return;
                }
                commands.iter().for_each(|command| self.apply(command));
                now = now + STEP;
            }
            panic!("there is always something due");
        }

        fn create(&mut self, count: u64) {
            for _ in 0..count {
                self.apply(&Command::Session(SessionCommand::Create {
                    session: None,
                    client: String::new(),
                    payload: bytes::Bytes::new(),
                    now_ms: 0,
                }));
            }
        }

        fn counts(&self) -> Vec<(u64, u64)> {
            let loads = self.state.session_nodes();
            loads.map(|load| (load.node.0, load.sessions)).collect()
        }
    }

    fn host(id: u64) -> Host {
        Host {
            id: NodeId(id),
            heard: (id > 1).then_some(at(0)),
        }
    }

    fn sight(nodes: &[(u64, Presence)]) -> Command {
        Command::Session(SessionCommand::Sight {
            term: Term(1),
            nodes: nodes
                .iter()
                .map(|(id, presence)| (NodeId(*id), *presence))
                .collect(),
        })
    }

    #[test]
    fn the_sessions_of_a_node_that_is_silent_for_the_grace_time_move_and_not_before() {
        let mut bench = Bench::new();
        bench.create(9);
        bench.hear(2, at(10_000));
        assert_eq!(bench.due(at(9_999)), []);
        assert_eq!(bench.due(at(10_000)), [sight(&[(3, Presence::Silent)])]);
        bench.settle(at(11_000));
        assert_eq!(bench.counts(), [(1, 5), (2, 4), (3, 0)]);
    }

    #[test]
    fn a_node_that_comes_back_takes_sessions_again() {
        let mut bench = Bench::new();
        bench.hear(2, at(20_000));
        bench.settle(at(20_000));
        bench.create(2);
        assert_eq!(bench.counts(), [(1, 1), (2, 1), (3, 0)]);
        bench.hear(3, at(20_500));
        bench.settle(at(20_501));
        bench.create(1);
        assert_eq!(bench.counts(), [(1, 1), (2, 1), (3, 1)]);
    }

    #[test]
    fn a_new_leader_waits_the_whole_grace_time_again() {
        let mut bench = Bench::new();
        bench.placement.follow();
        assert_eq!(bench.due(at(20_000)), []);
        assert_eq!(bench.due(at(29_999)), []);
        let silent = [(2, Presence::Silent), (3, Presence::Silent)];
        assert_eq!(bench.due(at(30_000)), [sight(&silent)]);
    }

    #[test]
    fn what_is_lost_is_proposed_again_and_not_before() {
        let mut bench = Bench::new();
        bench.hear(2, at(20_000));
        let silent = [sight(&[(3, Presence::Silent)])];
        assert_eq!(bench.due(at(10_000)), silent);
        assert_eq!(bench.due(at(10_999)), []);
        assert_eq!(bench.due(at(11_000)), silent);
    }

    #[test]
    fn a_node_that_left_the_cluster_gives_its_sessions_away_and_is_forgotten() {
        let mut bench = Bench::new();
        bench.create(6);
        bench.hosts.pop();
        bench.settle(at(100));
        assert_eq!(bench.counts(), [(1, 3), (2, 3)]);
    }

    #[test]
    fn many_sessions_move_a_step_at_a_time() {
        let mut bench = Bench::new();
        bench.create(900);
        bench.apply(&Command::Session(SessionCommand::Drain {
            node: NodeId(3),
            drain: crate::state::Drain::Yes,
        }));
        let step = Command::Session(SessionCommand::Step { term: Term(1) });
        let mut now = at(100);
        for left in [200, 100, 0] {
            assert_eq!(bench.due(now), std::slice::from_ref(&step));
            assert_eq!(bench.due(now), [], "one at a time");
            bench.apply(&step);
            assert_eq!(bench.due(now), [], "with a pause between them");
            assert_eq!(bench.counts()[2], (3, left));
            now = now + STEP;
        }
        assert_eq!(bench.due(now), []);
    }
}
