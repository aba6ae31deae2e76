//! A node that was set aside: it has what its cluster lacks, and its operator has to decide what becomes of that.
//!
//! Two ways lead here. A node of another lineage greets, is asked for its history, and turns out to descend from this
//! node's lineage: a start was forced there ([`quorate_core::raft::ForcedStart`]). Or the leader contradicts what is
//! committed here, and is asked for its history to find out how much. Both answers are the terms of a log, which
//! tell the entries that only this node has; those are then read to count the keys that they write.
//!
//! Invariants: from the moment at which consensus set the node aside it serves nothing; one line of the log says why,
//! what only this node has and what can be done, and `/health`, `/readyz` and `/cluster/status` say the same.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::raft::{
    Comparison, Entry, Fetch, FetchError, FetchId, Index, Input, Lineage, Membership, OnlyHere, Outline,
    Payload, Quarantine,
};
use quorate_core::state::Command;

use super::consensus::Consensus;
use super::inbox::Completion;
use super::notices::AGAIN;
use crate::transport::{Answer, Ask, Hello};

/// How long a node may take to tell its history.
const ASK_TIME: Duration = Duration::from_secs(2);
/// How often one node is asked for it.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Names the reads of the entries to count; consensus counts its own from 1.
const COUNTING: FetchId = FetchId(u64::MAX);
/// Bytes of entries read at a time.
const READ_BYTES: u64 = 1 << 20;
/// Keys that are told apart; of more it is said that they are not counted.
const KEYS_MAX: usize = 100_000;

/// Whether a node was set aside, and what is known of why.
#[derive(Debug, Default)]
pub(super) struct Aside {
    why: Option<Quarantine>,
    /// The node whose log this one's was compared with, and what came of it.
    compared: Option<(String, Comparison)>,
    keys: Keys,
    /// What the operator was told.
    told: Option<String>,
}

/// The keys that the entries write which only this node has.
#[derive(Debug, Default)]
enum Keys {
    /// Nothing is to be counted, or it cannot be.
    #[default]
    Uncounted,
    /// Entries up to the last one are being read.
    Counting {
        found: BTreeSet<Bytes>,
        last: Index,
    },
    Counted(u64),
}

impl Aside {
    /// Why the node serves nothing; none when it was not set aside.
    pub(super) fn reason(&self) -> Option<String> {
        self.why?;
        let preliminary =
            || "this node was set aside: it has entries that the cluster does not have".to_owned();
        Some(self.told.clone().unwrap_or_else(preliminary))
    }

    /// What only this node has, in the words of the client API.
    pub(super) fn only_here(&self) -> Option<quorate_api::OnlyHere> {
        let (_, Comparison::OnlyHere(only)) = self.compared.as_ref()? else {
            return None;
        };
        Some(quorate_api::OnlyHere {
            first_index: only.first.index.0,
            first_term: only.first.term.0,
            last_index: only.last.index.0,
            last_term: only.last.term.0,
            entries: only.count(),
            at_least: only.at_least,
            keys: match self.keys {
                Keys::Counted(keys) => Some(keys),
                Keys::Uncounted | Keys::Counting { .. } => None,
            },
        })
    }

    /// Everything that an operator has to know, when it is known.
    fn report(&self) -> Option<String> {
        let (why, (node, comparison)) = (self.why?, self.compared.as_ref()?);
        if matches!(self.keys, Keys::Counting { .. }) {
            return None;
        }
        let what = match why {
            Quarantine::Superseded { by } => format!(
                "a start was forced on node {node}: the cluster goes on as lineage {by} without this node"
            ),
            Quarantine::Diverged { at, .. } => {
                format!(
                    "what is committed on this node at index {at} is not what node {node} has, which leads"
                )
            }
        };
        let lacking = match comparison {
            Comparison::Contained => format!("node {node} has every entry that this node has"),
            Comparison::Unknown => {
                format!(
                    "whether node {node} has every entry of this node cannot be told from its log any more"
                )
            }
            Comparison::OnlyHere(only) => self.describe(only),
        };
        Some(format!(
            "this node was set aside and serves nothing: {what}. {lacking}. To give that up and join the cluster, stop \
             this node, move its data directory aside and start it again: it joins as a learner. To keep it and give up \
             what the others have done since, stop them all and run `quorate force-start` here"
        ))
    }

