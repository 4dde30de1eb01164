//! One line of comma-separated fields (RFC 4180), as docker's `--output` and `--secret` use it.

/// Splits a line at commas. A field in double quotes may hold commas; `""` in it is a quote.
pub fn fields(text: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let after = if let Some(quoted) = rest.strip_prefix('"') {
            let (field, after) = quoted_field(quoted)?;
            fields.push(field);
            after
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let field = &rest[..end];
            if field.contains('"') {
                return Err("a quote `\"` may only stand around a whole field");
            }
            fields.push(field.to_owned());
            &rest[end..]
        };
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err("expected `,` after a closing quote `\"`"),
        }
    }
}

/// Reads up to the closing quote; returns the field and what follows it.
fn quoted_field(text: &str) -> Result<(String, &str), &'static str> {
    let mut field = String::new();
    let mut rest = text;
    while let Some(end) = rest.find('"') {
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None => return Ok((field, rest)),
        }
    }
    Err("a quoted field does not end: expected `\"`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split_at_commas_outside_quotes() {
        assert_eq!(fields("a=1,b=2").unwrap(), ["a=1", "b=2"]);
        assert_eq!(fields(r#"type=oci,"name=a,b",c"#).unwrap(), ["type=oci", "name=a,b", "c"]);
        assert_eq!(fields(r#""a""b""#).unwrap(), [r#"a"b"#]);
        assert_eq!(fields("a,,b,").unwrap(), ["a", "", "b", ""]);
        assert_eq!(fields("").unwrap(), [""]);
    }

    #[test]
    fn broken_quotes_are_refused() {
        for text in [r#"a"b"#, r#""a"#, r#""a"b,c"#] {
            assert!(fields(text).is_err(), "{text}");
        }
    }
}
