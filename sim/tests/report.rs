//! The pages for a browser, looked at by one: Chromium without a window.
//!
//! Without Chromium on a machine these tests are skipped, and say so; with `CI` set they fail.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use std::time::Duration;

use quorate_sim::batch::{Batch, Seeds};
use quorate_sim::consensus::{Conditions, Engine, Mistake, Plan, PlantedBug, run, run_with_journal};
use quorate_sim::failure::Failure;
use quorate_sim::report::summary::{self, Setting};
use quorate_sim::report::timeline::{self, Timeline};
use quorate_sim::trace::{self, Event, Journal};

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

/// The folder with the trace of a run of production nodes.
fn trace_of_production_nodes(name: &str, plan: &Plan) -> PathBuf {
    let folder = folder(name);
    let file = std::fs::File::create(folder.join("trace.jsonl")).expect("a file can be made");
    let conditions = Conditions {
        engine: Engine::Nodes,
        ..Conditions::default()
    };
    let (result, journal) = run_with_journal(plan, &conditions, Journal::trace(file));
    result.unwrap_or_else(|violation| panic!("{violation}"));
    journal.finish().expect("the trace is written");
    folder
}

/// The events of a trace, and how many messages were sent, arrived and were lost.
fn checked_trace(folder: &Path) -> (Vec<Event>, [usize; 3]) {
    let text = std::fs::read(folder.join("trace.jsonl")).expect("the trace is there");
    let (header, records) = trace::read(&text[..]).expect("it is a trace");
    assert_eq!(header.simulation, "full");
    assert!(records.is_sorted_by_key(|record| record.at));
    let (mut under_way, mut open) = (BTreeSet::new(), BTreeSet::new());
    let mut counts = [0; 3];
    for record in &records {
        match &record.event {
            Event::Sent { message, .. } => {
                counts[0] += 1;
                assert!(under_way.insert(*message));
            }
            Event::Arrived { message } => {
                counts[1] += 1;
                assert!(under_way.remove(message), "{message} was sent, and arrives once");
            }
            Event::Lost { message, .. } => {
                counts[2] += 1;
                assert!(under_way.remove(message), "{message} was sent, and is lost once");
            }
            Event::Asked { request, .. } => assert!(open.insert(*request)),
            Event::Answered { request, .. } => assert!(open.remove(request), "{request} was asked"),
            _ => {}
        }
    }
    (records.into_iter().map(|record| record.event).collect(), counts)
}

#[test]
fn a_trace_of_production_nodes_is_in_order_and_tells_what_became_of_messages_and_requests() {
    let calm = trace_of_production_nodes("trace-of-calm-nodes", &Plan::draw(3, 3, 4).calm());
    let [sent, arrived, lost] = checked_trace(&calm).1;
    assert!(sent > 500 && lost == 0, "{sent} were sent, {lost} lost");
    assert!(
        arrived + 10 > sent,
        "{arrived} of {sent} arrived, and few are under way"
    );

    let (events, [_, _, lost]) = checked_trace(&trace_of_production_nodes(
        "trace-of-nodes",
        &Plan::draw(4, 3, 16),
    ));
    assert!(lost > 0, "connections broke");
    let count = |is: fn(&Event) -> bool| events.iter().filter(|event| is(event)).count();
    assert!(count(|event| matches!(event, Event::Answered { .. })) > 100);
    assert!(count(|event| matches!(event, Event::Role { .. })) > 6);
    assert!(count(|event| matches!(event, Event::Fault { .. })) > 0);
    assert!(count(|event| matches!(event, Event::Stopped { .. })) > 0);
    assert!(count(|event| matches!(event, Event::Membership { .. })) > 0);
    assert!(count(|event| matches!(event, Event::Log { commit: 100.., .. })) > 0);
    assert_eq!(count(|event| matches!(event, Event::Healed { .. })), 1);
}

#[test]
fn the_page_of_production_nodes_draws_what_they_do() {
    let Some(browser) = browser() else { return };
    let folder = trace_of_production_nodes("page-of-nodes", &Plan::draw(4, 3, 8));
    let page = folder.join("report.html");
    let timeline = timeline::write(&folder, &page).expect("a trace is enough for a page");
    let seen = look(browser, &page, 1600, 1000);
    assert_eq!(seen.complaints, Vec::<String>::new());
    assert!(!seen.document.contains("data-errors"), "a script failed");
    let [spans, messages, requests] = timeline.counts();
    assert!(spans > 3 && messages > 500 && requests > 100);
    assert_eq!(seen.count("lanes"), 3);
    assert_eq!(seen.count("messages"), messages);
    assert_eq!(seen.count("requests"), requests);
    assert_eq!(seen.count("faults"), timeline.faults.len());
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
        engine: Engine::Core,
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
