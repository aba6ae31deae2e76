//! `quorate sessions create|list|show|route|touch|end|watch|drain|undrain|capacity|rebalance`

use clap::{Args, Subcommand};
use quorate_api::{
    CreateSession, DrainAnswer, NodeName, SessionChange, SessionNews, SessionView, SessionsAnswer,
    TouchSession,
};
use quorate_client::{Consistency, SessionList, Watched};

use super::connect::ConnectArgs;
use super::error::CliError;
use super::kv::OnceArgs;
use super::output::{Format, print, print_json, table, warn};

pub(super) const EXAMPLES: &str = "\
Examples:
  quorate sessions create --id browser-1 --client ada    a session, placed on the least loaded node
  quorate sessions route browser-1                       where it is served
  quorate sessions list --node node2                     what a node owns
  quorate sessions watch --node node2                    what it is given and loses, as it happens
  quorate sessions drain node2                           moves its sessions away, for maintenance
  quorate sessions rebalance                             levels the nodes";

const CREATE_EXAMPLES: &str = "\
Examples:
  quorate sessions create
  quorate sessions create --id browser-1 --client ada --payload '{\"url\": \"https://example.com\"}'

Exit code 4 when there is a session of this id, or no node has room.";

const LIST_EXAMPLES: &str = "\
Examples:
  quorate sessions list
  quorate sessions list --node node2 --limit 20
  quorate sessions list --consistency eventual -w json";

const SHOW_EXAMPLES: &str = "\
Examples:
  quorate sessions show browser-1
  quorate sessions show browser-1 --output json

Exit code 5 when there is no such session.";

const TOUCH_EXAMPLES: &str = "\
Examples:
  quorate sessions touch browser-1               a client says that it is in use
  quorate sessions touch browser-1 --epoch 12    its owner says that it serves it, in this epoch

Exit code 4 when the session is in another epoch, 5 when there is none.";

const WATCH_EXAMPLES: &str = "\
Examples:
  quorate sessions watch                            what becomes of all sessions
  quorate sessions watch --node node2               what a node is given and loses
  quorate sessions watch --node node2 --with-owned  first what it has already
  quorate sessions watch --from-revision 12 -w json

Goes on at another node when its node goes, without a gap or a repeat, until it is interrupted.";

const DRAIN_EXAMPLES: &str = "\
Examples:
  quorate sessions drain node2            moves its sessions away, and lets it take no new ones
  quorate sessions drain node2 --force    even if others get more than they should have
  quorate sessions undrain node2          lets it take sessions again

Exit code 4 when sessions are left; the cluster goes on to move what others have room for.";

