//! kaniko's build contexts: `dir://`, `tar://`, `git://`, `https://`, objects in buckets, and what they mean to kiln.

use std::path::{Path, PathBuf};

use url::form_urlencoded::Serializer;

use super::args::ExecutorArgs;
use super::objects::object;
use super::request::ExecutorError;
use crate::build::ContextSource;
use crate::cli::environment::Environment;
use crate::cli::values::{ValueError, parse_bool};

/// kaniko's default.
const DEFAULT_CONTEXT: &str = "/workspace/";

/// Where the context is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The context.
    pub(super) source: ContextSource,
    /// The directory in it, where it is inside an archive.
    pub(super) sub_path: Option<PathBuf>,
    /// Whether git takes any certificate.
    pub(super) git_skips_tls: bool,
}

/// What `--git` says.
#[derive(Debug, Default, PartialEq, Eq)]
struct GitFlags {
    branch: Option<String>,
    submodules: bool,
    skip_tls: bool,
}

/// Reads `--context`, `--bucket`, `--context-sub-path` and `--git`.
pub(super) fn context(args: &ExecutorArgs, environment: &Environment) -> Result<Place, ExecutorError> {
    let git = git_flags(&args.git)?;
    let sub = sub_path(&args.context_sub_path)?;
    let text = address(args)?;
    let text = text.as_str();
    let directory = |path: &str, sub: Option<PathBuf>| {
        let path = environment.directory.join(path);
        let source = ContextSource::Directory(sub.map_or(path.clone(), |sub| path.join(sub)));
        Ok(Place { source, sub_path: None, git_skips_tls: false })
    };
    if let Some(object) = object(text, environment)? {
        return Ok(Place {
            source: ContextSource::Object(Box::new(object)),
            sub_path: sub,
            git_skips_tls: false,
        });
    }
    match text.split_once("://") {
        None => directory(text, sub),
        Some(("dir", path)) => directory(path, sub),
        Some(("tar", "stdin")) => {
            Ok(Place { source: ContextSource::Stdin, sub_path: sub, git_skips_tls: false })
        }
        Some(("tar", path)) => Ok(Place {
            source: ContextSource::TarFile(environment.directory.join(path)),
            sub_path: sub,
            git_skips_tls: false,
        }),
        Some(("git", rest)) => {
            let url = git_url(rest, &git, sub.as_deref(), environment);
            Ok(Place { source: ContextSource::Git(url), sub_path: None, git_skips_tls: git.skip_tls })
        }
        Some(("https" | "http", _)) => {
            Ok(Place { source: ContextSource::Url(text.to_owned()), sub_path: sub, git_skips_tls: false })
        }
        Some((scheme, _)) => Err(ValueError::new(
            "--context",
            text,
            format!("unknown build context prefix `{scheme}://`, expected dir, tar, git, s3, gs or https"),
        )
        .into()),
    }
}

/// Finds the context's address. A bucket without a prefix is one of Google's.
fn address(args: &ExecutorArgs) -> Result<String, ValueError> {
    let given = args.context.as_deref().filter(|text| !text.is_empty());
    if args.bucket.is_empty() {
        return Ok(given.unwrap_or(DEFAULT_CONTEXT).to_owned());
    }
    if let Some(context) = given {
        return Err(ValueError::new(
            "--bucket",
            &args.bucket,
            format!("there is `--context {context}`, too"),
        ));
    }
    match args.bucket.contains("://") {
        true => Ok(args.bucket.clone()),
        false => Ok(format!("gs://{}", args.bucket)),
    }
}

/// Reads a path that must stay inside the context.
fn sub_path(text: &str) -> Result<Option<PathBuf>, ValueError> {
    let path = Path::new(text.trim_start_matches('/'));
    if path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(ValueError::new("--context-sub-path", text, "it leads out of the context"));
    }
    Ok((!path.as_os_str().is_empty()).then(|| path.to_owned()))
}

