//! One run of a scenario: its steps are carried out, and what is expected of them is measured.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::check::{Scenario, Step};
use super::format::{Action, Consistency, Group, Health, Mode, Partition, Role, Wanted};
use crate::consensus::Violation;
use crate::consensus::schedule::Time;
use crate::full::{Answer, FoundError, NodeId, Reads, Request, Simulation};

/// What is measured from a step on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Until {
    /// A node leads in a later term.
    Leader,
    /// A write is acknowledged that was asked for since.
    Writes,
    /// All members that run follow one leader, and have everything that was committed by then.
    Agreement,
    /// The answer is here.
    Answer,
}

/// What came of one run.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    /// How long things took after a step: none when they did not come about.
    pub(super) took: BTreeMap<(usize, Until), Option<Duration>>,
    /// Steps whose answer, or leader, was as expected; and what it was when it was not.
    pub(super) met: BTreeMap<usize, Result<(), String>>,
    pub(super) elections: u64,
    pub(super) elected: BTreeMap<NodeId, u64>,
    pub(super) outage: Duration,
    pub(super) recovery: Duration,
    pub(super) unknown_answers: u64,
    /// Acknowledged writes that a forced start lost.
    pub(super) lost_writes: u64,
    /// The features that all members use in the end.
    pub(super) feature_level: u16,
    /// Keys whose history could not be judged in time.
    pub(super) undecided: u64,
    /// The hash over the whole run.
    pub(super) trace: u64,
}

/// Runs a scenario with one seed.
pub(super) fn play(scenario: &Scenario, seed: u64) -> Result<Run, Violation> {
    let simulation = Simulation::found(&scenario.setup, seed).map_err(|error| match error {
        FoundError::Violation(violation) => violation,
        FoundError::Setup(error) => unreachable!("it was checked when the scenario was read: {error}"),
    })?;
    let mut player = Player {
        simulation,
        names: BTreeMap::new(),
        open: Vec::new(),
        later: Vec::new(),
        run: Run::default(),
    };
    let mut steps = scenario.steps.iter().enumerate().peekable();
    while player.simulation.now() < scenario.length {
        while let Some((number, step)) = steps.next_if(|(_, step)| step.at <= player.simulation.time()) {
            player.step(number, step);
        }
        player.do_what_is_due();
        player.simulation.tick()?;
        player.look();
    }
    player.end(scenario)
}

/// Something that has not come about yet.
struct Open {
    step: usize,
    since: Duration,
    what: Awaited,
}

enum Awaited {
    /// An election after so many.
    Leader(u64),
    Writes,
    /// Of every member, up to this entry.
    Agreement(u64),
    Answer(Request),
}

impl Awaited {
    fn until(&self) -> Until {
        match self {
            Awaited::Leader(_) => Until::Leader,
            Awaited::Writes => Until::Writes,
            Awaited::Agreement(_) => Until::Agreement,
            Awaited::Answer(_) => Until::Answer,
        }
    }
}

/// What is done when the time of a step is over.
enum Later {
    /// A process is started.
    Start(NodeId),
    /// There is room on a disk again.
    Empty(NodeId),
}

struct Player {
    simulation: Simulation,
    /// Nodes by the names that they were called.
    names: BTreeMap<String, NodeId>,
    open: Vec<Open>,
    /// What is to be done when.
    later: Vec<(Time, Later)>,
    run: Run,
}

impl Player {
    fn step(&mut self, number: usize, step: &Step) {
        let since = self.simulation.now();
        let (elections, committed) = (self.simulation.elections(), self.simulation.committed());
        if let Some(leads) = &step.leads {
            let met = self.check_leader(leads);
            self.run.met.insert(number, met);
        }
        let asked = match step.action.as_ref().map(|action| self.act(action)) {
            Some(Err(what)) => {
                self.run.met.insert(number, Err(what));
                None
            }
            Some(Ok(request)) => request,
            None => None,
        };
        let mut await_ = |what: Awaited| {
            self.run.took.insert((number, what.until()), None);
            self.open.push(Open {
                step: number,
                since,
                what,
            });
        };
        if step.leader.is_some() {
            await_(Awaited::Leader(elections));
        }
        if step.writes.is_some() {
            await_(Awaited::Writes);
        }
        if step.agreement.is_some() {
            await_(Awaited::Agreement(committed));
        }
        if let Some(request) = asked {
            await_(Awaited::Answer(request));
        }
    }

