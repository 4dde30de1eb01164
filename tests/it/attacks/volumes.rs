//! In place below the container's own mounts: the step sees the image's files, and the volume is as before.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, getxattr, setxattr};

use super::Place;
use crate::support::container::RUNTIME;
use crate::support::need::{Busybox, Program, Root};
use crate::support::{Context, Kiln, Outcome, run};

const A: Place = Place::Kind("A");
const C: Place = Place::Kind("C");

/// A directory of the host that becomes a volume, and what it holds.
struct Volume(tempfile::TempDir);

impl Volume {
    /// One with a job's files: owners, modes, times, links, and names that a step may have, too.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        fs::create_dir_all(at("own/.git/hooks")).unwrap();
        for (path, text) in
            [("own/kept", "kept"), ("own/.git/config", "git"), ("main.go", "the job's"), (".env", "env")]
        {
            fs::write(at(path), text).unwrap();
        }
        symlink("../main.go", at("own/link")).unwrap();
        fs::hard_link(at("own/kept"), at("twin")).unwrap();
        lchown(at("own"), Some(12), Some(34)).unwrap();
        fs::set_permissions(at("own"), fs::Permissions::from_mode(0o2770)).unwrap();
        fs::set_permissions(at("own/.git/config"), fs::Permissions::from_mode(0o640)).unwrap();
        setxattr(at("own/kept"), "user.job", b"x", XattrFlags::empty()).unwrap();
        run(std::process::Command::new("touch")
            .args(["-d", "2001-02-03 04:05:06.789"])
            .args([at("own"), at("twin")]))
        .ok();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        Self(directory)
    }

    fn of(context: Context) -> Self {
        let volume = Self::new();
        run(std::process::Command::new("cp").arg("-a").arg(context.path().join(".")).arg(volume.path())).ok();
        fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        volume
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn mounted_at(&self, target: &str) -> String {
        format!("{}:{target}", self.path().display())
    }

    /// Everything about it, byte for byte.
    fn manifest(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut pending = vec![self.path().to_path_buf()];
        while let Some(path) = pending.pop() {
            let metadata = path.symlink_metadata().unwrap();
            let mut line = format!(
                "{} {:o} {}:{} {}.{} {}",
                path.strip_prefix(self.path()).unwrap().display(),
                metadata.mode(),
                metadata.uid(),
                metadata.gid(),
                metadata.mtime(),
                metadata.mtime_nsec(),
                metadata.nlink(),
            );
            if metadata.is_dir() {
                pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else if metadata.is_symlink() {
                line.push_str(&format!(" -> {}", fs::read_link(&path).unwrap().display()));
            } else {
                let mut attribute = [0; 8];
                let attribute = getxattr(&path, "user.job", &mut attribute[..])
                    .map(|length| attribute[..length].to_vec());
                line.push_str(&format!(" {:?} {attribute:?}", fs::read(&path).unwrap()));
            }
            lines.push(line);
        }
        lines.sort();
        lines
    }
}

/// A volume of 2 MiB and 80 entries.
struct SmallVolume(Volume);

impl SmallVolume {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=2m,nr_inodes=80", "none"];
        run(std::process::Command::new("mount").args(mount).arg(directory.path())).ok();
        fs::create_dir(directory.path().join("a")).unwrap();
        for (name, byte) in [("a/f1", 1), ("a/f2", 2), ("a/f3", 3)] {
            fs::write(directory.path().join(name), vec![byte; 200_000]).unwrap();
        }
        fs::hard_link(directory.path().join("a/f1"), directory.path().join("twin")).unwrap();
        Self(Volume(directory))
    }
}

impl Drop for SmallVolume {
    fn drop(&mut self) {
        run(std::process::Command::new("umount").arg("-l").arg(self.0.path()));
    }
}

/// Runs a script where volumes are mounted, and sees to it that they are as before.
#[track_caller]
fn unharmed(place: Place, volumes: &[(&Volume, &str)], out: &Path, script: &str) -> Outcome {
    let before: Vec<_> = volumes.iter().map(|(volume, _)| volume.manifest()).collect();
    let mounts: Vec<String> = volumes.iter().map(|(volume, target)| volume.mounted_at(target)).collect();
    let nothing = Context::empty();
    let outcome = place.run(nothing.path(), out, &mounts, script);
    for ((volume, target), before) in volumes.iter().zip(before) {
        let after = volume.manifest();
        let only = |a: &[String], b: &[String]| {
            a.iter().filter(|line| !b.contains(line)).cloned().collect::<Vec<_>>()
        };
        assert!(
            before == after,
            "{place:?} {target}: gone {:#?}, new {:#?}\n{outcome}",
            only(&before, &after),
            only(&after, &before)
        );
    }
    outcome
}

fn out() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// The digest of an image as a plain host builds it.
fn on_this_host(context: &Path, arguments: &[&str]) -> String {
    let mut command = Kiln::new().command("build");
    command
        .args(["--progress=plain", "--build-arg=SOURCE_DATE_EPOCH=1700000000"])
        .args(arguments)
        .arg(context);
    crate::support::run(&mut command).ok().stdout
}

fn on_busybox(lines: &str) -> String {
    lines.replace("BUSYBOX", crate::support::base::busybox())
}

/// A Dockerfile as kubebuilder writes it; its context has other things that are not copied.
const KUBEBUILDER: &str = "FROM BUSYBOX AS builder\n\
    WORKDIR /workspace\n\
    COPY go.mod go.sum ./\n\
    RUN test ! -e own && test ! -e .env && cat go.mod go.sum > downloaded && chmod 600 go.sum\n\
    COPY main.go main.go\n\
    COPY internal/ internal/\n\
    RUN cat main.go internal/*.go > manager && chmod 4755 manager && ln manager twin && rm -r internal && \
        mkdir -p deep/er && echo x > deep/er/x && ln -s er deep/link && chown -R 7:8 deep && mv go.mod moved\n\
    RUN touch go.sum && test \"$(stat -c %a go.sum)\" = 600 && mv deep/er deep/other && rm twin\n\
    FROM BUSYBOX\n\
    WORKDIR /\n\
    COPY --from=builder /workspace/manager .\n\
    USER 65532:65532\n\
    ENTRYPOINT [\"/manager\"]\n";