/// Reads `--git`.
fn git_flags(texts: &[String]) -> Result<GitFlags, ValueError> {
    let mut flags = GitFlags::default();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let fail = |reason: &str| ValueError::new("--git", text, reason);
        let (key, value) = text.split_once('=').ok_or_else(|| fail("expected `key=value`"))?;
        let boolean = || parse_bool(value).ok_or_else(|| fail("expected true or false"));
        match key {
            "branch" => flags.branch = Some(value.to_owned()).filter(|branch| !branch.is_empty()),
            "recurse-submodules" => flags.submodules = boolean()?,
            "insecure-skip-tls" => flags.skip_tls = boolean()?,
            // kiln fetches the one commit it needs, whatever these say.
            "single-branch" => {
                boolean()?;
            }
            "depth" => {
                value.parse::<u32>().map_err(|_| fail("expected a number"))?;
            }
            _ => {
                return Err(fail(
                    "expected branch, single-branch, recurse-submodules, insecure-skip-tls or depth",
                ));
            }
        }
    }
    Ok(flags)
}

/// Writes `host/path[#reference[#commit]]` as the URL of a git context. Credentials come from the variables
/// that kaniko reads; the git part keeps them out of every message.
fn git_url(rest: &str, flags: &GitFlags, sub: Option<&Path>, environment: &Environment) -> String {
    let mut parts = rest.split('#');
    let address = parts.next().unwrap_or_default();
    let reference = parts.next().filter(|part| !part.is_empty()).map(str::to_owned).or(flags.branch.clone());
    let commit = parts.next().filter(|part| !part.is_empty());
    let scheme = match environment.set_var("GIT_PULL_METHOD") {
        Some("http") => "http",
        _ => "https",
    };
    let ending = if address.ends_with(".git") { "" } else { ".git" };
    let address = format!("{}{ending}", address.trim_end_matches('/'));
    let mut url = format!("{scheme}://{}{address}", credentials(environment));
    let mut query = Serializer::new(String::new());
    if let Some(reference) = reference {
        // `refs/heads/x` and a bare commit both are references to git.
        query.append_pair("ref", &reference);
    }
    if let Some(commit) = commit {
        query.append_pair("commit", commit);
    }
    if let Some(sub) = sub {
        query.append_pair("subdir", &sub.to_string_lossy());
    }
    query.append_pair("submodules", if flags.submodules { "true" } else { "false" });
    url.push('?');
    url.push_str(&query.finish());
    url
}

