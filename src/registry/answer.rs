//! What a server answered when it did not do what it was asked: status, error codes, words.
//!
//! Registries answer with `{"errors": [{code, message, detail}]}` (distribution-spec, "Error codes"), token
//! services and proxies with almost anything. Whatever it is, a credential that was sent is never shown,
//! even if the server echoes it.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

/// The useful part of an unsuccessful answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The errors it lists.
    pub errors: Vec<AnswerError>,
}

/// One error of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnswerError {
    /// The registry's code, `MANIFEST_UNKNOWN`; empty if the answer was not in the registry's form.
    pub code: String,
    /// Its words.
    pub message: String,
}

/// No answer needs more words than this many bytes.
const LONGEST_MESSAGE: usize = 400;

#[derive(Deserialize)]
struct Errors {
    errors: Vec<ErrorJson>,
}

#[derive(Deserialize)]
struct ErrorJson {
    #[serde(default)]
    code: Value,
    #[serde(default)]
    message: Value,
    #[serde(default)]
    detail: Value,
}

impl Answer {
    /// Reads the body of an answer; `sent` are texts that must not appear in what is shown.
    pub(super) fn parse(status: u16, body: &[u8], sent: &[&str]) -> Self {
        let mut errors = listed(body);
        if errors.is_empty()
            && let Some(message) = spoken(body)
        {
            errors.push(AnswerError { code: String::new(), message });
        }
        for error in &mut errors {
            error.message = shorten(&conceal(&error.message, sent));
            error.code = shorten(&conceal(&error.code, sent));
        }
        Self { status, errors }
    }

    /// Returns whether one of the errors has this code.
    pub fn has_code(&self, code: &str) -> bool {
        self.errors.iter().any(|error| error.code.eq_ignore_ascii_case(code))
    }

    /// Returns whether one of the errors says `text`, in any case.
    pub fn says(&self, text: &str) -> bool {
        let text = text.to_ascii_lowercase();
        self.errors.iter().any(|error| error.message.to_ascii_lowercase().contains(&text))
    }
}

fn listed(body: &[u8]) -> Vec<AnswerError> {
    let Ok(Errors { errors }) = serde_json::from_slice(body) else { return Vec::new() };
    errors
        .into_iter()
        .map(|error| {
            let mut message = words(&error.message);
            // Quay and Harbor put the reason into `detail`.
            let detail = match &error.detail {
                Value::String(text) => text.clone(),
                Value::Object(map) => ["message", "reason", "error"]
                    .iter()
                    .find_map(|key| map.get(*key))
                    .map_or(String::new(), words),
                _ => String::new(),
            };
            if !detail.is_empty() && !message.contains(&detail) {
                message = if message.is_empty() { detail } else { format!("{message} ({detail})") };
            }
            AnswerError { code: words(&error.code), message }
        })
        .collect()
}

/// Finds the words of an answer that is not in the registry's form.
fn spoken(body: &[u8]) -> Option<String> {
    if let Ok(Value::Object(map)) = serde_json::from_slice::<Value>(body) {
        return ["error_description", "message", "details", "detail", "error", "errorMessage"]
            .iter()
            .filter_map(|key| map.get(*key))
            .map(words)
            .find(|text| !text.is_empty());
    }
    let text = std::str::from_utf8(body).ok()?.trim();
    if text.is_empty() {
        return None;
    }
    if text.starts_with('<') {
        // An HTML page: its title is all that is worth a line.
        let start = text.find("<title>")? + "<title>".len();
        let end = start + text[start..].find("</title>")?;
        return Some(text[start..end].trim().to_owned());
    }
    text.lines().next().map(str::to_owned)
}

fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn shorten(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.len() <= LONGEST_MESSAGE {
        return text;
    }
    let end = (0..=LONGEST_MESSAGE).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    format!("{}…", &text[..end])
}

fn conceal(text: &str, sent: &[&str]) -> String {
    let mut text = text.to_owned();
    for secret in sent.iter().filter(|secret| secret.len() >= 4) {
        text = text.replace(secret, "[redacted]");
    }
    text
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = http::StatusCode::from_u16(self.status).ok().and_then(|s| s.canonical_reason());
        match reason {
            Some(reason) => write!(f, "{} {reason}", self.status)?,
            None => write!(f, "status {}", self.status)?,
        }
        for error in &self.errors {
            match (error.code.is_empty(), error.message.is_empty()) {
                (false, false) => write!(f, ": {}: {}", error.code, error.message)?,
                (false, true) => write!(f, ": {}", error.code)?,
                (true, false) => write!(f, ": {}", error.message)?,
                (true, true) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_errors_are_read() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}},{"code":"DENIED","message":"","detail":"no such robot"}]}"#;
        let answer = Answer::parse(404, body, &[]);
        assert!(answer.has_code("manifest_unknown"));
        assert_eq!(
            answer.to_string(),
            "404 Not Found: MANIFEST_UNKNOWN: manifest unknown: DENIED: no such robot"
        );
    }

    #[test]
    fn other_answers_give_what_words_they_have() {
        for (body, expected) in [
            (
                &br#"{"details":"incorrect username or password"}"#[..],
                "401 Unauthorized: incorrect username or password",
            ),
            (br#"{"error":"invalid_grant","error_description":"expired"}"#, "401 Unauthorized: expired"),
            (b"<html><head><title>Sign in</title></head>", "401 Unauthorized: Sign in"),
            (b"<html>", "401 Unauthorized"),
            (b"nope\nreally", "401 Unauthorized: nope"),
            (b"\xff\xfe", "401 Unauthorized"),
            (b"", "401 Unauthorized"),
            (br#"{"errors":null}"#, "401 Unauthorized"),
        ] {
            assert_eq!(Answer::parse(401, body, &[]).to_string(), expected);
        }
    }

    #[test]
    fn an_echoed_credential_is_not_shown() {
        let answer = Answer::parse(
            400,
            b"bad header: Basic dXNlcjpwYXNz (user:hunter22)",
            &["dXNlcjpwYXNz", "hunter22"],
        );
        assert_eq!(answer.to_string(), "400 Bad Request: bad header: Basic [redacted] (user:[redacted])");
    }

    #[test]
    fn a_long_answer_is_cut_between_characters() {
        let answer = Answer::parse(500, "é".repeat(1000).as_bytes(), &[]);
        assert!(answer.to_string().len() < 450);
    }
}
