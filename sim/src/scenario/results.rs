//! Results of scenarios: as a table for people, as JSON for programs and later comparison, as JUnit XML for CI.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::judge::{Figure, Row};
use crate::failure;

/// The version of the JSON format.
const FORMAT: u32 = 1;
/// A median is slower than in the baseline when it is so many percent more, and ...
const SLOWER_PERCENT: u64 = 20;
/// ... so many milliseconds more.
const SLOWER_MS: u64 = 20;

/// What came of a scenario.
#[derive(Clone, Debug)]
pub struct ScenarioResult {
    /// Its name.
    pub name: String,
    /// The file that it is in.
    pub file: PathBuf,
    /// Its story.
    pub story: String,
    /// The seeds that were run, as they are given on the command line.
    pub seeds: String,
    /// Processor time of all its runs, in milliseconds.
    pub took_ms: u64,
    /// What was measured.
    pub rows: Vec<Row>,
    /// Where it was slower than in the baseline, in words.
    pub regressions: Vec<String>,
}

impl ScenarioResult {
    /// Whether everything is as expected, and nothing slower than it was.
    pub fn is_met(&self) -> bool {
        self.regressions.is_empty() && self.rows.iter().all(Row::is_met)
    }

    /// What is not as expected, one a line.
    pub fn misses(&self) -> Vec<String> {
        let missed = self.rows.iter().filter(|row| !row.is_met()).map(|row| {
            let allowed = row.allowed.map(|allowed| allowed.to_string()).unwrap_or_default();
            let statistic = if row.statistic.is_empty() { "" } else { " " };
            let seen = row
                .seen
                .as_ref()
                .map(|seen| format!("; {seen}"))
                .unwrap_or_default();
            format!(
                "{}{statistic}{}: {}, allowed {allowed}{seen}",
                row.measure, row.statistic, row.measured
            )
        });
        missed.chain(self.regressions.iter().cloned()).collect()
    }
}