/// Returns `user:password@` from `GIT_TOKEN`, or `GIT_USERNAME` and `GIT_PASSWORD`.
fn credentials(environment: &Environment) -> String {
    let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    if let Some(token) = environment.set_var("GIT_TOKEN") {
        return format!("{}@", encoded(token));
    }
    match (environment.set_var("GIT_USERNAME"), environment.set_var("GIT_PASSWORD")) {
        (None, None) => String::new(),
        (user, None) => format!("{}@", encoded(user.unwrap_or_default())),
        (user, Some(password)) => format!("{}:{}@", encoded(user.unwrap_or_default()), encoded(password)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::environment::tests::environment;
    use crate::cli::executor::args::ExecutorCli;

    fn place(words: &[&str], variables: &[(&str, &str)]) -> Result<Place, ExecutorError> {
        let cli = ExecutorCli::try_parse_from(["executor"].iter().chain(words)).unwrap();
        context(&cli.build, &environment(variables))
    }

    fn source(words: &[&str]) -> ContextSource {
        place(words, &[]).unwrap().source
    }

    #[test]
    fn directories_come_with_and_without_a_prefix() {
        assert_eq!(source(&[]), ContextSource::Directory("/workspace/".into()));
        assert_eq!(source(&["-c", "app"]), ContextSource::Directory("/work/app".into()));
        assert_eq!(source(&["--context=dir:///b"]), ContextSource::Directory("/b".into()));
        assert_eq!(
            source(&["--context=dir:///b", "--context-sub-path=x/y"]),
            ContextSource::Directory("/b/x/y".into())
        );
    }

    #[test]
    fn archives_keep_their_sub_path_for_later() {
        let tar = place(&["-c", "tar:///a.tar.gz", "--context-sub-path", "/x"], &[]).unwrap();
        assert_eq!(tar.source, ContextSource::TarFile("/a.tar.gz".into()));
        assert_eq!(tar.sub_path, Some("x".into()));
        assert_eq!(source(&["-c", "tar://stdin"]), ContextSource::Stdin);
        assert_eq!(source(&["-c", "https://h/a.tar"]), ContextSource::Url("https://h/a.tar".into()));
    }

    #[test]
    fn git_contexts_become_git_urls() {
        let url = |words: &[&str], variables: &[(&str, &str)]| match place(words, variables).unwrap().source {
            ContextSource::Git(url) => url,
            other => panic!("expected git, found {other:?}"),
        };
        assert_eq!(url(&["-c", "git://github.com/a/b"], &[]), "https://github.com/a/b.git?submodules=false");
        assert_eq!(
            url(&["-c", "git://github.com/a/b.git#refs/heads/main#0123abc", "--context-sub-path=s"], &[]),
            "https://github.com/a/b.git?ref=refs%2Fheads%2Fmain&commit=0123abc&subdir=s&submodules=false"
        );
        assert_eq!(
            url(&["-c", "git://h/a", "--git", "branch=dev,recurse-submodules=true,depth=1"], &[]),
            "https://h/a.git?ref=dev&submodules=true"
        );
        assert_eq!(
            url(&["-c", "git://h/a"], &[("GIT_USERNAME", "u@x"), ("GIT_PASSWORD", "p:/")]),
            "https://u%40x:p%3A%2F@h/a.git?submodules=false"
        );
        assert_eq!(
            url(&["-c", "git://h/a"], &[("GIT_TOKEN", "t"), ("GIT_PULL_METHOD", "http")]),
            "http://t@h/a.git?submodules=false"
        );
    }

    #[test]
    fn git_takes_any_certificate_where_it_is_told_to() {
        assert!(place(&["-c", "git://h/a", "--git", "insecure-skip-tls=true"], &[]).unwrap().git_skips_tls);
        assert!(!place(&["-c", "git://h/a", "--git", "branch=b"], &[]).unwrap().git_skips_tls);
    }

    #[test]
    fn buckets_are_contexts() {
        let object = |words: &[&str]| match place(words, &[("STORAGE_EMULATOR_HOST", "h")]).unwrap() {
            Place { source: ContextSource::Object(object), sub_path, .. } => (object.url, sub_path),
            other => panic!("expected an object, found {other:?}"),
        };
        assert_eq!(object(&["-b", "bucket"]), ("gs://bucket".to_owned(), None));
        assert_eq!(object(&["-c", "", "--bucket=gs://b/k"]).0, "gs://b/k");
        assert_eq!(
            object(&["-c", "gs://b/k", "--context-sub-path=s"]),
            ("gs://b/k".into(), Some("s".into()))
        );
        let both = place(&["-c", "/x", "-b", "bucket"], &[]).unwrap_err().to_string();
        assert!(both.contains("there is `--context /x`, too"), "{both}");
    }

    #[test]
    fn what_is_unknown_is_named() {
        for (words, expected) in [
            (&["-c", "ftp://x"][..], "unknown build context prefix `ftp://`"),
            (&["--context-sub-path", "../x"], "leads out of the context"),
            (&["--git", "colour=red"], "expected branch"),
            (&["--git", "insecure-skip-tls=perhaps"], "expected true or false"),
            (&["--git", "depth=x"], "expected a number"),
        ] {
            let error = place(words, &[]).unwrap_err().to_string();
            assert!(error.contains(expected), "{words:?}: {error}");
        }
    }
}