fn kubebuilder() -> Context {
    Context::new(&on_busybox(KUBEBUILDER))
        .file("go.mod", "module m\n")
        .file("go.sum", "sum\n")
        .file("main.go", "package main\n")
        .file("internal/a.go", "package a\n")
        .file("internal/b.go", "package b\n")
}

#[test]
fn kanikos_layout_gives_the_digest_of_a_plain_host() {
    require!(Busybox, Root, Program(RUNTIME));
    let plain = kubebuilder();
    let wanted =
        [on_this_host(plain.path(), &[]), on_this_host(plain.path(), &["--target=builder"])].concat();
    for place in [A, C] {
        let volume = Volume::of(kubebuilder());
        let script = "cd /workspace; $BUILD . && $BUILD --no-cache --target=builder /workspace";
        let built = unharmed(place, &[(&volume, "/workspace")], out().path(), script).ok();
        assert_eq!(built.stdout, wanted, "{place:?}\n{built}");
        assert!(!built.stderr.contains("warning"), "{built}");
    }
    let built = Place::Kind("B").run(
        plain.path(),
        out().path(),
        &[],
        "$BUILD /context; $BUILD --target=builder /context",
    );
    assert_eq!(built.ok().stdout, wanted);
}

#[test]
fn other_jobs_volumes_give_the_digest_of_a_plain_host() {
    require!(Busybox, Root, Program(RUNTIME));
    // Tekton's workspace and home, GitLab's builds, an emptyDir at /tmp and one below /var.
    let lines = "FROM BUSYBOX AS one\n\
        RUN mkdir -p /tmp /var/cache/apt /builds/group /etc/app && echo 1 > /tmp/a && echo 2 > /var/cache/apt/b && \
            echo 3 > /builds/group/c && echo 4 > /etc/app/d && chmod 1777 /tmp && touch -d @1600000000 /tmp /var/cache /builds /etc/app\n\
        WORKDIR /tekton/home\n\
        COPY main.go /workspace/source/\n\
        RUN echo 5 > e && cat /workspace/source/main.go /tmp/a >> /tmp/more && rm /tmp/a && rm -r /builds/group && ls /etc/app > /seen\n\
        RUN --mount=type=cache,target=/tmp/cache --mount=type=tmpfs,target=/var/cache/apt --mount=type=bind,source=main.go,target=/tmp/more \
            echo x > /tmp/cache/x && echo y > /var/cache/apt/y && cat /tmp/more > /tmp/of-bind\n\
        FROM one\n\
        COPY --from=one /tmp /of-one\n\
        RUN <<EOF\n\
        cat /of-one/of-bind /var/cache/apt/b > /tmp/last\n\
        EOF\n";
    let context = || Context::new(&on_busybox(lines)).file("main.go", "package main\n");
    let wanted = on_this_host(context().path(), &[]);
    for place in [A, C] {
        let builds = Volume::new();
        fs::create_dir(builds.path().join("project")).unwrap();
        run(std::process::Command::new("cp")
            .arg("-a")
            .arg(context().path().join("."))
            .arg(builds.path().join("project")))
        .ok();
        let others: Vec<Volume> = (0..5).map(|_| Volume::new()).collect();
        let targets = ["/workspace/source", "/tekton/home", "/tmp", "/var/cache", "/etc/app"];
        let mut volumes: Vec<(&Volume, &str)> = others.iter().zip(targets).collect();
        volumes.push((&builds, "/builds"));
        let script = "export DOCKER_CONFIG=/kiln/.docker; cd /builds/project; $BUILD .";
        let built = unharmed(place, &volumes, out().path(), script).ok();
        assert_eq!(built.stdout, wanted, "{place:?}\n{built}");
    }
}

#[test]
fn what_is_put_aside_survives_every_step() {
    require!(Busybox, Root, Program(RUNTIME));
    let steps = [
        "rm -rf /workspace || true",
        // busybox has no `-delete`.
        "find /tmp -mindepth 1 -depth -exec rm -rf {} +",
        "rm -rf /workspace/* /workspace/.[!.]* /tmp; false",
        "chown -R 33:33 /workspace /tmp; chmod -R a=rwx /workspace; touch -d @1 /tmp/.kiln-*/own/*",
        "mv /tmp/.kiln-* /tmp/mine",
        "for d in /workspace/.kiln-*; do echo evil > $d/own/own/.git/hooks/post-checkout; echo evil >> $d/own/main.go; \
            touch -r $d/own/.env $d/own/main.go; ln -sf /etc/passwd $d/own/.env; rm -r $d/own/own/.git/config; \
            mkdir $d/own/own/.git/config; setfattr -n user.job -v y $d/own/own/kept; done 2>/dev/null || true",
        "chmod -R g=u / 2>/dev/null; true",
    ];
    for place in [A, C] {
        let (workspace, tmp) = (Volume::new(), Volume::new());
        let out = out();
        let mut script = String::new();
        for (number, step) in steps.iter().enumerate() {
            let directory = out.path().join(number.to_string());
            fs::create_dir(&directory).unwrap();
            fs::write(
                directory.join("Dockerfile"),
                on_busybox(&format!("FROM BUSYBOX\nRUN {step}\nRUN ls -A /workspace /tmp\n")),
            )
            .unwrap();
            script.push_str(&format!(
                "cp -r /out/{number} /kiln/c; $BUILD /kiln/c && echo {number}; rm -r /kiln/c; "
            ));
        }
        let volumes = [(&workspace, "/workspace"), (&tmp, "/tmp")];
        let built = unharmed(place, &volumes, out.path(), &script);
        let ended: Vec<&str> = built.stdout.lines().filter(|line| line.len() == 1).collect();
        assert_eq!(ended, ["0", "1", "3", "5", "6"], "{place:?}\n{built}");
        assert!(
            built.stderr.contains("`/tmp/mine`: the step moved there what was put aside of the volume"),
            "{built}"
        );
        assert!(
            built.stderr.matches("the step changed what was put aside of the volume").count() >= 6,
            "{built}"
        );
    }
}

