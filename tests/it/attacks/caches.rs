//! A cache never gives another image than a build without it would, and a lie in one costs a warning.
//!
//! Where kiln runs changes little here: the files of a cache are read by kiln itself, in every kind of container. In place a
//! step can write to them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::Place;
use crate::cache::{ran, requests};
use crate::support::container::RUNTIME;
use crate::support::need::{Busybox, Program, Root};
use crate::support::program::{finish, show};
use crate::support::{Context, Kiln, Outcome, Registry, base, run};

const EPOCH: &str = "--timestamp=5";

/// `--build-context nc=a`; change `a/f`; build again: it was CACHED, with the old content, through every cache.
#[test]
fn a_copy_from_a_named_context_is_never_an_old_one() {
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::open();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let write = |content: &str| {
        fs::create_dir_all(at("files")).unwrap();
        fs::write(at("files/f"), content).unwrap();
        run(Command::new("tar").args(["-cf", &at("files.tar"), "-C", &at("files"), "f"])).ok();
    };
    let dir = format!("type=local,dest={}", at("cache"));
    let cache = registry.image("cache");
    let context = Context::new("FROM scratch\nCOPY --from=nc f /f\n");
    for source in [at("files"), at("files.tar")] {
        let named = format!("--build-context=nc={source}");
        let (to_dir, to_registry) = (format!("--cache-to={dir}"), format!("--cache-to={cache}"));
        let (from_dir, from_registry) = (format!("--cache-from={dir}"), format!("--cache-from={cache}"));
        let kiln = Kiln::new();
        write("old");
        kiln.build(&context, &[&named, &to_dir, &to_registry]).ok();
        assert_eq!(ran(&kiln.build(&context, &[&named]).ok()), [""; 0]);
        write("new");
        for (kiln, from) in [(&kiln, &from_dir), (&Kiln::new(), &from_dir), (&Kiln::new(), &from_registry)] {
            let image = kiln.image_with(&context, &[&named, from]);
            assert_eq!(image.text("f"), "new", "{source} by {from}");
        }
    }
}

/// A stage that tests read from, and that the image is made of or copied from.
fn tested(by: &str) -> Context {
    Context::new(&format!(
        "FROM {0} AS build\nCOPY a /a\nRUN seq 1 30000 > /made && cp /a /b\nWORKDIR /w\n\
         FROM {0} AS test\nCOPY --from=build /made /a /t/\nRUN grep -q 29999 /t/made\n{by}",
        base::busybox()
    ))
    .file("a", "a\n")
}

fn steps_of(outcome: &Outcome, stage: &str) -> Vec<String> {
    ran(outcome).into_iter().filter(|step| step.starts_with(&format!("[{stage} "))).collect()
}

/// `--target test`, then the image: all steps of shared stages ran again, and what was tested was not what is shipped.
#[test]
fn what_was_tested_is_what_is_shipped() {
    require!(Busybox);
    let image = "FROM build AS image\nRUN touch /more\n";
    let (context, registry) = (tested(image), Registry::open());
    let digest = |outcome: Outcome| outcome.last_line().to_owned();
    let wanted = digest(Kiln::new().build(&context, &[EPOCH]).ok());
    let zstd = "--output=type=image,compression=zstd";
    let wanted_zstd = digest(Kiln::new().build(&context, &[EPOCH, zstd]).ok());
    assert_ne!(wanted, wanted_zstd);
    let kiln = Kiln::new();
    let test = kiln.build(&context, &[EPOCH, "--target=test"]).ok();
    assert_eq!(steps_of(&test, "build").len(), 3, "{test}");
    let built = kiln.build(&context, &[EPOCH]).ok();
    assert_eq!(steps_of(&built, "build"), [""; 0], "{built}");
    assert_eq!(built.last_line(), wanted, "{built}");
    // There and back, and each form twice.
    for (arguments, wanted) in [
        (&[EPOCH, zstd][..], &wanted_zstd),
        (&[EPOCH, zstd], &wanted_zstd),
        (&[EPOCH, "--target=test"], &test.last_line().to_owned()),
        (&[EPOCH], &wanted),
        (&[EPOCH], &wanted),
    ] {
        let built = kiln.build(&context, arguments).ok();
        assert_eq!((ran(&built), built.last_line()), (Vec::new(), wanted.as_str()), "{arguments:?}\n{built}");
    }
    // Another runner, which has the tests' layers from a registry only.
    let cache = registry.image("cache");
    let (to, from) = (format!("--cache-to={cache}"), format!("--cache-from={cache}"));
    Kiln::new().build(&context, &[EPOCH, "--target=test", &to]).ok();
    for arguments in [&[EPOCH, &from, &to][..], &[EPOCH, &from]] {
        let built = Kiln::new().build(&context, arguments).ok();
        assert_eq!((steps_of(&built, "build"), built.last_line()), (Vec::new(), wanted.as_str()), "{built}");
    }
}

