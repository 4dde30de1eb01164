//! Without threads, memory or space: a clear error, and never a success.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Place;
use crate::support::container::RUNTIME;
use crate::support::need::{Busybox, Program, Root};
use crate::support::{Context, Kiln, Outcome, Registry, base, run};

/// Stages that run at once, and a layer that is large enough for threads of its own.
fn context() -> Context {
    let base = base::busybox();
    Context::on_busybox(&format!(
        "RUN echo made > /made\nFROM {base} AS side\n\
         RUN yes | dd of=/large bs=1M count=3 iflag=fullblock 2>/dev/null\nFROM {base}\nCOPY file /file\n\
         COPY --from=side /large /large\nCOPY --from=0 /made /made\nRUN cat /file /made > /read\n"
    ))
    .file("file", "content")
}

/// Runs kiln in a shell that has run `limit` before, with an empty store.
fn limited(kiln: &Kiln, limit: &str, output: &str, context: &Context) -> Outcome {
    let _ = fs::remove_dir_all(kiln.store());
    let arguments = ["--build-arg=SOURCE_DATE_EPOCH=1700000000", output];
    run(&mut shell(&kiln.build_command(context.path(), &arguments), limit, ""))
}

/// A command in a shell that has run `before`, with its output redirected.
fn shell(command: &Command, before: &str, redirection: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{before}\nexec \"$@\" {redirection}")).arg("sh");
    shell.arg(command.get_program()).args(command.get_args()).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

fn plain(arguments: &[&str]) -> Command {
    let mut command = Command::new(Kiln::program());
    command.args(arguments);
    command
}

/// A build ends with its image delivered, or with a message and none. (One that hangs fails in `run`.)
#[track_caller]
fn check_end(limit: &str, outcome: &Outcome, expected: &str, delivered: Option<&str>) {
    assert!(!outcome.stderr.contains("panicked"), "{limit}\n{outcome}");
    if outcome.code == Some(0) {
        assert_eq!((outcome.last_line(), delivered), (expected, Some(expected)), "{limit}\n{outcome}");
        return;
    }
    assert_eq!(delivered, None, "{limit}\n{outcome}");
    let told = ["error: ", "memory allocation of "].iter().any(|text| outcome.stderr.contains(text));
    assert!(told, "{limit}\n{outcome}");
    // A refused thread is no fault of kiln's.
    let is_fault = outcome.stderr.contains("internal error") && !limit.starts_with("ulimit -v");
    assert!(!is_fault, "{limit}\n{outcome}");
}

/// A control group that limits processes and threads, by either version of the interface.
struct Pids(PathBuf);

impl Pids {
    /// `None`, which `KILN_TEST_REQUIRE=all` forbids, where there is no such controller to write to.
    fn new(name: &str) -> Option<Self> {
        let first = Path::new("/sys/fs/cgroup/pids");
        let second = Path::new("/sys/fs/cgroup");
        let top = if first.is_dir() { first } else { second };
        let group = top.join(format!("kiln-test-{}-{name}", std::process::id()));
        if fs::create_dir(&group).is_ok() && group.join("pids.max").exists() {
            return Some(Self(group));
        }
        let _ = fs::remove_dir(&group);
        let required = std::env::var("KILN_TEST_REQUIRE").is_ok_and(|value| value == "all");
        assert!(!required, "KILN_TEST_REQUIRE=all, and this machine lacks a writable pids controller");
        None
    }

    /// The line of shell that puts it under a limit.
    fn limit(&self, most: usize) -> String {
        let group = self.0.display();
        format!("echo {most} > {group}/pids.max && echo $$ > {group}/cgroup.procs || exit 125")
    }
}

