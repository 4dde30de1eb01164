//! What `kiln doctor` says about this machine: every probe, and what a build would choose.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::enter::{self, Mapping};
use super::probe::{Context, Outcome, Tried, directory, probe};
use super::{Isolation, Probes, landlock};

/// What `kiln doctor` shows of one probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Name of the probe: `mount namespace`, `overlay`, …
    pub name: String,
    /// Whether it worked.
    pub works: bool,
    /// What the system said if it did not: `EPERM (operation not permitted) at mount tmpfs`.
    pub detail: String,
    /// What it means for a build, in a sentence.
    pub meaning: String,
}

/// What `kiln doctor` shows: every probe, and what would be chosen.
pub fn doctor(work_dir: Option<&Path>) -> Vec<Finding> {
    let probes = probe(work_dir);
    let finding = |name: &str, outcome: &Outcome, yes: &str, no: &str| Finding {
        name: name.to_owned(),
        works: outcome.works(),
        detail: outcome.problem().unwrap_or_default(),
        meaning: if outcome.works() { yes } else { no }.to_owned(),
    };
    let (own, user) = (&probes.own, &probes.user);
    let paths = Outcome::from_result(use_openat2());
    let mut findings = vec![
        finding(
            "safe paths",
            &paths,
            "files of an image are reached without leaving it",
            "the same, but slower, one name at a time: the system call openat2 takes Linux 5.6 and a container engine \
             whose filter knows it",
        ),
        finding(
            "mount namespace",
            &own.mount_namespace,
            "kiln can keep commands apart with its own privileges",
            "kiln needs a user namespace, or does without mounts",
        ),
        finding(
            "user namespace",
            &user.mount_namespace,
            "kiln can keep commands apart without any privilege",
            user_namespace_hint(),
        ),
        ids_finding(user),
    ];
    let context = if own.mount_namespace.works() { own } else { user };
    findings.extend([
        finding(
            "fresh /proc",
            &context.fresh_proc,
            "commands get a pid namespace",
            "commands see the processes around them, because parts of the outer /proc are masked",
        ),
        finding(
            "pivot_root",
            &context.pivot_root,
            "the root of a command is its own",
            "the root of a command cannot be changed",
        ),
        finding(
            "network namespace",
            &context.network_namespace,
            "`RUN --network=none` works",
            "`RUN --network=none` is a filter that forbids all sockets but Unix ones, where commands run without namespaces",
        ),
    ]);
    if work_dir.is_some() {
        let overlay = if context.overlay.works() { &context.overlay } else { &context.overlay_userxattr };
        findings.push(finding(
            "overlay",
            overlay,
            "a step costs what it changes, not what the image weighs",
            "stages are plain directories: put kiln's work directory on a volume or tmpfs for overlays",
        ));
        findings.push(finding(
            "device nodes",
            &context.device_nodes,
            "base images with device nodes can be unpacked",
            "device nodes in base images are left out, and `mknod` of them fails in commands",
        ));
    }
    if work_dir.is_some() {
        findings.push(finding(
            "disks",
            &own.disks_kept_away,
            "a device cgroup keeps commands off this machine's disks even without namespaces",
            "no device cgroup: without namespaces, where nothing else keeps them off this machine's disks, commands \
             cannot make device nodes and do not see those of their image",
        ));
    }
    findings.push(finding(
        "chroot",
        &probes.chroot,
        "commands can be run without namespaces, if need be; only lost capabilities keep them in their root: not for \
         Dockerfiles of people you do not trust",
        "without namespaces no command can be run",
    ));
    findings.push(signals_finding());
    findings.push(choice_finding(&probes));
    findings
}

/// Says what forbids user namespaces, as far as the system tells.
fn user_namespace_hint() -> &'static str {
    let is = |name: &str, value: &str| {
        std::fs::read_to_string(format!("/proc/sys/{name}")).is_ok_and(|text| text.trim() == value)
    };
    if is("user/max_user_namespaces", "0") {
        "user namespaces are switched off on this machine: sysctl user.max_user_namespaces"
    } else if is("kernel/unprivileged_userns_clone", "0") {
        "user namespaces are switched off on this machine: sysctl kernel.unprivileged_userns_clone=1"
    } else if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor takes the capabilities from user namespaces on this machine: a profile for kiln, or sysctl \
         kernel.apparmor_restrict_unprivileged_userns=0"
    } else {
        "no mounts without privileges: a container's seccomp or AppArmor profile forbids user namespaces"
    }
}

fn use_openat2() -> Tried {
    use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
    let slash = directory("/").map_err(|error| ("open `/`", error))?;
    openat2(slash, "proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)
        .map(drop)
        .map_err(|errno| ("openat2", errno.into()))
}

fn ids_finding(user: &Context) -> Finding {
    let (works, meaning) = match user.mapping {
        Some(Mapping::Identity) => (true, "all ids that kiln has exist in its user namespace"),
        Some(Mapping::SubordinateIds) => (true, "the ranges of /etc/subuid and /etc/subgid are used"),
        Some(Mapping::SingleId) => {
            (false, "only one id exists: owners of files are lost; newuidmap and /etc/subuid would help")
        }
        None => (false, "no user namespace, no ids in it"),
    };
    Finding { name: "user ids".to_owned(), works, detail: String::new(), meaning: meaning.to_owned() }
}

fn signals_finding() -> Finding {
    let works = landlock::is_there();
    let meaning = match works {
        true => {
            "where commands have no pid namespace they cannot signal kiln; without any namespaces only with `--hardened`"
        }
        false => {
            "where commands see kiln's processes they can kill them, which gains them nothing but a failed build; \
             `--hardened` needs Linux 6.12 with Landlock"
        }
    };
    Finding { name: "signal scope".to_owned(), works, detail: String::new(), meaning: meaning.to_owned() }
}

fn choice_finding(probes: &Probes) -> Finding {
    let (works, meaning) = match enter::choose(Isolation::Auto, probes) {
        Ok(chosen) => {
            let context =
                if chosen.kind == enter::Choice::UserNamespaces { &probes.user } else { &probes.own };
            let single_id = context.mapping == Some(Mapping::SingleId);
            let advice = enter::advice(chosen.kind, single_id, context.fresh_proc.works());
            let advice = advice.map(|advice| format!("; better: {advice}")).unwrap_or_default();
            (chosen.kind != enter::Choice::None, format!("{}{advice}", chosen.why))
        }
        Err(error) => (false, error.to_string()),
    };
    Finding { name: "isolation".to_owned(), works, detail: String::new(), meaning }
}
