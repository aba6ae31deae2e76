use std::path::PathBuf;

use bytes::Bytes;
use quorate_core::raft::{
    Base, DirectoryId, Entry, FetchError, HardState, Index, Lineage, Member, Membership, NodeId, Payload,
    Position, Term, Write, WriteId,
};

use super::super::StorageError;
use super::super::testing::{Disk, Random, ports, run};
use super::*;

const SEGMENT: u64 = 8 << 10;

fn home() -> PathBuf {
    PathBuf::from("/data")
}

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: SEGMENT,
        tail_bytes_max: 2_000,
        ..LogOptions::default()
    }
}

fn membership(version: u64) -> Membership {
    let member = Member::new(
        "a",
        DirectoryId(7),
        &format!("127.0.0.1:{version}"),
        "127.0.0.1:8080",
    );
    Membership::bootstrap(Lineage(9), [(NodeId(1), member)].into())
}

fn position(term: u64, index: u64) -> Position {
    Position {
        term: Term(term),
        index: Index(index),
    }
}

fn entry(term: u64, index: u64, payload: Payload) -> Entry {
    Entry {
        position: position(term, index),
        payload,
    }
}

fn command(term: u64, index: u64, length: usize) -> Entry {
    entry(
        term,
        index,
        Payload::Command(Bytes::from(vec![index as u8; length])),
    )
}

fn write(hard_state: Option<HardState>, reset: Option<Box<Base>>, entries: Vec<Entry>) -> Write {
    Write {
        id: WriteId(1),
        hard_state,
        reset,
        entries: entries.into(),
    }
}

fn base(position: Position) -> Base {
    Base {
        position,
        membership: membership(position.index.0),
    }
}

/// What a log should hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    hard_state: HardState,
    began: Option<Base>,
    /// All entries since it began, also those that may be purged.
    entries: Vec<Entry>,
    purged: u64,
}

impl Model {
    fn first(&self) -> u64 {
        self.began.as_ref().map_or(1, |base| base.position.index.0 + 1)
    }

    fn last(&self) -> Position {
        self.entries
            .last()
            .map(|entry| entry.position)
            .or(self.began.as_ref().map(|base| base.position))
            .unwrap_or_default()
    }

    fn get(&self, index: u64) -> &Entry {
        &self.entries[(index - self.first()) as usize]
    }

    fn write(&mut self, write: &Write) {
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(base) = &write.reset {
            self.purged = base.position.index.0;
            self.began = Some((**base).clone());
            self.entries.clear();
        }
        for entry in &write.entries {
            let keep = entry.position.index.0 - self.first();
            self.entries.truncate(keep as usize);
            self.entries.push(entry.clone());
        }
    }

    /// Why `recovered` and what `reader` reads are not what the model holds.
    fn difference(&self, recovered: &Recovered, reader: &LogReader) -> Option<String> {
        if recovered.hard_state != self.hard_state {
            return Some(format!(
                "{:?} instead of {:?}",
                recovered.hard_state, self.hard_state
            ));
        }
        if recovered.last != self.last().index {
            return Some(format!("ends at {} instead of {}", recovered.last, self.last()));
        }
        let Some(began) = &self.began else {
            return recovered.base.as_ref().map(|_| "it has begun".to_owned());
        };
        let Some(base) = recovered.base.as_ref().map(|base| base.position.index.0) else {
            return Some("it never began".to_owned());
        };
        if base < began.position.index.0 || base > self.purged {
            return Some(format!("begins at {base}, purged up to {}", self.purged));
        }
        let kept: Vec<&Entry> = (base + 1..=self.last().index.0)
            .map(|index| self.get(index))
            .collect();
        let mut terms: Vec<Position> = Vec::new();
        let mut memberships = Vec::new();
        for entry in &kept {
            if terms.last().is_none_or(|start| start.term != entry.position.term) {
                terms.push(entry.position);
            }
            if let Payload::Membership(membership) = &entry.payload {
                memberships.push((entry.position, (**membership).clone()));
            }
        }
        if recovered.terms != terms || recovered.memberships != memberships {
            return Some(format!(
                "terms {:?} instead of {terms:?}, or memberships",
                recovered.terms
            ));
        }
        let tail = &kept[kept.len() - recovered.tail.len().min(kept.len())..];
        if !tail.iter().copied().eq(&recovered.tail) {
            return Some("the tail differs".to_owned());
        }
        self.read_all(reader, base + 1).err()
    }

