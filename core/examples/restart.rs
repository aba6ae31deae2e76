//! A log that a node starts from again: `cargo run -p quorate-core --example restart`
//!
//! A group of one commits alone, ends as in a crash, and goes on from what its log holds.
#![allow(clippy::unwrap_used, reason = "an example that cannot go on says where")]

use quorate_core::Instant;
use quorate_core::raft::{
    Apply, Base, Boot, Config, DirectoryId, Effects, Entry, HardState, Index, Input, Lineage,
};
use quorate_core::raft::{Member, Membership, NodeId, Payload, Position, Raft, Role, Token, Write};

// ANCHOR: log
/// What a node keeps on its disk.
struct Log {
    hard_state: HardState,
    base: Base,
    entries: Vec<Entry>,
}

impl Log {
    /// Carries out a write; on a disk a sync ends it, and only then it is reported.
    fn carry_out(&mut self, write: Write) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        if let Some(base) = write.reset {
            self.base = *base;
            self.entries.clear();
        }
        if let Some(first) = write.entries.first() {
            let before = |entry: &Entry| entry.position.index < first.position.index;
            self.entries.retain(before);
            self.entries.extend(write.entries.iter().cloned());
        }
    }

    /// The node that this log leads to, whose state holds everything up to `applied`.
    fn boot(&self, id: NodeId, applied: Index) -> Boot {
        let mut boot = Boot::blank(id, self.base.membership.clone());
        boot.hard_state = self.hard_state;
        boot.base = self.base.clone();
        boot.last = self.base.position.index;
        boot.applied = applied;
        let mut term = self.base.position.term;
        for entry in &self.entries {
            boot.last = entry.position.index;
            if boot.terms.is_empty() || entry.position.term > term {
                term = entry.position.term;
                boot.terms.push(entry.position);
            }
            if let Payload::Membership(membership) = &entry.payload {
                boot.memberships.push((entry.position, (**membership).clone()));
            }
        }
        // All of it here; the end of a long log will do.
        boot.tail.clone_from(&self.entries);
        boot
    }
}
// ANCHOR_END: log

/// Starts the node, adds to the counter once it leads, and ends without a word, as in a crash. The counter is in memory
/// alone, so every life counts from the beginning of the log.
fn live(log: &mut Log, amount: u8) -> u64 {
    let mut now = Instant::from_nanoseconds(0);
    let boot = log.boot(NodeId(1), log.base.position.index);
    let mut raft = Raft::new(Config::default(), boot, [7; 32], now).unwrap();
    let (mut counter, mut is_asked) = (0, false);
    loop {
        let mut effects = Effects::default();
        raft.drain(&mut effects);
        for write in effects.write {
            let (id, result) = (write.id, Ok(()));
            log.carry_out(write);
            raft.step(now, Input::Persisted { write: id, result });
        }
        for apply in effects.apply {
            let Apply::Committed(committed) = apply else {
                unreachable!("no snapshots here")
            };
            for (entry, token) in committed.iter() {
                if let Payload::Command(command) = &entry.payload {
                    counter += u64::from(command[0]);
                }
                if token.is_some() {
                    return counter;
                }
                let index = entry.position.index;
                raft.step(now, Input::Applied { index });
            }
        }
        if raft.status().role == Role::Leader && !is_asked {
            is_asked = true;
            let (token, command) = (Token(1), vec![amount].into());
            raft.step(now, Input::Propose { token, command });
        } else if let Some(deadline) = raft.deadline().filter(|_| !is_asked) {
            // Nobody else is there to wait for, so time may jump.
            now = deadline.max(now);
            raft.step(now, Input::Timeout);
        }
    }
}

pub(crate) fn main() {
    let alone = Member::named("1".to_owned(), DirectoryId(1));
    let mut log = Log {
        hard_state: HardState::default(),
        base: Base {
            position: Position::default(),
            membership: Membership::bootstrap(Lineage(1), [(NodeId(1), alone)].into()),
        },
        entries: Vec::new(),
    };
    let counted = [live(&mut log, 7), live(&mut log, 7), live(&mut log, 7)];
    println!("the counter after each life: {counted:?}");
    assert_eq!(counted, [7, 14, 21]);
}
