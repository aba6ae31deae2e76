//! Scenarios in files: those of the repository are met, a miss is reported, and a mistake in a file is named.

use std::path::Path;
use std::process::{Command, Output};

use quorate_sim::batch::Seeds;
use quorate_sim::scenario::{self, Scenario, ScenarioResult};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");

fn parse(text: &str) -> Result<Scenario, String> {
    Scenario::parse(Path::new("story.toml"), text).map_err(|error| error.to_string())
}

fn run(scenarios: &[Scenario], seeds: Seeds) -> Vec<ScenarioResult> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    scenario::run(scenarios, Some(seeds), jobs, || false, || ())
}

fn command(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quorate-sim"))
        .arg("scenario")
        .args(arguments)
        .output()
        .expect("the simulator runs")
}

#[test]
fn the_scenarios_of_the_repository_are_met() {
    let scenarios = scenario::load(Path::new(FOLDER)).expect("all of them make sense");
    let results = run(&scenarios, Seeds { first: 1, last: 1 });
    assert_eq!(results.len(), scenarios.len());
    let missed: Vec<String> = results
        .iter()
        .filter(|result| !result.is_met())
        .map(|result| format!("{}: {}", result.name, result.misses().join("; ")))
        .collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// A cluster that loses its leader, which is allowed nothing.
const IMPOSSIBLE: &str = r#"
story = "The leader dies and another one leads before anybody could notice."
length = "3s"

[[step]]
at = "1s"
cut-power = { node = "leader" }
leader-within = "1ms"

[[step]]
at = "2s"
write = { node = "leader" }
answer = "refused"
"#;

#[test]
fn what_is_not_as_expected_is_missed() {
    let scenario = parse(IMPOSSIBLE).expect("it makes sense");
    let results = run(&[scenario], Seeds { first: 1, last: 2 });
    let misses = results[0].misses();
    assert_eq!(misses.len(), 2, "{misses:?}");
    assert!(
        misses[0].starts_with("1s cut-power leader: leader max: "),
        "{misses:?}"
    );
    assert!(misses[1].contains("seed 1: it was done"), "{misses:?}");
}

#[test]
fn the_same_scenario_measures_the_same_twice() {
    let scenario = parse(IMPOSSIBLE).expect("it makes sense");
    let rows = |seeds| run(std::slice::from_ref(&scenario), seeds)[0].rows.clone();
    let seeds = Seeds { first: 3, last: 5 };
    assert_eq!(rows(seeds), rows(seeds));
}

#[test]
fn a_mistake_in_a_file_is_named_with_its_line_and_with_what_is_allowed() {
    let refusal = |from: &str, to: &str| {
        let text = IMPOSSIBLE.replacen(from, to, 1);
        assert_ne!(text, IMPOSSIBLE);
        parse(&text).expect_err("it is refused")
    };
    let unknown = refusal("cut-power", "cut-powr");
    assert!(
        unknown.starts_with("story.toml:7: unknown field `cut-powr`"),
        "{unknown}"
    );
    assert!(unknown.contains("`cut-power`"), "{unknown}");
    let nobody = refusal("node = \"leader\"", "node = \"4\"");
    assert!(
        nobody.starts_with("story.toml:5: `4` is no node; use 1 to 3, leader"),
        "{nobody}"
    );
    let span = refusal("at = \"1s\"", "at = \"1h\"");
    assert!(
        span.starts_with("story.toml:6: `1h` is no span of time"),
        "{span}"
    );
    let late = refusal("at = \"2s\"", "at = \"4s\"");
    assert!(
        late.contains("story.toml:10: the step comes at 4s, and the run ends after 3s"),
        "{late}"
    );
    let answer = refusal("leader-within = \"1ms\"", "answer = \"done\"");
    assert!(answer.contains("only write, read, health"), "{answer}");
    let limit = refusal("\"1ms\"", "{ p95 = \"1ms\" }");
    assert!(limit.contains("p95") && limit.contains("p99"), "{limit}");
    let cluster = refusal("[[step]]", "[cluster]\nnodes = 10\n\n[[step]]");
    assert!(cluster.contains("1 to 9"), "{cluster}");
}

#[test]
fn the_command_writes_its_results_and_fails_on_a_miss_and_on_a_regression() {
    let folder = tempfile::tempdir().expect("a folder of its own");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let story = path("dies.toml");
    let allowed = IMPOSSIBLE.replace("leader-within = \"1ms\"", "leader-within = \"2s\"");
    let allowed = allowed.replace("answer = \"refused\"", "answer = \"done\"");
    std::fs::write(&story, &allowed).expect("it can be written");
    let (json, junit) = (path("results.json"), path("results.xml"));
    let met = command(&[&story, "--seeds", "1..2", "--json", &json, "--junit", &junit]);
    assert!(met.status.success(), "{met:?}");
    assert!(String::from_utf8_lossy(&met.stdout).contains("1 of 1 scenarios are met"));
    let xml = std::fs::read_to_string(&junit).expect("it was written");
    assert!(xml.contains("tests=\"1\" failures=\"0\"") && xml.contains("name=\"dies\""));

    let before = std::fs::read_to_string(&json).expect("it was written");
    let same = command(&[&story, "--seeds", "1..2", "--baseline", &json]);
    assert!(same.status.success(), "{same:?}");
    let mut faster: serde_json::Value = serde_json::from_str(&before).expect("it is JSON");
    for row in faster["scenarios"][0]["rows"]
        .as_array_mut()
        .expect("it has rows")
    {
        if row["statistic"] == "p50" {
            row["measured"] = 1.into();
        }
    }
    let baseline = path("baseline.json");
    std::fs::write(&baseline, faster.to_string()).expect("it can be written");
    let slower = command(&[&story, "--seeds", "1..2", "--baseline", &baseline]);
    assert_eq!(slower.status.code(), Some(1), "{slower:?}");
    assert!(String::from_utf8_lossy(&slower.stderr).contains("it was 1 ms in the baseline"));

    std::fs::write(&story, IMPOSSIBLE).expect("it can be written");
    let missed = command(&[&story, "--seeds", "1"]);
    assert_eq!(missed.status.code(), Some(1), "{missed:?}");
    assert!(String::from_utf8_lossy(&missed.stderr).contains("MISSED: dies"));
}