#[test]
fn a_step_that_spoils_the_copy_fails_the_build() {
    require!(Busybox, Root, Program(RUNTIME));
    for step in [
        "for f in $(find /kiln/store -path '*volumes/*' -name main.go); do echo evil > $f; done",
        "for d in $(find /kiln/store -path '*volumes/0' -type d); do echo evil > $d/planted; done",
    ] {
        let volume = Volume::of(Context::new(&on_busybox(&format!(
            "FROM BUSYBOX AS one\nRUN {step}\nFROM BUSYBOX\nCOPY --from=one /etc /of-one\nCOPY . /all\n"
        ))));
        let script = "$BUILD /workspace && echo BUILT";
        let ended = unharmed(A, &[(&volume, "/workspace")], out().path(), script);
        assert!(
            !ended.stdout.contains("BUILT") && ended.stderr.contains("sandbox/volumes/"),
            "{step}\n{ended}"
        );
    }
}

#[test]
fn the_jobs_own_log_goes_on_and_other_stages_copy_the_context() {
    require!(Busybox, Root, Program(RUNTIME));
    let context = Context::new(&on_busybox(
        "FROM BUSYBOX AS one\n\
         RUN echo begun; touch /dev/shm/begun; n=0; while ! test -e /dev/shm/copied && test $n -lt 60; do sleep 0.05; n=$((n+1)); done; \
             ls /workspace > /seen; echo ended\n\
         FROM BUSYBOX AS two\n\
         COPY . /all\n\
         FROM scratch\n\
         COPY --from=one /seen /\n\
         COPY --from=two /all/main.go /\n",
    ))
    .file("main.go", "package main\n");
    let volume = Volume::of(context);
    let script = "umask 022; kiln build --progress=plain --no-cache --output=type=local,dest=/out/files /workspace > /workspace/log 2>&1 & \
        n=0; while ! test -e /dev/shm/begun && test $n -lt 600; do sleep 0.05; n=$((n+1)); done; sleep 1; \
        touch /dev/shm/copied; wait $!; echo $?; cat /workspace/log; rm /workspace/log; touch -d @1600000000 /workspace";
    run(std::process::Command::new("touch").args(["-d", "@1600000000"]).arg(volume.path())).ok();
    let out = out();
    let ended = unharmed(A, &[(&volume, "/workspace")], out.path(), script);
    assert!(ended.stdout.starts_with("0\n"), "{ended}");
    for line in ["begun", "ended"] {
        assert!(ended.stdout.contains(line), "{line}\n{ended}");
    }
    assert_eq!(fs::read_to_string(out.path().join("files/main.go")).unwrap(), "package main\n");
}

#[test]
fn a_volume_that_is_too_large_or_loses_something_is_an_error() {
    require!(Busybox, Root, Program(RUNTIME), Program("mkfs.ext2"));
    let volume = Volume::of(Context::new(&on_busybox("FROM BUSYBOX\nRUN true\n")));
    fs::write(volume.path().join("large"), vec![1; 2 << 20]).unwrap();
    let script = "$BUILD --volume-backup-limit=1m /workspace && echo BUILT; $BUILD --volume-backup-limit=3m /workspace";
    let ended = unharmed(A, &[(&volume, "/workspace")], out().path(), script).ok();
    let said = "a volume of the container at `/workspace` is in the way: it holds 2 MiB";
    assert!(ended.stderr.contains(said) && ended.stderr.contains("KILN_VOLUME_BACKUP_LIMIT"), "{ended}");
    assert!(!ended.stdout.contains("BUILT") && ended.stdout.contains("sha256:"), "{ended}");
    // ext2 with small inodes keeps whole seconds.
    let small = tempfile::tempdir().unwrap();
    let image = small.path().join("image");
    let mounted = small.path().join("mounted");
    fs::create_dir(&mounted).unwrap();
    fs::File::create(&image).unwrap().set_len(4 << 20).unwrap();
    run(std::process::Command::new("mkfs.ext2").args(["-q", "-I", "128"]).arg(&image)).ok();
    run(std::process::Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mounted)).ok();
    let context = Context::on_busybox("RUN true\n");
    let volumes = [format!("{}:/cache", mounted.display())];
    let ended = A.run(context.path(), out().path(), &volumes, "ls -A /cache; $BUILD /context; ls -A /cache");
    run(std::process::Command::new("umount").arg(&mounted)).ok();
    let said =
        "a volume of the container at `/cache` is in the way: it does not keep times, which an image has";
    assert!(ended.stderr.contains(said), "{ended}");
    assert_eq!(ended.stdout, "lost+found\nlost+found\n", "{ended}");
}

#[test]
fn only_steps_that_see_less_stay_out_of_the_caches() {
    require!(Busybox, Root, Program(RUNTIME));
    let account = Volume::new();
    let read_only = format!("{}:/var/run/secrets/kubernetes.io/serviceaccount:ro", account.path().display());
    let data = format!("{}:/data:ro", account.path().display());
    let single = format!("{}:/root-file", account.path().join("main.go").display());
    let before = account.manifest();
    let plain = Context::on_busybox("RUN echo 1 > /one\nRUN mkdir /var/run2 && echo 2 > /two\n");
    let script = "$BUILD /context; $BUILD /context";
    for volumes in [vec![read_only.clone()], vec![read_only.clone(), data.clone()]] {
        let built = A.run(plain.path(), out().path(), &volumes, script).ok();
        assert_eq!(built.stderr.matches("CACHED").count(), 2, "{built}");
        assert!(!built.stderr.contains("warning"), "{built}");
    }
    let below = Context::on_busybox("COPY Dockerfile /data/\nRUN ls /data > /seen\n");
    let built = A.run(below.path(), out().path(), std::slice::from_ref(&data), script).ok();
    assert_eq!(built.stderr.matches("the step does not see the image's `/data`").count(), 2, "{built}");
    let written = Context::on_busybox("RUN echo overwritten > /root-file\n");
    let ended = A.run(written.path(), out().path(), &[single], "$BUILD /context && echo BUILT");
    let said = "a volume of the container at `/root-file` is in the way: the step wrote to this single file";
    assert!(ended.stderr.contains(said) && !ended.stdout.contains("BUILT"), "{ended}");
    fs::write(account.path().join("main.go"), "the job's").unwrap();
    assert_eq!(before.len(), account.manifest().len());
}

