//! Limits, and what else is inherited from kiln: a step that is root beside it can change them (`prlimit(2)`).
//!
//! A step begins with what kiln had before the first one, or it does not begin; and one that changed the limits of kiln or of
//! its keeper has failed. So no step runs under what another has set.

use std::io;

use rustix::process::{Resource, Rlimit, getpriority_process, getrlimit, setpriority_process, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

use super::SandboxError;
use super::wire::Failure;

/// The limits by the names docker's `--ulimit` has for them.
pub(super) const LIMITS: [(&str, Resource); 16] = [
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

/// How much a process is preferred when there is no memory.
const OOM_SCORE: &str = "oom_score_adj";

/// What steps are to inherit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Limits {
    /// In the order of [`LIMITS`], soft and hard.
    resources: Vec<(Option<u64>, Option<u64>)>,
    oom_score: String,
    nice: i32,
    cpus: Vec<usize>,
}

impl Limits {
    /// Notes those of this thread.
    pub(super) fn note() -> io::Result<Self> {
        let cpus = sched_getaffinity(None)?;
        Ok(Self {
            resources: LIMITS.iter().map(|(_, resource)| now(*resource)).collect(),
            oom_score: std::fs::read_to_string(format!("/proc/self/{OOM_SCORE}"))?,
            nice: getpriority_process(None)?,
            cpus: (0..CpuSet::MAX_CPU).filter(|cpu| cpus.is_set(*cpu)).collect(),
        })
    }

    /// Gives them to this process, which has one thread; `/proc` must be in its place.
    pub(super) fn take_on(&self) -> Result<(), Failure> {
        let failed = |name: &str, error: io::Error| {
            let text = format!("`{name}` cannot be for this step what it was for the first: {error}");
            Failure::Limited { what: text }
        };
        for ((name, resource), &(current, maximum)) in LIMITS.iter().zip(&self.resources) {
            if now(*resource) != (current, maximum) {
                setrlimit(*resource, Rlimit { current, maximum })
                    .map_err(|errno| failed(name, errno.into()))?;
            }
        }
        let oom_score = format!("/proc/self/{OOM_SCORE}");
        if std::fs::read_to_string(&oom_score).is_ok_and(|now| now != self.oom_score) {
            std::fs::write(&oom_score, &self.oom_score).map_err(|error| failed(OOM_SCORE, error))?;
        }
        if getpriority_process(None) != Ok(self.nice) {
            setpriority_process(None, self.nice).map_err(|errno| failed("nice", errno.into()))?;
        }
        let mut cpus = CpuSet::new();
        self.cpus.iter().for_each(|cpu| cpus.set(*cpu));
        // Those that the container has lost meanwhile are left out by the kernel.
        sched_setaffinity(None, &cpus).map_err(|errno| failed("cpus", errno.into()))
    }
}

fn now(resource: Resource) -> (Option<u64>, Option<u64>) {
    let limit = getrlimit(resource);
    (limit.current, limit.maximum)
}

/// The limits of kiln and its keeper before the first step, as the kernel tells them.
#[derive(Debug)]
pub(super) struct OfKiln(Vec<(u32, String)>);

impl OfKiln {
    /// Notes them; the keeper is kiln's parent.
    pub(super) fn note(has_keeper: bool) -> io::Result<Self> {
        let mut processes = vec![std::process::id()];
        processes.extend(has_keeper.then(std::os::unix::process::parent_id));
        processes.into_iter().map(|pid| Ok((pid, told(pid)?))).collect::<io::Result<_>>().map(Self)
    }

    /// An error if they are not what they were.
    pub(super) fn check(&self) -> Result<(), SandboxError> {
        for (pid, before) in &self.0 {
            // That the keeper is gone is noticed otherwise.
            let Ok(now) = told(*pid) else { continue };
            if let Some((_, now)) = before.lines().zip(now.lines()).find(|(before, now)| before != now) {
                let what = now.split("  ").next().unwrap_or_default();
                return Err(SandboxError::Limited { what: format!("`{what}` of process {pid}") });
            }
        }
        Ok(())
    }
}

fn told(pid: u32) -> io::Result<String> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let score = std::fs::read_to_string(format!("/proc/{pid}/{OOM_SCORE}"))?;
    Ok(format!("{limits}{OOM_SCORE}  {score}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_is_named() {
        let of_kiln = OfKiln::note(false).unwrap();
        of_kiln.check().unwrap();
        let other =
            OfKiln(vec![(std::process::id(), of_kiln.0[0].1.replacen("Max cpu time ", "Max cpu time X", 1))]);
        let error = other.check().unwrap_err().to_string();
        assert!(error.contains("`Max cpu time` of process"), "{error}");
        // What is as it should be needs no privilege.
        Limits::note().unwrap().take_on().unwrap();
    }
}
