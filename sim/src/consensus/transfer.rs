//! How a snapshot gets from one node to another: offered, chosen, and sent in pieces over a connection of its own.
//!
//! As in production (`shell/src/node/lanes/transfer.rs`) the sender offers what it has kept, the receiver chooses what it
//! has a part of already, else the newest, and says which piece it needs next. A transfer breaks off when either process
//! ends, when the two are cut off from each other, or by chance; the pieces that came stay, but for the last one when
//! the receiver crashes, and a later transfer goes on behind them. One snapshot is taken in at a time.
//!
//! Invariant: what was taken in, in however many transfers, is what its sender made.

use std::sync::Arc;

use quorate_core::raft::{Base, Input, NodeId, SnapshotEvent, Term};

use super::checker::{Verdict, demand};
use super::marks::Mark;
use super::node::Run;
use super::schedule::{MICROSECOND, MILLISECOND};
use super::store::{Begun, Snapshot};
use super::world::{Event, World};
use crate::trace::{self, Loss};

/// Into how many pieces snapshots are cut at the most; one of these, by chance.
const PIECES: [u64; 3] = [1, 4, 16];

/// A transfer that goes on.
#[derive(Debug)]
pub(super) struct Transfer {
    from: Run,
    to: Run,
    /// Among the messages that are told of.
    number: u64,
    term: Term,
    snapshot: Arc<Snapshot>,
    /// The piece that is under way.
    next: u64,
}

impl Transfer {
    /// The node that takes it in.
    pub(super) fn receiver(&self) -> NodeId {
        self.to.node
    }
}

/// Transfers that a process takes part in.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    /// To whom it sends.
    sending: Vec<NodeId>,
    /// The number of the one that it takes in.
    receiving: Option<u64>,
}

/// What opens a transfer.
#[derive(Debug)]
pub(super) struct Offer {
    from: Run,
    pub(super) to: NodeId,
    number: u64,
    term: Term,
    /// The newest first.
    snapshots: Vec<Arc<Snapshot>>,
}

impl World {
    /// A snapshot of the applied state is made, and a transfer begins.
    pub(super) fn send_snapshot(&mut self, run: Run, to: NodeId, term: Term) -> Verdict {
        let Some(live) = self.nodes.live(run) else {
            return Ok(());
        };
        if live.process.transfers.sending.contains(&to) {
            return Ok(());
        }
        self.statistics.snapshots_sent += 1;
        live.process.transfers.sending.push(to);
        let position = live.process.machine.applied();
        if !live.store.has_kept(position) {
            let rows = live.store.rows_of(&live.process.machine);
            let most = *self.random.disk.pick(&PIECES);
            let base = Base {
                position,
                membership: live.process.membership.clone(),
            };
            live.store.keep(Snapshot::new(base, rows, most));
        }
        let (begins, lineage) = (
            live.disk.written.base.position.index,
            live.process.membership.lineage(),
        );
        let snapshots = live.store.kept(begins, lineage);
        let number = self.tell_snapshot_sent(run.node, to, term);
        let offer = Box::new(Offer {
            from: run,
            to,
            number,
            term,
            snapshots,
        });
        match self.network.bulk(self.schedule.now(), run.node, to) {
            Some(time) => self.schedule.at(time, Event::Offered(offer)),
            None => self.breaks_off(run, to, number),
        }
        Ok(())
    }

    /// A snapshot is offered: its receiver chooses.
    pub(super) fn offered(&mut self, offer: Offer) -> Verdict {
        let Offer {
            from,
            to,
            number,
            term,
            snapshots,
        } = offer;
        let open = self.may_transfer(from, to);
        let receiver = self
            .nodes
            .get_mut(to)
            .filter(|_| open)
            .and_then(|node| Some((node.run(), node.process.as_mut()?, &mut node.store)));
        let Some((to, process, store)) =
            receiver.filter(|(_, process, _)| process.transfers.receiving.is_none())
        else {
            self.breaks_off(from, to, number);
            return Ok(());
        };
        let Some((snapshot, begun)) = store.choose(&snapshots) else {
            self.breaks_off(from, to.node, number);
            return Ok(());
        };
        process.transfers.receiving = Some(number);
        let next = match begun {
            Begun::Anew => 0,
            Begun::InsteadOfAnother => {
                self.marks.note(Mark::TransferGivenUp);
                0
            }
            Begun::Resumed(next) => {
                self.statistics.snapshots_resumed += 1;
                self.marks.note(Mark::TransferResumed);
                next
            }
        };
        self.send_piece(Transfer {
            from,
            to,
            number,
            term,
            snapshot,
            next,
        })
    }

