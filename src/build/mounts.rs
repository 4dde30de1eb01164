//! `RUN --mount`: what a step sees for its own time, and what has to be held or removed afterwards.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::agent::AgentProxy;
use super::cache_mount::{Cache, frame};
use super::copy::{self, Below, CopyRequest, CopyRoot, CopySource, Pending};
use super::error::{Problem, agent_option, secret_options};
use super::metadata::working_directory;
use super::stage::Stage;
use super::{Build, SecretSource};
use crate::dockerfile::Run;
use crate::dockerfile::expand::expand;
use crate::dockerfile::mount::{MountKind as SpecKind, MountSpec, parse_mount};
use crate::plan::FromRef;
use crate::sandbox::{LentSecret, Mount, MountKind, Source};
use crate::space::explain;
use crate::tree::{FileKind, RootDir, Walk, copy_tree};

/// Where the first content of a cache is made, beside its place.
const FRESH: &str = "new";

/// What the mounts of one step come to. Dropping it lets go of caches and agents and removes secrets.
#[derive(Default)]
pub(super) struct StepMounts {
    mounts: Vec<Mount>,
    /// Variables that secrets and agents set.
    pub(super) env: Vec<(String, String)>,
    /// By the key: one step may mount a cache several times.
    caches: BTreeMap<String, Cache>,
    agents: Vec<AgentProxy>,
    secrets: Vec<LentSecret>,
    /// How to give the secrets and agents that are asked for and not there.
    pub(super) absent: Vec<String>,
}

impl StepMounts {
    pub(super) fn take(&mut self) -> Vec<Mount> {
        std::mem::take(&mut self.mounts)
    }

    fn bind(&mut self, source: Source, target: &str, read_only: bool) {
        self.mounts.push(Mount { target: target.into(), kind: MountKind::Bind { source, read_only } });
    }
}

