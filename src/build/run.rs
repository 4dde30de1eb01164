//! `RUN`: a process in the stage's files, and the layer of what it changed.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::Problem;
use super::mounts::StepMounts;
use super::schedule::Turn;
use super::stage::Stage;
use super::user::{ExecUser, exec_user};
use super::{Build, Entitlement, NetworkMode};
use crate::dockerfile::{Run, RunScript, history};
use crate::event::{Event, OutputStream};
use crate::sandbox::{DEFAULT_HOSTNAME, Ended, Exit, Network, Occupation, Task, User};
use crate::tree::RootDir;

/// How many of the last lines a failed step wrote go into its error.
const LAST_LINES: usize = 10;

/// Longest line kept for an error, in bytes.
const LINE_BYTES_MAX: usize = 1024;

impl Build<'_> {
    pub(super) fn run_step(&self, stage: &mut Stage, run: &Run) -> Result<(), Problem> {
        refuse_devices(run)?;
        let insecure = self.security(run)?;
        let network = self.network(run)?;
        if let Some(refusal) = self.services.launch.refusal() {
            // Without privileges the files of the stage may not even be written.
            return Err(refusal.into());
        }
        let argv = stage.run_argv(run)?;
        let Ready { mut mounts, root, user, _turn, occupation } = self.make_ready(stage, run)?;
        let task = Task {
            root: root.path().to_path_buf(),
            argv: argv.iter().map(OsString::from).collect(),
            env: self.environment(stage, &user, &mounts),
            cwd: super::copy::clean(stage.working_dir(), false).into(),
            user: User { uid: user.uid, gid: user.gid, groups: user.groups.clone() },
            hostname: self.build_arg("BUILDKIT_SANDBOX_HOSTNAME").unwrap_or(DEFAULT_HOSTNAME).to_owned(),
            mounts: mounts.take(),
            network,
            insecure,
            hosts: self.request.add_hosts.clone(),
            dns: None,
            shm_size_bytes: self.request.shm_size_bytes,
            ulimits: self.request.ulimits.clone(),
            cancel: self.services.cancel.clone(),
        };
        let (Ended { exit, hidden, still }, last_output) = self.run_task(stage, &task)?;
        stage.hidden = hidden;
        let absent = std::mem::take(&mut mounts.absent);
        drop(mounts);
        if exit.code() != 0 {
            return Err(process_failed(&argv, exit, last_output, absent));
        }
        self.seal(stage, occupation, &still)?;
        stage.record_run(&argv);
        Ok(())
    }

    /// Makes everything ready for a step, and waits for its turn. Whatever another step could have changed meanwhile is
    /// made ready anew.
    fn make_ready(&self, stage: &mut Stage, run: &Run) -> Result<Ready<'_>, Problem> {
        let ground = &self.services.ground;
        let specs = stage.mount_specs(run)?;
        loop {
            let steps = ground.steps();
            let roots = self.mount_roots(stage, &specs)?;
            let turn = self.schedule.turn();
            let mut mounts = self.step_mounts(stage, &specs, roots)?;
            if let RunScript::File { name, body } = run.script() {
                self.script_mount(&mut mounts, &script_path(&name), &body)?;
            }
            let root = stage.tree.root()?;
            let user = exec_user(&stage.config.config.user, &root)?;
            if let Some(occupation) = ground.occupy(steps) {
                return Ok(Ready { mounts, root, user, _turn: turn, occupation });
            }
        }
    }

    /// Turns what the current step changed in the tree into a layer. No other step has changed anything while `kept_off`
    /// lived, which is until all changes are known. The step did not change what is `still` there.
    pub(super) fn seal<T>(&self, stage: &mut Stage, kept_off: T, still: &[PathBuf]) -> Result<(), Problem> {
        let rootfs = stage.tree.worked_on()?;
        let must_drain = rootfs.must_drain();
        let changes = rootfs.seal_step(&self.request.ignore_paths, still)?;
        drop(kept_off);
        if let Some(layer) = self.push_layer(stage, changes)
            && must_drain
        {
            layer.wait()?;
            // The files were read when others may have run steps already.
            stage.tree.worked_on()?.check()?;
        }
        Ok(())
    }

    fn run_task(&self, stage: &Stage, task: &Task) -> Result<(Ended, Vec<String>), Problem> {
        let mut tail = Tail::default();
        let reporter = &self.services.reporter;
        let _running = Running::begin(&self.services.steps_running);
        let ended = self.services.launch.run(task, &mut |stream: OutputStream, bytes: &[u8]| {
            tail.push(bytes);
            reporter.report(Event::StepOutput { step: stage.step.clone(), stream, bytes: bytes.to_vec() });
        });
        match ended {
            Ok(ended) => Ok((ended, tail.lines())),
            Err(crate::sandbox::SandboxError::Cancelled) => Err(Problem::Cancelled),
            Err(error) => match error.exit_code() {
                // It was never started: the code is the one a shell has for that.
                Some(code) => Err(Problem::NotStarted { command: command_line(task), code, reason: error }),
                None => Err(error.into()),
            },
        }
    }

    pub(super) fn build_arg(&self, name: &str) -> Option<&str> {
        self.plan.build_args.get(name).map(String::as_str)
    }

    fn environment(&self, stage: &Stage, user: &ExecUser, mounts: &StepMounts) -> Vec<(OsString, OsString)> {
        let mut env = stage.scope.environment(&self.plan.build_args);
        env.extend(mounts.env.iter().cloned());
        if !env.iter().any(|(name, _)| name == "HOME") {
            env.push(("HOME".to_owned(), user.home.clone()));
        }
        env.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    pub(super) fn network(&self, run: &Run) -> Result<Network, Problem> {
        let mode = match run.network.as_deref() {
            None => self.request.network,
            Some("default") => NetworkMode::Default,
            Some("none") => NetworkMode::None,
            Some("host") if self.request.allow.contains(&Entitlement::NetworkHost) => NetworkMode::Host,
            Some("host") => return Err(Problem::NotAllowed { entitlement: "network.host" }),
            Some(other) => {
                return Err(Problem::Instruction { message: format!("invalid network mode {other:?}") });
            }
        };
        Ok(match mode {
            NetworkMode::Default => Network::Default,
            NetworkMode::None => Network::None,
            NetworkMode::Host => Network::Host,
        })
    }

    pub(super) fn security(&self, run: &Run) -> Result<bool, Problem> {
        match run.security.as_deref() {
            None | Some("sandbox") => Ok(false),
            Some("insecure") if self.request.allow.contains(&Entitlement::SecurityInsecure) => Ok(true),
            Some("insecure") => Err(Problem::NotAllowed { entitlement: "security.insecure" }),
            Some(other) => Err(Problem::Instruction { message: format!("security {other:?} is not valid") }),
        }
    }
}