    /// A piece leaves when the rate allows it; when there is none left the transfer is over.
    fn send_piece(&mut self, transfer: Transfer) -> Verdict {
        let pieces = transfer.snapshot.pieces();
        if transfer.next >= pieces {
            return self.whole(transfer);
        }
        let pace = MICROSECOND + self.random.disk.around(self.knobs.snapshot_mean / pieces);
        let (from, to) = (transfer.from.node, transfer.to.node);
        let leaves = self.schedule.now() + pace;
        match self.network.bulk(leaves, from, to) {
            Some(time) => self.schedule.at(time, Event::Piece(Box::new(transfer))),
            None => self.stops(&transfer),
        }
        Ok(())
    }

    /// A piece arrives, if nothing came between.
    pub(super) fn piece(&mut self, mut transfer: Transfer) -> Verdict {
        let pieces = transfer.snapshot.pieces();
        let failure = u64::from(self.knobs.snapshot_failure).div_ceil(pieces);
        let fails = self.random.disk.chance(u32::try_from(failure).unwrap_or(0));
        if fails || !self.may_transfer(transfer.from, transfer.to.node) {
            self.stops(&transfer);
            return Ok(());
        }
        let Some(live) = self.nodes.live(transfer.to) else {
            self.stops(&transfer);
            return Ok(());
        };
        live.store.accept(&transfer.snapshot, transfer.next);
        transfer.next += 1;
        self.send_piece(transfer)
    }

    /// The last piece came.
    fn whole(&mut self, transfer: Transfer) -> Verdict {
        let Transfer {
            from,
            to,
            number,
            term,
            snapshot,
            ..
        } = transfer;
        let Some(live) = self.nodes.live(to) else {
            return Ok(());
        };
        live.process.transfers.receiving = None;
        let whole = live.store.finish(&snapshot);
        demand(whole, "a resumed snapshot equals the whole", || {
            format!("{to} took in {} from {from}", snapshot.base.position)
        })?;
        let base = Box::new(snapshot.base.clone());
        let (sender, receiver) = (from.node, to.node);
        let delay = self.random.disk.around(MILLISECOND);
        self.schedule.after(
            delay,
            Event::Received {
                to,
                from: sender,
                number,
                term,
                base,
            },
        );
        self.ends(from, receiver, true);
        Ok(())
    }

    /// Whether two nodes have a connection, and the sender lives.
    fn may_transfer(&mut self, from: Run, to: NodeId) -> bool {
        self.nodes.live(from).is_some()
            && self.network.is_open(from.node, to)
            && self.network.is_open(to, from.node)
    }

    /// A transfer that was under way breaks off: its receiver is free for another one.
    fn stops(&mut self, transfer: &Transfer) {
        if let Some(live) = self.nodes.live(transfer.to) {
            live.process.transfers.receiving = None;
        }
        self.breaks_off(transfer.from, transfer.to.node, transfer.number);
    }

    fn breaks_off(&mut self, from: Run, to: NodeId, number: u64) {
        let why = match (
            self.nodes.live(from).is_some(),
            self.network.is_open(from.node, to),
        ) {
            (false, _) => Loss::Down,
            (true, false) => Loss::Cut,
            (true, true) => Loss::Dropped,
        };
        self.tell(|_| trace::Event::Lost { message: number, why });
        self.ends(from, to, false);
    }

    fn ends(&mut self, from: Run, to: NodeId, complete: bool) {
        let delay = self.random.disk.around(MILLISECOND);
        self.schedule.after(delay, Event::Sent { from, to, complete });
    }

    /// A snapshot is whole and durable at its receiver.
    pub(super) fn received(
        &mut self,
        to: Run,
        from: NodeId,
        number: u64,
        term: Term,
        base: Box<Base>,
    ) -> Verdict {
        self.tell(|_| trace::Event::Arrived { message: number });
        self.input(to, Input::Snapshot(SnapshotEvent::Received { from, term, base }))
    }

    /// The sender of a snapshot learns how its transfer went.
    pub(super) fn sent(&mut self, from: Run, to: NodeId, complete: bool) -> Verdict {
        if let Some(live) = self.nodes.live(from) {
            live.process.transfers.sending.retain(|id| *id != to);
        }
        self.input(from, Input::Snapshot(SnapshotEvent::Sent { to, complete }))
    }
}
