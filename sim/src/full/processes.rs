//! Processes of machines: how they are started, asked to stop and killed, and what becomes of one that ends by itself.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use quorate::node::NodeError;
use quorate::storage::StorageError;
use quorate_core::raft::NodeId;

use super::machine::address;
use super::world::{Event, World};
use crate::consensus::checker::{Verdict, demand};
use crate::consensus::schedule::{MILLISECOND, Time};
use crate::random::{Concern, Stream};

/// A process that ended by itself is started again after so long.
const RESTART: Time = 300 * MILLISECOND;

impl World {
    /// Asks the process of a machine to stop; a leader hands over first.
    pub(super) fn stop(&mut self, id: NodeId) {
        if self.host(id).runs() {
            self.stopping.insert(id);
            self.host(id).ask_to_stop();
        }
    }

    /// Asks the process of a machine to stop; some time after it has ended another one is started.
    pub(super) fn restart(&mut self, id: NodeId, down: Time) {
        if self.host(id).runs() {
            self.restarts.insert(id, down);
            self.stop(id);
        }
    }

    /// Ends the process of a machine at once.
    pub(super) fn kill(&mut self, id: NodeId, power_cut: bool) {
        let host = Arc::clone(self.host(id));
        if !host.runs() {
            return;
        }
        self.statistics.crashes += 1;
        if let Some((term, leader)) = self.sight.leader()
            && leader == id
        {
            self.leaderless.get_or_insert((self.now, term));
        }
        host.shall_run(false);
        self.stopping.remove(&id);
        self.restarts.remove(&id);
        self.wires.close_sockets(address(id).into());
        self.wires.has_power(address(id).into(), !power_cut);
        if power_cut {
            host.disk.cut_power();
        } else {
            host.disk.kill();
        }
        self.sight.ends(id);
        self.told.stopped(self.now, id);
        host.gate.open();
        host.streams.cut();
        self.sim.bounce(IpAddr::from(address(id)));
        // What the process did while it was taken down is no end of its own.
        let _ = host.take_end();
    }

    /// Forces the start of a node alone: the cluster is this node from here on. Nothing happens where a process runs.
    pub(super) fn force_start(&mut self, id: NodeId) {
        if !self.host(id).runs() {
            self.members = BTreeSet::from([id]);
            self.clients.lineage_ends();
            self.host(id).force();
            self.start(id);
        }
    }

    /// Starts a process where none runs.
    pub(super) fn start(&mut self, id: NodeId) {
        let host = Arc::clone(self.host(id));
        if !host.runs() {
            host.shall_run(true);
            self.wires.has_power(address(id).into(), true);
            self.sim.bounce(IpAddr::from(address(id)));
        }
    }

    /// Processes that ended by themselves, or were stopped in the middle of a write.
    pub(super) fn look_after_processes(&mut self) -> Verdict {
        // What it found damaged when it started it has repaired, or is repairing.
        self.rotten = self.rotten.filter(|id| !self.sight.works(*id));
        for id in self.nodes() {
            let host = Arc::clone(self.host(id));
            if host.disk.has_stopped() {
                self.statistics.boundary_crashes += 1;
                let power_cut =
                    Stream::keyed(self.plan.noise, Concern::Machines, self.now << 8 | 2).chance(500_000);
                self.kill(id, power_cut);
                self.schedule.at(self.now + RESTART, Event::Start(id));
            } else if let Some(end) = host.take_end() {
                self.ended(id, end)?;
            }
        }
        Ok(())
    }

    /// A node stopped by itself, which it may when it was asked to, or when its disk is broken.
    fn ended(&mut self, id: NodeId, end: Result<(), NodeError>) -> Verdict {
        if end.is_ok() && self.stopping.remove(&id) {
            let down = self.restarts.remove(&id);
            self.kill(id, false);
            if let Some(down) = down {
                self.schedule.at(self.now + down, Event::Start(id));
            }
            return Ok(());
        }
        if let Err(NodeError::Storage(StorageError::Damaged { .. })) = &end
            && self.rotten.take() == Some(id)
        {
            self.replace_disk(id);
            return Ok(());
        }
        let why = match &end {
            Ok(()) => "without a reason".to_owned(),
            Err(error) => error.to_string(),
        };
        let excused = self.host(id).disk.take_failures() > 0;
        demand(excused, "nodes stop for a reason", || {
            format!("node {id} stops: {why}")
        })?;
        self.statistics.disk_errors += 1;
        self.kill(id, false);
        self.schedule.at(self.now + RESTART, Event::Start(id));
        Ok(())
    }
}
