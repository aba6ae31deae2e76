//! Mistakes made on purpose, by the names that `--plant` takes and failures are written down with.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use quorate_core::raft;

/// A mistake made on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// In the simulated driver or disk.
    Driver(PlantedBug),
    /// In consensus itself.
    #[cfg(feature = "planted-bugs")]
    Consensus(raft::PlantedBug),
    /// In the shell around it, which only production nodes have.
    #[cfg(feature = "planted-bugs")]
    Shell(quorate::planted::PlantedBug),
}

/// Mistakes that drivers and disks make; the checkers are tested with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PlantedBug {
    /// Writes are acknowledged before they are durable.
    AcknowledgeBeforeDurable,
    /// A disk says that it synced, and forgets its last entries when the node crashes.
    LyingDisk,
    /// A disk forgets the vote when the node crashes.
    ForgottenVote,
    /// One node's state machine gives another result than the others.
    DivergentApply,
    /// Reads are answered from what the node happens to know.
    UnconfirmedRead,
    /// The reply to a command is sent twice.
    DoubleReply,
}

impl Mistake {
    /// All that this build can make.
    pub fn all() -> impl Iterator<Item = Mistake> {
        let driver = PlantedBug::value_variants().iter().copied().map(Mistake::Driver);
        #[cfg(feature = "planted-bugs")]
        let driver = driver
            .chain(raft::PlantedBug::ALL.iter().copied().map(Mistake::Consensus))
            .chain(
                quorate::planted::PlantedBug::ALL
                    .iter()
                    .copied()
                    .map(Mistake::Shell),
            );
        driver
    }

    /// What goes wrong with it.
    #[cfg(feature = "planted-bugs")]
    pub fn sentence(self) -> &'static str {
        match self {
            Mistake::Driver(_) => "the simulated driver or disk is wrong",
            Mistake::Consensus(bug) => bug.sentence(),
            Mistake::Shell(bug) => bug.sentence(),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mistake::Driver(bug) => {
                let value = bug.to_possible_value();
                formatter.pad(value.as_ref().map_or("", |value| value.get_name()))
            }
            #[cfg(feature = "planted-bugs")]
            Mistake::Consensus(bug) => formatter.pad(bug.name()),
            #[cfg(feature = "planted-bugs")]
            Mistake::Shell(bug) => formatter.pad(bug.name()),
        }
    }
}

impl FromStr for Mistake {
    type Err = String;

    fn from_str(name: &str) -> Result<Mistake, String> {
        if let Some(mistake) = Mistake::all().find(|mistake| mistake.to_string() == name) {
            return Ok(mistake);
        }
        let names: Vec<String> = Mistake::all().map(|mistake| mistake.to_string()).collect();
        let more = if cfg!(feature = "planted-bugs") {
            ""
        } else {
            "; those of consensus and of the node take a build with `--features planted-bugs`"
        };
        Err(format!(
            "no mistake is named `{name}`; they are: {}{more}",
            names.join(", ")
        ))
    }
}

/// The mistake that consensus makes.
pub(crate) fn planted(mistake: Option<Mistake>) -> raft::Planted {
    match mistake {
        #[cfg(feature = "planted-bugs")]
        Some(Mistake::Consensus(bug)) => raft::Planted::with(bug),
        _ => raft::Planted::default(),
    }
}
