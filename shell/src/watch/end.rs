//! Why a watch ends, or there is none.

use std::sync::Arc;

use quorate_core::state::Revision;
use thiserror::Error;
use tokio::sync::watch;

use super::Hub;

/// Why a watch ended, or was not begun.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WatchEnd {
    /// Changes that the watcher did not hear of are no longer known.
    #[error("the changes from revision {from} on are compacted: a watch can begin at revision {oldest}")]
    Compacted {
        /// What the watcher would have heard of next.
        from: Revision,
        /// The oldest revision that a watch can begin with.
        oldest: Revision,
    },
    /// The state was replaced by one that is behind what the watcher may have heard of.
    #[error("this node's state was replaced by one of revision {revision}, which is behind what was told")]
    Replaced {
        /// The revision of the state now.
        revision: Revision,
    },
    /// There are as many watchers as there may be.
    #[error("this node has {limit} watchers already, as many as it may have")]
    TooMany {
        /// How many.
        limit: usize,
    },
    /// The node has lost the quorum, and hears of no changes.
    #[error("this node has lost the quorum, and hears of no changes")]
    QuorumLost,
    /// The node was set aside, or is in no cluster. The text says why.
    #[error("{0}")]
    SetAside(String),
    /// The node stops.
    #[error("this node is stopping")]
    Stopping,
}

/// Ends the watches whenever the node hears of no changes any more, so that their clients go on elsewhere: `why` says so
/// of what the node knows of the cluster.
pub(crate) async fn end_with_the_quorum<V>(
    mut view: watch::Receiver<V>,
    hub: Arc<Hub>,
    why: impl Fn(&V) -> Option<WatchEnd>,
) {
    let mut was_open = true;
    loop {
        let end = why(&view.borrow_and_update());
        match end {
            Some(end) if was_open => {
                hub.close(end);
                was_open = false;
            }
            None if !was_open => {
                hub.reopen();
                was_open = true;
            }
            _ => {}
        }
        // The view ends with the node.
        if view.changed().await.is_err() {
            return;
        }
    }
}
