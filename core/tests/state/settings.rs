//! Settings: sections that change as a whole or not at all, and only as they were judged; rule by rule, and against a
//! plain model through restarts.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_core::state::{
    Basis, Command, Demand, Interest, Judged, KeyRange, Kinds, NewSettings, Others, PageLimits, ReadError,
    Refusal, Reply, RequestId, Revision, SCHEMA_BYTES_MAX, SECTION_BYTES_MAX, SECTION_NAME_BYTES_MAX,
    SECTION_SETTINGS_MAX, SECTIONS_MAX, SETTING_KEY_BYTES_MAX, SETTING_VALUE_BYTES_MAX, SchemaChange,
    SectionChange, SectionName, SettingKey, SettingVersion, SettingsChange, SettingsCommand, SettingsPart,
    SettingsRefusal, SettingsReply, Space, StateMachine, Taken, WatchLimits, Watches,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::draws::Draws;
use super::{apply, bytes, delete, merge, put, refused, reply, restored, stored_rows};

fn name(text: &str) -> SectionName {
    SectionName::new(text).expect("a name")
}

fn key(text: &str) -> SettingKey {
    SettingKey::new(text).expect("a key")
}

fn command(change: SectionChange, basis: Basis) -> Command {
    let section = change.section.clone();
    Command::Settings(SettingsCommand {
        change: SettingsChange::of(change),
        judged: vec![Judged { section, basis }],
    })
}

fn change(section: &str, setting: &str, value: Option<&str>) -> SectionChange {
    SectionChange::settings(name(section), NewSettings::one(key(setting), value.map(bytes)))
}

fn set(section: &str, setting: &str, value: &str) -> Command {
    command(change(section, setting, Some(value)), Basis::NoSchema)
}

fn remove(section: &str, setting: &str) -> Command {
    command(change(section, setting, None), Basis::NoSchema)
}

fn schema_at(section: &str, schema: &str, revision: u64) -> Command {
    let change = SectionChange::schema(name(section), SchemaChange::Set(bytes(schema)));
    command(change, Basis::At(Revision(revision)))
}

fn done(state: &mut StateMachine, command: Command) -> SettingsReply {
    match reply(state, command) {
        Reply::Settings(reply) => reply,
        reply => panic!("{reply:?} is not about settings"),
    }
}

fn declined(state: &mut StateMachine, command: Command) -> SettingsRefusal {
    match refused(state, command) {
        Refusal::Settings(refusal) => refusal,
        refusal => panic!("{refusal:?} is not about settings"),
    }
}

fn value(state: &StateMachine, section: &str, setting: &str) -> Option<Bytes> {
    let setting = state.setting(&name(section), &key(setting), None);
    Some(setting.expect("the latest can be read")?.value)
}

fn section_revision(state: &StateMachine, section: &str) -> u64 {
    let section = state.section(&name(section), None);
    section.expect("the latest can be read").revision.0
}

#[test]
fn a_section_has_the_revision_of_its_latest_change_and_goes_with_its_last_setting() {
    let mut state = StateMachine::new();
    let first = done(&mut state, set("links", "docs", "1"));
    assert_eq!(
        (first.revision, first.written, first.deleted),
        (Revision(1), 1, 0)
    );
    done(&mut state, set("links", "home", "2"));
    done(&mut state, set("users", "ada", "{}"));
    assert_eq!(section_revision(&state, "links"), 2);
    let summaries: Vec<_> = state.sections().collect();
    let names: Vec<&str> = summaries.iter().map(|summary| summary.section.as_str()).collect();
    assert_eq!(names, ["links", "users"]);
    assert_eq!((summaries[0].settings, summaries[0].bytes), (2, 10));
    done(&mut state, remove("links", "docs"));
    let last = done(&mut state, remove("links", "home"));
    assert_eq!((last.revision, last.deleted), (Revision(5), 1));
    assert_eq!(section_revision(&state, "links"), 0, "it does not exist");
    assert_eq!(state.sections().count(), 1);
}

#[test]
fn a_value_that_stays_the_same_keeps_its_revision() {
    let mut state = StateMachine::new();
    done(&mut state, set("links", "docs", "1"));
    let again = done(&mut state, set("links", "docs", "1"));
    assert_eq!((again.revision, again.written), (Revision(1), 0));
    let nothing = done(&mut state, remove("links", "home"));
    assert_eq!((nothing.revision, nothing.deleted), (Revision(1), 0));
}

