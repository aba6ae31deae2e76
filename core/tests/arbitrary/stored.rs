//! What a node may find on its disk when it starts, sound or not.

use super::*;

/// Entries of the longest log that is played with.
const ENTRIES_MAX: u64 = 10_000;

/// Whether the log is short enough to be played with: it may say that it is longer than any memory.
pub(crate) fn is_playable(boot: &Boot) -> bool {
    let begin = boot.base.position.index.0;
    (begin..=begin.saturating_add(ENTRIES_MAX)).contains(&boot.last.0)
}

/// Every entry of the log that `boot` tells of: those that it has in memory, and for the others what it says of them.
pub(crate) fn entries(boot: &Boot) -> Vec<Entry> {
    let base = boot.base.position.index;
    let kept: BTreeMap<Index, &Entry> = boot
        .tail
        .iter()
        .map(|entry| (entry.position.index, entry))
        .collect();
    let told = |index: Index| {
        let run = boot.terms.iter().rev().find(|start| start.index <= index);
        let membership = boot
            .memberships
            .iter()
            .find(|(position, _)| position.index == index);
        Entry {
            position: Position {
                term: run.expect("the term of every entry is known").term,
                index,
            },
            payload: match membership {
                Some((_, membership)) => Payload::Membership(Box::new(membership.clone())),
                None => Payload::Empty,
            },
        }
    };
    (base.0 + 1..=boot.last.0)
        .map(|index| {
            kept.get(&Index(index))
                .map_or_else(|| told(Index(index)), |entry| (*entry).clone())
        })
        .collect()
}

/// A state that a node can have come to, and whether it is a witness's.
pub(crate) fn sound(dice: &mut Dice) -> (Boot, bool) {
    let witness = dice.one_in(4);
    let mut boot = Boot::blank(OWN, any_voters(dice, witness));
    if dice.one_in(2) {
        return (boot, witness);
    }
    let mut position = Position {
        term: Term(dice.below(4)),
        index: Index(dice.below(9)),
    };
    boot.base.position = position;
    let mut log = Vec::new();
    for _ in 0..dice.below(12) {
        position.index = position.index.next();
        let opens = position.term == Term(0) || dice.one_in(4);
        if opens {
            position.term = Term(position.term.0 + 1 + dice.below(2));
        }
        if boot.terms.last().is_none_or(|start| start.term < position.term) {
            boot.terms.push(position);
        }
        let payload = match dice.below(6) {
            _ if opens => Payload::Empty,
            0 => {
                let membership = any_voters(dice, witness);
                boot.memberships.push((position, membership.clone()));
                Payload::Membership(Box::new(membership))
            }
            _ if witness => Payload::Omitted,
            _ => Payload::Command(Bytes::from_static(b"z=3")),
        };
        log.push(Entry { position, payload });
    }
    boot.last = position.index;
    boot.hard_state.term = Term(position.term.0 + dice.below(3));
    boot.hard_state.vote = dice.one_in(2).then(|| NodeId(1 + dice.below(5)));
    boot.applied = Index(boot.base.position.index.0 + dice.below(log.len() as u64 + 1));
    boot.repair = dice.one_in(4).then(|| Position {
        term: Term(dice.below(boot.hard_state.term.0 + 1)),
        index: Index(boot.last.0 + dice.below(4)),
    });
    let skipped = dice.below(log.len() as u64 + 1) as usize;
    boot.tail = log.split_off(skipped);
    (boot, witness)
}

/// A membership in which this node votes.
fn any_voters(dice: &mut Dice, witness: bool) -> Membership {
    let count = match witness {
        true => 3 + dice.below(3),
        false => 1 + dice.below(5),
    };
    voters(count, witness)
}

/// Changes something of what a node finds.
pub(crate) fn damage(boot: &mut Boot, witness: bool, dice: &mut Dice) {
    match dice.below(13) {
        12 => boot.repair = Some(any_position(boot, dice)),
        0 => boot.last = Index(dice.near(boot.last.0)),
        1 => boot.applied = Index(dice.near(boot.applied.0)),
        2 => boot.hard_state.term = Term(dice.near(boot.hard_state.term.0)),
        3 => boot.base.position.index = Index(dice.near(boot.base.position.index.0)),
        4 => boot.base.position.term = Term(dice.near(boot.base.position.term.0)),
        5 => boot.base.membership = any_membership(dice, witness),
        6 => boot.terms.push(any_position(boot, dice)),
        7 => drop(boot.terms.pop()),
        8 => {
            let position = any_position(boot, dice);
            boot.memberships.push((position, any_membership(dice, witness)));
        }
        9 => drop(boot.memberships.pop()),
        10 if !boot.tail.is_empty() => {
            let place = dice.below(boot.tail.len() as u64) as usize;
            let position = any_position(boot, dice);
            boot.tail[place].position = position;
        }
        _ if !boot.tail.is_empty() => {
            let place = dice.below(boot.tail.len() as u64) as usize;
            boot.tail.remove(place);
        }
        _ => boot.terms.reverse(),
    }
}

fn any_position(boot: &Boot, dice: &mut Dice) -> Position {
    Position {
        term: Term(dice.near(boot.hard_state.term.0)),
        index: Index(dice.near(boot.last.0)),
    }
}
