//! The repair of a damaged log: what it promised is noted first, then the part that does not stand goes.
//!
//! The note (`log/repair`) is durable before anything else is changed, so that a crash at any moment leaves the
//! damage or the note, and never a log that looks whole. It says what was promised, until the log has reached that
//! again and is known to fit the state; and what is still to be cut off, which is done again after a crash.
//!
//! What stands may be older than what was lost in more than its length: entries in it may have been replaced in the part
//! that was lost. Consensus copes with that, as with any log that is behind. The state does not, if it was built from the
//! later ones: so a log that does not hold the state's last entry begins anew behind the state.

use std::path::{Path, PathBuf};

use quorate_core::raft::{HardState, Index, Position};
use quorate_core::wire::Kind;
use serde::{Deserialize, Serialize};

use super::super::StorageError;
use super::super::small::{self, Format};
use super::LogOptions;
use super::files;
use super::format::SECTOR_BYTES;
use super::recovery::{self, Found, Recovery};
use super::salvage::Rotten;
use crate::port::{OpenMode, Ports};

/// Where the part of a log that stands ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cut {
    /// The last segment of it.
    pub(super) sequence: u64,
    /// The first sector of that segment that does not stand; 1 when none does.
    pub(super) sector: u32,
}

/// What is noted of a damaged log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// The term and the vote that the log held.
    pub(super) hard_state: HardState,
    /// Where it ended; a later log holds all that it held.
    pub(super) until: Position,
    /// What is to be cut off.
    pub(super) cut: Option<Cut>,
}

/// The format of the note.
pub(super) const FORMAT: Format = Format {
    magic: *b"QUORREPR",
    kind: Kind::Repair,
    what: "the note of a repair",
};

/// A log that verifies.
pub(super) struct Sound {
    pub(super) found: Found,
    /// What an unfinished repair has noted.
    pub(super) note: Option<Note>,
    /// What was found damaged now, and is no part of the log any more.
    pub(super) damage: Option<String>,
}

/// Reads the log of `directory`, and cuts off what is damaged when the node's peers can repair it.
///
/// # Errors
/// When the log is damaged beyond that, of a newer version, or the disk fails.
pub(super) async fn recover(
    ports: &Ports,
    directory: &Path,
    options: &LogOptions,
) -> Result<Sound, StorageError> {
    let mut note: Option<Note> = small::read(ports, directory, &path(directory), &FORMAT)?;
    if let Some(unfinished) = &mut note {
        carry_out(ports, directory, unfinished).await?;
    }
    let tail = options.tail_bytes_max;
    let rotten = match recovery::recover(ports, directory, tail, note.is_some())? {
        Recovery::Whole(found) => {
            return Ok(Sound {
                found,
                note,
                damage: None,
            });
        }
        Recovery::Rotten(rotten) => rotten,
    };
    if !rotten.nothing_lost {
        options.expect_peers(&rotten)?;
    }
    let mut next = Note::of(note, &rotten);
    carry_out(ports, directory, &mut next).await?;
    let damage = rotten.error.finding();
    match recovery::recover(ports, directory, tail, true)? {
        Recovery::Whole(found) => Ok(Sound {
            found,
            note: Some(next),
            damage: Some(damage),
        }),
        Recovery::Rotten(_) => Err(rotten.error),
    }
}

impl LogOptions {
    /// Checks that somebody else holds what this log held.
    fn expect_peers(&self, rotten: &Rotten) -> Result<(), StorageError> {
        let membership = &rotten.membership;
        let mut voters = membership.voters().union(membership.outgoing());
        match self.node {
            Some(own) if !voters.any(|voter| *voter != own) => Err(rotten.error.for_sole_voter()),
            _ => Ok(()),
        }
    }
}

impl Note {
    /// What is noted of newly found damage, beside what is noted already.
    fn of(before: Option<Note>, rotten: &Rotten) -> Note {
        let mut hard_state = rotten.hard_state;
        let mut until = rotten.last.unwrap_or_default();
        if let Some(before) = before {
            hard_state = newer(hard_state, before.hard_state);
            until = until.max(before.until);
        }
        if rotten.last.is_none() {
            // It may have accepted more in this term than anybody can tell, and can have promised nothing in the next.
            let term = hard_state.term.next();
            hard_state = HardState { term, vote: None };
            until = Position {
                term,
                index: Index(0),
            };
        }
        Note {
            hard_state,
            until,
            cut: Some(rotten.cut),
        }
    }
}

/// The later of two promises.
pub(super) fn newer(one: HardState, other: HardState) -> HardState {
    if (other.term, other.vote.is_some()) > (one.term, one.vote.is_some()) {
        other
    } else {
        one
    }
}

/// Removes the note of a repair that is over.
pub(super) fn forget(ports: &Ports, directory: &Path) -> Result<(), StorageError> {
    small::remove(ports, &path(directory))
}

fn path(directory: &Path) -> PathBuf {
    files::log_path(directory).join("repair")
}

/// Makes the note durable and does what it says, until nothing is to be cut off.
async fn carry_out(ports: &Ports, directory: &Path, note: &mut Note) -> Result<(), StorageError> {
    let Some(cut) = note.cut else {
        return Ok(());
    };
    small::write(ports, &path(directory), &FORMAT, note).await?;
    cut_off(ports, directory, cut).await?;
    note.cut = None;
    small::write(ports, &path(directory), &FORMAT, note).await
}

/// Replaces the segment by one that ends with what stands, and removes the later ones.
async fn cut_off(ports: &Ports, directory: &Path, cut: Cut) -> Result<(), StorageError> {
    let segment = files::segment_path(directory, cut.sequence);
    let standing = match cut.sector {
        // Without a group a segment counts as prepared.
        0 | 1 => 0,
        sector => sector as usize * SECTOR_BYTES,
    };
    let old = ports
        .files
        .open(&segment, OpenMode::Read)
        .map_err(StorageError::io("open", &segment))?;
    let length = old.length().map_err(StorageError::io("measure", &segment))?;
    let mut content = vec![0; standing];
    old.read_exact_at(&mut content, 0)
        .map_err(StorageError::io("read", &segment))?;
    files::create(ports, directory, &segment, length, &content).await?;
    let mut later = files::list(ports, directory)?.segments;
    later.retain(|file| file.sequence > cut.sequence);
    for file in later.iter().rev() {
        ports
            .files
            .remove(&file.path)
            .map_err(StorageError::io("remove", &file.path))?;
    }
    let log = files::log_path(directory);
    ports
        .files
        .sync_directory(&log)
        .map_err(StorageError::io("sync", &log))
}

/// Decodes arbitrary bytes as the note of a repair.
pub(super) fn feed(input: &[u8]) {
    small::feed::<Note>(&FORMAT, input);
}