impl Drop for Pids {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// It panicked, or hung with records or layers that nobody wrote.
#[test]
fn a_pids_limit_is_an_error_or_makes_no_difference() {
    require!(Root, Busybox);
    let Some(pids) = Pids::new("host") else { return };
    let (kiln, context, registry) = (Kiln::new(), context(), Registry::shared());
    let repository = format!("attacks/pids-{}", std::process::id());
    let push =
        |tag: &str| format!("--output=type=registry,name={}", registry.image(&format!("{repository}:{tag}")));
    let expected = limited(&kiln, "", &push("all"), &context).ok().last_line().to_owned();
    let mut last = None;
    for most in (1..=14).chain([16, 20, 64]) {
        let (tag, limit) = (format!("at-{most}"), pids.limit(most));
        let outcome = limited(&kiln, &limit, &push(&tag), &context);
        let delivered = registry
            .tags(&repository)
            .contains(&tag)
            .then(|| registry.digest(&format!("{repository}:{tag}")));
        check_end(&limit, &outcome, &expected, delivered.as_deref());
        last = outcome.code;
    }
    assert_eq!(last, Some(0), "the largest limit is large enough");
}

/// A shell's function `limited LIMIT COMMAND...` for each way to limit, and what kiln never says then. (Libraries may panic
/// without memory, as the language aborts.)
const PIDS: &str = "never=internal; limited() { sh -c 'echo $0 > /dev/pids/pids.max; echo $$ > /dev/pids/cgroup.procs; exec \"$@\"' \"$@\"; }";
const PROCESSES: &str = "never=internal; limited() { n=$1; shift; prlimit --nproc=$n \"$@\"; }";
const MEMORY: &str = "never=panicked; limited() { sh -c 'ulimit -v ${0}0000; exec \"$@\"' \"$@\"; }";

/// In place, in a container's namespaces, and as a user whose processes are counted.
#[test]
fn limits_in_containers_are_errors_or_make_no_difference() {
    require!(Root, Busybox, Program(RUNTIME), Program("prlimit"));
    let pids = Pids::new("containers");
    let volume = pids.iter().map(|pids| format!("{}:/dev/pids", pids.0.display())).collect::<Vec<_>>();
    let mut cases = vec![
        (Place::PlainUser, Vec::new(), PROCESSES),
        (Place::Kind("A"), Vec::new(), MEMORY),
        (Place::Kind("B"), Vec::new(), MEMORY),
    ];
    // Root's processes are counted by control groups only.
    if pids.is_some() {
        cases.push((Place::Kind("A"), volume, PIDS));
    }
    let build = "$BUILD --no-cache --output=type=oci,tar=false,dest=$OUT";
    let script = format!(
        "{build}/all $CONTEXT > $OUT/digest || exit 9\n\
         for n in 1 2 3 4 5 6 8 10 12 14 18 40 400; do\n\
         limited $n kiln version > /dev/null 2>&1 || continue\n\
         limited $n {build}/$n $CONTEXT > $OUT/o 2> $OUT/e; code=$?; echo $n: $code; fail() {{ cat $OUT/e; exit $1; }}\n\
         if [ $code = 0 ]; then cmp $OUT/o $OUT/digest && [ -e $OUT/$n/index.json ] || fail 10\n\
         else [ ! -e $OUT/$n/index.json ] || fail 11; fi\n\
         ! grep -q -e panicked -e $never $OUT/e || fail 12\n\
         [ $code = 0 ] || grep -q -e 'error: ' -e 'memory allocation of' $OUT/e || fail 13\n\
         done; [ $code = 0 ] || fail 14"
    );
    for (place, volumes, limited) in cases {
        let (context, out) = (context(), tempfile::tempdir().unwrap());
        let script = format!("{limited}\n{script}");
        let outcome = place.run(context.path(), out.path(), &volumes, &script);
        assert_eq!(outcome.code, Some(0), "{place:?}\n{outcome}");
    }
}

#[test]
fn too_little_memory_is_an_error_or_makes_no_difference() {
    require!(Root, Busybox);
    let (kiln, context) = (Kiln::new(), context());
    let layout = |name: &str| kiln.scratch(name);
    let output = |name: &str| format!("--output=type=oci,tar=false,dest={}", layout(name).display());
    let expected = limited(&kiln, "", &output("all"), &context).ok().last_line().to_owned();
    for kib in [20_000, 40_000, 60_000, 80_000, 100_000, 120_000, 150_000, 200_000, 300_000, 500_000] {
        let (name, limit) = (format!("at-{kib}"), format!("ulimit -v {kib}"));
        // Below that the program itself finds no room.
        if run(&mut shell(&plain(&["version"]), &limit, "")).code != Some(0) {
            continue;
        }
        let outcome = limited(&kiln, &limit, &output(&name), &context);
        let is_there = layout(&name).join("index.json").exists();
        check_end(&limit, &outcome, &expected, is_there.then_some(expected.as_str()));
    }
}

/// Files of results where a step in place may have left a link or a pipe that nobody reads.
#[test]
fn results_are_written_through_no_link_and_wait_for_nobody() {
    let kiln = Kiln::new();
    let context = Context::new("FROM scratch\nCOPY file /\n").file("file", "content");
    let (job, link, fifo) = (kiln.scratch("job"), kiln.scratch("link"), kiln.scratch("fifo"));
    fs::write(&job, "the job's").unwrap();
    std::os::unix::fs::symlink(&job, &link).unwrap();
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for option in ["--iidfile", "--metadata-file"] {
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&job, &link).unwrap();
        kiln.build(&context, &[&format!("{option}={}", link.display())]).ok();
        assert!(fs::read_to_string(&link).unwrap().contains("sha256:"));
        assert_eq!(fs::read_to_string(&job).unwrap(), "the job's");
        kiln.build(&context, &[&format!("{option}={}", fifo.display())]).fails(1, &["cannot write", "fifo"]);
    }
}

