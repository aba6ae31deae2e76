//! What can break.

use quorate_core::raft::NodeId;
use serde::{Deserialize, Serialize};

use super::{Who, duration};
use crate::consensus::network::Cut;
use crate::consensus::schedule::Time;
use crate::random::PartsPerMillion;

/// Something breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fault {
    /// When, since the run began.
    #[serde(with = "duration")]
    pub(crate) at: Time,
    /// What.
    #[serde(flatten)]
    pub(crate) kind: FaultKind,
}

/// What breaks, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub(crate) enum FaultKind {
    /// A process is killed, and started again.
    Crash {
        victim: Who,
        #[serde(with = "duration")]
        down: Time,
    },
    /// All processes are killed at once; they start again one after the other.
    PowerCut {
        #[serde(with = "duration")]
        down: Time,
        #[serde(with = "duration")]
        apart: Time,
    },
    /// Messages between some nodes are lost.
    Partition {
        shape: Shape,
        #[serde(with = "duration")]
        duration: Time,
    },
    /// A node is cut off from another one, both ways, and connected again, over and over.
    Flap {
        one: Who,
        other: Who,
        times: u32,
        #[serde(with = "duration")]
        period: Time,
    },
    /// One direction of a link carries few messages: they queue up, and each comes later than the one before.
    Clog {
        from: Who,
        to: Who,
        #[serde(with = "duration")]
        each: Time,
        #[serde(with = "duration")]
        duration: Time,
    },
    /// Messages of some links wait, and all come when it is over, in order.
    Hold {
        shape: Shape,
        #[serde(with = "duration")]
        duration: Time,
    },
    /// A transport says something of a link that is not so, and takes it back.
    FalseAlarm {
        at_node: Who,
        peer: Who,
        alarm: Alarm,
        #[serde(with = "duration")]
        duration: Time,
    },
    /// Messages are lost, repeated and overtaken everywhere.
    Storm {
        loss: PartsPerMillion,
        duplication: PartsPerMillion,
        spike: PartsPerMillion,
        #[serde(with = "duration")]
        duration: Time,
    },
    /// A process stands still, its clock does not.
    Pause {
        victim: Who,
        #[serde(with = "duration")]
        duration: Time,
    },
    /// A clock goes ahead at once: time passed that the machine slept through, as far as it knows.
    ClockStep {
        victim: Who,
        #[serde(with = "duration")]
        by: Time,
    },
    /// Syncs of a disk take longer.
    SlowDisk {
        victim: Who,
        #[serde(with = "duration")]
        by: Time,
        #[serde(with = "duration")]
        duration: Time,
    },
    /// No sync of a disk ends.
    StalledDisk {
        victim: Who,
        #[serde(with = "duration")]
        duration: Time,
    },
    /// The next sync of a disk fails; its process stops, and is started again.
    FailedSync {
        victim: Who,
        #[serde(with = "duration")]
        down: Time,
    },
    /// A process is killed at a boundary of its input and output, and started again.
    CrashAt {
        victim: Who,
        boundary: Boundary,
        #[serde(with = "duration")]
        down: Time,
    },
    /// Records that were durable are damaged, which the node notices when it starts again: only the first so many
    /// parts of a million of its log are readable, and it may not be known where it ended.
    Rot {
        victim: Who,
        #[serde(with = "duration")]
        down: Time,
        readable: PartsPerMillion,
        end_is_known: bool,
    },
    /// A node loses its disk for ever.
    Wipe { victim: Who },
    /// The date of a machine is wrong, and what its clock measures is not.
    WrongDate {
        victim: Who,
        #[serde(with = "duration")]
        ahead: Time,
        #[serde(with = "duration")]
        duration: Time,
    },
    /// Two machines have each other's addresses.
    Swap {
        one: Who,
        other: Who,
        #[serde(with = "duration")]
        duration: Time,
    },
    /// Packets longer than so many bytes are lost between two machines, without a word (RFC 2923).
    BlackHole {
        one: Who,
        other: Who,
        bytes: u16,
        #[serde(with = "duration")]
        duration: Time,
    },
}

impl FaultKind {
    /// Whether it concerns what only production nodes have: the core simulation passes it over.
    pub(crate) fn is_around_nodes(&self) -> bool {
        matches!(
            self,
            FaultKind::WrongDate { .. } | FaultKind::Swap { .. } | FaultKind::BlackHole { .. }
        )
    }
}

/// Who is cut off from whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Shape {
    /// One node alone.
    Alone(Who),
    /// One node is heard by nobody.
    Unheard(Who),
    /// One node hears nobody.
    Deaf(Who),
    /// Only one node reaches all others: a bridge.
    Bridge(Who),
    /// Two nodes, away from all others.
    Two(Who, Who),
    /// One direction of one link.
    Link(Who, Who),
    /// Two sides: the bit at a node's place says which one it is on.
    Sides(u64),
    /// Single directed pairs: bit `8 * place of the sender + place of the receiver`, counted round.
    Pairs(u64),
}

impl Shape {
    /// The directed pairs that are cut off from each other, among `nodes`.
    pub(crate) fn cut(self, nodes: &[NodeId], find: impl Fn(Who) -> NodeId) -> Cut {
        let victim = match self {
            Shape::Alone(victim) | Shape::Unheard(victim) | Shape::Deaf(victim) | Shape::Bridge(victim) => {
                Some(find(victim))
            }
            Shape::Two(one, _) | Shape::Link(one, _) => Some(find(one)),
            Shape::Sides(_) | Shape::Pairs(_) => None,
        };
        let other = match self {
            Shape::Two(_, other) | Shape::Link(_, other) => Some(find(other)),
            _ => None,
        };
        let hit = |id: NodeId| Some(id) == victim;
        let two = |id: NodeId| hit(id) || Some(id) == other;
        let mut cut = Cut::new();
        for (from_place, from) in nodes.iter().copied().enumerate() {
            for (to_place, to) in nodes.iter().copied().enumerate() {
                let severed = match self {
                    Shape::Alone(_) => hit(from) != hit(to),
                    Shape::Unheard(_) => hit(from) && !hit(to),
                    Shape::Deaf(_) => hit(to) && !hit(from),
                    Shape::Bridge(_) => !hit(from) && !hit(to) && from != to,
                    Shape::Two(..) => two(from) != two(to),
                    Shape::Link(..) => hit(from) && Some(to) == other && from != to,
                    Shape::Sides(sides) => sides >> (from_place % 64) & 1 != sides >> (to_place % 64) & 1,
                    Shape::Pairs(pairs) => from != to && pairs >> ((8 * from_place + to_place) % 64) & 1 == 1,
                };
                if severed {
                    cut.push((from, to));
                }
            }
        }
        cut
    }
}

/// Where a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Boundary {
    /// When a sync is about to end: what it covers is durable in part or not at all.
    BeforeSync,
    /// When a sync has ended, before anybody hears of it.
    AfterSync,
    /// A moment after a vote has become durable.
    AfterVote,
}

/// What a transport can get wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Alarm {
    /// The link fell silent.
    Lost,
    /// The peer's process has ended.
    Refused,
    /// The link was made anew.
    Connected,
}
