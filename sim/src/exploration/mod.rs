//! Bounded exhaustive exploration: every interleaving of a small cluster.
//!
//! What was sent may arrive at any later moment, once, again and again, or never: the network is the set of everything
//! that was sent, and a message that does not arrive in some run is one that was lost in it. So losses, repetitions and
//! reordering are complete, without bounds of their own. Timers fire whenever they are armed, and within the bounds disks
//! are slow, and nodes crash and start again. The search goes breadth first, so that the way to a violation is
//! hardly longer than the shortest.
//!
//! What a follower's clock says while no timer of its own fires is a bound, too: so many times one is asked for its vote
//! when its leader has been silent for long. Without any it takes its leader for lost only after its own timer or a crash.
//!
//! What makes it finite and small, without leaving out anything else:
//! - states that differ only in times are one ([`quorate_core::raft::Raft::fingerprint`]); so are those that differ in
//!   answers which nobody waits for any more;
//! - since nothing that was sent ever goes away, a state covers every other with the same nodes in which less is under way
//!   and fewer timers, crashes and silences are left: whatever can happen there can happen here;
//! - nodes are equal at the beginning, so only the first of them fires the first timer.

mod cluster;
mod disk;
mod node;
mod table;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use quorate_core::raft::Planted;

use cluster::{Action, Cluster, Present, State};

/// What is explored.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Nodes, all of them voters.
    pub nodes: u64,
    /// The last term that is looked at.
    pub terms: u64,
    /// Commands that clients propose.
    pub entries: u8,
    /// Timers that fire.
    pub timeouts: u8,
    /// Nodes that crash and start again at once.
    pub crashes: u8,
    /// Followers that are asked for their vote when their leader has been silent for long, and their own timer has not fired.
    pub silences: u8,
    /// Nodes whose writes become durable at any later moment, and are lost with a crash until then. The writes of all
    /// others are durable before the node goes on.
    pub slow_disks: u8,
    /// States after which the search ends, whether it is complete or not.
    pub states_max: usize,
    /// A mistake planted in consensus.
    pub planted: Planted,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Different states.
    pub states: usize,
    /// Steps from one state to another, those to known states included.
    pub transitions: u64,
    /// The number of steps to the states that are furthest away.
    pub depth: usize,
    /// Whether every state within the bounds was visited. Else all that are fewer than `depth` steps away were.
    pub complete: bool,
    /// How long it took.
    pub elapsed: Duration,
    /// The first violation: what was seen, and the steps that lead to it.
    pub violation: Option<(String, Vec<String>)>,
}

/// A state that was reached.
struct Reached {
    state: State,
    /// Where from and how; nothing for the first.
    origin: Option<(usize, Action)>,
    /// Whether another covers it, so that nobody has to go on from here.
    covered: bool,
}

/// All states that were reached.
#[derive(Default)]
struct Known {
    reached: Vec<Reached>,
    /// Those that no other covers. Only looked up and never iterated, so its order decides nothing.
    widest: HashMap<Present, Vec<usize>>,
}

impl Known {
    /// Takes in a state, unless a known one covers it; says which number it has.
    fn insert(&mut self, state: State, origin: Option<(usize, Action)>) -> Option<usize> {
        let alike = self.widest.entry(state.present.clone()).or_default();
        if alike
            .iter()
            .any(|other| self.reached[*other].state.covers(&state))
        {
            return None;
        }
        alike.retain(|other| {
            let other = &mut self.reached[*other];
            other.covered = state.covers(&other.state);
            !other.covered
        });
        let number = self.reached.len();
        alike.push(number);
        self.reached.push(Reached {
            state,
            origin,
            covered: false,
        });
        Some(number)
    }

    /// The steps from the first state to this one.
    fn way(&self, to: usize) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut at = to;
        while let Some((from, action)) = self.reached[at].origin {
            actions.push(action);
            at = from;
        }
        actions.reverse();
        actions
    }
}

/// Explores until everything within the bounds is known, or a property is broken.
pub fn explore(bounds: &Bounds) -> Report {
    let began = Instant::now();
    let (mut cluster, first) = Cluster::new(bounds);
    let mut known = Known::default();
    let mut level: Vec<usize> = known.insert(first, None).into_iter().collect();
    let mut report = Report {
        states: 1,
        transitions: 0,
        depth: 0,
        complete: false,
        elapsed: Duration::ZERO,
        violation: None,
    };
    'search: while !level.is_empty() {
        let mut next = Vec::new();
        // The more is under way in a state, the more others it may cover before anybody goes on from those.
        level.sort_by_key(|number| Reverse(known.reached[*number].state.under_way()));
        for number in level {
            let state = known.reached[number].state.clone();
            for action in cluster.actions(&state) {
                if known.reached[number].covered {
                    break;
                }
                report.transitions += 1;
                match cluster.after(&state, action) {
                    Ok(reached) => {
                        next.extend(reached.and_then(|reached| known.insert(reached, Some((number, action)))))
                    }
                    Err(seen) => {
                        let way = known.way(number).into_iter().chain([action]);
                        report.violation = Some((seen, way.map(|action| cluster.describe(action)).collect()));
                        break 'search;
                    }
                }
                if known.reached.len() >= bounds.states_max {
                    report.depth += 1;
                    break 'search;
                }
            }
        }
        if next.is_empty() {
            report.complete = true;
            break;
        }
        report.depth += 1;
        level = next;
    }
    report.states = known.reached.len();
    report.elapsed = began.elapsed();
    report
}

impl fmt::Display for Bounds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "bounds: {} nodes, {} terms, {} entries, {} timers, {} crashes, {} silences, {} slow disks; any message is lost, late or \
             repeated",
            self.nodes, self.terms, self.entries, self.timeouts, self.crashes, self.silences, self.slow_disks
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64().max(1e-9);
        writeln!(formatter, "states        {:>14}", self.states)?;
        writeln!(formatter, "transitions   {:>14}", self.transitions)?;
        writeln!(formatter, "depth         {:>14}", self.depth)?;
        writeln!(formatter, "seconds       {seconds:>14.1}")?;
        writeln!(
            formatter,
            "states a second {:>12.0}",
            self.states as f64 / seconds
        )?;
        match &self.violation {
            None if self.complete => writeln!(formatter, "every state within the bounds was visited"),
            None => writeln!(
                formatter,
                "the limit of states was reached: all that are fewer than {} steps away were visited",
                self.depth
            ),
            Some((seen, steps)) => {
                writeln!(formatter, "\nVIOLATION: {seen}\nafter:")?;
                steps
                    .iter()
                    .enumerate()
                    .try_for_each(|(number, step)| writeln!(formatter, "{:>4}  {step}", number + 1))
            }
        }
    }
}
