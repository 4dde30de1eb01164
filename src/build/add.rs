//! `ADD`: what `COPY` does, and archives, downloads and git repositories.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Build;
use super::copy::{CopyRoot, CopySource};
use super::copy_step::{CopyFlags, absolute_destination, copy_text, expand_flag, inline};
use super::error::Problem;
use super::offline::refuse_remote;
use super::stage::Stage;
use crate::context::{GitSource, SourceKind, classify_source, download, parse_git_source, validate_checksum};
use crate::dockerfile::{Add, Source};
use crate::layer::{ApplyOptions, Owners, TarReader, Whiteouts, apply_tar};
use crate::stream::auto_decoder;
use crate::text::without_password;
use crate::tree::{FileKind, RootDir, Timestamp};

/// Mode of a download without `--chmod` (docker: only its owner may read it).
const DOWNLOAD_MODE: u32 = 0o600;

/// An `ADD` with everything expanded, before its sources are fetched or looked at.
pub(super) struct ExpandedAdd<'a> {
    pub(super) flags: CopyFlags<'a>,
    pub(super) checksum: Option<String>,
    /// The sources as they are fetched.
    sources: Vec<String>,
    /// The sources as the history and records have them: without passwords.
    pub(super) shown: Vec<String>,
}

impl ExpandedAdd<'_> {
    /// Returns the entry of the history.
    pub(super) fn created_by(&self) -> String {
        copy_text("ADD", &self.flags, &self.shown)
    }

    /// Tells whether the checksum alone says what the file is: it need not be fetched to be known.
    pub(super) fn is_pinned(&self) -> bool {
        self.checksum.is_some() && self.shown.iter().all(|text| classify_source(text) == SourceKind::Http)
    }
}

/// Expands everything of an `ADD`.
pub(super) fn expand_add<'a>(stage: &Stage, add: &'a Add) -> Result<ExpandedAdd<'a>, Problem> {
    let flags = CopyFlags {
        chown: expand_flag(stage, add.chown.as_deref())?,
        chmod: expand_flag(stage, add.chmod.as_deref())?.filter(|mode| !mode.is_empty()),
        link: add.link,
        parents: false,
        exclude: &add.exclude,
        dest: stage.expand(&add.dest)?,
    };
    if let Some(chmod) = &flags.chmod {
        super::copy_step::parse_chmod(chmod)?;
    }
    let checksum = expand_flag(stage, add.checksum.as_deref())?;
    let sources = source_texts(stage, add)?;
    check_checksum(checksum.as_deref(), &sources)?;
    let shown = sources.iter().map(|text| shown(text)).collect();
    Ok(ExpandedAdd { flags, checksum, sources, shown })
}

/// Returns a source as it may be kept: a path is as it is written.
fn shown(text: &str) -> String {
    match classify_source(text) {
        SourceKind::Path => text.to_owned(),
        SourceKind::Http | SourceKind::Git => without_password(text),
    }
}

fn source_texts(stage: &Stage, add: &Add) -> Result<Vec<String>, Problem> {
    add.sources
        .iter()
        .map(|source| match source {
            Source::Heredoc(heredoc) => Ok(format!("<<{}", heredoc.name)),
            Source::Path(text) => stage.expand(text),
        })
        .collect()
}

