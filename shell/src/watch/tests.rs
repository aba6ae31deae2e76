use std::time::Duration;

use quorate_api::NodeName;
use quorate_core::raft::{Index, Position, Term};
use quorate_core::state::{Command, KeyRange, Kinds, Space};
use tokio::time::timeout;

use super::*;

/// Nothing here takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(10);

struct Node {
    state: Arc<RwLock<StateMachine>>,
    hub: Arc<Hub>,
}

impl Node {
    fn new(watchers_max: usize) -> Node {
        let state = Arc::new(RwLock::new(StateMachine::new()));
        let name = NodeName::new("1").expect("a name");
        let metrics = Arc::new(Metrics::new(&name, true));
        let hub = Arc::new(Hub::new(Arc::clone(&state), watchers_max, 1, metrics));
        Node { state, hub }
    }

    fn put(&self, key: &'static str, value: impl Into<bytes::Bytes>) {
        self.apply(&Command::put(key, value));
    }

    fn apply(&self, command: &Command) {
        let mut woken = Woken::default();
        {
            let mut state = self.state.write().expect("no test panics with the state");
            let position = Position {
                term: Term(1),
                index: Index(state.applied().index.0 + 1),
            };
            state.apply(position, &command.encode()).expect("a command");
            self.hub.follow(&state, &mut woken);
        }
        woken.wake();
    }

    fn watch(&self, prefix: &'static str, from: Option<u64>) -> Result<Watching, WatchEnd> {
        let interest = Interest {
            space: Space::Keys,
            range: KeyRange::prefix(prefix),
            kinds: Kinds::ALL,
        };
        self.hub.watch(interest, from.map(Revision))
    }
}

async fn revisions(watching: &mut Watching) -> Vec<u64> {
    let page = timeout(PATIENCE, watching.next())
        .await
        .expect("in time")
        .expect("a page");
    page.events.iter().map(|event| event.revision.0).collect()
}

#[tokio::test]
async fn a_watcher_that_waits_is_woken_by_its_keys_only() {
    let node = Arc::new(Node::new(10));
    let mut watching = node.watch("a/", None).expect("a watch");
    let waits = tokio::spawn(async move { (revisions(&mut watching).await, watching.progress()) });
    tokio::task::yield_now().await;
    node.put("b/1", "");
    node.put("a/1", "");
    assert_eq!(waits.await.expect("no panic"), (vec![2], Some(Revision(2))));
}

#[tokio::test]
async fn a_stream_that_is_not_read_holds_nothing_and_is_caught_up_with_from_history() {
    let node = Node::new(10);
    let mut slow = node.watch("a", None).expect("a watch");
    let value = vec![b'x'; 1 << 20];
    for _ in 0..20 {
        node.put("a", value.clone());
    }
    assert_eq!(
        node.hub.far_behind(),
        1,
        "more than all watchers together may hold"
    );
    let mut heard = Vec::new();
    while heard.len() < 20 {
        heard.extend(revisions(&mut slow).await);
    }
    assert_eq!(heard, (1..=20).collect::<Vec<_>>());
    assert_eq!(node.hub.far_behind(), 0);
}

#[tokio::test]
async fn a_watcher_whose_history_is_compacted_away_is_told_so() {
    let node = Node::new(10);
    let mut slow = node.watch("a", None).expect("a watch");
    let value = vec![b'x'; 1 << 20];
    for _ in 0..20 {
        node.put("a", value.clone());
    }
    let revision = Revision(15);
    node.apply(&Command::Compact { revision });
    let end = timeout(PATIENCE, slow.next()).await.expect("in time");
    let (from, oldest) = (Revision(1), Revision(16));
    assert_eq!(end.err(), Some(WatchEnd::Compacted { from, oldest }));
}

#[tokio::test]
async fn watches_end_with_a_reason_when_the_node_cannot_serve_them() {
    let node = Node::new(10);
    let mut watching = node.watch("a", None).expect("a watch");
    let waits = tokio::spawn(async move { watching.next().await.err() });
    tokio::task::yield_now().await;
    node.hub.close(WatchEnd::QuorumLost);
    let end = timeout(PATIENCE, waits)
        .await
        .expect("in time")
        .expect("no panic");
    assert_eq!(end, Some(WatchEnd::QuorumLost));
    assert_eq!(node.watch("a", None).err(), Some(WatchEnd::QuorumLost));
    node.hub.reopen();
    assert!(node.watch("a", None).is_ok());
    node.hub.close(WatchEnd::Stopping);
    node.hub.close(WatchEnd::QuorumLost);
    node.hub.reopen();
    assert_eq!(node.watch("a", None).err(), Some(WatchEnd::Stopping), "for good");
}

#[tokio::test]
async fn a_dropped_watch_makes_room_for_another() {
    let node = Node::new(1);
    let first = node.watch("a", None).expect("a watch");
    assert_eq!(node.watch("a", None).err(), Some(WatchEnd::TooMany { limit: 1 }));
    drop(first);
    assert!(node.watch("a", None).is_ok());
}
