//! A scenario that makes sense: read from a file, with every name known and every step able to be done.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::format::{ACTIONS, Action, Consistency, Expect, File, Limit, Percentiles, StepFields, Wanted};
use crate::consensus::plan::duration;
use crate::consensus::schedule::Time;
use crate::full::{NodeId, Reads, Setup};

/// Groups that a name can stand for beside single nodes.
const GROUPS: [&str; 4] = ["all", "others", "followers", "members"];

/// Releases that nodes can be of.
const RELEASES: u16 = 4;

/// A scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The name of its file.
    pub name: String,
    /// What happens in it, in a sentence.
    pub story: String,
    /// Runs, when nobody wants more or fewer: one for each seed from 1 on.
    pub seeds: u64,
    pub(super) file: PathBuf,
    pub(super) length: Duration,
    pub(super) setup: Setup,
    pub(super) steps: Vec<Step>,
    pub(super) expect: Expect,
    pub(super) never_leads: Vec<NodeId>,
}

/// Something that happens, and what is expected of it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) at: Time,
    pub(super) action: Option<Action>,
    /// The step in a few words.
    pub(super) words: String,
    pub(super) leader: Option<Limit>,
    pub(super) writes: Option<Limit>,
    pub(super) agreement: Option<Limit>,
    pub(super) answer: Option<Wanted>,
    pub(super) answer_time: Option<Limit>,
    pub(super) leads: Option<super::format::Group>,
}

/// Why a file is no scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioError {
    file: PathBuf,
    line: Option<usize>,
    what: String,
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(formatter, ":{line}")?;
        }
        write!(formatter, ": {}", self.what)
    }
}

impl std::error::Error for ScenarioError {}

/// A mistake at a place of the text, when it has one.
struct Mistake {
    at: Option<usize>,
    what: String,
}

impl Mistake {
    fn new(at: Option<usize>, what: impl Into<String>) -> Mistake {
        Mistake {
            at,
            what: what.into(),
        }
    }
}

impl Scenario {
    /// Reads a scenario from a file.
    ///
    /// # Errors
    /// When the file cannot be read, or what it says makes no sense.
    pub fn load(file: &Path) -> Result<Scenario, ScenarioError> {
        let text = std::fs::read_to_string(file).map_err(|error| ScenarioError {
            file: file.to_owned(),
            line: None,
            what: error.to_string(),
        })?;
        Scenario::parse(file, &text)
    }

    /// Reads a scenario from a text that stands in `file`.
    ///
    /// # Errors
    /// When what it says makes no sense.
    pub fn parse(file: &Path, text: &str) -> Result<Scenario, ScenarioError> {
        let line = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
        let refuse = |mistake: Mistake| ScenarioError {
            file: file.to_owned(),
            line: mistake.at.map(line),
            what: mistake.what,
        };
        let parsed: File = toml::from_str(text).map_err(|error| {
            let at = error.span().map(|span| span.start);
            refuse(Mistake::new(at, error.message()))
        })?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        make(file, name.into_owned(), parsed).map_err(refuse)
    }
}

fn make(file: &Path, name: String, parsed: File) -> Result<Scenario, Mistake> {
    let setup = setup(&parsed)?;
    if parsed.story.trim().is_empty() {
        return Err(Mistake::new(
            None,
            "the story is empty: it says in a sentence what happens",
        ));
    }
    if parsed.seeds == 0 {
        return Err(Mistake::new(None, "`seeds` is 0: a scenario runs at least once"));
    }
    let mut names = Names::new(&setup);
    let mut steps = Vec::new();
    for fields in parsed.steps {
        let at = fields.span().start;
        let step = step(fields.into_inner(), parsed.length.0, &mut names);
        steps.push(step.map_err(|what| Mistake::new(Some(at), what))?);
    }
    steps.sort_by_key(|step: &Step| step.at);
    let mut expect = parsed.expect;
    let mut never_leads = Vec::new();
    if let Some(listed) = expect.never_leads.take() {
        let at = listed.span().start;
        for name in listed.into_inner() {
            let node = names.machine(&name);
            let node = node.map_err(|what| Mistake::new(Some(at), format!("never-leads: {what}")))?;
            never_leads.push(node);
        }
    }
    Ok(Scenario {
        name,
        story: parsed.story,
        seeds: parsed.seeds,
        file: file.to_owned(),
        length: Duration::from_nanos(parsed.length.0),
        setup,
        steps,
        expect,
        never_leads,
    })
}

