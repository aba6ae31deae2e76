//! The simulated driver: carries out what consensus wants, and checks each of it on the way.

use quorate_core::raft::{
    Apply, Body, BootError, ChangeError, Effects, Entry, HandoverReason, Index, Membership, Message, NodeId,
    Outcome, Payload, Position, PreVote, Refusal, Role, SnapshotOp, StepDown, Term, Token, TraceEvent, Write,
};
use quorate_core::wire::{self, Kind};

use super::PlantedBug;
use super::checker::client::{Request, RequestKind};
use super::checker::{Breach, Verdict, demand, lease, membership};
use super::marks::Mark;
use super::node::Run;
use super::schedule::MICROSECOND;
use super::world::{Event, World};

impl World {
    /// Carries out everything that a node wants.
    pub(super) fn drain(&mut self, run: Run) -> Verdict {
        let mut effects = std::mem::take(&mut self.effects);
        if let Some(live) = self.nodes.live(run) {
            live.process.raft.drain(&mut effects);
        }
        let verdict = self.carry_out(run, &mut effects);
        self.effects = effects;
        self.arm(run);
        verdict
    }

    fn carry_out(&mut self, run: Run, effects: &mut Effects) -> Verdict {
        for write in effects.write.drain(..) {
            self.write(run, write)?;
        }
        let install = |event: &TraceEvent| matches!(event, TraceEvent::SnapshotAccepted { .. });
        let installs = effects.trace.iter().any(install);
        for event in effects.trace.drain(..) {
            self.traced(run, &event)?;
        }
        for (to, message) in effects.send.drain(..) {
            self.send(run, to, message)?;
        }
        for apply in effects.apply.drain(..) {
            self.hand_over(run, apply)?;
        }
        for fetch in effects.fetch.drain(..) {
            self.statistics.fetches += 1;
            self.marks.note(Mark::ReadBack);
            let delay = self.random.disk.around(self.knobs.fetch_mean);
            self.schedule.after(delay, Event::Fetched(run, fetch));
        }
        for operation in effects.snapshot.drain(..) {
            match operation {
                SnapshotOp::Send { to, term } => self.send_snapshot(run, to, term)?,
                SnapshotOp::Purge(base) => self.purge(run, base)?,
            }
        }
        let unknown = effects
            .outcome
            .iter()
            .any(|(_, outcome)| *outcome == Outcome::Unknown);
        self.marks
            .note_if(installs && unknown, Mark::InstallAnswersClients);
        for (token, outcome) in effects.outcome.drain(..) {
            self.outcome(run, token, &outcome)?;
        }
        Ok(())
    }

    fn write(&mut self, run: Run, write: Write) -> Verdict {
        let now = self.schedule.now();
        if self.conditions.checks {
            self.check_write(run, &write)?;
            self.sight_write(run, &write);
        }
        let Some(live) = self.nodes.live(run) else {
            return Ok(());
        };
        let id = write.id;
        live.disk.write(now, write).map_err(|seen| Breach {
            checker: "writes make sense",
            seen: format!("{run}: {seen}"),
        })?;
        if self.conditions.driver() == Some(PlantedBug::AcknowledgeBeforeDurable) {
            self.schedule
                .after(MICROSECOND, Event::FalseAcknowledgement(run, id));
        }
        self.sync(run);
        Ok(())
    }

    fn check_write(&mut self, run: Run, write: &Write) -> Verdict {
        self.check_features(run, write)?;
        let Some(live) = self.nodes.live(run) else {
            return Ok(());
        };
        let status = live.process.raft.status();
        let own_term = (status.role == Role::Leader).then_some(status.term);
        self.checkers
            .entries
            .written(write, &live.disk.written, own_term)?;
        if own_term.is_some() {
            membership::follow_each_other(write, &live.disk.written, &status)?;
        }
        match &write.reset {
            Some(base) => self.checkers.committed.covers(base.position, "a snapshot"),
            None => Ok(()),
        }
    }

