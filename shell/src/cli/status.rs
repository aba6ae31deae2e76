//! `quorate status`

use clap::Args;
use quorate_api::{ClusterHealth, ClusterStatus, Mode};

use super::connect::ConnectArgs;
use super::error::CliError;
use super::output::{Format, Style, print, print_json, styled};

const EXAMPLES: &str = "\
Examples:
  quorate status
  quorate status --endpoint 10.0.0.1:9000,10.0.0.2:9000
  quorate status -w json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn run(args: StatusArgs) -> Result<(), CliError> {
    let status = args.connect.client()?.status().await?;
    match args.connect.format {
        Format::Json => print_json(&status),
        Format::Table => print(&text(&status)),
    }
}

fn text(status: &ClusterStatus) -> String {
    let leader = status.leader.as_ref().map_or("none", |leader| leader.as_str());
    let mut text = format!(
        "Cluster Status\n==============\nLeader: {}\nTerm: {}\nNodes: {}\n\nNode Details:\n",
        styled(leader, Style::Bold),
        status.term,
        status.nodes.len()
    );
    for node in &status.nodes {
        text.push_str(&format!(
            "  {}: {} ({})",
            node.node_id, node.role, node.raft_address
        ));
        if node.health != quorate_api::NodeHealth::Healthy {
            text.push_str(&format!(" {}", styled(&node.health.to_string(), Style::Bad)));
        }
        text.push('\n');
    }
    let style = match status.health {
        ClusterHealth::Healthy => Style::Good,
        ClusterHealth::Degraded => Style::Warn,
        ClusterHealth::Unavailable => Style::Bad,
    };
    let health = status.health.to_string().to_uppercase();
    text.push_str(&format!("\nCluster health: {}\n", styled(&health, style)));
    if let Some(reason) = &status.reason {
        text.push_str(&format!("Node {}: {reason}\n", status.node_id));
    }
    if status.mode == Mode::ReadOnly {
        text.push_str("The node that answers has lost the quorum and is read-only\n");
    }
    if !status.wal_sync {
        text.push_str("wal_sync is off: a power cut can lose acknowledged writes\n");
    }
    text
}
