//! Reads typed values out of the layers, collects what is wrong, and remembers what came out.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::layers::{Layers, Raw};
use super::mistake::{Mistake, Origin};
use crate::yaml::{Node, Value};

/// A value with its origin.
#[derive(Clone, Debug)]
pub(super) struct Sourced<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
}

/// One line of the effective configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The key with its sections.
    pub key: &'static str,
    /// The value, as it may stand in a configuration file.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

pub(super) struct Reader {
    layers: Layers,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) warnings: Vec<String>,
    pub(super) effective: Vec<Effective>,
}

impl Reader {
    pub(super) fn new(mut layers: Layers) -> Reader {
        Reader {
            mistakes: std::mem::take(&mut layers.mistakes),
            warnings: std::mem::take(&mut layers.warnings),
            layers,
            effective: Vec::new(),
        }
    }

    pub(super) fn raw(&self, key: &str) -> Option<&Raw> {
        self.layers.get(key)
    }

    pub(super) fn mistake(&mut self, origin: &Origin, message: impl Into<String>) {
        let origin = (*origin != Origin::Default).then(|| origin.clone());
        self.mistakes.push(Mistake {
            origin,
            message: message.into(),
        });
    }

    /// Notes what is in force for `key`; a later note replaces an earlier one.
    pub(super) fn note(&mut self, key: &'static str, value: impl Display, origin: &Origin) {
        self.effective.retain(|line| line.key != key);
        self.effective.push(Effective {
            key,
            value: value.to_string(),
            origin: origin.clone(),
        });
    }

    /// The text given for `key`, if any.
    pub(super) fn text(&mut self, key: &'static str) -> Option<Sourced<String>> {
        let raw = self.raw(key)?.clone();
        match scalar_text(&raw.node) {
            Some(text) => Some(Sourced {
                value: text.to_owned(),
                origin: raw.origin,
            }),
            None => {
                self.mistake(&raw.origin, "expected one value, found a list or a section");
                None
            }
        }
    }

    /// What `parse` makes of the text given for `key`, or `default`. A mistake stands for the default, so that the
    /// other mistakes are found too.
    pub(super) fn parsed<T: Clone>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Sourced<T> {
        let fallback = Sourced {
            value: default,
            origin: Origin::Default,
        };
        let Some(text) = self.text(key) else {
            return fallback;
        };
        match parse(text.value.trim()) {
            Ok(value) => Sourced {
                value,
                origin: text.origin,
            },
            Err(message) => {
                self.mistake(&text.origin, message);
                fallback
            }
        }
    }

    /// As [`Reader::parsed`], and notes the value as in force.
    fn noted<T: Clone>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
        show: impl FnOnce(&T) -> String,
    ) -> Sourced<T> {
        let sourced = self.parsed(key, default, parse);
        self.note(key, show(&sourced.value), &sourced.origin);
        sourced
    }

    pub(super) fn boolean(&mut self, key: &'static str, default: bool) -> Sourced<bool> {
        self.noted(key, default, parse_boolean, bool::to_string)
    }

    pub(super) fn number<T>(&mut self, key: &'static str, default: T, range: RangeInclusive<T>) -> Sourced<T>
    where
        T: Copy + FromStr + PartialOrd + Display,
    {
        self.noted(key, default, |text| parse_number(text, &range), T::to_string)
    }

    /// A size: a number of bytes, or one with KiB, MiB or GiB behind it.
    pub(super) fn bytes(
        &mut self,
        key: &'static str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> Sourced<usize> {
        self.noted(key, default, |text| parse_bytes(text, &range), usize::to_string)
    }

    /// A time: a number of milliseconds, or one with ms or s behind it.
    pub(super) fn milliseconds(
        &mut self,
        key: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Sourced<Duration> {
        self.noted(
            key,
            Duration::from_millis(default),
            |text| parse_milliseconds(text, &range),
            |duration| duration.as_millis().to_string(),
        )
    }

    pub(super) fn port(&mut self, key: &'static str, default: u16) -> Sourced<u16> {
        self.number(key, default, 1..=u16::MAX)
    }
}

pub(super) fn scalar_text(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar(scalar) => Some(&scalar.text),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}

pub(super) fn parse_boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("expected true or false, found `{text}`")),
    }
}

pub(super) fn parse_number<T>(text: &str, range: &RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    let expected = || format!("expected a number from {} to {}", range.start(), range.end());
    match text.parse::<T>() {
        Ok(number) if range.contains(&number) => Ok(number),
        Ok(number) => Err(format!("{}, found {number}", expected())),
        Err(_) => Err(format!("{}, found `{text}`", expected())),
    }
}

fn parse_bytes(text: &str, range: &RangeInclusive<usize>) -> Result<usize, String> {
    let (digits, unit) = split_unit(
        text,
        &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("", 1)],
    );
    digits
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|bytes| range.contains(bytes))
        .ok_or_else(|| {
            format!(
                "expected a size from {} to {} bytes (KiB, MiB and GiB may follow the number), found `{text}`",
                range.start(),
                range.end()
            )
        })
}

fn parse_milliseconds(text: &str, range: &RangeInclusive<u64>) -> Result<Duration, String> {
    let (digits, unit) = split_unit(text, &[("ms", 1), ("s", 1000), ("", 1)]);
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|milliseconds| range.contains(milliseconds))
        .map(Duration::from_millis)
        .ok_or_else(|| {
            format!(
                "expected a time from {} to {} milliseconds (`ms` or `s` may follow the number), found `{text}`",
                range.start(),
                range.end()
            )
        })
}

/// The text before the first of the units that it ends in, and what that unit is worth.
fn split_unit<'a, T: Copy + From<u8>>(text: &'a str, units: &[(&str, T)]) -> (&'a str, T) {
    units
        .iter()
        .find_map(|(unit, worth)| text.strip_suffix(unit).map(|digits| (digits.trim_end(), *worth)))
        .unwrap_or((text, T::from(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_take_units() {
        assert_eq!(
            parse_milliseconds("150", &(1..=9999)),
            Ok(Duration::from_millis(150))
        );
        assert_eq!(
            parse_milliseconds("150ms", &(1..=9999)),
            Ok(Duration::from_millis(150))
        );
        assert_eq!(parse_milliseconds("2 s", &(1..=9999)), Ok(Duration::from_secs(2)));
        assert!(parse_milliseconds("20s", &(1..=9999)).is_err());
        assert!(parse_milliseconds("-1", &(1..=9999)).is_err());
        assert!(parse_milliseconds("99999999999999999999s", &(1..=9999)).is_err());
        assert_eq!(parse_bytes("4KiB", &(1..=9999)), Ok(4096));
        assert_eq!(parse_bytes("17", &(1..=9999)), Ok(17));
        assert!(parse_bytes("1 MB", &(1..=9_999_999)).is_err());
    }
}
