//! One run as a page: what its trace holds, laid out for drawing.
//!
//! Times are microseconds. Rows of one kind lie in one flat list of numbers, so that a page of 100,000 events stays small
//! and is read at once; a text is a place in [`Timeline::strings`].

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::layout::{Layout, PARTS};
use super::page::Page;
use crate::failure::{Failure, TRACE};
use crate::trace::{self, FaultClass, Header, Node, Record, TraceError};

/// What the page draws.
#[derive(Debug, Default, Serialize)]
pub struct Timeline {
    /// `core` or `full`.
    pub simulation: String,
    /// The seed of the run.
    pub seed: u64,
    /// When the last thing happened.
    pub end: u64,
    /// Texts, each once.
    pub strings: Vec<String>,
    /// Every node that anything is known of, in ascending order.
    pub nodes: Vec<Node>,
    /// Node, from, to, part, term, leader or 0; a part is a place in [`Timeline::parts`].
    pub spans: Vec<u64>,
    /// The names of the parts that nodes play.
    pub parts: Vec<String>,
    /// Sent, arrived or lost or the end, from, to, kind, what came of it, term, about.
    pub messages: Vec<u64>,
    /// Node, asked, answered or the end, operation, answer (3 for none yet), about, about the answer.
    pub requests: Vec<u64>,
    /// Node, at, commit, applied, durable, last.
    pub positions: Vec<u64>,
    /// What broke.
    pub faults: Vec<Fault>,
    /// When faults were healed.
    pub healed: Vec<u64>,
    /// Everything else that has a time: at, node or 0, kind, about.
    pub events: Vec<u64>,
    /// The property that was broken.
    pub violation: Option<Broken>,
    /// The commit of the sources, where it is known.
    pub commit: Option<String>,
    /// What to do about a violation: a name and a command line each.
    pub commands: Vec<(&'static str, String)>,
}

/// A band of the page.
#[derive(Debug, Serialize)]
pub struct Fault {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) class: FaultClass,
    pub(super) name: String,
    pub(super) nodes: Vec<Node>,
    pub(super) links: Vec<(Node, Node)>,
    pub(super) about: String,
}

/// The violation.
#[derive(Debug, Serialize)]
pub struct Broken {
    pub(super) at: u64,
    pub(super) checker: String,
    pub(super) seen: String,
    pub(super) steps: Option<u64>,
}

impl Broken {
    /// The property.
    pub fn checker(&self) -> &str {
        &self.checker
    }
}

impl Timeline {
    /// Lays a trace out.
    pub fn of(header: &Header, records: &[Record]) -> Timeline {
        let mut layout = Layout::default();
        for record in records {
            layout.add(record.at / 1_000, &record.event);
        }
        let mut timeline = layout.finish(header.nodes);
        timeline.simulation = header.simulation.clone().into_owned();
        timeline.seed = header.seed;
        timeline.parts = PARTS.map(str::to_owned).to_vec();
        timeline
    }

    /// How many spans of roles, messages and requests there are.
    pub fn counts(&self) -> [usize; 3] {
        [
            self.spans.len() / 6,
            self.messages.len() / 8,
            self.requests.len() / 7,
        ]
    }
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum TimelineError {
    /// A file cannot be read or written.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// The trace is none.
    #[error("{0}: {1}")]
    Trace(PathBuf, TraceError),
}

/// Writes the page of a failure folder to a file.
///
/// # Errors
/// When the folder has no trace, or the file cannot be written.
pub fn write(folder: &Path, file: &Path) -> Result<Timeline, TimelineError> {
    let trace = folder.join(TRACE);
    let input = File::open(&trace).map_err(|error| TimelineError::File(trace.clone(), error))?;
    let (header, records) =
        trace::read(BufReader::new(input)).map_err(|error| TimelineError::Trace(trace, error))?;
    let mut timeline = Timeline::of(&header, &records);
    // A trace tells enough for a page: what else is in the folder is welcome.
    if let Ok(failure) = Failure::load(folder) {
        timeline.commit = Some(failure.commit().to_owned());
        timeline.commands = ["replay", "shrink"]
            .map(|name| (name, super::command(&failure.conditions, name, folder)))
            .to_vec();
    }
    let page = Page {
        title: &format!("{} simulation, seed {}", timeline.simulation, timeline.seed),
        body: include_str!("timeline.html"),
        scripts: &[
            include_str!("model.js"),
            include_str!("draw.js"),
            include_str!("view.js"),
        ],
        data: &timeline,
    };
    let written = page
        .text()
        .map_err(io::Error::from)
        .and_then(|text| fs::write(file, text));
    written.map_err(|error| TimelineError::File(file.to_owned(), error))?;
    Ok(timeline)
}
