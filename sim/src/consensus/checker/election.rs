//! Election safety: a term has at most one leader, and a majority voted for it.

use std::collections::BTreeMap;

use quorate_core::raft::{Membership, NodeId, Term};

use super::promise::Promises;
use super::{Verdict, demand};
use crate::consensus::node::Run;

/// Who led which term.
#[derive(Debug, Default)]
pub(crate) struct Elections {
    leaders: BTreeMap<Term, Run>,
}

impl Elections {
    /// A node leads; called after every step.
    ///
    /// A node that crashed is another one afterwards: it has forgotten what it appended.
    pub(crate) fn leads(&mut self, term: Term, run: Run) -> Verdict {
        let before = *self.leaders.entry(term).or_insert(run);
        demand(before == run, "election safety", || {
            format!("{run} leads term {term}, and {before} led it")
        })
    }

    /// A node was elected: a majority of each half of its membership has voted for it durably.
    pub(in crate::consensus) fn elected(
        &self,
        term: Term,
        leader: NodeId,
        membership: &Membership,
        promises: &Promises,
    ) -> Verdict {
        for half in [membership.voters(), membership.outgoing()] {
            let votes = half
                .iter()
                .filter(|voter| promises.durable_vote(**voter, term) == Some(leader))
                .count();
            demand(
                half.is_empty() || votes * 2 > half.len(),
                "election by a majority",
                || format!("{leader} leads term {term} with {votes} durable votes of {half:?}"),
            )?;
        }
        Ok(())
    }

    /// Another lineage begins, whose terms are its own.
    pub(crate) fn begin_anew(&mut self) {
        self.leaders.clear();
    }

    /// Who led a term.
    pub(crate) fn leader_of(&self, term: Term) -> Option<Run> {
        self.leaders.get(&term).copied()
    }

    /// Every leader of a term after `term`.
    pub(crate) fn after(&self, term: Term) -> impl Iterator<Item = (Term, Run)> {
        self.leaders.range(term.next()..).map(|(term, run)| (*term, *run))
    }
}