    fn describe(&self, only: &OnlyHere) -> String {
        let count = only.count();
        let entries = if count == 1 { "entry" } else { "entries" };
        let keys = match self.keys {
            Keys::Counted(1) => ", which writes 1 key".to_owned(),
            Keys::Counted(keys) => format!(", which write {keys} keys"),
            Keys::Uncounted | Keys::Counting { .. } => String::new(),
        };
        format!(
            "Only this node has {}{count} {entries}, from index {} of term {} to index {} of term {}{keys}",
            if only.at_least { "at least " } else { "" },
            only.first.index,
            only.first.term,
            only.last.index,
            only.last.term
        )
    }
}

impl Consensus {
    /// A node of another lineage greeted: one of the two may have been forced to start since they parted.
    pub(super) fn met_other_lineage(&mut self, hello: &Hello) {
        let now = self.ports.clock.now();
        let asked = format!("history of {}", hello.name);
        if self.aside.compared.is_none()
            && !hello.cluster_address.is_empty()
            && self.peers.notices.due(&asked, now, ASK_EVERY)
        {
            self.ask_history(hello.name.clone(), hello.cluster_address.clone());
        }
    }

    fn ask_history(&self, node: String, address: String) {
        let (transport, completions) = (self.transport.clone(), self.completions.clone());
        tokio::task::spawn_local(async move {
            let asked = transport.ask(&address, Some(&node), Ask::History, ASK_TIME).await;
            // Who does not answer is asked again when it greets again.
            if let Ok(Answer::History { membership, log }) = asked {
                let _ = completions.send(Completion::History {
                    node,
                    membership,
                    log,
                });
            }
        });
    }

    /// Another node has told its history.
    pub(super) fn history_told(&mut self, node: String, membership: &Membership, log: &Outline) {
        let own = self.raft.status().membership.lineage();
        if membership.lineage() == own {
            if matches!(self.aside.why, Some(Quarantine::Diverged { .. })) {
                self.compare(node, log);
            }
        } else if let Some(fork) = membership.fork_of(own) {
            let by = membership.lineage();
            self.step(Input::Superseded { by: Box::new(by) });
            match self.raft.status().quarantine {
                Some(why) => {
                    self.aside.why.get_or_insert(why);
                    self.compare(node, &fork.log);
                }
                None => self.goes_on_beside(&node, by),
            }
        }
    }

    /// A start was forced although a majority of this node's cluster lives.
    fn goes_on_beside(&mut self, node: &str, lineage: Lineage) {
        let now = self.ports.clock.now();
        if self.peers.notices.due(&format!("beside {lineage}"), now, AGAIN) {
            tracing::warn!(
                node,
                %lineage,
                "a start was forced on a node although this cluster has a leader: it goes on apart, and what is written \
                 there is not seen here; stop it, move its data directory aside and start it again, so that it joins as a \
                 learner"
            );
        }
    }

    /// Consensus has set this node aside.
    pub(super) fn set_aside(&mut self, why: Quarantine) {
        self.aside.why = Some(why);
        if let Quarantine::Diverged { leader, at } = why {
            tracing::error!(
                leader = self.name_of(leader),
                index = at.0,
                "set aside: the leader has another entry in place of one that is committed here"
            );
        }
        self.publish();
        self.find_out_what_only_it_has();
    }

    /// Asks the leader that contradicts this node how its log looks, until it has said so.
    pub(super) fn find_out_what_only_it_has(&mut self) {
        let (Some(Quarantine::Diverged { leader, .. }), None) = (self.aside.why, &self.aside.compared) else {
            return;
        };
        let leader = self.raft.status().membership.members().get(&leader).cloned();
        let now = self.ports.clock.now();
        if let Some(leader) = leader
            && self
                .peers
                .notices
                .due(&format!("history of {}", leader.name), now, ASK_EVERY)
        {
            self.ask_history(leader.name, leader.cluster_address);
        }
    }

