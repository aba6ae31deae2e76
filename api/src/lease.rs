//! Leases in JSON.

use serde::{Deserialize, Serialize};

use crate::KeyName;

/// How many leases one request may keep alive.
pub const KEEP_ALIVES_MAX: usize = 1_000;

/// The body of `POST /v1/leases`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GrantRequest {
    /// How long the lease lasts without a keep-alive, in milliseconds.
    pub ttl_ms: u64,
    /// Its id, which is not 0; without it one that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
}

/// A lease and how long it lasts: what a grant and a keep-alive answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LeaseAnswer {
    /// Its id.
    pub id: u64,
    /// How long it lasts without a keep-alive, in milliseconds.
    pub ttl_ms: u64,
}

/// The answer to `GET /v1/leases/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LeaseView {
    /// Its id.
    pub id: u64,
    /// How long it lasts without a keep-alive, in milliseconds.
    pub ttl_ms: u64,
    /// How long it still lasts, in milliseconds, as the leader knows; absent from a serializable read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_ms: Option<u64>,
    /// The keys that go with it, ascending.
    pub keys: Vec<KeyName>,
}

/// The answer to `GET /v1/leases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LeasesAnswer {
    /// The leases, by id.
    pub leases: Vec<LeaseAnswer>,
    /// Whether there are more; go on with `after=` and the last id.
    pub more: bool,
}

/// The body of `POST /v1/leases/keep-alive`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct KeepAliveRequest {
    /// The leases to keep alive, at most 1,000.
    pub leases: Vec<u64>,
}

/// The answer to `POST /v1/leases/keep-alive`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct KeepAliveAnswer {
    /// The leases that last, from when the request came.
    pub leases: Vec<LeaseAnswer>,
    /// Those that do not exist: never granted, revoked, or over.
    pub gone: Vec<u64>,
}

/// The answer to `DELETE /v1/leases/{id}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RevokeAnswer {
    /// The store's revision after it.
    pub revision: u64,
    /// How many keys went with the lease.
    pub deleted: u64,
}
