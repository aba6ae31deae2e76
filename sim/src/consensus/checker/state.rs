//! State machine safety: the same index gives the same state on every node, whether it came from the log, from the
//! rows on disk or from a snapshot.

use quorate_core::raft::{Index, NodeId};
use quorate_core::state::StateMachine;

use super::{Verdict, demand};

/// The fingerprint of the state at each index.
#[derive(Debug, Default)]
pub(crate) struct States {
    fingerprints: Vec<Option<u64>>,
}

impl States {
    /// What was reached at `index` and after it is lost with a lineage.
    pub(crate) fn end_before(&mut self, index: Index) {
        let place = usize::try_from(index.0).expect("a run has few entries");
        self.fingerprints.truncate(place);
    }

    /// A node's state after it applied an entry or was loaded.
    pub(crate) fn reached(&mut self, node: NodeId, machine: &StateMachine) -> Verdict {
        let index = machine.applied().index;
        if index == Index(0) {
            return Ok(());
        }
        let place = usize::try_from(index.0).expect("a run has few entries");
        if self.fingerprints.len() <= place {
            self.fingerprints.resize(place + 1, None);
        }
        let found = machine.fingerprint();
        let known = *self.fingerprints[place].get_or_insert(found);
        demand(known == found, "equal states", || {
            format!("{node} has state {found:016x} at index {index}, others have {known:016x}")
        })
    }
}