#[derive(Debug, Subcommand)]
pub(super) enum SessionsCommand {
    /// Make a session
    #[command(after_help = CREATE_EXAMPLES)]
    Create(CreateArgs),
    /// List sessions
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show a session
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowArgs),
    /// Show where a session is served
    #[command(after_help = "Examples:\n  quorate sessions route browser-1")]
    Route(ShowArgs),
    /// Say that a session is in use
    #[command(after_help = TOUCH_EXAMPLES)]
    Touch(TouchArgs),
    /// End a session
    #[command(
        visible_alias = "delete",
        after_help = "Examples:\n  quorate sessions end browser-1"
    )]
    End(EndArgs),
    /// Tell what becomes of sessions, as it happens
    #[command(after_help = WATCH_EXAMPLES)]
    Watch(WatchArgs),
    /// Move the sessions of a node away
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(DrainArgs),
    /// Let a node take sessions again
    #[command(after_help = "Examples:\n  quorate sessions undrain node2")]
    Undrain(NodeArgs),
    /// Say how many sessions a node may have
    #[command(after_help = "Examples:\n  quorate sessions capacity node2 500")]
    Capacity(CapacityArgs),
    /// Move sessions until the nodes are level
    #[command(after_help = "Examples:\n  quorate sessions rebalance")]
    Rebalance(RebalanceArgs),
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Its id; one that is free otherwise
    #[arg(long)]
    id: Option<String>,
    /// Whose it is
    #[arg(long, default_value = "")]
    client: String,
    /// What goes with it from owner to owner
    #[arg(long)]
    payload: Option<String>,
    #[command(flatten)]
    once: OnceArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Those of this node only
    #[arg(long)]
    node: Option<NodeName>,
    /// Only those whose ids come after this one
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// How many to show
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: u64,
    /// How fresh the list must be: strong, or eventual as the node that answers knows it
    #[arg(long, default_value = "strong", value_parser = consistency)]
    consistency: Consistency,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The session
    session: String,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct TouchArgs {
    /// The session
    session: String,
    /// The epoch in which its owner serves it
    #[arg(long)]
    epoch: Option<u64>,
    /// What goes with it from now on
    #[arg(long)]
    payload: Option<String>,
    #[command(flatten)]
    once: OnceArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct EndArgs {
    /// The session
    session: String,
    /// Only if it is in this epoch
    #[arg(long)]
    epoch: Option<u64>,
    #[command(flatten)]
    once: OnceArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// What this node is given and loses; of all sessions otherwise
    #[arg(long)]
    node: Option<NodeName>,
    /// Tell first what there is already
    #[arg(long, conflicts_with = "from_revision")]
    with_owned: bool,
    /// The first revision to tell of; otherwise what is yet to come
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(u64).range(1..))]
    from_revision: Option<u64>,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    /// The node
    node: NodeName,
    /// Let others get more sessions than they should have
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    once: OnceArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    /// The node
    node: NodeName,
    #[command(flatten)]
    once: OnceArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct CapacityArgs {
    /// The node
    node: NodeName,
    /// How many sessions it may have
    max_sessions: u32,
    #[command(flatten)]
    once: OnceArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(super) struct RebalanceArgs {
    #[command(flatten)]
    once: OnceArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

fn consistency(text: &str) -> Result<Consistency, String> {
    text.parse().map_err(str::to_owned)
}

pub(super) async fn run(command: SessionsCommand) -> Result<(), CliError> {
    match command {
        SessionsCommand::Create(args) => create(args).await,
        SessionsCommand::List(args) => list(args).await,
        SessionsCommand::Show(args) => show(args).await,
        SessionsCommand::Route(args) => route(args).await,
        SessionsCommand::Touch(args) => touch(args).await,
        SessionsCommand::End(args) => end(args).await,
        SessionsCommand::Watch(args) => watch(args).await,
        SessionsCommand::Drain(args) => drain(args).await,
        SessionsCommand::Undrain(args) => undrain(args).await,
        SessionsCommand::Capacity(args) => capacity(args).await,
        SessionsCommand::Rebalance(args) => rebalance(args).await,
    }
}

async fn create(args: CreateArgs) -> Result<(), CliError> {
    let client = args.once.client(&args.connect).await?;
    let request = CreateSession {
        session_id: args.id,
        client: args.client,
        payload: args.payload,
        payload_base64: None,
    };
    placed(&client.create_session(&request).await?, args.connect.format)
}

async fn touch(args: TouchArgs) -> Result<(), CliError> {
    let client = args.once.client(&args.connect).await?;
    let request = TouchSession {
        epoch: args.epoch,
        payload: args.payload,
        payload_base64: None,
    };
    let session = client.touch_session(&args.session, &request).await?;
    placed(&session, args.connect.format)
}

fn placed(session: &SessionView, format: Format) -> Result<(), CliError> {
    match format {
        Format::Json => print_json(session),
        Format::Table => print(&format!(
            "OK, session {} is {}'s in epoch {}\n",
            session.session_id,
            owner(&session.node_id),
            session.epoch
        )),
    }
}

fn owner(node: &Option<NodeName>) -> &str {
    node.as_ref().map_or("a former member", NodeName::as_str)
}

async fn list(args: ListArgs) -> Result<(), CliError> {
    let list = SessionList {
        node: args.node,
        after: args.after,
        limit: Some(args.limit),
    };
    let answer = args.connect.client()?.sessions(&list, args.consistency).await?;
    match args.connect.format {
        Format::Json => return print_json(&answer),
        Format::Table => print(&listing(&answer))?,
    }
    if let (true, Some(last)) = (answer.more, answer.sessions.last()) {
        warn(&format!(
            "there are more sessions; go on with --after {}",
            last.session_id
        ));
    }
    Ok(())
}

fn listing(answer: &SessionsAnswer) -> String {
    if answer.sessions.is_empty() {
        return "no sessions\n".to_owned();
    }
    let head = ["SESSION", "NODE", "EPOCH", "STATUS", "CLIENT"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let row = |session: &SessionView| {
        vec![
            session.session_id.clone(),
            owner(&session.node_id).to_owned(),
            session.epoch.to_string(),
            session.status.as_str().to_owned(),
            session.client.clone(),
        ]
    };
    rows.extend(answer.sessions.iter().map(row));
    table(&rows)
}

async fn show(args: ShowArgs) -> Result<(), CliError> {
    let client = args.connect.client()?;
    let session = client.session(&args.session, Consistency::Linearizable).await?;
    match args.connect.format {
        Format::Json => print_json(&session),
        Format::Table => {
            let payload = session.payload.or(session.payload_base64).unwrap_or_default();
            let row = |name: &str, value: String| vec![name.to_owned(), value];
            print(&table(&[
                row("session", session.session_id),
                row("node", owner(&session.node_id).to_owned()),
                row("epoch", session.epoch.to_string()),
                row("status", session.status.as_str().to_owned()),
                row("client", session.client),
                row("payload", payload),
            ]))
        }
    }
}

async fn route(args: ShowArgs) -> Result<(), CliError> {
    let route = args.connect.client()?.route_session(&args.session).await?;
    match args.connect.format {
        Format::Json => print_json(&route),
        Format::Table => print(&format!(
            "{} is served by {} at {}\n",
            route.session_id, route.node_id, route.node_address
        )),
    }
}

async fn end(args: EndArgs) -> Result<(), CliError> {
    let client = args.once.client(&args.connect).await?;
    let ended = client.end_session(&args.session, args.epoch).await?;
    match args.connect.format {
        Format::Json => print_json(&ended),
        Format::Table => print(&format!("OK, revision {}\n", ended.revision)),
    }
}

async fn watch(args: WatchArgs) -> Result<(), CliError> {
    // Whether anybody is there at all shall be known at once; a failover later on takes its time.
    args.connect.client()?.status().await?;
    let client = args.connect.builder()?.rounds_max(u32::MAX).build();
    let mut from = args.from_revision;
    if args.with_owned {
        let owned = all_sessions(&client, args.node.as_ref()).await?;
        from = Some(owned.revision + 1);
        let events = owned.events;
        let (revision, partial) = (owned.revision, false);
        show_change(
            &SessionChange {
                revision,
                events,
                partial,
            },
            args.connect.format,
        )?;
    }
    let mut watch = client.watch_sessions(args.node.as_ref(), from);
    let mut begun = false;
    loop {
        match watch.next().await {
            Ok(Watched::Change(change)) => show_change(&change, args.connect.format)?,
            Ok(Watched::Progress { .. }) => begun = true,
            Err(error) if begun && error.is_temporary() => {
                let from = watch.position().map_or(0, |position| position + 1);
                warn(&format!(
                    "{error}; looking for a node that goes on from revision {from}"
                ));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a node has, as if it was given at the revision of the first page: a change of a later page comes again.
async fn all_sessions(
    client: &quorate_client::Client,
    node: Option<&NodeName>,
) -> Result<SessionChange, CliError> {
    let mut list = SessionList {
        node: node.cloned(),
        ..SessionList::default()
    };
    let mut revision = None;
    let mut events = Vec::new();
    loop {
        let page = client.sessions(&list, Consistency::Linearizable).await?;
        let first = *revision.get_or_insert(page.revision);
        list.after = page.sessions.last().map(|last| last.session_id.clone());
        // What changed since the first page is told by the watch.
        let known = page
            .sessions
            .into_iter()
            .filter(|session| session.mod_revision <= first);
        events.extend(known.map(|session| SessionNews::Given { session }));
        if !page.more {
            let (revision, partial) = (first, false);
            return Ok(SessionChange {
                revision,
                events,
                partial,
            });
        }
    }
}

fn show_change(change: &SessionChange, format: Format) -> Result<(), CliError> {
    match format {
        Format::Json => {
            let mut line = serde_json::to_string(change)
                .map_err(|error| CliError::Other(format!("the change cannot be written as JSON: {error}")))?;
            line.push('\n');
            print(&line)
        }
        Format::Table => {
            let lines = change.events.iter().map(|event| line(change.revision, event));
            print(&lines.collect::<String>())
        }
    }
}

fn line(revision: u64, event: &SessionNews) -> String {
    let whole = |what: &str, session: &SessionView| {
        let (id, node) = (&session.session_id, owner(&session.node_id));
        format!("{revision}  {what}  {id}  {node}  epoch {}\n", session.epoch)
    };
    match event {
        SessionNews::Given { session } => whole("given  ", session),
        SessionNews::Updated { session } => whole("updated", session),
        SessionNews::Lost {
            session_id,
            epoch,
            node_id: Some(node),
        } => format!("{revision}  lost     {session_id}  now {node}'s  epoch {epoch}\n"),
        SessionNews::Lost {
            session_id, epoch, ..
        } => {
            format!("{revision}  lost     {session_id}  ended  epoch {epoch}\n")
        }
    }
}

pub(super) async fn drain(args: DrainArgs) -> Result<(), CliError> {
    let client = args.once.client(&args.connect).await?;
    let drained = client.drain(&args.node, args.force).await?;
    match args.connect.format {
        Format::Json => print_json(&drained)?,
        Format::Table if drained.success && drained.migrated_sessions == 0 => {
            print(&format!("0 sessions moved: {} had none\n", args.node))?;
        }
        Format::Table => print(&format!("{} sessions moved\n", drained.migrated_sessions))?,
    }
    let DrainAnswer { success, errors, .. } = drained;
    if success {
        return Ok(());
    }
    Err(CliError::Refused(errors.join("; ")))
}

async fn undrain(args: NodeArgs) -> Result<(), CliError> {
    let client = args.once.client(&args.connect).await?;
    let changed = client.undrain(&args.node).await?;
    match args.connect.format {
        Format::Json => print_json(&changed),
        Format::Table => print(&format!("OK, {} takes sessions again\n", args.node)),
    }
}

async fn capacity(args: CapacityArgs) -> Result<(), CliError> {
    let client = args.once.client(&args.connect).await?;
    let changed = client.set_capacity(&args.node, args.max_sessions).await?;
    match args.connect.format {
        Format::Json => print_json(&changed),
        Format::Table => print(&format!(
            "OK, {} may have {} sessions\n",
            args.node, args.max_sessions
        )),
    }
}

async fn rebalance(args: RebalanceArgs) -> Result<(), CliError> {
    let client = args.once.client(&args.connect).await?;
    let answer = client.rebalance().await?;
    match args.connect.format {
        Format::Json => print_json(&answer),
        Format::Table if answer.success => {
            let why = answer
                .reason
                .map_or(String::new(), |reason| format!(": {reason}"));
            print(&format!("{} sessions moved{why}\n", answer.sessions_moved))
        }
        Format::Table => print(&format!(
            "{} sessions moved so far; the cluster goes on\n",
            answer.sessions_moved
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_a_session_is_one_line() {
        let lost = |node_id| SessionNews::Lost {
            session_id: "one".to_owned(),
            epoch: 7,
            node_id,
        };
        let other = NodeName::new("node2".to_owned()).unwrap();
        assert_eq!(
            line(12, &lost(Some(other))),
            "12  lost     one  now node2's  epoch 7\n"
        );
        assert_eq!(line(12, &lost(None)), "12  lost     one  ended  epoch 7\n");
    }
}
