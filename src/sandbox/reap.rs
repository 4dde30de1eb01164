//! Ending what a step leaves behind.
//!
//! Where a step has no pid namespace, everything that it starts stays below the process that watches over it, however often it
//! forks and whatever sessions it makes: the watcher, kiln and its keeper are each a child subreaper, so an orphan is
//! adopted by whichever of them is left, and killed there as long as there are any.
//!
//! kiln and the keeper have other children, too. A step is started in a session of its own, and no process can ever enter
//! an existing session: children in kiln's session are kiln's, and all others came from a step. What a step does to its
//! capabilities, names or groups changes nothing about that.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, wait, waitpid,
};
use rustix::thread::CapabilitySet;

use super::process::mark;
use super::task::Exit;

/// How long fewer and fewer processes have to be left of those that are killed. One in the middle of a read from a dead disk
/// may take any time.
const DEATH: Duration = Duration::from_secs(10);

/// Pause between two looks at what was killed.
const PAUSE: Duration = Duration::from_micros(200);

/// As much of a list of children is read at a time.
const LIST_BYTES: usize = 16 << 10;

/// That no process of any step is left, which only who has ended them all knows.
#[derive(Debug)]
pub(super) struct NobodyLeft(());

#[cfg(test)]
impl NobodyLeft {
    /// For tests that run no step.
    pub(super) fn in_a_test() -> Self {
        Self(())
    }
}

/// The children of this process, as long as it has one thread, by a list that is opened before there is a step: that can take
/// descriptors away from whoever watches over it (prlimit(2)), and nobody else shall have to end what is left.
#[derive(Debug)]
pub(super) struct Children(Option<File>);

impl Children {
    /// Opens the list.
    pub(super) fn open() -> io::Result<Self> {
        match File::open("/proc/thread-self/children") {
            Ok(list) => Ok(Self(Some(list))),
            Err(error) if is_gone(&error) => Ok(Self(None)),
            Err(error) => Err(error),
        }
    }

    fn now(&self) -> io::Result<Vec<Pid>> {
        let Some(list) = &self.0 else { return children_by_parent() };
        let mut text = Vec::new();
        let mut buffer = vec![0; LIST_BYTES];
        loop {
            match list.read_at(&mut buffer, text.len() as u64)? {
                0 => return Ok(pids(&String::from_utf8_lossy(&text)).collect()),
                length => text.extend_from_slice(&buffer[..length]),
            }
        }
    }
}

/// Has this process get errors instead of its end where a step has limited the size of its files or its time (prlimit(2)), as
/// far as there is an error for it.
pub(super) fn outlive_limits() -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(nix::sys::signal::SIGXFSZ);
    signals.add(nix::sys::signal::SIGXCPU);
    Ok(signals.thread_block()?)
}

/// Waits for one child to end.
pub(super) fn wait_for(pid: Pid) -> io::Result<Exit> {
    loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => {
                if let Some(exit) = exit_of(status) {
                    return Ok(exit);
                }
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Collects `pid` if it has ended, and every other child that has.
pub(super) fn collect(pid: Pid) -> io::Result<Option<Exit>> {
    let mut found = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((ended, status))) if ended == pid => found = exit_of(status).or(found),
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(found),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Kills the children of this process, which has one thread, and those they leave, until there are none.
pub(super) fn kill_all_children(children: &Children) -> io::Result<NobodyLeft> {
    until_none(|found| {
        kill_trees(children.now()?, found);
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return Ok(true),
                Err(rustix::io::Errno::CHILD) => return Ok(!found.is_empty()),
                Err(errno) => return Err(errno.into()),
            }
        }
    })
}

/// Kills the children of this process that came from a step which began at `since`, and those they leave, until there are
/// none. No process that watches over a step may be at work.
pub(super) fn kill_strays(since: u64) -> io::Result<NobodyLeft> {
    kill_strays_among(children, since)
}

