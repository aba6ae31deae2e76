//! What a benchmark found.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use quorate_client::Error;
use serde::Serialize;

/// The longest latency that is told apart, in microseconds.
const LATENCY_MAX_US: u64 = 3_600_000_000;

/// Counts and times, gathered while the clients run.
pub(super) struct Figures {
    latency_us: Histogram<u64>,
    pub(super) errors: BTreeMap<&'static str, u64>,
    /// When the last operation succeeded, counted from the begin.
    last_success: Duration,
    longest_gap: Duration,
}

impl Figures {
    pub(super) fn new() -> Figures {
        let latency_us = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)
            .expect("the bounds and the precision are ones that the histogram takes");
        Figures {
            latency_us,
            errors: BTreeMap::new(),
            last_success: Duration::ZERO,
            longest_gap: Duration::ZERO,
        }
    }

    /// An operation succeeded, `at` after the begin.
    pub(super) fn succeeded(&mut self, latency: Duration, at: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency_us.saturating_record(micros.max(1));
        self.longest_gap = self.longest_gap.max(at.saturating_sub(self.last_success));
        self.last_success = at;
    }

    pub(super) fn failed(&mut self, error: &Error) {
        *self.errors.entry(error.kind()).or_default() += 1;
    }

    pub(super) fn operations(&self) -> u64 {
        self.latency_us.len()
    }

    pub(super) fn latency(&self) -> Latency {
        let histogram = &self.latency_us;
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Latency {
            mean: histogram.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: histogram.max() as f64 / 1e3,
        }
    }
}

/// Latencies in milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

impl Latency {
    /// One line each.
    pub(super) fn to_text(&self) -> String {
        let lines = [
            ("mean", self.mean),
            ("p50", self.p50),
            ("p90", self.p90),
            ("p99", self.p99),
            ("p99.9", self.p99_9),
            ("max", self.max),
        ];
        let lines = lines.map(|(name, value)| format!("    {name:<6} {value:>10.3}\n"));
        lines.concat()
    }
}

/// What one request of a closed loop is.
#[derive(Debug, Serialize)]
pub(super) struct Shape {
    pub(super) operation: &'static str,
    /// Bytes of a value or record.
    pub(super) size: u32,
    /// How many different keys, where keys are concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) keys: Option<u32>,
    /// How many records are appended together, where records are concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) batch: Option<u32>,
}

/// The result of a closed loop, as programs read it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    shape: Shape,
    clients: u32,
    connections: u32,
    seconds: u64,
    operations: u64,
    operations_per_second: f64,
    /// Of appends.
    #[serde(skip_serializing_if = "Option::is_none")]
    records_per_second: Option<f64>,
    errors: BTreeMap<&'static str, u64>,
    latency_ms: Latency,
    /// The longest time without a success.
    longest_gap_ms: f64,
}

impl Report {
    pub(super) fn new(
        shape: Shape,
        clients: u32,
        connections: u32,
        seconds: u64,
        figures: &Figures,
    ) -> Report {
        let measured = Duration::from_secs(seconds);
        let gap = figures
            .longest_gap
            .max(measured.saturating_sub(figures.last_success));
        let operations_per_second = figures.operations() as f64 / seconds as f64;
        Report {
            records_per_second: shape.batch.map(|batch| f64::from(batch) * operations_per_second),
            shape,
            clients,
            connections,
            seconds,
            operations: figures.operations(),
            operations_per_second,
            errors: figures.errors.clone(),
            latency_ms: figures.latency(),
            longest_gap_ms: gap.as_secs_f64() * 1e3,
        }
    }

    pub(super) fn to_text(&self, figures: &Figures) -> String {
        let shape = &self.shape;
        let mut what = match shape.batch {
            Some(batch) => format!("{batch} x {} B records", shape.size),
            None => format!("{} B values", shape.size),
        };
        if let Some(keys) = shape.keys {
            what.push_str(&format!(", {keys} keys"));
        }
        let mut text = format!(
            "{} with {} clients over {} connections, {what}, {} s\n\n  operations        {}\n  a second          {:.0}\n",
            shape.operation,
            self.clients,
            self.connections,
            self.seconds,
            self.operations,
            self.operations_per_second,
        );
        if let Some(records) = self.records_per_second {
            text.push_str(&format!("  records a second  {records:.0}\n"));
        }
        text.push_str(&format!(
            "  errors            {}\n  longest gap       {:.1} ms\n\n",
            self.errors.values().sum::<u64>(),
            self.longest_gap_ms
        ));
        for (kind, count) in &self.errors {
            text.push_str(&format!("  error {kind}: {count}\n"));
        }
        text.push_str("  latency in ms\n");
        text.push_str(&self.latency_ms.to_text());
        text.push('\n');
        text.push_str(&bars(&figures.latency_us));
        text
    }
}

/// The histogram as bars, each for latencies up to twice those of the one before.
fn bars(histogram: &Histogram<u64>) -> String {
    const WIDTH: u64 = 40;
    const FIRST_US: u64 = 64;
    let buckets: Vec<(u64, u64)> = histogram
        .iter_log(FIRST_US, 2.0)
        .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
        .collect();
    let Some(first) = buckets.iter().position(|(_, count)| *count > 0) else {
        return String::new();
    };
    let most = buckets.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    let mut text = String::new();
    for (to, count) in &buckets[first..] {
        let length = (count * WIDTH).div_ceil(most);
        let bar = "#".repeat(usize::try_from(length).unwrap_or(0));
        text.push_str(&format!(
            "    up to {:>10.3} ms {count:>10}  {bar}\n",
            (*to + 1) as f64 / 1e3
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_gaps_come_from_what_was_recorded() {
        let mut figures = Figures::new();
        for number in 1..=100u64 {
            figures.succeeded(Duration::from_millis(number), Duration::from_millis(10 * number));
        }
        figures.succeeded(Duration::from_millis(50), Duration::from_millis(1500));
        assert_eq!(figures.operations(), 101);
        assert_eq!(figures.longest_gap, Duration::from_millis(500));
        let p50 = figures.latency_us.value_at_quantile(0.5);
        assert!((49_900..=50_100).contains(&p50), "{p50}");
        assert!(bars(&figures.latency_us).lines().count() > 3);
    }

    #[test]
    fn an_append_counts_its_records() {
        let mut figures = Figures::new();
        for _ in 0..30 {
            figures.succeeded(Duration::from_millis(2), Duration::from_millis(9));
        }
        let shape = Shape {
            operation: "append",
            size: 256,
            keys: None,
            batch: Some(100),
        };
        let report = Report::new(shape, 4, 2, 10, &figures);
        assert_eq!(report.records_per_second, Some(300.0));
        let text = report.to_text(&figures);
        assert!(
            text.starts_with("append with 4 clients over 2 connections, 100 x 256 B records, 10 s\n"),
            "{text}"
        );
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!((json["batch"].as_u64(), json.get("keys")), (Some(100), None));
    }
}
