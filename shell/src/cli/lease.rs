//! `quorate lease grant|keep-alive|show|list|revoke`

use std::time::Duration;

use clap::{Args, Subcommand};
use quorate_api::{KEEP_ALIVES_MAX, KeepAliveAnswer, LeaseAnswer, LeaseView, LeasesAnswer};
use quorate_client::{Client, Consistency};

use super::connect::ConnectArgs;
use super::error::CliError;
use super::kv::{OnceArgs, shown};
use super::output::{Format, print, print_json, table, warn};
use super::units::time;

pub(super) const EXAMPLES: &str = "\
Examples:
  quorate lease grant 30s                      a lease of half a minute; prints its id
  quorate kv put member here --lease 7         a key that goes when the lease ends
  quorate lease keep-alive 7                   keeps it alive until interrupted
  quorate lease show 7                         how long it lasts, and its keys
  quorate lease revoke 7                       ends it, and removes its keys";

const GRANT_EXAMPLES: &str = "\
Examples:
  quorate lease grant 30s
  quorate lease grant 500ms --id 7
  quorate lease grant 5m --output json

Exit code 4 when there is a lease of this id.";

const KEEP_ALIVE_EXAMPLES: &str = "\
Examples:
  quorate lease keep-alive 7            until interrupted, three times in its time to live
  quorate lease keep-alive 7 8 --once   one time

Exit code 5 when a lease is gone.";

const SHOW_EXAMPLES: &str = "\
Examples:
  quorate lease show 7
  quorate lease show 7 --output json

Exit code 5 when there is no such lease.";

const LIST_EXAMPLES: &str = "\
Examples:
  quorate lease list
  quorate lease list --after 7 --limit 20";

const REVOKE_EXAMPLES: &str = "\
Examples:
  quorate lease revoke 7

Exit code 5 when there is no such lease.";

#[derive(Debug, Subcommand)]
pub(super) enum LeaseCommand {
    /// Make a lease
    #[command(after_help = GRANT_EXAMPLES)]
    Grant(GrantArgs),
    /// Give leases their whole time again
    #[command(after_help = KEEP_ALIVE_EXAMPLES)]
    KeepAlive(KeepAliveArgs),
    /// Show how long a lease lasts, and which keys go with it
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowArgs),
    /// List leases
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// End a lease and remove its keys
    #[command(after_help = REVOKE_EXAMPLES)]
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub(super) struct GrantArgs {
    /// How long it lasts without a keep-alive: a number with ms, s, m or h behind it
    #[arg(value_name = "TIME", value_parser = time)]
    ttl: Duration,
    /// Its id; one that is free otherwise
    #[arg(long, value_parser = id)]
    id: Option<u64>,
    #[command(flatten)]
    once: OnceArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct KeepAliveArgs {
    /// The leases
    #[arg(required = true, value_name = "ID", value_parser = id)]
    leases: Vec<u64>,
    /// One time only
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The lease
    #[arg(value_name = "ID", value_parser = id)]
    lease: u64,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only those whose ids come after this one
    #[arg(long, value_name = "ID", value_parser = id)]
    after: Option<u64>,
    /// How many to show
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: u64,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The lease
    #[arg(value_name = "ID", value_parser = id)]
    lease: u64,
    #[command(flatten)]
    once: OnceArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// The id of a lease.
pub(super) fn id(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(id) if id > 0 => Ok(id),
        _ => Err("expected the id of a lease, a number that is not 0".to_owned()),
    }
}

pub(super) async fn run(command: LeaseCommand) -> Result<(), CliError> {
    match command {
        LeaseCommand::Grant(args) => grant(args).await,
        LeaseCommand::KeepAlive(args) => keep_alive(args).await,
        LeaseCommand::Show(args) => show(args).await,
        LeaseCommand::List(args) => list(args).await,
        LeaseCommand::Revoke(args) => revoke(args).await,
    }
}

async fn grant(args: GrantArgs) -> Result<(), CliError> {
    let client = args.once.client(&args.connect).await?;
    let granted = client.grant_lease(args.ttl, args.id).await?;
    match args.connect.format {
        Format::Json => print_json(&granted),
        Format::Table => print(&format!(
            "OK, lease {} lasts {}\n",
            granted.id,
            shown_time(granted.ttl_ms)
        )),
    }
}

async fn keep_alive(args: KeepAliveArgs) -> Result<(), CliError> {
    if args.leases.len() > KEEP_ALIVES_MAX {
        return Err(CliError::Usage(format!(
            "at most {KEEP_ALIVES_MAX} leases at a time"
        )));
    }
    let client = args.connect.client()?;
    loop {
        let kept = keep_once(&client, &args).await?;
        let shortest = kept.leases.iter().map(|lease| lease.ttl_ms).min();
        let Some(shortest) = shortest.filter(|_| !args.once) else {
            return Ok(());
        };
        // Two of three may be lost.
        let pause = tokio::time::sleep(Duration::from_millis(shortest / 3));
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => return Ok(()),
            () = pause => {}
        }
    }
}

