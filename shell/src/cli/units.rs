//! Times and sizes on the command line, with their units.

use std::time::Duration;

/// A time: a number with its unit behind it, more than nothing.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let units = [
        ("ms", 1),
        ("s", 1_000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
    ];
    amount(text, &units)
        .map(Duration::from_millis)
        .ok_or_else(|| "expected a time such as 500ms, 30s, 5m, 1h or 7d".to_owned())
}

/// A size in bytes: a number, which may have a unit behind it, more than nothing.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("", 1)];
    amount(text, &units)
        .ok_or_else(|| "expected a number of bytes, or a size such as 64KiB, 100MiB or 1GiB".to_owned())
}

/// A number times its unit; the first unit counts that `text` ends with.
fn amount(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (digits, unit) = units
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))?;
    let digits: u64 = digits.parse().ok()?;
    digits.checked_mul(unit).filter(|amount| *amount > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(time("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(time("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(time("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for text in ["30", "s", "0s", "-1s", "1w", "99999999999999999999h"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_may_have_a_unit() {
        assert_eq!(size("1073741824"), Ok(1 << 30));
        assert_eq!(size("64KiB"), Ok(64 << 10));
        assert_eq!(size("100MiB"), Ok(100 << 20));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        for text in [
            "",
            "0",
            "MiB",
            "-1KiB",
            "1MB",
            "99999999999999999999",
            "18446744073709551615GiB",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
