//! The store on a machine with several users, and what images and records claim about themselves.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::Place;
use crate::support::container::{self, RUNTIME};
use crate::support::need::{Busybox, Program, Root};
use crate::support::server::fault::{FaultRegistry, digest_of};
use crate::support::{Context, Kiln, run};

/// A setuid program in a cache mount, as a step may make it, and a step of another user's.
const SETUID: &str = "RUN --mount=type=cache,target=/c cp /bin/busybox /c/su && chmod 4755 /c/su\n\
    USER 65534\nRUN test $(id -u) = 65534 && ls / /bin > /dev/null\n";

#[test]
fn others_reach_nothing_that_kiln_keeps() {
    require!(Busybox, Root, Program("setpriv"));
    let kiln = Kiln::new();
    kiln.build(&Context::on_busybox(SETUID), &[]).ok();
    assert!(kiln.own("mounts").is_dir() && kiln.own("store/index.json").is_file());
    let other = |script: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=4243", "--regid=4243", "--clear-groups", "sh", "-c", script]);
        // From inside: whether the way there is open to others is not kiln's to say.
        run(command.current_dir(kiln.store()))
    };
    assert_eq!(other("find . -mindepth 1 2>/dev/null; true").ok().stdout, "./kiln\n");
    assert!(other("cat kiln/store/index.json || flock kiln/store/lock true").code != Some(0));
}

#[test]
fn every_kind_keeps_a_private_directory() {
    require!(Busybox, Root, Program(RUNTIME), Program("python3"), Program("setpriv"));
    let context = Context::on_busybox(SETUID);
    for place in Place::ALL {
        let root = match place {
            Place::Kind("A" | "C") => "/kiln/store",
            Place::PlainUser => "$HOME/.local/share/kiln",
            _ => "/var/kiln",
        };
        let script = format!("$BUILD $CONTEXT >&2 && ls {root} && stat -c '%a %u' {root}/kiln && id -u");
        let out = tempfile::tempdir().unwrap();
        let ran = place.run(context.path(), out.path(), &[], &script).ok();
        let lines: Vec<&str> = ran.stdout.lines().collect();
        let [name, private, user] = lines[..] else { panic!("{place:?}: {ran}") };
        assert_eq!((name, private), ("kiln", format!("700 {user}").as_str()), "{place:?}: {ran}");
    }
}

#[test]
fn a_root_that_somebody_else_prepared_is_refused() {
    require!(Root);
    type Prepare = fn(&Path, &Path);
    let prepared: [(&str, Prepare); 4] = [
        ("is a link", |root, victim| symlink(victim, root.join("kiln")).unwrap()),
        ("belongs to user 4242", |root, _| {
            fs::create_dir(root.join("kiln")).unwrap();
            chown(root.join("kiln"), Some(4242), Some(4242)).unwrap();
        }),
        ("is a link", |root, victim| {
            fs::create_dir(root.join("kiln")).unwrap();
            symlink(victim, root.join("kiln/store")).unwrap();
        }),
        ("belongs to user 4242", |root, _| {
            fs::create_dir_all(root.join("kiln/sandbox")).unwrap();
            fs::write(root.join("kiln/sandbox/in-place.journal"), "").unwrap();
            chown(root.join("kiln/sandbox"), Some(4242), Some(4242)).unwrap();
        }),
    ];
    let context = Context::new("FROM scratch\nCOPY Dockerfile /\n");
    for (expected, prepare) in prepared {
        let kiln = Kiln::new();
        let victim = kiln.scratch("victim");
        fs::create_dir(&victim).unwrap();
        fs::create_dir(kiln.store()).unwrap();
        fs::set_permissions(kiln.store(), fs::Permissions::from_mode(0o1777)).unwrap();
        chown(kiln.store(), Some(4242), Some(4242)).unwrap();
        prepare(&kiln.store(), &victim);
        kiln.build(&context, &[]).fails(1, &[expected, "hint:"]);
        for command in ["images", "prune"] {
            kiln.run(command, [""; 0]).fails(1, &[expected, "hint:"]);
        }
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 0, "{expected}");
    }
}

#[test]
fn a_root_that_is_a_link_or_a_shared_volume_is_used_as_it_is() {
    let kiln = Kiln::new();
    let volume = kiln.scratch("volume");
    fs::create_dir(&volume).unwrap();
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o1777)).unwrap();
    symlink(&volume, kiln.store()).unwrap();
    kiln.build(&Context::new("FROM scratch\nCOPY Dockerfile /\n"), &[]).ok();
    assert_eq!(fs::metadata(&volume).unwrap().permissions().mode() & 0o7777, 0o1777);
    assert_eq!(fs::metadata(volume.join("kiln")).unwrap().permissions().mode() & 0o7777, 0o700);
}

