//! One log line for one trouble: a refused node tries again twice a second, and its operator needs to hear of it once.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use quorate_core::Instant;
use tracing::warn;

use super::event::{Refusal, RefusedBy};
use super::hello::RefusalCode;

/// How long the same trouble is not mentioned again.
const QUIET: Duration = Duration::from_secs(60);
/// How long it is not mentioned again that a node was removed: that stays so.
const QUIET_REMOVED: Duration = Duration::from_secs(3_600);
/// How long a node may be no member before that is mentioned: a node that joins dials the others a moment before they
/// learn of it.
const GRACE: Duration = Duration::from_secs(1);
/// How many troubles are remembered; beyond, the oldest is forgotten and may be mentioned again.
const REMEMBERED_MAX: usize = 256;

type Trouble = (String, RefusalCode, RefusedBy);

/// What is remembered of one trouble.
#[derive(Clone, Copy)]
struct Memory {
    began: Instant,
    mentioned: Option<Instant>,
}

/// The troubles of late.
#[derive(Default)]
pub(super) struct Complaints(Mutex<BTreeMap<Trouble, Memory>>);

impl Complaints {
    /// Logs `refusal` and returns true, unless that was done within the last minute, or it may pass by itself.
    pub(super) fn mention(&self, refusal: &Refusal, now: Instant) -> bool {
        let who = refusal.name.clone().unwrap_or_else(|| refusal.address.clone());
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if troubles.len() >= REMEMBERED_MAX {
            let oldest = troubles.iter().min_by_key(|(_, memory)| memory.began);
            if let Some(oldest) = oldest.map(|(trouble, _)| trouble.clone()) {
                troubles.remove(&oldest);
            }
        }
        let memory = troubles.entry((who, refusal.code, refusal.by)).or_insert(Memory {
            began: now,
            mentioned: None,
        });
        let due = match memory.mentioned {
            Some(last) if refusal.code == RefusalCode::Removed => now.since(last) >= QUIET_REMOVED,
            Some(last) => now.since(last) >= QUIET,
            None => refusal.code != RefusalCode::NotMember || now.since(memory.began) >= GRACE,
        };
        if !due {
            return false;
        }
        memory.mentioned = Some(now);
        drop(troubles);
        let node = refusal.name.as_deref().unwrap_or("unknown");
        let (address, code) = (&refusal.address, refusal.code);
        match refusal.by {
            // Every member says so; the node itself says it once.
            RefusedBy::Them if code == RefusalCode::Removed => {}
            RefusedBy::Us => warn!(node, %address, ?code, "connection refused: {refusal}"),
            RefusedBy::Them => {
                warn!(node, %address, ?code, "connection refused by the other node: {refusal}")
            }
        }
        true
    }

    /// Forgets the troubles with a node that is well again, so that the next one is mentioned at once.
    pub(super) fn resolved(&self, name: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(who, _, _), _| who != name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str, code: RefusalCode) -> Refusal {
        Refusal {
            code,
            by: RefusedBy::Us,
            name: Some(name.to_owned()),
            address: "127.0.0.1:1".to_owned(),
            message: "no".to_owned(),
        }
    }

    #[test]
    fn same_trouble_is_mentioned_once_a_minute_until_it_is_resolved() {
        let complaints = Complaints::default();
        let at = |seconds| Instant::ORIGIN + Duration::from_secs(seconds);
        assert!(complaints.mention(&refusal("a", RefusalCode::Lineage), at(1)));
        assert!(!complaints.mention(&refusal("a", RefusalCode::Lineage), at(60)));
        assert!(complaints.mention(&refusal("a", RefusalCode::Cluster), at(60)));
        assert!(complaints.mention(&refusal("b", RefusalCode::Lineage), at(60)));
        assert!(complaints.mention(&refusal("a", RefusalCode::Lineage), at(61)));
        complaints.resolved("a");
        assert!(complaints.mention(&refusal("a", RefusalCode::Lineage), at(62)));
    }

    #[test]
    fn node_that_is_no_member_yet_is_mentioned_only_when_it_stays_so() {
        let complaints = Complaints::default();
        let refusal = refusal("a", RefusalCode::NotMember);
        let at = |milliseconds| Instant::ORIGIN + Duration::from_millis(milliseconds);
        assert!(!complaints.mention(&refusal, at(0)));
        assert!(!complaints.mention(&refusal, at(999)));
        assert!(complaints.mention(&refusal, at(1_000)));
        assert!(!complaints.mention(&refusal, at(2_000)));
    }

    #[test]
    fn flood_of_different_troubles_is_bounded() {
        let complaints = Complaints::default();
        for number in 0..1_000 {
            let at = Instant::from_nanoseconds(number);
            complaints.mention(&refusal(&number.to_string(), RefusalCode::Cluster), at);
        }
        assert_eq!(complaints.0.lock().unwrap().len(), REMEMBERED_MAX);
    }
}