#[test]
fn a_change_that_was_judged_without_the_schema_in_force_is_not_made() {
    let mut state = StateMachine::new();
    done(&mut state, set("links", "docs", "1"));
    done(&mut state, schema_at("links", "{}", 1));
    let stale = SettingsRefusal::NotAsJudged;
    assert_eq!(declined(&mut state, set("links", "docs", "2")), stale);
    let mut unjudged = set("links", "docs", "2");
    if let Command::Settings(command) = &mut unjudged {
        command.judged.clear();
    }
    assert_eq!(declined(&mut state, unjudged), stale);
    let judged = |revision| command(change("links", "docs", Some("2")), Basis::At(Revision(revision)));
    assert_eq!(declined(&mut state, judged(1)), stale);
    assert_eq!(value(&state, "links", "docs"), Some(bytes("1")));
    done(&mut state, judged(2));
    assert_eq!(value(&state, "links", "docs"), Some(bytes("2")));
    assert_eq!(
        declined(&mut state, judged(2)),
        stale,
        "the section was changed since"
    );
}

#[test]
fn a_schema_is_set_only_by_looking_at_the_section_as_it_is() {
    let mut state = StateMachine::new();
    done(&mut state, set("links", "docs", "1"));
    done(&mut state, set("links", "docs", "2"));
    let stale = SettingsRefusal::NotAsJudged;
    assert_eq!(declined(&mut state, schema_at("links", "{}", 1)), stale);
    let unseen = SectionChange::schema(name("links"), SchemaChange::Set(bytes("{}")));
    assert_eq!(declined(&mut state, command(unseen, Basis::NoSchema)), stale);
    assert_eq!(done(&mut state, schema_at("links", "{}", 2)).schemas, 1);
    let removed = SectionChange::schema(name("links"), SchemaChange::Removed);
    assert_eq!(done(&mut state, command(removed, Basis::NoSchema)).schemas, 1);
    done(&mut state, set("links", "docs", "3"));
}

#[test]
fn a_section_that_went_and_came_again_is_not_taken_for_the_one_that_was_judged() {
    let mut state = StateMachine::new();
    done(&mut state, set("links", "a", "1"));
    done(&mut state, set("links", "b", "1"));
    done(&mut state, remove("links", "b"));
    assert_eq!(section_revision(&state, "links"), 3);
    reply(
        &mut state,
        Command::Compact {
            revision: Revision(3),
        },
    );
    assert_eq!(
        section_revision(&state, "links"),
        3,
        "what was removed still counts"
    );
    assert_eq!(
        declined(&mut state, schema_at("links", "{}", 2)),
        SettingsRefusal::NotAsJudged
    );
}

#[test]
fn a_demand_that_does_not_hold_is_told_the_revision_that_there_is() {
    let mut state = StateMachine::new();
    done(&mut state, set("links", "docs", "1"));
    let demanding = |demand| {
        let demand = Some(demand);
        let change = SectionChange {
            demand,
            ..change("links", "docs", Some("2"))
        };
        command(change, Basis::NoSchema)
    };
    let conflict = |current| SettingsRefusal::Conflict {
        current: Revision(current),
    };
    let absent = Revision::ABSENT;
    for (demand, current) in [
        (Demand::Setting(key("docs"), absent), 1),
        (Demand::Setting(key("home"), Revision(1)), 0),
        (Demand::Section(Revision(7)), 1),
        (Demand::Schema(Revision(1)), 0),
    ] {
        assert_eq!(declined(&mut state, demanding(demand)), conflict(current));
    }
    done(&mut state, demanding(Demand::Setting(key("docs"), Revision(1))));
    done(&mut state, demanding(Demand::Section(Revision(2))));
}

