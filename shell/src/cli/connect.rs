//! How a command reaches a cluster.

use std::time::Duration;

use clap::{Args, ValueEnum};
use quorate_client::{Builder, Client};

use super::error::CliError;
use super::output::Format;

/// What the nodes of `quorate dev` listen at, so that plain commands reach it whichever of them is down.
pub(super) const DEFAULT_ENDPOINTS: &str = "127.0.0.1:8000,127.0.0.1:8001,127.0.0.1:8002";

/// What a command speaks with nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Protocol {
    /// QUIC, and HTTP with a node that does not answer to it at once
    Auto,
    /// QUIC alone: encrypted, but not proof of who the node is
    Quic,
    /// HTTP alone
    Http,
}

impl From<Protocol> for quorate_client::Protocol {
    fn from(protocol: Protocol) -> quorate_client::Protocol {
        match protocol {
            Protocol::Auto => quorate_client::Protocol::Auto,
            Protocol::Quic => quorate_client::Protocol::Quic,
            Protocol::Http => quorate_client::Protocol::Http,
        }
    }
}

/// Options of every command that talks to a cluster.
#[derive(Clone, Debug, Args)]
pub(super) struct ConnectArgs {
    /// Nodes to talk to; the next is tried when one does not answer
    #[arg(
        long,
        env = "QUORATE_ENDPOINT",
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        default_value = DEFAULT_ENDPOINTS
    )]
    pub(super) endpoint: Vec<String>,
    /// What to speak with them
    #[arg(
        long,
        env = "QUORATE_PROTOCOL",
        value_enum,
        value_name = "PROTOCOL",
        default_value = "auto"
    )]
    pub(super) protocol: Protocol,
    /// How to show the result
    #[arg(
        short = 'w',
        long = "output",
        visible_alias = "write-out",
        value_enum,
        value_name = "FORMAT",
        default_value = "table"
    )]
    pub(super) format: Format,
    /// How long to wait for an answer, in milliseconds
    #[arg(
        long,
        value_name = "MS",
        default_value_t = 10_000,
        value_parser = clap::value_parser!(u64).range(1..=3_600_000)
    )]
    pub(super) timeout: u64,
}

impl ConnectArgs {
    pub(super) fn endpoints(&self) -> String {
        self.endpoint.join(",")
    }

    pub(super) fn builder(&self) -> Result<Builder, CliError> {
        let builder = Client::builder(&self.endpoints())?.protocol(self.protocol.into());
        // A person at a terminal would rather hear at once that nobody is there.
        Ok(builder.timeout(Duration::from_millis(self.timeout)).rounds_max(2))
    }

    pub(super) fn client(&self) -> Result<Client, CliError> {
        Ok(self.builder()?.build())
    }

    /// A client for a change. Sent to a node that says nothing, its outcome would be unknown; so the client first finds
    /// one that answers, when it has a choice.
    pub(super) async fn client_for_change(&self) -> Result<Client, CliError> {
        let client = self.client()?;
        if self.endpoint.len() > 1 {
            client.status().await?;
        }
        Ok(client)
    }
}
