//! The format of scenario files, as it is written: a story, a cluster, steps, and what is expected.
//!
//! What the words mean together is looked at in [`check`](super::check), who is meant by a name when a step comes.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::consensus::plan::duration;
use crate::consensus::schedule::Time;
use crate::random::PartsPerMillion;

/// A scenario file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct File {
    pub(super) story: String,
    /// Runs, when nobody wants more or fewer.
    #[serde(default = "usual_seeds")]
    pub(super) seeds: u64,
    /// How long a run lasts before everything is healed.
    pub(super) length: Span,
    #[serde(default)]
    pub(super) cluster: Cluster,
    #[serde(default)]
    pub(super) machines: Machines,
    #[serde(default)]
    pub(super) network: Network,
    #[serde(default)]
    pub(super) clients: Clients,
    #[serde(default, rename = "step")]
    pub(super) steps: Vec<Spanned<StepFields>>,
    #[serde(default)]
    pub(super) expect: Expect,
}

fn usual_seeds() -> u64 {
    20
}

/// `[cluster]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Cluster {
    pub(super) nodes: Option<u64>,
    pub(super) learners: Option<u64>,
    pub(super) spares: Option<u64>,
    pub(super) election_timeout: Option<(Span, Span)>,
    pub(super) heartbeat: Option<Span>,
    pub(super) lease_drift: Option<Share>,
    pub(super) retained_entries: Option<u64>,
}

/// `[machines]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Machines {
    pub(super) clock_skew: Option<Share>,
    pub(super) sync: Option<Span>,
}

/// `[network]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Network {
    pub(super) latency: Option<Span>,
    pub(super) loss: Option<Share>,
}

/// `[clients]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Clients {
    pub(super) requests: Option<u64>,
    pub(super) reads: Option<Consistency>,
}

/// `[expect]`: of each run as a whole.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Expect {
    /// Elections at the most, with the first one.
    pub(super) elections: Option<u64>,
    pub(super) never_leads: Option<Spanned<Vec<String>>>,
    /// The longest time without an acknowledged write.
    pub(super) outage: Option<Limit>,
    /// From healing everything at the end to fresh writes.
    pub(super) recovery: Option<Limit>,
    /// Requests at the most of which nobody knows whether they happened.
    pub(super) unknown_answers: Option<u64>,
    /// Acknowledged writes at the most that a forced start loses; without one none is ever lost.
    pub(super) lost_writes: Option<u64>,
    /// The features that all members use in the end.
    pub(super) feature_level: Option<u16>,
}

/// How fresh a read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Consistency {
    Linearizable,
    Lease,
    Serializable,
}

/// What a node answers to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Wanted {
    /// It is done.
    Done,
    /// Certainly nothing happened.
    Refused,
    /// It is not said to be done: refused, or nobody knows.
    NotDone,
}

impl Wanted {
    pub(super) fn word(self) -> &'static str {
        match self {
            Wanted::Done => "done",
            Wanted::Refused => "refused",
            Wanted::NotDone => "not done",
        }
    }
}

