//! Keys, values and orders of the API in the words of the replicated state, and back.

use std::time::Duration;

use quorate_api::{Order, SortBy};
use quorate_core::state::{self, Sort};

pub(super) fn key_value(pair: state::KeyValue) -> quorate_api::KeyValue {
    quorate_api::KeyValue {
        key: pair.key,
        value: pair.value,
        create_revision: pair.create_revision.0,
        mod_revision: pair.mod_revision.0,
        version: pair.version,
        lease: pair.lease.map(state::LeaseId::get),
    }
}

/// None for the order in which keys are found.
pub(super) fn sort(by: SortBy, order: Order) -> Option<Sort> {
    let sort = Sort {
        by: match by {
            SortBy::Key => state::SortBy::Key,
            SortBy::Version => state::SortBy::Version,
            SortBy::CreateRevision => state::SortBy::CreateRevision,
            SortBy::ModRevision => state::SortBy::ModRevision,
            SortBy::Value => state::SortBy::Value,
        },
        descending: order == Order::Descending,
    };
    ((by, order) != (SortBy::default(), Order::default())).then_some(sort)
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
