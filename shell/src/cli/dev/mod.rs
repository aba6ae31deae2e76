//! `quorate dev`: a whole cluster of real processes on this machine.
//!
//! Everything lives under one directory, which belongs to one `dev` at a time ([`directory`]): the secret, and for each
//! node its configuration, data and log. A second run with the same directory resumes the cluster at the same
//! addresses. The nodes end with this process, however it ends.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

mod child;
mod directory;
mod plan;
mod ports;
mod program;
mod watch;

use child::Child;
use plan::Plan;
use program::{from_here, invocation};
use watch::Watch;

use super::error::CliError;
use super::output::{Style, print, styled, table};

const EXAMPLES: &str = "\
Examples:
  quorate dev                       three nodes, on ports 8000 to 8002 if they are free
  quorate dev --nodes 5 --fresh     five nodes, without what was there before
  quorate dev --base-port 7000      clients at 7000, 7001, ...; nodes at 7100, 7101, ...";

/// How long the cluster may take to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long nodes may take to stop before they are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// How often the nodes are asked who leads.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DevArgs {
    /// How many nodes
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// The first port: clients at it and the following, nodes at 100 more; 0 for any free ports [default: 8000, or
    /// free ports when those are taken]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(0..=65_400))]
    base_port: Option<u16>,
    /// Where secret, configurations, data and logs are kept
    #[arg(long, value_name = "DIR", default_value = "./quorate-dev")]
    data_dir: PathBuf,
    /// Remove what an earlier run left there, and nothing else
    #[arg(long)]
    fresh: bool,
    /// Leave a node that ended as it is, instead of starting it again after 3 seconds
    #[arg(long)]
    no_restart: bool,
}

pub(super) async fn run(args: DevArgs) -> Result<(), CliError> {
    let plan = Plan::make(&args.data_dir, args.nodes, args.base_port, args.fresh)?;
    // Listened to before the first node starts, so that Ctrl-C never leaves one behind.
    let mut stop = Stop::listen()?;
    let mut children = Vec::new();
    for node in plan.nodes() {
        children.push(Child::start(node.clone(), &plan, !args.no_restart)?);
    }
    let result = tokio::select! {
        biased;
        () = stop.wait() => Ok(()),
        result = operate(&plan, &mut children) => result,
    };
    if result.is_ok() {
        say("stopping the nodes; once more Ctrl-C kills them")?;
    }
    stop_all(&mut children, &mut stop).await;
    result
}

/// Waits until the cluster is ready, introduces it, and follows what happens to it.
async fn operate(plan: &Plan, children: &mut [Child]) -> Result<(), CliError> {
    let mut watch = Watch::new(plan)?;
    wait_until_ready(&watch, children).await?;
    watch.poll().await;
    introduce(plan, children, &watch)?;
    watch.announced();
    let mut ticks = interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for child in &mut *children {
            for line in child.look_after(plan)? {
                say(&line)?;
            }
        }
        watch.poll().await;
        for line in watch.changes(|name| pid_of(children, name)) {
            say(&line)?;
        }
    }
}

fn pid_of(children: &[Child], name: &str) -> Option<u32> {
    children
        .iter()
        .find(|child| child.node().name == name)
        .and_then(Child::pid)
}

async fn wait_until_ready(watch: &Watch, children: &mut [Child]) -> Result<(), CliError> {
    say("waiting for the cluster to become ready")?;
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        for child in &mut *children {
            if let Some(end) = child.ended()? {
                return Err(CliError::Other(format!("{end}\n{}", child.last_words())));
            }
        }
        let Some(waiting) = watch.first_unready().await else {
            return Ok(());
        };
        if Instant::now() >= deadline {
            let seconds = READY_TIMEOUT.as_secs();
            let logs: Vec<String> = children.iter().map(Child::log_path).collect();
            return Err(CliError::Other(format!(
                "{waiting} after {seconds} s; see {}",
                logs.join(", ")
            )));
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// The table of nodes, and what to try.
fn introduce(plan: &Plan, children: &[Child], watch: &Watch) -> Result<(), CliError> {
    let heads = ["NODE", "ROLE", "CLIENTS", "CLUSTER", "PID", "DATA"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for child in children {
        let node = child.node();
        rows.push(vec![
            node.name.clone(),
            watch.role(&node.name),
            node.client_address(),
            node.cluster_address(),
            child.pid().map_or("-".to_owned(), |pid| pid.to_string()),
            from_here(&node.data).display().to_string(),
        ]);
    }
    let leader = children
        .iter()
        .find(|child| watch.leads(&child.node().name))
        .or(children.first())
        .and_then(Child::pid)
        .map_or("<pid>".to_owned(), |pid| pid.to_string());
    let endpoint = if plan.has_default_ports() {
        String::new()
    } else {
        format!(" --endpoint {}", plan.endpoints())
    };
    let first = plan
        .nodes()
        .first()
        .map(plan::Node::client_address)
        .unwrap_or_default();
    let program = invocation();
    print(&format!(
        "\n{}\n{}\n  \
         write a key        {program} kv put greeting hello{endpoint}\n                     \
         curl -X PUT http://{first}/v1/kv/greeting -d hello\n  \
         kill the leader    kill -9 {leader}\n  \
         watch the status   watch -n 0.5 {program} status{endpoint}\n\n\
         Ctrl-C stops the cluster; the data stays in {}.\n\n",
        table(&rows),
        styled("Three things to try:", Style::Bold),
        from_here(plan.directory()).display()
    ))
}

fn say(line: &str) -> Result<(), CliError> {
    print(&format!("{line}\n"))
}

/// SIGTERM to all, then SIGKILL to those that do not follow in time.
async fn stop_all(children: &mut [Child], stop: &mut Stop) {
    for child in &mut *children {
        child.terminate();
    }
    let deadline = Instant::now() + STOP_TIMEOUT;
    for child in &mut *children {
        tokio::select! {
            biased;
            () = child.wait() => {}
            () = stop.wait() => child.kill().await,
            () = tokio::time::sleep_until(deadline) => child.kill().await,
        }
    }
}

/// Ctrl-C, SIGTERM and the end of the terminal.
struct Stop {
    signals: [tokio::signal::unix::Signal; 3],
}

impl Stop {
    fn listen() -> Result<Stop, CliError> {
        let listen =
            |kind: SignalKind| signal(kind).map_err(|error| CliError::io("listen for signals", error));
        Ok(Stop {
            signals: [
                listen(SignalKind::interrupt())?,
                listen(SignalKind::terminate())?,
                listen(SignalKind::hangup())?,
            ],
        })
    }

    async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
