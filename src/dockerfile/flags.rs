//! The flags of an instruction: which there are, and what was given.

use super::suggest::did_you_mean;

/// What a flag's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlagKind {
    /// `--x`, `--x=true`, `--x=false`.
    Bool,
    /// `--x=text`, once.
    Text,
    /// `--x=text`, any number of times.
    Texts,
}

/// The flags given, in order.
#[derive(Debug)]
pub(super) struct Flags(Vec<(&'static str, String)>);

impl Flags {
    /// Reads flag words against the flags an instruction has.
    pub(super) fn parse(words: &[String], known: &[(&'static str, FlagKind)]) -> Result<Self, String> {
        let mut given: Vec<(&'static str, String)> = Vec::new();
        for word in words {
            let (flag, value) = match word.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (word.as_str(), None),
            };
            let name = flag.strip_prefix("--").unwrap_or(flag);
            let Some((name, kind)) = known.iter().copied().find(|(known, _)| *known == name) else {
                let candidates = known.iter().map(|(known, _)| *known);
                return Err(did_you_mean(format!("unknown flag: {flag}"), name, candidates, true));
            };
            if kind != FlagKind::Texts && given.iter().any(|(other, _)| *other == name) {
                return Err(format!("duplicate flag specified: {flag}"));
            }
            let value = match (kind, value) {
                (FlagKind::Bool, None) => "true".to_owned(),
                (FlagKind::Bool, Some("")) | (_, None) => {
                    return Err(format!("missing a value on flag: {flag}"));
                }
                (FlagKind::Bool, Some(value)) => match value.to_lowercase().as_str() {
                    lower @ ("true" | "false") => lower.to_owned(),
                    _ => return Err(format!("expecting boolean value for flag {flag}, not: {value}")),
                },
                (_, Some(value)) => value.to_owned(),
            };
            given.push((name, value));
        }
        Ok(Self(given))
    }

    /// Returns a text flag's value; an empty one counts as not given, as in BuildKit.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.values(name).next().filter(|value| !value.is_empty()).map(str::to_owned)
    }

    /// Returns a text flag's value, even an empty one.
    pub(super) fn written(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    /// Returns a repeatable flag's values.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        self.values(name).map(str::to_owned).collect()
    }

    /// Returns a boolean flag, if given.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.values(name).next().map(|value| value == "true")
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(flag, _)| *flag == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [(&str, FlagKind); 3] =
        [("link", FlagKind::Bool), ("chown", FlagKind::Text), ("exclude", FlagKind::Texts)];

    fn parse(words: &[&str]) -> Result<Flags, String> {
        Flags::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(), &KNOWN)
    }

    #[test]
    fn flags_are_read() {
        let flags = parse(&["--link=TRUE", "--exclude=a", "--chown=u=v", "--exclude="]).unwrap();
        assert_eq!(flags.switch("link"), Some(true));
        assert_eq!(flags.text("chown").as_deref(), Some("u=v"));
        assert_eq!(flags.texts("exclude"), ["a", ""]);
        assert_eq!(parse(&["--link=false"]).unwrap().switch("link"), Some(false));
        assert_eq!(parse(&[]).unwrap().switch("link"), None);
    }

    #[test]
    fn bad_flags_have_their_literal_text() {
        for (words, error) in [
            (&["--lnk"][..], "unknown flag: --lnk (did you mean link?)"),
            (&["--something=x"], "unknown flag: --something"),
            (&["--link", "--link"], "duplicate flag specified: --link"),
            (&["--link="], "missing a value on flag: --link"),
            (&["--chown"], "missing a value on flag: --chown"),
            (&["--exclude"], "missing a value on flag: --exclude"),
            (&["--link=1"], "expecting boolean value for flag --link, not: 1"),
        ] {
            assert_eq!(parse(words).unwrap_err(), error);
        }
    }
}
