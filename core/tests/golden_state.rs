//! The bytes of commands, replies and rows never change: files in `golden/` were written by the first version.
//!
//! Each file holds one format, each line a name and the bytes in hexadecimal. A decoder must understand every line,
//! and today's encoder must write it again byte for byte. A new version of a format gets a new file; the old file stays.
//! With `QUORATE_WRITE_GOLDEN=1` the files are written anew.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::WallTime;
use quorate_core::raft::{Index, NodeId, Position, Term};
use quorate_core::state::{
    Append, Attach, Basis, Block, BlockDone, ClientId, Command, Compare, Cut, DeleteRange, Demand, Detail,
    Drain, DuplicateWindow, Epoch, Found, Judged, KeyRange, KeyValue, LeaseId, Malformed, NewRecord,
    NewSettings, Offset, Operand, Operation, Others, Policy, Presence, Put, Query, ReadError, Refusal,
    Relation, Reply, RequestId, Response, Revision, RowChange, Run, SchemaChange, SectionChange, SectionName,
    Session, SessionCommand, SessionId, SessionRefusal, SessionReply, SessionStatus, SettingKey,
    SettingsChange, SettingsCommand, SettingsRefusal, SettingsReply, Sort, SortBy, Span, Start, StateMachine,
    StreamCommand, StreamId, StreamMalformed, StreamRefusal, StreamReply, StreamRetention, StreamSettings,
    Transacted, Transaction,
};
use quorate_core::wire::DecodeError;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits"))
        .collect()
}

fn lines(file: &str) -> Vec<(String, Vec<u8>)> {
    file.lines()
        .map(|line| {
            let (name, bytes) = line.split_once(": ").expect("a name and bytes");
            (name.to_owned(), unhex(bytes))
        })
        .collect()
}