impl Build<'_> {
    pub(super) fn add_step(&self, stage: &mut Stage, add: &Add) -> Result<(), Problem> {
        let expanded = expand_add(stage, add)?;
        let sources = self.add_sources(stage, add, &expanded)?;
        let _turn = self.schedule.turn();
        if has_archive(&sources, add.unpack)? {
            self.add_unpacking(stage, sources, &expanded.flags, add.unpack)?;
        } else {
            self.copy_into(stage, sources, &expanded.flags)?;
        }
        stage.record(expanded.created_by(), true);
        Ok(())
    }

    /// Finds the sources; what is elsewhere is fetched, once in a build.
    pub(super) fn add_sources(
        &self,
        stage: &Stage,
        add: &Add,
        expanded: &ExpandedAdd<'_>,
    ) -> Result<Vec<CopySource>, Problem> {
        let checksum = expanded.checksum.as_deref();
        let mut sources = Vec::new();
        for (source, text) in add.sources.iter().zip(&expanded.sources) {
            sources.push(match source {
                Source::Heredoc(heredoc) => inline(stage, heredoc)?,
                Source::Path(_) => match classify_source(text) {
                    SourceKind::Path => {
                        let from = self.main_context();
                        self.refuse_unsent(&from, text)?;
                        CopySource::Pattern { from, pattern: text.clone() }
                    }
                    SourceKind::Http => {
                        let key = format!("{checksum:?} {text}");
                        let into = self.download_dir(&key);
                        self.downloads.get(key, || self.fetch_file(text, checksum, &into))?
                    }
                    SourceKind::Git => {
                        let key = format!("{checksum:?} {:?} {text}", add.keep_git_dir);
                        let into = self.download_dir(&key);
                        let fetch = || self.fetch_repository(text, add, checksum, &into);
                        self.downloads.get(key, fetch)?
                    }
                },
            });
        }
        Ok(sources)
    }

    /// Returns a directory below the work directory for one download.
    fn download_dir(&self, key: &str) -> PathBuf {
        self.services.work_dir.join("downloads").join(&crate::oci::Digest::of(key.as_bytes()).hex()[..16])
    }

    fn fetch_file(&self, url: &str, checksum: Option<&str>, into: &Path) -> Result<CopySource, Problem> {
        refuse_remote(self.request, url)?;
        let headers = self.http_headers(url)?;
        let file = download(&*self.services.fetch, url, &headers, into, checksum)?;
        let root = Arc::new(open_root(into)?);
        let path = file.path.file_name().map(std::path::PathBuf::from).unwrap_or_default();
        let mtime = match file.last_modified {
            Some(seconds) => Timestamp { seconds, nanoseconds: 0 },
            None => self.services.now,
        };
        let from = CopyRoot { root, ignore: None, keep_owner: false };
        Ok(CopySource::Download { from, path, name: file.name, mode: DOWNLOAD_MODE, mtime })
    }

    /// Returns the headers that the secrets `HTTP_AUTH_HEADER_<host>` and `HTTP_AUTH_TOKEN_<host>` ask for.
    fn http_headers(&self, url: &str) -> Result<Vec<(String, String)>, Problem> {
        let Some(host) = url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)) else {
            return Ok(Vec::new());
        };
        for (id, prefix) in [("HTTP_AUTH_HEADER_", ""), ("HTTP_AUTH_TOKEN_", "Bearer ")] {
            if let Some(value) = self.secret(&format!("{id}{host}"))? {
                let value = String::from_utf8_lossy(&value).trim().to_owned();
                return Ok(vec![("Authorization".to_owned(), format!("{prefix}{value}"))]);
            }
        }
        Ok(Vec::new())
    }

    fn fetch_repository(
        &self,
        text: &str,
        add: &Add,
        checksum: Option<&str>,
        into: &Path,
    ) -> Result<CopySource, Problem> {
        refuse_remote(self.request, text)?;
        let source: GitSource = parse_git_source(text)?.ok_or_else(|| Problem::Instruction {
            message: format!("`{text}` is not the address of a git repository"),
        })?;
        let keep = match (add.keep_git_dir, source.keep_git_dir) {
            (Some(flag), Some(query)) if flag != query => {
                return Err(Problem::Instruction {
                    message: "inconsistent keep-git-dir configuration".to_owned(),
                });
            }
            (flag, query) => flag.or(query).unwrap_or(false),
        };
        if let (Some(flag), Some(query)) = (checksum, source.checksum.as_deref())
            && flag != query
        {
            let message = format!("checksum mismatch {flag:?} != {query:?}");
            return Err(Problem::Instruction { message });
        }
        let checksum = checksum.or(source.checksum.as_deref());
        let checksum = checksum.map(str::to_owned);
        let bench = self.services.workbench();
        let checkout = bench.checkout(source, keep, checksum.as_deref(), self.request, into)?;
        let root = Arc::new(open_root(&checkout.directory)?);
        let from = CopyRoot { root, ignore: None, keep_owner: false };
        Ok(CopySource::Found { from, path: PathBuf::new() })
    }

    /// Adds sources one after the other to the tree itself: an archive's entries follow the links they find.
    fn add_unpacking(
        &self,
        stage: &mut Stage,
        sources: Vec<CopySource>,
        flags: &CopyFlags<'_>,
        unpack: Option<bool>,
    ) -> Result<(), Problem> {
        let dest = absolute_destination(stage.working_dir(), &flags.dest);
        let owner = self.owner(stage, flags.chown.as_deref(), false)?;
        let held = self.services.ground.hold();
        stage.tree.flushed()?;
        for source in sources {
            let archives = archives(&source, unpack)?;
            if archives.is_empty() {
                self.copy_onto(stage, source, flags)?;
                continue;
            }
            for (from, path, is_archive) in archives {
                if is_archive {
                    self.unpack(stage, &from, &path, &dest, owner)?;
                } else {
                    self.copy_onto(stage, CopySource::Found { from, path }, flags)?;
                }
            }
        }
        self.seal(stage, held, &[])
    }

    fn unpack(
        &self,
        stage: &mut Stage,
        from: &CopyRoot,
        path: &Path,
        dest: &str,
        owner: Option<(u32, u32)>,
    ) -> Result<(), Problem> {
        self.make_directory(stage, dest, owner)?;
        let root = stage.tree.root()?;
        let read_error = |e: std::io::Error| Problem::from(from.read_error(path, &e));
        let file = from.root.open_file(path).map_err(read_error)?;
        let (_, tar) =
            auto_decoder(std::io::BufReader::with_capacity(128 * 1024, file)).map_err(read_error)?;
        let owners = match owner {
            Some((uid, gid)) => Owners::Set { uid, gid },
            None => Owners::Keep,
        };
        // Links in the archive lead nowhere above the destination: for them it is the root.
        let below = root.subdir(dest).map_err(read_error)?;
        let options = ApplyOptions { whiteouts: Whiteouts::Literal, owners };
        let applied = apply_tar(TarReader::new(tar), &below, Path::new(""), &options)?;
        for warning in applied.warnings {
            let text = format!("{}: {} left out: {}", warning.path.display(), warning.what, warning.error);
            self.services.reporter.warning(text);
        }
        Ok(())
    }
}