/// What a store or another cache had was written to no cache: a persistent runner filled none.
#[test]
fn a_cache_gets_every_step_that_a_build_used() {
    require!(Busybox);
    let project =
        |file: &str| tested(&format!("FROM {}\nCOPY --from=build {file} /x\nRUN true\n", base::busybox()));
    let (kiln, registry) = (Kiln::new(), Registry::open());
    let all = kiln.build(&project("/made"), &[]).ok();
    assert_eq!(ran(&all).len(), 5, "{all}");
    let (max, min) = (registry.image("max"), registry.image("min"));
    let sinks = [format!("--cache-to={max}"), format!("--cache-to=type=registry,ref={min},mode=min")];
    let again = kiln.build(&project("/made"), &[&sinks[0], &sinks[1]]).ok();
    assert_eq!(ran(&again), [""; 0], "{again}");
    // Nothing new: one question for each record, and no answer that writes.
    let before = registry.log().lines().count();
    kiln.build(&project("/made"), &[&sinks[0], &sinks[1]]).ok();
    let later = requests(&registry, before);
    assert!(later.iter().all(|(method, ..)| method == "GET"), "{later:#?}");
    // From one cache into another, through a runner that has nothing.
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("cache").display().to_string();
    let (from_max, to_dir) = (format!("--cache-from={max}"), format!("--cache-to=type=local,dest={place}"));
    let through = Kiln::new().build(&project("/made"), &[&from_max, &to_dir]).ok();
    assert_eq!(ran(&through), [""; 0], "{through}");
    let from_min = format!("--cache-from={min}");
    let from_dir = format!("--cache-from=type=local,src={place}");
    for (from, of_build) in [(&from_max, 0), (&from_dir, 0), (&from_min, 3)] {
        let built = Kiln::new().build(&project("/made"), &[from]).ok();
        assert_eq!(ran(&built), [""; 0], "{from}\n{built}");
        // Another file of the stage: that was no part of the result, and is only in `mode=max`.
        let built = Kiln::new().build(&project("/b"), &[from]).ok();
        assert_eq!(steps_of(&built, "build").len(), of_build, "{from}\n{built}");
    }
    // An old record stays as old as it is: what is exported late is not new.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let late = registry.image("late");
    kiln.build(&project("/made"), &[&format!("--cache-to={late}")]).ok();
    let built =
        Kiln::new().build(&project("/made"), &[&format!("--cache-from={late}"), "--cache-ttl=2s"]).ok();
    assert_eq!(ran(&built).len(), 5, "{built}");
}

/// The manifests of the records below a directory.
fn records(root: &Path) -> Vec<PathBuf> {
    let listed = |path: &Path| -> Vec<PathBuf> {
        fs::read_dir(path).map(|all| all.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default()
    };
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let is_hash = |path: &PathBuf| path.file_name().is_some_and(|name| name.len() == 2);
        if directory.ends_with("records") {
            return listed(&directory)
                .iter()
                .filter(|path| is_hash(path))
                .flat_map(|path| listed(path))
                .collect();
        }
        directories.extend(listed(&directory).into_iter().filter(|path| path.is_dir() && !path.is_symlink()));
    }
    Vec::new()
}

fn edit_record(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut manifest: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    edit(&mut manifest);
    fs::write(path, manifest.to_string()).unwrap();
}

/// Makes a record promise the diff id of something else.
fn lie_of_content(record: &Path, _: &Path) {
    edit_record(record, |manifest| {
        manifest["annotations"]["kiln.cache.diff-id"] = format!("sha256:{}", "7".repeat(64)).into();
    });
}