#[test]
fn volumes_in_volumes_and_at_several_places() {
    require!(Busybox, Root, Program(RUNTIME));
    let lines = "FROM BUSYBOX\n\
        RUN mkdir -p /data/inner/deep && echo 1 > /data/inner/deep/a && echo 2 > /data/b\n\
        RUN cat /data/inner/deep/a /data/b > /data/inner/c && rm /data/b && ls /data/inner > /seen\n";
    let context = Context::new(&on_busybox(lines));
    let wanted = on_this_host(context.path(), &[]);
    let (outer, inner, kept) = (Volume::new(), Volume::new(), Volume::of(context));
    fs::create_dir(outer.path().join("inner")).unwrap();
    let volumes = [(&outer, "/data"), (&inner, "/data/inner"), (&kept, "/kept")];
    let built = unharmed(A, &volumes, out().path(), "$BUILD /kept").ok();
    assert_eq!(built.stdout, wanted, "{built}");
    // The same directory twice: nothing can be told apart below it.
    let twice = [(&outer, "/data"), (&outer, "/twin"), (&kept, "/kept")];
    let ended = unharmed(A, &twice, out().path(), "$BUILD /kept && echo BUILT");
    let said = "it is mounted at several places";
    assert!(ended.stderr.contains(said) && !ended.stdout.contains("BUILT"), "{ended}");
}

#[test]
fn secrets_below_a_volume_are_in_no_layer() {
    require!(Busybox, Root, Program(RUNTIME));
    let context = Context::on_busybox(
        "WORKDIR /workspace\n\
         RUN echo mine > other\n\
         RUN --mount=type=secret,id=s,target=/workspace/deep/s --mount=type=secret,id=s,target=/workspace/other \
             cat deep/s other && chmod 600 deep/s other && mv deep/s moved && echo kept > deep/kept\n\
         RUN ls -R; cat other; ! grep -r s3cr3t deep other\n",
    );
    let volume = Volume::of(context);
    let script =
        "echo s3cr3t > /kiln/s; $BUILD --secret id=s,src=/kiln/s --output=type=tar,dest=/out/tar /workspace";
    let out = out();
    let built = unharmed(A, &[(&volume, "/workspace")], out.path(), script).ok();
    assert!(built.stderr.contains("s3cr3t") && built.stderr.contains(" mine\n"), "{built}");
    let tar = fs::read(PathBuf::from(out.path()).join("tar")).unwrap();
    assert!(!tar.windows(6).any(|bytes| bytes == b"s3cr3t"), "{built}");
}

#[test]
fn what_is_put_aside_is_in_no_layer() {
    require!(Busybox, Root, Program(RUNTIME));
    let volume = Volume::of(Context::on_busybox("WORKDIR /workspace\nRUN cp -a . /elsewhere\n"));
    let ended = unharmed(A, &[(&volume, "/workspace")], out().path(), "$BUILD /workspace && echo BUILT");
    let said = "the step copied files of a volume of the container, which wait in `.kiln-";
    assert!(ended.stderr.contains(said) && !ended.stdout.contains("BUILT"), "{ended}");
}

#[test]
fn the_next_container_puts_back_what_a_killed_one_left_aside() {
    require!(Busybox, Root, Program(RUNTIME));
    let volume = Volume::of(Context::on_busybox("RUN touch /dev/shm/begun; sleep 100\n"));
    let before = volume.manifest();
    let mounts = [volume.mounted_at("/workspace")];
    let script = "$BUILD /workspace & while ! test -e /dev/shm/begun; do sleep 0.05; done; \
        all=$(grep -lxE 'kiln|exe' /proc/[0-9]*/comm | cut -d/ -f3); kill -STOP $all; kill -9 $all";
    A.run(Context::empty().path(), out().path(), &mounts, script);
    assert!(volume.manifest() != before && volume.path().read_dir().unwrap().count() == 1, "it is aside");
    let context = Context::on_busybox("COPY Dockerfile /\n");
    let built = A.run(context.path(), out().path(), &mounts, "$BUILD /context").ok();
    assert!(built.stderr.contains("entries of the volume `/workspace` back"), "{built}");
    // Nothing in a volume proves how its root looked.
    let rest =
        |lines: Vec<String>| lines.into_iter().filter(|line| !line.starts_with(' ')).collect::<Vec<_>>();
    assert_eq!(rest(volume.manifest()), rest(before));
}

/// Where the container's own files wait while a step is in place.
const PARK: &str = "/kiln/store/kiln/sandbox/park";

