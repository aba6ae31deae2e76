//! What only a leader decides, beyond consensus itself.
//!
//! A duty looks at plain data and says what the leader shall propose; it holds no state of consensus and touches
//! nothing.

mod promotion;

pub use promotion::{Learner, PromotionLimits, Situation, learner_to_promote};
