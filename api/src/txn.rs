//! Transactions in JSON: compare, then do one thing or another, as one change with one revision.
//!
//! ```json
//! {"compare": [{"key": "lock", "version": 0}],
//!  "then": [{"put": {"key": "lock", "value": "me"}}],
//!  "else": [{"get": {"key": "lock"}}]}
//! ```
//!
//! Keys are named by `key`, `prefix`, or `start` and `end`, each also with `_base64`. What is unknown is refused.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::text::{bytes_of, optional_bytes_of, text_or_base64};
use crate::{KeyValue, Order, SortBy};

/// The body of `POST /v1/txn`, and a transaction nested in one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct TxnRequest {
    /// All of them must hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub compare: Vec<TxnCompare>,
    /// Done in order when they do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<TxnOperation>,
    /// Done in order when they do not.
    #[serde(rename = "else", skip_serializing_if = "Vec::is_empty")]
    pub otherwise: Vec<TxnOperation>,
}

/// Which keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnKeys {
    /// This one.
    Key(Bytes),
    /// Those that begin so.
    Prefix(Bytes),
    /// From the first to before the other; without that to the end.
    Range(Bytes, Option<Bytes>),
}

/// A comparison; it holds when it holds for each of its keys that exists. When none does, versions, revisions and lease
/// are compared as 0, and a comparison of the value fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "CompareJson", into = "CompareJson")]
pub struct TxnCompare {
    /// The keys.
    pub keys: TxnKeys,
    /// How what is found relates to what is given.
    pub relation: TxnRelation,
    /// What is compared, and with what.
    pub with: TxnOperand,
}

/// How two values relate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum TxnRelation {
    /// They are equal.
    #[default]
    #[serde(rename = "=", alias = "==")]
    Equal,
    /// They are not equal.
    #[serde(rename = "!=")]
    NotEqual,
    /// What is found is greater.
    #[serde(rename = ">")]
    Greater,
    /// What is found is less.
    #[serde(rename = "<")]
    Less,
}

/// What of a key is compared, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnOperand {
    /// How often it was written; 0 when it does not exist.
    Version(u64),
    /// The revision that created it; 0 when it does not exist.
    CreateRevision(u64),
    /// The revision that wrote its value; 0 when it does not exist.
    ModRevision(u64),
    /// Its value, by the bytes.
    Value(Bytes),
    /// Its lease; 0 for none.
    Lease(u64),
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TxnOperation {
    /// Reads; sees what the transaction has done so far.
    Get(TxnGet),
    /// Gives a key a value.
    Put(TxnPut),
    /// Removes keys.
    Delete(TxnDelete),
    /// Does a nested transaction, whose comparisons look at the state before the whole.
    #[cfg_attr(feature = "schema", schema(no_recursion))]
    Txn(TxnRequest),
}

/// A read in a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "GetJson", into = "GetJson")]
pub struct TxnGet {
    /// The keys.
    pub keys: TxnKeys,
    /// As of which revision; the latest otherwise.
    pub revision: Option<u64>,
    /// How many at the most.
    pub limit: Option<u64>,
    /// In which order.
    pub sort: SortBy,
    /// Which way the order goes.
    pub order: Order,
    /// Whether to leave out the values.
    pub keys_only: bool,
    /// Whether to count the keys and answer nothing else.
    pub count_only: bool,
}

/// A put in a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PutJson", into = "PutJson")]
pub struct TxnPut {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// The lease with which it goes; none otherwise.
    pub lease: Option<u64>,
    /// Whether to answer what it was before.
    pub previous: bool,
}

/// A delete in a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "DeleteJson", into = "DeleteJson")]
pub struct TxnDelete {
    /// The keys.
    pub keys: TxnKeys,
    /// Whether to answer what they were before.
    pub previous: bool,
}

/// The answer to a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TxnAnswer {
    /// The revision after it: its own when it changed anything.
    pub revision: u64,
    /// Whether the comparisons held.
    pub succeeded: bool,
    /// One response for each operation that was done, in order.
    pub responses: Vec<TxnResponse>,
}

/// What a nested transaction did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TxnTaken {
    /// Whether the comparisons held.
    pub succeeded: bool,
    /// One response for each operation that was done, in order.
    pub responses: Vec<TxnResponse>,
}

/// What an operation answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TxnResponse {
    /// What was read.
    Get(TxnFound),
    /// The key has its value.
    Put(TxnPutDone),
    /// The keys are gone.
    Delete(TxnDeleted),
    /// What the nested transaction did.
    #[cfg_attr(feature = "schema", schema(no_recursion))]
    Txn(TxnTaken),
}