/// What a golden file holds; `today` is written to it first, when that is wanted.
fn golden(name: &str, today: &str) -> String {
    let path = format!("{}/tests/golden/{name}.v1.hex", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("QUORATE_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, today).expect("a golden file");
    }
    std::fs::read_to_string(&path).expect("a golden file")
}

fn check<T: Debug + PartialEq>(
    file: &str,
    values: &[(&str, T)],
    encode: impl Fn(&T) -> Bytes,
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
) {
    let today: String = values
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", hex(&encode(value))))
        .collect();
    let file = golden(file, &today);
    assert_eq!(file, today, "today's encoder writes:\n{today}");
    for ((name, bytes), (_, value)) in lines(&file).iter().zip(values) {
        assert_eq!(decode(bytes).as_ref(), Ok(value), "{name}");
    }
}

fn pair() -> KeyValue {
    KeyValue {
        key: Bytes::from_static(b"key"),
        value: Bytes::from_static(b"value"),
        create_revision: Revision(3),
        mod_revision: Revision(300),
        version: 2,
        lease: LeaseId::new(9),
    }
}

fn query() -> Query {
    Query {
        range: KeyRange::between(&b"a"[..], &b"b"[..]),
        revision: Some(Revision(300)),
        modified: Span {
            first: Some(Revision(1)),
            last: None,
        },
        created: Span {
            first: None,
            last: Some(Revision(2)),
        },
        sort: Some(Sort {
            by: SortBy::ModRevision,
            descending: true,
        }),
        limit: Some(10),
        detail: Detail::WithoutValue,
        count: true,
    }
}

fn session_id() -> SessionId {
    SessionId::new("one").expect("an id")
}

fn session() -> Session {
    Session {
        id: session_id(),
        owner: NodeId(2),
        epoch: Epoch(Revision(300)),
        status: SessionStatus::Active,
        client: "client".to_owned(),
        payload: Bytes::from_static(b"payload"),
        created_ms: 1_000,
        active_ms: 2_000,
        create_revision: Revision(299),
        mod_revision: Revision(301),
    }
}

fn create_session() -> Command {
    Command::Session(SessionCommand::Create {
        session: Some(session_id()),
        client: "client".to_owned(),
        payload: Bytes::from_static(b"payload"),
        now_ms: 1_000,
    })
}

fn sight() -> Command {
    Command::Session(SessionCommand::Sight {
        term: Term(1),
        nodes: vec![(NodeId(1), Presence::Present), (NodeId(2), Presence::Silent)],
    })
}

fn session_commands() -> Vec<(&'static str, Command)> {
    let session = session_id();
    let commands = [
        (
            "session-touch",
            SessionCommand::Touch {
                session: session.clone(),
                epoch: Some(Epoch(Revision(300))),
                payload: Some(Bytes::from_static(b"payload")),
                now_ms: 2_000,
            },
        ),
        ("session-delete", SessionCommand::Delete { session, epoch: None }),
        (
            "session-capacity",
            SessionCommand::SetCapacity {
                node: NodeId(2),
                capacity: 300,
            },
        ),
        (
            "session-drain",
            SessionCommand::Drain {
                node: NodeId(2),
                drain: Drain::Forced,
            },
        ),
        ("session-rebalance", SessionCommand::Rebalance),
        ("session-step", SessionCommand::Step { term: Term(3) }),
    ];
    let mut values = vec![("session-create", create_session()), ("session-sight", sight())];
    values.extend(commands.map(|(name, command)| (name, Command::Session(command))));
    values
}

fn settings_commands() -> Vec<(&'static str, Command)> {
    let section = || SectionName::new("links").expect("a name");
    let key = || SettingKey::new("docs").expect("a key");
    let value = Bytes::from_static(b"1");
    let judged = |basis| {
        let section = section();
        vec![Judged { section, basis }]
    };
    let merged = SectionChange {
        demand: Some(Demand::Setting(key(), Revision(300))),
        schema: SchemaChange::Set(Bytes::from_static(b"{}")),
        ..SectionChange::settings(section(), NewSettings::one(key(), Some(value.clone())))
    };
    let replaced = SectionChange {
        demand: Some(Demand::Section(Revision(1))),
        schema: SchemaChange::Removed,
        ..SectionChange::settings(section(), NewSettings::Replaced(vec![(key(), value)]))
    };
    let removed = SectionChange {
        demand: Some(Demand::Schema(Revision(0))),
        ..SectionChange::settings(section(), NewSettings::one(key(), None))
    };
    let commands = [
        (
            "settings-merge",
            SettingsChange::of(merged),
            judged(Basis::At(Revision(300))),
        ),
        (
            "settings-remove",
            SettingsChange::of(removed),
            judged(Basis::NoSchema),
        ),
        (
            "settings-replace",
            SettingsChange {
                sections: vec![replaced],
                others: Others::Emptied,
            },
            Vec::new(),
        ),
    ];
    commands
        .into_iter()
        .map(|(name, change, judged)| (name, Command::Settings(SettingsCommand { change, judged })))
        .collect()
}

fn settings_replies() -> Vec<(&'static str, Reply)> {
    let refusals = [
        SettingsRefusal::NotAsJudged,
        SettingsRefusal::Conflict {
            current: Revision(300),
        },
        SettingsRefusal::NamedTwice,
        SettingsRefusal::ValueTooLarge,
        SettingsRefusal::SchemaTooLarge,
        SettingsRefusal::TooManySettings,
        SettingsRefusal::SectionTooLarge,
        SettingsRefusal::TooManySections,
    ];
    let changed = SettingsReply {
        revision: Revision(300),
        written: 2,
        deleted: 1,
        schemas: 1,
    };
    let refusals = refusals.map(|refusal| ("refused", Reply::Refused(refusal.into())));
    [("settings", Reply::Settings(changed))]
        .into_iter()
        .chain(refusals)
        .collect()
}

/// A change that is made in a state without settings.
fn set_setting() -> Command {
    let section = SectionName::new("links").expect("a name");
    let key = SettingKey::new("docs").expect("a key");
    let change = SectionChange {
        schema: SchemaChange::Set(Bytes::from_static(b"{}")),
        ..SectionChange::settings(
            section.clone(),
            NewSettings::one(key, Some(Bytes::from_static(b"1"))),
        )
    };
    let basis = Basis::At(Revision::ABSENT);
    Command::Settings(SettingsCommand {
        change: SettingsChange::of(change),
        judged: vec![Judged { section, basis }],
    })
}

fn compare(relation: Relation, with: Operand) -> Compare {
    let range = KeyRange::prefix(&b"p"[..]);
    Compare {
        range,
        relation,
        with,
    }
}

fn transaction() -> Transaction {
    let delete = DeleteRange {
        range: KeyRange::all(),
        previous: true,
    };
    let outer = Block {
        compare: vec![
            compare(Relation::Equal, Operand::Version(1)),
            compare(Relation::NotEqual, Operand::CreateRevision(Revision(2))),
            compare(Relation::Greater, Operand::ModRevision(Revision(3))),
            compare(Relation::Less, Operand::Value(Bytes::from_static(b"v"))),
            compare(Relation::Less, Operand::Lease(LeaseId::new(9))),
        ],
        then: vec![Operation::Read(query()), Operation::Put(Put::new("key", "value"))],
        otherwise: vec![Operation::Delete(delete), Operation::Nested(1)],
    };
    Transaction {
        blocks: vec![outer, Block::default()],
    }
}

#[test]
fn commands() {
    let key = Bytes::from_static(b"key");
    let put = Put::new(key.clone(), &b"\x00\xffvalue"[..]);
    let ttl = Duration::from_millis(1_500);
    let lease = LeaseId::new(9);
    let mut values = vec![
        ("put", Command::Put(put.clone())),
        (
            "put-keep",
            Command::Put(Put {
                value: None,
                lease: Attach::Keep,
                previous: true,
                ..put.clone()
            }),
        ),
        (
            "put-lease",
            Command::Put(Put {
                lease: lease.map_or(Attach::Nothing, Attach::Lease),
                ..put.clone()
            }),
        ),
        ("delete", Command::delete(key.clone())),
        ("transact", Command::Transact(transaction())),
        (
            "compact",
            Command::Compact {
                revision: Revision(u64::MAX),
            },
        ),
        ("grant", Command::Grant { lease, ttl }),
        ("grant-any", Command::Grant { lease: None, ttl }),
        (
            "revoke",
            Command::Revoke {
                lease: LeaseId::new(9).expect("not 0"),
            },
        ),
        (
            "expire",
            Command::Expire {
                term: Term(4),
                leases: vec![(LeaseId::new(9).expect("not 0"), Index(300))],
            },
        ),
        ("register", Command::Register),
        (
            "once-key",
            Command::Once {
                request: RequestId::Key(key),
                command: Command::Put(put.clone()).encode(),
            },
        ),
        (
            "once-number",
            Command::Once {
                request: RequestId::Numbered {
                    client: ClientId(Index(300)),
                    number: 7,
                    acknowledged: 6,
                },
                command: Command::Put(put).encode(),
            },
        ),
        ("forget", Command::Forget { before: Index(300) }),
    ];
    values.extend(session_commands());
    let values: Vec<_> = values
        .into_iter()
        .chain(stream_commands())
        .chain(settings_commands())
        .collect();
    check("command", &values, Command::encode, Command::decode);
}

fn stream_commands() -> Vec<(&'static str, Command)> {
    let (stream, group) = (|| "orders".to_owned(), || "billing".to_owned());
    let settings = StreamSettings {
        partitions: 2,
        retention: StreamRetention {
            age: Some(Duration::from_secs(100)),
            bytes: None,
            records: Some(1_000),
        },
        duplicates: DuplicateWindow {
            count: 100,
            age: Duration::from_secs(60),
        },
    };
    let record = NewRecord {
        key: Some(Bytes::from_static(b"key")),
        id: Some(Bytes::from_static(b"id")),
        priority: 4,
        value: Bytes::from_static(b"value"),
    };
    let commands = [
        (
            "stream-create",
            StreamCommand::Create {
                name: stream(),
                settings,
            },
        ),
        ("stream-delete", StreamCommand::Delete { name: stream() }),
        (
            "stream-append",
            StreamCommand::Append(Append {
                stream: stream(),
                partition: Some(1),
                time: WallTime(1_700_000_000_000),
                records: vec![record, NewRecord::new("other")],
            }),
        ),
        (
            "stream-trim",
            StreamCommand::Trim {
                term: Term(4),
                cuts: vec![Cut {
                    stream: StreamId(Index(300)),
                    partition: 1,
                    before: Offset(7),
                    policy: Policy::Records,
                }],
                forget: vec![(StreamId(Index(300)), Index(301))],
            },
        ),
        (
            "stream-group-create",
            StreamCommand::CreateGroup {
                stream: stream(),
                group: group(),
                start: Start::Next,
            },
        ),
        (
            "stream-group-delete",
            StreamCommand::DeleteGroup {
                stream: stream(),
                group: group(),
            },
        ),
        (
            "stream-commit",
            StreamCommand::Commit {
                stream: stream(),
                group: group(),
                cursors: vec![(1, Offset(7))],
            },
        ),
        (
            "stream-pause",
            StreamCommand::Pause {
                stream: stream(),
                group: group(),
                paused: true,
            },
        ),
    ];
    commands
        .map(|(name, command)| (name, Command::Stream(command)))
        .into()
}

fn stream_replies() -> Vec<(&'static str, Reply)> {
    let (partition, partitions) = (1, 1);
    let runs = vec![Run {
        partition,
        first: Offset(7),
        count: 2,
        duplicate: true,
    }];
    let (records, bytes) = (2, 300);
    let replies = [
        StreamReply::Created {
            id: StreamId(Index(300)),
        },
        StreamReply::Deleted { records, bytes },
        StreamReply::Appended { runs },
        StreamReply::Trimmed {
            records,
            bytes,
            ids: 3,
        },
        StreamReply::Group {
            cursors: vec![Offset(7)],
            paused: true,
        },
        StreamReply::GroupDeleted,
    ];
    let refusals = [
        StreamRefusal::Malformed(StreamMalformed::Name),
        StreamRefusal::Malformed(StreamMalformed::Key),
        StreamRefusal::NoSuchStream,
        StreamRefusal::StreamExists,
        StreamRefusal::TooManyStreams,
        StreamRefusal::NoSuchPartition {
            partition,
            partitions,
        },
        StreamRefusal::NoSuchGroup,
        StreamRefusal::GroupExists,
        StreamRefusal::TooManyGroups,
        StreamRefusal::CursorAhead {
            partition,
            offset: Offset(8),
            next: Offset(7),
        },
    ];
    let refused = |refusal| ("stream-refused", Reply::Refused(Refusal::Stream(refusal)));
    let done = replies.map(|reply| ("stream", Reply::Stream(reply)));
    done.into_iter().chain(refusals.map(refused)).collect()
}

#[test]
fn replies() {
    let revision = Revision(301);
    let lease = LeaseId::new(9).expect("not 0");
    let responses = vec![
        Response::Read(Found {
            items: vec![pair()],
            more: true,
            count: Some(2),
        }),
        Response::Put {
            previous: Some(pair()),
        },
        Response::Deleted {
            deleted: 1,
            previous: vec![pair()],
        },
        Response::Nested(1),
    ];
    let done = BlockDone {
        succeeded: true,
        responses,
    };
    let refusals = [
        Refusal::Malformed(Malformed::EmptyKey),
        Refusal::Malformed(Malformed::NotOnce),
        Refusal::Unreadable(ReadError::Compacted {
            revision: Revision(1),
            oldest: Revision(2),
        }),
        Refusal::Unreadable(ReadError::Future {
            revision: Revision(2),
            latest: Revision(1),
        }),
        Refusal::NothingToKeep,
        Refusal::NoSuchLease(lease),
        Refusal::LeaseExists(lease),
        Refusal::TooManyLeases,
        Refusal::StaleTerm,
        Refusal::DifferentRequest,
        Refusal::NoSuchClient(ClientId(Index(300))),
        Refusal::AnswerForgotten,
        Refusal::TooManyAnswers,
        Refusal::Session(SessionRefusal::NoSuchSession),
        Refusal::Session(SessionRefusal::SessionExists),
        Refusal::Session(SessionRefusal::StaleEpoch {
            current: Epoch(Revision(300)),
        }),
        Refusal::Session(SessionRefusal::NoRoom),
        Refusal::Session(SessionRefusal::TooManySessions),
    ];
    let previous = None;
    let mut values = vec![
        ("put-new", Reply::Put { revision, previous }),
        (
            "put",
            Reply::Put {
                revision,
                previous: Some(pair()),
            },
        ),
        (
            "deleted",
            Reply::Deleted {
                revision,
                deleted: 1,
                previous: vec![pair()],
            },
        ),
        (
            "transacted",
            Reply::Transacted(Transacted {
                revision,
                blocks: vec![done, BlockDone::default()],
            }),
        ),
        ("compacted", Reply::Compacted { revision }),
        (
            "granted",
            Reply::Granted {
                lease,
                ttl: Duration::from_millis(1_500),
            },
        ),
        (
            "revoked",
            Reply::Revoked {
                revision,
                leases: 1,
                deleted: 2,
            },
        ),
        (
            "registered",
            Reply::Registered {
                client: ClientId(Index(300)),
            },
        ),
        (
            "forgotten",
            Reply::Forgotten {
                answers: 2,
                clients: 1,
            },
        ),
    ];
    values.extend([
        ("session", Reply::Session(SessionReply::Session(session()))),
        (
            "session-deleted",
            Reply::Session(SessionReply::Deleted { revision }),
        ),
        (
            "placement",
            Reply::Session(SessionReply::Placement {
                revision,
                moved: 3,
                due: 4,
            }),
        ),
    ]);
    values.extend(refusals.map(|refusal| ("refused", Reply::Refused(refusal))));
    values.extend(stream_replies());
    values.extend(settings_replies());
    check("reply", &values, Reply::encode, Reply::decode);
}

/// The lines are the rows that these commands write, in order; the summary rows pin down the fingerprint as well.
#[test]
fn rows() {
    let key = Bytes::from_static(b"key");
    let lease = LeaseId::new(9).expect("not 0");
    let once = |request| Command::Once {
        request,
        command: Command::delete("absent").encode(),
    };
    let commands = [
        Command::put("key", "one"),
        Command::Grant {
            lease: Some(lease),
            ttl: Duration::from_secs(10),
        },
        Command::Put(Put {
            lease: Attach::Lease(lease),
            ..Put::new(key, "two")
        }),
        once(RequestId::Key(Bytes::from_static(b"request"))),
        Command::Register,
        once(RequestId::Numbered {
            client: ClientId(Index(5)),
            number: 1,
            acknowledged: 0,
        }),
        Command::put("other", ""),
        Command::delete("key"),
        sight(),
        create_session(),
        Command::Session(SessionCommand::Rebalance),
        Command::Compact {
            revision: Revision(3),
        },
        set_setting(),
    ];
    let of_streams = stream_commands().into_iter().map(|(_, command)| command);
    // Retention and groups before the stream goes.
    let (mut last, others): (Vec<_>, Vec<_>) =
        of_streams.partition(|command| matches!(command, Command::Stream(StreamCommand::Delete { .. })));
    let commands: Vec<Command> = commands.into_iter().chain(others).chain(last.pop()).collect();
    let mut state = StateMachine::new();
    let mut today = String::new();
    for (index, command) in (1..).zip(&commands) {
        let position = Position {
            term: Term(1),
            index: Index(index),
        };
        let applied = state.apply(position, &command.encode()).expect("a known command");
        for row in applied.rows {
            let value = match &row.change {
                RowChange::Written(value) => hex(value),
                RowChange::Gone => "gone".to_owned(),
                RowChange::RangeGone { last } => format!("gone-to-{}", hex(last)),
            };
            today.push_str(&format!("{} {value}\n", hex(&row.key)));
        }
    }
    let file = golden("row", &today);
    assert_eq!(file, today, "today's encoder writes:\n{today}");

    let mut stored = std::collections::BTreeMap::new();
    for line in file.lines() {
        let (key, value) = line.split_once(' ').expect("a key and a value");
        match value {
            "gone" => drop(stored.remove(&unhex(key))),
            value => match value.strip_prefix("gone-to-") {
                Some(last) => stored.retain(|found, _| *found < unhex(key) || *found > unhex(last)),
                None => drop(stored.insert(unhex(key), unhex(value))),
            },
        }
    }
    let restored = StateMachine::restore(stored.into_iter(), state.applied()).expect("golden rows");
    assert_eq!(restored.fingerprint(), state.fingerprint());
    assert_eq!(restored.revision(), Revision(6));
    assert_eq!(restored.get(b"other"), state.get(b"other"));
    assert_eq!(restored.len(), 1);
}