fn kill_strays_among(children: impl Fn() -> io::Result<Vec<Pid>>, since: u64) -> io::Result<NobodyLeft> {
    until_none(|found| {
        let strays = strays(children()?, since)?;
        kill_trees(strays.clone(), found);
        for stray in &strays {
            let _ = waitpid(Some(*stray), WaitOptions::NOHANG);
        }
        Ok(!strays.is_empty())
    })
}

/// Ends all children of this process, which has one thread: those that came from a step are killed, and kiln's own, the process
/// that watches over a step, may put things back first, for as long as `patience`.
pub(super) fn end_all(children: &Children, patience: Duration) -> io::Result<NobodyLeft> {
    let begin = Instant::now();
    loop {
        let nobody_left = kill_strays_among(|| children.now(), 0)?;
        match wait(WaitOptions::NOHANG) {
            Err(rustix::io::Errno::CHILD) => return Ok(nobody_left),
            Ok(None) if begin.elapsed() > patience => return kill_all_children(children),
            Ok(None) => std::thread::sleep(PAUSE),
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// How often in a row nobody is found before orphans count as ended: one that is always another process, by forking and
/// exiting, is missed by most looks through /proc.
const EMPTY_LOOKS: u32 = 100;

/// Kills what a step left behind that outlived kiln, its keeper and the watcher, which were killed all at once: whatever is in
/// this container, in no session of its first process or of kiln, and has lost for good what steps have to do without
/// ([`mark`]). Who has adopted it, what it made of its root and when it began are no matter.
///
/// Where the container has none such, this is orphans of the container's first process, and what they have
/// started, that are younger than the step, which began at `since`. An error says that there is an older one, which may be the
/// job's or the step's, for the step could write that time; or one that cannot be caught: it is another process each time.
pub(super) fn kill_orphans(since: Option<u64>) -> io::Result<()> {
    let Some(first) = Process::read(Pid::INIT)? else { return Ok(()) };
    let hunt = Hunt { sessions: [first.session, session()?], here: Here::look()?, since };
    let (mut empty_looks, mut doubtful) = (0, None);
    let ended = until_none(|killed| {
        let escaped = hunt.kill_some(killed, &mut doubtful)?;
        empty_looks = if killed.is_empty() && !escaped { empty_looks + 1 } else { 0 };
        Ok(empty_looks < EMPTY_LOOKS)
    });
    ended.map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => {
            io::Error::other("what a step left running does not end; go on in a new container")
        }
        _ => error,
    })?;
    doubtful.map_or(Ok(()), |pid: Pid| {
        let pid = pid.as_raw_nonzero();
        Err(io::Error::other(format!(
            "process {pid} may be the job's, or what a step left running that says it is older; end it, or go on in a new container"
        )))
    })
}

/// Whom [`kill_orphans`] looks for.
struct Hunt {
    /// The job's, and kiln's.
    sessions: [i32; 2],
    here: Here,
    since: Option<u64>,
}

impl Hunt {
    /// Kills who is found; tells whether somebody ended before it was known whose it is, and who is left in doubt.
    fn kill_some(&self, killed: &mut HashSet<Pid>, doubtful: &mut Option<Pid>) -> io::Result<bool> {
        let me = rustix::process::getpid();
        let (mut unmarked, mut escaped) = (Vec::new(), false);
        let is_below = |process: &Process, killed: &HashSet<Pid>| {
            process.parent == 1 || Pid::from_raw(process.parent).is_some_and(|pid| killed.contains(&pid))
        };
        *doubtful = None;
        for pid in pids_of_all()? {
            let Some(process) = Process::read(pid)? else { continue };
            if pid == me || pid == Pid::INIT || process.has_ended || self.sessions.contains(&process.session)
            {
                continue;
            }
            match self.here.whose(pid) {
                // At once: it may be another process in a moment.
                Ok(Whose::Steps) => {
                    kill(pid)?;
                    killed.insert(pid);
                }
                Ok(Whose::Unmarked) => unmarked.push(process),
                Ok(Whose::Others) => {}
                Err(error) if is_gone(&error) => escaped |= is_below(&process, killed),
                Err(error) => return Err(error),
            }
        }
        let Some(since) = self.since else { return Ok(escaped) };
        while let Some(at) = unmarked.iter().position(|process| is_below(process, killed)) {
            let process = unmarked.swap_remove(at);
            if process.started < since {
                *doubtful = Some(process.pid);
            } else {
                kill(process.pid)?;
                killed.insert(process.pid);
            }
        }
        Ok(escaped)
    }
}

/// Sends a signal to the processes of kiln's in this container that are stopped, by a step maybe: those can neither go on nor end,
/// and keep what they have locked. They are known by their names: what they run they show to nobody.
pub(super) fn signal_stopped(signal: Signal) -> io::Result<()> {
    let here = Here::look()?;
    let kilns = processes()?.into_iter().filter(|process| process.is_stopped && process.is_named_like_kiln);
    for Process { pid, .. } in kilns {
        if Whereabouts::of(pid).is_ok_and(|there| there.groups == here.own.groups) {
            // It may have ended this moment.
            let _ = kill_process(pid, signal);
        }
    }
    Ok(())
}

/// Returns the session of this process; 0 if it began outside of the pid namespace.
fn session() -> io::Result<i32> {
    Ok(nix::unistd::getsid(None)?.as_raw())
}

/// Returns when this process was started, in clock ticks since the machine was.
pub(super) fn started() -> io::Result<u64> {
    let process = Process::read(rustix::process::getpid())?;
    Ok(process.ok_or(io::ErrorKind::NotFound)?.started)
}

/// Returns when a child was started.
pub(super) fn started_of(child: u32) -> io::Result<u64> {
    let pid = i32::try_from(child).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(Process::read(pid)?.ok_or(io::ErrorKind::NotFound)?.started)
}

/// Kills again and again until `kill_some`, which adds what it found, tells that there is nobody: as long as fewer and fewer
/// are found.
fn until_none(mut kill_some: impl FnMut(&mut HashSet<Pid>) -> io::Result<bool>) -> io::Result<NobodyLeft> {
    let (mut before, mut found) = (HashSet::new(), HashSet::new());
    let (mut least, mut progress) = (usize::MAX, Instant::now());
    while kill_some(&mut found)? {
        if !found.is_empty() && found.len() < least {
            (least, progress) = (found.len(), Instant::now());
        }
        if progress.elapsed() > DEATH {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "processes of a step do not end"));
        }
        // Who forks all the time is not given any.
        if found.is_subset(&before) {
            std::thread::sleep(PAUSE);
        }
        std::mem::swap(&mut before, &mut found);
        found.clear();
    }
    Ok(NobodyLeft(()))
}

