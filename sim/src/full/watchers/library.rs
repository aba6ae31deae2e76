//! Watchers over QUIC, through the client library, which finds a node that goes on by itself.

use std::time::Duration;

use quorate_client::{Keys, Watch, WatchRequest, Watched};

use super::{PAUSE, Told, Watcher};
use crate::consensus::trace::hash;

impl Watcher {
    /// Watches until the world ends.
    pub(super) async fn run_over_quic(mut self) {
        let mut watch = self.watch();
        loop {
            match watch.next().await {
                Ok(watched) => {
                    self.all.note(hash(4, format!("{watched:?}").as_bytes()));
                    self.all.told()[self.number].take_in(watched);
                }
                Err(error) if error.is_temporary() => tokio::time::sleep(PAUSE).await,
                Err(error) => {
                    let surprise = format!("its watch ends: {error}");
                    self.all.told()[self.number].surprises.push(surprise);
                    return;
                }
            }
            if self.random.chance(5_000) {
                watch = self.watch();
            }
            if self.random.chance(20_000) {
                // It reads slowly.
                let pause = self.random.below(1_500);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
    }

    /// Begins to watch, or goes on behind what was told, at any node first.
    fn watch(&mut self) -> Watch {
        let mut nodes = self.all.nodes.clone();
        let first = self.random.below(nodes.len() as u64) as usize;
        nodes.rotate_left(first);
        let client = self.all.machine.client(&nodes).expect("addresses are endpoints");
        let mut all = self.all.told();
        let told = &mut all[self.number];
        told.resumed += u64::from(told.began.is_some());
        let keys = Keys::Prefix(told.prefix.as_bytes().to_vec());
        client.watch(WatchRequest {
            from_revision: told.began.map(|_| told.position + 1),
            ..WatchRequest::new(keys)
        })
    }
}

impl Told {
    /// Takes note of what the library says.
    fn take_in(&mut self, watched: Watched) {
        match watched {
            Watched::Change(change) => self.changed(change),
            Watched::Progress { revision } if self.began.is_none() => {
                (self.began, self.position) = (Some(revision), revision);
            }
            Watched::Progress { revision } => self.marked(revision),
        }
    }
}
