//! Go's `%q`: how BuildKit quotes words in messages and histories.

/// Quotes a text as Go's `strconv.Quote` does.
pub(crate) fn go(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if is_printable(c) => out.push(c),
            c if (c as u32) < 0x80 => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if (c as u32) < 0x10000 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    out.push('"');
    out
}

/// Quotes a list as Go's `%q` does: `["a" "b"]`.
pub(crate) fn go_list(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| go(text)).collect::<Vec<_>>().join(" "))
}

/// Approximates Go's `unicode.IsPrint`: letters, marks, numbers, punctuation, symbols, and the ASCII space.
/// Rust's own escaping rule is nearly the same set; it only also escapes combining marks and lets no
/// other blank but the ASCII one through.
fn is_printable(c: char) -> bool {
    if c == ' ' {
        return true;
    }
    if c.is_control() || c.is_whitespace() {
        return false;
    }
    let escaped = c.escape_debug();
    escaped.len() == 1 || c.is_alphanumeric() || matches!(c, '\'' | '\u{300}'..='\u{36f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        for (text, expected) in [
            ("sh", r#""sh""#),
            ("a \"b\" \\ 'c'", r#""a \"b\" \\ 'c'""#),
            ("\n\t\r\u{7}\u{0}\u{7f}", r#""\n\t\r\a\x00\x7f""#),
            ("한국어 é", r#""한국어 é""#),
            ("\u{a0}\u{200b}\u{feff}", r#""\u00a0\u200b\ufeff""#),
            ("\u{1f600}\u{e0001}", "\"\u{1f600}\\U000e0001\""),
        ] {
            assert_eq!(go(text), expected);
        }
        assert_eq!(go_list(&["sh".to_owned(), "-c".to_owned()]), r#"["sh" "-c"]"#);
        assert_eq!(go_list(&[]), "[]");
    }
}
