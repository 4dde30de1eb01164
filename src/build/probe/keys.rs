//! The keys of steps: everything that can reach a layer, and nothing else.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::files::{Stamps, add_files};
use crate::build::Build;
use crate::build::Request;
use crate::build::add::expand_add;
use crate::build::copy::{self, Below, CopyRoot, CopySource, Pending};
use crate::build::copy_step::{CopyFlags, absolute_destination, expand_copy, parse_chmod};
use crate::build::error::Problem;
use crate::build::stage::Stage;
use crate::build::user::chown_owner;
use crate::cache::{Inputs, Key, KeyBuilder};
use crate::context::{SourceKind, classify_source};
use crate::dockerfile::mount::{MountKind, MountSpec};
use crate::dockerfile::{Add, Copy, Instruction, InstructionKind, Run, RunScript, Source};
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

/// Says which files of a context are taken, and how they are put into the step.
type Taking<'a> = &'a dyn Fn(&CopyRoot) -> Result<(Vec<CopySource>, CopyFlags<'a>), Problem>;

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
        // The command and its heredocs are in the script; network, security and mounts are asked for below.
        let Run { command: _, heredocs: _, network: _, security: _, mounts: _, devices: _ } = run;
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
        if let Some(name) = self.build_arg("BUILDKIT_SANDBOX_HOSTNAME") {
            key.text("host name", name);
        }
        add_request(key, self.request);
        for (index, spec) in stage.mount_specs(run)?.iter().enumerate() {
            if !self.add_mount_key(stage, &mut making, index + 1, spec, ends)? {
                return Ok(None);
            }
        }
        Ok(Some(making.finish(Some(parent))))
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
        let MountSpec { target: written, kind, read_only } = spec;
        let name = format!("mount {number}");
        let target = |spec| self.target(stage, spec);
        let (parts, from) = match kind {
            MountKind::Bind { from, source } => (
                vec!["bind".to_owned(), target(spec)?, source.clone()],
                Some((from.as_deref(), source.as_str())),
            ),
            MountKind::Cache { id, from, source, mode, uid, gid, sharing: _ } => {
                let owner = format!("{mode:?} {uid:?} {gid:?}");
                let parts = vec!["cache".to_owned(), target(spec)?, format!("{id:?}"), source.clone()];
                let from_part = from.as_deref().map(|from| (Some(from), source.as_str()));
                ([parts, vec![owner, from.is_some().to_string()]].concat(), from_part)
            }
            MountKind::Tmpfs { size_bytes } => {
                (vec!["tmpfs".to_owned(), target(spec)?, format!("{size_bytes:?}")], None)
            }
            // A step that may go without is another one than one that may not.
            MountKind::Secret { id, env, required, mode, uid, gid } => {
                let rest = format!("{env:?} {required} {mode:o} {uid} {gid}");
                (vec!["secret".to_owned(), id.clone(), format!("{written:?}"), rest], None)
            }
            MountKind::Ssh { id, required, mode, uid, gid } => {
                let rest = format!("{required} {mode:o} {uid} {gid}");
                (vec!["ssh".to_owned(), id.clone(), format!("{written:?}"), rest], None)
            }
        };
        making.key.list(&name, parts).text(&format!("{name} is read-only"), &read_only.to_string());
        match from {
            None => Ok(true),
            Some((from, source)) => {
                let from = self.mount_source(stage, spec, from)?;
                let taking = |root: &CopyRoot| {
                    let (path, _) = root.follow(Path::new(source.trim_start_matches('/')), source)?;
                    let found = CopySource::Found { from: root.clone(), path };
                    Ok((vec![found], CopyFlags { link: true, ..CopyFlags::plain("/source/") }))
                };
                self.add_from(stage, making, (&format!("source of {name}"), "files"), (from, &taking), ends)
            }
        }
    }

    /// Adds what `from` is and what is taken from it: an image and a stage by what they are as a whole, a context by
    /// the files that are taken, whatever sort of context it is and whatever it is called. `false` if nothing can be said.
    fn add_from(
        &self,
        stage: &Stage,
        making: &mut Making,
        (name, files): (&str, &str),
        (from, taking): (Option<FromRef>, Taking<'_>),
        ends: &Ends<'_>,
    ) -> Result<bool, Problem> {
        let root = match from {
            None => self.main_context(),
            Some(FromRef::Stage(id)) => {
                let Some(end) = ends.key(id) else { return Ok(false) };
                making.key.text(name, "a stage");
                making.sources.push((id, end));
                return Ok(true);
            }
            Some(FromRef::Scratch) => {
                making.key.text(name, "nothing");
                return Ok(true);
            }
            Some(FromRef::Image(image)) => {
                let image = self.image(&image, &stage.platform)?;
                making.key.text(name, &image.manifest.to_string());
                return Ok(true);
            }
            Some(FromRef::Context(context)) => match self.context_image(&context, &stage.platform)? {
                Some(image) => {
                    making.key.text(name, &image.manifest.to_string());
                    return Ok(true);
                }
                None => {
                    making.key.text(name, "a context");
                    self.named_root(&context, stage)?
                }
            },
        };
        let (sources, flags) = taking(&root)?;
        let stamps = self.add_content(&mut making.key, files, stage, sources, &flags)?;
        making.stamps.merge(stamps);
        Ok(true)
    }

    fn copy_key(
        &self,
        stage: &Stage,
        copy: &Copy,
        parent: Key,
        ends: &Ends<'_>,
    ) -> Result<Option<StepKey>, Problem> {
        // Expanded, all but these are flags.
        let Copy { sources, from, dest: _, chown: _, chmod: _, link: _, parents: _, exclude: _ } = copy;
        let expanded = expand_copy(stage, copy)?;
        let mut making = Making::new("COPY");
        self.add_copy_flags(&mut making.key, stage, &expanded.flags)?;
        making.key.list("sources", spelled_alike(&expanded.shown, expanded.flags.parents));
        let from = from.as_deref().map(|text| self.plan.resolve_from(text, stage.id)).transpose()?;
        let taking = |root: &CopyRoot| Ok((expanded.sources(root), expanded.flags.clone()));
        if !self.add_from(stage, &mut making, ("from", "files"), (from, &taking), ends)? {
            return Ok(None);
        }
        // Files written in the Dockerfile are hashed wherever the others come from.
        let has_inline = sources.iter().any(|source| matches!(source, Source::Heredoc(_)));
        if has_inline {
            let mut inline = expanded.sources(&self.main_context());
            inline.retain(|source| matches!(source, CopySource::Inline { .. }));
            self.add_content(&mut making.key, "inline files", stage, inline, &expanded.flags)?;
        }
        let copies_from_stage = !making.sources.is_empty();
        let parent = (!expanded.flags.is_independent()).then_some(parent);
        Ok(Some(StepKey { copies_from_stage, ..making.finish(parent) }))
    }

    fn add_key(&self, stage: &Stage, add: &Add, parent: Key) -> Result<Option<StepKey>, Problem> {
        // Expanded, all but these are flags. What a git directory adds to a checkout is among its files.
        let Add {
            sources: _,
            unpack,
            checksum: _,
            keep_git_dir: _,
            dest: _,
            chown: _,
            chmod: _,
            link: _,
            exclude: _,
        } = add;
        let expanded = expand_add(stage, add)?;
        let mut making = Making::new("ADD");
        self.add_copy_flags(&mut making.key, stage, &expanded.flags)?;
        making.key.list("sources", spelled_alike(&expanded.shown, false));
        making.key.text("unpack", &format!("{unpack:?}"));
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
    fn add_copy_flags(
        &self,
        key: &mut KeyBuilder,
        stage: &Stage,
        flags: &CopyFlags<'_>,
    ) -> Result<(), Problem> {
        let CopyFlags { chown, chmod, link, parents, exclude, dest } = flags;
        key.text("destination", &absolute_destination(stage.working_dir(), dest));
        let owner =
            chown.as_deref().filter(|spec| !spec.is_empty()).map(|spec| match chown_owner(spec, None) {
                Ok((uid, gid)) => format!("{uid}:{gid}"),
                // A name, which what is below says more of.
                Err(_) => spec.to_owned(),
            });
        key.text("--chown", &owner.unwrap_or_default());
        let chmod = chmod.as_deref().map(parse_chmod).transpose()?;
        key.text("--chmod", &chmod.map(|chmod| format!("{chmod:?}")).unwrap_or_default());
        key.text("--link", &link.to_string()).text("--parents", &parents.to_string());
        key.list("--exclude", exclude.iter().cloned());
        add_ignored(key, &self.request.ignore_paths);
        Ok(())
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
        let flags = CopyFlags::plain("/");
        let all = CopySource::Found { from, path: PathBuf::new() };
        self.add_content(key, "files", stage, vec![all], &flags).map(drop)
    }

    fn hashing_threads(&self) -> NonZeroUsize {
        self.request.compression_threads
    }
}

fn add_ignored(key: &mut KeyBuilder, paths: &[PathBuf]) {
    key.list("ignored paths", paths.iter().map(|path| format!("{path:?}")));
}

/// Adds what a `RUN` can tell of a request. Each field is named here: what is left out reaches no step, or reaches it by
/// what is in the key already.
fn add_request(key: &mut KeyBuilder, request: &Request) {
    let Request {
        add_hosts,
        shm_size_bytes,
        ulimits,
        ignore_paths,
        // In the instructions, expanded, and in the environment.
        dockerfile: _,
        build_args: _,
        target: _,
        platform: _,
        network: _,
        allow: _,
        // By their content, where a step takes any of it.
        context: _,
        named_contexts: _,
        base_layouts: _,
        pull: _,
        offline: _,
        // A rotated secret is no reason to build; ids are in the mounts.
        secrets: _,
        git_server: _,
        ssh: _,
        // In the key of the record.
        epoch: _,
        // The image's, or of the build around the steps.
        labels: _,
        annotations: _,
        names: _,
        no_cache: _,
        explain: _,
        compression: _,
        format: _,
        rewrite_timestamp: _,
        single_layer: _,
        jobs: _,
        compression_threads: _,
        // A step that saw less of the image for a volume is in no cache.
        volume_limit_bytes: _,
    } = request;
    key.list("hosts", add_hosts.iter().map(|(name, address)| format!("{name} {address}")));
    key.text("size of /dev/shm", &format!("{shm_size_bytes:?}"));
    key.list("limits", ulimits.iter().map(|limit| format!("{limit:?}")));
    add_ignored(key, ignore_paths);
}

/// Returns sources with one spelling for all that mean the same: `d`, `./d`, `/d/`. Where `--parents` keeps what is
/// written, the spelling counts.
fn spelled_alike(sources: &[String], parents: bool) -> impl Iterator<Item = String> {
    sources.iter().map(move |source| match classify_source(source) {
        SourceKind::Path if !parents => copy::clean(source, false),
        _ => source.clone(),
    })
}
