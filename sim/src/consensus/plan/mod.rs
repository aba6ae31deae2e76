//! The plan of a run: what it is like, what breaks in it and when, and what operators do.
//!
//! A seed expands to a plan before the run begins, from one stream of chance a concern; the run itself draws only how
//! single messages, writes and requests fare. So an event can be taken out of a plan without shifting any other, and a
//! plan that was written down is the run, whatever draws plans later.
//!
//! Invariants: the events are in the order of time, and all of them lie in the phase with faults. A node that an event
//! is about is named by what it is when the event comes (see [`Who`]): the events before may be others.

mod draw;
pub(crate) mod duration;
mod fault;
mod forced;
mod knobs;
mod moments;
mod operation;
mod smaller;
mod surroundings;

use std::fmt;

use quorate_core::raft::NodeId;
use serde::{Deserialize, Serialize};

pub(crate) use fault::{Alarm, Boundary, Fault, FaultKind, Shape};
pub(crate) use knobs::Knobs;
pub(crate) use operation::{Operation, OperationKind};

use super::schedule::{MILLISECOND, Time};

/// A run, written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The version of this format.
    format: u32,
    /// Where the plan comes from; the streams of the run itself come from `noise`.
    pub(crate) seed: u64,
    /// The seed of what is small: delays of single messages and writes, what clients ask.
    pub(crate) noise: u64,
    /// Voters at the beginning.
    pub(crate) nodes: u64,
    /// How long the phase with faults lasts.
    #[serde(with = "duration")]
    pub(crate) duration: Time,
    pub(crate) knobs: Knobs,
    pub(crate) faults: Vec<Fault>,
    pub(crate) operations: Vec<Operation>,
}

/// The version of the format of plans that this simulator writes and reads.
const FORMAT: u32 = 1;

/// The most voters of a plan.
pub const NODES_MAX: u64 = 9;

/// Which node an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Who {
    /// The one that was elected last, or is said to lead.
    Leader,
    /// The one at this place among the nodes that are not gone, in the order of their ids, counted round.
    Place(u64),
    /// The one at this place among those that are neither gone nor meant by [`Who::Leader`], counted round.
    Follower(u64),
}

impl Who {
    /// The node that is meant: `present` are those that are not gone, at least one, and `leader` may be among them.
    pub(crate) fn among(self, present: &[NodeId], leader: Option<NodeId>) -> NodeId {
        let leader = leader
            .filter(|leader| present.contains(leader))
            .unwrap_or(present[0]);
        let followers = || present.iter().copied().filter(|id| *id != leader);
        match self {
            Who::Leader => leader,
            Who::Place(place) => nth(present, place).unwrap_or(leader),
            Who::Follower(place) => nth(&followers().collect::<Vec<_>>(), place).unwrap_or(leader),
        }
    }
}

/// What stands at a place, counted round; none among none.
pub(crate) fn nth<T: Copy>(items: &[T], place: u64) -> Option<T> {
    let place = place.checked_rem(items.len() as u64)?;
    items.get(usize::try_from(place).ok()?).copied()
}

/// Why a text is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// It does not read as one.
    #[error("this is no plan: {0}; `quorate-sim plan --seed 17` prints one that is")]
    Syntax(#[from] serde_json::Error),
    /// It is of another version.
    #[error(
        "the plan has format {0}, and this simulator reads format {FORMAT}: run it with the sources that wrote it"
    )]
    Format(u32),
    /// It cannot be run.
    #[error("the plan cannot be run: {0}; mend that in the file")]
    Senseless(&'static str),
}

impl Plan {
    /// The plan of a seed: a run of `nodes` voters with `seconds` simulated seconds of faults.
    pub fn draw(seed: u64, nodes: u64, seconds: u64) -> Plan {
        draw::plan(seed, nodes, seconds)
    }

    /// A run of `nodes` voters in which nothing happens by itself, and which ends when somebody ends it.
    pub(crate) fn blank(seed: u64, nodes: u64, knobs: Knobs) -> Plan {
        Plan {
            format: FORMAT,
            seed,
            noise: seed,
            nodes,
            duration: Time::MAX / 2,
            knobs,
            faults: Vec::new(),
            operations: Vec::new(),
        }
    }

    /// The same run without faults and operations, on healthy machines and a network that loses nothing.
    #[must_use]
    pub fn calm(mut self) -> Plan {
        self.faults.clear();
        self.operations.clear();
        self.knobs.calm();
        self.knobs.latency_mean = self.knobs.latency_mean.min(MILLISECOND);
        (self.knobs.loss, self.knobs.duplication, self.knobs.latency_spike) = (0, 0, 0);
        self.knobs.clock_skew = 0;
        self
    }

    /// The seed that the plan was drawn from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// How many voters it begins with.
    pub fn nodes(&self) -> u64 {
        self.nodes
    }

    /// Whether reads may rely on leases in it.
    pub fn has_leases(&self) -> bool {
        self.knobs.raft.lease_reads.is_some()
    }

    /// Whether there are witnesses in it.
    pub fn has_witnesses(&self) -> bool {
        self.knobs.witnesses > 0
    }

    /// Whether production nodes keep small files, which fill up and go.
    pub fn has_small_files(&self) -> bool {
        self.knobs.raft.tail_bytes_max < 10_000
    }

    /// Whether production nodes need snapshots, of many pieces, and take long to send them.
    pub fn has_slow_transfers(&self) -> bool {
        let raft = &self.knobs.raft;
        self.has_small_files()
            && raft.append_bytes_max < 10_000
            && raft.retained_entries < 1_000
            && self.knobs.snapshot_mean > MILLISECOND
    }