macro_rules! steps {
    ($($(#[$documentation:meta])* $name:ident $text:literal: $variant:ident,)*) => {
        /// What a step does.
        #[derive(Clone, Debug)]
        pub(super) enum Action {
            $($(#[$documentation])* $variant($variant),)*
        }

        /// A `[[step]]` as it is written.
        #[derive(Clone, Debug, Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        pub(super) struct StepFields {
            pub(super) at: Span,
            $($name: Option<$variant>,)*
            pub(super) leader_within: Option<Limit>,
            pub(super) writes_within: Option<Limit>,
            pub(super) agreement_within: Option<Limit>,
            pub(super) answer: Option<Wanted>,
            pub(super) answer_within: Option<Limit>,
            pub(super) leads: Option<Group>,
        }

        /// What a step can do, by the words for it.
        pub(super) const ACTIONS: &[&str] = &[$($text),*];

        impl StepFields {
            /// What the step does, by its words; more than one is a mistake.
            pub(super) fn actions(&mut self) -> Vec<(&'static str, Action)> {
                let mut actions = Vec::new();
                $(if let Some(action) = self.$name.take() {
                    actions.push(($text, Action::$variant(action)));
                })*
                actions
            }
        }
    };
}

steps! {
    /// Gives nodes names that later steps use.
    call "call": Call,
    /// Kills processes; what they wrote stays.
    kill "kill": Kill,
    /// Cuts the power: what was not synced is lost in part.
    cut_power "cut-power": CutPower,
    /// Asks processes to stop.
    stop "stop": Stop,
    start "start": Start,
    /// The disk is replaced by a blank one.
    wipe "wipe": Wipe,
    pause "pause": Pause,
    step_clock "step-clock": StepClock,
    /// The date is wrong from here on, or right again; what a clock measures stays as it is.
    set_date "set-date": SetDate,
    slow_disk "slow-disk": SlowDisk,
    stall_disk "stall-disk": StallDisk,
    fail_sync "fail-sync": FailSync,
    /// Nothing more can be written to a disk.
    fill_disk "fill-disk": FillDisk,
    /// Starts a node alone, in a new lineage.
    force_start "force-start": ForceStart,
    /// Stops nodes, and starts them as another release.
    upgrade "upgrade": Upgrade,
    partition "partition": Partition,
    cut_one_way "cut-one-way": CutOneWay,
    flap "flap": Flap,
    slow_link "slow-link": SlowLink,
    thin_link "thin-link": ThinLink,
    storm "storm": Storm,
    /// Connects everything that was cut off.
    heal "heal": Heal,
    transfer "transfer": Transfer,
    add "add": Add,
    remove "remove": Remove,
    write "write": Write,
    read "read": Read,
    health "health": Health,
}

macro_rules! tables {
    ($($name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            #[derive(Clone, Debug, Deserialize)]
            #[serde(deny_unknown_fields, rename_all = "kebab-case")]
            pub(super) struct $name {
                $($(#[$attribute])* pub(super) $field: $type,)*
            }
        )*
    };
}

tables! {
    Kill { node: Group, #[serde(rename = "for")] time: Option<Span>, }
    CutPower { node: Group, #[serde(rename = "for")] time: Option<Span>, }
    Stop { node: Group, #[serde(rename = "for")] time: Option<Span>, }
    Start { node: Group, }
    Wipe { node: Group, #[serde(rename = "for")] time: Option<Span>, }
    Pause { node: Group, #[serde(rename = "for")] time: Span, }
    StepClock { node: Group, by: Span, }
    SetDate { node: Group, ahead: Span, }
    SlowDisk { node: Group, by: Span, #[serde(rename = "for")] time: Span, }
    StallDisk { node: Group, #[serde(rename = "for")] time: Span, }
    FillDisk { node: Group, #[serde(rename = "for")] time: Span, }
    ForceStart { node: String, }
    Upgrade { node: Group, to: u16, #[serde(rename = "for")] time: Span, }
    FailSync { node: Group, }
    Partition { groups: Vec<Group>, #[serde(rename = "for")] time: Option<Span>, }
    CutOneWay { from: Group, to: Group, #[serde(rename = "for")] time: Option<Span>, }
    Flap { one: Group, other: Group, times: u32, period: Span, }
    SlowLink { one: Group, other: Group, by: Span, #[serde(rename = "for")] time: Span, }
    ThinLink { from: Group, to: Group, each: Span, #[serde(rename = "for")] time: Span, }
    Storm {
        #[serde(default)] loss: Share,
        #[serde(default)] duplicated: Share,
        #[serde(default)] late: Share,
        #[serde(rename = "for")] time: Span,
    }
    Heal {}
    Transfer { to: Option<String>, }
    Add { node: String, #[serde(default)] learner: bool, }
    Remove { node: String, }
    Write { node: String, }
    Read { node: String, consistency: Option<Consistency>, }
    Health { node: String, mode: Option<Mode>, role: Option<Role>, }
}

/// Names for nodes, from the moment of the step on.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Call(pub(super) BTreeMap<String, String>);

/// What can be done through a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Mode {
    ReadWrite,
    ReadOnly,
}

/// A node's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Role {
    Leader,
    Follower,
    Candidate,
    Learner,
}

/// A span of time: a number and `ns`, `us`, `ms` or `s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub(super) struct Span(#[serde(with = "duration")] pub(super) Time);

/// A share, as in `12.5%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share(pub(super) PartsPerMillion);

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Share, D::Error> {
        let text = String::deserialize(deserializer)?;
        share(&text).map(Share).ok_or_else(|| {
            D::Error::custom(format!(
                "`{text}` is no share such as 12.5%, with four decimals at the most"
            ))
        })
    }
}

fn share(text: &str) -> Option<PartsPerMillion> {
    let number = text.strip_suffix('%')?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if decimals.len() > 4 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole: PartsPerMillion = whole.parse().ok()?;
    let decimals: PartsPerMillion = format!("{decimals:0<4}").parse().ok()?;
    let parts = whole.checked_mul(10_000)?.checked_add(decimals)?;
    (parts <= 1_000_000).then_some(parts)
}

/// One node or several, by their names.
#[derive(Clone, Debug)]
pub(super) struct Group(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Group {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Group, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Vec<String>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(r#"a node such as "leader" or "2", or a list of them"#)
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Vec<String>, E> {
                Ok(vec![name.to_owned()])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<String>, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element::<String>()? {
                    names.push(name);
                }
                Ok(names)
            }
        }
        deserializer.deserialize_any(Names).map(Group)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.join(" and "))
    }
}

/// How long something may take: at the most, or at percentiles over all runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Percentiles {
    pub(super) p50: Option<Span>,
    pub(super) p90: Option<Span>,
    pub(super) p99: Option<Span>,
    pub(super) max: Option<Span>,
}

/// A limit: a span, or a table of percentiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit(pub(super) Percentiles);

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Limit, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Percentiles;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(r#"a span such as "500ms", or a table with p50, p90, p99 and max"#)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Percentiles, E> {
                let max = duration::parse(text)
                    .ok_or_else(|| E::custom(format!("`{text}` is no span of time such as 12.5ms")))?;
                Ok(Percentiles {
                    max: Some(Span(max)),
                    ..Percentiles::default()
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Percentiles, A::Error> {
                Percentiles::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_any(Either).map(Limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_parts_of_a_hundred() {
        assert_eq!(share("20%"), Some(200_000));
        assert_eq!(share("0.05%"), Some(500));
        assert_eq!(share("100%"), Some(1_000_000));
        for senseless in ["", "20", "%", "-1%", "101%", "1.00001%", "1.x%"] {
            assert_eq!(share(senseless), None, "{senseless}");
        }
    }
}