/// Makes a record's layer one that climbs out of the tree; digest and diff id are right.
fn lie_of_names(record: &Path, cache: &Path) {
    let script = "import sys, io, tarfile, hashlib, os\n\
        t = io.BytesIO(); a = tarfile.open(fileobj=t, mode='w')\n\
        for name in ('etc/good', '../../../../../../../../../../tmp/kiln-evil'):\n\
        \x20 i = tarfile.TarInfo(name); i.size = 1; a.addfile(i, io.BytesIO(b'x'))\n\
        a.close(); b = t.getvalue(); h = hashlib.sha256(b).hexdigest()\n\
        open(os.path.join(sys.argv[1], 'blobs/sha256', h), 'wb').write(b); print(h, len(b))\n";
    let made = run(Command::new("python3").args(["-c", script]).arg(cache)).ok();
    let (hex, size) = made.stdout.trim().split_once(' ').unwrap();
    edit_record(record, |manifest| {
        manifest["annotations"]["kiln.cache.diff-id"] = format!("sha256:{hex}").into();
        manifest["annotations"]["kiln.cache.compression"] = "none".into();
        manifest["layers"][0] = serde_json::json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": format!("sha256:{hex}"),
            "size": size.parse::<u64>().unwrap(),
        });
    });
}

/// A project of seven steps; the last one can change.
fn lied_about(last: &str) -> Context {
    let steps: String = (1..7).map(|number| format!("RUN echo {number} > /{number}\n")).collect();
    Context::on_busybox(&format!("{steps}RUN cat /1 /2 /3 /4 /5 /6 > /all; echo {last}\n"))
}

/// A record of a wrong diff id, or with a layer that has `../` in it, was an error or was pushed as it is.
#[test]
fn a_lie_in_a_cache_is_a_warning_and_the_step_runs() {
    require!(Busybox);
    type Lie = fn(&Path, &Path);
    for (lie, shown) in [(lie_of_content as Lie, "wrong content"), (lie_of_names, "leads out")] {
        // The first record, the fourth, or each of them.
        for which in [Some("echo 1 "), Some("echo 4 "), None] {
            let directory = tempfile::tempdir().unwrap();
            let place = directory.path().join("cache");
            let (to, from) = (
                format!("--cache-to=type=local,dest={}", place.display()),
                format!("--cache-from=type=local,src={}", place.display()),
            );
            Kiln::new().build(&lied_about("one"), &[EPOCH, &to]).ok();
            let lied: Vec<PathBuf> = records(&place)
                .into_iter()
                .filter(|path| which.is_none_or(|which| fs::read_to_string(path).unwrap().contains(which)))
                .collect();
            assert_eq!(lied.len(), which.map_or(7, |_| 1));
            lied.iter().for_each(|path| lie(path, &place));
            let wanted = Kiln::new().build(&lied_about("two"), &[EPOCH]).ok();
            let told = |built: &Outcome, says: &[&str]| {
                for text in says {
                    assert!(built.stderr.contains(text), "{which:?}: expected `{text}`\n{built}");
                }
                assert_eq!(built.last_line(), wanted.last_line(), "{which:?} {shown}\n{built}");
                assert!(!Path::new("/tmp/kiln-evil").exists());
            };
            let read = Kiln::new().build(&lied_about("two"), &[EPOCH, &from]).ok();
            told(&read, &["its step runs instead", shown]);
            // Every step of it is one of the cache's: with `verify=true` that is read before it counts.
            let verified = format!("{from},verify=true");
            let fresh = Kiln::new();
            let built = fresh.build(&lied_about("two"), &[EPOCH, &verified]).ok();
            told(&built, &["is refused: its layer", shown]);
            // A context that can be read but once.
            told(&from_stdin(&Kiln::new(), &lied_about("two"), &[EPOCH, &from]), &["its step runs instead"]);
        }
    }
}