    fn check_leader(&self, wanted: &Group) -> Result<(), String> {
        let wanted = self.group(wanted, &[])?;
        match self.simulation.leader() {
            Some(leader) if wanted.contains(&leader) => Ok(()),
            Some(leader) => Err(format!("{leader} leads")),
            None => Err("nobody leads".to_owned()),
        }
    }

    fn do_what_is_due(&mut self) {
        let now = self.simulation.time();
        for (_, later) in self
            .later
            .extract_if(.., |(at, _)| *at <= now)
            .collect::<Vec<_>>()
        {
            match later {
                Later::Start(node) => self.simulation.start(node),
                Later::Empty(node) => self.simulation.fill_disk(node, false),
            }
        }
    }

    /// Notes what has come about.
    fn look(&mut self) {
        let (simulation, run) = (&self.simulation, &mut self.run);
        let now = simulation.now();
        self.open.retain(|open| {
            let came = match open.what {
                Awaited::Leader(elections) => {
                    let elected = simulation.elections() > elections && simulation.leader().is_some();
                    elected.then_some(now)
                }
                Awaited::Writes => simulation.served_since(open.since),
                Awaited::Agreement(index) => simulation.agrees_up_to(index).then_some(now),
                Awaited::Answer(request) => simulation.answer(request).map(|(_, at)| at),
            };
            // Answers are judged in the end.
            let keep = came.is_none() || matches!(open.what, Awaited::Answer(_));
            if let Some(came) = came {
                run.took
                    .insert((open.step, open.what.until()), Some(came - open.since));
            }
            keep
        });
    }

    fn end(mut self, scenario: &Scenario) -> Result<Run, Violation> {
        let mut run = std::mem::take(&mut self.run);
        for open in &self.open {
            if let Awaited::Answer(request) = open.what {
                let step = &scenario.steps[open.step];
                run.met.insert(open.step, self.judge(step, request));
            }
        }
        run.outage = self.simulation.longest_outage();
        run.unknown_answers = self.simulation.unknown_answers();
        run.feature_level = self.simulation.feature_level();
        run.elected = self.simulation.elected();
        let outcome = self.simulation.finish()?;
        run.elections = outcome.statistics.elections;
        run.recovery = Duration::from_nanos(outcome.statistics.recovery);
        run.lost_writes = outcome.statistics.lost_writes;
        run.undecided = outcome.statistics.undecided;
        run.trace = outcome.trace;
        Ok(run)
    }

    /// Whether an answer is what the step wants.
    fn judge(&self, step: &Step, request: Request) -> Result<(), String> {
        if let Some(Action::Health(health)) = &step.action {
            return self.judge_health(health, request);
        }
        let Some((answer, _)) = self.simulation.answer(request) else {
            return match step.answer {
                Some(Wanted::NotDone) => Ok(()),
                _ => Err("no answer by the end of the run".to_owned()),
            };
        };
        let fits = match step.answer {
            None => true,
            Some(Wanted::Done) => matches!(answer, Answer::Done),
            Some(Wanted::Refused) => matches!(answer, Answer::Refused(_)),
            Some(Wanted::NotDone) => !matches!(answer, Answer::Done),
        };
        match answer {
            _ if fits => Ok(()),
            Answer::Done => Err("it was done".to_owned()),
            Answer::Refused(why) => Err(format!("it was refused: {why}")),
            Answer::Unknown(why) => Err(format!("nobody knows whether it was done: {why}")),
        }
    }

    fn judge_health(&self, wanted: &Health, request: Request) -> Result<(), String> {
        let Some(health) = self.simulation.health(request) else {
            return Err("the node did not say".to_owned());
        };
        let mode = match health.mode {
            quorate_api::Mode::ReadWrite => Mode::ReadWrite,
            quorate_api::Mode::ReadOnly => Mode::ReadOnly,
        };
        let role = match health.cluster.role {
            quorate_api::Role::Leader => Role::Leader,
            quorate_api::Role::Follower => Role::Follower,
            quorate_api::Role::Candidate => Role::Candidate,
            quorate_api::Role::Learner => Role::Learner,
            other => return Err(format!("it is {other:?}")),
        };
        if wanted.mode.is_some_and(|wanted| wanted != mode) {
            return Err(format!("its mode is {mode:?}"));
        }
        if wanted.role.is_some_and(|wanted| wanted != role) {
            return Err(format!("its role is {role:?}"));
        }
        Ok(())
    }
}

