//! What clients did and saw, with times.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use quorate_sim::linearizable::{Action, Operation, Outcome};
use quorate_sim::linearizable::{Verdict, check};

/// How long the search for an order may take for one key.
const BUDGET: Duration = Duration::from_secs(20);

/// The operations of all clients, by key.
#[derive(Debug)]
pub struct History {
    began: Instant,
    operations: Mutex<BTreeMap<String, Vec<Operation>>>,
}

impl Default for History {
    fn default() -> History {
        History::new()
    }
}

impl History {
    /// A history that begins now.
    pub fn new() -> History {
        History {
            began: Instant::now(),
            operations: Mutex::default(),
        }
    }

    /// The time since the history began.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Adds an operation.
    pub fn record(&self, key: &str, operation: Operation) {
        let mut operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
        operations.entry(key.to_owned()).or_default().push(operation);
    }

    /// All operations so far, by key.
    pub fn operations(&self) -> BTreeMap<String, Vec<Operation>> {
        self.operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Judges every key of a history.
///
/// # Panics
/// When a key's history is not linearizable, or that could not be decided in time.
pub(crate) fn assert_linearizable(history: &History) {
    let all: BTreeMap<String, Vec<Operation>> = history.operations();
    assert!(!all.is_empty(), "a history without operations says nothing");
    let mut bad = Vec::new();
    for (key, operations) in &all {
        let verdict = check(operations, BUDGET);
        if verdict != Verdict::Linearizable {
            bad.push(format!("{key}: {verdict:?} in {} operations", operations.len()));
        }
    }
    assert!(bad.is_empty(), "not linearizable: {}", bad.join("; "));
}
