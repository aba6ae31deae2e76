//! `quorate step-down`

use clap::Args;
use quorate_api::NodeName;

use super::connect::ConnectArgs;
use super::error::CliError;
use super::output::{Format, print, print_json};

const EXAMPLES: &str = "\
Examples:
  quorate step-down
  quorate step-down --target node3";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StepDownArgs {
    /// The node that shall lead; without it the one that is furthest along
    #[arg(long, value_name = "NODE")]
    target: Option<NodeName>,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn run(args: StepDownArgs) -> Result<(), CliError> {
    let leadership = args
        .connect
        .client_for_change()
        .await?
        .step_down(args.target)
        .await?;
    match args.connect.format {
        Format::Json => print_json(&leadership),
        Format::Table => {
            if let Some(leader) = leadership
                .leader
                .as_ref()
                .filter(|_| leadership.leader == leadership.previous_leader)
            {
                return print(&format!("{leader} leads already\n"));
            }
            let before = leadership
                .previous_leader
                .map_or("the leader".to_owned(), |name| name.to_string());
            let after = leadership
                .leader
                .map_or("the others choose a new leader".to_owned(), |name| {
                    format!("{name} leads")
                });
            print(&format!("{before} stepped down; {after}\n"))
        }
    }
}
