//! A Debian image with everything that makes builders stumble, beside what buildah makes of it.

use std::process::Command;

use crate::support::image::{Image, Tree, listing};
use crate::support::need::{Debian, Program, Root};
use crate::support::{Kiln, base, run};

/// The context: readable where it lies.
const CONTEXT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/debian");

#[test]
fn apt_gcc_python_users_and_capabilities_as_buildah_builds_them() {
    require!(Debian, Root, Program("buildah"));
    let kiln = Kiln::new();
    let ours = build(&kiln, CONTEXT);
    let theirs = buildah(&kiln);
    for key in ["User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels"] {
        let without_brand = |image: &Image| {
            let mut value = image.settings()[key].clone();
            if let Some(labels) = value.as_object_mut() {
                labels.remove("io.buildah.version");
            }
            value
        };
        assert_eq!(without_brand(&ours), without_brand(&theirs), "{key}");
    }
    let tree = ours.tree();
    let capability = tree["usr/local/bin/hello"].xattrs.get("security.capability").map(Vec::as_slice);
    assert_eq!(capability.map(|value| (value.len(), value[3])), Some((20, 2)), "a version 2 file capability");
    assert_eq!((tree["srv/app"].uid, tree["srv/app"].mode), (812, 0o2750));

    let (ours, theirs) = (comparable(ours.tree()), comparable(theirs.tree()));
    let only = |a: &[String], b: &[String]| -> Vec<String> {
        a.iter().filter(|line| !b.contains(line)).cloned().collect()
    };
    let (more, less) = (only(&ours, &theirs), only(&theirs, &ours));
    assert!(more.is_empty() && less.is_empty(), "kiln only: {more:#?}\nbuildah only: {less:#?}");
}

/// The same Dockerfile by Debian's buildah, read from the layout it writes.
fn buildah(kiln: &Kiln) -> Image {
    let storage = kiln.scratch("buildah");
    let layout = kiln.scratch("buildah-layout");
    let mut command = Command::new("buildah");
    command
        .arg("--root")
        .arg(storage.join("root"))
        .arg("--runroot")
        .arg(storage.join("run"))
        .arg("--storage-driver=overlay");
    command.args(["build", "-q", "--isolation=chroot", "--tls-verify=false", "--network=host"]);
    command.arg(format!("--build-arg=BASE={}", base::debian()));
    command.arg("--tag").arg(format!("oci:{}:latest", layout.display())).arg(CONTEXT);
    run(&mut command).ok();
    let image = Image::read(&layout);
    // Its storage keeps a mount in this namespace.
    run(Command::new("sh")
        .args(["-c", "umount -R \"$0\"/root/overlay 2>/dev/null; rm -rf \"$0\""])
        .arg(&storage))
    .ok();
    image
}

/// The listing without what no two builds share: caches with times in them and account dates.
fn comparable(mut tree: Tree) -> Vec<String> {
    let differs = |path: &str| {
        path.ends_with(".pyc")
            || path.ends_with("/__pycache__")
            || [
                "etc/ld.so.cache",
                "etc/shadow",
                "etc/shadow-",
                "var/lib/dpkg/status-old",
                "etc/resolv.conf",
                "etc/hosts",
            ]
            .contains(&path)
            || ["run/", "var/cache/ldconfig/", "dev/", "proc/", "sys/"]
                .iter()
                .any(|place| path.starts_with(place))
    };
    tree.retain(|path, _| !differs(path));
    listing(&tree)
}

#[test]
fn the_apt_example_builds() {
    require!(Debian, Root);
    let image = build(&Kiln::new(), concat!(env!("CARGO_MANIFEST_DIR"), "/examples/debian-app"));
    assert_eq!(image.settings()["User"], "notes");
    assert!(image.tree().contains_key("app/notes.py"));
}

/// Builds a context that takes its base from the argument `BASE`.
fn build(kiln: &Kiln, context: &str) -> Image {
    let layout = kiln.scratch("layout");
    let output = format!("--output=type=oci,tar=false,dest={}", layout.display());
    let base = format!("--build-arg=BASE={}", base::debian());
    run(&mut kiln.build_command(context.as_ref(), &[&base, &output])).ok();
    Image::read(&layout)
}