#[test]
fn an_import_replaces_all_sections_or_none() {
    let mut state = StateMachine::new();
    done(&mut state, set("links", "docs", "1"));
    done(&mut state, set("links", "home", "1"));
    done(&mut state, set("users", "ada", "1"));
    let replaced = |section: &str, setting: &str| {
        SectionChange::settings(
            name(section),
            NewSettings::Replaced(vec![(key(setting), bytes("1"))]),
        )
    };
    let import = |judged: &[(&str, u64)]| {
        let judged = judged.iter().map(|(section, revision)| Judged {
            section: name(section),
            basis: Basis::At(Revision(*revision)),
        });
        Command::Settings(SettingsCommand {
            change: SettingsChange {
                sections: vec![replaced("links", "docs"), replaced("roles", "admin")],
                others: Others::Emptied,
            },
            judged: judged.collect(),
        })
    };
    let before = state.clone();
    assert_eq!(
        declined(&mut state, import(&[("links", 2), ("roles", 0)])),
        SettingsRefusal::NotAsJudged,
        "nobody looked at the users"
    );
    assert_eq!(state.revision(), before.revision());
    let reply = done(&mut state, import(&[("links", 2), ("roles", 0), ("users", 3)]));
    assert_eq!((reply.written, reply.deleted), (1, 2));
    let links = state.section(&name("links"), None).expect("the latest");
    assert_eq!(links.settings.len(), 1);
    assert_eq!(
        links.settings[0].mod_revision,
        Revision(1),
        "the same value stays"
    );
    assert_eq!(value(&state, "users", "ada"), None);
    assert_eq!(value(&state, "roles", "admin"), Some(bytes("1")));
}

#[test]
fn a_request_is_carried_out_once_whatever_it_was_judged_by() {
    let mut state = StateMachine::new();
    let once = |command: Command| Command::Once {
        request: RequestId::Key(bytes("request")),
        command: command.encode(),
    };
    let judged = |revision| command(change("links", "docs", Some("1")), Basis::At(Revision(revision)));
    let stale = Reply::Refused(SettingsRefusal::NotAsJudged.into());
    assert_eq!(reply(&mut state, once(judged(7))), stale);
    assert_eq!(state.requests_kept(), 0, "the node that was asked judges anew");
    let first = reply(&mut state, once(judged(0)));
    assert!(matches!(first, Reply::Settings(reply) if reply.written == 1));
    done(&mut state, remove("links", "docs"));
    assert_eq!(reply(&mut state, once(judged(9))), first);
    assert_eq!(value(&state, "links", "docs"), None);
    assert_eq!(
        refused(&mut state, once(set("links", "docs", "2"))),
        Refusal::DifferentRequest
    );
}

#[test]
fn history_and_old_revisions_are_read_as_long_as_they_are_kept() {
    let mut state = StateMachine::new();
    done(&mut state, set("links", "docs", "1"));
    done(&mut state, set("links", "docs", "2"));
    done(&mut state, remove("links", "docs"));
    done(&mut state, set("links", "docs", "3"));
    let history = |state: &StateMachine, before| -> Vec<(u64, Option<Bytes>)> {
        let versions = state.setting_history(&name("links"), &key("docs"), before);
        let words = |SettingVersion { revision, value }| (revision.0, value);
        versions.map(words).collect()
    };
    let version = |revision, value: &str| (revision, Some(bytes(value)));
    assert_eq!(
        history(&state, None),
        [version(4, "3"), (3, None), version(2, "2"), version(1, "1")]
    );
    assert_eq!(history(&state, Some(Revision(2))), [version(1, "1")]);
    let old = state.section(&name("links"), Some(Revision(2))).expect("kept");
    assert_eq!((old.revision, old.settings[0].version), (Revision(2), 2));
    let compact = |revision| Command::Compact {
        revision: Revision(revision),
    };
    reply(&mut state, compact(2));
    assert_eq!(history(&state, None).len(), 3);
    let gone = state.section(&name("links"), Some(Revision(1)));
    assert!(matches!(gone, Err(ReadError::Compacted { .. })));
    reply(&mut state, compact(3));
    assert_eq!(history(&state, None), [version(4, "3")]);
}

#[test]
fn clients_keys_and_settings_do_not_meet_but_share_the_revision() {
    let mut state = StateMachine::new();
    reply(&mut state, put("links", "a key"));
    assert_eq!(done(&mut state, set("links", "docs", "1")).revision, Revision(2));
    reply(&mut state, delete("links"));
    assert_eq!(state.len(), 0);
    assert_eq!(section_revision(&state, "links"), 2);
}

