//! What the headers of an answer say.

use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;

use crate::context::git::decoded;

/// The three forms of RFC 9110, section 5.6.7.
const DATE_FORMS: [&str; 3] =
    ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// Understands an HTTP date, in seconds since 1970.
pub(super) fn parse_http_date(text: &str) -> Option<i64> {
    DATE_FORMS.iter().find_map(|form| {
        let datetime = BrokenDownTime::parse(form, text.trim()).ok()?.to_datetime().ok()?;
        Some(datetime.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
    })
}

/// Returns the file name of a `Content-Disposition`, without directories.
pub(super) fn disposition_name(text: &str) -> Option<String> {
    let mut plain = None;
    let mut encoded = None;
    for parameter in parameters(text) {
        let Some((key, value)) = parameter.split_once('=') else { continue };
        match key.trim().to_ascii_lowercase().as_str() {
            "filename" => plain = Some(unquoted(value.trim())),
            "filename*" => encoded = value.trim().splitn(3, '\'').nth(2).map(decoded),
            _ => {}
        }
    }
    let name = encoded.or(plain)?;
    let name = name.rsplit(['/', '\\']).next()?.to_owned();
    (!matches!(name.as_str(), "" | "." | "..")).then_some(name)
}

/// Splits at semicolons outside of quotes.
fn parameters(text: &str) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|char| {
        match char {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ';' => return !quoted,
            _ => {}
        }
        false
    })
    .collect()
}

fn unquoted(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
        return text.to_owned();
    };
    let mut name = String::new();
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        name.extend(if char == '\\' { chars.next() } else { Some(char) });
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_every_form() {
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Wed, 31 Dec 1969 23:59:59 GMT", Some(-1)),
            (" Fri, 11 Feb 2011 23:31:30 GMT ", Some(1_297_467_090)),
            ("yesterday", None),
            ("", None),
            ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ] {
            assert_eq!(parse_http_date(text), expected, "{text}");
        }
    }

    #[test]
    fn names_of_dispositions() {
        for (text, expected) in [
            ("attachment", None),
            ("attachment; filename=a.tar", Some("a.tar")),
            (r#"attachment; filename="a; b.tar"; size=3"#, Some("a; b.tar")),
            (r#"attachment; FileName="a\"b""#, Some("a\"b")),
            ("attachment; filename=x; filename*=UTF-8''%e2%82%ac%20y", Some("€ y")),
            (r#"attachment; filename="../../etc/passwd""#, Some("passwd")),
            (r#"attachment; filename="..""#, None),
            ("attachment; filename=", None),
            ("filename", None),
        ] {
            assert_eq!(disposition_name(text).as_deref(), expected, "{text}");
        }
    }
}