async fn keep_once(client: &Client, args: &KeepAliveArgs) -> Result<KeepAliveAnswer, CliError> {
    let kept = client.keep_leases_alive(&args.leases).await?;
    match args.connect.format {
        Format::Json => print_json(&kept)?,
        Format::Table => {
            let line =
                |lease: &LeaseAnswer| format!("lease {} lasts {}\n", lease.id, shown_time(lease.ttl_ms));
            print(&kept.leases.iter().map(line).collect::<String>())?;
        }
    }
    match kept.gone.as_slice() {
        [] => Ok(kept),
        gone => {
            let ids: Vec<String> = gone.iter().map(u64::to_string).collect();
            let ids = ids.join(", ");
            Err(CliError::NotFound(format!(
                "gone: {ids} (never granted, revoked, or run out)"
            )))
        }
    }
}

async fn show(args: ShowArgs) -> Result<(), CliError> {
    let client = args.connect.client()?;
    let lease = client.lease(args.lease, Consistency::Linearizable).await?;
    match args.connect.format {
        Format::Json => print_json(&lease),
        Format::Table => print(&card(&lease)),
    }
}

fn card(lease: &LeaseView) -> String {
    let remaining = lease.remaining_ms.map_or("-".to_owned(), shown_time);
    let mut text = table(&[
        vec!["lease".to_owned(), lease.id.to_string()],
        vec!["time to live".to_owned(), shown_time(lease.ttl_ms)],
        vec!["remaining".to_owned(), remaining],
        vec!["keys".to_owned(), lease.keys.len().to_string()],
    ]);
    for key in &lease.keys {
        text.push_str(&format!("  {}\n", shown(&key.0, usize::MAX)));
    }
    text
}

async fn list(args: ListArgs) -> Result<(), CliError> {
    let client = args.connect.client()?;
    let answer = client.leases(args.after, Some(args.limit)).await?;
    match args.connect.format {
        Format::Json => return print_json(&answer),
        Format::Table => print(&listing(&answer))?,
    }
    if let (true, Some(last)) = (answer.more, answer.leases.last()) {
        warn(&format!("there are more leases; go on with --after {}", last.id));
    }
    Ok(())
}

fn listing(answer: &LeasesAnswer) -> String {
    if answer.leases.is_empty() {
        return "no leases\n".to_owned();
    }
    let mut rows = vec![vec!["LEASE".to_owned(), "TIME TO LIVE".to_owned()]];
    let row = |lease: &LeaseAnswer| vec![lease.id.to_string(), shown_time(lease.ttl_ms)];
    rows.extend(answer.leases.iter().map(row));
    table(&rows)
}

async fn revoke(args: RevokeArgs) -> Result<(), CliError> {
    let client = args.once.client(&args.connect).await?;
    let revoked = client.revoke_lease(args.lease).await?;
    match args.connect.format {
        Format::Json => print_json(&revoked),
        Format::Table => print(&format!(
            "OK, {} keys deleted, revision {}\n",
            revoked.deleted, revoked.revision
        )),
    }
}

/// Milliseconds as a person reads them.
fn shown_time(milliseconds: u64) -> String {
    format!("{}s", milliseconds as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_shown_with_its_keys() {
        let lease = LeaseView {
            id: 7,
            ttl_ms: 10_000,
            remaining_ms: Some(9_500),
            keys: vec![quorate_api::KeyName("a\nb".into())],
        };
        let expected = "lease         7\ntime to live  10s\nremaining     9.5s\nkeys          1\n  a\\nb\n";
        assert_eq!(card(&lease), expected);
    }
}