/// Kills processes that came from a step and what is below them, each before its children are looked for: it has no more of them
/// from then on. With it goes its group, all at once; a group never has others than those of its leader's session.
fn kill_trees(mut roots: Vec<Pid>, found: &mut HashSet<Pid>) {
    while let Some(pid) = roots.pop() {
        if !found.insert(pid) {
            continue;
        }
        // What has ended meanwhile is no matter, and who cannot be killed is found again.
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = kill_process(pid, Signal::KILL);
        let number = pid.as_raw_nonzero();
        // Without descriptors it takes longer: what is below is adopted when this has ended.
        if let Ok(text) = std::fs::read_to_string(format!("/proc/{number}/task/{number}/children")) {
            roots.extend(pids(&text));
        }
    }
}

fn kill(pid: Pid) -> io::Result<()> {
    match kill_process(pid, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Returns those of this process's children that came from a step.
fn strays(children: Vec<Pid>, since: u64) -> io::Result<Vec<Pid>> {
    let own = session()?;
    let mut strays = Vec::new();
    for child in children {
        // By a call, and not from a file: there may be no descriptor for it.
        match nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(child.as_raw_nonzero().get()))) {
            Err(nix::errno::Errno::ESRCH) => continue,
            session if session?.as_raw() == own => continue,
            _ => {}
        }
        if since == 0 || Process::read(child)?.is_some_and(|process| process.started >= since) {
            strays.push(child);
        }
    }
    Ok(strays)
}

