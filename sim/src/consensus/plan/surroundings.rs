//! What is so around production nodes alone: what clients speak, and what breaks: dates, addresses, the size of packets.
//! The core simulation has none of these. They have a stream of chance of their own, and shift nothing else in a plan.

use super::draw::CALM_BEGINNING;
use super::{Fault, FaultKind, Who};
use crate::consensus::schedule::{MILLISECOND, SECOND, Time};
use crate::random::{Concern, Stream};

/// In so many of a million runs something of this kind breaks.
const CHANCE: u32 = 400_000;
const HOUR: Time = 3_600 * SECOND;
/// How far ahead a date may be. Certificates are issued backdated by a year: the nodes still know each other.
const AHEAD: [Time; 3] = [HOUR, 30 * 24 * HOUR, 300 * 24 * HOUR];
/// Bytes of a packet that still come through: QUIC relies on 1,200 (RFC 9000, section 14).
const BYTES: [u16; 3] = [1_200, 1_280, 1_400];

/// How many clients speak QUIC: none, some, or all of four.
pub(super) fn clients_over_quic(seed: u64) -> u64 {
    let mut random = Stream::keyed(seed, Concern::Surroundings, 1);
    *random.pick(&[0, 1, 2, 3, 4, 4])
}

pub(super) fn draw(seed: u64, duration: Time) -> Vec<Fault> {
    let mut random = Stream::new(seed, Concern::Surroundings);
    let mut faults = Vec::new();
    if !random.chance(CHANCE) {
        return faults;
    }
    let mean = *random.pick(&[2 * SECOND, 5 * SECOND]);
    let mut at = CALM_BEGINNING + random.around(SECOND);
    while at < duration {
        let (one, other) = (who(&mut random), who(&mut random));
        let kind = match random.below(3) {
            0 => FaultKind::WrongDate {
                victim: one,
                ahead: *random.pick(&AHEAD),
                duration: random.around(4 * SECOND),
            },
            1 => FaultKind::Swap {
                one,
                other,
                duration: 100 * MILLISECOND + random.around(2 * SECOND),
            },
            _ => FaultKind::BlackHole {
                one,
                other,
                bytes: *random.pick(&BYTES),
                duration: random.around(4 * SECOND),
            },
        };
        faults.push(Fault { at, kind });
        at += random.around(mean);
    }
    faults
}

fn who(random: &mut Stream) -> Who {
    let place = Who::Place(random.below(64));
    if random.chance(300_000) {
        Who::Leader
    } else {
        place
    }
}
