//! PAX extended headers: `length key=value` records (POSIX pax, "Extended Header").
//!
//! Records are delimited by their length, never by newlines: values are binary here (attributes, names with
//! newlines). The `tar` crate splits at newlines, which is why this is ours.

/// One record's key and value.
pub(super) type Record<'a> = (&'a [u8], &'a [u8]);

/// Appends a record to `out`.
pub(super) fn push_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    // The length counts its own digits, which may add one more.
    let mut length = rest + decimal_digits(rest);
    if decimal_digits(length) != decimal_digits(rest) {
        length = rest + decimal_digits(length);
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn decimal_digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// Splits an extended header into its records; an error says what is wrong with it.
pub(super) fn records(mut data: &[u8]) -> Result<Vec<Record<'_>>, String> {
    let mut records = Vec::new();
    while !data.is_empty() {
        // Some writers pad with zeros.
        if data.iter().all(|byte| *byte == 0) {
            break;
        }
        let space = data.iter().take(20).position(|byte| *byte == b' ');
        let length = space.and_then(|space| parse_decimal(&data[..space]).map(|length| (space, length)));
        let Some((space, length)) = length else {
            return Err("extended header record without a length".to_owned());
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length < space + 3 || length > data.len() {
            return Err(format!("extended header record of {length} bytes where {} are left", data.len()));
        }
        let (record, rest) = data.split_at(length);
        let body = &record[space + 1..];
        let Some(body) = body.strip_suffix(b"\n") else {
            return Err("extended header record without a newline at its end".to_owned());
        };
        let Some(equals) = body.iter().position(|byte| *byte == b'=').filter(|at| *at > 0) else {
            return Err("extended header record without a key".to_owned());
        };
        records.push((&body[..equals], &body[equals + 1..]));
        data = rest;
    }
    Ok(records)
}

/// Reads a decimal number without sign; `None` for anything else.
pub(super) fn parse_decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads a PAX time, `-12.345`: seconds rounded down, and nanoseconds.
pub(super) fn parse_time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    let seconds = i64::try_from(parse_decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanoseconds = 0;
    for place in 0..9 {
        nanoseconds = nanoseconds * 10 + fraction.get(place).map_or(0, |digit| u32::from(digit - b'0'));
    }
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_whatever_is_in_them() {
        for value in [&b""[..], b"x", b"two\nlines", b"12 a=b\n", &[0, 10, 255], &[b'v'; 9_990]] {
            let mut out = Vec::new();
            push_record(&mut out, b"first", value);
            push_record(&mut out, b"second", b"end");
            assert_eq!(records(&out).unwrap(), [(&b"first"[..], value), (b"second", b"end")]);
        }
    }

    #[test]
    fn lengths_count_their_own_digits() {
        for length in 0..1200 {
            let mut out = Vec::new();
            push_record(&mut out, b"k", &vec![b'v'; length]);
            let text = String::from_utf8(out.clone()).unwrap();
            assert_eq!(text.split(' ').next().unwrap(), out.len().to_string());
        }
    }

    #[test]
    fn damaged_records_are_refused() {
        for data in [
            &b"x"[..],
            b"9 a=b\n",
            b"5 a=b\n",
            b"-6 a=b\n",
            b"6 abc\n",
            b"6 a=bc",
            b"5 =b\n",
            b"0 a=b\n",
            b"3 \n",
            b"99999999999999999999999999 a=b\n",
            b" a=b\n",
        ] {
            assert!(records(data).is_err(), "{:?}", String::from_utf8_lossy(data));
        }
        assert_eq!(records(b"6 a=b\n\0\0\0").unwrap().len(), 1);
    }

    #[test]
    fn times_round_down() {
        assert_eq!(parse_time(b"12"), Some((12, 0)));
        assert_eq!(parse_time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(parse_time(b"12.0000000019"), Some((12, 1)));
        assert_eq!(parse_time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(parse_time(b"-3"), Some((-3, 0)));
        for text in [&b""[..], b".5", b"1.x", b"1e9", b"99999999999999999999", b"--1"] {
            assert_eq!(parse_time(text), None, "{text:?}");
        }
    }
}
