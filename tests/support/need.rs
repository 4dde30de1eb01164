//! What a test needs of the machine, and what happens when it is not there.

use std::env;
use std::path::Path;
use std::process::Command;

/// Something a test cannot do without.
pub(crate) enum Need {
    /// A program on the PATH.
    Program(&'static str),
    /// A module of Python's.
    PythonModule(&'static str),
    /// The small base image and the registry it is served from.
    Busybox,
    /// The Debian base image: what `Busybox` needs and mmdebstrap.
    Debian,
    /// User id 0 with the right to mount.
    Root,
}

pub(crate) use Need::{Busybox, Debian, Program, PythonModule, Root};

/// What `tools/base-image` and the registry need.
const IMAGE_PROGRAMS: [&str; 4] = ["docker-registry", "skopeo", "umoci", "busybox"];

/// Says what is missing. With `KILN_TEST_REQUIRE=all` a missing need is a failure of the test.
pub(crate) fn check(needs: &[Need]) -> Result<(), String> {
    let missing: Vec<String> = needs.iter().filter_map(missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join(", ");
    let required = env::var("KILN_TEST_REQUIRE").is_ok_and(|value| value == "all");
    assert!(!required, "KILN_TEST_REQUIRE=all, and this machine lacks: {missing}");
    Err(missing)
}

fn missing(need: &Need) -> Option<String> {
    match need {
        Program(name) => find(name).is_none().then(|| format!("the program `{name}`")),
        PythonModule(name) => {
            let found = Command::new("python3").args(["-c", &format!("import {name}")]).output();
            (!found.is_ok_and(|found| found.status.success())).then(|| format!("Python's module `{name}`"))
        }
        Busybox => IMAGE_PROGRAMS.iter().find_map(|name| missing(&Program(name))),
        Debian => missing(&Busybox).or_else(|| missing(&Program("mmdebstrap"))).or_else(|| missing(&Root)),
        Root => (!can_mount()).then(|| "root with the right to mount".to_owned()),
    }
}

/// Whether a mount works here: user id 0 alone does not say.
fn can_mount() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or("0").trim();
    let sys_admin = u64::from_str_radix(effective, 16).is_ok_and(|bits| bits & (1 << 21) != 0);
    sys_admin && status.lines().any(|line| line.starts_with("Uid:\t0\t0\t"))
}

/// The full path of a program; Debian's administrator programs are found without `sbin` on the PATH, too.
pub(crate) fn find(program: &str) -> Option<String> {
    let path = env::var("PATH").unwrap_or_default();
    let places = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/bin"]);
    places.map(|place| format!("{place}/{program}")).find(|candidate| Path::new(candidate).is_file())
}
