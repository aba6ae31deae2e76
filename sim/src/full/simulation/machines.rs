//! What happens to machines: their processes, disks and clocks.

use std::sync::Arc;
use std::time::Duration;

use quorate_core::raft::NodeId;

use super::super::holdings::Holdings;
use super::super::setup::nanoseconds;
use super::Simulation;
use crate::consensus::schedule::Time;

impl Simulation {
    /// Kills a process. What it wrote stays, synced or not.
    pub fn kill(&mut self, node: NodeId) {
        self.world.kill(node, false);
    }

    /// Cuts the power of a machine: of what its process wrote and did not sync, any part may be lost.
    pub fn cut_power(&mut self, node: NodeId) {
        self.world.kill(node, true);
    }

    /// Asks a process to stop, as an operator does; a leader hands over first.
    pub fn stop(&mut self, node: NodeId) {
        self.world.stop(node);
    }

    /// Starts the node of a machine where none runs.
    pub fn start(&mut self, node: NodeId) {
        self.world.start(node);
    }

    /// Cuts the power of a machine, and everything on its disk is lost. It belongs to the cluster, and joins when it is
    /// started.
    pub fn wipe(&mut self, node: NodeId) {
        self.world.members.insert(node);
        self.world.kill(node, true);
        let host = Arc::clone(self.world.host(node));
        host.disk.wipe();
        host.sight.loses_disk(node);
    }

    /// A process stands still for a while, its clock does not.
    pub fn pause(&mut self, node: NodeId, time: Duration) {
        let until = self.until(time);
        self.world.host(node).gate.close(until);
    }

    /// The clock of a machine goes ahead at once.
    pub fn step_clock(&mut self, node: NodeId, by: Duration) {
        self.world.host(node).clock.step(nanoseconds(by));
    }

    /// The date of a machine is this far ahead of the right one; with zero it is right again. What its clock measures stays
    /// as it is.
    pub fn set_date(&mut self, node: NodeId, ahead: Duration) {
        self.world.host(node).clock.set_date(nanoseconds(ahead));
    }

    /// Syncs of the log take longer for a while.
    pub fn slow_disk(&mut self, node: NodeId, by: Duration, time: Duration) {
        let until = self.until(time);
        self.world.host(node).disk.with_habits(|habits| {
            (habits.slow_until, habits.slow_by) = (until, nanoseconds(by));
        });
    }

    /// No sync ends for a while.
    pub fn stall_disk(&mut self, node: NodeId, time: Duration) {
        let until = self.until(time);
        self.world
            .host(node)
            .disk
            .with_habits(|habits| habits.stalled_until = habits.stalled_until.max(until));
    }

    /// The next sync of the log fails: the process stops, and is started again.
    pub fn fail_sync(&mut self, node: NodeId) {
        self.world.host(node).disk.fail_next_sync();
    }

    /// No more can be written to the disk, or there is room again. The process ends when it wants to write, and is
    /// started again and again.
    pub fn fill_disk(&mut self, node: NodeId, full: bool) {
        self.world.host(node).disk.is_full(full);
    }

    /// Starts a node whose cluster is lost alone, in a new lineage, as `quorate force-start` does; what only other nodes
    /// have is lost. It must not run, and nobody else may: whoever comes back has to be wiped, or is set aside.
    pub fn force_start(&mut self, node: NodeId) {
        self.world.force_start(node);
    }

    /// Installs another release on a machine, which its next process is of: 1 is this build; each later one speaks a
    /// newer version with its like, and supports one feature level more.
    pub fn install(&mut self, node: NodeId, release: u16) {
        self.world.host(node).install(release);
    }

    /// How much the process of a node holds of its machine.
    pub fn holdings(&self, node: NodeId) -> Holdings {
        self.world.host(node).holdings()
    }

    pub(super) fn until(&self, time: Duration) -> Time {
        self.world.now.saturating_add(nanoseconds(time))
    }
}