    fn read_all(&self, reader: &LogReader, mut next: u64) -> Result<(), String> {
        let last = self.last().index;
        while next <= last.0 {
            let entries = reader
                .read(Index(next), last, 3_000)
                .map_err(|error| format!("reading entry {next}: {error}"))?;
            for entry in entries {
                if &entry != self.get(next) {
                    return Err(format!("entry {next} differs"));
                }
                next += 1;
            }
        }
        Ok(())
    }
}

fn random_payload(random: &mut Random) -> Payload {
    let length = [0, 20, 100, 500, 1_500][random.below(5) as usize];
    match random.below(10) {
        0 => Payload::Empty,
        1 => Payload::Membership(Box::new(membership(random.below(60_000)))),
        // Zeros, so that whole sectors of data are zeros.
        2 => Payload::Command(Bytes::from(vec![0; length * 2])),
        _ => Payload::Command(Bytes::from(random.bytes(length))),
    }
}

fn random_write(random: &mut Random, model: &Model) -> Write {
    let mut result = write(None, None, Vec::new());
    let mut term = model.hard_state.term.0.max(model.last().term.0);
    if random.chance(20) {
        term += 1;
        result.hard_state = Some(HardState {
            term: Term(term),
            vote: random.chance(50).then(|| NodeId(random.below(5))),
        });
    }
    let mut next = model.last().index.0 + 1;
    if model.began.is_none() || random.chance(1) {
        result.reset = Some(Box::new(base(position(term, next + random.below(30)))));
        next = result.reset.as_ref().map_or(1, |base| base.position.index.0 + 1);
    } else if random.chance(10) && next > model.purged + 1 {
        next -= random.below((next - model.purged - 1).min(6) + 1);
    }
    let count = if random.chance(5) { 20 } else { random.below(4) };
    let entries = next..next + count;
    result.entries = entries
        .map(|index| entry(term, index, random_payload(random)))
        .collect();
    result
}

/// A blank log on a new disk.
async fn blank() -> Disk {
    let disk = Disk::default();
    let ports = ports(&disk);
    ports.files.create_directory(&home()).expect("a directory");
    create_with(&ports, &home(), SEGMENT).await.expect("a blank log");
    disk
}

async fn open(disk: &Disk) -> Result<(Log, Recovered), StorageError> {
    Log::open(&ports(disk), &home(), options()).await
}

/// Random work on a log until it fails or `steps` are done. Returns the states that may be found afterwards.
async fn work(log: &mut Log, model: &Model, random: &mut Random, steps: u64) -> Vec<Model> {
    let mut model = model.clone();
    for _ in 0..steps {
        let before = model.clone();
        let result = if random.chance(10) && model.last().index.0 > model.purged {
            let index = model.purged + 1 + random.below(model.last().index.0 - model.purged);
            model.purged = index;
            log.purge(base(model.get(index).position)).await
        } else {
            let mut writes = Vec::new();
            for _ in 0..=random.below(3) {
                let next = random_write(random, &model);
                model.write(&next);
                writes.push(next);
            }
            log.append(&writes).await
        };
        if result.is_err() {
            assert!(log.append(&[]).await.is_err(), "a log that failed stays failed");
            return vec![before, model];
        }
        if random.chance(10) {
            tokio::task::yield_now().await;
        }
    }
    vec![model]
}