/// Tekton's `/workspace/source`: neither copied nor compared, and with the directory above it to be moved away: rc 0.
#[test]
fn a_volume_below_the_top_is_as_before_and_where_it_was() {
    require!(Busybox, Root, Program(RUNTIME));
    let planted = format!("mkdir -p {PARK}/workspace/source; echo evil > {PARK}/workspace/source/main.go");
    let steps = [
        (format!("cd {PARK}/workspace/source; echo evil > main.go; echo x > new; rm -r own twin"), ""),
        (format!("mv {PARK}/workspace /kiln/store/kiln/work/hidden; {planted}"), "at its place again"),
        (format!("mv {PARK}/workspace /mine; {planted}"), "at its place again"),
        (format!("mv {PARK}/workspace /mine; : > {PARK}/workspace"), "at its place again"),
    ];
    for place in [A, C] {
        let (volume, out) = (Volume::new(), out());
        let mut script = "export DOCKER_CONFIG=/kiln/.docker; ".to_owned();
        for (number, (step, _)) in steps.iter().enumerate() {
            fs::create_dir(out.path().join(number.to_string())).unwrap();
            let dockerfile = on_busybox(&format!("FROM BUSYBOX\nRUN {step}\n"));
            fs::write(out.path().join(format!("{number}/Dockerfile")), dockerfile).unwrap();
            script.push_str(&format!(
                "$BUILD --no-cache /out/{number} && echo {number}; cat /workspace/source/main.go; echo; "
            ));
        }
        let built = unharmed(place, &[(&volume, "/workspace/source")], out.path(), &script);
        let said: Vec<&str> = built.stdout.lines().filter(|line| !line.starts_with("sha256:")).collect();
        assert_eq!(said, ["0", "the job's", "the job's", "the job's", "the job's"], "{place:?}\n{built}");
        let changed = "the step changed what was put aside of the volume `/workspace/source`";
        assert!(built.stderr.contains(changed), "{built}");
        let moved = "a volume of the container at `/workspace/source` is in the way: the step moved it to";
        assert_eq!(built.stderr.matches(moved).count(), 3, "{place:?}\n{built}");
        assert_eq!(built.stderr.matches("it is at its place again").count(), 3, "{place:?}\n{built}");
    }
}

/// The end of a step that kills kiln.
const KILL_KILN: &str = "kill -9 $(cut -d' ' -f4 /proc/$PPID/stat); sleep 100";

/// That of one that kills its keeper and its watcher as well, before one of them can do anything.
const KILL_ALL: &str = "k=$(cut -d' ' -f4 /proc/$PPID/stat); all=\"$(cut -d' ' -f4 /proc/$k/stat) $k $PPID\"; \
    kill -STOP $all; kill -9 $all; sleep 100";

/// Killing kiln alone gained the volume: only what was missing came back, and what a step had written there stayed.
#[test]
fn killing_kiln_alone_gains_no_volume() {
    require!(Busybox, Root, Program(RUNTIME));
    let credentials = "echo '{\"auths\":{\"r.example\":{\"auth\":\"dTpw\"}}}' > /kiln/.docker/config.json; ";
    let after = "; echo rc $?; test -s /kiln/.docker/config.json && echo refilled; kiln images > /dev/null";
    let edit = "echo evil > main.go; echo evil >> own/kept; echo x > new; mkdir own/dir; echo x > own/dir/y; rm .env; \
        rm -r own/.git; ln -s /etc/passwd .env; chmod 777 own";
    for place in [A, C] {
        let (top, below) = (Volume::new(), Volume::new());
        let step = format!(
            "cd /workspace/.kiln-*.away/own; {edit}; cd {PARK}/data/source; {edit}; echo stage > /workspace/x; {KILL_KILN}"
        );
        let out = out();
        fs::write(out.path().join("Dockerfile"), on_busybox(&format!("FROM BUSYBOX\nRUN {step}\n"))).unwrap();
        let volumes = [(&top, "/workspace"), (&below, "/data/source")];
        let script = format!("{credentials}$BUILD /out{after}");
        let ended = unharmed(place, &volumes, out.path(), &script);
        assert!(ended.stdout.starts_with("rc 137\nrefilled\n"), "{place:?}\n{ended}");
        // What waits is gone altogether, and the directory it waited in.
        let step = format!(
            "find /workspace -mindepth 1 -depth -exec rm -rf {{}} +; echo x > /workspace/x; {KILL_KILN}"
        );
        fs::write(out.path().join("Dockerfile"), on_busybox(&format!("FROM BUSYBOX\nRUN {step}\n"))).unwrap();
        let ended = unharmed(place, &volumes, out.path(), &script);
        assert!(ended.stdout.starts_with("rc 137\nrefilled\n"), "{place:?}\n{ended}");
        // With the copies spoilt as well there is nothing to put it right from: it is named, and nothing is refilled.
        let spoil =
            "for f in $(find /kiln/store/kiln/sandbox/volumes -name main.go); do echo evil > $f; done";
        let step = format!("cd /workspace/.kiln-*.away/own; echo evil > main.go; {spoil}; {KILL_KILN}");
        fs::write(out.path().join("Dockerfile"), on_busybox(&format!("FROM BUSYBOX\nRUN {step}\n"))).unwrap();
        let mounts = volumes.map(|(volume, target)| volume.mounted_at(target));
        let ended = place.run(Context::empty().path(), out.path(), &mounts, &script);
        assert!(ended.stdout.starts_with("rc 137\n") && !ended.stdout.contains("refilled"), "{ended}");
        let told: Vec<_> =
            ended.stderr.lines().filter(|line| line.contains("not as it was before a step")).collect();
        assert!(told.iter().any(|line| line.contains("`/workspace/main.go`")), "{ended}");
    }
}

/// A directory called like the one in which kiln puts a volume's entries aside: from a repository it had all that is beside it removed.
#[test]
fn a_directory_in_a_volume_is_no_proof_of_anything() {
    require!(Busybox, Root, Program(RUNTIME));
    const STRAY: &str = ".kiln-00000000-0000000000000000-00000000.away";
    let out = out();
    fs::write(out.path().join("Dockerfile"), on_busybox("FROM BUSYBOX\nRUN true\n")).unwrap();
    for place in [A, C] {
        let volume = Volume::new();
        let stray = volume.path().join(STRAY);
        fs::create_dir_all(stray.join("own")).unwrap();
        fs::write(stray.join("own/main.go"), "evil").unwrap();
        let look =
            r#"{"look":{"mode":511,"uid":4242,"gid":7,"mtime_seconds":0,"mtime_nanoseconds":0},"xattrs":[]}"#;
        fs::write(stray.join("look"), look).unwrap();
        let before = volume.manifest();
        let mounts = [volume.mounted_at("/workspace")];
        let ended = place.run(Context::empty().path(), out.path(), &mounts, "$BUILD /out; echo rc $?");
        assert!(ended.stdout.contains("rc 1") && ended.stderr.contains(STRAY), "{place:?}\n{ended}");
        // What it had locked is all that went.
        let after = volume.manifest();
        let is_kept = |line: &&String| !line.contains("/look") && !line.contains(STRAY);
        assert!(
            before.iter().filter(is_kept).eq(after.iter().filter(is_kept)),
            "{place:?} {before:#?}\n{after:#?}"
        );
        assert_eq!(fs::read_to_string(stray.join("own/main.go")).unwrap(), "evil");
    }
    let steps = [
        format!("mkdir -p /workspace/{STRAY}/own; echo evil > /workspace/{STRAY}/own/main.go"),
        format!("cd /workspace/.kiln-*.away/own; mkdir -p {STRAY}/own; echo evil > {STRAY}/own/main.go"),
    ];
    for place in [A, C] {
        for step in &steps {
            let volume = Volume::new();
            fs::write(out.path().join("evil"), on_busybox(&format!("FROM BUSYBOX\nRUN {step}\n"))).unwrap();
            let script = "$BUILD -f /out/evil /out > /out/log 2>&1; $BUILD /out && echo next";
            let ended = unharmed(place, &[(&volume, "/workspace")], out.path(), script);
            assert!(ended.stdout.contains("next"), "{place:?} {step}\n{ended}");
        }
    }
}

