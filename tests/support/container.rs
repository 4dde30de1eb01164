//! kiln inside containers as CI systems and clusters start them (`tools/as-kind` lists the kinds).

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::kiln::Kiln;
use super::program::{Outcome, run};

/// What every use of `as_kind` needs besides `Root`.
pub(crate) const RUNTIME: &str = "runc";

/// Runs a shell script in a container of a kind. The context is at `/context`, kiln on the PATH, and
/// `/out` is a directory of the host that outlives the container.
pub(crate) fn as_kind(kind: &str, context: &Path, out: &Path, script: &str) -> Outcome {
    as_kind_without(&[], kind, context, out, script)
}

/// The same as if the kernel did not have the system calls `denied`.
pub(crate) fn as_kind_without(
    denied: &[&str],
    kind: &str,
    context: &Path,
    out: &Path,
    script: &str,
) -> Outcome {
    let mut command = container(kind, &tree(), context, out);
    command.args(denied.iter().flat_map(|name| ["--without", name]));
    run(command.arg("--").args(["/bin/sh", "-c", script]))
}

fn in_container(
    kind: &str,
    image: &Path,
    context: &Path,
    out: &Path,
    volumes: &[String],
    argv: &[&str],
) -> Outcome {
    let mut command = container(kind, image, context, out);
    command.args(volumes.iter().flat_map(|volume| ["--volume", volume]));
    run(command.arg("--").args(argv))
}

/// A container that lacks further options, and its command behind `--`.
fn container(kind: &str, image: &Path, context: &Path, out: &Path) -> Command {
    // The container's root may be nobody out here.
    std::fs::set_permissions(out, std::fs::Permissions::from_mode(0o777)).unwrap();
    std::fs::set_permissions(context, std::fs::Permissions::from_mode(0o755)).unwrap();
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/as-kind");
    let mut command = Command::new(tool);
    command.arg(kind).arg(image).arg("--volume").arg(format!("{}:/context", context.display()));
    command.arg("--volume").arg(format!("{}:/out", out.display()));
    command.args([
        "--env",
        "PATH=/kiln:/busybox:/usr/sbin:/usr/bin:/sbin:/bin",
        "--env",
        "DOCKER_CONFIG=/kiln/.docker",
    ]);
    command
}

/// Runs kiln in its own image, which has no shell, in a container of a kind.
pub(crate) fn own_image_as_kind(kind: &str, context: &Path, arguments: &[&str]) -> Outcome {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    let tree = TREE.get_or_init(|| {
        let tree = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kiln-own-image");
        let home = tree.join("kiln");
        std::fs::create_dir_all(&home).unwrap();
        std::fs::write(home.join("own-image"), "").unwrap();
        std::fs::copy(Kiln::program(), home.join("kiln.new")).unwrap();
        std::fs::rename(home.join("kiln.new"), home.join("kiln")).unwrap();
        tree
    });
    std::fs::set_permissions(context, std::fs::Permissions::from_mode(0o755)).unwrap();
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/as-kind");
    let mut command = Command::new(tool);
    command.arg(kind).arg(tree).arg("--volume").arg(format!("{}:/context", context.display()));
    run(command.args(["--", "/kiln/kiln", "build", "--progress=plain"]).args(arguments).arg("/context"))
}

/// Runs a shell script in kiln's own image with a shell (the `debug` variant), in a container of a kind.
///
/// As `as_kind` otherwise; `volumes` are further ones, `SOURCE:TARGET`.
pub(crate) fn debug_image_as_kind(
    kind: &str,
    context: &Path,
    out: &Path,
    volumes: &[String],
    script: &str,
) -> Outcome {
    in_container(kind, debug_image(), context, out, volumes, &["/busybox/sh", "-c", script])
}

/// The same, not started yet: further options of `tools/as-kind` and the command, behind `--`, are to come.
pub(crate) fn debug_container(kind: &str, context: &Path, out: &Path) -> Command {
    container(kind, debug_image(), context, out)
}

fn debug_image() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| {
        let image = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kiln-debug-image");
        let (home, shell) = (image.join("kiln"), image.join("busybox"));
        let _ = std::fs::remove_dir_all(&shell);
        std::fs::create_dir_all(home.join(".docker")).unwrap();
        std::fs::write(home.join("own-image"), "").unwrap();
        std::fs::copy(Kiln::program(), home.join("kiln.new")).unwrap();
        std::fs::rename(home.join("kiln.new"), home.join("kiln")).unwrap();
        run(Command::new("cp").arg("-a").arg(tree().join("bin")).arg(&shell)).ok();
        std::fs::remove_file(shell.join("kiln")).unwrap();
        image
    })
}

/// The container's image: busybox and the kiln under test.
pub(crate) fn tree() -> PathBuf {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| {
        let tree = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kiln-tree");
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/busybox-tree");
        run(Command::new(tool).arg(&tree)).ok();
        // A rename, so that a test that is using the old one goes on with it.
        let fresh = tree.join("bin/kiln.new");
        std::fs::copy(Kiln::program(), &fresh).unwrap();
        std::fs::rename(fresh, tree.join("bin/kiln")).unwrap();
        tree
    })
    .clone()
}

/// Runs a shell script as a plain user of this machine, kiln on the PATH and `arguments` in `$@`; with `subordinate` ids,
/// as a distribution sets them up. `$HOME` is a directory of the user's own.
pub(crate) fn plain_user(subordinate: bool, script: &str, arguments: &[&str]) -> Outcome {
    let home = tempfile::Builder::new().prefix("kiln-user-").tempdir_in("/tmp").unwrap();
    let enter = "set -e; cd $1; chmod 755 .; \
        for f in passwd group subuid subgid; do cat /etc/$f > $f 2>/dev/null || : > $f; done; \
        echo plain:x:4242:4242::$1/home:/bin/sh >> passwd; echo plain:x:4242: >> group; \
        if [ $2 = true ]; then echo plain:300000:65536 >> subuid; echo plain:300000:65536 >> subgid; fi; \
        for f in passwd group subuid subgid; do touch /etc/$f; mount --bind $f /etc/$f; done; \
        install -d -o 4242 -g 4242 home; script=$3; shift 3; \
        exec setpriv --reuid=4242 --regid=4242 --init-groups --inh-caps=-all env -i PATH=$PWD:/usr/bin:/bin \
            HOME=$PWD/home sh -c \"$script\" sh \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation=private", "sh", "-c", enter, "sh"]);
    command.arg(home.path()).arg(subordinate.to_string()).arg(script);
    // Where the program was built may be a place that is not everybody's.
    std::fs::copy(Kiln::program(), home.path().join("kiln")).unwrap();
    let outcome = run(command.args(arguments));
    // Files of subordinate users are removed by root, who runs this test.
    let _ = std::fs::remove_dir_all(home.path());
    outcome
}