/// Opens the log again and again after crashes of every kind; what was acknowledged must be there each time.
fn crashes(seed: u64) {
    run(async {
        let mut random = Random::new(seed);
        let disk = blank().await;
        let mut possible = vec![Model::default()];
        for round in 0..12 {
            // Also while it is opened the machine may stop.
            if random.chance(20) {
                disk.stop_after(random.below(12));
                let _ = open(&disk).await;
                disk.power_cut(&mut random);
            }
            let (mut log, recovered) = open(&disk)
                .await
                .unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}"));
            let differences: Vec<_> = possible
                .iter()
                .map(|model| model.difference(&recovered, &log.reader()))
                .collect();
            let Some(found) = differences.iter().position(Option::is_none) else {
                panic!("seed {seed}, round {round}: {differences:?}");
            };
            let model = possible[found].clone();
            if random.chance(70) {
                disk.stop_after(random.below(150));
            }
            possible = work(&mut log, &model, &mut random, 40).await;
            drop(log);
            match random.below(3) {
                0 => disk.kill(),
                _ => disk.power_cut(&mut random),
            }
        }
    });
}

#[test]
fn power_cuts_and_kills_at_any_operation_lose_nothing_acknowledged() {
    for seed in 0..500 {
        crashes(seed);
    }
}

/// A log with several segments, truncations, a reset and a purge, and what it holds.
async fn sample(random: &mut Random, steps: u64) -> (Disk, Model) {
    let disk = blank().await;
    let (mut log, _) = open(&disk).await.expect("it opens");
    let mut model = work(&mut log, &Model::default(), random, steps).await.remove(0);
    let end = write(
        Some(HardState {
            term: Term(1_000),
            vote: Some(NodeId(3)),
        }),
        None,
        vec![command(1_000, model.last().index.0 + 1, 700)],
    );
    log.append(std::slice::from_ref(&end))
        .await
        .expect("it is written");
    model.write(&end);
    drop(log);
    tokio::task::yield_now().await;
    disk.kill();
    (disk, model)
}

impl Model {
    /// Whether a node that starts with what was recovered neither votes twice nor votes without what this model holds.
    fn is_promised_by(&self, recovered: &Recovered, last: Position) -> bool {
        let (own, kept) = (self.hard_state, recovered.hard_state);
        let votes_once =
            kept.term > own.term || (kept.term == own.term && own.vote.is_none_or(|_| own == kept));
        votes_once && recovered.repair.unwrap_or(last) >= self.last()
    }
}

/// The last entry of what was recovered, read back; all before it are read as well.
fn read_back(log: &Log, recovered: &Recovered) -> Position {
    let base = recovered.base.as_ref().expect("a log that began").position;
    let mut last = base;
    let first = if recovered.incomplete {
        Index(log.reader().entries().first)
    } else {
        base.index.next()
    };
    let mut next = first;
    while next <= recovered.last {
        let entries = log
            .reader()
            .read(next, recovered.last, 3_000)
            .expect("it verifies");
        last = entries.last().expect("not empty").position;
        next = last.index.next();
    }
    last
}

/// Opens a log whose end was lost, again and again: it promises what was promised until it holds later entries.
async fn judge_repair(disk: &Disk, mut log: Log, mut recovered: Recovered, models: &[Model], what: &str) {
    let last = read_back(&log, &recovered);
    let promised = models.iter().any(|model| model.is_promised_by(&recovered, last));
    assert!(
        promised,
        "{what}: {recovered:?} ends at {last} instead of {models:?}"
    );
    drop(log);
    disk.kill();
    let (again, second) = open(disk).await.expect("it opens again");
    assert_eq!(
        (second.hard_state, second.repair, second.last, second.damage),
        (recovered.hard_state, recovered.repair, recovered.last, None),
        "{what}"
    );
    log = again;
    let state = base(Position {
        term: last.term,
        index: recovered.last,
    });
    log.fit_to(&state, &mut recovered).await.expect("it fits");
    let hard_state = HardState {
        term: Term(2_000),
        vote: None,
    };
    let next = write(
        Some(hard_state),
        None,
        vec![command(2_000, recovered.last.0 + 1, 100)],
    );
    log.append(&[next]).await.expect("the log goes on");
    drop(log);
    disk.kill();
    let (mut log, mut whole) = open(disk).await.expect("it opens");
    log.fit_to(&state, &mut whole).await.expect("it fits");
    assert_eq!((whole.repair, whole.incomplete), (None, false), "{what}");
    assert!(!disk.paths().contains(&home().join("log/repair")), "{what}");
}