/// Whoever settled when kiln was killed put into the volumes what a list said, after having compared them.
#[test]
fn a_forged_list_of_copies_puts_nothing_into_a_volume() {
    require!(Busybox, Root, Program(RUNTIME));
    // The last of its numbers is the last of the copy's path: another copy, or another volume, or nothing that can be read.
    let volumes = "cd /kiln/store/kiln/sandbox/volumes; mkdir -p 9 /kiln/store/kiln/work/evil; echo evil > 9/evil; chmod 777 9; \
        cp -a 9/. /kiln/store/kiln/work/evil";
    let another = "sed -i 's/,48\\]}/,57]}/g' unchecked; grep -q ',57\\]}' unchecked || echo NOT FO''RGED";
    let elsewhere = "sed -i 's/\\[47,119,111,114,107,115,112,97,99,101\\]/[47,118,97,114]/' unchecked; \
        grep -q '\\[47,118,97,114\\]' unchecked || echo NOT FO''RGED";
    for (kind, forged, kill, code) in [
        ("A", another, KILL_KILN, "rc 137"),
        ("C", another, KILL_KILN, "rc 137"),
        ("A", "echo '[{}]' > unchecked", KILL_KILN, "rc 137"),
        ("A", elsewhere, KILL_ALL, "rc 137"),
        ("A", "echo '[{}]' > unchecked", KILL_ALL, "rc 137"),
    ] {
        let (volume, out) = (Volume::new(), out());
        let step = format!("{volumes}; {forged}; {kill}");
        fs::write(out.path().join("evil"), on_busybox(&format!("FROM BUSYBOX\nRUN {step}\n"))).unwrap();
        fs::write(out.path().join("Dockerfile"), on_busybox("FROM BUSYBOX\nRUN true\n")).unwrap();
        let script = "mkdir -p /var; $BUILD -f /out/evil /out; echo rc $?; sleep 1; \
            $BUILD /out; $BUILD /out && echo next; test -e /var/evil && echo EVIL";
        let ended = unharmed(Place::Kind(kind), &[(&volume, "/workspace")], out.path(), script);
        assert!(ended.stdout.contains(code) && ended.stdout.contains("next"), "{kind} {forged}\n{ended}");
        assert!(
            !ended.stderr.contains("NOT FORGED") && !ended.stdout.contains("EVIL"),
            "{kind} {forged}\n{ended}"
        );
    }
}

/// `kiln build … > /workspace/build.log`: what the job has open for writing was left to it, wherever a step moved it.
#[test]
fn the_jobs_log_becomes_no_program() {
    require!(Busybox, Root, Program(RUNTIME));
    let hook = "own/.git/hooks/post-checkout";
    let evil = "printf '#!/bin/sh\\necho EVIL\\n'";
    for (place, step) in [
        (A, format!("mv build.log {hook}; {evil} > {hook}; chmod 4755 {hook}")),
        (C, format!("mv build.log {hook}; {evil} > {hook}; chmod 4755 {hook}")),
        (A, format!("ln build.log {hook}; {evil} > {hook}; chmod 4755 {hook}")),
        (A, "chmod 4755 build.log".to_owned()),
    ] {
        let (volume, out) = (Volume::new(), out());
        let text = format!("FROM BUSYBOX\nRUN cd /workspace/.kiln-*.away/own; {step}\n");
        fs::write(out.path().join("Dockerfile"), on_busybox(&text)).unwrap();
        let before = volume.manifest();
        let mounts = [volume.mounted_at("/workspace")];
        let script = "umask 022; $BUILD /out > /workspace/build.log 2>&1; echo rc $?; echo the job goes on >> /workspace/build.log";
        let ended = place.run(Context::empty().path(), out.path(), &mounts, script);
        let log = volume.path().join("build.log");
        assert!(fs::read_to_string(&log).unwrap_or_default().contains("the job goes on"), "{step}\n{ended}");
        assert_eq!(fs::metadata(&log).unwrap().mode() & 0o7777, 0o644, "{step}\n{ended}");
        fs::remove_file(log).unwrap();
        // Removing it has changed the root's time.
        let rest =
            |lines: Vec<String>| lines.into_iter().filter(|line| !line.starts_with(' ')).collect::<Vec<_>>();
        assert_eq!(rest(before), rest(volume.manifest()), "{step}\n{ended}");
    }
}