#[test]
fn watchers_of_a_section_see_its_changes_alone() {
    let mut state = StateMachine::new();
    let limits = WatchLimits {
        watchers: 4,
        recent_bytes: 1 << 20,
        page: PageLimits {
            events: 100,
            bytes: 1 << 20,
        },
    };
    let mut watches = Watches::new(&state, limits, 1);
    let interest = Interest {
        space: Space::Settings,
        range: name("links").range(),
        kinds: Kinds::ALL,
    };
    let (watcher, _) = watches.watch(&state, interest, None).expect("a watch");
    for section in ["link", "links", "links-2"] {
        done(&mut state, set(section, "docs", "1"));
        watches.follow(&state, &mut Vec::new());
    }
    let Ok(Taken::Page(page)) = watches.take(watcher) else {
        panic!("no events");
    };
    let parts: Vec<_> = page
        .events
        .iter()
        .filter_map(|event| SettingsPart::of_key(&event.key))
        .collect();
    let expected = [
        SettingsPart::Value(name("links"), key("docs")),
        SettingsPart::Head(name("links")),
    ];
    assert_eq!(parts, expected);
}

#[test]
fn what_is_over_a_bound_is_refused_and_changes_nothing() {
    let mut state = StateMachine::new();
    let text = |length: usize| "x".repeat(length);
    for wrong in [
        "",
        ".",
        "..",
        "a/b",
        "a b",
        "ä",
        &text(SECTION_NAME_BYTES_MAX + 1),
    ] {
        assert_eq!(SectionName::new(wrong), None, "{wrong}");
    }
    for wrong in ["", ".", "..", "a\0", "a\n", &text(SETTING_KEY_BYTES_MAX + 1)] {
        assert_eq!(SettingKey::new(wrong), None, "{wrong}");
    }
    let mut no = |command| declined(&mut state, command);
    let large = text(SETTING_VALUE_BYTES_MAX + 1);
    assert_eq!(no(set("a", "b", &large)), SettingsRefusal::ValueTooLarge);
    let large = text(SCHEMA_BYTES_MAX + 1);
    assert_eq!(no(schema_at("a", &large, 0)), SettingsRefusal::SchemaTooLarge);
    let twice = NewSettings::Merged(vec![(key("a"), Some(bytes("1"))), (key("a"), None)]);
    let twice = command(SectionChange::settings(name("a"), twice), Basis::NoSchema);
    assert_eq!(no(twice), SettingsRefusal::NamedTwice);
    let many = (0..=SECTION_SETTINGS_MAX).map(|number| (key(&number.to_string()), Bytes::new()));
    let many = NewSettings::Replaced(many.collect());
    let many = command(SectionChange::settings(name("a"), many), Basis::NoSchema);
    assert_eq!(no(many), SettingsRefusal::TooManySettings);
    let large = text(SETTING_VALUE_BYTES_MAX);
    let fits = SECTION_BYTES_MAX / SETTING_VALUE_BYTES_MAX - 1;
    for number in 0..fits {
        done(&mut state, set("a", &number.to_string(), &large));
    }
    assert_eq!(
        declined(&mut state, set("a", "more", &large)),
        SettingsRefusal::SectionTooLarge
    );
    for number in 1..SECTIONS_MAX {
        done(&mut state, set(&format!("section-{number}"), "a", "1"));
    }
    let before = state.revision();
    assert_eq!(
        declined(&mut state, set("one-more", "a", "1")),
        SettingsRefusal::TooManySections
    );
    assert_eq!(state.revision(), before);
    done(&mut state, remove("section-1", "a"));
    done(&mut state, set("one-more", "a", "1"));
}

#[test]
fn a_section_that_is_not_what_its_head_tells_is_no_state() {
    let mut state = StateMachine::new();
    apply(&mut state, &set("links", "docs", "1"));
    let rows = stored_rows(&state);
    assert!(StateMachine::restore(rows.clone().into_iter(), state.applied()).is_ok());
    let versions: Vec<_> = rows.keys().filter(|row| row[0] == 1).cloned().collect();
    assert_eq!(versions.len(), 2, "the value and the head");
    for version in versions {
        let mut torn = rows.clone();
        torn.remove(&version);
        assert!(StateMachine::restore(torn.into_iter(), state.applied()).is_err());
    }
}