fn setup(file: &File) -> Result<Setup, Mistake> {
    let usual = Setup::default();
    let span = |span: super::format::Span| Duration::from_nanos(span.0);
    let (cluster, machines, network, clients) = (&file.cluster, &file.machines, &file.network, &file.clients);
    let timeouts = cluster.election_timeout.map(|(min, max)| (span(min), span(max)));
    let setup = Setup {
        nodes: cluster.nodes.unwrap_or(usual.nodes),
        learners: cluster.learners.unwrap_or(usual.learners),
        spares: cluster.spares.unwrap_or(usual.spares),
        election_timeout: timeouts.unwrap_or(usual.election_timeout),
        heartbeat: cluster.heartbeat.map_or(usual.heartbeat, span),
        lease_drift: cluster.lease_drift.map(|share| share.0),
        retained_entries: cluster.retained_entries.unwrap_or(usual.retained_entries),
        latency: network.latency.map_or(usual.latency, span),
        loss: network.loss.map_or(usual.loss, |share| share.0),
        sync: machines.sync.map_or(usual.sync, span),
        clock_skew: machines.clock_skew.map_or(usual.clock_skew, |share| share.0),
        requests: clients.requests.unwrap_or(usual.requests),
        reads: match clients.reads {
            None | Some(Consistency::Linearizable) => Reads::Linearizable,
            Some(Consistency::Lease) => Reads::Lease,
            Some(Consistency::Serializable) => {
                let what = "clients.reads: the reads of clients are judged, and serializable ones may be old; use \
                            linearizable or lease";
                return Err(Mistake::new(None, what));
            }
        },
    };
    setup
        .check()
        .map_err(|error| Mistake::new(None, error.to_string()))?;
    Ok(setup)
}

fn step(mut fields: StepFields, length: Time, names: &mut Names) -> Result<Step, String> {
    let actions = fields.actions();
    let answers = fields.answer.is_some() || fields.answer_within.is_some();
    let words: Vec<&str> = actions.iter().map(|(word, _)| *word).collect();
    if actions.len() > 1 {
        return Err(format!(
            "a step does one thing; this one has {}",
            words.join(" and ")
        ));
    }
    let action = actions.into_iter().next().map(|(_, action)| action);
    if action.is_none() && fields.leads.is_none() {
        return Err(format!(
            "a step says what happens: one of {}, or leads",
            ACTIONS.join(", ")
        ));
    }
    if fields.at.0 >= length {
        return Err(format!(
            "the step comes at {}, and the run ends after {}",
            duration::text(fields.at.0),
            duration::text(length)
        ));
    }
    let asks = matches!(
        action,
        Some(
            Action::Write(_)
                | Action::Read(_)
                | Action::Health(_)
                | Action::Transfer(_)
                | Action::Add(_)
                | Action::Remove(_)
        )
    );
    if answers && !asks {
        return Err(
            "only write, read, health, transfer, add and remove have an answer that can be expected"
                .to_owned(),
        );
    }
    let limits = [
        fields.leader_within,
        fields.writes_within,
        fields.agreement_within,
        fields.answer_within,
    ];
    if limits
        .iter()
        .flatten()
        .any(|limit| limit.0 == Percentiles::default())
    {
        return Err("a limit names at least one of p50, p90, p99 and max".to_owned());
    }
    if let Some(group) = &fields.leads {
        names.group(group)?;
    }
    let described = action.as_ref().map(|action| names.look_at(action)).transpose()?;
    let words = match described {
        Some(words) => words,
        None => "look".to_owned(),
    };
    Ok(Step {
        at: fields.at.0,
        words: format!("{} {words}", duration::text(fields.at.0)),
        action,
        leader: fields.leader_within,
        writes: fields.writes_within,
        agreement: fields.agreement_within,
        answer: fields.answer,
        answer_time: fields.answer_within,
        leads: fields.leads,
    })
}

/// The names that are known at a step.
struct Names {
    machines: u64,
    called: BTreeSet<String>,
}

impl Names {
    fn new(setup: &Setup) -> Names {
        Names {
            machines: setup.nodes + setup.learners + setup.spares,
            called: BTreeSet::new(),
        }
    }

    fn machine(&self, name: &str) -> Result<NodeId, String> {
        match name.parse::<u64>() {
            Ok(number) if (1..=self.machines).contains(&number) => Ok(NodeId(number)),
            _ => Err(format!("`{name}` is no machine; they are 1 to {}", self.machines)),
        }
    }

