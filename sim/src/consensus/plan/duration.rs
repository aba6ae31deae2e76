//! Spans of time as people write them: a number, and `ns`, `us`, `ms` or `s`. Nothing is rounded.

use serde::{Deserialize, Deserializer, Serializer};

use crate::consensus::schedule::Time;

const UNITS: [(&str, u64); 4] = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];

/// A span in the largest unit that it reaches.
pub(crate) fn text(time: Time) -> String {
    let (name, unit) = UNITS
        .into_iter()
        .rev()
        .find(|(_, unit)| time >= *unit)
        .unwrap_or(UNITS[0]);
    let (whole, rest) = (time / unit, time % unit);
    if rest == 0 {
        return format!("{whole}{name}");
    }
    let digits = format!("{:0width$}", rest, width = unit.ilog10() as usize);
    format!("{whole}.{}{name}", digits.trim_end_matches('0'))
}

/// The span that a text says; none when it says none.
pub(crate) fn parse(text: &str) -> Option<Time> {
    let letters = text.find(|character: char| character.is_ascii_alphabetic())?;
    let (number, name) = text.split_at(letters);
    let (_, unit) = UNITS.into_iter().find(|(known, _)| *known == name)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut time = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    let mut place = unit;
    for digit in fraction.chars() {
        place /= 10;
        time = time.checked_add(u64::from(digit.to_digit(10)?) * place)?;
    }
    Some(time)
}

pub(crate) fn serialize<S: Serializer>(time: &Time, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(*time))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text)
        .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no span of time such as 12.5ms")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_in_the_largest_unit_and_read_back() {
        for (time, wanted) in [
            (0, "0ns"),
            (999, "999ns"),
            (1_500, "1.5us"),
            (20_000_000, "20ms"),
            (3_250_340_001, "3.250340001s"),
        ] {
            assert_eq!(text(time), wanted);
            assert_eq!(parse(wanted), Some(time));
        }
        for senseless in ["", "5", "ms", "1.xs", "-1s", "1h", "99999999999999s"] {
            assert_eq!(parse(senseless), None, "{senseless}");
        }
    }
}