pub(super) fn io_problem(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Problem {
    let path = path.to_path_buf();
    move |source| Problem::Io { action, source: explain(&path, source), path }
}

impl Build<'_> {
    /// Finds what the mounts of a step read from, and waits for the stages among it.
    pub(super) fn mount_roots(
        &self,
        stage: &Stage,
        specs: &[MountSpec],
    ) -> Result<Vec<Option<CopyRoot>>, Problem> {
        let root = |spec: &MountSpec| match &spec.kind {
            SpecKind::Bind { from, .. } => {
                let from = self.mount_source(stage, spec, from.as_deref())?;
                self.copy_root(stage, from.as_ref()).map(Some)
            }
            SpecKind::Cache { from: Some(from), .. } => {
                // Its files are needed only if the cache is new.
                if let Some(FromRef::Stage(id)) = self.mount_source(stage, spec, Some(from))? {
                    self.stage(id)?;
                }
                Ok(None)
            }
            _ => Ok(None),
        };
        specs.iter().map(root).collect()
    }

    /// Prepares the mounts of a step, whose turn it is: one that runs in place beside these files could change and read
    /// them.
    pub(super) fn step_mounts(
        &self,
        stage: &mut Stage,
        specs: &[MountSpec],
        roots: Vec<Option<CopyRoot>>,
    ) -> Result<StepMounts, Problem> {
        let mut mounts = StepMounts::default();
        for (spec, root) in specs.iter().zip(roots) {
            self.add_mount(stage, &mut mounts, spec, root)?;
        }
        Ok(mounts)
    }

    fn add_mount(
        &self,
        stage: &mut Stage,
        mounts: &mut StepMounts,
        spec: &MountSpec,
        root: Option<CopyRoot>,
    ) -> Result<(), Problem> {
        match &spec.kind {
            SpecKind::Bind { source, .. } => {
                let target = self.target(stage, spec)?;
                let shown = self.bind_source(stage, root.expect("found for every bind"), source)?;
                self.bind_mount(mounts, &shown, &target, spec.read_only)
            }
            SpecKind::Cache { .. } => self.cache_mount(stage, mounts, spec),
            SpecKind::Tmpfs { size_bytes } => {
                let target = self.target(stage, spec)?.into();
                let kind = MountKind::Tmpfs { size_bytes: *size_bytes, mode: 0o1777 };
                mounts.mounts.push(Mount { target, kind });
                Ok(())
            }
            SpecKind::Secret { .. } => self.secret_mount(stage, mounts, spec),
            SpecKind::Ssh { .. } => self.ssh_mount(stage, mounts, spec),
        }
    }

    /// Returns where a mount goes: absolute and clean.
    pub(super) fn target(&self, stage: &Stage, spec: &MountSpec) -> Result<String, Problem> {
        let written = spec.target.as_deref().unwrap_or(".");
        let target = working_directory(stage.working_dir(), written);
        let target = target.trim_end_matches('/');
        if target.is_empty() {
            return Err(Problem::Instruction { message: "invalid mount target \"/\"".to_owned() });
        }
        Ok(target.to_owned())
    }

    /// Finds what a mount reads from. A number is no stage here, as it is for a copy.
    pub(super) fn mount_source(
        &self,
        stage: &Stage,
        spec: &MountSpec,
        from: Option<&str>,
    ) -> Result<Option<FromRef>, Problem> {
        let target = spec.target.as_deref().unwrap_or_default();
        Ok(from.map(|text| self.plan.resolve_mount_from(text, target, stage.id)).transpose()?)
    }

    /// Finds the file or directory that a bind mount shows. What an ignore file hides must not be seen, and
    /// files of a build context belong to root: where that is not so on disk, a copy is shown.
    fn bind_source(&self, stage: &Stage, from: CopyRoot, source: &str) -> Result<Shown, Problem> {
        let (path, metadata) = from.follow(Path::new(source.trim_start_matches('/')), source)?;
        let as_it_is = from.keep_owner
            || from.ignore.as_ref().is_none_or(|ignore| ignore.is_empty())
                && owned_by_root(&from.root, &path).map_err(io_problem("read", &path))?;
        let is_file = metadata.kind != FileKind::Directory;
        if as_it_is {
            return Ok(Shown { root: from.root, path, is_file });
        }
        let dest = if is_file { "/file" } else { "/" };
        let request = CopyRequest {
            sources: vec![CopySource::Found { from, path }],
            dest: dest.to_owned(),
            owner: None,
            chmod: None,
            parents: false,
            exclude: &[],
            now: self.services.now,
        };
        let (changes, _) = copy::plan(&request, Below { root: None, pending: &Pending::default() })?;
        let shown = self.step_path(stage, "bind")?;
        let root = RootDir::open(&shown).map_err(io_problem("open", &shown))?;
        copy::apply(&changes, &root).map_err(|(path, source)| Problem::Io {
            action: "copy for a bind mount",
            path,
            source,
        })?;
        let path = PathBuf::from(if is_file { "file" } else { "" });
        Ok(Shown { root: Arc::new(root), path, is_file })
    }

    fn bind_mount(
        &self,
        mounts: &mut StepMounts,
        shown: &Shown,
        target: &str,
        read_only: bool,
    ) -> Result<(), Problem> {
        let source = source_in(&shown.root, &shown.path)?;
        if read_only {
            mounts.bind(source, target, true);
            return Ok(());
        }
        // What the step writes there is dropped: it writes onto an overlay, or onto a copy.
        let scratch = self.new_dir("scratch")?;
        if !shown.is_file {
            let kind = MountKind::ScratchOverlay { lower: source, scratch };
            mounts.mounts.push(Mount { target: target.into(), kind });
            return Ok(());
        }
        let to = RootDir::open(&scratch).map_err(io_problem("open", &scratch))?;
        copy_tree(&shown.root, &shown.path, &to, "file").map_err(io_problem("copy", &shown.path))?;
        mounts.bind(source_in(&to, "file")?, target, false);
        Ok(())
    }

    fn cache_mount(
        &self,
        stage: &mut Stage,
        mounts: &mut StepMounts,
        spec: &MountSpec,
    ) -> Result<(), Problem> {
        let (SpecKind::Cache { from, source, sharing, mode, uid, gid, .. }, Some(id)) =
            (&spec.kind, spec.cache_id())
        else {
            unreachable!("called for cache mounts");
        };
        let target = self.target(stage, spec)?;
        let namespace = self.plan.build_args.get("BUILDKIT_CACHE_MOUNT_NS").map_or("", String::as_str);
        let numbers = format!("{mode:?} {uid:?} {gid:?}");
        let key = frame(&[namespace, &id, from.as_deref().unwrap_or(""), &numbers]);
        let cache = match mounts.caches.entry(key.clone()) {
            // The step has it already: the lock is its own.
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => {
                let root = &self.services.cache_mounts_dir;
                let mut cache = Cache::claim(root, &key, *sharing, &self.services.cancel)?;
                self.fill_cache(stage, &mut cache, spec, (&key, &id))?;
                self.used_mounts.note(&key, &id);
                vacant.insert(cache)
            }
        };
        let shown = if from.is_some() { "" } else { source.trim_matches('/') };
        // Others may have the cache, too: what is there when the step begins is what it sees.
        let data = cache.data();
        let made = cache.content()?.create_dir_all(shown, 0o755, &mut |_| {});
        made.map_err(io_problem("open the cache", &data))?;
        mounts.bind(Source::new(data, shown), &target, spec.read_only);
        Ok(())
    }

    /// Makes the first content of a cache that has none: what was saved of it, or what `from` says. `name` is the
    /// directory's, then what people call the mount.
    fn fill_cache(
        &self,
        stage: &Stage,
        cache: &mut Cache,
        spec: &MountSpec,
        name: (&str, &str),
    ) -> Result<(), Problem> {
        let SpecKind::Cache { from, source, mode, uid, gid, .. } = &spec.kind else {
            unreachable!("called for cache mounts");
        };
        if cache.is_new() {
            let (directory, data) = (cache.directory(), cache.data());
            let failed = |source| Problem::Io { action: "prepare the cache", path: data.clone(), source };
            let is_restored = self.restore_mount(name.0, name.1, directory, FRESH);
            if !is_restored {
                directory.remove_all(FRESH).map_err(failed)?;
                directory.create_dir(FRESH, 0o755).map_err(failed)?;
            }
            directory.set_owner(FRESH, uid.unwrap_or(0), gid.unwrap_or(0)).map_err(failed)?;
            directory.set_mode(FRESH, mode.unwrap_or(0o755)).map_err(failed)?;
            if let Some(from) = from.as_ref().filter(|_| !is_restored) {
                let from = self.mount_source(stage, spec, Some(from))?;
                let from = self.copy_root(stage, from.as_ref())?;
                let (path, _) = from.follow(Path::new(source.trim_start_matches('/')), source)?;
                let into = directory.subdir(FRESH).map_err(failed)?;
                copy_tree(&from.root, &path, &into, "").map_err(io_problem("fill the cache from", &path))?;
            }
            directory.rename(FRESH, "data").map_err(failed)?;
        }
        cache.filled()
    }

    /// Returns a secret's value; `None` if it was not given.
    pub(super) fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Problem> {
        self.request.secrets.get(id).map(read_secret).transpose()
    }

    fn secret_mount(&self, stage: &Stage, mounts: &mut StepMounts, spec: &MountSpec) -> Result<(), Problem> {
        let SpecKind::Secret { id, env, required, mode, uid, gid } = &spec.kind else {
            unreachable!("called for secret mounts");
        };
        let Some(value) = self.secret(id)? else {
            if *required {
                return Err(Problem::NoSecret { id: id.clone() });
            }
            mounts.absent.push(secret_options(id));
            return Ok(());
        };
        if let Some(name) = env {
            mounts.env.push((name.clone(), String::from_utf8_lossy(&value).into_owned()));
            if spec.target.is_none() {
                return Ok(());
            }
        }
        let target = match &spec.target {
            Some(target) => working_directory(stage.working_dir(), target),
            None => format!("/run/secrets/{}", id.rsplit('/').next().unwrap_or(id)),
        };
        let secrets = &self.services.secrets;
        let lent = secrets.lend(&value, *mode, (*uid, *gid));
        let lent = lent.map_err(io_problem("write a secret in", secrets.path()))?;
        mounts.bind(lent.source(), &target, true);
        mounts.secrets.push(lent);
        Ok(())
    }

    fn ssh_mount(&self, stage: &Stage, mounts: &mut StepMounts, spec: &MountSpec) -> Result<(), Problem> {
        let SpecKind::Ssh { id, required, mode, uid, gid } = &spec.kind else {
            unreachable!("called for ssh mounts");
        };
        let number = mounts.agents.len();
        let target = match &spec.target {
            Some(target) => working_directory(stage.working_dir(), target),
            None => format!("/run/buildkit/ssh_agent.{number}"),
        };
        // The variable is there even if no agent is: that is how BuildKit does it.
        if !mounts.env.iter().any(|(name, _)| name == "SSH_AUTH_SOCK") {
            mounts.env.push(("SSH_AUTH_SOCK".to_owned(), target.clone()));
        }
        let Some(source) = self.request.ssh.get(id) else {
            if *required {
                return Err(Problem::NoAgent { id: id.clone() });
            }
            mounts.absent.push(format!("`{}`", agent_option(id)));
            return Ok(());
        };
        let directory = self.new_dir("ssh")?;
        let present = self.services.own_files.present();
        let agent = AgentProxy::start(source, &directory)?;
        drop(present);
        let socket = agent.socket().to_path_buf();
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(*mode))
            .and_then(|()| chown(&socket, Some(*uid), Some(*gid)))
            .map_err(io_problem("prepare the agent's socket", &socket))?;
        mounts.bind(source_of(&socket)?, &target, false);
        mounts.agents.push(agent);
        Ok(())
    }

    /// Mounts the script of a lone heredoc.
    pub(super) fn script_mount(
        &self,
        mounts: &mut StepMounts,
        target: &str,
        body: &str,
    ) -> Result<(), Problem> {
        let file = write_file(self.new_dir("script")?, body.as_bytes(), 0o755)?;
        mounts.bind(source_of(&file)?, target, true);
        Ok(())
    }

    fn step_path(&self, stage: &Stage, what: &str) -> Result<PathBuf, Problem> {
        self.new_dir(&format!("{what}-{}-{}", stage.id.0, stage.step.number))
    }

    /// Makes a new empty directory below the work directory, closed to others.
    fn new_dir(&self, what: &str) -> Result<PathBuf, Problem> {
        let parent = self.services.work_dir.join("mounts");
        std::fs::create_dir_all(&parent).map_err(io_problem("create", &parent))?;
        tempfile::Builder::new()
            .prefix(&format!("{what}-"))
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir_in(&parent)
            .map(tempfile::TempDir::keep)
            .map_err(io_problem("create a directory in", &parent))
    }
}

