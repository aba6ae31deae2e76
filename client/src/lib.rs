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
//! A client knows several endpoints and uses one of them until it fails. It repeats a request only where that is safe:
//! reads, and writes that were certainly not appended. A read gives an endpoint that says nothing only a share of its
//! time. A write whose fate is not known is [`Error::UnknownOutcome`], and the caller decides.

mod body;
mod client;
mod connection;
mod endpoint;
mod error;
mod request;

pub use client::{Builder, Client, List, Put};
pub use error::Error;
pub use quorate_api::{Consistency, KeyValue, ListAnswer, NodeName, Problem, ProblemCode};
