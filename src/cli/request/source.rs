//! What is built: the context, the Dockerfile, named contexts.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::RequestError;
use crate::build::{ContextSource, DockerfileSource, NamedContext};
use crate::cli::environment::Environment;
use crate::cli::values::key_value;

/// Reads CONTEXT: `-`, a directory or file that is there, else a git repository or URL, else a path.
pub fn context_source(text: &str, environment: &Environment) -> ContextSource {
    if text == "-" {
        return ContextSource::Stdin;
    }
    let path = environment.directory.join(text);
    if path.is_dir() {
        ContextSource::Directory(path)
    } else if is_git(text) {
        ContextSource::Git(text.to_owned())
    } else if is_remote(text) {
        ContextSource::Url(text.to_owned())
    } else if path.is_file() {
        ContextSource::TarFile(path)
    } else {
        // Not there: the context's own error names it.
        ContextSource::Directory(path)
    }
}

/// Tells whether a text is an http(s) URL.
pub fn is_remote(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Tells whether a text names a git repository as docker's build context does: `git://`, `ssh://`,
/// `git@host:path`, `github.com/…`, or an http(s) URL whose path ends in `.git`.
pub fn is_git(text: &str) -> bool {
    if is_remote(text) {
        let path = text.split(['#', '?']).next().unwrap_or(text);
        return path.ends_with(".git");
    }
    let scheme = ["git://", "ssh://", "github.com/"].iter().any(|prefix| text.starts_with(prefix));
    scheme || is_scp_like(text)
}

/// Tells whether a text is `user@host:path`.
fn is_scp_like(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    };
    matches!(rest.split_once(':'), Some((host, path)) if word(user) && word(host) && !path.is_empty())
}

/// Reads `--file`; `-` is read from `stdin`.
pub fn dockerfile_source(
    text: Option<&str>,
    context: &ContextSource,
    environment: &Environment,
    stdin: &mut dyn Read,
) -> Result<DockerfileSource, RequestError> {
    match text {
        None | Some("") => Ok(DockerfileSource::Default),
        Some("-") if *context == ContextSource::Stdin => Err(RequestError::StdinTwice),
        Some("-") => {
            let mut bytes = Vec::new();
            stdin.read_to_end(&mut bytes).map_err(|source| RequestError::File {
                option: "--file",
                path: "-".into(),
                source,
            })?;
            Ok(DockerfileSource::Bytes(bytes))
        }
        Some(url) if is_remote(url) => Ok(DockerfileSource::Url(url.to_owned())),
        Some(path) => Ok(DockerfileSource::Path(match context {
            ContextSource::Directory(_) => environment.directory.join(path),
            // In a remote context, a relative path is in that context.
            _ => PathBuf::from(path),
        })),
    }
}

/// Reads `--build-context`.
pub(super) fn named_contexts(
    texts: &[String],
    environment: &Environment,
) -> Result<BTreeMap<String, NamedContext>, RequestError> {
    let mut contexts = BTreeMap::new();
    for text in texts {
        let (name, value) = key_value("--build-context", text)?;
        let context = if let Some(image) = value.strip_prefix("docker-image://") {
            NamedContext::Image(image.to_owned())
        } else if let Some(layout) = value.strip_prefix("oci-layout://") {
            NamedContext::Layout(absolute_layout(layout, &environment.directory))
        } else {
            NamedContext::Files(context_source(value, environment))
        };
        contexts.insert(name.to_owned(), context);
    }
    Ok(contexts)
}

/// Makes the path in `PATH[:tag][@digest]` absolute.
fn absolute_layout(layout: &str, directory: &Path) -> String {
    if layout.starts_with('/') { layout.to_owned() } else { format!("{}/{layout}", directory.display()) }
}
