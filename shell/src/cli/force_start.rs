//! `quorate force-start`

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use quorate_core::raft::Member;
use serde::Serialize;

use super::error::CliError;
use super::output::{Format, Style, print, print_json, styled};
use crate::node::Prepared;
use crate::port::system::{ListenerOptions, ports};

const EXAMPLES: &str = "\
Examples:
  quorate force-start --data-dir /var/lib/quorate            shows what is kept and lost, and asks
  quorate force-start --data-dir /var/lib/quorate --yes      for scripts
  quorate force-start --data-dir /var/lib/quorate --dry-run  only shows it

The node must be stopped, and must be the one that has most: compare the `last index` that --dry-run shows on each
survivor. The others are to be stopped too, and join again with empty data directories.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ForceStartArgs {
    /// The data directory of the node
    #[arg(long, value_name = "DIR", env = "QUORATE_DATA_DIR")]
    data_dir: PathBuf,
    /// Do not ask for the name of the node
    #[arg(long)]
    yes: bool,
    /// Show what would be kept and lost, and change nothing
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// How to show it
    #[arg(
        short = 'w',
        long = "output",
        visible_alias = "write-out",
        value_name = "FORMAT",
        value_enum,
        default_value = "table"
    )]
    format: Format,
}

/// What a forced start keeps and leaves behind.
#[derive(Debug, Serialize)]
struct Report {
    node: String,
    cluster: String,
    last_index: u64,
    last_term: u64,
    committed_index: u64,
    damaged: bool,
    old_lineage: String,
    new_lineage: String,
    left_out: Vec<LeftOut>,
    /// Whether the start was forced.
    forced: bool,
}

#[derive(Debug, Serialize)]
struct LeftOut {
    node: String,
    address: String,
}

impl From<&Member> for LeftOut {
    fn from(member: &Member) -> LeftOut {
        LeftOut {
            node: member.name.clone(),
            address: member.cluster_address.clone(),
        }
    }
}

impl Report {
    fn of(prepared: &Prepared) -> Report {
        let start = prepared.start();
        Report {
            node: prepared.node().to_owned(),
            cluster: prepared.cluster().to_owned(),
            last_index: start.kept.index.0,
            last_term: start.kept.term.0,
            committed_index: start.committed.0,
            damaged: prepared.damaged().is_some(),
            old_lineage: start.from.to_string(),
            new_lineage: prepared.lineage().to_string(),
            left_out: start.left_out.iter().map(|(_, member)| member.into()).collect(),
            forced: false,
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "Node {} of cluster {}\n  last index: {} (term {})\n  known to be committed: up to index {}\n",
            styled(&self.node, Style::Bold),
            self.cluster,
            self.last_index,
            self.last_term,
            self.committed_index
        );
        if self.damaged {
            text.push_str("  its log is damaged: entries after the last index are lost\n");
        }
        text.push_str(
            "\nA forced start makes this node a cluster of its own, of which it is the only voter.\n  kept: everything up \
             to the last index, whether it was committed or not\n  lost: whatever only other nodes have\n",
        );
        if self.left_out.is_empty() {
            text.push_str("  left out: nobody\n");
        }
        for LeftOut { node, address } in &self.left_out {
            text.push_str(&format!(
                "  left out: node {node} ({address}); it must join again with an empty data directory\n"
            ));
        }
        text
    }
}

pub(super) async fn run(args: ForceStartArgs) -> Result<(), CliError> {
    let ports = ports(ListenerOptions {
        tcp_nodelay: true,
        keepalive: true,
    });
    let refused = |error: crate::node::ForceError| CliError::Other(error.to_string());
    let prepared = Prepared::open(&ports, &args.data_dir).await.map_err(refused)?;
    let mut report = Report::of(&prepared);
    if args.format == Format::Table {
        print(&report.text())?;
    }
    if !args.dry_run {
        if !args.yes {
            confirm(&report.node)?;
        }
        prepared.make().await.map_err(refused)?;
        report.forced = true;
    }
    match args.format {
        Format::Json => print_json(&report),
        Format::Table if report.forced => print(&format!(
            "\nDone: start node {} as before. Its lineage is {}.\n",
            report.node, report.new_lineage
        )),
        Format::Table => Ok(()),
    }
}

/// Asks for the name of the node, so that nobody forces the wrong one.
fn confirm(node: &str) -> Result<(), CliError> {
    if !io::stdin().is_terminal() {
        let message =
            "standard input is no terminal to ask for the name of the node: give --yes to force the start";
        return Err(CliError::Usage(message.to_owned()));
    }
    print(&format!(
        "\nType the name of the node to force its start ({node}): "
    ))?;
    io::stdout()
        .flush()
        .map_err(|error| CliError::io("write to standard output", error))?;
    let mut line = String::new();
    io::stdin()
        .read_line(&mut line)
        .map_err(|error| CliError::io("read the name of the node", error))?;
    if line.trim() == node {
        Ok(())
    } else {
        Err(CliError::Usage(
            "that is not its name; nothing was changed".to_owned(),
        ))
    }
}