    fn send(&mut self, run: Run, to: NodeId, message: Message) -> Verdict {
        self.statistics.messages += 1;
        match &message.body {
            Body::Append { .. } => self.statistics.appends += 1,
            Body::AppendRejected { .. } => self.statistics.appends_refused += 1,
            _ => {}
        }
        if self.conditions.checks {
            self.check_promise(run, to, &message)?;
            self.check_witness(to, &message)?;
            self.sight_message(run, to, &message);
        }
        let number = self.tell_sent(run.node, to, &message);
        let message = if self.knobs.encode_messages {
            let bytes = wire::encode(Kind::Message, &message);
            let decoded: Message = wire::decode(Kind::Message, &bytes).map_err(|error| Breach {
                checker: "messages survive their encoding",
                seen: format!("{message:?}: {error}"),
            })?;
            demand(decoded == message, "messages survive their encoding", || {
                format!("{message:?} becomes {decoded:?}")
            })?;
            decoded
        } else {
            message
        };
        let vetoed = matches!(
            message.body,
            Body::PreVoteResponse {
                answer: PreVote::Vetoed,
                ..
            }
        );
        self.statistics.vetoes += u64::from(vetoed);
        let [first, second] = self.network.arrivals(self.schedule.now(), run.node, to);
        let from = run.node;
        if first.or(second).is_none() {
            self.tell_dropped(from, to, number);
        }
        let deliver = |message| Event::Deliver {
            from,
            to,
            number,
            message: Box::new(message),
        };
        if let Some(time) = second {
            self.schedule.at(time, deliver(message.clone()));
        }
        if let Some(time) = first {
            self.schedule.at(time, deliver(message));
        }
        Ok(())
    }

    fn check_promise(&mut self, run: Run, to: NodeId, message: &Message) -> Verdict {
        let promises = matches!(
            message.body,
            Body::VoteResponse { granted: true } | Body::VoteRequest { .. } | Body::AppendAccepted { .. }
        );
        let Some(node) = self.nodes.get(run.node).filter(|_| promises) else {
            return Ok(());
        };
        let sender_term = node
            .process
            .as_ref()
            .map_or(Term(0), |process| process.progress.term());
        let leader = self
            .checkers
            .elections
            .leader_of(message.term)
            .filter(|leader| leader.node == to)
            .and_then(|leader| {
                let node = self.nodes.get(to)?;
                let leads = node.run() == leader && node.process.as_ref()?.progress.term() == message.term;
                leads.then_some(&node.disk.written)
            });
        self.checkers
            .promises
            .leaves(run.node, to, message, &node.disk.durable, sender_term, leader)
    }

    /// No command is sent to a witness, and nothing that is on no disk with data.
    fn check_witness(&mut self, to: NodeId, message: &Message) -> Verdict {
        let entries = match &message.body {
            Body::Append { entries, .. } => entries,
            Body::Begin { .. } => {
                self.statistics.bases_sent += 1;
                return Ok(());
            }
            _ => return Ok(()),
        };
        let Some(last) = entries.last().filter(|_| self.is_witness(to)) else {
            return Ok(());
        };
        let omitted = |entry: &&Entry| matches!(entry.payload, Payload::Omitted);
        self.statistics.omitted += entries.iter().filter(omitted).count() as u64;
        let command = |entry: &Entry| matches!(entry.payload, Payload::Command(_));
        demand(
            !entries.iter().any(command),
            "no command is sent to a witness",
            || format!("{to} is sent entries up to {} with their commands", last.position),
        )?;
        // What a leader of the past believes to be on disks may have been replaced there.
        let current = self.checkers.elections.after(message.term).next().is_none();
        let held = self.nodes.iter().any(|node| {
            let log = &node.disk.durable;
            let (position, base) = (last.position, log.base.position.index);
            !node.witness && (base >= position.index || log.term_at(position.index) == Some(position.term))
        });
        demand(
            held || !current,
            "no witness is ahead of all disks with data",
            || {
                format!(
                    "{to} is sent entries up to {}, which no disk with data holds",
                    last.position
                )
            },
        )
    }

    pub(super) fn is_witness(&self, id: NodeId) -> bool {
        self.nodes.get(id).is_some_and(|node| node.witness)
    }

    fn hand_over(&mut self, run: Run, apply: Apply) -> Verdict {
        demand(!self.is_witness(run.node), "a witness applies nothing", || {
            format!("{run} is to apply {apply:?}")
        })?;
        match &apply {
            Apply::Committed(committed) => {
                for entry in &committed.entries {
                    self.hand_over_entry(run, entry)?;
                }
            }
            Apply::Install(base) => self.checkers.committed.covers(base.position, "a snapshot")?,
        }
        if let Some(live) = self.nodes.live(run) {
            live.process.to_apply.push_back(apply);
        }
        self.apply_later(run);
        Ok(())
    }

    fn hand_over_entry(&mut self, run: Run, entry: &Entry) -> Verdict {
        let Some(live) = self.nodes.live(run) else {
            return Ok(());
        };
        let (position, durable) = (entry.position, live.disk.durable.last().index);
        demand(
            position.index <= durable,
            "what is applied is durable here",
            || format!("{run} applies {position}; its disk ends at {durable}"),
        )?;
        let term = live.process.progress.term();
        if self.checkers.committed.committed(entry, term)? {
            self.newly_committed(position, &entry.payload)?;
        }
        Ok(())
    }