fn from_stdin(kiln: &Kiln, context: &Context, arguments: &[&str]) -> Outcome {
    let archive = tempfile::NamedTempFile::new().unwrap();
    let mut tar = Command::new("tar");
    run(tar.arg("-cf").arg(archive.path()).arg("-C").arg(context.path()).arg(".")).ok();
    let mut command = kiln.build_command(Path::new("-"), arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(fs::File::open(archive.path()).unwrap());
    finish(command.spawn().unwrap(), show(&command)).ok()
}

/// Nobody reads a layer that a hit only hands on; compressing it anew reads it, and `verify=true` does.
#[test]
fn a_lie_that_only_compressing_reads_is_found_by_that() {
    require!(Busybox);
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("cache");
    let to = format!("--cache-to=type=local,dest={}", place.display());
    let from = format!("--cache-from=type=local,src={}", place.display());
    Kiln::new().build(&lied_about("one"), &[EPOCH, &to]).ok();
    let last = records(&place).into_iter().find(|path| fs::read_to_string(path).unwrap().contains("cat /1"));
    lie_of_content(&last.unwrap(), &place);
    let zstd = "--output=type=image,compression=zstd";
    for (arguments, says) in [
        (vec![EPOCH, &from, zstd], "its step runs instead"),
        (vec![EPOCH, &format!("{from},verify=true")], "is refused: its layer"),
    ] {
        let plain: Vec<&str> =
            arguments.iter().copied().filter(|argument| !argument.contains("cache")).collect();
        let wanted = Kiln::new().build(&lied_about("one"), &plain).ok();
        let built = Kiln::new().build(&lied_about("one"), &arguments).ok();
        assert!(built.stderr.contains(says), "{built}");
        assert_eq!(built.last_line(), wanted.last_line(), "{built}");
    }
    // Taken on trust: who may write there may change what is built from it (docs/security.md).
    let built = Kiln::new().build(&lied_about("one"), &[EPOCH, &from]).ok();
    assert_eq!(ran(&built), [""; 0], "{built}");
}

/// A record in kiln's own store that lies is removed, so that it is told of once.
#[test]
fn a_lie_in_the_own_store_is_told_of_once() {
    require!(Busybox);
    let first = Kiln::new();
    first.build(&lied_about("one"), &[EPOCH]).ok();
    // The unpacked trees of the first build hide nothing from the second.
    let kiln = Kiln::new();
    run(Command::new("cp").arg("-a").arg(first.store()).arg(kiln.store())).ok();
    for above in [kiln.store(), records(&kiln.store())[0].ancestors().nth(4).unwrap().to_owned()] {
        let _ = fs::remove_dir_all(above.join("trees"));
    }
    let lied: Vec<PathBuf> = records(&kiln.store());
    for record in lied.iter().filter(|path| fs::read_to_string(path).unwrap().contains("echo 2 ")) {
        lie_of_content(record, &kiln.store());
    }
    // Nothing is written: the record has to go by itself.
    let wanted = Kiln::new().build(&lied_about("two"), &[EPOCH]).ok();
    for warns in [true, false] {
        let built = kiln.build(&lied_about("two"), &[EPOCH, "--cache-to=type=none"]).ok();
        assert_eq!(built.stderr.contains("its step runs instead"), warns, "{built}");
        assert_eq!(built.last_line(), wanted.last_line());
    }
}

/// Makes a directory everybody's, as a volume of a job.
fn volume() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    directory
}

/// Those of a job with a cache and a working copy.
fn mounted(cache: &tempfile::TempDir, workspace: &tempfile::TempDir) -> [String; 2] {
    [format!("{}:/cache", cache.path().display()), format!("{}:/workspace", workspace.path().display())]
}

