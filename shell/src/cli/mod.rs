//! The command line, one file a command.
//!
//! The commands are ordinary programs around the node: they may read files, clocks and sockets directly, which the node
//! itself does only through its ports. [`serve`] is the door between the two.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod connect;
mod dev;
mod error;
mod force_start;
mod kv;
mod lease;
mod members;
mod nodes;
mod output;
mod secret;
pub mod serve;
mod sessions;
mod settings;
mod status;
mod step_down;
mod stream;
mod txn;
mod units;
mod version;
mod watch;

use error::CliError;

const EXAMPLES: &str = "\
Examples:
  quorate dev                                        three nodes on this machine, to try things out
  quorate status                                     who leads, and how the nodes do
  quorate kv put greeting hello                      write a key
  quorate kv get greeting                            read it, from any node
  quorate serve --config cluster.yaml --node-id 1    run one node

Flags without a command are those of `serve`: `quorate --node-id=1 --config=cluster.yaml`.

Exit codes:
  0  done
  1  another error
  2  wrong usage or configuration
  3  no node could be reached, or none answered in time
  4  the cluster refused: a conflict, a limit, no leader
  5  not found
  6  the outcome of a write is not known";

/// Keeps services available when machines fail.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, after_help = EXAMPLES, arg_required_else_help = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one node
    Serve(Box<serve::ServeArgs>),
    /// Show the configuration that `serve` would run with, and where each value comes from
    Config(Box<serve::ServeArgs>),
    /// Run a whole cluster on this machine, to try things out
    Dev(dev::DevArgs),
    /// Show who leads and how the nodes do
    Status(status::StatusArgs),
    /// Show every node with its addresses and load
    Nodes(nodes::NodesArgs),
    /// Read and write keys
    #[command(subcommand, after_help = kv::EXAMPLES)]
    Kv(kv::KvCommand),
    /// Compare keys, and then do one thing or another, as one change
    #[command(after_help = txn::EXAMPLES)]
    Txn(txn::TxnArgs),
    /// Grant leases, keep them alive, and end them with their keys
    #[command(subcommand, after_help = lease::EXAMPLES)]
    Lease(lease::LeaseCommand),
    /// Event streams: append, read, follow, and consume in groups
    #[command(subcommand, after_help = stream::EXAMPLES)]
    Stream(stream::StreamSubcommand),
    /// Tell what becomes of keys, as it happens
    #[command(after_help = watch::EXAMPLES)]
    Watch(watch::WatchArgs),
    /// Make sessions, see where they are served, and move them
    #[command(subcommand, visible_alias = "session", after_help = sessions::EXAMPLES)]
    Sessions(sessions::SessionsCommand),
    /// Keep settings: sections of JSON values with a history, and schemas that they fit
    #[command(subcommand, after_help = settings::EXAMPLES)]
    Settings(settings::SettingsCommand),
    /// Take in and remove members
    #[command(subcommand, after_help = members::EXAMPLES)]
    Members(members::MembersCommand),
    /// Hand the leadership to another node
    StepDown(step_down::StepDownArgs),
    /// Let a stopped node go on alone, when the majority is lost for good
    ForceStart(force_start::ForceStartArgs),
    /// Make a cluster secret
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Measure a running cluster
    #[command(subcommand, after_help = bench::EXAMPLES)]
    Bench(bench::BenchCommand),
    /// Show the version
    Version,
    /// Other spellings of commands
    #[command(subcommand, hide = true)]
    Cluster(ClusterCommand),
}

