//! What a reader sees: medians of the rounds, and ratios.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::cluster::Side;
use super::failover::Gaps;
use super::idle::Idle;
use super::load::{Figures, Load, Operation};

/// A bar that shows only on a terminal.
pub(crate) fn progress(length: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr_with_hz(5));
    let style = ProgressStyle::with_template("{msg:32} {bar:30} {pos}/{len}, {eta} to go");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// One load: its name, and what each round of each side came to.
type Measured = (String, BTreeMap<Side, Vec<Figures>>);

/// All that was measured.
pub(crate) struct Report {
    rounds: u32,
    loads: BTreeMap<(Operation, usize), Measured>,
    failovers: Vec<(Side, Gaps)>,
    idle: Vec<(Side, Vec<Idle>)>,
}

impl Report {
    pub(crate) fn new(rounds: u32) -> Report {
        Report {
            rounds,
            loads: BTreeMap::new(),
            failovers: Vec::new(),
            idle: Vec::new(),
        }
    }

    pub(crate) fn measured(&mut self, side: Side, load: &Load, figures: Figures) {
        let (_, sides) = self
            .loads
            .entry((load.operation, load.clients))
            .or_insert_with(|| (load.to_string(), BTreeMap::new()));
        sides.entry(side).or_default().push(figures);
    }

    pub(crate) fn failed_over(&mut self, side: Side, gaps: Gaps) {
        self.failovers.push((side, gaps));
    }

    pub(crate) fn idled(&mut self, side: Side, idle: &[Idle]) {
        self.idle.push((side, idle.to_vec()));
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        if !self.loads.is_empty() {
            let _ = writeln!(
                text,
                "{:<30}{:<9}{:>9}{:>10}{:>10}{:>18}",
                "load (256 B values)", "side", "op/s", "p50 ms", "p99 ms", "syncs/1,000 op"
            );
        }
        for (name, sides) in self.loads.values() {
            let medians: Vec<(Side, Figures)> = sides
                .iter()
                .map(|(side, figures)| (*side, medians(figures)))
                .collect();
            for (side, figures) in &medians {
                let _ = writeln!(
                    text,
                    "{name:<30}{:<9}{:>9.0}{:>10.2}{:>10.2}{:>18.0}",
                    side.name(),
                    figures.operations_a_second,
                    milliseconds(figures.median),
                    milliseconds(figures.p99),
                    figures.syncs
                );
            }
            if let [(_, ours), (_, theirs)] = &medians[..] {
                let _ = writeln!(
                    text,
                    "{:<30}{:<9}{:>9}{:>10}{:>10}{:>18}",
                    "",
                    "ratio",
                    ratio(ours.operations_a_second, theirs.operations_a_second),
                    ratio(ours.median.as_secs_f64(), theirs.median.as_secs_f64()),
                    ratio(ours.p99.as_secs_f64(), theirs.p99.as_secs_f64()),
                    ratio(ours.syncs, theirs.syncs)
                );
            }
        }
        if !self.loads.is_empty() {
            let _ = writeln!(
                text,
                "Medians of {} rounds; the sides take turns on a fresh cluster, and the other does not run meanwhile.\n",
                self.rounds
            );
        }
        for (side, gaps) in &self.failovers {
            let _ = writeln!(
                text,
                "kill -9 of the leader: {:<13}writes stop {:>6.0} ms at the median, {:>6.0} ms at the longest ({} kills)",
                side.name(),
                milliseconds(gaps.median()),
                milliseconds(gaps.longest()),
                gaps.0.len()
            );
        }
        for (side, nodes) in &self.idle {
            for node in nodes {
                let _ = writeln!(
                    text,
                    "idle node: {:<13}{:>6.1} MB resident, {:>5.2} % of a core",
                    side.name(),
                    node.resident_bytes as f64 / 1e6,
                    node.processor_percent
                );
            }
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
        let loads: Vec<Value> = self
            .loads
            .values()
            .flat_map(|(name, sides)| {
                sides
                    .iter()
                    .map(move |(side, figures)| (name, side, medians(figures)))
            })
            .map(|(name, side, figures)| {
                json!({
                    "load": name,
                    "side": side.name(),
                    "operations_a_second": figures.operations_a_second,
                    "p50_ms": milliseconds(figures.median),
                    "p99_ms": milliseconds(figures.p99),
                    "syncs_a_thousand_operations": figures.syncs,
                })
            })
            .collect();
        let failovers: Vec<Value> = self
            .failovers
            .iter()
            .map(|(side, gaps)| {
                let gaps: Vec<f64> = gaps.0.iter().map(|gap| milliseconds(*gap)).collect();
                json!({"side": side.name(), "gaps_ms": gaps})
            })
            .collect();
        let idle: Vec<Value> = self
            .idle
            .iter()
            .flat_map(|(side, nodes)| nodes.iter().map(move |node| (side, node)))
            .map(|(side, node)| {
                json!({
                    "side": side.name(),
                    "resident_bytes": node.resident_bytes,
                    "processor_percent": node.processor_percent,
                })
            })
            .collect();
        json!({"rounds": self.rounds, "loads": loads, "failovers": failovers, "idle": idle})
    }
}

fn ratio(ours: f64, theirs: f64) -> String {
    if theirs > 0.0 {
        format!("{:.2}x", ours / theirs)
    } else {
        "-".to_owned()
    }
}

/// The median of each figure over the rounds.
fn medians(rounds: &[Figures]) -> Figures {
    fn median<T: Copy>(
        rounds: &[Figures],
        of: impl Fn(&Figures) -> T,
        less: impl Fn(&T, &T) -> std::cmp::Ordering,
    ) -> T {
        let mut values: Vec<T> = rounds.iter().map(of).collect();
        values.sort_by(less);
        values[values.len() / 2]
    }
    Figures {
        operations_a_second: median(rounds, |figures| figures.operations_a_second, f64::total_cmp),
        median: median(rounds, |figures| figures.median, Ord::cmp),
        p99: median(rounds, |figures| figures.p99, Ord::cmp),
        syncs: median(rounds, |figures| figures.syncs, f64::total_cmp),
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