    /// Nobody had handed this entry over before.
    fn newly_committed(&mut self, position: Position, payload: &Payload) -> Verdict {
        self.checkers.clients.committed(position.index, payload)?;
        if self.conditions.checks {
            self.check_leaders()?;
        }
        // The first commit after a forced start covers what the survivor held of the lineage before, and that may name
        // memberships, which are in force no more.
        if let Payload::Membership(membership) = payload
            && membership.lineage() == self.membership.lineage()
        {
            self.level_committed(membership)?;
            self.tell_membership(position.index, membership);
            self.membership_committed(position, membership);
        }
        Ok(())
    }

    /// Every leader of a later term than the last entry was committed in has that entry.
    fn check_leaders(&self) -> Verdict {
        let term = self.checkers.committed.term();
        for (leader_term, leader) in self.checkers.elections.after(term) {
            if let Some(node) = self.nodes.get(leader.node)
                && node.run() == leader
                && let Some(process) = &node.process
                && process.raft.status().role == Role::Leader
                && process.progress.term() == leader_term
            {
                self.checkers
                    .committed
                    .leader_completeness(leader.node, leader_term, &node.disk.written)?;
            }
        }
        Ok(())
    }

    fn purge(&mut self, run: Run, base: quorate_core::raft::Base) -> Verdict {
        self.statistics.purges += 1;
        let now = self.schedule.now();
        let Some(live) = self.nodes.live(run) else {
            return Ok(());
        };
        let (stored, position) = (live.store.applied, base.position);
        demand(
            position.index <= stored.index || live.witness,
            "nothing is purged before it is stored",
            || format!("{run} purges up to {position}; its state store holds up to {stored}"),
        )?;
        // A witness may purge what no other node has handed over yet.
        if !live.witness || position.index <= self.checkers.committed.last() {
            self.checkers.committed.covers(position, "a purged log")?;
        }
        live.disk.purge(now, base).map_err(|seen| Breach {
            checker: "writes make sense",
            seen: format!("{run}: {seen}"),
        })?;
        self.sync(run);
        Ok(())
    }

    fn outcome(&mut self, run: Run, token: Token, outcome: &Outcome) -> Verdict {
        let request = self.checkers.clients.outcome(run, token, outcome)?;
        self.sight_outcome(run, &request.kind, outcome);
        self.tell_outcome(token, outcome);
        match (&request.kind, outcome) {
            (RequestKind::Read { .. }, Outcome::ReadReady { index }) => {
                self.read_ready(run, *index);
                self.note_answered_read(run.node);
            }
            (RequestKind::Change, Outcome::Refused(Refusal::Change(ChangeError::TooManyWitnesses))) => {
                self.statistics.witnesses_refused += 1;
            }
            (RequestKind::Transfer, Outcome::Done) => self.statistics.transfers += 1,
            (RequestKind::Command { .. }, Outcome::NotLeader { leader }) => self.refused(&request, *leader),
            _ => {}
        }
        self.data_outcome(run, token, outcome)
    }

    fn read_ready(&mut self, run: Run, index: Index) {
        let Some(live) = self.nodes.live(run) else {
            return;
        };
        let applied = live.process.machine.applied().index;
        if applied >= index {
            self.checkers.clients.read(applied);
        } else {
            live.process.reads.push(index);
        }
    }

    fn refused(&mut self, request: &Request, leader: Option<NodeId>) {
        if let Some(leader) = leader {
            self.leader = Some(leader);
        }
        self.try_elsewhere(request);
    }

