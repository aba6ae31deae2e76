//! A violation in a folder of its own: everything that shows it again.
//!
//! | file | what it holds |
//! |---|---|
//! | `failure.json` | seed, nodes, what was run, commit of the sources, planted mistake, and the violation with its step and trace hash |
//! | `plan.json` | the plan of the run |
//! | `trace.jsonl` | everything that happened until the violation (see [`trace`](crate::trace)); empty for production nodes, which log themselves |

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::consensus::{Conditions, Engine, Mistake, Plan, PlanError, Violation, run_with_journal};
use crate::trace::Journal;

/// A violation and the run that it showed in.
#[derive(Debug)]
pub struct Failure {
    /// The run.
    pub plan: Plan,
    /// What it was made under.
    pub conditions: Conditions,
    /// What was found.
    pub recorded: Recorded,
    commit: String,
}

/// A violation as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// The property.
    pub checker: String,
    /// What was seen, in words.
    pub seen: String,
    /// Nanoseconds of simulated time since the run began.
    pub time_ns: u64,
    /// Steps of consensus since the run began.
    pub steps: u64,
    /// The hash over everything that happened until then, in hexadecimal digits.
    pub trace: String,
}

/// `failure.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    format: u32,
    seed: u64,
    nodes: u64,
    engine: Engine,
    commit: String,
    mistake: Option<String>,
    violation: Recorded,
}

const FORMAT: u32 = 1;
const HEAD: &str = "failure.json";
const PLAN: &str = "plan.json";
/// The file that the trace is in.
pub const TRACE: &str = "trace.jsonl";

/// How a second run of a failure ends.
#[derive(Debug)]
pub enum Replay {
    /// With the same violation, at the same step, and everything before was the same.
    Same,
    /// With another violation, or after another way.
    Other(Recorded),
    /// Without a violation.
    EndsWell,
}

/// Why a folder holds no failure that can be run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The folder is not there, or is a file.
    #[error(
        "there is no folder {0}; a run that finds a violation writes one and prints its name, as in simulation-failures/core-5-nodes-seed-17"
    )]
    NoFolder(PathBuf),
    /// The folder has no failure in it.
    #[error("{0} holds no failure: it has no {HEAD}; name the folder that a run printed")]
    NoFailure(PathBuf),
    /// A file cannot be read.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// The head does not read as one.
    #[error("{0} is damaged or of another program: {1}; the run that found the failure writes it anew")]
    Syntax(PathBuf, serde_json::Error),
    /// The plan cannot be run.
    #[error("{0}: {1}")]
    Plan(PathBuf, PlanError),
    /// It is of another version.
    #[error(
        "the failure has format {0}, and this simulator reads format {FORMAT}: run it with the sources that wrote it"
    )]
    Format(u32),
    /// This build cannot make the mistake.
    #[error("{0}")]
    Mistake(String),
}

impl From<&Violation> for Recorded {
    fn from(violation: &Violation) -> Recorded {
        Recorded {
            checker: violation.checker.to_owned(),
            seen: violation.seen.clone(),
            time_ns: violation.time,
            steps: violation.steps,
            trace: format!("{:016x}", violation.trace),
        }
    }
}

impl fmt::Display for Recorded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanoseconds) = (self.time_ns / 1_000_000_000, self.time_ns % 1_000_000_000);
        write!(
            formatter,
            "{} at {seconds}.{nanoseconds:09} s, step {}, trace {}: {}",
            self.checker, self.steps, self.trace, self.seen
        )
    }
}

impl Failure {
    /// A violation that was just found.
    pub fn new(plan: Plan, conditions: Conditions, violation: &Violation) -> Failure {
        Failure {
            plan,
            conditions,
            recorded: Recorded::from(violation),
            commit: commit(),
        }
    }

    /// The commit of the sources that it was found with.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// Writes the folder. The run is made once more for its trace; false when it went another way.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path) -> io::Result<bool> {
        fs::create_dir_all(folder)?;
        let head = Head {
            format: FORMAT,
            seed: self.plan.seed(),
            nodes: self.plan.nodes(),
            engine: self.conditions.engine,
            commit: self.commit.clone(),
            mistake: self.conditions.mistake.map(|mistake| mistake.to_string()),
            violation: self.recorded.clone(),
        };
        fs::write(folder.join(HEAD), serde_json::to_string_pretty(&head)? + "\n")?;
        fs::write(folder.join(PLAN), self.plan.text())?;
        let trace = File::create(folder.join(TRACE))?;
        let (replay, journal) = self.replay(Journal::trace(trace));
        journal.finish()?;
        Ok(matches!(replay, Replay::Same))
    }

    /// Reads what [`Failure::save`] wrote.
    ///
    /// # Errors
    /// When a file is missing or senseless, or this build cannot make the planted mistake.
    pub fn load(folder: &Path) -> Result<Failure, LoadError> {
        if !folder.is_dir() {
            return Err(LoadError::NoFolder(folder.to_owned()));
        }
        if !folder.join(HEAD).exists() {
            return Err(LoadError::NoFailure(folder.to_owned()));
        }
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(|error| LoadError::File(path, error))
        };
        let head: Head = serde_json::from_str(&read(HEAD)?)
            .map_err(|error| LoadError::Syntax(folder.join(HEAD), error))?;
        if head.format != FORMAT {
            return Err(LoadError::Format(head.format));
        }
        let plan = Plan::parse(&read(PLAN)?).map_err(|error| LoadError::Plan(folder.join(PLAN), error))?;
        let mistake = head
            .mistake
            .map(|name| name.parse::<Mistake>().map_err(LoadError::Mistake))
            .transpose()?;
        Ok(Failure {
            plan,
            conditions: Conditions {
                engine: head.engine,
                mistake,
                ..Conditions::default()
            },
            recorded: head.violation,
            commit: head.commit,
        })
    }

    /// Makes the run once more.
    pub fn replay(&self, journal: Journal) -> (Replay, Journal) {
        let (result, journal) = run_with_journal(&self.plan, &self.conditions, journal);
        let replay = match result {
            Ok(_) => Replay::EndsWell,
            Err(violation) => {
                let found = Recorded::from(&violation);
                if found == self.recorded {
                    Replay::Same
                } else {
                    Replay::Other(found)
                }
            }
        };
        (replay, journal)
    }

    /// What to know when the sources are not those of the failure.
    pub fn other_commit(&self) -> Option<String> {
        let now = commit();
        (now != self.commit).then(|| {
            format!(
                "recorded at commit {}, these are the sources of {now}",
                self.commit
            )
        })
    }
}

/// The commit of the sources that this simulator was built from, as far as it can be told.
pub(crate) fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(env!("CARGO_MANIFEST_DIR"))
            .args(arguments)
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "HEAD"]) else {
        return "unknown".to_owned();
    };
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    if changed { commit + " with changes" } else { commit }
}
