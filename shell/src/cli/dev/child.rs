//! One node's process.

use std::fs::{self, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{self, Command};
use tokio::time::Instant;

use super::plan::{Node, Plan};
use super::program::{from_here, invocation, quoted};
use crate::cli::error::CliError;

/// How long a node that ended stays down.
const RESTART_AFTER: Duration = Duration::from_secs(3);
/// A node that ends sooner than this after its start did not get anywhere.
const SHORT_LIFE: Duration = Duration::from_secs(5);
/// After so many short lives in a row it is left alone.
const SHORT_LIVES_MAX: u32 = 3;

/// A node's process, and what becomes of it.
pub(super) struct Child {
    node: Node,
    process: Option<process::Child>,
    started: Instant,
    restart: bool,
    restart_at: Option<Instant>,
    short_lives: u32,
}

impl Child {
    /// Starts the process of `node`.
    pub(super) fn start(node: Node, plan: &Plan, restart: bool) -> Result<Child, CliError> {
        let process = spawn(&node, plan)?;
        Ok(Child {
            node,
            process: Some(process),
            started: Instant::now(),
            restart,
            restart_at: None,
            short_lives: 0,
        })
    }

    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(process::Child::id)
    }

    pub(super) fn log_path(&self) -> String {
        from_here(&self.node.log_file()).display().to_string()
    }

    /// How the process ended, once, if it did.
    pub(super) fn ended(&mut self) -> Result<Option<String>, CliError> {
        let Some(process) = &mut self.process else {
            return Ok(None);
        };
        let pid = process.id();
        let status = process
            .try_wait()
            .map_err(|error| CliError::io(format!("watch {}", self.node.name), error))?;
        let Some(status) = status else {
            return Ok(None);
        };
        self.process = None;
        let pid = pid.map_or("?".to_owned(), |pid| pid.to_string());
        Ok(Some(format!("{} (pid {pid}) {}", self.node.name, how(status))))
    }

    /// Starts the process again when it is time to; tells what happened.
    pub(super) fn look_after(&mut self, plan: &Plan) -> Result<Vec<String>, CliError> {
        let mut lines = Vec::new();
        if let Some(end) = self.ended()? {
            let short = self.started.elapsed() < SHORT_LIFE;
            self.short_lives = if short { self.short_lives + 1 } else { 0 };
            if self.restart && self.short_lives < SHORT_LIVES_MAX {
                self.restart_at = Some(Instant::now() + RESTART_AFTER);
                lines.push(format!("{end}; it starts again in {} s", RESTART_AFTER.as_secs()));
            } else {
                lines.push(format!(
                    "{end}; start it again with: {}",
                    command_line(&self.node)
                ));
                if self.restart {
                    lines.push(self.last_words());
                }
            }
        }
        if self.restart_at.is_some_and(|at| Instant::now() >= at) {
            self.restart_at = None;
            self.process = Some(spawn(&self.node, plan)?);
            self.started = Instant::now();
            let pid = self.pid().map_or("?".to_owned(), |pid| pid.to_string());
            lines.push(format!("{} started again, pid {pid}", self.node.name));
        }
        Ok(lines)
    }

    /// The end of its log.
    pub(super) fn last_words(&self) -> String {
        const LINES: usize = 8;
        let text = fs::read(self.node.log_file()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LINES)..];
        format!("the end of {}:\n  {}", self.log_path(), tail.join("\n  "))
    }

    /// Asks the process to stop.
    pub(super) fn terminate(&mut self) {
        self.restart = false;
        self.restart_at = None;
        let pid = self
            .pid()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Only fails when the process has ended by itself in this moment.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    pub(super) async fn wait(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.wait().await;
        }
    }

    pub(super) async fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill().await;
        }
    }
}

fn spawn(node: &Node, plan: &Plan) -> Result<process::Child, CliError> {
    let program = std::env::current_exe().map_err(|error| CliError::io("find the program itself", error))?;
    let log = node.log_file();
    let open = || OpenOptions::new().create(true).append(true).open(&log);
    let log_error = |error| CliError::io(format!("write {}", log.display()), error);
    let mut command = Command::new(program);
    command
        .arg("serve")
        .arg("--config")
        .arg(node.config_file())
        .arg("--exit-with")
        .arg(std::process::id().to_string())
        .current_dir(plan.directory())
        .stdin(Stdio::null())
        .stdout(open().map_err(log_error)?)
        .stderr(open().map_err(log_error)?)
        // Ctrl-C at the terminal is for `dev`, which then stops the nodes in order.
        .process_group(0)
        .kill_on_drop(true);
    // Variables meant for another node must not reach these; what to log may.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("QUORATE_") && name_text != "QUORATE_LOG" {
            command.env_remove(&name);
        }
    }
    command
        .spawn()
        .map_err(|error| CliError::io(format!("start {}", node.name), error))
}

/// What to type to start the node by hand.
fn command_line(node: &Node) -> String {
    let config = quoted(&from_here(&node.config_file()));
    format!("{} serve --config {config}", invocation())
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "ended".to_owned(),
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(9)) => "was killed (signal 9)".to_owned(),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
