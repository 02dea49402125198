//! Durations as Go writes them (`200ms`, `1m30s`), which is how configurations hold them.

use std::time::Duration;

/// Units with their length in nanoseconds; longer names first where one is a prefix of the other.
const UNITS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// Reads a duration; the answer tells whether it is negative.
///
/// # Errors
/// Go's text for what is wrong.
pub(crate) fn parse(text: &str) -> Result<(bool, Duration), String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok((negative, Duration::ZERO));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanoseconds = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number = &rest[..digits];
        if !number.bytes().any(|byte| byte.is_ascii_digit()) || number.matches('.').count() > 1 {
            return Err(invalid());
        }
        rest = &rest[digits..];
        let length = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = &rest[..length];
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("time: unknown unit {unit:?} in duration {text:?}"));
        };
        nanoseconds += number.parse::<f64>().map_err(|_| invalid())? * scale;
        rest = &rest[length..];
    }
    // Go's durations are 63 bits of nanoseconds.
    if nanoseconds >= 9_223_372_036_854_775_808.0 {
        return Err(invalid());
    }
    Ok((negative, Duration::from_secs_f64(nanoseconds / 1e9)))
}

/// Writes a duration as Go prints it.
pub(crate) fn format(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let fraction = |value: u128, unit: u128, name: &str| {
        let text = format!("{}.{:0width$}", value / unit, value % unit, width = unit.ilog10() as usize);
        format!("{}{name}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match nanoseconds {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => fraction(nanoseconds, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(nanoseconds, 1_000_000, "ms"),
        _ => {
            let seconds = fraction(nanoseconds % 60_000_000_000, 1_000_000_000, "s");
            let minutes = duration.as_secs() / 60;
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_as_in_go() {
        for text in ["200ms", "2s", "1m30s", "1.5s", "3m0s", "1h0m0s", "10µs", "7ns", "0s"] {
            let (negative, duration) = parse(text).unwrap();
            assert!(!negative);
            assert_eq!(format(duration), text);
        }
        assert_eq!(parse("90s").unwrap().1, Duration::from_secs(90));
        assert_eq!(parse("-1s").unwrap(), (true, Duration::from_secs(1)));
        assert_eq!(parse("0").unwrap().1, Duration::ZERO);
        assert_eq!(parse("abc").unwrap_err(), "time: invalid duration \"abc\"");
        assert_eq!(parse("5").unwrap_err(), "time: missing unit in duration \"5\"");
        assert_eq!(parse("5x").unwrap_err(), "time: unknown unit \"x\" in duration \"5x\"");
        assert!(parse("").is_err() && parse(".s").is_err() && parse("999999999h").is_err());
    }
}