/// The next start took the list of copies for a step's, where one of them was of a volume beside kiln's own files.
#[test]
fn the_next_start_puts_every_sort_of_volume_right() {
    require!(Busybox, Root, Program(RUNTIME));
    let out = out();
    let remove =
        ["/workspace/.kiln-*.away/own".to_owned(), format!("{PARK}/data/source"), "/kiln/job".into()];
    let remove = remove.map(|place| format!("cd {place}; rm -r own main.go twin")).join("; ");
    let text = format!("FROM BUSYBOX\nRUN {remove}; rm /cache/main.go; {KILL_ALL}\n");
    fs::write(out.path().join("evil"), on_busybox(&text)).unwrap();
    fs::write(out.path().join("Dockerfile"), on_busybox("FROM BUSYBOX\nRUN true\n")).unwrap();
    let volumes = ["/workspace", "/data/source", "/kiln/job", "/cache"].map(|target| (Volume::new(), target));
    // One that is a cache as a whole.
    let script = "$BUILD -f /out/evil --cache-to=type=local,dest=/cache /out; echo rc $?; sleep 1; $BUILD /out && echo next";
    let before = volumes.each_ref().map(|(volume, _)| volume.manifest());
    let mounts = volumes.each_ref().map(|(volume, target)| volume.mounted_at(target));
    let ended = A.run(Context::empty().path(), out.path(), &mounts, script);
    assert!(ended.stdout.contains("rc 137\n") && ended.stdout.contains("next"), "{ended}");
    for ((volume, target), before) in volumes.iter().zip(before) {
        let after = volume.manifest();
        // Beside what a cache has, and the root's time.
        let lost: Vec<&String> =
            before.iter().filter(|line| !line.starts_with(' ') && !after.contains(line)).collect();
        assert!(lost.is_empty(), "{target}: {lost:#?}\n{ended}");
    }
}

/// `RUN rm -rf /*`: the volume was empty, and all that was said was `/kiln`: Invalid argument.
#[test]
fn volumes_whose_files_are_lost_are_named() {
    require!(Busybox, Root, Program(RUNTIME));
    let (workspace, data) = (Volume::new(), Volume::new());
    let context = Context::on_busybox("RUN rm -rf /* ; true\n");
    let mounts = [workspace.mounted_at("/workspace"), data.mounted_at("/data/source")];
    let ended = A.run(context.path(), out().path(), &mounts, "$BUILD /context && echo BUILT");
    let said = "the step destroyed files of the container's volumes, which are lost";
    assert!(ended.stderr.contains(said) && !ended.stdout.contains("BUILT"), "{ended}");
    for named in ["in `/workspace`", "in `/data/source`"] {
        assert!(ended.stderr.contains(named), "{named}\n{ended}");
    }
    assert!(!ended.stderr.contains("Invalid argument"), "{ended}");
}

/// `/kiln/.docker` on a volume, as docs/isolation.md advises, was neither copied nor compared: a planted `config.json` stayed.
#[test]
fn a_volume_beside_kilns_own_files_is_as_before() {
    require!(Busybox, Root, Program(RUNTIME));
    let plant = "echo '{\"credsStore\":\"evil\"}' > /kiln/.docker/config.json; cd /kiln/job; echo evil > main.go; chmod 4755 main.go; \
        rm .env; mkdir new; echo x > new/x; mv own/.git own/git; chmod 777 .";
    let steps = [
        (format!("{plant}; true"), "rc 1", "the step removed or replaced the container's own `/kiln/"),
        (format!("{plant}; {KILL_KILN}"), "rc 137", ""),
        (
            "chmod 777 /kiln/job /kiln/job/main.go; touch /kiln/job/own/kept".to_owned(),
            "rc 0",
            "which is as before",
        ),
        ("true".to_owned(), "rc 0", "DONE"),
    ];
    for place in [A, C] {
        let (docker, job, read_only, out) = (Volume::new(), Volume::new(), Volume::new(), out());
        let mut script = "export DOCKER_CONFIG=/kiln/.docker; ".to_owned();
        for (number, (step, _, _)) in steps.iter().enumerate() {
            fs::write(
                out.path().join(number.to_string()),
                on_busybox(&format!("FROM BUSYBOX\nRUN {step}\n")),
            )
            .unwrap();
            script.push_str(&format!(
                "$BUILD --no-cache -f /out/{number} /context > /out/log{number} 2>&1; echo rc $?; test -e /kiln/.docker/config.json && echo PLANTED; "
            ));
        }
        script.push_str("$BUILD --volume-backup-limit=200k -f /out/3 /context");
        fs::write(job.path().join("large"), vec![1; 300 << 10]).unwrap();
        let read_only = format!("{}:ro", read_only.mounted_at("/kiln/read-only"));
        let mounts = [docker.mounted_at("/kiln/.docker"), job.mounted_at("/kiln/job"), read_only];
        let before = [docker.manifest(), job.manifest()];
        let ended = place.run(Context::empty().path(), out.path(), &mounts, &script);
        let wanted: Vec<&str> = steps.iter().map(|(_, code, _)| *code).collect();
        assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), wanted, "{place:?}\n{ended}");
        for (number, (_, _, says)) in steps.iter().enumerate() {
            let log = fs::read_to_string(out.path().join(format!("log{number}"))).unwrap();
            assert!(log.contains(says), "{place:?} {number}: expected `{says}`\n{log}");
        }
        assert_eq!([docker.manifest(), job.manifest()], before, "{place:?}\n{ended}");
        let said = "a volume of the container at `/kiln/job` is in the way: it holds";
        assert!(ended.stderr.contains(said), "{place:?}\n{ended}");
    }
}