fn pids(text: &str) -> impl Iterator<Item = Pid> {
    text.split_ascii_whitespace().filter_map(|text| text.parse().ok().and_then(Pid::from_raw))
}

/// Returns the children of this process.
fn children() -> io::Result<Vec<Pid>> {
    let mut children = Vec::new();
    for thread in std::fs::read_dir("/proc/self/task")? {
        match std::fs::read_to_string(thread?.path().join("children")) {
            Ok(text) => children.extend(pids(&text)),
            // A thread that has just ended.
            Err(error) if is_gone(&error) && Path::new("/proc/thread-self/children").exists() => {}
            Err(error) if is_gone(&error) => return children_by_parent(),
            Err(error) => return Err(error),
        }
    }
    Ok(children)
}

/// The same on kernels that do not list children: by asking every process for its parent.
fn children_by_parent() -> io::Result<Vec<Pid>> {
    let me = rustix::process::getpid().as_raw_nonzero().get();
    Ok(processes()?.into_iter().filter(|process| process.parent == me).map(|process| process.pid).collect())
}

/// What proc_pid_stat(5) says of a process.
#[derive(Debug, Clone)]
struct Process {
    pid: Pid,
    /// Every thread of it: where only the first has ended, the process is called a zombie as well.
    has_ended: bool,
    is_stopped: bool,
    /// As kiln, and one that kiln has started, by the name that anybody can take.
    is_named_like_kiln: bool,
    parent: i32,
    session: i32,
    started: u64,
}

impl Process {
    /// `None` if there is none of this number.
    fn read(pid: Pid) -> io::Result<Option<Self>> {
        match std::fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())) {
            Ok(text) => Self::parse(pid, &text).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into()),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(pid: Pid, text: &[u8]) -> Option<Self> {
        // The name is whatever its owner likes, brackets and spaces and all.
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let fields: Vec<&str> =
            std::str::from_utf8(text.get(end + 2..)?).ok()?.split_ascii_whitespace().collect();
        let begin = text.iter().position(|byte| *byte == b'(')?;
        Some(Self {
            pid,
            is_stopped: *fields.first()? == "T",
            is_named_like_kiln: [&b"kiln"[..], b"exe"].contains(&text.get(begin + 1..end)?),
            has_ended: matches!(*fields.first()?, "Z" | "X") && fields.get(17)?.parse::<u32>().ok()? <= 1,
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

fn processes() -> io::Result<Vec<Process>> {
    pids_of_all()?.into_iter().filter_map(|pid| Process::read(pid).transpose()).collect()
}

fn pids_of_all() -> io::Result<Vec<Pid>> {
    numbers(Path::new("/proc"))
}

/// Returns the names of a directory of /proc that are numbers of processes or threads.
fn numbers(directory: &Path) -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        found.extend(name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw));
    }
    Ok(found)
}

/// Whose a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// It has the mark of a step's, which goes over to all it starts and cannot be put off.
    Steps,
    /// It is here, and may be a step's.
    Unmarked,
    /// It is the job's, or in another container.
    Others,
}

/// What /proc says of a thread that a step cannot change: its control groups only where it may write to those.
#[derive(Debug)]
struct Whereabouts {
    bounding: CapabilitySet,
    groups: String,
    /// `None` if it lets nobody look.
    mounts: Option<PathBuf>,
}

