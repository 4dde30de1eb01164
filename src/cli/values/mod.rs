//! The values of options: texts as typed, read into what they mean.
//!
//! Everything here is pure: text in, value or [`ValueError`] out. Files, environment and registries are
//! looked at later, by the request.

mod age;
mod cache;
mod csv;
mod output;
mod sandbox;
mod secret;
mod size;

pub use age::parse_age;
pub use cache::{CacheOption, CachePlace, CacheUse, parse_cache};
pub use csv::fields;
pub use output::{ImageOptions, OutputOption, compression, parse_output};
pub use sandbox::{parse_add_host, parse_ulimit};
pub use secret::{SecretOption, SecretOrigin, SshOption, parse_secret, parse_ssh};
pub use size::parse_size_bytes;

/// A value of an option that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid value `{value}` for `{option}`: {reason}")]
pub struct ValueError {
    /// The option, `--ulimit`.
    pub option: &'static str,
    /// What was typed.
    pub value: String,
    /// What is wrong with it and what is expected.
    pub reason: String,
}

impl ValueError {
    /// Says that `value` of `option` cannot be read.
    pub fn new(option: &'static str, value: &str, reason: impl Into<String>) -> Self {
        Self { option, value: value.to_owned(), reason: reason.into() }
    }
}

/// Splits `name=value`; the name must not be empty.
pub fn key_value<'a>(option: &'static str, text: &'a str) -> Result<(&'a str, &'a str), ValueError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key, value)),
        _ => Err(ValueError::new(option, text, "expected `name=value`")),
    }
}

/// Reads Go's `strconv.ParseBool`, as docker's option values use it.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_value_wants_a_name() {
        assert_eq!(key_value("--label", "a=b=c").unwrap(), ("a", "b=c"));
        assert_eq!(key_value("--label", "a=").unwrap(), ("a", ""));
        let error = key_value("--label", "=b").unwrap_err().to_string();
        assert_eq!(error, "invalid value `=b` for `--label`: expected `name=value`");
        assert!(key_value("--label", "a").is_err());
    }
}