/// The results as a table: one line a figure, what was measured beside what is allowed.
pub fn table(results: &[ScenarioResult]) -> String {
    let mut lines = vec![["SCENARIO", "MEASURE", "", "MEASURED", "ALLOWED", ""].map(str::to_owned)];
    for result in results {
        for (place, row) in result.rows.iter().enumerate() {
            let name = if place == 0 { result.name.as_str() } else { "" };
            lines.push([
                name.to_owned(),
                row.measure.clone(),
                row.statistic.to_owned(),
                row.measured.to_string(),
                row.allowed.map_or("-".to_owned(), |allowed| allowed.to_string()),
                if row.is_met() { "ok" } else { "MISSED" }.to_owned(),
            ]);
        }
    }
    let widths: Vec<usize> = (0..6)
        .map(|column| {
            lines
                .iter()
                .map(|line| line[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in &lines {
        let [name, measure, statistic, measured, allowed, verdict] = line;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{name:<w0$}  {measure:<w1$}  {statistic:<w2$}  {measured:>w3$}  {allowed:>w4$}  {verdict}",
            w0 = widths[0],
            w1 = widths[1],
            w2 = widths[2],
            w3 = widths[3],
            w4 = widths[4],
        );
    }
    text
}

/// The results as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub struct Document {
    format: u32,
    commit: String,
    passed: bool,
    scenarios: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    name: String,
    story: String,
    seeds: String,
    passed: bool,
    rows: Vec<EntryRow>,
    #[serde(default)]
    regressions: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct EntryRow {
    measure: String,
    /// `p50`, `p90`, `p99`, `max`, or empty for a count.
    statistic: String,
    /// `ms` or `count`.
    unit: String,
    /// Null when it never came about.
    measured: Option<u64>,
    /// Null when it is shown only.
    allowed: Option<u64>,
    passed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<String>,
}

impl Document {
    /// The results as a document.
    pub fn new(results: &[ScenarioResult]) -> Document {
        Document {
            format: FORMAT,
            commit: failure::commit(),
            passed: results.iter().all(ScenarioResult::is_met),
            scenarios: results.iter().map(Entry::of).collect(),
        }
    }

    /// Reads what [`Document::text`] wrote.
    ///
    /// # Errors
    /// When it is of another kind or version.
    pub fn parse(text: &str) -> Result<Document, String> {
        let document: Document = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if document.format == FORMAT {
            Ok(document)
        } else {
            Err(format!(
                "the results have format {}; this simulator reads format {FORMAT}",
                document.format
            ))
        }
    }

    /// The document in JSON.
    pub fn text(&self) -> String {
        serde_json::to_string_pretty(self).expect("results have names and plain values") + "\n"
    }

    /// The medians that are other ones than in this document, which was written before, as a table: before and now.
    pub fn changes(&self, results: &[ScenarioResult]) -> String {
        let shown = |figure: Option<u64>| figure.map_or("never".to_owned(), |figure| format!("{figure} ms"));
        let mut text = String::new();
        for result in results {
            for row in result.rows.iter().filter(|row| row.statistic == "p50") {
                let Some(before) = self.median(&result.name, &row.measure) else {
                    continue;
                };
                let now = row.measured.value();
                if now != before.measured {
                    let (name, measure) = (&result.name, &row.measure);
                    let (before, now) = (shown(before.measured), shown(now));
                    // Writing to a string cannot fail.
                    let _ = writeln!(text, "{name}  {measure}  p50  was {before}, is {now}");
                }
            }
        }
        text
    }

    /// A median as it was before.
    fn median(&self, scenario: &str, measure: &str) -> Option<&EntryRow> {
        let before = self.scenarios.iter().find(|entry| entry.name == scenario)?;
        let mut rows = before.rows.iter();
        rows.find(|known| known.statistic == "p50" && known.measure == measure)
    }

    /// Notes where a result is slower than in this document, which was written before: where a median is more than
    /// 20 % and more than 20 ms longer, or never comes about any more.
    pub fn compare(&self, result: &mut ScenarioResult) {
        for row in result.rows.iter().filter(|row| row.statistic == "p50") {
            let known = self.median(&result.name, &row.measure);
            let Some(before) = known.and_then(|known| known.measured) else {
                continue;
            };
            let slower = match row.measured.value() {
                None => true,
                Some(now) => now > before + SLOWER_MS && now * 100 > before * (100 + SLOWER_PERCENT),
            };
            if slower {
                result.regressions.push(format!(
                    "{} p50: {}, it was {before} ms in the baseline",
                    row.measure, row.measured
                ));
            }
        }
    }
}

impl Entry {
    fn of(result: &ScenarioResult) -> Entry {
        Entry {
            name: result.name.clone(),
            story: result.story.clone(),
            seeds: result.seeds.clone(),
            passed: result.is_met(),
            rows: result.rows.iter().map(EntryRow::of).collect(),
            regressions: result.regressions.clone(),
        }
    }
}

impl EntryRow {
    fn of(row: &Row) -> EntryRow {
        EntryRow {
            measure: row.measure.clone(),
            statistic: row.statistic.to_owned(),
            unit: match row.measured {
                Figure::Time(_) => "ms",
                Figure::Count(_) => "count",
            }
            .to_owned(),
            measured: row.measured.value(),
            allowed: row.allowed.and_then(Figure::value),
            passed: row.is_met(),
            seen: row.seen.clone().filter(|_| !row.is_met()),
        }
    }
}

/// The results as JUnit XML: one test case a scenario.
pub fn junit(results: &[ScenarioResult]) -> String {
    let failures = results.iter().filter(|result| !result.is_met()).count();
    let total: u64 = results.iter().map(|result| result.took_ms).sum();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"scenarios\" tests=\"{}\" failures=\"{failures}\" \
         errors=\"0\" time=\"{}\">\n",
        results.len(),
        seconds(total)
    );
    for result in results {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  <testcase classname=\"quorate.scenario\" name=\"{}\" time=\"{}\">",
            escaped(&result.name),
            seconds(result.took_ms)
        );
        let misses = result.misses();
        if let Some(first) = misses.first() {
            let _ = writeln!(
                text,
                "    <failure message=\"{}\">{}</failure>",
                escaped(first),
                escaped(&misses.join("\n"))
            );
        }
        let table = table(std::slice::from_ref(result));
        let _ = writeln!(
            text,
            "    <system-out>{}</system-out>\n  </testcase>",
            escaped(&format!("{}\n{table}", result.story))
        );
    }
    text + "</testsuite>\n"
}

fn seconds(milliseconds: u64) -> String {
    format!("{}.{:03}", milliseconds / 1_000, milliseconds % 1_000)
}

/// Text as XML takes it in attributes and between tags.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push('\n'),
            // XML 1.0 has no other control characters.
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(median: Option<u64>) -> ScenarioResult {
        ScenarioResult {
            name: "leader-crash".to_owned(),
            file: "leader-crash.toml".into(),
            story: "A <leader> crashes & another leads".to_owned(),
            seeds: "1..3".to_owned(),
            took_ms: 1_500,
            rows: vec![Row {
                measure: "2s kill leader: leader".to_owned(),
                statistic: "p50",
                measured: Figure::Time(median),
                allowed: Some(Figure::Time(Some(250))),
                seen: Some("seed 2".to_owned()),
            }],
            regressions: Vec::new(),
        }
    }

    #[test]
    fn a_median_is_a_regression_when_it_is_a_fifth_and_20_ms_slower() {
        let regresses = |before: u64, now: Option<u64>| {
            let text = Document::new(&[result(Some(before))]).text();
            let baseline = Document::parse(&text).expect("it was just written");
            let mut result = result(now);
            baseline.compare(&mut result);
            !result.regressions.is_empty()
        };
        assert!(!regresses(100, Some(120)), "a fifth is not more than a fifth");
        assert!(regresses(100, Some(121)));
        assert!(!regresses(50, Some(70)), "20 ms are not more than 20 ms");
        assert!(!regresses(200, Some(230)), "less than a fifth");
        assert!(!regresses(200, Some(100)), "faster");
        assert!(regresses(200, None), "it never comes about");
    }

    #[test]
    fn medians_that_are_other_ones_are_told_with_what_they_were() {
        let before = Document::new(&[result(Some(150)), result(None)]);
        assert_eq!(before.changes(&[result(Some(150))]), "");
        let changes = before.changes(&[result(Some(140)), result(None)]);
        let line = "leader-crash  2s kill leader: leader  p50  was 150 ms, is";
        assert_eq!(changes, format!("{line} 140 ms\n{line} never\n"));
    }

    #[test]
    fn junit_names_what_was_missed_and_escapes_what_xml_would_misread() {
        let passes = junit(&[result(Some(200))]);
        assert!(
            passes.contains("failures=\"0\"") && passes.contains("A &lt;leader&gt; crashes &amp; another")
        );
        let fails = junit(&[result(Some(300))]);
        assert!(fails.contains("failures=\"1\"") && fails.contains("300 ms, allowed 250 ms; seed 2"));
    }

    #[test]
    fn results_of_another_version_are_refused() {
        let text = Document::new(&[])
            .text()
            .replace("\"format\": 1", "\"format\": 2");
        let refusal = Document::parse(&text).expect_err("it is refused");
        assert!(refusal.contains("format 2"));
    }
}