/// Opens a tampered log: it holds all of the model, or promises it, or is refused with the name of a file. Whether it
/// holds all of it, and nothing was noticed.
async fn judge(disk: &Disk, models: &[Model], what: &str) -> bool {
    match open(disk).await {
        Ok((log, recovered)) if recovered.damage.is_some() => {
            judge_repair(disk, log, recovered, models, what).await;
            false
        }
        Ok((mut log, recovered)) => {
            let differences: Vec<_> = models
                .iter()
                .map(|model| model.difference(&recovered, &log.reader()))
                .collect();
            assert!(differences.iter().any(Option::is_none), "{what}: {differences:?}");
            let next = write(None, None, vec![command(2_000, recovered.last.0 + 1, 100)]);
            log.append(&[next]).await.expect("the log goes on");
            true
        }
        Err(error @ (StorageError::Damaged { .. } | StorageError::Newer { .. })) => {
            let text = error.to_string();
            assert!(text.contains("/data/log"), "{what}: {text}");
            false
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

#[test]
fn a_flipped_byte_in_a_cleanly_stopped_log_loses_nothing_silently() {
    run(async {
        for seed in 0..4 {
            let mut random = Random::new(seed);
            let (disk, model) = sample(&mut random, 30).await;
            let paths = disk.paths();
            let mut refused = 0;
            for round in 0..800 {
                let copy = disk.copy();
                let path = &paths[random.below(paths.len() as u64) as usize];
                let offset = random.below(SEGMENT) as usize;
                let flip = 1 + random.below(255) as u8;
                copy.tamper(path, |content| content[offset] ^= flip);
                let what = format!("seed {seed}, round {round}, {} at {offset}", path.display());
                refused += u64::from(!judge(&copy, std::slice::from_ref(&model), &what).await);
            }
            assert!(refused > 300, "damage was noticed {refused} times of 800");
        }
    });
}

#[test]
fn every_byte_of_a_small_log_can_flip() {
    run(async {
        let (disk, model) = sample(&mut Random::new(11), 12).await;
        for path in disk.paths() {
            for offset in 0..SEGMENT as usize {
                let copy = disk.copy();
                copy.tamper(&path, |content| content[offset] ^= 1 << (offset % 8));
                let what = format!("{} at {offset}", path.display());
                judge(&copy, std::slice::from_ref(&model), &what).await;
            }
        }
    });
}

#[test]
fn a_flipped_byte_in_a_log_cut_in_the_middle_of_a_write_loses_nothing_silently() {
    run(async {
        for seed in 0..60 {
            let mut random = Random::new(seed);
            let (disk, model) = sample(&mut random, 10).await;
            let (mut log, _) = open(&disk).await.expect("it opens");
            disk.stop_after(random.below(20));
            let possible = work(&mut log, &model, &mut random, 30).await;
            drop(log);
            disk.power_cut(&mut random);
            let paths: Vec<_> = disk
                .paths()
                .into_iter()
                .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
                .collect();
            for round in 0..40 {
                let copy = disk.copy();
                let path = &paths[random.below(paths.len() as u64) as usize];
                let offset = random.below(SEGMENT) as usize;
                copy.tamper(path, |content| content[offset] ^= 1 << random.below(8));
                let what = format!("seed {seed}, round {round}, {} at {offset}", path.display());
                judge(&copy, &possible, &what).await;
            }
        }
    });
}

#[test]
fn a_segment_that_is_cut_short_or_gone_or_renamed_loses_nothing_silently() {
    run(async {
        let mut random = Random::new(5);
        let (disk, model) = sample(&mut random, 30).await;
        let models = std::slice::from_ref(&model);
        for path in disk.paths() {
            let gone = disk.copy();
            gone.delete(&path);
            judge(&gone, models, &format!("{} is gone", path.display())).await;

            let renamed = disk.copy();
            renamed.put(
                &path.with_file_name("00000000000000000999.log"),
                disk.content(&path),
            );
            renamed.delete(&path);
            judge(&renamed, models, &format!("{} is renamed", path.display())).await;

            for _ in 0..20 {
                let short = disk.copy();
                let length = random.below(SEGMENT) as usize;
                short.tamper(&path, |content| content.truncate(length));
                let accepted = judge(&short, models, &format!("{} is cut to {length}", path.display())).await;
                let blank = disk.content(&path).iter().all(|byte| *byte == 0);
                assert!(
                    blank || !accepted,
                    "{} cut to {length} was accepted",
                    path.display()
                );
            }
        }
    });
}

#[test]
fn damage_behind_an_open_log_is_noticed_when_it_is_read() {
    run(async {
        let (disk, model) = sample(&mut Random::new(8), 20).await;
        let (log, recovered) = open(&disk).await.expect("it opens");
        let first = recovered.base.expect("a base").position.index.next();
        let location = log.reader().entries().locations[0];
        let path = files::segment_path(&home(), location.sequence());
        disk.tamper(&path, |content| {
            for sector in content
                .chunks_exact_mut(512)
                .skip(1)
                .filter(|sector| sector[4] != 0)
            {
                sector[100] ^= 4;
            }
        });
        let Err(FetchError::Disk(error)) = log.reader().read(first, model.last().index, 1_000) else {
            panic!("the damage was not noticed");
        };
        assert!(
            error.0.contains("is damaged at offset") && error.0.contains(".log"),
            "{error}"
        );
    });
}

#[test]
fn a_full_disk_stops_the_log_and_it_goes_on_when_there_is_room() {
    run(async {
        for room in [0, 512, 1_024, 3_000, 9_000, 20_000] {
            let disk = blank().await;
            let (mut log, _) = open(&disk).await.expect("it opens");
            log.initialize(base(position(0, 0))).await.expect("there is room");
            let mut last = 0;
            disk.set_room(Some(room));
            let error = loop {
                let next = write(
                    None,
                    None,
                    vec![command(1, last + 1, 900), command(1, last + 2, 900)],
                );
                match log.append(&[next]).await {
                    Ok(()) => last += 2,
                    Err(error) => break error,
                }
            };
            assert!(
                error.0.contains("no space left on the device; free some space")
                    || error.0.contains("no space left on the device: free some space"),
                "{error}"
            );
            drop(log);
            disk.kill();
            disk.set_room(None);
            let (mut log, recovered) = open(&disk).await.expect("it opens again");
            assert!(
                [last, last + 2].contains(&recovered.last.0),
                "nothing acknowledged was lost"
            );
            let next = write(None, None, vec![command(2, recovered.last.0 + 1, 900)]);
            log.append(&[next]).await.expect("there is room again");
        }
    });
}

#[test]
fn a_log_of_a_newer_version_is_refused_untouched() {
    run(async {
        let (disk, _) = sample(&mut Random::new(3), 5).await;
        let path = disk.paths().pop().expect("a segment");
        disk.tamper(&disk.paths()[0], |content| {
            content[8] = format::VERSION + 1;
            let checksum = crc32c::crc32c(&content[..508]);
            content[508..512].copy_from_slice(&checksum.to_le_bytes());
        });
        let before: Vec<_> = disk.paths().iter().map(|path| disk.content(path)).collect();
        let Err(error @ StorageError::Newer { .. }) = open(&disk).await else {
            panic!("{} was accepted", path.display());
        };
        assert!(error.to_string().contains("has format version 2"), "{error}");
        let after: Vec<_> = disk.paths().iter().map(|path| disk.content(path)).collect();
        assert_eq!(before, after);
    });
}

#[test]
fn a_write_larger_than_a_segment_gets_a_segment_of_its_own() {
    run(async {
        let disk = blank().await;
        let (mut log, _) = open(&disk).await.expect("it opens");
        log.initialize(base(position(0, 0))).await.expect("written");
        let mut model = Model::default();
        let reset = Some(Box::new(base(position(0, 0))));
        model.write(&write(None, reset, Vec::new()));
        for index in [1, 2, 3] {
            let length = if index == 2 { 5 * SEGMENT as usize } else { 10 };
            let next = write(None, None, vec![command(1, index, length)]);
            model.write(&next);
            log.append(&[next]).await.expect("written");
        }
        drop(log);
        disk.kill();
        let (log, recovered) = open(&disk).await.expect("it opens again");
        assert_eq!(model.difference(&recovered, &log.reader()), None);
    });
}

#[test]
fn purged_segments_are_used_again_and_read_as_purged() {
    run(async {
        let disk = blank().await;
        let (mut log, _) = open(&disk).await.expect("it opens");
        log.initialize(base(position(0, 0))).await.expect("written");
        let mut most = 0;
        for index in 1..=400 {
            log.append(&[write(None, None, vec![command(1, index, 300)])])
                .await
                .expect("written");
            log.purge(base(position(1, index - index.min(10))))
                .await
                .expect("purged");
            most = most.max(disk.paths().len());
        }
        assert!(most <= 9, "{most} files were kept for ten entries");
        assert_eq!(
            log.reader().read(Index(1), Index(9), 1_000),
            Err(FetchError::Purged)
        );
        let kept = log
            .reader()
            .read(Index(395), Index(400), 100_000)
            .expect("they are kept");
        assert_eq!(kept.len(), 6);
    });
}

#[test]
fn without_sync_nothing_is_synced_and_a_kill_loses_nothing() {
    run(async {
        let disk = blank().await;
        let unsynced = || LogOptions {
            sync: false,
            ..options()
        };
        let (mut log, _) = Log::open(&ports(&disk), &home(), unsynced())
            .await
            .expect("it opens");
        let before = disk.syncs();
        log.initialize(base(position(0, 0))).await.expect("written");
        log.append(&[write(None, None, vec![command(1, 1, 10)])])
            .await
            .expect("written");
        assert_eq!(disk.syncs(), before);
        drop(log);
        disk.kill();
        let (_, recovered) = Log::open(&ports(&disk), &home(), unsynced())
            .await
            .expect("it opens");
        assert_eq!(recovered.last, Index(1));
    });
}

#[test]
fn one_group_costs_one_sync() {
    run(async {
        let disk = blank().await;
        let (mut log, _) = open(&disk).await.expect("it opens");
        log.initialize(base(position(0, 0))).await.expect("written");
        let before = disk.syncs();
        let writes: Vec<_> = (1..=8)
            .map(|index| write(None, None, vec![command(1, index, 50)]))
            .collect();
        log.append(&writes).await.expect("written");
        assert_eq!(disk.syncs(), before + 1);
    });
}

#[test]
fn a_group_is_bounded_in_entries_and_bytes_but_takes_one_write_whole() {
    let small: Vec<_> = (1..=600)
        .map(|index| write(None, None, vec![command(1, index, 1)]))
        .collect();
    assert_eq!(group_length(&small), GROUP_ENTRIES_MAX);
    let large: Vec<_> = (1..=3)
        .map(|index| write(None, None, vec![command(1, index, 600_000)]))
        .collect();
    assert_eq!(group_length(&large), 1);
    let huge = [write(None, None, vec![command(1, 1, 3_000_000)])];
    assert_eq!(group_length(&huge), 1);
    assert_eq!(group_length(&[]), 0);
}
