//! Ages as people write them: `36h`, `7d`, `2w`, `1h30m`; a number alone is seconds.

use std::time::Duration;

use super::ValueError;

/// Reads an age.
pub fn parse_age(option: &'static str, text: &str) -> Result<Duration, ValueError> {
    let fail = || ValueError::new(option, text, "expected an age such as `36h`, `7d`, `2w` or `1h30m`");
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut seconds: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(fail)?;
        let (number, after) = rest.split_at(digits);
        let units = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(units);
        let factor: u64 = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            "w" => 7 * 86_400,
            _ => return Err(fail()),
        };
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
        seconds = part.and_then(|part| seconds.checked_add(part)).ok_or_else(fail)?;
        rest = after;
    }
    if text.is_empty() { Err(fail()) } else { Ok(Duration::from_secs(seconds)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_add_up() {
        for (text, seconds) in [
            ("90", 90),
            ("36h", 129_600),
            ("7d", 604_800),
            ("2w", 1_209_600),
            ("1h30m", 5400),
            ("1d1s", 86_401),
        ] {
            assert_eq!(parse_age("--older-than", text).unwrap().as_secs(), seconds, "{text}");
        }
        for text in ["", "h", "1y", "-1h", "1.5h", "1h3", "99999999999999999999d", "99999999999999999d"] {
            assert!(parse_age("--older-than", text).is_err(), "{text}");
        }
    }
}