#[test]
fn who_holds_the_store_is_named() {
    require!(Program("flock"));
    let kiln = Kiln::new();
    let context = Context::new("FROM scratch\nCOPY Dockerfile /\n");
    kiln.build(&context, &[]).ok();
    let lock = kiln.own("store/lock");
    for command in ["images", "prune", "build"] {
        // Holds the lock until its input ends.
        let mut holder = Command::new("flock");
        let mut holder = holder.arg(&lock).args(["sh", "-c", "echo held; read end"]);
        holder = holder.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut holder = holder.spawn().unwrap();
        holder.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
        let mut waiting = match command {
            "build" => kiln.build_command(context.path(), &[]),
            other => kiln.command(other),
        };
        let mut waiting =
            waiting.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
        let mut told = String::new();
        let mut stderr = std::io::BufReader::new(waiting.stderr.take().unwrap());
        while !told.contains("waiting for")
            && std::io::BufRead::read_line(&mut stderr, &mut told).unwrap() > 0
        {}
        drop(holder.stdin.take());
        holder.wait().unwrap();
        stderr.read_to_string(&mut told).unwrap();
        assert!(waiting.wait().unwrap().success(), "{command}: {told}");
        for part in ["waiting for 2 s", &lock.display().to_string(), "process ", "(`flock`)"] {
            assert!(told.contains(part), "{command}: `{part}`\n{told}");
        }
    }
}

#[test]
fn a_broken_index_is_found_before_any_work() {
    require!(Busybox);
    let context = Context::on_busybox("RUN echo ran > /ran\n");
    for broken in ["", "{", "[]", r#"{"manifests":{}}"#] {
        let kiln = Kiln::new();
        kiln.run("images", [""; 0]).ok();
        let index = kiln.own("store/index.json");
        fs::write(&index, broken).unwrap();
        let failed = kiln.build(&context, &[]).fails(1, &["index.json", "hint:"]);
        assert!(!failed.stderr.contains("RUN"), "{failed}");
        kiln.run("images", [""; 0]).fails(1, &["index.json"]);
        assert_eq!(fs::read_to_string(&index).unwrap(), broken, "left as it was");
        fs::remove_file(&index).unwrap();
        kiln.build(&context, &[]).ok();
    }
}

/// A layer, uncompressed, from the files of a directory as tar(1) sees them.
fn layer(directory: &Path, names: &[&str]) -> Vec<u8> {
    let mut command = Command::new("tar");
    command.args(["--create", "--sparse", "--format=posix", "--owner=0", "--group=0", "--directory"]);
    let made = command.arg(directory).args(names).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    made.stdout
}

/// The program that every layer here begins with.
fn shell(directory: &Path) {
    fs::create_dir(directory.join("bin")).unwrap();
    fs::copy(container::tree().join("bin/busybox"), directory.join("bin/sh")).unwrap();
}

/// Puts an image of `layers` under a name; its config claims these diff ids.
fn publish(registry: &FaultRegistry, name: &str, layers: &[&[u8]], claims: &[&[u8]]) -> String {
    let diff_ids: Vec<String> = claims.iter().map(|layer| digest_of(layer)).collect();
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = config.to_string();
    let descriptor = |kind: &str, bytes: &[u8]| {
        let kind = format!("application/vnd.oci.image.{kind}");
        json!({"mediaType": kind, "digest": registry.put_blob(name, bytes), "size": bytes.len()})
    };
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let layers: Vec<_> = layers.iter().map(|layer| descriptor("layer.v1.tar", layer)).collect();
    let config = descriptor("config.v1+json", config.as_bytes());
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers});
    registry.put_manifest(name, "1", kind, manifest.to_string().as_bytes());
    format!("{}/{name}:1", registry.host())
}

