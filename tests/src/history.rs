//! What clients did and saw, with times.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What was asked of one key. Every write of a history writes another value, and 0 stands for no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write a value whatever was there.
    Put(u64),
    /// Read.
    Get,
    /// Write a value if another is still there, whose revision the client read before.
    CompareAndSet {
        /// What has to be there.
        expected: u64,
        /// What is to be there.
        value: u64,
    },
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done: a put or compare-and-set with success.
    Done,
    /// A read that found this value.
    Found(u64),
    /// A compare-and-set that found something else.
    Conflict,
    /// Certainly nothing happened.
    Failed,
    /// It may have happened, may yet happen, or never.
    Unknown,
}

/// One operation of one client on one key.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// What was asked.
    pub action: Action,
    /// How it ended.
    pub outcome: Outcome,
    /// When it began, since the history began.
    pub invoked: Duration,
    /// When its answer was there.
    pub returned: Duration,
}

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