impl Whereabouts {
    /// Of any thread of a process; the first may have ended.
    fn of(pid: Pid) -> io::Result<Self> {
        let mut gone = io::ErrorKind::NotFound.into();
        for thread in numbers(&PathBuf::from(format!("/proc/{}/task", pid.as_raw_nonzero())))? {
            match Self::of_thread(Path::new(&format!(
                "/proc/{}/task/{}",
                pid.as_raw_nonzero(),
                thread.as_raw_nonzero()
            ))) {
                Err(error) if is_gone(&error) => gone = error,
                other => return other,
            }
        }
        Err(gone)
    }

    fn of_thread(at: &Path) -> io::Result<Self> {
        let mounts = match std::fs::read_link(at.join("ns/mnt")) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            other => Some(other?),
        };
        let status = std::fs::read(at.join("status"))?;
        let bounding = bounding(&status).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { bounding, groups: std::fs::read_to_string(at.join("cgroup"))?, mounts })
    }
}

/// Finds the bounding set in what proc_pid_status(5) says.
fn bounding(status: &[u8]) -> Option<CapabilitySet> {
    let mut lines = status.split(|byte| *byte == b'\n');
    let bits = lines.find_map(|line| line.strip_prefix(b"CapBnd:"))?.trim_ascii();
    let bits = u64::from_str_radix(std::str::from_utf8(bits).ok()?, 16).ok()?;
    Some(CapabilitySet::from_bits_retain(bits))
}

/// This container, as kiln sees it.
#[derive(Debug)]
struct Here {
    own: Whereabouts,
    /// Its first process is the container's: nobody else's are to be seen.
    is_alone: bool,
}

impl Here {
    fn look() -> io::Result<Self> {
        let own = Whereabouts::of(rustix::process::getpid())?;
        let is_alone = Whereabouts::of(Pid::INIT)?.mounts == own.mounts;
        Ok(Self { own, is_alone })
    }

    fn whose(&self, pid: Pid) -> io::Result<Whose> {
        Ok(self.judge(&Whereabouts::of(pid)?))
    }

