//! Three members in memory agree on a log.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::Instant;
use quorate_core::raft::*;

fn member(id: u64) -> Member {
    Member {
        name: id.to_string(),
        directory: DirectoryId(u128::from(id)),
        cluster_address: format!("127.0.0.1:{}", 9100 + id),
        client_address: format!("127.0.0.1:{}", 9000 + id),
        promote: false,
    }
}

fn boot(id: u64, ids: &[u64]) -> Boot {
    let membership = Membership::bootstrap(
        Lineage(7),
        ids.iter()
            .map(|id| (NodeId(*id), member(*id)))
            .collect::<BTreeMap<_, _>>(),
    );
    Boot {
        id: NodeId(id),
        hard_state: HardState::default(),
        base: Base {
            position: Position::default(),
            membership,
        },
        terms: vec![],
        memberships: vec![],
        last: Index(0),
        tail: vec![],
        applied: Index(0),
    }
}

/// Runs until nothing is under way at each instant, with an instant network and disk.
fn run(
    nodes: &mut BTreeMap<NodeId, Raft>,
    now: &mut Instant,
    applied: &mut BTreeMap<NodeId, Vec<Position>>,
    ticks: u32,
) {
    for _ in 0..ticks {
        *now = *now + Duration::from_millis(5);
        let mut queue: Vec<(NodeId, Input)> = nodes.keys().map(|id| (*id, Input::Timeout)).collect();
        while let Some((id, input)) = if queue.is_empty() {
            None
        } else {
            Some(queue.remove(0))
        } {
            let raft = nodes.get_mut(&id).unwrap();
            raft.step(*now, input);
            let mut effects = Effects::default();
            raft.drain(&mut effects);
            for (to, message) in effects.send {
                queue.push((to, Input::Receive { from: id, message }));
            }
            for write in effects.write {
                queue.push((
                    id,
                    Input::Persisted {
                        write: write.id,
                        result: Ok(()),
                    },
                ));
            }
            for apply in effects.apply {
                let Apply::Committed(committed) = apply else {
                    panic!("no snapshot here")
                };
                let index = committed.entry.position.index;
                applied.entry(id).or_default().push(committed.entry.position);
                queue.push((id, Input::Applied { index }));
            }
            assert!(effects.fetch.is_empty());
        }
    }
}

#[test]
fn three_members_elect_a_leader_and_apply_the_same_entries() {
    let ids = [1, 2, 3];
    let mut now = Instant::from_nanoseconds(1);
    let mut nodes: BTreeMap<NodeId, Raft> = ids
        .iter()
        .map(|id| {
            (
                NodeId(*id),
                Raft::new(Config::default(), boot(*id, &ids), [*id as u8; 32], now).unwrap(),
            )
        })
        .collect();
    let mut applied = BTreeMap::new();
    run(&mut nodes, &mut now, &mut applied, 100);
    let leader = nodes
        .values()
        .find(|raft| raft.status().role == Role::Leader)
        .expect("a leader")
        .status()
        .id;
    for serial in 0..100 {
        nodes.get_mut(&leader).unwrap().step(
            now,
            Input::Propose {
                token: Token(serial),
                command: Bytes::from("x"),
            },
        );
    }
    run(&mut nodes, &mut now, &mut applied, 100);
    for id in nodes.keys() {
        assert_eq!(
            applied[id].len(),
            101,
            "one hundred commands and the opening entry"
        );
        assert_eq!(applied[id], applied[&leader]);
    }
}