/// A step in place wrote a record with a layer of its own into the directory of `--cache-to`, or of `--cache-from` alone, and
/// later builds took it.
#[test]
fn a_step_gets_no_record_into_a_local_cache() {
    require!(Busybox, Root, Program(RUNTIME));
    const KILL: &str = "kill -9 $(cut -d' ' -f4 /proc/$PPID/stat); sleep 100";
    let honest = format!("FROM {}\nRUN cat /proc/sys/kernel/random/uuid > /app\n", base::busybox());
    let (hostile, out) = (tempfile::tempdir().unwrap(), volume());
    let evil = format!("--cache-to=type=local,dest={}", hostile.path().join("evil").display());
    fs::write(hostile.path().join("honest"), &honest).unwrap();
    Kiln::new().build(&Context::new(&honest), &["--build-arg=SOURCE_DATE_EPOCH=1700000000", &evil]).ok();
    // The config of its record: what is in no cache but by this attack.
    let record = records(&hostile.path().join("evil")).remove(0);
    let manifest: Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    let blob = manifest["config"]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let waits = "/workspace/.kiln-*.away/own/.cache";
    let parked = "/kiln/store/kiln/sandbox/park/ci/cache";
    let cases = [
        ("/cache", "/cache", "to"),
        ("/cache", "/cache", "from"),
        (waits, "/workspace/.cache", "to"),
        (waits, "/workspace/.cache", "from"),
        ("/kiln/cache", "/kiln/cache", "to"),
        (parked, "/ci/cache", "from"),
    ];
    let mut script = "export DOCKER_CONFIG=/kiln/.docker; n=0; \
        honest() { n=$((n+1)); $BUILD --root=/kiln/fresh$n --cache-from=type=local,src=$1 -f /context/honest /context > /dev/shm/log 2>&1; \
            rc=$?; grep -q CACHED /dev/shm/log && echo \"$2 took it\" || echo \"$2 ran $rc\"; }; "
        .to_owned();
    let mut wanted = Vec::new();
    for (number, (target, cache, way)) in cases.iter().enumerate() {
        for (end, code) in [("true", 0), (KILL, 137)] {
            let name = format!("{number}-{code}");
            let step = format!("cp -r /e/. {target}/; test -e {target}/records || exit 1; {end}");
            let dockerfile = format!("FROM {}\nCOPY evil /e\nRUN {step}\n", base::busybox());
            fs::write(hostile.path().join(&name), dockerfile).unwrap();
            // A cache that has something else before.
            script.push_str(&format!(
                "printf 'FROM {}\\nRUN echo {name}\\n' > /kiln/other; $BUILD --cache-to=type=local,dest={cache} -f /kiln/other /context 2>/dev/null; \
                 $BUILD --no-cache --cache-{way}=type=local,{}={cache} -f /context/{name} /context > /dev/shm/attack 2>&1; \
                 echo \"code $?\"; grep 'which are not used any more' /dev/shm/attack >&2; honest {cache} {name}; rm {cache}/blobs/sha256/{blob} && echo copied; ",
                base::busybox(),
                if *way == "to" { "dest" } else { "src" },
            ));
            wanted.extend([format!("code {code}"), format!("{name} ran 0"), "copied".to_owned()]);
        }
    }
    // The forged record is one that is taken.
    script.push_str("cp -r /context/evil/. /cache/; honest /cache control");
    wanted.push("control took it".to_owned());
    for kind in ["A", "C"] {
        let (cache, workspace) = (volume(), volume());
        fs::create_dir(workspace.path().join(".cache")).unwrap();
        fs::write(workspace.path().join("main.go"), "the job's").unwrap();
        let volumes = mounted(&cache, &workspace);
        let ended = Place::Kind(kind).run(hostile.path(), out.path(), &volumes, &script).ok();
        let lines: Vec<&str> = ended.stdout.lines().filter(|line| !line.starts_with("sha256:")).collect();
        assert_eq!(lines, wanted, "{kind}\n{ended}");
        assert!(ended.stderr.matches("which are not used any more").count() >= cases.len(), "{ended}");
    }
}

/// A volume that had a cache somewhere was not put aside: `RUN rm -rf ./*` emptied the working copy.
#[test]
fn a_cache_on_a_volume_leaves_the_volume_as_it_is() {
    require!(Busybox, Root, Program(RUNTIME));
    let context =
        Context::on_busybox("WORKDIR /workspace\nRUN echo built > made\nRUN rm -rf ./* && echo 2 > two\n");
    let arguments = ["--build-arg=SOURCE_DATE_EPOCH=1700000000"];
    let wanted = Kiln::new().build(&context, &arguments).ok().last_line().to_owned();
    for kind in ["A", "C"] {
        let (workspace, cache, out) = (volume(), volume(), volume());
        for directory in ["own", ".cache"] {
            fs::create_dir(workspace.path().join(directory)).unwrap();
        }
        fs::write(workspace.path().join("own/main.go"), "the job's").unwrap();
        let volumes = [
            format!("{}:/workspace", workspace.path().display()),
            format!("{}:/cache", cache.path().display()),
        ];
        let script = "at='type=local,dest=/workspace/.cache'; from='type=local,src=/workspace/.cache'; \
            $BUILD --cache-to=$at /context && $BUILD --root=/kiln/other --cache-from=$from --output=type=tar,dest=/out/tar /context; \
            ls /workspace; cat /workspace/own/main.go";
        let built = Place::Kind(kind).run(context.path(), out.path(), &volumes, script).ok();
        let lines: Vec<&str> = built.stdout.lines().collect();
        assert_eq!(lines, [wanted.as_str(), wanted.as_str(), "own", "the job's"], "{kind}\n{built}");
        assert_eq!(built.stderr.matches("CACHED").count(), 3, "{kind}\n{built}");
        assert!(!built.stderr.contains("warning"), "{kind}\n{built}");
        // A volume that is a cache is seen by steps as it is: what they write there is in no layer.
        let seen = Context::on_busybox("RUN mkdir -p /cache; echo x > /cache/mine\n");
        let script = "for n in 1 2; do $BUILD --cache-to=type=local,dest=/cache /context; done";
        let built = Place::Kind(kind).run(seen.path(), out.path(), &volumes, script).ok();
        assert!(built.stderr.contains("the change is in no layer"), "{kind}\n{built}");
        assert!(!built.stderr.contains("CACHED"), "{kind}\n{built}");
    }
}

