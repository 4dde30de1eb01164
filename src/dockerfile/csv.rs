//! One line of CSV (RFC 4180): how flags carry several options.

/// Splits a text at its commas; the error is Go's text.
pub(super) fn fields(text: &str) -> Result<Vec<String>, String> {
    let fail = |column: usize, reason: &str| Err(format!("parse error on line 1, column {column}: {reason}"));
    if text.is_empty() {
        return Err("EOF".to_owned());
    }
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let column = |rest: &str| text.len() - rest.len() + 1;
        let Some(mut quoted) = rest.strip_prefix('"') else {
            let (field, after) =
                rest.split_once(',').map_or((rest, None), |(field, after)| (field, Some(after)));
            if let Some(index) = field.find('"') {
                return fail(column(rest) + index, "bare \" in non-quoted-field");
            }
            fields.push(field.to_owned());
            match after {
                Some(after) => rest = after,
                None => return Ok(fields),
            }
            continue;
        };
        let mut field = String::new();
        loop {
            let Some((part, after)) = quoted.split_once('"') else {
                return fail(column(quoted), "extraneous or missing \" in quoted-field");
            };
            field.push_str(part);
            quoted = after;
            match quoted.strip_prefix('"') {
                Some(after) => {
                    field.push('"');
                    quoted = after;
                }
                None => break,
            }
        }
        fields.push(field);
        if quoted.is_empty() {
            return Ok(fields);
        }
        match quoted.strip_prefix(',') {
            Some(after) => rest = after,
            None => return fail(column(quoted) - 1, "extraneous or missing \" in quoted-field"),
        }
    }
}
