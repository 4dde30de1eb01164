//! The text of a git source, understood: `REPOSITORY[?option=value&…][#[reference][:subdirectory]]`.
//!
//! The forms and the texts of errors are BuildKit's, see `ADD` in the Dockerfile reference.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;

use crate::context::ContextError;
use crate::context::ignore::clean;
use crate::text::without_credentials;

/// What is to be checked out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitSource {
    /// The repository, as `git fetch` takes it: without fragment and query, possibly with credentials.
    pub remote: String,
    /// A branch, tag or commit; without one, the remote's `HEAD`.
    pub reference: Option<String>,
    /// The directory of the repository that is meant.
    pub subdir: Option<String>,
    /// Whether `.git` stays.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched; they are unless it says no.
    pub submodules: Option<bool>,
    /// The commit it must be, possibly abbreviated.
    pub checksum: Option<String>,
    /// Whether the commit is fetched by its hash, whatever the reference says.
    pub fetch_by_commit: bool,
    /// Whether files get the commit's time instead of the checkout's.
    pub mtime_commit: bool,
}

/// Understands a source of `ADD`; `None` is no git source.
pub fn parse_git_source(text: &str) -> Result<Option<GitSource>, ContextError> {
    if text.starts_with("./") || text.starts_with("../") {
        return Ok(None);
    }
    match split_url(text).or_else(|| split_scp(text)) {
        Some(parts) => parts.understand(text).map(Some),
        None => Ok(None),
    }
}

/// Understands a build context, where `github.com/…` is git as well; `None` is no git repository.
pub fn parse_git_context(text: &str) -> Result<Option<GitSource>, ContextError> {
    if !text.starts_with("github.com/") {
        return parse_git_source(text);
    }
    let text = format!("https://{text}");
    match split_off_options(&text) {
        Some((remote, query, fragment)) => {
            Parts { remote: remote.to_owned(), query, fragment: decoded(fragment) }
                .understand(&text)
                .map(Some)
        }
        None => Ok(None),
    }
}

/// A source taken apart.
struct Parts<'a> {
    remote: String,
    query: &'a str,
    fragment: String,
}

/// Takes `scheme://…` apart, if it can be a repository: one over HTTP must end in `.git`.
fn split_url(text: &str) -> Option<Parts<'_>> {
    let (url, query, fragment) = split_off_options(text)?;
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    match scheme.as_str() {
        "ssh" | "git" => {}
        "http" | "https" if decoded(rest.split_once('/')?.1).ends_with(".git") => {}
        _ => return None,
    }
    Some(Parts { remote: format!("{scheme}://{rest}"), query, fragment: decoded(fragment) })
}

/// Takes `user@host:path` apart.
fn split_scp(text: &str) -> Option<Parts<'_>> {
    static SCP: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^([a-zA-Z0-9_-]+@[a-zA-Z0-9.-]+:.*?)(?:\?(.*?))?(?:#(.*))?$")
            .expect("the expression is well formed")
    });
    let groups = SCP.captures(text)?;
    let group = |index| groups.get(index).map_or("", |group| group.as_str());
    Some(Parts { remote: group(1).to_owned(), query: group(2), fragment: group(3).to_owned() })
}

/// Splits a URL from its query and its fragment. No URL holds control characters.
fn split_off_options(text: &str) -> Option<(&str, &str, &str)> {
    if text.contains(|char: char| char.is_ascii_control()) {
        return None;
    }
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (url, query) = rest.split_once('?').unwrap_or((rest, ""));
    Some((url, query, fragment))
}

/// Decodes `%20` and the like; what is not well formed stays.
pub(in crate::context) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let hex = |byte: &u8| char::from(*byte).to_digit(16);
        let code = match (byte, after) {
            (b'%', [high, low, ..]) => hex(high).zip(hex(low)).map(|(high, low)| high * 16 + low),
            _ => None,
        };
        match code.and_then(|code| u8::try_from(code).ok()) {
            Some(code) => {
                bytes.push(code);
                rest = &after[2..];
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

impl Parts<'_> {
    fn understand(self, text: &str) -> Result<GitSource, ContextError> {
        let (reference, subdir) = self.fragment.split_once(':').unwrap_or((&self.fragment, ""));
        let subdir = clean(&format!("/{subdir}"))[1..].to_owned();
        let filled = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let mut source = GitSource {
            remote: self.remote,
            reference: filled(reference),
            subdir: filled(&subdir),
            ..GitSource::default()
        };
        load_query(&mut source, self.query)
            .and_then(|()| match &source.reference {
                Some(reference) if reference.starts_with('-') => {
                    Err(format!("invalid git ref {reference:?}"))
                }
                _ => Ok(()),
            })
            .map_err(|reason| ContextError::GitText { text: without_credentials(text), reason })?;
        Ok(source)
    }
}

/// Applies the options behind `?`.
fn load_query(source: &mut GitSource, query: &str) -> Result<(), String> {
    let mut options: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        options.entry(key.into_owned()).or_default().push(value.into_owned());
    }
    for (key, values) in &options {
        let value = match values.as_slice() {
            [value] => value.as_str(),
            _ => return Err(format!("query {key:?} has multiple values")),
        };
        match key.as_str() {
            "keep-git-dir" => source.keep_git_dir = Some(switch(key, value)?),
            "submodules" => source.submodules = Some(switch(key, value)?),
            "fetch-by-commit" => source.fetch_by_commit = switch(key, value)?,
            _ if value.is_empty() => return Err(format!("query {key:?} has no value")),
            "ref" => agree("ref", &mut source.reference, value)?,
            "subdir" => agree("subdir", &mut source.subdir, value)?,
            "checksum" | "commit" => agree("checksum", &mut source.checksum, value)?,
            "mtime" => {
                source.mtime_commit = match value {
                    "commit" => true,
                    "checkout" => false,
                    _ => {
                        let problem =
                            format!("invalid mtime value: {value:?} (must be \"checkout\" or \"commit\")");
                        return Err(problem);
                    }
                };
            }
            // Below: they have to agree with `ref`.
            "tag" | "branch" => {}
            _ => return Err(format!("unexpected query {key:?}")),
        }
    }
    let qualified = |key: &str, prefix: &str| {
        let value = options.get(key).map(|values| values[0].as_str());
        value.map(|value| format!("{prefix}{}", value.strip_prefix(prefix).unwrap_or(value)))
    };
    let named = match (qualified("tag", "refs/tags/"), qualified("branch", "refs/heads/")) {
        (Some(_), Some(_)) => return Err("branch conflicts with tag".to_owned()),
        (tag, branch) => tag.or(branch),
    };
    match named {
        Some(name) => agree("ref", &mut source.reference, &name),
        None => Ok(()),
    }
}

fn agree(what: &str, known: &mut Option<String>, value: &str) -> Result<(), String> {
    match known {
        Some(known) if known != value => Err(format!("{what} conflicts: {known:?} vs {value:?}")),
        _ => {
            *known = Some(value.to_owned());
            Ok(())
        }
    }
}

/// Understands what Go's `strconv.ParseBool` does; an option alone is switched on.
fn switch(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("invalid {key} value: {value:?}")),
    }
}

#[cfg(test)]
mod tests;
