//! `COPY` and `WORKDIR` as steps of a stage.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Build;
use super::copy::{self, Below, CopyRequest, CopyRoot, CopySource, Pending};
use super::error::Problem;
use super::metadata::working_directory;
use super::stage::Stage;
use super::tree::change_set;
use super::user::{chown_owner, is_name};
use crate::dockerfile::chmod::Chmod;
use crate::dockerfile::{Copy, Heredoc, Source, expand_heredoc, history};
use crate::event::StepOutcome;
use crate::layer::Change;
use crate::plan::FromRef;
use crate::tree::{RootDir, Timestamp};

/// What `COPY` and `ADD` have in common, expanded.
#[derive(Clone)]
pub(super) struct CopyFlags<'a> {
    pub(super) chown: Option<String>,
    pub(super) chmod: Option<String>,
    pub(super) link: bool,
    pub(super) parents: bool,
    pub(super) exclude: &'a [String],
    pub(super) dest: String,
}

impl<'a> CopyFlags<'a> {
    /// Copies to `dest` without any flag.
    pub(super) fn plain(dest: &str) -> Self {
        let dest = dest.to_owned();
        Self { chown: None, chmod: None, link: false, parents: false, exclude: &[], dest }
    }

    /// Tells whether the layer of the copy depends on nothing below it: no names are looked up, no links followed.
    /// BuildKit's rule: a link with a mode is an ordinary copy.
    pub(super) fn is_independent(&self) -> bool {
        self.link && self.chmod.is_none()
    }

    /// Puts together what is copied where.
    pub(super) fn request(
        &self,
        stage: &Stage,
        sources: Vec<CopySource>,
        owner: Option<(u32, u32)>,
        now: Timestamp,
    ) -> Result<CopyRequest<'a>, Problem> {
        Ok(CopyRequest {
            sources,
            dest: absolute_destination(stage.working_dir(), &self.dest),
            owner,
            chmod: self.chmod.as_deref().map(parse_chmod).transpose()?,
            parents: self.parents,
            exclude: self.exclude,
            now,
        })
    }
}

/// A `COPY` with everything expanded, before its source is looked at.
pub(super) struct ExpandedCopy<'a> {
    pub(super) flags: CopyFlags<'a>,
    sources: Vec<WrittenSource>,
    /// The sources as the history has them.
    pub(super) shown: Vec<String>,
}

enum WrittenSource {
    Pattern(String),
    Inline(CopySource),
}

impl ExpandedCopy<'_> {
    /// Returns the sources, with paths counting from `from`.
    pub(super) fn sources(&self, from: &CopyRoot) -> Vec<CopySource> {
        let source = |written: &WrittenSource| match written {
            WrittenSource::Pattern(pattern) => {
                CopySource::Pattern { from: from.clone(), pattern: pattern.clone() }
            }
            WrittenSource::Inline(source) => source.clone(),
        };
        self.sources.iter().map(source).collect()
    }

    fn patterns(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().filter_map(|source| match source {
            WrittenSource::Pattern(pattern) => Some(pattern.as_str()),
            WrittenSource::Inline(_) => None,
        })
    }

    /// Returns the entry of the history.
    pub(super) fn created_by(&self) -> String {
        copy_text("COPY", &self.flags, &self.shown)
    }
}

/// Expands everything of a `COPY`.
pub(super) fn expand_copy<'a>(stage: &Stage, copy: &'a Copy) -> Result<ExpandedCopy<'a>, Problem> {
    let flags = CopyFlags {
        chown: expand_flag(stage, copy.chown.as_deref())?,
        chmod: expand_flag(stage, copy.chmod.as_deref())?.filter(|mode| !mode.is_empty()),
        link: copy.link,
        parents: copy.parents,
        exclude: &copy.exclude,
        dest: stage.expand(&copy.dest)?,
    };
    let mut sources = Vec::new();
    let mut shown = Vec::new();
    for source in &copy.sources {
        match source {
            Source::Path(text) => {
                let pattern = stage.expand(text)?;
                refuse_remote(&pattern)?;
                shown.push(pattern.clone());
                sources.push(WrittenSource::Pattern(pattern));
            }
            Source::Heredoc(heredoc) => {
                shown.push(format!("<<{}", heredoc.name));
                sources.push(WrittenSource::Inline(inline(stage, heredoc)?));
            }
        }
    }
    Ok(ExpandedCopy { flags, sources, shown })
}