/// A secret on a volume was in the volume's copy, where a step could read it.
#[test]
fn credentials_on_a_volume_are_in_no_copy() {
    require!(Busybox, Root, Program(RUNTIME));
    let search = "! grep -rqs -e dT[p]w -e s3cr[3]t /kiln /workspace && ! test -s /kiln/.docker/config.json";
    let steps = [
        (search.to_owned(), "0"),
        (format!("{search} && echo x > /kiln/.docker/docker-credential-evil"), "1"),
        ("rm /kiln/.docker/config.json; echo evil > /kiln/.docker/config.json".to_owned(), "1"),
    ];
    for place in [A, C] {
        let (directory, out) = (tempfile::tempdir().unwrap(), out());
        run(std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(directory.path())).ok();
        let volume = |name: &str, file: &str, text: &str| {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::write(directory.path().join(name).join(file), text).unwrap();
            fs::set_permissions(directory.path().join(name).join(file), fs::Permissions::from_mode(0o600))
                .unwrap();
            directory.path().join(name)
        };
        let docker = volume("docker", "config.json", "{\"auths\":{\"r.example\":{\"auth\":\"dTpw\"}}}");
        let workspace = volume("workspace", "secret", "s3cr3t");
        let mounts =
            [format!("{}:/kiln/.docker", docker.display()), format!("{}:/workspace", workspace.display())];
        let mut script = "export DOCKER_CONFIG=/kiln/.docker; ".to_owned();
        for (number, (step, _)) in steps.iter().enumerate() {
            fs::write(
                out.path().join(number.to_string()),
                on_busybox(&format!("FROM BUSYBOX\nRUN {step}\n")),
            )
            .unwrap();
            script.push_str(&format!(
                "$BUILD --no-cache --secret=id=s,src=/workspace/secret -f /out/{number} /context >&2; \
                 echo $? $(ls /kiln/.docker) $(grep -o dTpw /kiln/.docker/config.json) $(cat /workspace/secret); "
            ));
        }
        let ended = place.run(Context::empty().path(), out.path(), &mounts, &script);
        run(std::process::Command::new("umount").arg(directory.path())).ok();
        let lines: Vec<&str> = ended.stdout.lines().collect();
        // What was put in the place of a file with credentials does not stay there, either.
        assert_eq!(
            lines,
            ["0 config.json dTpw s3cr3t", "1 config.json dTpw s3cr3t", "1 s3cr3t"],
            "{place:?}\n{ended}"
        );
    }
}

/// What the step itself had in the volume left no room to put it right: that was not named, and the copy was thrown away.
#[test]
fn a_full_volume_is_put_right_whoever_is_killed() {
    require!(Busybox, Root, Program(RUNTIME));
    let fill = "cd /workspace; dd if=/dev/zero of=fill bs=64k; dd if=/dev/zero of=fill2 bs=512; i=0; while : > i$i; do i=$((i+1)); done";
    let kill = "K=$(cut -d' ' -f4 /proc/$PPID/stat); kill -9 $(cut -d' ' -f4 /proc/$K/stat) $K; sleep 100";
    let dockerfile = format!(
        "FROM BUSYBOX\nRUN cd /workspace/.kiln-*.away/own; echo EVIL > a/f1; rm a/f2; echo EVIL > b; ({fill}) 2> /dev/null; {kill}\n"
    );
    for place in [A, C] {
        let (volume, out) = (SmallVolume::new(), out());
        fs::write(out.path().join("Dockerfile"), on_busybox(&dockerfile)).unwrap();
        fs::write(out.path().join("honest"), on_busybox("FROM BUSYBOX\nRUN true\n")).unwrap();
        let script = "$BUILD /out; echo rc $?; n=0; while test -e /workspace/.kiln-* && test $n -lt 600; do sleep 0.1; n=$((n+1)); done; \
            sleep 0.5; $BUILD -f /out/honest /out && echo honest";
        let ended = unharmed(place, &[(&volume.0, "/workspace")], out.path(), script).ok();
        assert!(ended.stdout.starts_with("rc 137\n") && ended.stdout.ends_with("honest\n"), "{ended}");
        assert!(!ended.stderr.contains("not as it was"), "{ended}");
    }
}

/// What could not be put right is named with its copy, start by start, until the volume has it or the copy is removed.
#[test]
fn copies_of_what_cannot_be_put_right_stay() {
    require!(Busybox, Root, Program(RUNTIME));
    // Where a cache has its blobs nobody looks.
    let blob = format!("blobs/sha256/{}", "a".repeat(64));
    let fill = format!(
        "dd if=/dev/zero of=c/{blob} bs=64k; dd if=/dev/zero of=c/{blob} bs=512 oflag=append conv=notrunc"
    );
    let step = |end: &str| {
        format!(
            "FROM BUSYBOX\nRUN cd /workspace/.kiln-*.away/own; echo EVIL > a/f1; rm a/f2 a/f3; ({fill}) 2> /dev/null; {end}\n"
        )
    };
    for (end, code) in [(KILL_KILN, "rc 137"), ("true", "rc 1")] {
        let (volume, out) = (SmallVolume::new(), out());
        fs::remove_file(volume.0.path().join("twin")).unwrap();
        fs::write(out.path().join("Dockerfile"), on_busybox(&step(end))).unwrap();
        fs::write(out.path().join("honest"), on_busybox("FROM BUSYBOX\nCOPY honest /\n")).unwrap();
        let script = format!(
            "honest() {{ $BUILD -f /out/honest /out > /out/log$1 2>&1; echo honest $?; }}; cache='--cache-to=type=local,dest=/workspace/c'; \
             $BUILD $cache -f /out/honest /out >&2; $BUILD --no-cache $cache /out > /out/log 2>&1; echo rc $?; honest 1; rm /workspace/c/{blob}; \
             cp=$(ls -d /kiln/store/kiln/sandbox/volumes/[0-9]*); for f in a/f1 a/f2 a/f3; do cat $cp/$f > /workspace/$f; done; \
             honest 2; ls /kiln/store/kiln/sandbox/volumes; head -c1 /workspace/a/f1 | od -An -b"
        );
        let mounts = [volume.0.mounted_at("/workspace")];
        let ended = A.run(Context::empty().path(), out.path(), &mounts, &script);
        let lines: Vec<&str> = ended.stdout.lines().filter(|line| *line != "lock").collect();
        let log = |name: &str| fs::read_to_string(out.path().join(name)).unwrap();
        let logs = || format!("{end}\n{ended}\n{}\n{}\n{}", log("log"), log("log1"), log("log2"));
        assert_eq!(lines, [code, "honest 0", "honest 0", " 001"], "{}", logs());
        for said in ["`/workspace/a/f", "the volume's copy is in `/kiln/store/kiln/sandbox/volumes/"] {
            assert!(log("log1").contains(said), "{said}\n{}", logs());
        }
        assert!(!log("log2").contains("volumes/"), "{}", logs());
    }
}
