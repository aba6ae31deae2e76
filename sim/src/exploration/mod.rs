//! Bounded exhaustive exploration: every interleaving of a small cluster.
//!
//! What was sent may arrive at any later moment, once, again and again, or never: the network is the set of everything
//! that was sent, and a message that does not arrive in some run is one that was lost in it. So losses, repetitions and
//! reordering are complete, without bounds of their own. Timers fire whenever they are armed, and within the bounds disks
//! are slow, and nodes crash and start again. The search goes breadth first, so that the way to a violation is as short
//! as any.
//!
//! What makes it finite and small, without leaving anything out: states that differ only in times are one
//! ([`quorate_core::raft::Raft::fingerprint`]); so are those that differ in answers which nobody waits for any more; and
//! nodes are equal at the beginning, so only the first of them fires the first timer.

mod disk;
mod state;

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use quorate_core::raft::Planted;

use state::{Action, State};

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

/// Where a state was reached from.
struct Origin {
    from: u64,
    action: u32,
}

/// Explores until everything within the bounds is known, or a property is broken.
pub fn explore(bounds: &Bounds) -> Report {
    let began = Instant::now();
    let first = State::new(bounds);
    let root = first.fingerprint();
    // Only looked up and never iterated, so its order decides nothing.
    let mut known = HashMap::from([(
        root,
        Origin {
            from: root,
            action: 0,
        },
    )]);
    let mut level = vec![(root, first)];
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
        for (fingerprint, state) in level {
            for (number, action) in state.actions(bounds).into_iter().enumerate() {
                report.transitions += 1;
                let origin = Origin {
                    from: fingerprint,
                    action: u32::try_from(number).expect("a state has few ways on"),
                };
                let reached = match take(&state, action, bounds) {
                    Ok(reached) => reached,
                    Err(seen) => {
                        let mut steps = way(&known, fingerprint, root, bounds);
                        steps.push(state.describe(action));
                        report.violation = Some((seen, steps));
                        break 'search;
                    }
                };
                let reached_fingerprint = reached.fingerprint();
                if reached.is_beyond(bounds) || known.contains_key(&reached_fingerprint) {
                    continue;
                }
                known.insert(reached_fingerprint, origin);
                next.push((reached_fingerprint, reached));
                if known.len() >= bounds.states_max {
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
    report.states = known.len();
    report.elapsed = began.elapsed();
    report
}

/// Takes one step; a broken assertion of consensus is a violation like others.
fn take(state: &State, action: Action, bounds: &Bounds) -> Result<State, String> {
    match catch_unwind(AssertUnwindSafe(|| state.after(action, bounds))) {
        Ok(result) => result,
        Err(panic) => Err(panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "a panic without a message".to_owned())),
    }
}

/// The steps from the first state to the one with this fingerprint, played again to be told.
fn way(known: &HashMap<u64, Origin>, to: u64, root: u64, bounds: &Bounds) -> Vec<String> {
    let mut numbers = Vec::new();
    let mut at = to;
    while at != root {
        let origin = &known[&at];
        numbers.push(origin.action);
        at = origin.from;
    }
    let mut state = State::new(bounds);
    let mut steps = Vec::new();
    for number in numbers.into_iter().rev() {
        let action = state.actions(bounds)[number as usize];
        steps.push(state.describe(action));
        state = state.after(action, bounds).expect("it was taken before");
    }
    steps
}

impl fmt::Display for Bounds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "bounds: {} nodes, {} terms, {} entries, {} timers, {} crashes, {} slow disks; any message is lost, late or \
             repeated",
            self.nodes, self.terms, self.entries, self.timeouts, self.crashes, self.slow_disks
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