/// A step that can be started.
struct Ready<'a> {
    mounts: StepMounts,
    root: Arc<RootDir>,
    user: ExecUser,
    _turn: Turn<'a>,
    occupation: Occupation,
}

/// Refuses what kiln does not have.
pub(super) fn refuse_devices(run: &Run) -> Result<(), Problem> {
    match run.devices.first() {
        None => Ok(()),
        Some(device) => Err(Problem::Unsupported {
            what: format!("`RUN --device={device}`"),
            hint: "kiln has no CDI devices; run the build where the step needs none".to_owned(),
        }),
    }
}

fn command_line(task: &Task) -> String {
    let words: Vec<_> = task.argv.iter().map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

impl Stage {
    /// Returns what a `RUN` starts.
    pub(super) fn run_argv(&self, run: &Run) -> Result<Vec<String>, Problem> {
        let argv = match run.script() {
            RunScript::Exec(argv) => argv,
            RunScript::Shell(text) => self.shell_argv(&text),
            // The shell starts the script, as BuildKit has it; the script's first line says who reads it.
            RunScript::File { name, .. } => self.shell_argv(&script_path(&name)),
        };
        if argv.is_empty() {
            return Err(Problem::Instruction { message: "arguments are required".to_owned() });
        }
        Ok(argv)
    }

    /// Adds a `RUN` to the history.
    pub(super) fn record_run(&mut self, argv: &[String]) {
        let created_by = history::run(&self.scope.history_arguments(), argv);
        self.record(created_by, true);
    }
}

/// Returns where the script of a lone heredoc is shown to its step.
fn script_path(name: &str) -> String {
    format!("/dev/pipes/{name}")
}

fn process_failed(argv: &[String], exit: Exit, last_output: Vec<String>, absent: Vec<String>) -> Problem {
    let ending = match exit {
        Exit::Code(code) => format!("exit code: {code}"),
        Exit::Signal(signal) => format!("exit code: {} (killed by signal {signal})", 128 + signal),
    };
    Problem::Process { command: argv.join(" "), ending, code: exit.code(), last_output, absent }
}

/// Counts a step for as long as it runs.
struct Running<'a>(&'a AtomicUsize);

impl<'a> Running<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The last lines of an output, bounded.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    line: Vec<u8>,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_BYTES_MAX.saturating_sub(self.line.len());
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        self.line.clear();
        if self.lines.len() == LAST_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn lines(mut self) -> Vec<String> {
        if !self.line.is_empty() {
            self.end_line();
        }
        self.lines.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_the_last_lines() {
        let mut tail = Tail::default();
        for n in 0..20 {
            tail.push(format!("line {n}\nrest").as_bytes());
            tail.push(b" of it\n");
        }
        tail.push(b"unfinished");
        let lines = tail.lines();
        assert_eq!(lines.len(), LAST_LINES);
        assert_eq!(lines[LAST_LINES - 1], "unfinished");
        assert_eq!(lines[LAST_LINES - 2], "rest of it");
    }

    #[test]
    fn a_failure_is_told_in_buildkits_words() {
        let argv = ["/bin/sh".to_owned(), "-c".to_owned(), "exit 3".to_owned()];
        let text = process_failed(&argv, Exit::Code(3), Vec::new(), Vec::new()).to_string();
        assert_eq!(text, "process \"/bin/sh -c exit 3\" did not complete successfully: exit code: 3");
    }
}