/// What a read in a transaction found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TxnFound {
    /// The keys, in the order that was asked for.
    pub entries: Vec<KeyValue>,
    /// Whether there are more: beyond the limit, or beyond about 1 MiB of all that the transaction answers.
    pub more: bool,
    /// How many keys there are, when that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// What a put in a transaction answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TxnPutDone {
    /// What the key was before, when that was asked for and it existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<KeyValue>,
}

/// What a delete in a transaction answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TxnDeleted {
    /// How many keys there were.
    pub deleted: u64,
    /// What they were, as far as that was asked for and there was room.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<KeyValue>,
}

/// Declares how something that names keys looks in JSON: the fields that name them, and its own.
macro_rules! json_with_keys {
    ($(#[$documentation:meta])* struct $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* }) => {
        #[derive(Clone, Default, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
        #[serde(deny_unknown_fields, default)]
        $(#[$documentation])*
        struct $name {
            /// One key, as text.
            #[serde(skip_serializing_if = "Option::is_none")]
            key: Option<String>,
            /// One key, as base64.
            #[serde(skip_serializing_if = "Option::is_none")]
            key_base64: Option<String>,
            /// All keys that begin so, as text.
            #[serde(skip_serializing_if = "Option::is_none")]
            prefix: Option<String>,
            /// All keys that begin so, as base64.
            #[serde(skip_serializing_if = "Option::is_none")]
            prefix_base64: Option<String>,
            /// All keys from this one on, as text.
            #[serde(skip_serializing_if = "Option::is_none")]
            start: Option<String>,
            /// All keys from this one on, as base64.
            #[serde(skip_serializing_if = "Option::is_none")]
            start_base64: Option<String>,
            /// The first key that is not meant any more, as text.
            #[serde(skip_serializing_if = "Option::is_none")]
            end: Option<String>,
            /// The first key that is not meant any more, as base64.
            #[serde(skip_serializing_if = "Option::is_none")]
            end_base64: Option<String>,
            $($(#[$attribute])* $field: $type,)*
        }

        impl $name {
            fn take_keys(&mut self) -> Result<TxnKeys, String> {
                let key = optional("key", self.key.take(), self.key_base64.take())?;
                let prefix = optional("prefix", self.prefix.take(), self.prefix_base64.take())?;
                let start = optional("start", self.start.take(), self.start_base64.take())?;
                let end = optional("end", self.end.take(), self.end_base64.take())?;
                match (key, prefix, start, end) {
                    (Some(key), None, None, None) => Ok(TxnKeys::Key(key)),
                    (None, Some(prefix), None, None) => Ok(TxnKeys::Prefix(prefix)),
                    (None, None, Some(start), end) => Ok(TxnKeys::Range(start, end)),
                    _ => Err("expected one of `key`, `prefix`, or `start` with or without `end`".to_owned()),
                }
            }

            fn with_keys(mut self, keys: &TxnKeys) -> $name {
                match keys {
                    TxnKeys::Key(key) => (self.key, self.key_base64) = split(key),
                    TxnKeys::Prefix(prefix) => (self.prefix, self.prefix_base64) = split(prefix),
                    TxnKeys::Range(start, end) => {
                        (self.start, self.start_base64) = split(start);
                        (self.end, self.end_base64) = end.as_ref().map_or((None, None), |end| split(end));
                    }
                }
                self
            }
        }
    };
}

fn optional(field: &str, text: Option<String>, base64: Option<String>) -> Result<Option<Bytes>, String> {
    optional_bytes_of(field, text.map(Cow::Owned), base64)
}

fn split(bytes: &[u8]) -> (Option<String>, Option<String>) {
    let (text, base64) = text_or_base64(bytes);
    (text.map(Cow::into_owned), base64)
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

json_with_keys! {
    /// How a [`TxnCompare`] looks in JSON.
    #[cfg_attr(feature = "schema", schema(description = "A comparison of one of `version`, `create_revision`, \
        `mod_revision`, `value` and `lease`; it holds when it holds for each of its keys that exists. When none \
        does, versions, revisions and lease are compared as 0, and a comparison of the value fails. Keys are named \
        by `key`, `prefix`, or `start` with or without `end`."))]
    struct CompareJson {
        /// How what is found relates to what is given; `=` when it is left out.
        #[serde(skip_serializing_if = "is_default")]
        relation: TxnRelation,
        /// How often the key was written; 0 when it does not exist.
        #[serde(skip_serializing_if = "Option::is_none")]
        version: Option<u64>,
        /// The revision that created the key; 0 when it does not exist.
        #[serde(skip_serializing_if = "Option::is_none")]
        create_revision: Option<u64>,
        /// The revision that wrote the value; 0 when the key does not exist.
        #[serde(skip_serializing_if = "Option::is_none")]
        mod_revision: Option<u64>,
        /// The value, as text.
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<String>,
        /// The value, as base64.
        #[serde(skip_serializing_if = "Option::is_none")]
        value_base64: Option<String>,
        /// The lease; 0 for none.
        #[serde(skip_serializing_if = "Option::is_none")]
        lease: Option<u64>,
    }
}

looks_as!(TxnCompare, CompareJson);

impl TryFrom<CompareJson> for TxnCompare {
    type Error = String;

    fn try_from(mut json: CompareJson) -> Result<TxnCompare, String> {
        let keys = json.take_keys()?;
        let value = optional("value", json.value, json.value_base64)?;
        let mut given = [
            json.version.map(TxnOperand::Version),
            json.create_revision.map(TxnOperand::CreateRevision),
            json.mod_revision.map(TxnOperand::ModRevision),
            value.map(TxnOperand::Value),
            json.lease.map(TxnOperand::Lease),
        ]
        .into_iter()
        .flatten();
        let (Some(with), None) = (given.next(), given.next()) else {
            return Err(
                "expected one of `version`, `create_revision`, `mod_revision`, `value` and `lease` to \
                        compare with"
                    .to_owned(),
            );
        };
        let relation = json.relation;
        Ok(TxnCompare { keys, relation, with })
    }
}

impl From<TxnCompare> for CompareJson {
    fn from(compare: TxnCompare) -> CompareJson {
        let mut json = CompareJson {
            relation: compare.relation,
            ..CompareJson::default()
        };
        match &compare.with {
            TxnOperand::Version(version) => json.version = Some(*version),
            TxnOperand::CreateRevision(revision) => json.create_revision = Some(*revision),
            TxnOperand::ModRevision(revision) => json.mod_revision = Some(*revision),
            TxnOperand::Value(value) => (json.value, json.value_base64) = split(value),
            TxnOperand::Lease(lease) => json.lease = Some(*lease),
        }
        json.with_keys(&compare.keys)
    }
}

json_with_keys! {
    /// How a [`TxnGet`] looks in JSON.
    #[cfg_attr(feature = "schema", schema(description = "A read in a transaction. Keys are named by `key`, `prefix`, \
        or `start` with or without `end`."))]
    struct GetJson {
        /// As of which revision; the latest otherwise.
        #[serde(skip_serializing_if = "Option::is_none")]
        revision: Option<u64>,
        /// How many at the most.
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
        /// In which order.
        #[serde(skip_serializing_if = "is_default")]
        sort: SortBy,
        /// Which way the order goes.
        #[serde(skip_serializing_if = "is_default")]
        order: Order,
        /// Whether to leave out the values.
        #[serde(skip_serializing_if = "is_false")]
        keys_only: bool,
        /// Whether to count the keys and answer nothing else.
        #[serde(skip_serializing_if = "is_false")]
        count_only: bool,
    }
}

looks_as!(TxnGet, GetJson);

impl TryFrom<GetJson> for TxnGet {
    type Error = String;

    fn try_from(mut json: GetJson) -> Result<TxnGet, String> {
        Ok(TxnGet {
            keys: json.take_keys()?,
            revision: json.revision,
            limit: json.limit,
            sort: json.sort,
            order: json.order,
            keys_only: json.keys_only,
            count_only: json.count_only,
        })
    }
}

impl From<TxnGet> for GetJson {
    fn from(get: TxnGet) -> GetJson {
        GetJson {
            revision: get.revision,
            limit: get.limit,
            sort: get.sort,
            order: get.order,
            keys_only: get.keys_only,
            count_only: get.count_only,
            ..GetJson::default()
        }
        .with_keys(&get.keys)
    }
}

json_with_keys! {
    /// How a [`TxnDelete`] looks in JSON.
    #[cfg_attr(feature = "schema", schema(description = "A delete in a transaction. Keys are named by `key`, \
        `prefix`, or `start` with or without `end`."))]
    struct DeleteJson {
        /// Whether to answer what was there before.
        #[serde(skip_serializing_if = "is_false")]
        previous: bool,
    }
}

looks_as!(TxnDelete, DeleteJson);

impl TryFrom<DeleteJson> for TxnDelete {
    type Error = String;

    fn try_from(mut json: DeleteJson) -> Result<TxnDelete, String> {
        Ok(TxnDelete {
            keys: json.take_keys()?,
            previous: json.previous,
        })
    }
}

impl From<TxnDelete> for DeleteJson {
    fn from(delete: TxnDelete) -> DeleteJson {
        let json = DeleteJson {
            previous: delete.previous,
            ..DeleteJson::default()
        };
        json.with_keys(&delete.keys)
    }
}

/// How a [`TxnPut`] looks in JSON.
#[derive(Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", schema(description = "A put in a transaction."))]
struct PutJson {
    /// One key, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// One key, as base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    /// The value, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// The value, as base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    /// The lease with which it goes; none otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<u64>,
    /// Whether to answer what was there before.
    #[serde(skip_serializing_if = "is_false")]
    previous: bool,
}

looks_as!(TxnPut, PutJson);

impl TryFrom<PutJson> for TxnPut {
    type Error = String;

    fn try_from(json: PutJson) -> Result<TxnPut, String> {
        Ok(TxnPut {
            key: bytes_of("key", json.key.map(Cow::Owned), json.key_base64)?,
            value: bytes_of("value", json.value.map(Cow::Owned), json.value_base64)?,
            lease: json.lease,
            previous: json.previous,
        })
    }
}

impl From<TxnPut> for PutJson {
    fn from(put: TxnPut) -> PutJson {
        let ((key, key_base64), (value, value_base64)) = (split(&put.key), split(&put.value));
        PutJson {
            key,
            key_base64,
            value,
            value_base64,
            lease: put.lease,
            previous: put.previous,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> Result<TxnRequest, String> {
        // From text, so that the place of a mistake is told.
        serde_json::from_str(&value.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_transaction_of_every_part_is_read_and_written_back() {
        let value = json!({
            "compare": [
                {"key": "a", "version": 0},
                {"prefix": "b/", "relation": ">", "mod_revision": 7},
                {"start": "c", "end": "d", "relation": "!=", "value_base64": "/wA="},
                {"start_base64": "/wA=", "relation": "<", "create_revision": 3},
                {"key": "e", "lease": 0}
            ],
            "then": [
                {"put": {"key": "a", "value": "1", "lease": 4, "previous": true}},
                {"get": {"prefix": "b/", "limit": 3, "sort": "mod_revision", "order": "descending", "keys_only": true}},
                {"txn": {"compare": [{"key": "x", "value": "y"}], "else": [{"delete": {"key": "x"}}]}}
            ],
            "else": [{"delete": {"prefix_base64": "/wA=", "previous": true}}, {"get": {"key": "a", "revision": 9}}]
        });
        let request = read(value.clone()).unwrap();
        assert_eq!(
            (request.compare.len(), request.then.len(), request.otherwise.len()),
            (5, 3, 2)
        );
        assert_eq!(serde_json::to_value(&request).unwrap(), value);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (value, part) in [
            (json!({"than": []}), "unknown field `than`"),
            (
                json!({"then": [{"put": {"key": "a"}}]}),
                "either `value` or `value_base64`",
            ),
            (
                json!({"then": [{"put": {"value": "a"}}]}),
                "either `key` or `key_base64`",
            ),
            (
                json!({"then": [{"put": {"key": "a", "value": "b", "laese": 1}}]}),
                "unknown field `laese`",
            ),
            (json!({"then": [{"set": {}}]}), "unknown variant `set`"),
            (json!({"then": [{"get": {}}]}), "expected one of `key`, `prefix`"),
            (
                json!({"then": [{"get": {"key": "a", "prefix": "b"}}]}),
                "expected one of `key`, `prefix`",
            ),
            (json!({"compare": [{"key": "a"}]}), "to compare with"),
            (
                json!({"compare": [{"key": "a", "version": 1, "lease": 2}]}),
                "to compare with",
            ),
            (
                json!({"compare": [{"key": "a", "relation": "~", "version": 1}]}),
                "unknown variant `~`",
            ),
            (json!({"compare": [{"key": "a", "version": -1}]}), "-1"),
        ] {
            let error = read(value).unwrap_err();
            assert!(error.contains(part) && error.contains("column"), "{error}");
        }
    }

    #[test]
    fn a_transaction_nested_without_end_is_refused_and_not_followed() {
        let text = "{\"then\":[{\"txn\":".repeat(10_000);
        assert!(serde_json::from_str::<TxnRequest>(&text).is_err());
    }
}
