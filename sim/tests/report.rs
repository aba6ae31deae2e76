//! The pages for a browser, looked at by one: Chromium without a window.
//!
//! Without Chromium on a machine these tests are skipped, and say so; with `CI` set they fail.

use std::path::{Path, PathBuf};
use std::process::Command;

use std::time::Duration;

use quorate_sim::batch::{Batch, Seeds};
use quorate_sim::consensus::{Conditions, Mistake, Plan, PlantedBug, run};
use quorate_sim::failure::Failure;
use quorate_sim::report::summary::{self, Setting};
use quorate_sim::report::timeline::{self, Timeline};

/// Names that Chromium and its kin have.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// What a page became in a browser: the document after its scripts ran, and what they complained of.
struct Seen {
    document: String,
    complaints: Vec<String>,
}

impl Seen {
    /// The number in an attribute of the document's root.
    fn count(&self, name: &str) -> usize {
        let attribute = format!("data-{name}=\"");
        let (_, rest) = self
            .document
            .split_once(&attribute)
            .unwrap_or_else(|| panic!("the page has no count of {name}: {:?}", self.complaints));
        let digits = rest.split('"').next().unwrap_or_default();
        digits.parse().expect("a count is a number")
    }
}

/// A folder that a test has for itself, empty.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).expect("the folder of an earlier run can be removed");
    }
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    folder
}

/// The browser of this machine; none when the test is to be skipped.
fn browser() -> Option<&'static str> {
    let found = BROWSERS
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok());
    if found.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI needs the Debian package chromium"
        );
        eprintln!("skipped: no Chromium on this machine");
    }
    found
}

/// Opens a page.
fn look(browser: &str, page: &Path, width: u32, height: u32) -> Seen {
    let profile = page.with_extension(format!("profile-{width}"));
    let output = Command::new("timeout")
        .args(["120", browser, "--headless", "--disable-gpu", "--no-sandbox"])
        .args([
            "--enable-logging=stderr",
            "--virtual-time-budget=2000",
            "--dump-dom",
        ])
        .arg(format!("--window-size={width},{height}"))
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("the browser starts");
    let log = String::from_utf8_lossy(&output.stderr);
    Seen {
        document: String::from_utf8_lossy(&output.stdout).into_owned(),
        complaints: log
            .lines()
            .filter(|line| line.contains("CONSOLE"))
            .map(str::to_owned)
            .collect(),
    }
}

/// The folder of a failure with faults before it, and its page.
fn page_of_failure(name: &str) -> (PathBuf, Timeline) {
    let conditions = Conditions {
        mistake: Some(Mistake::Driver(PlantedBug::LyingDisk)),
        ..Conditions::default()
    };
    for seed in 1..=2_000 {
        let plan = Plan::draw(seed, 3, 10);
        let Err(violation) = run(&plan, &conditions) else {
            continue;
        };
        let folder = folder(name);
        Failure::new(plan, conditions, &violation)
            .save(&folder)
            .expect("the folder can be written");
        let page = folder.join("report.html");
        let timeline = timeline::write(&folder, &page).expect("the page can be written");
        if timeline.faults.len() > 1 {
            return (page, timeline);
        }
    }
    panic!("a checker sees the planted mistake, after several faults");
}

#[test]
fn the_page_of_a_failure_draws_every_lane_span_and_message_and_marks_the_violation() {
    let Some(browser) = browser() else { return };
    let (page, timeline) = page_of_failure("page-of-failure");
    let violation = timeline
        .violation
        .as_ref()
        .expect("the trace ends with the violation");
    assert!(timeline.faults.len() > 1, "faults came before it");
    for (width, height) in [(1600, 1000), (700, 900)] {
        let seen = look(browser, &page, width, height);
        assert_eq!(seen.complaints, Vec::<String>::new());
        let [spans, messages, requests] = timeline.counts();
        assert_eq!(seen.count("lanes"), timeline.nodes.len());
        assert_eq!(seen.count("spans"), spans);
        assert_eq!(seen.count("messages"), messages);
        assert_eq!(seen.count("requests"), requests);
        assert_eq!(seen.count("faults"), timeline.faults.len());
        assert!(!seen.document.contains("data-errors"), "a script failed");
        let item = seen.document.contains(r#"<li class="at violation""#);
        assert!(item, "the list stands at the violation");
        assert!(seen.document.contains(violation.checker()), "{violation:?}");
    }
}

#[test]
fn what_nodes_say_is_text_to_the_browser() {
    let Some(browser) = browser() else { return };
    let folder = folder("page-of-markup");
    let hostile = "</script><script>document.documentElement.dataset.errors=1</script><img src=x>";
    let lines = [
        r#"{"format":"quorate-trace","version":1,"simulation":"core","seed":1,"nodes":1}"#.to_owned(),
        r#"{"at":1000,"event":"started","node":1,"life":1}"#.to_owned(),
        r#"{"at":1000,"event":"role","node":1,"role":"leader","term":1,"leader":1}"#.to_owned(),
        format!(r#"{{"at":2000,"event":"note","about":"{hostile}"}}"#),
        format!(r#"{{"at":3000,"event":"violation","checker":"{hostile}","seen":"{hostile}"}}"#),
    ];
    std::fs::write(folder.join("trace.jsonl"), lines.join("\n")).expect("the trace can be written");
    let page = folder.join("report.html");
    timeline::write(&folder, &page).expect("a trace is enough for a page");
    let seen = look(browser, &page, 1200, 800);
    assert_eq!(seen.complaints, Vec::<String>::new());
    assert_eq!(seen.count("spans"), 1);
    assert!(
        !seen.document.contains("data-errors"),
        "a script of the trace ran"
    );
    assert!(
        !seen.document.contains("<img"),
        "an element of the trace is there"
    );
}

#[test]
fn the_page_of_many_runs_shows_their_distributions_faults_and_slowest_seeds() {
    let Some(browser) = browser() else { return };
    let seeds: Seeds = "1..20".parse().expect("a range of seeds");
    let list: Vec<u64> = seeds.iter().collect();
    let batch = Batch::run(
        &list,
        2,
        || false,
        |seed| {
            let plan = Plan::draw(seed, 3, 5);
            let result = run(&plan, &Conditions::default());
            Ok((plan, result))
        },
    )
    .expect("nothing is written");
    let sum = |counts: &mut dyn Iterator<Item = (u64, u64)>| counts.map(|(_, count)| count).sum::<u64>();
    assert_eq!(sum(&mut batch.recoveries.counts()), 20, "each run recovers once");
    assert!(
        sum(&mut batch.measurements.failovers.counts()) > 0,
        "leaders died"
    );
    let setting = Setting {
        nodes: 3,
        seeds: seeds.to_string(),
        seconds: 5,
        jobs: 2,
    };
    let page = folder("page-of-runs").join("summary.html");
    summary::write(&batch, &setting, Duration::from_secs(1), &page).expect("the page can be written");
    let seen = look(browser, &page, 1300, 900);
    assert_eq!(seen.complaints, Vec::<String>::new());
    assert!(!seen.document.contains("data-errors"), "a script failed");
    assert_eq!(seen.count("runs"), 20);
    assert_eq!(seen.count("cards"), 7);
    for (kind, count) in &batch.measurements.faults {
        let row = format!("<td class=\"\">{kind}</td><td class=\"number\">{count}</td>");
        assert!(seen.document.contains(&row), "{row}");
    }
    let (slowest, _) = batch.slowest_to_recover.iter().next().expect("runs recovered");
    let row = format!("<td class=\"\">{slowest}</td>");
    assert!(seen.document.contains(&row), "{row}");
}
