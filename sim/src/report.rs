//! What a terminal shows: progress while seeds run, a summary at the end; and pages for a browser.

mod layout;
mod page;
pub mod summary;
pub mod timeline;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::batch::Batch;
#[cfg(feature = "planted-bugs")]
use crate::consensus::Mistake;
use crate::consensus::{Conditions, Engine, Mark};

/// A bar with how many of something, such as seeds, are done, and how many a second; it shows only on a terminal.
pub fn progress(count: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(count), ProgressDrawTarget::stderr_with_hz(5));
    let template = format!("{{bar:40}} {{pos}}/{{len}} {what}, {{per_sec}}, {{eta}} to go");
    let style = ProgressStyle::with_template(&template);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// The summary of a batch of seeds.
pub fn summary(batch: &Batch, engine: Engine, elapsed: Duration, jobs: usize) -> String {
    let (seeds, statistics) = (batch.done, &batch.statistics);
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<36}{value:>18}");
    };
    row("seeds", grouped(seeds));
    for (name, value) in statistics.named(engine) {
        match name {
            "simulated nanoseconds" => row("simulated seconds", grouped(value / 1_000_000_000)),
            "nanoseconds of recovery of quorums" => {
                let mean = value / 1_000_000 / statistics.quorums.max(1);
                row("mean recovery, quorum (ms)", grouped(mean));
            }
            "nanoseconds of recovery" => {
                row("mean recovery (ms)", grouped(value / 1_000_000 / seeds.max(1)));
            }
            _ => row(name, grouped(value)),
        }
    }
    let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    row("wall milliseconds", grouped(milliseconds));
    row("jobs", jobs.to_string());
    row(
        "steps a second",
        grouped(statistics.steps.saturating_mul(1_000) / milliseconds),
    );
    row(
        "simulated s a wall s",
        grouped(statistics.nanoseconds / 1_000_000 / milliseconds),
    );
    if let Some(share) = batch.checker_share {
        row("checkers' share of the time", format!("{share} %"));
    }
    text
}

/// What came of a batch of seeds, in a line.
pub fn verdict(batch: &Batch) -> String {
    match &batch.violation {
        None => format!("no violation in {} seeds", grouped(batch.done)),
        Some((_, violation)) => format!("VIOLATION in seed {}: {}", violation.seed, violation.checker),
    }
}

/// The marks of one simulation in a batch of its runs with so many nodes: in how many seeds each came about, and the first of them.
pub fn marks(batch: &Batch, engine: Engine, nodes: u64) -> String {
    let width = Mark::of(engine).map(|mark| mark.name().len()).max();
    let width = width.unwrap_or_default();
    let mut text = format!("{:<width$}{:>10}{:>12}\n", "mark", "seeds", "first seed");
    for mark in Mark::of(engine) {
        let (name, sentence) = (mark.name(), mark.sentence());
        // Writing to a string cannot fail.
        let _ = match batch.marks.get(&mark) {
            Some((seeds, first)) => {
                let (seeds, first) = (grouped(*seeds), grouped(*first));
                writeln!(text, "{name:<width$}{seeds:>10}{first:>12}")
            }
            None if mark.nodes_min() > nodes => {
                writeln!(
                    text,
                    "{name:<width$}{:>10}  needs {} nodes",
                    "-",
                    mark.nodes_min()
                )
            }
            None => writeln!(text, "{name:<width$}{:>10}  NEVER: {sentence}", 0),
        };
    }
    text
}

/// No messages of panics on the terminal while this lives: a planted mistake often ends in a broken assertion of
/// consensus, which is what a checker wants and no reader.
pub fn without_panic_messages() -> impl Drop {
    struct Quiet;
    impl Drop for Quiet {
        fn drop(&mut self) {
            let _ = std::panic::take_hook();
        }
    }
    std::panic::set_hook(Box::new(|_| {}));
    Quiet
}

/// A command that does something with the folder of a failure.
pub fn command(conditions: &Conditions, command: &str, folder: &Path) -> String {
    let features = match conditions.mistake {
        #[cfg(feature = "planted-bugs")]
        Some(Mistake::Consensus(_)) => " --features planted-bugs",
        _ => "",
    };
    let folder = folder.display();
    format!("cargo run --release -p quorate-sim{features} -- {command} {folder}")
}

fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let texts: Vec<String> = [0, 999, 1_000, 1_234_567].into_iter().map(grouped).collect();
        assert_eq!(texts, ["0", "999", "1 000", "1 234 567"]);
    }
}
