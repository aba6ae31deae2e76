//! What only a leader decides, beyond consensus itself.
//!
//! A duty looks at plain data, time included, and says what the leader shall propose; it holds no state of consensus
//! and touches nothing. What depends on time is decided here, and reaches the state machine through the log alone.

mod ages;
mod leases;
mod placement;
mod promotion;
mod streams;

pub use ages::{Ages, Housekeeping, Retention};
pub use leases::{Leases, NotRenewed};
pub use placement::{Host, Placement};
pub use promotion::{Learner, Situation, learner_to_promote};
pub use streams::Trimming;
