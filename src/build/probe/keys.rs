//! The keys of steps: everything that can reach a layer, and nothing else.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::files::{Stamps, add_files};
use crate::build::Build;
use crate::build::add::expand_add;
use crate::build::copy::{self, Below, CopyRoot, CopySource, Pending};
use crate::build::copy_step::{CopyFlags, absolute_destination, expand_copy};
use crate::build::error::Problem;
use crate::build::stage::Stage;
use crate::build::user::chown_owner;
use crate::cache::{Inputs, Key, KeyBuilder};
use crate::dockerfile::mount::{MountKind, MountSpec};
use crate::dockerfile::{Add, Copy, Instruction, InstructionKind, Run, RunScript};
use crate::plan::{FromRef, StageId};

/// The key of a step, and what it depends on.
pub(in crate::build) struct StepKey {
    /// What goes into the step, how its layer is written left out.
    pub(in crate::build) key: Key,
    pub(in crate::build) inputs: Inputs,
    /// The stages it reads from.
    pub(in crate::build) sources: Vec<StageId>,
    /// Whether its layer depends on nothing below it.
    pub(in crate::build) is_independent: bool,
    /// The files of contexts that were hashed.
    pub(in crate::build) stamps: Stamps,
    /// What goes into the step besides the tree below it and the stages it reads from.
    pub(in crate::build) own: KeyBuilder,
    /// Whether it copies from a stage: then what is copied can take the place of the stage.
    pub(in crate::build) copies_from_stage: bool,
}

/// A key in the making.
struct Making {
    key: KeyBuilder,
    sources: Vec<(StageId, Key)>,
    stamps: Stamps,
}

impl Making {
    fn new(kind: &str) -> Self {
        Self { key: KeyBuilder::new(kind), sources: Vec::new(), stamps: Stamps::default() }
    }

    /// Ends the key of a step on top of `parent`; without one its layer depends on nothing below it.
    fn finish(self, parent: Option<Key>) -> StepKey {
        let mut key = self.key.clone();
        if let Some(parent) = parent {
            key.key("parent", parent);
        }
        for (number, (_, source)) in self.sources.iter().enumerate() {
            key.key(&format!("stage {}", number + 1), *source);
        }
        let (key, inputs) = key.finish();
        StepKey {
            key,
            inputs,
            sources: self.sources.into_iter().map(|(id, _)| id).collect(),
            is_independent: parent.is_none(),
            stamps: self.stamps,
            own: self.key,
            copies_from_stage: false,
        }
    }
}

/// What `from` comes to in a key.
enum From {
    /// It was added.
    Known,
    /// Files that are to be hashed.
    Files(CopyRoot),
    /// Nothing can be said.
    Unknown,
}

/// What a key needs of the stages before: the key of each one's end, where it is known.
pub(super) struct Ends<'a>(pub(super) &'a [Option<Stage>]);

impl Ends<'_> {
    fn key(&self, id: StageId) -> Option<Key> {
        self.0[id.0].as_ref()?.key
    }
}