/// What was in the directory of a local cache and no cache's was nobody's: a step left programs there and removed the job's files.
#[test]
fn a_step_leaves_nothing_beside_a_cache() {
    require!(Busybox, Root, Program(RUNTIME));
    const KILL: &str = "kill -9 $(cut -d' ' -f4 /proc/$PPID/stat); sleep 100";
    let plant = "mkdir -p .git/hooks blobs/sha256/x || exit 9; echo evil > .git/hooks/post-checkout; echo evil > deploy.sh; chmod 4755 deploy.sh; \
        rm -f precious; for at in blobs/evil blobs/sha256/evil ingest/evil; do echo evil > $at; chmod 4755 $at; done; \
        echo evil > lock; chmod 4755 lock; ln -s /etc ingest/1-1; chmod 777 records";
    // Where a step finds it, where it is, and how the build ends if nobody is killed.
    let cases = [
        ("/workspace/.kiln-*.away/own/c", "/workspace/c", "rc 0"),
        ("/cache", "/cache", "rc 0"),
        ("/kiln/store/kiln/sandbox/park/ci/cache", "/ci/cache", "rc 1"),
    ];
    let (context, out) = (tempfile::tempdir().unwrap(), volume());
    fs::write(context.path().join("honest"), format!("FROM {}\nRUN true\n", base::busybox())).unwrap();
    let mut script = "list() { find $1 | grep -v -e blobs/sha256/[0-9a-f] -e records/ -e ingest/[0-9]*- | sort | while read f; do \
            stat -c '%n %a %u %s' $f; test -d $f -o ${f##*/} = index.json || cat $f; done | grep -v index.json; }; "
        .to_owned();
    let mut wanted = Vec::new();
    for (number, (finds, cache, code)) in cases.iter().enumerate() {
        script.push_str(&format!(
            "mkdir -p {cache}; echo the job deploys > {cache}/deploy.sh; chmod 755 {cache}/deploy.sh; echo p > {cache}/precious; "
        ));
        for (end, code) in [("true", *code), (KILL, "rc 137")] {
            let name = format!("{number}-{}", &code[3..]);
            let dockerfile = format!("FROM {}\nRUN cd {finds} || exit 8; {plant}; {end}\n", base::busybox());
            fs::write(context.path().join(&name), dockerfile).unwrap();
            script.push_str(&format!(
                "to=--cache-to=type=local,dest={cache}; $BUILD --no-cache $to -f /context/honest /context > /dev/null 2>&1; list {cache} > /dev/shm/before; \
                 $BUILD --no-cache $to -f /context/{name} /context >&2; echo rc $?; list {cache} > /dev/shm/after; \
                 diff /dev/shm/before /dev/shm/after && echo {name} as before; ",
            ));
            wanted.extend([code.to_owned(), format!("{name} as before")]);
        }
    }
    for kind in ["A", "C"] {
        let (cache, workspace) = (volume(), volume());
        fs::write(workspace.path().join("main.go"), "the job's").unwrap();
        let volumes = mounted(&cache, &workspace);
        let ended = Place::Kind(kind).run(context.path(), out.path(), &volumes, &script).ok();
        let lines: Vec<&str> = ended.stdout.lines().filter(|line| !line.starts_with("sha256:")).collect();
        assert_eq!(lines, wanted, "{kind}\n{ended}");
        for said in
            ["changed what was put aside of the volume `/workspace`", "the change is in no layer and undone"]
        {
            assert!(ended.stderr.contains(said), "{kind}: {said}\n{ended}");
        }
    }
}