impl Build<'_> {
    pub(super) fn copy_step(&self, stage: &mut Stage, copy: &Copy) -> Result<StepOutcome, Problem> {
        let expanded = expand_copy(stage, copy)?;
        let from = copy.from.as_deref().map(|text| self.plan.resolve_from(text, stage.id)).transpose()?;
        // This may wait for another stage. What counts is how its files are while no step can change them.
        self.copy_root(stage, from.as_ref())?;
        let _turn = self.schedule.turn();
        let _held = self.services.ground.hold();
        let from = self.copy_root(stage, from.as_ref())?;
        if copy.from.is_none() && !copy.parents {
            for pattern in expanded.patterns() {
                self.refuse_unsent(&from, pattern)?;
            }
        }
        let sources = expanded.sources(&from);
        let outcome = match self.content_hit(stage, &sources, &expanded.flags)? {
            Some(outcome) => outcome,
            None => {
                self.copy_into(stage, sources, &expanded.flags)?;
                StepOutcome::Done
            }
        };
        stage.record(expanded.created_by(), true);
        Ok(outcome)
    }

    /// Plans a copy, queues it for the tree, and makes its layer.
    pub(super) fn copy_into(
        &self,
        stage: &mut Stage,
        sources: Vec<CopySource>,
        flags: &CopyFlags<'_>,
    ) -> Result<(), Problem> {
        let independent = flags.is_independent();
        let request = self.copy_request(stage, sources, flags, independent)?;
        let changes = if independent {
            let nothing = Below { root: None, pending: &Pending::default() };
            let (changes, _) = copy::plan(&request, nothing)?;
            stage.tree.push_independent(changes.clone());
            changes
        } else {
            stage.tree.plan(|below| copy::plan(&request, below))?
        };
        // Later steps see what is ignored; no layer has it.
        let ignored =
            |change: &Change| self.request.ignore_paths.iter().any(|path| is_below(change.path(), path));
        self.add_layer(stage, changes.into_iter().filter(|change| !ignored(change)).collect());
        Ok(())
    }

    fn copy_request<'a>(
        &self,
        stage: &mut Stage,
        sources: Vec<CopySource>,
        flags: &CopyFlags<'a>,
        independent: bool,
    ) -> Result<CopyRequest<'a>, Problem> {
        let owner = self.owner(stage, flags.chown.as_deref(), independent)?;
        flags.request(stage, sources, owner, self.services.now)
    }

    /// Copies into the files themselves, as part of a step that is sealed later.
    pub(super) fn copy_onto(
        &self,
        stage: &mut Stage,
        source: CopySource,
        flags: &CopyFlags<'_>,
    ) -> Result<(), Problem> {
        let request = self.copy_request(stage, vec![source], flags, false)?;
        let root = stage.tree.root()?;
        let below = Below { root: Some(&root), pending: &Pending::default() };
        let (changes, _) = copy::plan(&request, below)?;
        apply_now(&changes, &root)
    }

    /// Makes a directory in the files themselves, as part of a step that is sealed later.
    pub(super) fn make_directory(
        &self,
        stage: &mut Stage,
        path: &str,
        owner: Option<(u32, u32)>,
    ) -> Result<(), Problem> {
        let root = stage.tree.root()?;
        let below = Below { root: Some(&root), pending: &Pending::default() };
        let (changes, _) = copy::plan_directory(path, owner, self.services.now, below)?;
        apply_now(&changes, &root)
    }

    pub(super) fn add_layer(&self, stage: &mut Stage, changes: Vec<Change>) {
        self.push_layer(stage, change_set(changes));
    }

    /// Finds who `--chown` names, looked up in the stage's own files where it is a name; a copy that is
    /// `independent` of them has none.
    pub(super) fn owner(
        &self,
        stage: &mut Stage,
        chown: Option<&str>,
        independent: bool,
    ) -> Result<Option<(u32, u32)>, Problem> {
        let Some(spec) = chown.filter(|spec| !spec.is_empty()) else { return Ok(None) };
        let looked_up = spec.splitn(2, ':').any(is_name) && !independent && !stage.tree.is_untouched();
        let root = if looked_up { Some(stage.tree.root()?) } else { None };
        Ok(Some(chown_owner(spec, root.as_deref())?))
    }

    /// Returns the build context.
    pub(super) fn main_context(&self) -> CopyRoot {
        let context = self.inputs.main();
        CopyRoot { root: context.root.clone(), ignore: Some(context.ignore.clone()), keep_owner: false }
    }

    /// Finds the tree that is read from; without a name, the build context.
    pub(super) fn copy_root(&self, stage: &Stage, from: Option<&FromRef>) -> Result<CopyRoot, Problem> {
        let Some(from) = from else { return Ok(self.main_context()) };
        match from {
            FromRef::Stage(id) => {
                let result = self.stage(*id)?;
                let root = result.lock_tree().root()?;
                Ok(CopyRoot { root, ignore: None, keep_owner: true })
            }
            FromRef::Scratch => {
                Ok(CopyRoot { root: self.inputs.empty_root(self)?, ignore: None, keep_owner: true })
            }
            FromRef::Image(image) => {
                let root = self.image_root(image, &stage.platform)?;
                Ok(CopyRoot { root, ignore: None, keep_owner: true })
            }
            FromRef::Context(name) => self.named_root(name, stage),
        }
    }

    pub(super) fn named_root(&self, name: &str, stage: &Stage) -> Result<CopyRoot, Problem> {
        if let Some(image) = self.context_image(name, &stage.platform)? {
            let root = self.unpacked(&image.text, &stage.platform, &image)?;
            return Ok(CopyRoot { root, ignore: None, keep_owner: true });
        }
        let context = self.inputs.named_context(self, name)?;
        Ok(CopyRoot { root: context.root, ignore: Some(context.ignore), keep_owner: false })
    }

    /// Copies a whole named context into a stage: `FROM name` of a context of files.
    pub(super) fn copy_context(&self, stage: &mut Stage, name: &str) -> Result<(), Problem> {
        let from = self.named_root(name, stage)?;
        let flags = CopyFlags::plain("/");
        self.copy_into(stage, vec![CopySource::Found { from, path: PathBuf::new() }], &flags)?;
        stage.record(format!("COPY context {name} / # kiln"), true);
        Ok(())
    }

    pub(super) fn workdir_step(&self, stage: &mut Stage, path: &str) -> Result<(), Problem> {
        let written = stage.workdir(path)?;
        let directory = copy::clean(&written, true);
        if written != "/" {
            // The owner is looked up as `--chown` is: a number is user and group alike.
            let user = stage.config.config.user.clone();
            let owner = match user.as_str() {
                "root" => Some((0, 0)),
                user => self.owner(stage, Some(user), false)?,
            };
            let mtime = self.step_time();
            let changes = stage.tree.plan(|below| copy::plan_directory(&directory, owner, mtime, below))?;
            self.add_layer(stage, changes);
        }
        stage.set_workdir(written);
        Ok(())
    }

    /// Returns the modification time of what a step itself creates.
    fn step_time(&self) -> Timestamp {
        match self.epoch {
            Some(seconds) => Timestamp { seconds, nanoseconds: 0 },
            None => self.services.now,
        }
    }
}

