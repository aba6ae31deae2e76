//! What the rounds of the loads came to: medians, and ratios to the peers.

use std::collections::BTreeMap;

use super::cluster::Side;
use super::load::{Figures, Load, Operation};
use super::table::{Cell, Column, Table, median, median_time};

/// One load, and what each round of each side came to.
struct Measured {
    load: Load,
    sides: BTreeMap<Side, Vec<Figures>>,
}

/// All loads of one kind.
#[derive(Default)]
pub(crate) struct Rounds {
    loads: BTreeMap<(Operation, usize, usize), Measured>,
}

impl Rounds {
    pub(crate) fn add(&mut self, side: Side, load: &Load, figures: Figures) {
        let key = (load.operation, load.value_bytes, load.clients);
        let measured = self.loads.entry(key).or_insert_with(|| Measured {
            load: load.clone(),
            sides: BTreeMap::new(),
        });
        measured.sides.entry(side).or_default().push(figures);
    }

    /// The medians of each side, and the ratios of our figures to those of each peer.
    pub(crate) fn table(&self) -> Table {
        let columns = [
            Column("load", "load", 0),
            Column("side", "side", 0),
            Column("op/s", "operations_a_second", 0),
            Column("records/s", "records_a_second", 0),
            Column("p50 ms", "p50_ms", 2),
            Column("p99 ms", "p99_ms", 2),
            Column("syncs/1,000 op", "syncs_a_thousand_operations", 0),
        ];
        let mut table = Table::new(self.name(), &columns);
        for measured in self.loads.values() {
            measured.add_to(&mut table);
        }
        table
    }

    /// What kind of loads they are.
    fn name(&self) -> &'static str {
        match self.loads.keys().next() {
            Some((Operation::Append { .. }, ..)) => "append",
            Some((Operation::Get, ..)) => "get",
            Some((Operation::Put, ..)) | None => "put",
        }
    }
}

impl Measured {
    fn add_to(&self, table: &mut Table) {
        let name = self.load.to_string();
        let records = self.load.batch();
        let sides = self.sides.iter();
        let medians: Vec<(Side, Figures)> = sides.map(|(side, rounds)| (*side, medians(rounds))).collect();
        for (side, figures) in &medians {
            table.row([
                Cell::words(&*name),
                Cell::words(side.name()),
                Cell::Number(figures.operations_a_second),
                records.map_or(Cell::Nothing, |batch| {
                    Cell::Number(figures.operations_a_second * batch as f64)
                }),
                Cell::milliseconds(figures.median),
                Cell::milliseconds(figures.p99),
                figures.syncs.map_or(Cell::Nothing, Cell::Number),
            ]);
        }
        let Some(((_, ours), peers)) = medians.split_first() else {
            return;
        };
        for (peer, theirs) in peers {
            let throughput = Cell::Ratio(ours.operations_a_second, theirs.operations_a_second);
            table.row([
                Cell::words(&*name),
                Cell::words(format!("ratio to {}", peer.name())),
                throughput.clone(),
                records.map_or(Cell::Nothing, |_| throughput),
                Cell::Ratio(ours.median.as_secs_f64(), theirs.median.as_secs_f64()),
                Cell::Ratio(ours.p99.as_secs_f64(), theirs.p99.as_secs_f64()),
                Cell::Ratio(ours.syncs.unwrap_or(0.0), theirs.syncs.unwrap_or(0.0)),
            ]);
        }
    }
}

/// The median of each figure.
fn medians(rounds: &[Figures]) -> Figures {
    let syncs: Option<Vec<f64>> = rounds.iter().map(|figures| figures.syncs).collect();
    Figures {
        operations_a_second: median(rounds.iter().map(|figures| figures.operations_a_second)),
        median: median_time(rounds.iter().map(|figures| figures.median)),
        p99: median_time(rounds.iter().map(|figures| figures.p99)),
        syncs: syncs.map(median),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn load(operation: Operation) -> Load {
        Load {
            operation,
            clients: 16,
            value_bytes: 256,
            keys: 1,
            warm_up: Duration::ZERO,
            measured: Duration::from_secs(1),
        }
    }

    fn figures(operations_a_second: f64, syncs: Option<f64>) -> Figures {
        Figures {
            operations_a_second,
            median: Duration::from_millis(1),
            p99: Duration::from_millis(4),
            syncs,
        }
    }

    #[test]
    fn rows_are_medians_and_ratios_to_each_peer() {
        let mut rounds = Rounds::default();
        let append = load(Operation::Append { batch: 100 });
        for rate in [10.0, 1000.0, 30.0] {
            rounds.add(Side::Quorate, &append, figures(rate, Some(5.0)));
        }
        for (sync_always, rate) in [(false, 60.0), (true, 3.0)] {
            rounds.add(Side::Nats { sync_always }, &append, figures(rate, None));
        }
        let text = rounds.table().text();
        let lines: Vec<&str> = text.lines().collect();
        let ends = |line: usize, expected: &str| {
            let words: Vec<&str> = lines[line].split_whitespace().collect();
            assert!(words.join(" ").ends_with(expected), "{text}");
        };
        ends(1, "append 100 x 256 B, 16 clients quorate 30 3000 1.00 4.00 5");
        ends(2, "nats 60 6000 1.00 4.00 -");
        ends(4, "ratio to nats 0.50x 0.50x 1.00x 1.00x -");
        ends(5, "ratio to nats, sync always 10.00x 10.00x 1.00x 1.00x -");
    }

    #[test]
    fn keys_are_no_records() {
        let mut rounds = Rounds::default();
        rounds.add(Side::Quorate, &load(Operation::Put), figures(7.0, Some(1.0)));
        let text = rounds.table().text();
        let row: Vec<&str> = text
            .lines()
            .nth(1)
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        assert!(
            row.ends_with(&["quorate", "7", "-", "1.00", "4.00", "1"]),
            "{text}"
        );
    }
}