/// A value with the revision of its latest change.
type Known = (Bytes, u64);

/// Sections in the plainest form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    revision: u64,
    sections: BTreeMap<SectionName, Plain>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Plain {
    revision: u64,
    schema: Option<Known>,
    settings: BTreeMap<SettingKey, Known>,
}

impl Model {
    fn apply(&mut self, command: &SettingsCommand) -> bool {
        let before = self.clone();
        let next = self.revision + 1;
        let mut changes = command.change.sections.clone();
        if command.change.others == Others::Emptied {
            let named: BTreeSet<_> = changes.iter().map(|change| change.section.clone()).collect();
            let others = self.sections.keys().filter(|section| !named.contains(*section));
            let nothing = || NewSettings::Replaced(Vec::new());
            changes.extend(others.map(|section| SectionChange::settings(section.clone(), nothing())));
        }
        for change in changes {
            let was = before.sections.get(&change.section).cloned().unwrap_or_default();
            if !Model::allows(&was, &change, &command.judged) {
                *self = before;
                return false;
            }
            let mut is = was.clone();
            match &change.schema {
                SchemaChange::Stays => {}
                SchemaChange::Set(schema) => {
                    let same = is.schema.as_ref().is_some_and(|(before, _)| before == schema);
                    is.schema = if same {
                        is.schema
                    } else {
                        Some((schema.clone(), next))
                    };
                }
                SchemaChange::Removed => is.schema = None,
            }
            if matches!(change.settings, NewSettings::Replaced(_)) {
                is.settings.clear();
            }
            for (key, value) in change.settings.entries() {
                match value {
                    None => drop(is.settings.remove(key)),
                    Some(value) => {
                        let before = was.settings.get(key).filter(|(before, _)| before == value);
                        let known = before.cloned().unwrap_or((value.clone(), next));
                        is.settings.insert(key.clone(), known);
                    }
                }
            }
            if is != was {
                is.revision = next;
                self.revision = next;
            }
            self.sections.insert(change.section.clone(), is);
            self.sections
                .retain(|_, section| section.schema.is_some() || !section.settings.is_empty());
        }
        true
    }

    fn allows(was: &Plain, change: &SectionChange, judged: &[Judged]) -> bool {
        let revision = |known: Option<&Known>| known.map_or(0, |known| known.1);
        let demanded = match &change.demand {
            None => true,
            Some(Demand::Section(expected)) => expected.0 == was.revision,
            Some(Demand::Schema(expected)) => expected.0 == revision(was.schema.as_ref()),
            Some(Demand::Setting(key, expected)) => expected.0 == revision(was.settings.get(key)),
        };
        let looked = judged.iter().any(|judged| {
            judged.section == change.section
                && match judged.basis {
                    Basis::At(at) => at.0 == was.revision,
                    Basis::NoSchema => was.schema.is_none() && !matches!(change.schema, SchemaChange::Set(_)),
                }
        });
        demanded && (looked || change.schema == SchemaChange::Removed)
    }
}

fn draw(draws: &mut Draws, model: &Model) -> SettingsCommand {
    let mut sections: Vec<SectionChange> = Vec::new();
    for _ in 0..=draws.below(2) {
        let section = name(["a", "b", "b-2"][usize::try_from(draws.below(3)).expect("small")]);
        sections.retain(|change| change.section != section);
        let mut settings: BTreeMap<SettingKey, Option<Bytes>> = BTreeMap::new();
        for _ in 0..draws.below(3) {
            let value = (draws.below(3) > 0).then(|| bytes(&draws.below(3).to_string()));
            settings.insert(key(&draws.below(4).to_string()), value);
        }
        let settings = match draws.below(4) {
            0 => {
                let given = settings.into_iter();
                NewSettings::Replaced(given.filter_map(|(key, value)| Some((key, value?))).collect())
            }
            _ => NewSettings::Merged(settings.into_iter().collect()),
        };
        let some = Revision(draws.below(model.revision + 1));
        sections.push(SectionChange {
            section,
            settings,
            demand: match draws.below(12) {
                0 => Some(Demand::Section(some)),
                1 => Some(Demand::Schema(some)),
                2 => Some(Demand::Setting(key("0"), some)),
                _ => None,
            },
            schema: match draws.below(10) {
                0 => SchemaChange::Set(bytes(&draws.below(2).to_string())),
                1 => SchemaChange::Removed,
                _ => SchemaChange::Stays,
            },
        });
    }
    let mut judged = Vec::new();
    for section in ["a", "b", "b-2"] {
        let known = model.sections.get(&name(section));
        let basis = match draws.below(16) {
            0 => continue,
            1..=7 => Basis::NoSchema,
            8 => Basis::At(Revision(draws.below(model.revision + 1))),
            _ => Basis::At(Revision(known.map_or(0, |known| known.revision))),
        };
        let section = name(section);
        judged.push(Judged { section, basis });
    }
    let others = match draws.below(8) {
        0 => Others::Emptied,
        _ => Others::Stay,
    };
    let change = SettingsChange { sections, others };
    SettingsCommand { change, judged }
}

