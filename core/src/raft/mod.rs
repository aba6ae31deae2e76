//! Consensus: Raft with pre-vote, check-quorum, learners, joint consensus and asynchronous durability.

mod boot;
mod effects;
mod entry;
mod id;
mod input;
mod membership;
mod message;

pub use boot::{Boot, BootError};
pub use effects::{
    Apply, Committed, Effects, Fetch, Outcome, Refusal, SnapshotOp, StepDown, TraceEvent, Write,
};
pub use entry::{Base, Entry, HardState, Payload};
pub use id::{DirectoryId, FetchId, Index, Lineage, NodeId, Position, Term, Token, WriteId};
pub use input::{DiskError, FetchError, Input, LinkEvent, Operation, SnapshotEvent};
pub use membership::{Change, ChangeError, Member, Membership};
pub use message::{Body, Message};
