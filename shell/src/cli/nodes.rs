//! `quorate nodes`

use clap::{Args, Subcommand};
use quorate_api::{NodeView, NodesAnswer};

use super::connect::ConnectArgs;
use super::error::CliError;
use super::output::{Format, Style, print, print_json, styled};
use super::sessions;

const EXAMPLES: &str = "\
Examples:
  quorate nodes
  quorate nodes --endpoint 10.0.0.1:9000 -w json
  quorate nodes drain node3";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct NodesArgs {
    #[command(subcommand)]
    command: Option<NodesCommand>,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Subcommand)]
enum NodesCommand {
    /// Move the sessions of a node away, as `quorate sessions drain`
    Drain(sessions::DrainArgs),
}

pub(super) async fn run(args: NodesArgs) -> Result<(), CliError> {
    if let Some(NodesCommand::Drain(args)) = args.command {
        return sessions::drain(args).await;
    }
    let nodes = args.connect.client()?.nodes().await?;
    match args.connect.format {
        Format::Json => print_json(&nodes),
        Format::Table => print(&text(&nodes)),
    }
}

fn text(answer: &NodesAnswer) -> String {
    let mut text = "Cluster Nodes\n=============\n".to_owned();
    let blocks: Vec<String> = answer.nodes.iter().map(block).collect();
    text.push_str(&blocks.join("\n"));
    text
}

fn block(node: &NodeView) -> String {
    let style = match node.health {
        quorate_api::NodeHealth::Healthy => Style::Good,
        quorate_api::NodeHealth::Degraded | quorate_api::NodeHealth::Unknown => Style::Warn,
        quorate_api::NodeHealth::Unhealthy => Style::Bad,
    };
    let mut text = format!(
        "{} ({})\n  Address: {}\n  HTTP: {}\n  Status: {}\n  Sessions: {}{}\n",
        styled(node.node_id.as_str(), Style::Bold),
        node.role,
        node.raft_address,
        node.api_address,
        styled(&node.health.to_string(), style),
        node.active_sessions,
        if node.draining { " (draining)" } else { "" }
    );
    for (name, percent) in [("CPU", node.cpu_percent), ("Memory", node.memory_percent)] {
        if let Some(percent) = percent {
            text.push_str(&format!("  {name}: {percent:.0} %\n"));
        }
    }
    text
}
