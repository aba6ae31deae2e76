//! Quorate's native async client.
//!
//! ```no_run
//! # async fn example() -> Result<(), quorate_client::Error> {
//! use quorate_client::{Client, Consistency, Put};
//!
//! let client = Client::new("10.0.0.1:9000,10.0.0.2:9000,10.0.0.3:9000")?;
//! let written = client.put(b"greeting", "hello", Put::default()).await?;
//! let entry = client.get(b"greeting", Consistency::Linearizable).await?;
//! assert_eq!(entry.map(|entry| entry.mod_revision), Some(written.revision));
//! # Ok(())
//! # }
//! ```
//!
//! A [`Watch`] goes on across failovers without a gap or a repeat:
//!
//! ```no_run
//! # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
//! use quorate_client::{Keys, WatchRequest, Watched};
//!
//! let mut watch = client.watch(WatchRequest::new(Keys::Prefix(b"config/".to_vec())));
//! loop {
//!     match watch.next().await? {
//!         Watched::Change(change) => println!("{:?}", change.events),
//!         Watched::Progress { revision } => println!("told everything up to {revision}"),
//!     }
//! }
//! # }
//! ```
//!
//! A client knows several endpoints and uses one of them until it fails. It repeats a request only where that is safe:
//! reads, and writes that were certainly not appended. A read gives an endpoint that says nothing only a share of its
//! time. A write whose fate is not known is [`Error::UnknownOutcome`], and the caller decides; through [`Client::once`]
//! a write is repeated until its fate is known, and carried out once.

mod body;
mod client;
mod connection;
mod endpoint;
mod error;
mod events;
mod http1;
mod kv;
mod lease;
mod listen;
mod machine;
mod parameters;
mod quic;
mod request;
mod session;
mod settings;
mod stream;
mod tail;
mod watch;

pub use client::{Builder, Client};
pub use connection::Protocol;
pub use error::Error;
pub use events::{EventParser, ServerEvent, TooLong};
pub use kv::{Attach, Delete, Fresh, List, Put, Range};
pub use machine::{Machine, Socket};
pub(crate) use parameters::Parameters;
pub use quorate_api::{
    Consistency, CreateSession, KeyValue, ListAnswer, NewRecord, NodeName, Order, Problem, ProblemCode,
    SessionChange, SessionNews, SessionView, SettingsChange, SettingsNews, SortBy, StreamRecord, TailBatch,
    TouchSession, TxnRequest, WatchChange, WatchEvent,
};
pub use session::SessionList;
pub use settings::Import;
pub use stream::ReadFrom;
pub use tail::{Tail, TailFrom, TailRequest, Tailed};
pub use watch::{Change, Filter, Keys, Watch, WatchRequest, Watched};
