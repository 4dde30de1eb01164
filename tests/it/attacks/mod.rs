//! Attacks: what a hostile step, image, cache or registry tries, in every kind of container that steps run in.
//!
//! A row of `docs/security.md` is a test here. Races are short by default; `KILN_ATTACK_ROUNDS` makes them long
//! (`tools/attacks`).

mod caches;
mod credentials;
mod dev;
mod git;
mod hosts;
mod integrity;
mod kept;
mod mounts;
mod planted;
mod processes;
mod resources;
mod store;
mod volumes;

use std::path::Path;
use std::process::Command;

use crate::support::container::{as_kind, debug_image_as_kind, plain_user};
use crate::support::{Context, Outcome, run};

/// Where kiln runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A container of a kind: in place in A and C, in namespaces in the others.
    Kind(&'static str),
    /// Kind A in somebody else's image: in a chroot.
    Chroot,
    /// A plain user of this machine with subordinate ids.
    PlainUser,
}

impl Place {
    /// All that the attacks are tried in.
    pub(super) const ALL: [Self; 8] = [
        Self::Kind("A"),
        Self::Kind("B"),
        Self::Kind("C"),
        Self::Kind("E"),
        Self::Kind("F"),
        Self::Kind("P"),
        Self::Chroot,
        Self::PlainUser,
    ];

    /// Runs a shell script: the context is `$CONTEXT`, a directory that outlives the run `$OUT`, kiln on the PATH, and
    /// `$BUILD` the start of a build's command line.
    pub(super) fn run(self, context: &Path, out: &Path, volumes: &[String], script: &str) -> Outcome {
        let build = "BUILD='kiln build --progress=plain --build-arg=SOURCE_DATE_EPOCH=1700000000";
        let contained = |root: &str| format!("CONTEXT=/context OUT=/out; {build}{root}'; {script}");
        match self {
            Self::Kind(kind @ ("A" | "C")) => {
                debug_image_as_kind(kind, context, out, volumes, &contained(""))
            }
            Self::Kind(kind) => {
                assert!(volumes.is_empty(), "kind {kind} takes no volumes here");
                as_kind(kind, context, out, &contained(" --root=/var/kiln"))
            }
            Self::Chroot => as_kind("A", context, out, &contained(" --root=/var/kiln")),
            Self::PlainUser => {
                for path in [context, out] {
                    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
                    std::fs::set_permissions(path, everybody).unwrap();
                }
                let script = format!("CONTEXT=$1 OUT=$2; {build}'; {script}");
                plain_user(true, &script, &[context.to_str().unwrap(), out.to_str().unwrap()])
            }
        }
    }
}

/// Compiles a program of a hostile step, `NAME.c` here, into a context; it runs on any base.
pub(super) fn with_program(context: Context, name: &str) -> Context {
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/attacks").join(name).with_extension("c");
    run(Command::new("cc").args(["-static", "-O", "-o"]).arg(context.at(name)).arg(source)).ok();
    context
}

/// How many rounds a race has: `short`, or what `KILN_ATTACK_ROUNDS` says.
pub(super) fn rounds(short: u32) -> u32 {
    std::env::var("KILN_ATTACK_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(short)
}