impl Stage {
    /// Reads the `--mount` flags of a `RUN`, variables expanded.
    pub(super) fn mount_specs(&self, run: &Run) -> Result<Vec<MountSpec>, Problem> {
        let mut expanded = |text: &str| expand(text, &self.scope, self.escape).map(|expanded| expanded.text);
        run.mounts
            .iter()
            .map(|raw| {
                parse_mount(raw, &mut expanded).map_err(|e| Problem::Instruction { message: e.to_string() })
            })
            .collect()
    }
}

/// What a bind mount shows.
struct Shown {
    root: Arc<RootDir>,
    path: PathBuf,
    is_file: bool,
}

fn source_in(root: &RootDir, below: impl AsRef<Path>) -> Result<Source, Problem> {
    Source::below(root.path(), below.as_ref()).map_err(io_problem("open", root.path()))
}

/// Names a file that kiln has just made in a directory of its own.
fn source_of(file: &Path) -> Result<Source, Problem> {
    let (directory, name) = file.parent().zip(file.file_name()).expect("is in a directory");
    Source::below(directory, name).map_err(io_problem("open", directory))
}

/// Writes a file into a directory of its own.
fn write_file(directory: PathBuf, content: &[u8], mode: u32) -> Result<PathBuf, Problem> {
    let path = directory.join("file");
    std::fs::write(&path, content).map_err(io_problem("write", &path))?;
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(&path, permissions).map_err(io_problem("prepare", &path))?;
    Ok(path)
}

pub(super) fn read_secret(source: &SecretSource) -> Result<Vec<u8>, Problem> {
    match source {
        SecretSource::Value(value) => Ok(value.clone()),
        SecretSource::File(path) => std::fs::read(path).map_err(io_problem("read the secret", path)),
    }
}

fn owned_by_root(root: &Arc<RootDir>, path: &Path) -> io::Result<bool> {
    let top = root.metadata(path)?;
    if (top.uid, top.gid) != (0, 0) {
        return Ok(false);
    }
    if top.kind != FileKind::Directory {
        return Ok(true);
    }
    for entry in Walk::new(root, path)? {
        let metadata = entry?.metadata;
        if (metadata.uid, metadata.gid) != (0, 0) {
            return Ok(false);
        }
    }
    Ok(true)
}