/// The spellings of session-cluster-mode.md, where the commands belong to a cluster tool of their own.
#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Show who leads and how the nodes do
    Status(status::StatusArgs),
    /// Show every node with its addresses and load
    Nodes(nodes::NodesArgs),
    /// List sessions
    Sessions(sessions::ListArgs),
    /// Move sessions until the nodes are level
    Rebalance(sessions::RebalanceArgs),
    /// Hand the leadership to another node
    StepDown(step_down::StepDownArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse_from(with_default_command(std::env::args_os().collect()));
    let result = match cli.command {
        Command::Serve(args) => return serve::run(&args),
        Command::Config(args) => return serve::print_config(&args),
        Command::Dev(args) => block_on(dev::run(args)),
        Command::Status(args) | Command::Cluster(ClusterCommand::Status(args)) => block_on(status::run(args)),
        Command::Nodes(args) | Command::Cluster(ClusterCommand::Nodes(args)) => block_on(nodes::run(args)),
        Command::StepDown(args) | Command::Cluster(ClusterCommand::StepDown(args)) => {
            block_on(step_down::run(args))
        }
        Command::Kv(command) => block_on(kv::run(command)),
        Command::Txn(args) => block_on(txn::run(args)),
        Command::Lease(command) => block_on(lease::run(command)),
        Command::Stream(command) => block_on(stream::run(command)),
        Command::Watch(args) => block_on(watch::run(args)),
        Command::Sessions(command) => block_on(sessions::run(command)),
        Command::Settings(command) => block_on(settings::run(command)),
        Command::Cluster(ClusterCommand::Sessions(args)) => {
            block_on(sessions::run(sessions::SessionsCommand::List(args)))
        }
        Command::Cluster(ClusterCommand::Rebalance(args)) => {
            block_on(sessions::run(sessions::SessionsCommand::Rebalance(args)))
        }
        Command::ForceStart(args) => block_on(force_start::run(args)),
        Command::Members(command) => block_on(members::run(command)),
        Command::Secret(command) => secret::run(&command),
        Command::Bench(args) => block_on(bench::run(args)),
        Command::Version => version::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

/// A command line that begins with a flag means `serve`, unless it asks for help or the version. Flags that name a
/// cluster may stand before the command as well as behind it.
fn with_default_command(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let leading = leading_connect_flags(&arguments);
    if leading > 0 && arguments.len() > 1 + leading {
        let flags: Vec<OsString> = arguments.drain(1..=leading).collect();
        // What follows `--` is no flag any more.
        let end = arguments.iter().position(|argument| argument == "--");
        let end = end.unwrap_or(arguments.len());
        arguments.splice(end..end, flags);
        return arguments;
    }
    let first = arguments
        .get(1)
        .and_then(|argument| argument.to_str())
        .unwrap_or_default();
    if first.starts_with('-') && !["-h", "--help", "-V", "--version"].contains(&first) {
        arguments.insert(1, "serve".into());
    }
    arguments
}

/// How many arguments before the command are flags of [`connect::ConnectArgs`] with their values.
fn leading_connect_flags(arguments: &[OsString]) -> usize {
    const FLAGS: [&str; 6] = [
        "--endpoint",
        "--protocol",
        "--timeout",
        "--write-out",
        "--output",
        "-w",
    ];
    let mut count = 0;
    while let Some(argument) = arguments.get(1 + count).and_then(|argument| argument.to_str()) {
        if FLAGS.contains(&argument) {
            count += 2;
        } else if FLAGS.iter().any(|flag| {
            argument
                .strip_prefix(flag)
                .is_some_and(|rest| rest.starts_with('='))
        }) {
            count += 1;
        } else {
            break;
        }
    }
    count
}

/// Runs a command that talks to a cluster.
fn block_on(command: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::io("start the runtime", error))?;
    runtime.block_on(async {
        let result = command.await;
        // Its connections say goodbye when they are dropped, and need a turn for that.
        tokio::task::yield_now().await;
        result
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_without_a_command_are_those_of_serve() {
        let with = |arguments: &[&str]| with_default_command(arguments.iter().map(Into::into).collect());
        assert_eq!(with(&["quorate", "--node-id=1"])[1], "serve");
        assert_eq!(with(&["quorate", "status"])[1], "status");
        assert_eq!(with(&["quorate", "--help"])[1], "--help");
        assert_eq!(with(&["quorate"]).len(), 1);
    }

    #[test]
    fn flags_that_name_a_cluster_may_stand_before_the_command() {
        let with = |line: &str| {
            let words = line.split(' ').map(Into::into).collect();
            let words = with_default_command(words).into_iter();
            let words: Vec<String> = words.map(|word| word.into_string().unwrap()).collect();
            words.join(" ")
        };
        for (given, meant) in [
            ("q --endpoint a:1 status", "q status --endpoint a:1"),
            (
                "q --endpoint=a:1 -w json kv get k",
                "q kv get k --endpoint=a:1 -w json",
            ),
            ("q --timeout 5 kv put k -- -v", "q kv put k --timeout 5 -- -v"),
            ("q --endpoint", "q serve --endpoint"),
        ] {
            assert_eq!(with(given), meant);
        }
    }

    #[test]
    fn every_setting_with_a_flag_is_a_flag_of_serve() {
        let cli = Cli::command();
        let serve = cli.find_subcommand("serve").expect("there is `serve`");
        for flag in crate::config::settings::SETTINGS
            .iter()
            .filter_map(|setting| setting.flag)
        {
            let name = flag.trim_start_matches('-');
            assert!(
                serve
                    .get_arguments()
                    .any(|argument| argument.get_long() == Some(name)),
                "serve does not take {flag}"
            );
        }
    }
}
