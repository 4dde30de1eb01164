//! Getting a commit into a repository of our own.

use super::GitSource;
use super::program::{Failure, Git};
use crate::context::ContextError;

/// Tells whether this is a full hash, SHA-1 or SHA-256.
pub(super) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

pub(super) fn starts_with(commit: &str, checksum: &str) -> bool {
    commit.starts_with(&checksum.to_ascii_lowercase())
}

/// Makes a repository with the commit in it, and returns its hash.
pub(super) fn fetch(
    git: &Git<'_>,
    source: &GitSource,
    checksum: Option<&str>,
) -> Result<String, ContextError> {
    let reference = source.reference.as_deref();
    let wanted = match (reference, checksum) {
        (Some(commit), _) if is_commit(commit) => Some(commit),
        (_, Some(checksum)) if source.fetch_by_commit => Some(checksum),
        _ => None,
    };
    let name = match wanted {
        Some(_) => None,
        None => Some(resolve(git, reference)?),
    };
    let format = match (wanted, &name) {
        (Some(commit), _) if commit.len() == 64 => "--object-format=sha256",
        (None, Some(name)) if name.is_sha256 => "--object-format=sha256",
        _ => "--object-format=sha1",
    };
    git.run(&["init", "--quiet", "--template=", format])?;
    git.run(&["remote", "add", "--", "origin", git.url])?;
    let object = match (wanted, name) {
        (None, Some(name)) => {
            fetch_reference(git, &name.text)?;
            git.run(&["rev-parse", "--verify", "--end-of-options", "FETCH_HEAD"])?.trim().to_owned()
        }
        (wanted, _) => {
            let commit = wanted.unwrap_or_default();
            fetch_commit(git, commit)?;
            if let Some(name) = reference.filter(|name| !is_commit(name)) {
                let name = match name.starts_with("refs/") {
                    true => name.to_owned(),
                    false => format!("refs/heads/{name}"),
                };
                git.run(&["update-ref", "--", &name, commit])?;
            }
            commit.to_owned()
        }
    };
    let peeled = format!("{object}^{{commit}}");
    let commit = git.run(&["rev-parse", "--verify", "--end-of-options", &peeled])?.trim().to_owned();
    match checksum {
        Some(expected) if !starts_with(&commit, expected) && !starts_with(&object, expected) => {
            let found = if object == commit { commit } else { format!("{object} or {commit}") };
            Err(ContextError::GitChecksum { expected: expected.to_owned(), found })
        }
        _ => Ok(commit),
    }
}

/// A full name of what the remote has.
struct Name {
    text: String,
    is_sha256: bool,
}

/// Asks the remote what a name means: a full one, else a branch, else a tag; without a name, its default branch.
fn resolve(git: &Git<'_>, reference: Option<&str>) -> Result<Name, ContextError> {
    let wanted = reference.unwrap_or("HEAD");
    let listing = git.run(&["ls-remote", "--quiet", "--symref", "--", git.url, wanted])?;
    let lines = || listing.lines().filter_map(|line| line.split_once('\t'));
    let hash =
        |name: &str| lines().find(|(hash, found)| *found == name && is_commit(hash)).map(|(hash, _)| hash);
    let names = match reference {
        None => {
            // A detached HEAD has no other name.
            let branch =
                lines().find_map(|(target, name)| target.strip_prefix("ref: ").filter(|_| name == "HEAD"));
            vec![branch.unwrap_or("HEAD").to_owned()]
        }
        Some(name) => {
            let qualified = |prefix: &str| format!("{prefix}{}", name.strip_prefix(prefix).unwrap_or(name));
            vec![qualified("refs/"), qualified("refs/heads/"), qualified("refs/tags/")]
        }
    };
    for name in names {
        // The listing for `HEAD` does not repeat the branch.
        let known = if reference.is_none() { hash("HEAD") } else { hash(&name) };
        if let Some(hash) = known {
            return Ok(Name { text: name, is_sha256: hash.len() == 64 });
        }
    }
    Err(ContextError::GitReference { url: git.url.to_owned(), reference: wanted.to_owned() })
}

/// Fetches one name, without history where the server can do that.
fn fetch_reference(git: &Git<'_>, name: &str) -> Result<(), ContextError> {
    let spec = match name {
        "HEAD" => name.to_owned(),
        name => format!("+{name}:{name}"),
    };
    let arguments = [
        "fetch",
        "--quiet",
        "--no-tags",
        "--update-head-ok",
        "--no-recurse-submodules",
        "--depth=1",
        "origin",
        &spec,
    ];
    without_depth(git, &arguments)?.map_err(|failure| git.error(failure))
}

/// Fetches one commit; where the server gives out tips only, everything.
fn fetch_commit(git: &Git<'_>, commit: &str) -> Result<(), ContextError> {
    let common = ["fetch", "--quiet", "--no-tags", "--update-head-ok", "--no-recurse-submodules"];
    let arguments = [&common[..], &["--depth=1", "origin", commit]].concat();
    if without_depth(git, &arguments)?.is_ok() {
        return Ok(());
    }
    let everything = ["origin", "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
    git.run(&[&common[..], &everything].concat())?;
    let peeled = format!("{commit}^{{commit}}");
    match git.attempt(&["cat-file", "-e", &peeled])? {
        Ok(_) => Ok(()),
        Err(_) => Err(ContextError::GitReference { url: git.url.to_owned(), reference: commit.to_owned() }),
    }
}

/// Runs a command, and again without `--depth=1` if the server cannot cut history (plain files over HTTP).
pub(super) fn without_depth(git: &Git<'_>, arguments: &[&str]) -> Result<Result<(), Failure>, ContextError> {
    match git.attempt(arguments)? {
        Ok(_) => Ok(Ok(())),
        Err(failure) if failure.output.contains("shallow") || failure.output.contains("--depth") => {
            let rest: Vec<&str> =
                arguments.iter().copied().filter(|argument| *argument != "--depth=1").collect();
            Ok(git.attempt(&rest)?.map(drop))
        }
        Err(failure) => Ok(Err(failure)),
    }
}
