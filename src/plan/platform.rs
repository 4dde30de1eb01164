//! The platform of a `FROM --platform=…`, with the messages users of BuildKit know.

use crate::dockerfile::quote;
use crate::oci::Platform;

/// The form of an operating system with its version, as the messages quote it.
const OS_FORM: &str = r"^([A-Za-z0-9_-]+)(?:\\(([A-Za-z0-9_.%-]*)((?:\\+[A-Za-z0-9_.%-]+)*)\\))?$";

/// Parses a platform; the error is containerd's text.
pub(super) fn parse(text: &str) -> Result<Platform, String> {
    let quoted = quote::go(text);
    if text.contains('*') {
        return Err(format!("{quoted}: wildcards not yet supported: invalid argument"));
    }
    let is_component = |part: &str, extra: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
    };
    let mut parts = text.splitn(4, '/');
    let os = parts.next().unwrap_or_default();
    let (name, options) = match os.split_once('(') {
        Some((name, options)) => (name, options.strip_suffix(')')),
        None => (os, Some("")),
    };
    let options_ok = options.is_some_and(|options| options.is_empty() || is_component(options, "_.%-+"));
    if !is_component(name, "_-") || !options_ok {
        return Err(format!(
            "{} is an invalid OS component of {quoted}: OSAndVersion specifier component must match \
             \"{OS_FORM}\": invalid argument",
            quote::go(os)
        ));
    }
    for part in parts {
        if !is_component(part, "_.-") {
            return Err(format!(
                "{} is an invalid component of {quoted}: platform specifier component must match \
                 \"^[A-Za-z0-9_.-]+$\": invalid argument",
                quote::go(part)
            ));
        }
    }
    text.parse::<Platform>().map_err(|_| match text.matches('/').count() {
        0 => format!("{quoted}: unknown operating system or architecture: invalid argument"),
        _ => format!("{quoted}: cannot parse platform specifier: invalid argument"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms() {
        assert_eq!(parse("linux/x86_64").unwrap().to_string(), "linux/amd64");
        assert_eq!(parse("arm64").unwrap().to_string(), "linux/arm64");
        assert_eq!(parse("windows(10.0.1)/amd64").unwrap().os_version.as_deref(), Some("10.0.1"));
    }

    #[test]
    fn errors_have_their_literal_text() {
        for (text, error) in [
            (
                "linux/",
                "\"\" is an invalid component of \"linux/\": platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument",
            ),
            ("linux/*", "\"linux/*\": wildcards not yet supported: invalid argument"),
            ("nonsense", "\"nonsense\": unknown operating system or architecture: invalid argument"),
            ("a/b/c/d", "\"a/b/c/d\": cannot parse platform specifier: invalid argument"),
        ] {
            assert_eq!(parse(text).unwrap_err(), error);
        }
        assert!(parse("lin ux/amd64").unwrap_err().starts_with("\"lin ux\" is an invalid OS component of"));
    }
}
