//! What is demanded of witnesses, which vote and keep the shape of the log, but no commands and no state, and never lead.

use quorate_core::raft::{Body, Effects, NodeId, Payload, Status, TraceEvent};

use super::Inner;
use crate::consensus::checker::{Verdict, demand};
use crate::consensus::node::Run;

/// A round of a witness.
pub(super) fn takes_part(run: Run, effects: &Effects) -> Verdict {
    let mut events = effects.trace.iter();
    let campaigns = events.any(|event| matches!(event, TraceEvent::Campaign { .. }));
    demand(!campaigns, "a witness does not campaign", || {
        format!("{run} does")
    })?;
    demand(effects.apply.is_empty(), "a witness applies nothing", || {
        format!("{run} is to apply {:?}", effects.apply)
    })
}

impl Inner {
    /// A member sends something to a witness: no command, and nothing that is on no disk with data.
    pub(super) fn sent_to_witness(&mut self, status: &Status<'_>, to: NodeId, body: &Body) -> Verdict {
        let entries = match body {
            Body::Append { entries, .. } => entries,
            Body::Begin { .. } => {
                self.statistics.bases_sent += 1;
                return Ok(());
            }
            _ => return Ok(()),
        };
        let Some(last) = entries.last().map(|entry| entry.position) else {
            return Ok(());
        };
        let omitted = entries
            .iter()
            .filter(|entry| matches!(entry.payload, Payload::Omitted));
        self.statistics.omitted += omitted.count() as u64;
        let mut commands = entries
            .iter()
            .filter(|entry| matches!(entry.payload, Payload::Command(_)));
        demand(
            commands.next().is_none(),
            "no command is sent to a witness",
            || format!("{to} is sent entries up to {last} with their commands"),
        )?;
        // What a leader of the past believes to be on disks may have been replaced there.
        let current = self.leader.is_none_or(|(term, ..)| term <= status.term);
        let mut with_data = self.seen.values().filter(|seen| !seen.witness);
        let held = with_data.any(|seen| seen.durable.max(seen.promised.matched) >= last.index);
        demand(
            held || !current,
            "no witness is ahead of all disks with data",
            || format!("{to} is sent entries up to {last}, which no disk with data holds"),
        )
    }
}