    fn traced(&mut self, run: Run, event: &TraceEvent) -> Verdict {
        self.tell_told(run.node, event);
        self.sight_event(run, event);
        match event {
            TraceEvent::Elected { term } => self.elected(run, *term)?,
            TraceEvent::Campaign { pre_vote, .. } => {
                self.statistics.campaigns += u64::from(!pre_vote);
                self.campaigns(run)?;
            }
            TraceEvent::Unfit(BootError::FeaturesLacking { needed, .. }) => {
                self.schedule.after(0, Event::TooOld(run, *needed));
            }
            TraceEvent::HandsOver { reason, .. } => self.hands_over(run, *reason)?,
            TraceEvent::SteppedDown {
                reason: StepDown::DiskStalled,
                ..
            } => self.statistics.stalled_leaders += 1,
            TraceEvent::Quarantined(quarantine) => {
                return Err(Breach {
                    checker: "nobody is set aside",
                    seen: format!("{run}: {quarantine:?}"),
                });
            }
            TraceEvent::Truncated { .. } => {
                self.statistics.truncations += 1;
                self.check_membership(run)?;
            }
            TraceEvent::SnapshotAccepted { .. } => {
                self.statistics.snapshots += 1;
                self.check_membership(run)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn check_membership(&self, run: Run) -> Verdict {
        let node = self.nodes.get(run.node);
        match node.and_then(|node| Some((node, node.process.as_ref()?))) {
            Some((node, process)) => {
                membership::is_in_force(run.node, &process.raft.status(), &node.disk.written)
            }
            None => Ok(()),
        }
    }

    /// A committed level never falls, and every member has had a binary that supports it.
    fn level_committed(&mut self, membership: &Membership) -> Verdict {
        let (before, level) = (self.membership.level(), membership.level());
        self.statistics.levels += u64::from(level > before);
        demand(level >= before, "the feature level never falls", || {
            format!("{before} becomes {level}")
        })?;
        let lacking = membership.members().iter().find(|(id, member)| {
            // A lineage that was forced may give an id that a lost majority had given to another machine.
            let machine = self
                .nodes
                .get(**id)
                .filter(|node| node.directory == member.directory);
            machine.map_or(member.features, |node| node.features_max) < level
        });
        demand(
            lacking.is_none(),
            "the feature level waits for every member",
            || format!("{level} is committed, and {lacking:?} never supported it"),
        )
    }

    /// A node writes no membership of a level that its binary lacks.
    fn check_features(&self, run: Run, write: &Write) -> Verdict {
        let supported = self.nodes.get(run.node).map(|node| node.features);
        let entries = write.entries.iter().filter_map(|entry| match &entry.payload {
            Payload::Membership(membership) => Some(&**membership),
            Payload::Empty | Payload::Command(_) | Payload::Omitted => None,
        });
        let base = write.reset.iter().map(|base| &base.membership);
        let level = entries.chain(base).map(Membership::level).max();
        demand(
            supported >= level,
            "no binary meets features that it lacks",
            || format!("{run} supports {supported:?} and takes in level {level:?}"),
        )
    }

    fn campaigns(&mut self, run: Run) -> Verdict {
        demand(!self.is_witness(run.node), "a witness does not campaign", || {
            format!("{run} asks for votes")
        })?;
        let (now, bound) = (self.schedule.now(), self.knobs.stall_noticed_within());
        let oldest = self.nodes.live(run).and_then(|live| live.disk.oldest_write());
        let waited = oldest.map_or(0, |since| now - since);
        demand(waited <= bound, "a stalled disk does not campaign", || {
            format!("{run} campaigns while a write has been under way for {waited} ns")
        })
    }

    fn hands_over(&mut self, run: Run, reason: HandoverReason) -> Verdict {
        match reason {
            HandoverReason::SlowDisk => self.statistics.slow_leaders += 1,
            HandoverReason::Preferred => self.statistics.preferred += 1,
        }
        let Some(live) = self.nodes.live(run) else {
            return Ok(());
        };
        let term = live.process.raft.status().term;
        self.checkers
            .handovers
            .begins(self.schedule.now(), run, term, reason, &self.knobs)
    }

    fn elected(&mut self, run: Run, term: Term) -> Verdict {
        if self.leader != Some(run.node) {
            self.leader_before = self.leader.replace(run.node);
        }
        self.statistics.elections += 1;
        self.measure_election();
        if self.recovery.is_some()
            && let Some(node) = self.nodes.get(run.node)
        {
            let membership = node.disk.written.membership().clone();
            self.create_members(&membership);
        }
        if !self.conditions.checks {
            return Ok(());
        }
        let Some(node) = self.nodes.get(run.node) else {
            return Ok(());
        };
        let Some(process) = &node.process else {
            return Ok(());
        };
        let status = process.raft.status();
        if status.role != Role::Leader || status.term != term {
            return Ok(());
        }
        self.checkers
            .elections
            .elected(term, run.node, status.membership, &self.checkers.promises)?;
        self.checkers
            .committed
            .leader_completeness(run.node, term, &node.disk.written)?;
        let now = self.schedule.now();
        for (node, process) in self.nodes.processes() {
            lease::over(
                term,
                run,
                node.run(),
                node.clock.shows(now),
                &process.raft.status(),
            )?;
        }
        Ok(())
    }

    /// Schedules an end for the queue of the log, when there is none.
    pub(super) fn sync(&mut self, run: Run) {
        let now = self.schedule.now();
        let Some(live) = self.nodes.live(run) else {
            return;
        };
        if live.disk.begin_sync() {
            let mut delay = 30 * MICROSECOND + self.random.disk.around(self.knobs.sync_mean);
            if live.slow_until > now {
                delay += self.random.disk.around(live.slow_by);
            }
            self.schedule.after(delay, Event::Sync(run));
        }
    }
}
