//! Go's `time.Duration`: `1m30s` in, `1m30s` out.

use super::quote;

/// Units in nanoseconds.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Parses a duration into nanoseconds. The error is Go's text.
pub(super) fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote::go(text));
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    // Go reads the whole part, the fraction and the unit; the sum may reach 2^63 only when negative.
    let limit = 1_u128 << 63;
    let mut total = 0_u128;
    while !rest.is_empty() {
        let (whole, after) = split_digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => split_digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit_name, after) = after.split_at(end);
        if unit_name.is_empty() {
            return Err(format!("time: missing unit in duration {}", quote::go(text)));
        }
        let Some((_, unit)) = UNITS.iter().find(|(name, _)| *name == unit_name) else {
            return Err(format!(
                "time: unknown unit {} in duration {}",
                quote::go(unit_name),
                quote::go(text)
            ));
        };
        let unit = u128::from(*unit);
        let whole: u128 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok().filter(|n| *n <= limit).ok_or_else(invalid)?
        };
        // 18 digits of a fraction are more than any unit can use.
        let fraction = &fraction[..fraction.len().min(18)];
        let digits: u128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| invalid())? };
        let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| invalid())?);
        total += whole * unit + digits * unit / scale;
        if total > limit {
            return Err(invalid());
        }
        rest = after;
    }
    let total = i128::try_from(total).map_err(|_| invalid())?;
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Formats nanoseconds: `0s`, `1.5ms`, `1h0m5s`.
pub(super) fn format(nanoseconds: u128) -> String {
    let decimal = |value: u128, unit: u128, digits: usize, name: &str| {
        let (whole, fraction) = (value / unit, value % unit);
        if fraction == 0 {
            return format!("{whole}{name}");
        }
        let fraction = format!("{fraction:0digits$}");
        format!("{whole}.{}{name}", fraction.trim_end_matches('0'))
    };
    match nanoseconds {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => decimal(nanoseconds, 1_000, 3, "\u{b5}s"),
        1_000_000..1_000_000_000 => decimal(nanoseconds, 1_000_000, 6, "ms"),
        _ => {
            let minutes = nanoseconds / 60_000_000_000;
            let seconds = decimal(nanoseconds % 60_000_000_000, 1_000_000_000, 9, "s");
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
    fn durations_round_trip() {
        for (text, nanoseconds, printed) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("5s", 5_000_000_000, "5s"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            ("1h5s", 3_605_000_000_000, "1h0m5s"),
            ("100ms", 100_000_000, "100ms"),
            ("1ms500us", 1_500_000, "1.5ms"),
            (".5s", 500_000_000, "500ms"),
            ("2.s", 2_000_000_000, "2s"),
            ("+90s", 90_000_000_000, "1m30s"),
            ("17us", 17_000, "17\u{b5}s"),
            ("1.000000001s", 1_000_000_001, "1.000000001s"),
        ] {
            assert_eq!(parse(text), Ok(nanoseconds), "{text}");
            assert_eq!(format(u128::try_from(nanoseconds).unwrap()), printed, "{text}");
        }
        assert_eq!(parse("-1s"), Ok(-1_000_000_000));
    }

    #[test]
    fn errors_are_gos() {
        for (text, error) in [
            ("5", "time: missing unit in duration \"5\""),
            ("", "time: invalid duration \"\""),
            ("x", "time: invalid duration \"x\""),
            (".s", "time: invalid duration \".s\""),
            ("5y", "time: unknown unit \"y\" in duration \"5y\""),
            ("5s5", "time: missing unit in duration \"5s5\""),
            ("9999999999h", "time: invalid duration \"9999999999h\""),
            (
                "99999999999999999999999999999999999999999s",
                "time: invalid duration \"99999999999999999999999999999999999999999s\"",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), error, "{text}");
        }
    }
}
