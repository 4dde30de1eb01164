//! `RUN --mount`: what a step sees for its own time, and what has to be held or removed afterwards.

use std::collections::BTreeMap;
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
use crate::sandbox::{Mount, MountKind};
use crate::tree::{FileKind, RootDir, Walk, copy_tree};

/// What the mounts of one step come to. Dropping it lets go of caches and agents and removes secrets.
#[derive(Default)]
pub(super) struct StepMounts {
    mounts: Vec<Mount>,
    /// Variables that secrets and agents set.
    pub(super) env: Vec<(String, String)>,
    /// By the key: one step may mount a cache several times.
    caches: BTreeMap<String, Cache>,
    agents: Vec<AgentProxy>,
    files: Vec<PathBuf>,
    /// How to give the secrets and agents that are asked for and not there.
    pub(super) absent: Vec<String>,
}

impl StepMounts {
    pub(super) fn take(&mut self) -> Vec<Mount> {
        std::mem::take(&mut self.mounts)
    }

    fn bind(&mut self, source: PathBuf, target: &str, read_only: bool) {
        self.mounts.push(Mount { target: target.into(), kind: MountKind::Bind { source, read_only } });
    }
}

impl Drop for StepMounts {
    fn drop(&mut self) {
        for file in &self.files {
            // The work directory itself goes at the end of the build; this only makes it sooner.
            let _ = std::fs::remove_file(file);
        }
    }
}

pub(super) fn io_problem(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Problem {
    let path = path.to_path_buf();
    move |source| Problem::Io { action, path, source }
}

impl Build<'_> {
    /// Prepares the mounts of a step.
    pub(super) fn step_mounts(&self, stage: &mut Stage, run: &Run) -> Result<StepMounts, Problem> {
        let mut mounts = StepMounts::default();
        for spec in stage.mount_specs(run)? {
            self.add_mount(stage, &mut mounts, &spec)?;
        }
        Ok(mounts)
    }

    fn add_mount(&self, stage: &mut Stage, mounts: &mut StepMounts, spec: &MountSpec) -> Result<(), Problem> {
        match &spec.kind {
            SpecKind::Bind { from, source } => {
                let target = self.target(stage, spec)?;
                let from = self.mount_source(stage, spec, from.as_deref())?;
                let root = self.copy_root(stage, from.as_ref())?;
                let path = self.bind_source(stage, &root, source)?;
                self.bind_mount(mounts, path, &target, spec.read_only)
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
    fn bind_source(&self, stage: &Stage, from: &CopyRoot, source: &str) -> Result<PathBuf, Problem> {
        let (path, metadata) = from.follow(Path::new(source.trim_start_matches('/')), source)?;
        let as_it_is = from.keep_owner
            || from.ignore.as_ref().is_none_or(|ignore| ignore.is_empty())
                && owned_by_root(&from.root, &path).map_err(io_problem("read", &path))?;
        if as_it_is {
            return Ok(from.root.path().join(path));
        }
        let is_file = metadata.kind != FileKind::Directory;
        let dest = if is_file { "/file" } else { "/" };
        let request = CopyRequest {
            sources: vec![CopySource::Found { from: from.clone(), path }],
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
        Ok(if is_file { shown.join("file") } else { shown })
    }

    fn bind_mount(
        &self,
        mounts: &mut StepMounts,
        source: PathBuf,
        target: &str,
        read_only: bool,
    ) -> Result<(), Problem> {
        if read_only {
            mounts.bind(source, target, true);
            return Ok(());
        }
        // What the step writes there is dropped: it writes onto an overlay, or onto a copy.
        let scratch = self.new_dir("scratch")?;
        if source.is_dir() {
            let kind = MountKind::ScratchOverlay { lower: source, scratch };
            mounts.mounts.push(Mount { target: target.into(), kind });
        } else {
            let copy = scratch.join("file");
            std::fs::copy(&source, &copy).map_err(io_problem("copy", &source))?;
            mounts.bind(copy, target, false);
        }
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
        let data = match mounts.caches.get(&key) {
            // The step has it already: the lock is its own.
            Some(cache) => cache.data(),
            None => {
                let root = &self.services.cache_mounts_dir;
                let mut cache = Cache::claim(root, &key, *sharing, &self.services.cancel)?;
                self.fill_cache(stage, &mut cache, spec, (&key, &id))?;
                self.used_mounts.note(&key, &id);
                mounts.caches.entry(key).or_insert(cache).data()
            }
        };
        let shown = if from.is_some() { String::new() } else { source.trim_matches('/').to_owned() };
        let root = RootDir::open(&data).map_err(io_problem("open the cache", &data))?;
        let inside = root.resolve(&shown).map_err(io_problem("open the cache", &data))?;
        root.create_dir_all(&inside, 0o755, &mut |_| {}).map_err(io_problem("open the cache", &data))?;
        mounts.bind(data.join(inside), &target, spec.read_only);
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
            let fresh = directory.join("new");
            let make = || {
                let _ = std::fs::remove_dir_all(&fresh);
                std::fs::create_dir(&fresh).map_err(io_problem("create", &fresh))
            };
            make()?;
            let is_restored = self.restore_mount(name.0, name.1, &fresh, &directory);
            if !is_restored {
                make()?;
            }
            let set = |path: &Path| {
                let permissions = std::fs::Permissions::from_mode(mode.unwrap_or(0o755));
                chown(path, Some(uid.unwrap_or(0)), Some(gid.unwrap_or(0)))?;
                std::fs::set_permissions(path, permissions)
            };
            set(&fresh).map_err(io_problem("prepare the cache", &fresh))?;
            if let Some(from) = from.as_ref().filter(|_| !is_restored) {
                let from = self.mount_source(stage, spec, Some(from))?;
                let from = self.copy_root(stage, from.as_ref())?;
                let (path, _) = from.follow(Path::new(source.trim_start_matches('/')), source)?;
                let into = RootDir::open(&fresh).map_err(io_problem("open", &fresh))?;
                copy_tree(&from.root, &path, &into, "").map_err(io_problem("fill the cache from", &path))?;
            }
            std::fs::rename(&fresh, &data).map_err(io_problem("prepare the cache", &data))?;
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
        let file = write_file(mounts, self.secret_dir()?, &value, *mode)?;
        chown(&file, Some(*uid), Some(*gid)).map_err(io_problem("prepare the secret", &file))?;
        mounts.bind(file, &target, true);
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
        mounts.bind(socket, &target, false);
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
        let file = write_file(mounts, self.new_dir("script")?, body.as_bytes(), 0o755)?;
        mounts.bind(file, target, true);
        Ok(())
    }

    fn secret_dir(&self) -> Result<PathBuf, Problem> {
        let parent = self.services.secrets.path();
        let made = tempfile::tempdir_in(parent).map(tempfile::TempDir::keep);
        made.map_err(io_problem("create a directory in", parent))
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

/// Writes a file that goes with the step.
fn write_file(
    mounts: &mut StepMounts,
    directory: PathBuf,
    content: &[u8],
    mode: u32,
) -> Result<PathBuf, Problem> {
    let path = directory.join("file");
    std::fs::write(&path, content).map_err(io_problem("write", &path))?;
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(&path, permissions).map_err(io_problem("prepare", &path))?;
    mounts.files.push(path.clone());
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