/// Who is meant.
impl Player {
    fn node(&self, name: &str) -> Result<NodeId, String> {
        if let Some(node) = self.names.get(name) {
            return Ok(*node);
        }
        if let Ok(number) = name.parse() {
            return Ok(NodeId(number));
        }
        if name == "leader" {
            return self.simulation.leader().ok_or_else(|| "nobody leads".to_owned());
        }
        let place = name.strip_prefix("follower-").map_or(Ok(1), str::parse);
        let followers = self.simulation.followers();
        let found = place.ok().and_then(|place: usize| followers.get(place - 1));
        found.copied().ok_or_else(|| format!("there is no {name} now"))
    }

    /// The nodes of a group; `others` are those that `besides` does not name.
    fn group(&self, group: &Group, besides: &[NodeId]) -> Result<Vec<NodeId>, String> {
        let mut nodes = BTreeSet::new();
        for name in &group.0 {
            match name.as_str() {
                "all" => nodes.extend(self.simulation.nodes()),
                "members" => nodes.extend(self.simulation.members()),
                "followers" => nodes.extend(self.simulation.followers()),
                "others" => {
                    let all = self.simulation.nodes().into_iter();
                    nodes.extend(all.filter(|node| !besides.contains(node)));
                }
                name => drop(nodes.insert(self.node(name)?)),
            }
        }
        Ok(nodes.into_iter().collect())
    }

    /// Two or more groups, of which one may be all others.
    fn groups(&self, groups: &[Group]) -> Result<Vec<Vec<NodeId>>, String> {
        let mut named = Vec::new();
        for group in groups {
            let plain = Group(group.0.iter().filter(|name| *name != "others").cloned().collect());
            named.extend(self.group(&plain, &[])?);
        }
        groups.iter().map(|group| self.group(group, &named)).collect()
    }

    fn pair(&self, one: &Group, other: &Group) -> Result<[Vec<NodeId>; 2], String> {
        let mut groups = self.groups(&[one.clone(), other.clone()])?.into_iter();
        Ok([
            groups.next().unwrap_or_default(),
            groups.next().unwrap_or_default(),
        ])
    }
}

fn span(span: super::format::Span) -> Duration {
    Duration::from_nanos(span.0)
}

