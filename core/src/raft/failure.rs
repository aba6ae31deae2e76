//! The end of a node that lives on as a process: its disk failed, it does not fit into the cluster, or it was set aside.
//!
//! Invariants: it is final; whoever waits is answered at once; from here on nothing is sent, written or applied, and every
//! request is refused with the reason.

use super::role::{Follower, Part};
use super::{BootError, DiskError, Input, Outcome, Quarantine, Raft, Refusal, StepDown, TraceEvent};

/// Why a node takes no part any more.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    Disk,
    /// It does not fit into the cluster.
    Unfit(BootError),
    /// An operator has to decide what becomes of what only it has.
    Quarantined(Quarantine),
}

impl Raft {
    /// The disk failed: what it holds is not known, so this node must not promise anything again.
    pub(super) fn fail(&mut self, error: DiskError) {
        self.output.trace.push(TraceEvent::DiskFailed {
            error: error.to_string(),
        });
        if self.leading().is_some() {
            self.step_down(StepDown::DiskFailed);
        }
        self.stop(Failure::Disk);
    }

    /// Takes no part any more.
    pub(super) fn stop(&mut self, failure: Failure) {
        self.part = Part::Follower(Follower::default());
        self.durability.abandon();
        self.give_up_owed(|_| true);
        self.give_up_reads();
        self.give_up_handover();
        self.fetches.clear();
        self.failed = Some(failure);
    }

    pub(super) fn refuse_after_failure(&mut self, input: Input) {
        match input {
            Input::Propose { token, .. } | Input::Read { token, .. } => {
                self.answer(token, Outcome::NotLeader { leader: None });
            }
            Input::Admin { token, .. } => {
                let refusal = match &self.failed {
                    Some(Failure::Unfit(error)) => Refusal::Unfit(error.clone()),
                    Some(Failure::Quarantined(_)) => Refusal::Quarantined,
                    Some(Failure::Disk) | None => Refusal::DiskFailed,
                };
                self.answer(token, Outcome::Refused(refusal));
            }
            _ => {}
        }
    }
}