/// What the state is, in the model's words.
fn words(state: &StateMachine, at: Option<Revision>) -> BTreeMap<SectionName, Plain> {
    let mut words = BTreeMap::new();
    for section in ["a", "b", "b-2"].map(name) {
        let read = state.section(&section, at).expect("it can be read");
        let settings = read.settings.into_iter();
        let plain = Plain {
            revision: read.revision.0,
            schema: read.schema.map(|(schema, revision)| (schema, revision.0)),
            settings: settings
                .map(|setting| (setting.key, (setting.value, setting.mod_revision.0)))
                .collect(),
        };
        if plain != Plain::default() {
            words.insert(section, plain);
        }
    }
    words
}

#[test]
fn random_commands_give_what_a_plain_model_gives_at_every_revision() {
    let (mut made, mut refused) = (0, 0);
    for seed in 0..120 {
        let mut draws = Draws(ChaCha8Rng::seed_from_u64(seed));
        let (mut model, mut state) = (Model::default(), StateMachine::new());
        let mut revisions = vec![BTreeMap::new()];
        let mut compacted = 0;
        let mut store = BTreeMap::new();
        for index in 1..=150 {
            if draws.below(20) == 0 {
                state = StateMachine::restore(store.clone().into_iter(), state.applied()).expect("rows");
            }
            if draws.below(20) == 0 && compacted < model.revision {
                compacted += 1 + draws.below(model.revision - compacted);
                let compact = Command::Compact {
                    revision: Revision(compacted),
                };
                merge(&mut store, apply(&mut state, &compact).rows);
                continue;
            }
            let command = draw(&mut draws, &model);
            let place = format!("seed {seed} index {index} {command:?}");
            let taken = model.apply(&command);
            let applied = apply(&mut state, &Command::Settings(command));
            assert_eq!(taken, matches!(applied.reply, Reply::Settings(_)), "{place}");
            *(if taken { &mut made } else { &mut refused }) += 1;
            merge(&mut store, applied.rows);
            assert_eq!(store, stored_rows(&state), "{place}");
            assert_eq!(words(&state, None), model.sections, "{place}");
            assert_eq!(state.revision().0, model.revision, "{place}");
            revisions.truncate(usize::try_from(model.revision).expect("few"));
            revisions.push(model.sections.clone());
            let looked_at = compacted + draws.below(model.revision - compacted + 1);
            let then = &revisions[usize::try_from(looked_at).expect("few")];
            assert_eq!(words(&state, Some(Revision(looked_at))), *then, "{place}");
        }
        assert_eq!(restored(&state).fingerprint(), state.fingerprint());
    }
    assert!(made > 5_000 && refused > 2_000, "{made} made, {refused} refused");
}

#[test]
fn what_is_no_part_of_a_section_is_none() {
    for wrong in [&b""[..], b"a\x01b", b"a\0", b"a b", b"\xff", b"a\0\xff"] {
        assert_eq!(SettingsPart::of_key(wrong), None, "{wrong:?}");
    }
    let range = name("a").range();
    assert!(range.contains(b"a") && range.contains(b"a\0k") && range.contains(b"a\x01"));
    assert!(!range.contains(b"a-2") && !KeyRange::only(&b"a"[..]).contains(b"a\0k"));
}
