//! Sizes as docker writes them: `64m`, `1.5g`, `128KiB`; always powers of 1024.

use super::ValueError;

/// Reads a size into bytes.
pub fn parse_size_bytes(option: &'static str, text: &str) -> Result<u64, ValueError> {
    let fail = || ValueError::new(option, text, "expected a size such as `64m`, `1.5g` or `1048576`");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let factor: u64 = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
        "" if !unit.ends_with("ib") => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        "p" => 1 << 50,
        _ => return Err(fail()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(fail);
    }
    let number: f64 = number.parse().map_err(|_| fail())?;
    // Up to 2^53 a float is exact; larger sizes with a fraction mean nothing anyway.
    let bytes = number * factor as f64;
    if bytes.is_finite() && (0.0..9e15).contains(&bytes) { Ok(bytes as u64) } else { Err(fail()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("134217728", 134_217_728),
            ("64m", 64 << 20),
            ("64M", 64 << 20),
            ("64mb", 64 << 20),
            ("64MiB", 64 << 20),
            ("1.5g", 3 << 29),
            ("128 k", 128 << 10),
            ("10b", 10),
            ("1t", 1 << 40),
        ] {
            assert_eq!(parse_size_bytes("--shm-size", text).unwrap(), bytes, "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_sizes() {
        for text in
            ["", "m", "-1", "1x", "1.2.3", "64 m b", "99999999999999999999", "9999999p", "5ib", "0x10"]
        {
            assert!(parse_size_bytes("--shm-size", text).is_err(), "{text}");
        }
    }
}
