//! How figures are shown, to people and to programs.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value, json};

/// Between two columns.
const GAP: &str = "  ";

/// A bar that shows only on a terminal.
pub(crate) fn progress(length: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr_with_hz(5));
    let style = ProgressStyle::with_template("{msg:48} {bar:30} {pos}/{len}, {eta} to go");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// What a cell holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Words(String),
    Number(f64),
    /// One figure by another; nothing by nothing.
    Ratio(f64, f64),
    /// It was not measured.
    Nothing,
}

impl Cell {
    pub(crate) fn words(words: impl Into<String>) -> Cell {
        Cell::Words(words.into())
    }

    pub(crate) fn milliseconds(duration: Duration) -> Cell {
        Cell::Number(duration.as_secs_f64() * 1e3)
    }

    fn text(&self, decimals: usize) -> String {
        match self {
            Cell::Words(words) => words.clone(),
            Cell::Number(number) => format!("{number:.decimals$}"),
            Cell::Ratio(one, other) if *other > 0.0 => format!("{:.2}x", one / other),
            Cell::Ratio(..) | Cell::Nothing => "-".to_owned(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Cell::Words(words) => json!(words),
            Cell::Number(number) => json!(number),
            Cell::Ratio(one, other) if *other > 0.0 => json!(one / other),
            Cell::Ratio(..) | Cell::Nothing => Value::Null,
        }
    }
}

/// A column: what it is called for people and for programs, and with how many decimals numbers are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column(pub(crate) &'static str, pub(crate) &'static str, pub(crate) usize);

/// Figures of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    name: &'static str,
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Without rows. Programs find it under its name.
    pub(crate) fn new(name: &'static str, columns: &[Column]) -> Table {
        Table {
            name,
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row(&mut self, cells: impl Into<Vec<Cell>>) {
        self.rows.push(cells.into());
    }

    /// In columns as wide as they need to be; words begin at the left, numbers end at the right.
    pub(crate) fn text(&self) -> String {
        let heads = self.columns.iter().map(|column| column.0.to_owned()).collect();
        let cells = |row: &Vec<Cell>| {
            row.iter()
                .zip(&self.columns)
                .map(|(cell, column)| cell.text(column.2))
                .collect()
        };
        let mut lines: Vec<Vec<String>> = vec![heads];
        lines.extend(self.rows.iter().map(cells));
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                lines
                    .iter()
                    .map(|line| line[column].chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let left: Vec<bool> = (0..self.columns.len())
            .map(|column| self.rows.iter().any(|row| matches!(row[column], Cell::Words(_))))
            .collect();
        let mut text = String::new();
        for line in lines {
            let cells = line.iter().zip(&widths).zip(&left).map(|((cell, width), left)| {
                if *left {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
            text.push_str(cells.collect::<Vec<_>>().join(GAP).trim_end());
            text.push('\n');
        }
        text
    }

    /// An object a row.
    fn json(&self) -> Value {
        let row = |row: &Vec<Cell>| {
            let fields = row.iter().zip(&self.columns);
            let fields = fields.map(|(cell, column)| (column.1.to_owned(), cell.json()));
            Value::Object(fields.collect::<Map<String, Value>>())
        };
        self.rows.iter().map(row).collect()
    }
}

/// All tables, by their names.
pub(crate) fn json(tables: &[Table]) -> Value {
    let fields = tables.iter().map(|table| (table.name.to_owned(), table.json()));
    Value::Object(fields.collect())
}

/// The value in the middle; 0 of none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The time in the middle.
pub(crate) fn median_time(times: impl IntoIterator<Item = Duration>) -> Duration {
    let seconds = times.into_iter().map(|time| time.as_secs_f64());
    Duration::from_secs_f64(median(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(
            "loads",
            &[Column("load", "load", 0), Column("p50 ms", "p50_ms", 2)],
        );
        table.row([Cell::words("put, 64 clients"), Cell::Number(1.234)]);
        table.row([Cell::words(""), Cell::Ratio(3.0, 2.0)]);
        table.row([Cell::words("get"), Cell::Ratio(3.0, 0.0)]);
        table
    }

    #[test]
    fn words_begin_at_the_left_and_numbers_end_at_the_right() {
        let expected = [
            "load             p50 ms",
            "put, 64 clients    1.23",
            "                  1.50x",
            "get                   -",
        ];
        assert_eq!(table().text().lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn programs_get_every_digit() {
        let expected = json!({"loads": [
            {"load": "put, 64 clients", "p50_ms": 1.234},
            {"load": "", "p50_ms": 1.5},
            {"load": "get", "p50_ms": null},
        ]});
        assert_eq!(json(&[table()]), expected);
    }

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([]), 0.0);
        let times = [3, 1, 2].map(Duration::from_millis);
        assert_eq!(median_time(times), Duration::from_millis(2));
    }
}