/// Standard output and files that take nothing: the result is lost, and that is no success.
#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let kiln = Kiln::new();
    let context = Context::new("FROM scratch\nCOPY file /\n").file("file", "content");
    let layout = format!("--output=type=oci,tar=false,dest={}", kiln.scratch("layout").display());
    let full = [
        vec![layout.as_str(), "--iidfile=/dev/full"],
        vec![layout.as_str(), "--metadata-file=/dev/full"],
        vec!["--output=type=oci,dest=/dev/full"],
        vec!["--output=type=docker,dest=/dev/full"],
        vec!["--output=type=tar,dest=/dev/full"],
    ];
    for arguments in &full {
        kiln.build(&context, arguments).fails(1, &["error: cannot write"]);
    }
    let quiet = |arguments: &[&str]| kiln.build_command(context.path(), arguments);
    for command in [
        quiet(&[&layout]),
        quiet(&["--output=type=oci,dest=-"]),
        quiet(&["--output=type=docker,dest=-"]),
        plain(&["version"]),
        plain(&["--help"]),
        plain(&["executor", "version"]),
        plain(&["warmer", "--help"]),
    ] {
        run(&mut shell(&command, "", "> /dev/full")).fails(1, &["error: cannot write"]);
    }
    // A pipe that nobody reads any more.
    let program = shell(&quiet(&[&layout]), "", "");
    let mut piped = Command::new("sh");
    piped.args(["-c", "{ sleep 1; \"$@\"; echo code $? >&2; } | exec true", "sh"]).arg(program.get_program());
    piped.args(program.get_args()).env_clear();
    piped.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let outcome = run(&mut piped);
    assert!(outcome.stderr.contains("code 1") && outcome.stderr.contains("cannot write"), "{outcome}");
}

/// Builds with `$ROOT`, kiln's root, and `$OUT` on file systems that `prepare` mounts.
fn build_on(prepare: &str, kiln: &Kiln, context: &Context, arguments: &[&str]) -> Outcome {
    let build = kiln.build_command(context.path(), arguments);
    let (root, out) = (kiln.store(), kiln.scratch("out"));
    let script = format!(
        "set -e; ROOT={} OUT={}; mkdir -p $ROOT $OUT; {prepare}; exec \"$@\"",
        root.display(),
        out.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation=private", "sh", "-c", &script, "sh"]);
    run(command.arg(build.get_program()).args(build.get_args()))
}

#[test]
fn a_full_file_system_is_named() {
    require!(Busybox, Root);
    let context = Context::on_busybox("RUN echo ran > /ran\n").file("large", "x".repeat(4 << 20));
    let copies = Context::new("FROM scratch\nCOPY large /\n").file("large", noise(4 << 20));
    let oci = |kiln: &Kiln| format!("--output=type=oci,dest={}", kiln.scratch("out/image.tar").display());
    let local = |kiln: &Kiln| format!("--output=type=local,dest={}", kiln.scratch("out/tree").display());
    // A base layer's blob and tree (written at once: either may be first) by bytes and by inodes, a layer of the build's
    // own, and outputs.
    type Output = Option<fn(&Kiln) -> String>;
    let cases: [(&str, &Context, Output, [&str; 2]); 6] = [
        ("mount -t tmpfs -o size=300k x $ROOT", &context, None, ["kiln/", "store`"]),
        ("mount -t tmpfs -o size=1200k x $ROOT", &context, None, ["kiln/", "store`"]),
        ("mount -t tmpfs -o size=40m,nr_inodes=60 x $ROOT", &context, None, ["kiln/", "no inodes"]),
        ("mount -t tmpfs -o size=2m x $ROOT", &copies, None, ["kiln/store/ingest/", "store`"]),
        ("mount -t tmpfs -o size=2m x $OUT", &copies, Some(oci), ["out/", "out`"]),
        ("mount -t tmpfs -o size=2m x $OUT", &copies, Some(local), ["out/", "out`"]),
    ];
    for (prepare, context, output, parts) in cases {
        let kiln = Kiln::new();
        let output = output.map(|output| output(&kiln));
        let failed =
            build_on(prepare, &kiln, context, &output.iter().map(String::as_str).collect::<Vec<_>>());
        let failed = failed
            .fails(1, &["error: no space left on `", "(file system mounted at `", "hint: free some space"]);
        for part in parts {
            let line = failed.stderr.lines().find(|line| line.starts_with("error:")).unwrap();
            assert!(line.contains(part), "{prepare}: `{part}`\n{failed}");
        }
    }
}

/// Text that no compression makes smaller than half.
fn noise(length: usize) -> String {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        char::from(b'!' + (state >> 57) as u8 % 90)
    };
    (0..length).map(|_| next()).collect()
}