    fn compare(&mut self, node: String, log: &Outline) {
        if self.aside.compared.is_some() {
            return;
        }
        let comparison = self.raft.outline().compared_with(log);
        if let Comparison::OnlyHere(only) = comparison {
            self.aside.keys = Keys::Counting {
                found: BTreeSet::new(),
                last: only.last.index,
            };
            self.read_to_count(only.first.index, only.last.index);
        }
        self.aside.compared = Some((node, comparison));
        self.tell_of_it();
    }

    fn read_to_count(&self, first: Index, last: Index) {
        self.lanes.fetch(Fetch {
            id: COUNTING,
            first,
            last,
            bytes_max: READ_BYTES,
        });
    }

    /// Entries were read; returns whether it was to count the keys in them.
    pub(super) fn counted(&mut self, fetch: FetchId, result: &Result<Vec<Entry>, FetchError>) -> bool {
        if fetch != COUNTING {
            return false;
        }
        let Keys::Counting { found, last } = &mut self.aside.keys else {
            return true;
        };
        let entries = result.as_deref().unwrap_or_default();
        found.extend(entries.iter().filter_map(|entry| match &entry.payload {
            Payload::Command(command) => key_written(command),
            Payload::Empty | Payload::Omitted | Payload::Membership(_) => None,
        }));
        let (reached, last) = (entries.last().map(|entry| entry.position.index), *last);
        let total = found.len();
        match reached {
            Some(reached) if reached < last && total <= KEYS_MAX => {
                self.read_to_count(reached.next(), last);
                return true;
            }
            Some(_) if total <= KEYS_MAX => self.aside.keys = Keys::Counted(total as u64),
            // Purged, or too many.
            _ => self.aside.keys = Keys::Uncounted,
        }
        self.tell_of_it();
        true
    }

    fn tell_of_it(&mut self) {
        if self.aside.told.is_none()
            && let Some(report) = self.aside.report()
        {
            tracing::error!("{report}");
            self.aside.told = Some(report);
            self.publish();
        }
    }
}

/// The key that a command gives a value, when it is one that gives one key a value.
fn key_written(command: &[u8]) -> Option<Bytes> {
    match Command::decode(command).ok()? {
        Command::Put(put) => Some(put.key),
        Command::Once { command, .. } => match Command::decode(&command).ok()? {
            Command::Put(put) => Some(put.key),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::raft::{Position, Term};

    use super::*;

    fn only(first: u64, last: u64, at_least: bool) -> Comparison {
        let at = |index| Position {
            term: Term(3),
            index: Index(index),
        };
        Comparison::OnlyHere(OnlyHere {
            first: at(first),
            last: at(last),
            at_least,
        })
    }

    #[test]
    fn report_names_the_entries_and_the_ways_out() {
        let superseded = Quarantine::Superseded { by: Lineage(8) };
        let mut aside = Aside {
            why: Some(superseded),
            compared: Some(("c".to_owned(), only(11, 12, false))),
            keys: Keys::Counted(2),
            told: None,
        };
        let report = aside.report().expect("everything is known");
        for words in [
            "Only this node has 2 entries, from index 11 of term 3 to index 12 of term 3, which write 2 keys",
            "forced on node c",
            "move its data directory aside",
            "quorate force-start",
        ] {
            assert!(report.contains(words), "`{words}` is missing in {report}");
        }
        aside.compared = Some(("c".to_owned(), only(11, 11, true)));
        aside.keys = Keys::Counted(1);
        let report = aside.report().expect("everything is known");
        assert!(
            report.contains("at least 1 entry") && report.contains("writes 1 key"),
            "{report}"
        );
        assert_eq!(
            aside.only_here().map(|only| (only.entries, only.keys)),
            Some((1, Some(1)))
        );
    }

    #[test]
    fn nothing_is_reported_before_the_keys_are_counted_or_of_a_node_that_takes_part() {
        let aside = Aside {
            why: Some(Quarantine::Superseded { by: Lineage(8) }),
            compared: Some(("c".to_owned(), only(11, 12, false))),
            keys: Keys::Counting {
                found: BTreeSet::new(),
                last: Index(12),
            },
            told: None,
        };
        assert_eq!(aside.report(), None);
        assert!(
            aside.reason().is_some_and(|reason| reason.contains("set aside")),
            "it serves nothing"
        );
        assert_eq!(Aside::default().reason(), None);
    }
}