#[test]
fn an_image_that_claims_anothers_diff_ids_gets_no_tree_and_spoils_none() {
    require!(Busybox, Root, Program("tar"));
    let registry = FaultRegistry::start();
    let made = |text: &str| {
        let directory = tempfile::tempdir().unwrap();
        shell(directory.path());
        fs::write(directory.path().join("who"), text).unwrap();
        layer(directory.path(), &["bin", "who"])
    };
    let (honest, hostile) = (made("honest"), made("hostile"));
    let honest_image = publish(&registry, "honest", &[&honest], &[&honest]);
    let claiming_image = publish(&registry, "claiming", &[&hostile], &[&honest]);
    let build = |kiln: &Kiln, image: &str, isolation: &str| {
        let context = Context::new(&format!("FROM {image}\nRUN read who < /who; echo it is $who\n"));
        kiln.build(&context, &["--no-cache", isolation])
    };
    for isolation in ["--isolation=auto", "--isolation=chroot"] {
        for hostile_first in [true, false] {
            let kiln = Kiln::new();
            for is_hostile in [hostile_first, !hostile_first, hostile_first] {
                let refused = "has the wrong content: expected diff id";
                if is_hostile {
                    build(&kiln, &claiming_image, isolation).fails(1, &[refused]);
                } else {
                    let built = build(&kiln, &honest_image, isolation).ok();
                    assert!(built.stderr.contains("it is honest"), "{built}");
                }
            }
        }
    }
}

#[test]
fn a_layer_that_empties_the_root_is_the_same_on_every_storage() {
    require!(Busybox, Root, Program("tar"));
    let registry = FaultRegistry::start();
    let directory = tempfile::tempdir().unwrap();
    shell(directory.path());
    fs::write(directory.path().join("secret"), "").unwrap();
    fs::write(directory.path().join(".wh..wh..opq"), "").unwrap();
    let (below, above) =
        (layer(directory.path(), &["bin", "secret"]), layer(directory.path(), &[".wh..wh..opq", "bin"]));
    let image = publish(&registry, "emptied", &[&below, &above], &[&below, &above]);
    let context = Context::new(&format!("FROM {image}\nRUN echo /*\n"));
    for isolation in ["--isolation=auto", "--isolation=chroot"] {
        let built = Kiln::new().build(&context, &["--no-cache", isolation]).ok();
        assert!(built.stderr.contains(" /bin") && !built.stderr.contains("/secret"), "{built}");
    }
}

#[test]
fn a_hole_of_many_terabytes_costs_nothing() {
    require!(Busybox, Root, Program("tar"));
    let registry = FaultRegistry::start();
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    shell(directory.path());
    fs::File::create(directory.path().join("hole")).unwrap().set_len(8 << 40).unwrap();
    let sparse = layer(directory.path(), &["bin", "hole"]);
    let image = publish(&registry, "sparse", &[&sparse], &[&sparse]);
    // A step after the first compares again, and a stage on another copies.
    let context = Context::new(&format!(
        "FROM {image} AS one\nRUN echo 1 > /one\nRUN echo 2 > /two\nFROM one\nRUN echo 3 > /three\n"
    ));
    for isolation in ["--isolation=auto", "--isolation=chroot"] {
        Kiln::new().build(&context, &["--no-cache", isolation]).ok();
    }
}

#[test]
fn deep_names_cost_what_they_are_long_and_no_more() {
    require!(Root);
    let registry = FaultRegistry::start();
    let context = |image: &str| Context::new(&format!("FROM {image}\nCOPY Dockerfile /\nRUN [\"/none\"]\n"));
    let named = |names: &[String]| {
        let mut tar = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, std::io::empty()).unwrap();
        }
        tar.into_inner().unwrap()
    };
    let deep = |depth: usize, last: usize| format!("{}{last}", "a/".repeat(depth - 1));
    let many: Vec<String> = (0..40).map(|number| format!("{number}/{}", deep(2000, 0))).collect();
    let cases: [(&str, Vec<String>, &str); 5] = [
        ("deepest", vec![deep(2048, 0), deep(2048, 1)], "/none"),
        ("deeper", vec![deep(2049, 0)], "2049 components: expected at most 2048"),
        ("longer", vec![deep(300_000, 0)], "bytes: expected at most 16384"),
        ("longest", vec![format!("{0}/{0}/{0}", "n".repeat(8000))], "bytes: expected at most 16384"),
        ("many", many, "more directories that the archive does not list"),
    ];
    for (name, names, expected) in cases {
        let bytes = named(&names);
        let image = publish(&registry, name, &[&bytes], &[&bytes]);
        let is_built = expected == "/none";
        // A name that is refused is so before anything depends on the storage.
        for isolation in
            ["--isolation=auto", "--isolation=chroot"].into_iter().take(1 + usize::from(is_built))
        {
            let failed = Kiln::new().build(&context(&image), &[isolation]).fails(1, &[expected]);
            assert_eq!(failed.stderr.contains("cannot unpack"), !is_built, "{failed}");
        }
    }
}