    fn node(&self, name: &str) -> Result<(), String> {
        let follower = name.strip_prefix("follower-").map(str::parse::<u64>);
        let role = name == "leader" || name == "follower" || matches!(follower, Some(Ok(1..)));
        if role || self.called.contains(name) || self.machine(name).is_ok() {
            return Ok(());
        }
        let called: Vec<&str> = self.called.iter().map(String::as_str).collect();
        let called = if called.is_empty() {
            String::new()
        } else {
            format!(", or a name that was called before: {}", called.join(", "))
        };
        Err(format!(
            "`{name}` is no node; use 1 to {}, leader, follower, follower-2 and so on{called}",
            self.machines
        ))
    }

    fn group(&self, group: &super::format::Group) -> Result<(), String> {
        if group.0.is_empty() {
            return Err("a group has at least one node".to_owned());
        }
        for name in &group.0 {
            if !GROUPS.contains(&name.as_str()) {
                self.node(name)
                    .map_err(|what| format!("{what}; groups may also have {}", GROUPS.join(", ")))?;
            }
        }
        Ok(())
    }

    /// The action in words, when every name in it is known.
    fn look_at(&mut self, action: &Action) -> Result<String, String> {
        let (verb, groups) = described(action);
        for group in &groups {
            self.group(group)?;
        }
        match action {
            Action::Call(call) => {
                for (name, node) in &call.0 {
                    self.node(node)?;
                    let number = name.parse::<u64>().is_ok();
                    if number || self.node(name).is_ok() && !self.called.contains(name) {
                        return Err(format!(
                            "`{name}` means something already; call the node something else"
                        ));
                    }
                    self.called.insert(name.clone());
                }
            }
            Action::Add(add) => drop(self.machine(&add.node)?),
            Action::Upgrade(upgrade) if !(1..=RELEASES).contains(&upgrade.to) => {
                return Err(format!("releases are 1 to {RELEASES}"));
            }
            Action::Partition(partition) if partition.groups.len() < 2 => {
                return Err("a partition has at least two groups".to_owned());
            }
            _ => {}
        }
        let groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
        Ok(format!("{verb} {}", groups.join(" | ")).trim_end().to_owned())
    }
}

/// The word for an action, and the nodes that it is about.
fn described(action: &Action) -> (&'static str, Vec<super::format::Group>) {
    use super::format::Group;
    let one = |name: &String| Group(vec![name.clone()]);
    match action {
        Action::Call(_) => ("call", Vec::new()),
        Action::Kill(kill) => ("kill", vec![kill.node.clone()]),
        Action::CutPower(cut) => ("cut-power", vec![cut.node.clone()]),
        Action::Stop(stop) => ("stop", vec![stop.node.clone()]),
        Action::Start(start) => ("start", vec![start.node.clone()]),
        Action::Wipe(wipe) => ("wipe", vec![wipe.node.clone()]),
        Action::Pause(pause) => ("pause", vec![pause.node.clone()]),
        Action::StepClock(step) => ("step-clock", vec![step.node.clone()]),
        Action::SetDate(set) => ("set-date", vec![set.node.clone()]),
        Action::SlowDisk(slow) => ("slow-disk", vec![slow.node.clone()]),
        Action::StallDisk(stall) => ("stall-disk", vec![stall.node.clone()]),
        Action::FailSync(fail) => ("fail-sync", vec![fail.node.clone()]),
        Action::FillDisk(fill) => ("fill-disk", vec![fill.node.clone()]),
        Action::ForceStart(force) => ("force-start", vec![one(&force.node)]),
        Action::Upgrade(upgrade) => ("upgrade", vec![upgrade.node.clone()]),
        Action::Partition(partition) => ("partition", partition.groups.clone()),
        Action::CutOneWay(cut) => ("cut-one-way", vec![cut.from.clone(), cut.to.clone()]),
        Action::Flap(flap) => ("flap", vec![flap.one.clone(), flap.other.clone()]),
        Action::SlowLink(slow) => ("slow-link", vec![slow.one.clone(), slow.other.clone()]),
        Action::ThinLink(thin) => ("thin-link", vec![thin.from.clone(), thin.to.clone()]),
        Action::Storm(_) => ("storm", Vec::new()),
        Action::Heal(_) => ("heal", Vec::new()),
        Action::Transfer(transfer) => ("transfer", transfer.to.iter().map(one).collect()),
        Action::Add(add) => ("add", vec![one(&add.node)]),
        Action::Remove(remove) => ("remove", vec![one(&remove.node)]),
        Action::Write(write) => ("write", vec![one(&write.node)]),
        Action::Read(read) => ("read", vec![one(&read.node)]),
        Action::Health(health) => ("health", vec![one(&health.node)]),
    }
}
