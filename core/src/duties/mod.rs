//! What only a leader does.
