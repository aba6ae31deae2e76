//! What a damaged log promised, as far as the rest of it tells.
//!
//! Everything up to the first damage stands. The groups behind it are not replayed, since what they build on is gone;
//! but each of them says what the log was after it, so the last one that can be read says it for all before.
//!
//! What is behind that last one is judged by two rules. Written sectors follow each other without a gap, so nothing was
//! acknowledged behind a blank one. And a group that changes the term or the vote says so in two sectors, so a single
//! sector that cannot be read hides no vote, but may hide entries. With more of them anything may be hidden.

use std::path::Path;

use quorate_core::raft::{HardState, Membership, Payload, Position};

use super::super::StorageError;
use super::files::SegmentFile;
use super::format::{
    self, FormatError, GROUP_HEADER_BYTES, GroupHeader, Mark, Part, Record, Sector, SegmentHeader,
};
use super::repair::Cut;
use super::replay::Replay;
use super::window::{Window, sector_count};
use crate::port::{OpenMode, Ports};

/// A damaged log of which is known what it promised.
pub(super) struct Rotten {
    /// Where the part that stands ends.
    pub(super) cut: Cut,
    /// The term and the vote that the log held.
    pub(super) hard_state: HardState,
    /// Its last entry; none when that is not known.
    pub(super) last: Option<Position>,
    /// Whether the part that stands is all that the log held: only unused room is damaged.
    pub(super) nothing_lost: bool,
    /// The last membership that could be read anywhere.
    pub(super) membership: Membership,
    /// What is damaged.
    pub(super) error: StorageError,
}

/// Segments from the first damaged one on.
pub(super) struct Remains<'a> {
    pub(super) segments: &'a [(SegmentHeader, SegmentFile)],
    /// The group of the first segment that does not stand.
    pub(super) from: u32,
    /// Whether the header of the first segment was never written: nothing in it was acknowledged.
    pub(super) unused: bool,
}

/// Reads on behind the damage that `error` tells of. `replay` is what stands.
///
/// # Errors
/// With `error`, when the log may have promised more than can be known; when it is of a newer version; when the disk
/// fails.
pub(super) fn salvage(
    ports: &Ports,
    replay: &Replay,
    remains: &Remains<'_>,
    error: StorageError,
) -> Result<Rotten, StorageError> {
    // Without its beginning a log is nobody's.
    let (Some(base), Some((header, _))) = (&replay.base, remains.segments.first()) else {
        return Err(error);
    };
    let mut search = Search {
        ports,
        mark: replay.mark(),
        doubts: 0,
        membership: None,
    };
    for (ordinal, (segment, file)) in remains.segments.iter().enumerate() {
        let first = ordinal == 0;
        if segment.log == header.log {
            search.segment(
                segment,
                &file.path,
                if first { remains.from } else { 1 },
                first && remains.unused,
            )?;
        } else {
            search.doubts = u32::MAX;
        }
    }
    let Search {
        mark,
        doubts,
        membership,
        ..
    } = search;
    let memberships = replay.memberships();
    let known = memberships
        .last()
        .map_or(&base.membership, |(_, membership)| membership);
    Ok(Rotten {
        cut: Cut {
            sequence: header.sequence,
            sector: remains.from,
        },
        hard_state: mark.hard_state,
        last: match doubts {
            0 => Some(mark.last),
            1 => None,
            _ => return Err(error),
        },
        nothing_lost: doubts == 0 && mark == replay.mark(),
        membership: membership.unwrap_or_else(|| known.clone()),
        error,
    })
}

struct Search<'a> {
    ports: &'a Ports,
    /// What the last group that can be read says.
    mark: Mark,
    /// Sectors behind it that cannot be read, and may have been acknowledged.
    doubts: u32,
    /// The last membership behind the damage.
    membership: Option<Membership>,
}

impl Search<'_> {
    /// Looks through the sectors of a segment from `from` on.
    fn segment(
        &mut self,
        header: &SegmentHeader,
        path: &Path,
        from: u32,
        unused: bool,
    ) -> Result<(), StorageError> {
        let file = self
            .ports
            .files
            .open(path, OpenMode::Read)
            .map_err(StorageError::io("open", path))?;
        let mut window = Window::new(file, path, sector_count(header.length));
        let seed = header.seed();
        // Up to here the last group that can be read reaches.
        let mut known = from;
        let mut ended = unused;
        for number in from..window.sectors {
            match format::read_sector(seed, number, window.sector(number)?) {
                Sector::Blank => ended = true,
                Sector::Damaged(_) if number < known || ended => {}
                Sector::Damaged(_) => self.doubts = self.doubts.saturating_add(1),
                Sector::Written {
                    part: Part::Continuation,
                    ..
                } => {}
                Sector::Written { start, part, data } => match GroupHeader::decode(data) {
                    Ok(group) => {
                        let sectors = u32::try_from(group.sectors()).unwrap_or(u32::MAX);
                        known = start.saturating_add(sectors);
                        (self.mark, self.doubts, ended) = (group.mark, 0, false);
                        if part == Part::First {
                            self.memberships(&mut window, seed, start, &group)?;
                        }
                    }
                    Err(FormatError::Newer(found)) => {
                        return Err(StorageError::Newer {
                            path: path.to_owned(),
                            found,
                            supported: format::VERSION,
                        });
                    }
                    Err(FormatError::Damaged(_)) => self.doubts = self.doubts.saturating_add(1),
                },
            }
        }
        Ok(())
    }

    /// Looks for memberships in a group, if all of it can be read.
    fn memberships(
        &mut self,
        window: &mut Window<'_>,
        seed: u32,
        start: u32,
        header: &GroupHeader,
    ) -> Result<(), StorageError> {
        let mut group = Vec::new();
        let end = u32::try_from(header.sectors()).map_or(u32::MAX, |sectors| start.saturating_add(sectors));
        for number in start..end.min(window.sectors) {
            match format::read_sector(seed, number, window.sector(number)?) {
                Sector::Written { part: Part::Echo, .. } => {}
                Sector::Written { start: of, data, .. } if of == start => group.extend_from_slice(data),
                _ => return Ok(()),
            }
        }
        let end = GROUP_HEADER_BYTES + header.length as usize;
        let mut records = group.get(GROUP_HEADER_BYTES..end).unwrap_or_default();
        while let Ok((record, length)) = format::read_record(records) {
            match record {
                Record::Reset(base) => self.membership = Some(base.membership),
                Record::Entry(entry) => {
                    if let Payload::Membership(membership) = entry.payload {
                        self.membership = Some(*membership);
                    }
                }
                _ => {}
            }
            records = &records[length..];
        }
        Ok(())
    }
}