/// What steps do.
impl Player {
    /// Carries out an action; a request has an answer later.
    fn act(&mut self, action: &Action) -> Result<Option<Request>, String> {
        match action {
            Action::Call(call) => {
                let found: Result<Vec<_>, String> = call
                    .0
                    .iter()
                    .map(|(name, node)| Ok((name.clone(), self.node(node)?)))
                    .collect();
                self.names.extend(found?);
            }
            Action::Kill(kill) => self.down(&kill.node, kill.time, Simulation::kill)?,
            Action::CutPower(cut) => self.down(&cut.node, cut.time, Simulation::cut_power)?,
            Action::Stop(stop) => self.down(&stop.node, stop.time, Simulation::stop)?,
            Action::Wipe(wipe) => self.down(&wipe.node, wipe.time, Simulation::wipe)?,
            Action::Start(start) => self.each(&start.node, Simulation::start)?,
            Action::Pause(pause) => {
                self.each(&pause.node, |it, node| it.pause(node, span(pause.time)))?;
            }
            Action::StepClock(step) => {
                self.each(&step.node, |it, node| it.step_clock(node, span(step.by)))?;
            }
            Action::SetDate(set) => {
                self.each(&set.node, |it, node| it.set_date(node, span(set.ahead)))?;
            }
            Action::SlowDisk(slow) => self.each(&slow.node, |it, node| {
                it.slow_disk(node, span(slow.by), span(slow.time));
            })?,
            Action::StallDisk(stall) => {
                self.each(&stall.node, |it, node| it.stall_disk(node, span(stall.time)))?;
            }
            Action::FillDisk(fill) => self.fill_disks(&fill.node, fill.time)?,
            Action::ForceStart(force) => {
                let node = self.node(&force.node)?;
                self.simulation.force_start(node);
            }
            Action::Upgrade(upgrade) => self.down(&upgrade.node, Some(upgrade.time), |it, node| {
                it.stop(node);
                it.install(node, upgrade.to);
            })?,
            Action::FailSync(fail) => self.each(&fail.node, Simulation::fail_sync)?,
            Action::Partition(partition) => self.partition(partition)?,
            Action::CutOneWay(cut) => {
                let [from, to] = self.pair(&cut.from, &cut.to)?;
                self.simulation.cut_one_way(&from, &to, cut.time.map(span));
            }
            Action::Flap(flap) => {
                let [one, other] = self.pair(&flap.one, &flap.other)?;
                self.simulation.flap(&one, &other, flap.times, span(flap.period));
            }
            Action::SlowLink(slow) => {
                let [one, other] = self.pair(&slow.one, &slow.other)?;
                self.simulation
                    .delay(&one, &other, span(slow.by), span(slow.time));
            }
            Action::ThinLink(thin) => {
                let [from, to] = self.pair(&thin.from, &thin.to)?;
                self.simulation.clog(&from, &to, span(thin.each), span(thin.time));
            }
            Action::Storm(storm) => {
                let (loss, duplicated, late) = (storm.loss.0, storm.duplicated.0, storm.late.0);
                self.simulation.storm(loss, duplicated, late, span(storm.time));
            }
            Action::Heal(_) => self.simulation.heal(),
            _ => return self.ask(action).map(Some),
        }
        Ok(None)
    }

    /// Asks a node, or the cluster, for something.
    fn ask(&mut self, action: &Action) -> Result<Request, String> {
        Ok(match action {
            Action::Transfer(transfer) => {
                let to = transfer.to.as_ref().map(|name| self.node(name)).transpose()?;
                self.simulation.transfer(to)
            }
            Action::Add(add) => {
                let node = self.node(&add.node)?;
                self.simulation.add(node, add.learner)
            }
            Action::Remove(remove) => {
                let node = self.node(&remove.node)?;
                self.simulation.remove(node)
            }
            Action::Read(read) => {
                let node = self.node(&read.node)?;
                let reads = match read.consistency.unwrap_or(Consistency::Linearizable) {
                    Consistency::Linearizable => Some(Reads::Linearizable),
                    Consistency::Lease => Some(Reads::Lease),
                    Consistency::Serializable => None,
                };
                self.simulation.read(node, reads)
            }
            Action::Health(health) => {
                let node = self.node(&health.node)?;
                self.simulation.ask_health(node)
            }
            Action::Write(write) => {
                let node = self.node(&write.node)?;
                self.simulation.write(node)
            }
            other => unreachable!("{other:?} asks nobody"),
        })
    }

    fn each(&mut self, group: &Group, what: impl Fn(&mut Simulation, NodeId)) -> Result<(), String> {
        for node in self.group(group, &[])? {
            what(&mut self.simulation, node);
        }
        Ok(())
    }

    /// Takes nodes down; after a time they are started again.
    fn down(
        &mut self,
        group: &Group,
        time: Option<super::format::Span>,
        what: impl Fn(&mut Simulation, NodeId),
    ) -> Result<(), String> {
        for node in self.group(group, &[])? {
            what(&mut self.simulation, node);
            if let Some(time) = time {
                self.later
                    .push((self.simulation.time() + time.0, Later::Start(node)));
            }
        }
        Ok(())
    }

    fn fill_disks(&mut self, group: &Group, time: super::format::Span) -> Result<(), String> {
        for node in self.group(group, &[])? {
            self.simulation.fill_disk(node, true);
            self.later
                .push((self.simulation.time() + time.0, Later::Empty(node)));
        }
        Ok(())
    }

    fn partition(&mut self, partition: &Partition) -> Result<(), String> {
        let groups = self.groups(&partition.groups)?;
        let groups: Vec<&[NodeId]> = groups.iter().map(Vec::as_slice).collect();
        self.simulation.partition(&groups, partition.time.map(span));
        Ok(())
    }
}