impl Stage {
    /// Returns what a `WORKDIR` puts into the config.
    pub(super) fn workdir(&self, path: &str) -> Result<String, Problem> {
        Ok(written_directory(self.working_dir(), &self.expand(path)?))
    }

    /// Makes a directory the one that relative paths count from.
    pub(super) fn set_workdir(&mut self, directory: String) {
        let makes_layer = directory != "/";
        self.record(history::workdir(&directory), makes_layer);
        self.config.config.working_dir = directory;
    }
}

/// Tells whether an entry is at or below a path that may begin with a slash.
fn is_below(entry: &Path, path: &Path) -> bool {
    entry.starts_with(path.strip_prefix("/").unwrap_or(path))
}

/// Returns what `WORKDIR path` puts into the config: an absolute path as it is written, a relative one joined and clean.
fn written_directory(current: &str, path: &str) -> String {
    match path {
        "" => current.to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => copy::clean(&format!("{current}/{path}"), false),
    }
}

fn apply_now(changes: &[Change], root: &RootDir) -> Result<(), Problem> {
    copy::apply(changes, root).map_err(|(path, source)| Problem::Io {
        action: "write into the stage",
        path,
        source,
    })
}

pub(super) fn expand_flag(stage: &Stage, flag: Option<&str>) -> Result<Option<String>, Problem> {
    flag.map(|text| stage.expand(text)).transpose()
}

