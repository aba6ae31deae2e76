//! What is done to the files of a log before it is written to.

use std::path::Path;

use quorate_core::raft::{HardState, Position};

use super::super::StorageError;
use super::format::{self, Checkpoint, GroupHeader, SECTOR_BYTES, SegmentHeader};
use super::recovery::Recovery;
use super::{Next, files, recovery};
use crate::planted::PlantedBug;
use crate::port::{OpenMode, Ports};

/// Makes a blank log in `directory`, with segments of `length` bytes, and says whether the log in it is blank: one that is
/// there already stays.
pub(in crate::storage) async fn create(
    ports: &Ports,
    directory: &Path,
    length: u64,
) -> Result<bool, StorageError> {
    let there = ports
        .files
        .exists(&files::log_path(directory))
        .map_err(StorageError::io("look for", directory))?
        && !files::list(ports, directory)?.segments.is_empty();
    if there {
        return Ok(match recovery::recover(ports, directory, 0, false)? {
            Recovery::Whole(found) => found.is_blank(),
            Recovery::Rotten(_) => false,
        });
    }
    create_with(ports, directory, length).await?;
    Ok(true)
}

/// Makes a blank log whose first segment has `length` bytes.
pub(in crate::storage) async fn create_with(
    ports: &Ports,
    directory: &Path,
    length: u64,
) -> Result<(), StorageError> {
    let mut log = [0; 16];
    ports
        .entropy
        .fill(&mut log)
        .map_err(StorageError::io("draw an id for the log of", directory))?;
    let header = SegmentHeader {
        log: u128::from_le_bytes(log),
        sequence: 1,
        length,
        chain: 0,
    };
    let mut records = Vec::new();
    let blank = Checkpoint {
        hard_state: HardState::default(),
        base: None,
        last: Position::default(),
    };
    format::push_checkpoint(&blank, &mut records);
    let mut content = header.encode().to_vec();
    format::frame_group(
        header.seed(),
        1,
        &GroupHeader::of(0, &records, blank.mark(), false),
        &records,
        &mut content,
    );
    files::create_first(ports, directory, length, &content).await
}

/// Makes what recovery found durable, removes what is of no use, and returns the prepared segment.
pub(super) async fn tidy(
    ports: &Ports,
    directory: &Path,
    found: &recovery::Found,
) -> Result<Next, StorageError> {
    let files = &ports.files;
    // What a killed process wrote may be in memory alone. It was read, so from here on it counts as written.
    for (_, path) in &found.segments {
        let file = files
            .open(path, OpenMode::ReadWrite)
            .map_err(StorageError::io("open", path))?;
        file.sync().await.map_err(StorageError::io("sync", path))?;
    }
    for path in &found.leftovers {
        files.remove(path).map_err(StorageError::io("remove", path))?;
    }
    if let Some(scrub) = &found.scrub
        && !ports.planted.is(PlantedBug::TornEndIsNotBlanked)
    {
        let file = files
            .open(&scrub.path, OpenMode::ReadWrite)
            .map_err(StorageError::io("open", &scrub.path))?;
        let offset = |sector: u32| u64::from(sector) * SECTOR_BYTES as u64;
        files::fill(&*file, &scrub.path, offset(scrub.first), offset(scrub.end)).await?;
    }
    let log = files::log_path(directory);
    files
        .sync_directory(&log)
        .map_err(StorageError::io("sync", &log))?;
    // A prepared segment of another length than is configured now is used as it is.
    Ok(found.prepared.clone().map_or(Next::None, Next::Ready))
}