impl Build<'_> {
    /// Makes the key of a step that makes a layer; `None` if what goes into it cannot be known.
    pub(super) fn step_key(
        &self,
        stage: &Stage,
        instruction: &Instruction,
        ends: &Ends<'_>,
    ) -> Result<Option<StepKey>, Problem> {
        let Some(parent) = stage.key else { return Ok(None) };
        match &instruction.kind {
            InstructionKind::Run(run) => self.run_key(stage, run, parent, ends),
            InstructionKind::Copy(copy) => self.copy_key(stage, copy, parent, ends),
            InstructionKind::Add(add) => self.add_key(stage, add, parent),
            InstructionKind::Workdir(path) => {
                let mut making = Making::new("WORKDIR");
                making.key.text("directory", &stage.workdir(path)?);
                making.key.text("USER", &stage.config.config.user);
                Ok(Some(making.finish(Some(parent))))
            }
            _ => unreachable!("every other instruction is metadata"),
        }
    }

    fn run_key(
        &self,
        stage: &Stage,
        run: &Run,
        parent: Key,
        ends: &Ends<'_>,
    ) -> Result<Option<StepKey>, Problem> {
        crate::build::run::refuse_devices(run)?;
        let mut making = Making::new("RUN");
        let key = &mut making.key;
        key.list("command", stage.run_argv(run)?);
        if let RunScript::File { body, .. } = run.script() {
            key.text("script", &body);
        }
        key.text("USER", &stage.config.config.user).text("WORKDIR", stage.working_dir());
        for (name, value) in stage.scope.environment(&BTreeMap::new()) {
            // A build argument may be private: a record shows that it changed, and not to what.
            if stage.scope.is_declared(&name) {
                key.bytes(&format!("argument {name}"), value.as_bytes());
            } else {
                key.text(&format!("variable {name}"), &value);
            }
        }
        key.text("platform", &stage.platform.to_string());
        key.text("network", &format!("{:?}", self.network(run)?));
        key.text("security", if self.security(run)? { "insecure" } else { "sandbox" });
        let hosts = self.request.add_hosts.iter().map(|(name, address)| format!("{name} {address}"));
        key.list("hosts", hosts);
        key.text("size of /dev/shm", &format!("{:?}", self.request.shm_size_bytes));
        key.list("limits", self.request.ulimits.iter().map(|limit| format!("{limit:?}")));
        if let Some(name) = self.build_arg("BUILDKIT_SANDBOX_HOSTNAME") {
            key.text("host name", name);
        }
        self.add_ignored(key);
        for (index, spec) in stage.mount_specs(run)?.iter().enumerate() {
            if !self.add_mount_key(stage, &mut making, index + 1, spec, ends)? {
                return Ok(None);
            }
        }
        Ok(Some(making.finish(Some(parent))))
    }

    fn add_ignored(&self, key: &mut KeyBuilder) {
        key.list("ignored paths", self.request.ignore_paths.iter().map(|path| format!("{path:?}")));
    }

    /// Adds what a mount can bring into a step. What a cache holds and what a secret says is no part of it.
    fn add_mount_key(
        &self,
        stage: &Stage,
        making: &mut Making,
        number: usize,
        spec: &MountSpec,
        ends: &Ends<'_>,
    ) -> Result<bool, Problem> {
        let name = format!("mount {number}");
        let target = |spec| self.target(stage, spec);
        let from_text = |from: &Option<String>| format!("{from:?}");
        let (parts, from) = match &spec.kind {
            MountKind::Bind { from, source } => (
                vec!["bind".to_owned(), target(spec)?, source.clone()],
                Some((from.as_deref(), source.as_str())),
            ),
            MountKind::Cache { id, from, source, mode, uid, gid, sharing: _ } => {
                let owner = format!("{mode:?} {uid:?} {gid:?}");
                let parts = vec!["cache".to_owned(), target(spec)?, format!("{id:?}"), source.clone()];
                let from_part = from.as_deref().map(|from| (Some(from), source.as_str()));
                ([parts, vec![owner, from_text(from)]].concat(), from_part)
            }
            MountKind::Tmpfs { size_bytes } => {
                (vec!["tmpfs".to_owned(), target(spec)?, format!("{size_bytes:?}")], None)
            }
            // A step that may go without is another one than one that may not.
            MountKind::Secret { id, env, required, mode, uid, gid } => {
                let rest = format!("{env:?} {required} {mode:o} {uid} {gid}");
                (vec!["secret".to_owned(), id.clone(), format!("{:?}", spec.target), rest], None)
            }
            MountKind::Ssh { id, required, mode, uid, gid } => {
                let rest = format!("{required} {mode:o} {uid} {gid}");
                (vec!["ssh".to_owned(), id.clone(), format!("{:?}", spec.target), rest], None)
            }
        };
        making.key.list(&name, parts).text(&format!("{name} is read-only"), &spec.read_only.to_string());
        match from {
            None => Ok(true),
            Some((from, source)) => {
                let from = self.mount_source(stage, spec, from)?;
                self.add_bind_source(stage, making, &name, (from, source), ends)
            }
        }
    }

    fn add_bind_source(
        &self,
        stage: &Stage,
        making: &mut Making,
        name: &str,
        (from, source): (Option<FromRef>, &str),
        ends: &Ends<'_>,
    ) -> Result<bool, Problem> {
        let source_name = format!("source of {name}");
        let root = match self.add_from(stage, making, &source_name, from, ends)? {
            From::Known => return Ok(true),
            From::Unknown => return Ok(false),
            From::Files(root) => root,
        };
        let (path, _) = root.follow(Path::new(source.trim_start_matches('/')), source)?;
        let found = CopySource::Found { from: root, path };
        let flags = CopyFlags {
            chown: None,
            chmod: None,
            link: true,
            parents: false,
            exclude: &[],
            dest: "/source/".to_owned(),
        };
        let stamps = self.add_content(&mut making.key, &source_name, stage, vec![found], &flags)?;
        making.stamps.merge(stamps);
        Ok(true)
    }

    /// Adds what `from` is, where that needs no look at its files.
    fn add_from(
        &self,
        stage: &Stage,
        making: &mut Making,
        name: &str,
        from: Option<FromRef>,
        ends: &Ends<'_>,
    ) -> Result<From, Problem> {
        let Some(from) = from else { return Ok(From::Files(self.main_context())) };
        match from {
            FromRef::Stage(id) => {
                let Some(end) = ends.key(id) else { return Ok(From::Unknown) };
                making.key.text(name, "a stage");
                making.sources.push((id, end));
                Ok(From::Known)
            }
            FromRef::Scratch => Ok(From::Known),
            FromRef::Image(image) => {
                let image = self.image(&image, &stage.platform)?;
                making.key.text(name, &image.manifest.to_string());
                Ok(From::Known)
            }
            FromRef::Context(context) => match self.context_image(&context, &stage.platform)? {
                Some(image) => {
                    making.key.text(name, &image.manifest.to_string());
                    Ok(From::Known)
                }
                None => Ok(From::Files(self.named_root(&context, stage)?)),
            },
        }
    }

    fn copy_key(
        &self,
        stage: &Stage,
        copy: &Copy,
        parent: Key,
        ends: &Ends<'_>,
    ) -> Result<Option<StepKey>, Problem> {
        let expanded = expand_copy(stage, copy)?;
        let mut making = Making::new("COPY");
        self.add_copy_flags(&mut making.key, stage, &expanded.flags);
        making.key.list("sources", expanded.shown.iter().cloned());
        let from = copy.from.as_deref().map(|text| self.plan.resolve_from(text, stage.id)).transpose()?;
        let root = match self.add_from(stage, &mut making, "from", from, ends)? {
            From::Unknown => return Ok(None),
            From::Files(root) => Some(root),
            From::Known => None,
        };
        // Files written in the Dockerfile are hashed wherever the others come from.
        let has_inline = copy.sources.iter().any(|s| matches!(s, crate::dockerfile::Source::Heredoc(_)));
        let root = match (root, has_inline) {
            (Some(root), _) => Some(root),
            (None, true) => Some(self.main_context()),
            (None, false) => None,
        };
        if let Some(root) = root {
            let inline = |source: &CopySource| matches!(source, CopySource::Inline { .. });
            let mut sources = expanded.sources(&root);
            sources.retain(|source| copy.from.is_none() || inline(source));
            making.stamps = self.add_content(&mut making.key, "files", stage, sources, &expanded.flags)?;
        }
        let copies_from_stage = !making.sources.is_empty();
        let parent = (!expanded.flags.is_independent()).then_some(parent);
        Ok(Some(StepKey { copies_from_stage, ..making.finish(parent) }))
    }

    fn add_key(&self, stage: &Stage, add: &Add, parent: Key) -> Result<Option<StepKey>, Problem> {
        let expanded = expand_add(stage, add)?;
        let mut making = Making::new("ADD");
        self.add_copy_flags(&mut making.key, stage, &expanded.flags);
        making.key.list("sources", expanded.shown.iter().cloned());
        making.key.text("unpack", &format!("{:?}", add.unpack));
        if expanded.is_pinned() {
            making.key.text("checksum", expanded.checksum.as_deref().unwrap_or_default());
            return Ok(Some(making.finish(Some(parent))));
        }
        let sources = self.add_sources(stage, add, &expanded)?;
        for source in &sources {
            if let CopySource::Download { mtime, .. } = source
                && *mtime != self.services.now
            {
                making.key.text("last modified", &mtime.seconds.to_string());
            }
        }
        making.stamps = self.add_content(&mut making.key, "files", stage, sources, &expanded.flags)?;
        // Never without what is below: an archive follows the links it finds there.
        Ok(Some(making.finish(Some(parent))))
    }

    /// Adds how a copy is made.
    fn add_copy_flags(&self, key: &mut KeyBuilder, stage: &Stage, flags: &CopyFlags<'_>) {
        key.text("destination", &absolute_destination(stage.working_dir(), &flags.dest));
        key.text("--chown", flags.chown.as_deref().unwrap_or_default());
        key.text("--chmod", flags.chmod.as_deref().unwrap_or_default());
        key.text("--link", &flags.link.to_string()).text("--parents", &flags.parents.to_string());
        key.list("--exclude", flags.exclude.iter().cloned());
        self.add_ignored(key);
    }

    /// Adds the files that a copy takes, as it would put them into an empty tree.
    pub(in crate::build) fn add_content(
        &self,
        key: &mut KeyBuilder,
        name: &str,
        stage: &Stage,
        sources: Vec<CopySource>,
        flags: &CopyFlags<'_>,
    ) -> Result<Stamps, Problem> {
        for source in &sources {
            // Which names a pattern stands for: where they go may depend on what is there.
            if let CopySource::Pattern { from, pattern } = source
                && !flags.parents
            {
                let found = from.resolve(pattern)?;
                key.list("found", found.iter().map(|path| format!("{path:?}")));
            }
        }
        // Names are looked up in what is below, which has a key of its own.
        let owner = flags.chown.as_deref().and_then(|spec| chown_owner(spec, None).ok());
        let request = flags.request(stage, sources, owner, self.services.now)?;
        let (changes, _) = copy::plan(&request, Below { root: None, pending: &Pending::default() })?;
        add_files(key, name, &changes, self.hashing_threads())
    }

    /// Adds all files of a named context.
    pub(super) fn add_named_context(
        &self,
        key: &mut KeyBuilder,
        stage: &Stage,
        name: &str,
    ) -> Result<(), Problem> {
        let from = self.named_root(name, stage)?;
        let flags = CopyFlags {
            chown: None,
            chmod: None,
            link: false,
            parents: false,
            exclude: &[],
            dest: "/".to_owned(),
        };
        let all = CopySource::Found { from, path: PathBuf::new() };
        self.add_content(key, "files", stage, vec![all], &flags).map(drop)
    }

    fn hashing_threads(&self) -> NonZeroUsize {
        self.request.compression_threads
    }
}
