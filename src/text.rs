//! Texts that are shown, logged or kept: URLs without passwords, and others' texts without control characters.
//!
//! Names, Dockerfiles, answers of registries and what git prints are anybody's. On their way to a terminal or a log
//! they pass [`line`], [`message`] or [`listing`]: an escape sequence is shown and not obeyed, and nothing of them begins
//! a line as kiln's own do. What goes into images and records holds URLs as [`without_password`] returns them.

use std::borrow::Cow;

/// What stands in a password's place; BuildKit's.
const MASK: &str = "xxxxx";

/// Masks user and password of a URL: `https://xxxxx:xxxxx@host/path`. A lone user is masked too (it may be a token), but
/// for that of `ssh`. A text that is no URL is returned as it is.
pub fn without_password(url: &str) -> String {
    masked(url).into_owned()
}

/// Takes the credentials out of a URL; the user of `ssh` is none.
pub fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let Some((credentials, host)) = authority.rsplit_once('@') else { return url.to_owned() };
    if scheme != "ssh" {
        return format!("{scheme}://{host}{path}");
    }
    let user = credentials.split_once(':').map_or(credentials, |(user, _)| user);
    format!("{scheme}://{user}@{host}{path}")
}

/// Masks the passwords of all URLs in a text. Quotes are no end of them: browsers and kiln take them for a password's.
fn masked(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        let end = after
            .find(|c: char| matches!(c, '/' | '\\' | '?' | '#') || c.is_whitespace())
            .unwrap_or(after.len());
        out.push_str(before);
        let authority = &after[..end];
        match authority.rsplit_once('@') {
            Some((user, host)) if user.contains(':') => out.push_str(&format!("{MASK}:{MASK}@{host}")),
            Some((_, host)) if !before.ends_with("ssh://") => out.push_str(&format!("{MASK}@{host}")),
            _ => out.push_str(authority),
        }
        rest = &after[end..];
    }
    if out.is_empty() {
        return Cow::Borrowed(text);
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Returns a text for one line: newlines are shown as `\n`.
pub fn line(text: &str) -> Cow<'_, str> {
    shown(text, |c| c == '\t')
}

/// Returns a text that may have several lines: those after the first are indented.
pub fn message(text: &str) -> Cow<'_, str> {
    match text.trim_end_matches('\n') {
        one if !one.contains('\n') => line(one),
        several => Cow::Owned(several.split('\n').map(line).collect::<Vec<_>>().join("\n    ")),
    }
}

/// Returns a text whose lines are kiln's own: tables, excerpts, help. Only what is in them is made harmless.
pub fn listing(text: &str) -> Cow<'_, str> {
    shown(text, |c| matches!(c, '\t' | '\n'))
}

/// Returns JSON that a terminal takes for letters only, and programs for the same as before.
pub fn json(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| is_active(c) && c != '\n') {
        return Cow::Borrowed(text);
    }
    // Below U+0020 the writer has escaped already; the others can only be in strings.
    let escape =
        |c: char| if is_active(c) && c != '\n' { format!("\\u{:04x}", u32::from(c)) } else { c.into() };
    Cow::Owned(text.chars().map(escape).collect())
}

fn shown(text: &str, is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    let text = masked(text);
    if !text.chars().any(|c| is_active(c) && !is_kept(c)) {
        return text;
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            c if !is_active(c) || is_kept(c) => out.push(c),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x100 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
        }
    }
    Cow::Owned(out)
}

/// Tells whether a terminal does something else with a character than to show it: control characters (C0, DEL, C1),
/// and those that break lines or change the direction of writing (<https://trojansource.codes>).
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn passwords_of_urls_are_masked() {
        for (text, expected) in [
            ("https://h/p", "https://h/p"),
            ("https://u:p@h:8/p?q#f", "https://xxxxx:xxxxx@h:8/p?q#f"),
            ("https://token@h/p", "https://xxxxx@h/p"),
            ("https://:p@h", "https://xxxxx:xxxxx@h"),
            ("https://u:p@x@h/", "https://xxxxx:xxxxx@h/"),
            ("ssh://git@h/p", "ssh://git@h/p"),
            ("ssh://git:p@h/p", "ssh://xxxxx:xxxxx@h/p"),
            ("git@h:p", "git@h:p"),
            (
                "ADD https://u:p@a/x http://v:q@b/y /z",
                "ADD https://xxxxx:xxxxx@a/x http://xxxxx:xxxxx@b/y /z",
            ),
            ("https://h/u:p@x", "https://h/u:p@x"),
            ("://", "://"),
            ("a@b", "a@b"),
        ] {
            assert_eq!(without_password(text), expected);
        }
    }

    #[test]
    fn an_address_has_no_credentials() {
        for (address, expected) in [
            ("https://gitlab-ci-token:glcbt-x@gitlab.com/a/b.git", "https://gitlab.com/a/b.git"),
            ("https://oauth2@host/a", "https://host/a"),
            ("ssh://git:pw@host/a", "ssh://git@host/a"),
            ("git@github.com:a/b.git", "git@github.com:a/b.git"),
            ("/srv/repo", "/srv/repo"),
        ] {
            assert_eq!(without_credentials(address), expected);
        }
    }

    #[test]
    fn what_terminals_obey_is_shown() {
        assert_eq!(
            line("a\x1b[2Jb\nc\rd\te\u{9b}f\u{202e}g\x7f"),
            "a\\x1b[2Jb\\nc\\rd\te\\x9bf\\u{202e}g\\x7f"
        );
        assert_eq!(message("one\ntwo\x07\n"), "one\n    two\\x07");
        assert_eq!(listing("one\n\ttwo\x08"), "one\n\ttwo\\x08");
        assert_eq!(json("{\n \"a\": \"\u{9b}\u{2066}\x7f\"}"), "{\n \"a\": \"\\u009b\\u2066\\u007f\"}");
        assert!(matches!(line("ünïcode ✔ テスト"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn nothing_active_is_left(text in any::<String>()) {
            prop_assert!(!line(&text).chars().any(|c| is_active(c) && c != '\t'));
            prop_assert!(!message(&text).chars().any(|c| is_active(c) && !matches!(c, '\t' | '\n')));
            prop_assert!(message(&text).split('\n').skip(1).all(|rest| rest.starts_with("    ")));
            prop_assert!(!listing(&text).chars().any(|c| is_active(c) && !matches!(c, '\t' | '\n')));
            let written = serde_json::Value::from(text).to_string();
            let safe = json(&written);
            prop_assert!(!safe.chars().any(is_active));
            prop_assert_eq!(serde_json::from_str::<String>(&safe)?, serde_json::from_str::<String>(&written)?);
        }

        #[test]
        fn no_password_of_a_url_is_left(password in "[A-Z]{6}[!\"$-,:-;=A-Z@]{0,6}", before in "[a-z ]{0,9}") {
            let text = format!("{before}https://user:{password}@host.example/path and more");
            prop_assert!(!without_password(&text).contains(&password[..6]));
        }
    }
}