pub(super) fn inline(stage: &Stage, heredoc: &Heredoc) -> Result<CopySource, Problem> {
    let body =
        if heredoc.expand { expand_heredoc(&heredoc.body, &stage.scope)?.text } else { heredoc.body.clone() };
    // The word is a file name at the top of a tree of its own.
    let path = copy::clean(&heredoc.name, false);
    let name = path.trim_start_matches('/');
    if name.is_empty() || name.contains('/') {
        let message = format!("open {path}: no such file or directory: a heredoc's name is a file name here");
        return Err(Problem::Instruction { message });
    }
    Ok(CopySource::Inline { name: name.to_owned(), body: Arc::from(body.into_bytes()) })
}

pub(super) fn copy_text(keyword: &str, flags: &CopyFlags<'_>, sources: &[String]) -> String {
    history::copy(&history::CopyText {
        keyword,
        parents: flags.parents,
        chown: flags.chown.as_deref(),
        chmod: flags.chmod.as_deref(),
        sources: sources.iter().map(String::as_str).collect(),
        dest: &flags.dest,
    })
}

/// Makes a destination absolute; `.` and nothing mean the working directory, as a directory.
pub(super) fn absolute_destination(working_dir: &str, dest: &str) -> String {
    let dest = if dest.is_empty() || dest == "." { "./" } else { dest };
    working_directory(working_dir, dest)
}

pub(super) fn parse_chmod(text: &str) -> Result<Chmod, Problem> {
    text.parse()
        .map_err(|e: crate::dockerfile::chmod::ChmodError| Problem::Instruction { message: e.to_string() })
}

fn refuse_remote(source: &str) -> Result<(), Problem> {
    let message = match crate::context::classify_source(source) {
        crate::context::SourceKind::Path => return Ok(()),
        crate::context::SourceKind::Http => "source can't be a URL for COPY",
        crate::context::SourceKind::Git => "source can't be a git ref for COPY",
    };
    Err(Problem::Instruction { message: message.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::written_directory;

    #[test]
    fn an_absolute_workdir_stays_as_it_is_written() {
        for (current, path, expected) in [
            ("/w", "/a/../b", "/a/../b"),
            ("/w", "/a//b/", "/a//b/"),
            ("/w/", "x/", "/w/x"),
            ("/a/../b", "..", "/"),
            ("/w", "../y/./z", "/y/z"),
            ("/w", "", "/w"),
            ("/", ".", "/"),
        ] {
            assert_eq!(written_directory(current, path), expected, "{current} {path}");
        }
    }
}