    /// Whether machines have each other's addresses for a while in it.
    pub fn has_swaps(&self) -> bool {
        let mut kinds = self.faults.iter().map(|fault| &fault.kind);
        kinds.any(|kind| matches!(kind, FaultKind::Swap { .. }))
    }

    /// Whether several clients of production nodes share what they ask over QUIC.
    pub fn has_clients_over_quic(&self) -> bool {
        self.knobs.clients_over_quic > 1
    }

    /// How many faults and how many operations it has.
    pub fn events(&self) -> (usize, usize) {
        (self.faults.len(), self.operations.len())
    }

    /// How many faults and operations it has.
    pub fn event_count(&self) -> usize {
        self.faults.len() + self.operations.len()
    }

    /// The size of the run in words.
    pub fn size(&self) -> String {
        let (faults, operations) = self.events();
        let duration = duration::text(self.duration);
        format!(
            "{} nodes, {duration}, {faults} faults, {operations} operations",
            self.nodes
        )
    }

    /// The plan as JSON, one event a line.
    pub fn text(&self) -> String {
        let knobs = serde_json::to_string_pretty(&self.knobs).expect("knobs have names and plain values");
        format!(
            "{{\n  \"format\": {},\n  \"seed\": {},\n  \"noise\": {},\n  \"nodes\": {},\n  \"duration\": \"{}\",\n  \
             \"knobs\": {},\n  \"faults\": {},\n  \"operations\": {}\n}}\n",
            self.format,
            self.seed,
            self.noise,
            self.nodes,
            duration::text(self.duration),
            knobs.replace('\n', "\n  "),
            lines(&self.faults),
            lines(&self.operations),
        )
    }

    /// Reads what [`Plan::text`] wrote.
    ///
    /// # Errors
    /// When the text is no plan, or one that cannot be run.
    pub fn parse(text: &str) -> Result<Plan, PlanError> {
        let mut plan: Plan = serde_json::from_str(text)?;
        if plan.format != FORMAT {
            return Err(PlanError::Format(plan.format));
        }
        if !(1..=NODES_MAX).contains(&plan.nodes) {
            return Err(PlanError::Senseless("it needs between 1 and 9 nodes"));
        }
        if plan.knobs.priorities.is_empty() {
            return Err(PlanError::Senseless("it needs a priority for members"));
        }
        if plan.knobs.features_max == 0 {
            return Err(PlanError::Senseless("binaries have feature level 1 at the least"));
        }
        if plan.knobs.raft.validate().is_err() {
            return Err(PlanError::Senseless(
                "its settings of consensus contradict each other",
            ));
        }
        plan.settle();
        Ok(plan)
    }

    /// Brings the events into the order of time and drops those after the phase with faults.
    pub(crate) fn settle(&mut self) {
        let end = self.duration;
        self.faults.retain(|fault| fault.at < end);
        self.operations.retain(|operation| operation.at < end);
        self.faults.sort_by_key(|fault| fault.at);
        self.operations.sort_by_key(|operation| operation.at);
    }
}

/// A list with one item a line.
fn lines<T: Serialize>(items: &[T]) -> String {
    let line = |item| serde_json::to_string(item).expect("events have names and plain values");
    let lines: Vec<String> = items.iter().map(|item| format!("    {}", line(item))).collect();
    if lines.is_empty() {
        "[]".to_owned()
    } else {
        format!("[\n{}\n  ]", lines.join(",\n"))
    }
}

/// For people: the size of the run, and every event on a line.
impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.size())?;
        let faults = self.faults.iter().map(|fault| (fault.at, line_of(fault)));
        let operations = self
            .operations
            .iter()
            .map(|operation| (operation.at, line_of(operation)));
        let mut events: Vec<(Time, String)> = faults.chain(operations).collect();
        events.sort_by_key(|(at, _)| *at);
        events
            .iter()
            .try_for_each(|(_, line)| writeln!(formatter, "  {line}"))
    }
}

/// An event in few words: its fields as they are written in a plan, without the marks of the format.
pub(super) fn line_of<T: Serialize>(event: &T) -> String {
    let text = serde_json::to_string(event).expect("events have names and plain values");
    text.chars()
        .filter(|character| !matches!(character, '"' | '{' | '}'))
        .collect::<String>()
        .replace(',', ", ")
        .replace(':', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_was_written_down_is_read_back() {
        for seed in 1..=200 {
            let plan = Plan::draw(seed, 5, 20);
            let read = Plan::parse(&plan.text()).expect("it was written by the same simulator");
            assert_eq!(read, plan);
        }
    }

    #[test]
    fn events_come_in_the_order_of_time_before_the_end_of_faults() {
        for seed in 1..=50 {
            let plan = Plan::draw(seed, 3, 10);
            let mut settled = plan.clone();
            settled.settle();
            assert_eq!(settled, plan);
        }
    }

    #[test]
    fn a_plan_of_another_format_or_without_sense_is_refused() {
        let text = Plan::draw(1, 3, 5).text();
        let refusal = |from: &str, to: &str| {
            Plan::parse(&text.replace(from, to))
                .expect_err("it is refused")
                .to_string()
        };
        assert!(refusal("\"format\": 1", "\"format\": 2").contains("format 2"));
        assert!(refusal("\"nodes\": 3", "\"nodes\": 0").contains("nodes"));
        assert!(refusal("\"nodes\": 3", "\"knots\": 3").contains("no plan"));
    }

    #[test]
    fn a_longer_run_has_the_same_events_and_more() {
        let (short, long) = (Plan::draw(7, 3, 10), Plan::draw(7, 3, 20));
        assert_eq!(short.knobs, long.knobs);
        assert_eq!(short.faults[..], long.faults[..short.faults.len()]);
        assert_eq!(short.operations[..], long.operations[..short.operations.len()]);
    }
}