/// Tells what a checksum may be given for, in BuildKit's words.
fn check_checksum(checksum: Option<&str>, sources: &[String]) -> Result<(), Problem> {
    let Some(checksum) = checksum else { return Ok(()) };
    let fail = |message: &str| Err(Problem::Instruction { message: message.to_owned() });
    let [source] = sources else { return fail("checksum can't be specified for multiple sources") };
    match classify_source(source) {
        SourceKind::Path => fail("checksum requires HTTP(S) or Git sources"),
        SourceKind::Http => Ok(validate_checksum(checksum).map(drop)?),
        SourceKind::Git => Ok(()),
    }
}

/// Tells whether any source is an archive that is to be unpacked.
fn has_archive(sources: &[CopySource], unpack: Option<bool>) -> Result<bool, Problem> {
    for source in sources {
        if archives(source, unpack)?.iter().any(|(_, _, is_archive)| *is_archive) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Lists the files a source stands for, and which of them are archives to unpack; empty if none can be.
fn archives(
    source: &CopySource,
    unpack: Option<bool>,
) -> Result<Vec<(CopyRoot, std::path::PathBuf, bool)>, Problem> {
    match source {
        CopySource::Pattern { from, pattern } if unpack != Some(false) => {
            let mut found = Vec::new();
            for path in from.resolve(pattern)? {
                let (resolved, metadata) = from.follow(&path, pattern)?;
                let is_archive = metadata.kind == FileKind::File && is_archive(&from.root, &resolved);
                let path = if is_archive { resolved } else { path };
                found.push((from.clone(), path, is_archive));
            }
            let any = found.iter().any(|(_, _, is_archive)| *is_archive);
            Ok(if any { found } else { Vec::new() })
        }
        CopySource::Download { from, path, .. } if unpack == Some(true) && is_archive(&from.root, path) => {
            Ok(vec![(from.clone(), path.clone(), true)])
        }
        _ => Ok(Vec::new()),
    }
}

/// Tells whether a file is a tar in any compression kiln reads: by content, never by name.
fn is_archive(root: &RootDir, path: &Path) -> bool {
    let Ok(file) = root.open_file(path) else { return false };
    let Ok((_, tar)) = auto_decoder(std::io::BufReader::new(file)) else { return false };
    matches!(TarReader::new(tar).next_entry(), Ok(Some(_)))
}

fn open_root(path: &Path) -> Result<RootDir, Problem> {
    RootDir::open(path).map_err(|source| Problem::Io { action: "open", path: path.to_path_buf(), source })
}
