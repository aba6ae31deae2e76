//! The leader's duties about the state: leases whose time is over, where sessions go, what is old enough to be forgotten,
//! and what streams need not keep.
//!
//! What is due becomes a command like any other. The state is looked at only when nobody changes it at the moment: a
//! duty can wait for the next look, a heartbeat cannot.

use std::sync::TryLockError;
use std::time::Duration;

use quorate_core::duties::{Host, Housekeeping, Leases, Placement, Retention, Trimming};
use quorate_core::raft::{Input, Role, Term};
use quorate_core::state::{Command, LeaseEvent};
use quorate_core::{Instant, WallTime};

use super::clients::Pending;
use super::consensus::Consensus;
use super::lanes::apply::SharedState;
use crate::port::wall_time;

/// What this node keeps for these duties.
pub(super) struct StateDuties {
    state: SharedState,
    leases: Leases,
    housekeeping: Housekeeping,
    placement: Placement,
    trimming: Trimming,
}

impl StateDuties {
    /// With the time that a node may be silent before its sessions go to others.
    pub(super) fn new(state: SharedState, retention: Retention, grace: Duration) -> StateDuties {
        StateDuties {
            state,
            leases: Leases::default(),
            housekeeping: Housekeeping::new(retention),
            placement: Placement::new(grace),
            trimming: Trimming::default(),
        }
    }

    /// The deadlines of leases, which mean something while this node leads.
    pub(super) fn leases(&mut self) -> &mut Leases {
        &mut self.leases
    }

    /// What is to be proposed now by a node that leads in this term, if it does.
    fn due(&mut self, now: Instant, wall: WallTime, leads: Option<(Term, Vec<Host>)>) -> Vec<Command> {
        let Some((term, hosts)) = leads else {
            self.leases.follow();
            self.placement.follow();
            return Vec::new();
        };
        let state = match self.state.try_read() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            Err(TryLockError::WouldBlock) => return Vec::new(),
        };
        if self.leases.term() != Some(term) {
            self.leases.lead(term, now, state.leases());
            self.housekeeping.reset();
            self.trimming.reset();
        }
        let mut commands: Vec<Command> = std::iter::from_fn(|| self.leases.due(now)).collect();
        commands.extend(self.housekeeping.due(now, &state));
        commands.extend(self.placement.due(now, term, &hosts, &state));
        commands.extend(self.trimming.due(now, wall, term, &state));
        commands
    }
}

impl Consensus {
    /// Proposes what is due.
    pub(super) fn look_after_state(&mut self, now: Instant) {
        let status = self.raft.status();
        let leads = (status.role == Role::Leader).then(|| (status.term, Host::all(&status)));
        let wall = wall_time(&*self.ports.clock);
        for command in self.state_duties.due(now, wall, leads) {
            let token = self.clients.expect(Pending::StateDuty);
            let command = command.encode();
            self.step(Input::Propose { token, command });
        }
    }

    /// The state machine granted leases or ended some.
    pub(super) fn leases_changed(&mut self, events: &[LeaseEvent]) {
        let now = self.ports.clock.now();
        for event in events {
            self.state_duties.leases.see(now, *event);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, RwLock};

    use quorate_core::raft::{Index, NodeId, Position};
    use quorate_core::state::{SessionCommand, StateMachine};

    use super::*;

    fn state_with_a_lease() -> SharedState {
        let mut state = StateMachine::new();
        let grant = Command::Grant {
            lease: None,
            ttl: Duration::from_secs(10),
        };
        let position = Position {
            term: Term(1),
            index: Index(1),
        };
        state.apply(position, &grant.encode()).expect("a known command");
        Arc::new(RwLock::new(state))
    }

    const WALL: WallTime = WallTime(0);
    const GRACE: Duration = Duration::from_secs(5);

    /// A leader without hosts, so that there is nothing to place.
    fn leads(term: u64) -> Option<(Term, Vec<Host>)> {
        Some((Term(term), Vec::new()))
    }

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_runs_out_when_a_leader_has_stood_for_its_whole_time() {
        let mut duties = StateDuties::new(state_with_a_lease(), Retention::default(), GRACE);
        assert_eq!(duties.due(at(100), WALL, None), []);
        assert_eq!(duties.due(at(100), WALL, leads(2)), []);
        assert_eq!(duties.due(at(109), WALL, leads(2)), []);
        assert_eq!(
            duties.due(at(109), WALL, leads(3)),
            [],
            "another term begins anew"
        );
        assert_eq!(duties.due(at(110), WALL, leads(3)), []);
        let due = duties.due(at(119), WALL, leads(3));
        assert!(
            matches!(&due[..], [Command::Expire { term: Term(3), .. }]),
            "{due:?}"
        );
    }

    #[test]
    fn a_state_that_is_being_changed_is_left_alone_until_the_next_look() {
        let state = state_with_a_lease();
        let mut duties = StateDuties::new(Arc::clone(&state), Retention::default(), GRACE);
        duties.due(at(0), WALL, leads(2));
        let changing = state.write().expect("nobody panicked");
        assert_eq!(duties.due(at(20), WALL, leads(2)), []);
        drop(changing);
        assert_eq!(duties.due(at(21), WALL, leads(2)).len(), 1);
    }

    #[test]
    fn a_leader_says_which_nodes_may_have_sessions() {
        let state = Arc::new(RwLock::new(StateMachine::new()));
        let mut duties = StateDuties::new(state, Retention::default(), GRACE);
        let own = Host {
            id: NodeId(1),
            heard: None,
        };
        let due = duties.due(at(1), WALL, Some((Term(2), vec![own])));
        let sighted = |command: &Command| matches!(command, Command::Session(SessionCommand::Sight { .. }));
        assert!(due.iter().any(sighted), "{due:?}");
        assert_eq!(
            duties.due(at(1), WALL, Some((Term(2), vec![own]))),
            [],
            "it is under way"
        );
    }
}