    /// Who is here has kiln's control groups, which also tell a machine's services from each other, and its mounts.
    fn judge(&self, of: &Whereabouts) -> Whose {
        let own = &self.own;
        // In a user namespace of its own a process has all capabilities; so it may have left the mounts, too.
        let has_more = !own.bounding.contains(of.bounding);
        let mark = mark(own.bounding);
        let is_telling = !mark.is_empty() && own.bounding.contains(CapabilitySet::SETPCAP);
        let is_marked = is_telling && !of.bounding.contains(mark);
        let has_left = has_more && self.is_alone;
        let is_here = of.groups == own.groups && (of.mounts.is_none() || of.mounts == own.mounts || has_left);
        match is_here {
            false => Whose::Others,
            _ if is_marked && (of.mounts.is_some() || self.is_alone) => Whose::Steps,
            _ if is_telling && !is_marked && !has_more => Whose::Others,
            _ => Whose::Unmarked,
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

fn exit_of(status: WaitStatus) -> Option<Exit> {
    status.exit_status().map(Exit::Code).or_else(|| status.terminating_signal().map(Exit::Signal))
}

#[cfg(test)]
mod tests {
    use super::super::process::DEFAULT_CAPABILITIES;
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let text = b"7 (a) R 1) (b) S 5 7 6 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        let process = Process::parse(Pid::INIT, text).unwrap();
        assert_eq!((process.parent, process.session, process.started), (5, 6, 4711));
        assert!(!process.has_ended);
    }

    #[test]
    fn who_is_stopped_is_known() {
        let parse = |text: &str| Process::parse(Pid::INIT, text.as_bytes()).unwrap();
        let rest = "5 7 6 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        let told = |text: String| (parse(&text).is_stopped, parse(&text).is_named_like_kiln);
        assert_eq!(told(format!("7 (exe) T {rest}")), (true, true));
        assert_eq!(told(format!("7 (kiln) S {rest}")), (false, true));
        assert_eq!(told(format!("7 (a (kiln) T) S {rest}")), (false, false));
    }

    #[test]
    fn a_process_has_ended_when_all_of_its_threads_have() {
        let ended = |state: &str, threads: u32| {
            let text = format!("7 (a) {state} 5 7 6 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 {threads} 0 4711 9 9");
            Process::parse(Pid::INIT, text.as_bytes()).unwrap().has_ended
        };
        assert_eq!([ended("Z", 1), ended("Z", 2), ended("X", 0), ended("S", 1)], [true, false, true, false]);
    }

    #[test]
    fn who_came_from_a_step_is_told_by_what_it_cannot_put_off() {
        let (all, docker) = (CapabilitySet::all(), DEFAULT_CAPABILITIES);
        let step = docker.difference(mark(docker));
        let of = |bounding, groups: &str, mounts: &str| Whereabouts {
            bounding,
            groups: groups.to_owned(),
            mounts: (!mounts.is_empty()).then(|| mounts.into()),
        };
        let (own, below, beside) = ("0::/a\n", "0::/a/b\n", "0::/../c\n");
        let judge = |own_bounding, is_alone, other| {
            Here { own: of(own_bounding, own, "mnt:1"), is_alone }.judge(&other)
        };
        use Whose::{Others, Steps, Unmarked};
        for (bounding, groups, mounts, alone, shared) in [
            (step, own, "mnt:1", Steps, Steps),
            // A service of a container that has them.
            (CapabilitySet::empty(), beside, "mnt:1", Others, Others),
            (step, own, "", Steps, Unmarked),
            (step, below, "", Others, Others),
            // A sidecar with fewer capabilities.
            (step, beside, "", Others, Others),
            (step, beside, "mnt:2", Others, Others),
            // The job's own.
            (docker, own, "mnt:1", Others, Others),
            (docker, own, "", Others, Others),
            // By way of a user namespace, or the machine's.
            (all, own, "mnt:2", Unmarked, Others),
            (all, own, "mnt:1", Unmarked, Unmarked),
            (all, beside, "mnt:2", Others, Others),
        ] {
            let found = [true, false].map(|is_alone| judge(docker, is_alone, of(bounding, groups, mounts)));
            assert_eq!(found, [alone, shared], "{bounding:?} {groups} {mounts}");
        }
        // Where the container lacks the first mark, as podman's do, it is the next.
        assert_eq!(judge(step, true, of(step, own, "mnt:1")), Others);
        assert_eq!(judge(step, true, of(step.difference(mark(step)), own, "mnt:1")), Steps);
        // Where kiln has no more than a step nothing tells.
        let few = CapabilitySet::CHOWN | CapabilitySet::SETPCAP;
        assert_eq!(judge(few, true, of(few, own, "mnt:1")), Unmarked);
        assert_eq!(judge(few, true, of(few, beside, "mnt:1")), Others);
    }

    #[test]
    fn only_children_of_other_sessions_are_strays() {
        let start =
            |program: &str| std::process::Command::new(program).args(["sleep", "60"]).spawn().unwrap();
        let (mut own, mut other) = (start("env"), start("setsid"));
        // It takes its session a moment after it was started.
        let begin = Instant::now();
        while strays(children().unwrap(), 0).unwrap().is_empty() && begin.elapsed() < DEATH {
            std::thread::sleep(PAUSE);
        }
        let pid = i32::try_from(other.id()).ok().and_then(Pid::from_raw).unwrap();
        assert!(strays(children().unwrap(), 0).unwrap().contains(&pid));
        assert!(!strays(children().unwrap(), u64::MAX).unwrap().contains(&pid));
        assert!(own.try_wait().unwrap().is_none());
        own.kill().unwrap();
        other.kill().unwrap();
        own.wait().unwrap();
        other.wait().unwrap();
    }
}
