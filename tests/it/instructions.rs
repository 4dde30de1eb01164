//! What each instruction does to the image, looked at from outside.

use serde_json::json;

use crate::support::need::Busybox;
use crate::support::{Context, Image, Kiln, base};

/// Builds `FROM busybox` and these lines with a fresh kiln.
#[track_caller]
fn build(lines: &str) -> Image {
    Kiln::new().image(&Context::on_busybox(lines))
}

#[track_caller]
fn assert_node(image: &Image, path: &str, expected: &str) {
    let tree = image.tree();
    let node = tree.get(path).unwrap_or_else(|| panic!("no `{path}` in the image"));
    assert_eq!(format!("{} {:o} {}:{}", node.kind, node.mode, node.uid, node.gid), expected, "`{path}`");
}

#[test]
fn from_scratch_with_one_file() {
    let image = Kiln::new()
        .image(&Context::new("FROM scratch\nCOPY hello /\nCMD [\"/hello\"]\n").file("hello", "hi\n"));
    assert_eq!(image.layer_count(), 1);
    assert_eq!(image.text("hello"), "hi\n");
    assert_eq!(image.settings()["Cmd"], json!(["/hello"]));
    assert_eq!(image.settings()["WorkingDir"], "/");
    assert_eq!(
        image.settings()["Env"],
        json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"])
    );
    assert_eq!(image.config["os"], "linux");
}

#[test]
fn run_adds_only_what_it_changed() {
    require!(Busybox);
    let image = build("RUN echo one > /made && rm /etc/group && mkdir -p /a/b && chmod 711 /home");
    assert_eq!(image.layer_count(), 2);
    assert_eq!(image.last_layer(), ["a", "a/b", "etc", "etc/.wh.group", "home", "made"]);
    assert_eq!(image.text("made"), "one\n");
    assert_node(&image, "home", "d 711 0:0");
}

#[test]
fn run_leaves_no_trace_of_its_sandbox() {
    require!(Busybox);
    let image = build(
        "RUN ls /proc/self /dev/null /dev/pts /dev/shm /sys >/dev/null && cat /etc/resolv.conf /etc/hosts >/dev/null && \
         echo in-shm > /dev/shm/x && echo done > /done",
    );
    assert_eq!(image.last_layer(), ["done"]);
}

/// The code is the shell's, though no shell was there to say it.
#[test]
fn run_of_a_program_that_is_not_there_says_so() {
    require!(Busybox);
    for (command, exec) in [("[\"nope\"]", "exec: \"nope\""), ("echo hi", "exec: \"/bin/sh\"")] {
        let context = Context::new(&format!("FROM scratch\nRUN {command}\n"));
        Kiln::new()
            .build(&context, &[])
            .fails(1, &["exit code: 127: ", exec, "there is no such program in the image"]);
    }
}

#[test]
fn run_that_changes_nothing_still_makes_a_layer() {
    require!(Busybox);
    let image = build("RUN true");
    assert_eq!(image.layer_count(), 2);
    assert_eq!(image.last_layer(), Vec::<String>::new());
}

/// The second mount waited for the lock of the first for ever.
#[test]
fn a_step_may_mount_one_cache_several_times() {
    require!(Busybox);
    for sharing in ["shared", "locked", "private"] {
        let mount = format!("--mount=type=cache,id=x,sharing={sharing},target=");
        let image = build(&format!("RUN {mount}/a {mount}/b echo one > /a/f && cp /b/f /got"));
        assert_eq!(image.text("got"), "one\n", "{sharing}");
    }
}

/// As in BuildKit, which takes the target as it is written, cleaned.
#[test]
fn a_cache_without_an_id_is_named_by_its_target_in_any_working_directory() {
    require!(Busybox);
    let mount = "RUN --mount=type=cache,target";
    let image = build(&format!(
        "WORKDIR /a\n{mount}=c echo here > c/f\nWORKDIR /b\n{mount}=./c/ cp c/f /got\n{mount}=/a/c ls /a/c > /other\n"
    ));
    assert_eq!((image.text("got"), image.text("other")), ("here\n".to_owned(), String::new()));
}

#[test]
fn run_exec_form_and_heredocs() {
    require!(Busybox);
    let image = build(
        "RUN [\"/bin/sh\", \"-c\", \"echo $0 > /exec\", \"a b\"]\n\
         RUN <<EOF\necho first > /body\necho \"second $HOME\" >> /body\nEOF\n\
         RUN cat <<ONE > /one && cat <<-TWO > /two\n1\nONE\n\t2\nTWO\n\
         RUN <<EOF\n#!/bin/sh\necho \"$0\" > /script\nEOF\n",
    );
    assert_eq!(image.text("exec"), "a b\n");
    assert_eq!(image.text("body"), "first\nsecond /root\n");
    assert_eq!((image.text("one"), image.text("two")), ("1\n".to_owned(), "2\n".to_owned()));
    assert!(image.text("script").starts_with("/dev/pipes/"));
}

#[test]
fn run_sees_docker_like_surroundings() {
    require!(Busybox);
    let image = build(
        "ENV COLOR=green\nWORKDIR /work\n\
         RUN { pwd; id -u; umask; echo \"$COLOR $PATH\"; grep CapEff /proc/self/status; } > /seen\n\
         RUN env | cut -d= -f1 | sort > /names\n\
         RUN cat </dev/stdin | wc -c > /input\n",
    );
    let seen = image.text("seen");
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..3], ["/work", "0", "0022"]);
    assert!(lines[3].starts_with("green /usr/local/sbin:"));
    assert!(lines[4].ends_with("00000000a80425fb"), "docker's default capabilities: {}", lines[4]);
    let names = image.text("names");
    let names: Vec<&str> =
        names.lines().filter(|name| !["PWD", "SHLVL", "OLDPWD", "_"].contains(name)).collect();
    assert_eq!(names, ["COLOR", "HOME", "PATH"]);
    assert_eq!(image.text("input").trim(), "0");
}

#[test]
fn a_daemon_that_a_step_leaves_is_gone_before_the_next() {
    require!(Busybox);
    let image = build(
        "RUN (setsid sh -c 'while :; do date > /tick; sleep 0.05; done' >/dev/null 2>&1 &) ; sleep 0.2; test -f /tick\n\
         RUN rm -f /tick; sleep 0.3; test ! -e /tick && echo quiet > /result\n",
    );
    assert_eq!(image.text("result"), "quiet\n");
    assert!(!image.tree().contains_key("tick"));
}

#[test]
fn copy_modes_owners_and_destinations() {
    require!(Busybox);
    let context = Context::on_busybox(
        "COPY tree /into/deep\nCOPY tree/run.sh /bin/tool\nCOPY tree/data.txt tree/run.sh /many/\n\
         COPY --chown=www-data:staff --chmod=640 tree/data.txt /own/file\nWORKDIR /w\nCOPY tree/data.txt .\n",
    )
    .file_with_mode("tree/run.sh", "#!/bin/sh\n", 0o755)
    .file("tree/data.txt", "data\n")
    .directory("tree/empty")
    .symlink("tree/link", "data.txt");
    let image = Kiln::new().image(&context);
    assert_node(&image, "into", "d 755 0:0");
    assert_node(&image, "into/deep", "d 755 0:0");
    assert_node(&image, "into/deep/run.sh", "f 755 0:0");
    assert_node(&image, "into/deep/data.txt", "f 644 0:0");
    assert_node(&image, "into/deep/empty", "d 755 0:0");
    assert_node(&image, "into/deep/link", "l 777 0:0");
    assert_node(&image, "bin/tool", "f 755 0:0");
    assert_node(&image, "many/data.txt", "f 644 0:0");
    assert_node(&image, "own/file", "f 640 33:50");
    assert_node(&image, "own", "d 640 33:50");
    assert_eq!(image.text("w/data.txt"), "data\n");
}

#[test]
fn copy_follows_a_link_named_as_source_and_keeps_links_inside_trees() {
    require!(Busybox);
    let context = Context::on_busybox("COPY alias /named\nCOPY *.txt /globbed/\n")
        .file("real.txt", "real\n")
        .symlink("alias", "real.txt")
        .symlink("other.txt", "real.txt");
    let image = Kiln::new().image(&context);
    assert_eq!(image.text("named"), "real\n");
    assert_node(&image, "globbed/other.txt", "f 644 0:0");
}

#[test]
fn copy_between_stages_keeps_owners_and_hard_links() {
    require!(Busybox);
    let base = base::busybox();
    let image = Kiln::new().image(&Context::new(&format!(
        "FROM {base} AS Build\nRUN mkdir /out && echo x > /out/a && ln /out/a /out/b && chown 5:7 /out/a && chmod 4711 /out/a\n\
         FROM scratch\nCOPY --from=build /out /\nCOPY --from=0 /out/a /first\nCOPY --from={base} /etc/passwd /\n",
    )));
    assert_node(&image, "a", "f 4711 5:7");
    let tree = image.tree();
    assert_eq!(tree["a"].file_number, tree["b"].file_number, "one file with two names");
    assert_node(&image, "first", "f 4711 5:7");
    assert!(image.text("passwd").starts_with("root:"));
}

/// As in BuildKit: a copy takes a number for a stage, a mount for an image.
#[test]
fn a_number_is_no_stage_to_a_mount() {
    require!(Busybox);
    let base = base::busybox();
    let context = Context::new(&format!(
        "FROM {base}\nRUN echo first > /f\nFROM {base}\nRUN --mount=from=0,target=/m cat /m/f\n"
    ));
    let registry = crate::support::Registry::shared().address();
    let mirror = format!("--registry-mirror=docker.io={registry}");
    let built = Kiln::new().build(&context, &[&mirror, "--skip-default-registry-fallback"]);
    built.fails(1, &["RUN --mount=from=0", "failed to resolve source metadata for `0:latest`"]);
}

#[test]
fn copy_heredoc_becomes_a_file() {
    require!(Busybox);
    let image = build(
        "ARG WHO=you\nCOPY <<greeting <<'RAW' /etc/\nhello $WHO \"quoted\"\ngreeting\nkeep $WHO\nRAW\n",
    );
    assert_eq!(image.text("etc/greeting"), "hello you \"quoted\"\n");
    assert_eq!(image.text("etc/RAW"), "keep $WHO\n");
    assert_node(&image, "etc/greeting", "f 644 0:0");
}

#[test]
fn add_unpacks_archives_by_content() {
    require!(Busybox);
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(3);
    header.set_mode(0o600);
    header.set_uid(12);
    header.set_gid(34);
    archive.append_data(&mut header, "inner/file", &b"abc"[..]).unwrap();
    let plain = archive.into_inner().unwrap();
    let packed = zstd::encode_all(&plain[..], 3).unwrap();
    let context = Context::on_busybox("ADD bundle.png /opt/\nADD plain.txt /opt/\n")
        .file("bundle.png", packed)
        .file("plain.txt", "text\n");
    let image = Kiln::new().image(&context);
    assert_node(&image, "opt/inner/file", "f 600 12:34");
    assert_eq!(image.text("opt/plain.txt"), "text\n");
}

#[test]
fn metadata_instructions_reach_the_configuration() {
    require!(Busybox);
    let image = build(
        "ENV A=1 B=\"two words\"\nENV A=3 C=${B}\nLABEL org.example.x=\"y z\" plain=1\nEXPOSE 80 53/UDP 8000-8001\n\
         VOLUME [\"/data\", \"/more\"]\nUSER www-data\nWORKDIR /srv/app/\nWORKDIR sub\nSTOPSIGNAL SIGUSR1\n\
         SHELL [\"/bin/sh\", \"-ec\"]\nENTRYPOINT run it\nCMD [\"x\"]\n\
         HEALTHCHECK --interval=1m30s --retries=2 CMD test -e /ok\nONBUILD RUN echo  two\nMAINTAINER me <me@example.org>\n",
    );
    let settings = image.settings();
    let env: Vec<&str> =
        settings["Env"].as_array().unwrap().iter().map(|value| value.as_str().unwrap()).collect();
    assert_eq!(env[1..], ["A=3", "B=two words", "C=two words"]);
    assert_eq!(settings["Labels"], json!({"org.example.x": "y z", "plain": "1"}));
    assert_eq!(settings["ExposedPorts"], json!({"53/udp": {}, "80/tcp": {}, "8000/tcp": {}, "8001/tcp": {}}));
    assert_eq!(settings["Volumes"], json!({"/data": {}, "/more": {}}));
    assert_eq!(settings["User"], "www-data");
    assert_eq!(settings["WorkingDir"], "/srv/app/sub");
    assert_eq!(settings["StopSignal"], "SIGUSR1");
    assert_eq!(settings["Shell"], json!(["/bin/sh", "-ec"]));
    assert_eq!(settings["Entrypoint"], json!(["/bin/sh", "-ec", "run it"]));
    assert_eq!(settings["Cmd"], json!(["x"]));
    let health = json!({"Test": ["CMD-SHELL", "test -e /ok"], "Interval": 90_000_000_000_i64, "Retries": 2});
    assert_eq!(settings["Healthcheck"], health);
    assert_eq!(settings["OnBuild"], json!(["RUN echo  two"]));
    assert_eq!(image.config["author"], "me <me@example.org>");
    assert_node(&image, "srv/app", "d 755 33:33");
}

#[test]
fn user_and_groups_come_from_the_image() {
    require!(Busybox);
    let image = build(
        "RUN chmod 777 /home\nUSER www-data\nRUN id -u > /home/u; id -g >> /home/u; id -G >> /home/u; echo $HOME >> /home/u\n\
         USER 1234\nRUN { id -u; id -g; } > /home/n\nUSER www-data:daemon\nRUN id -G > /home/g\n",
    );
    assert_eq!(image.text("home/u"), "33\n33\n33 50\n/var/www\n");
    assert_eq!(image.text("home/n"), "1234\n0\n");
    assert_eq!(image.text("home/g"), "1\n");
    assert_node(&image, "home/u", "f 644 33:33");
}

#[test]
fn args_scopes_and_build_args() {
    require!(Busybox);
    let base = base::busybox();
    let context = Context::new(&format!(
        "ARG TAG=latest\nARG OUTER=global\nFROM {} AS one\nARG OUTER\nARG OWN=default\nARG EMPTY=\nARG UNSET\n\
         RUN echo \"$OUTER $OWN [${{EMPTY-unset}}] [${{UNSET-unset}}] $TARGETARCH\" > /args\n\
         ENV OWN=fromenv\nRUN echo $OWN > /env\nFROM one\nRUN echo \"[$OWN]\" > /child\n",
        base.replace(":latest", ":$TAG")
    ));
    let kiln = Kiln::new();
    let image = kiln.image(&context);
    assert_eq!(image.text("args"), "global default [] [unset] \n");
    assert_eq!(image.text("env"), "fromenv\n");
    assert_eq!(image.text("child"), "[fromenv]\n");
    let image = kiln.image_with(&context, &["--build-arg=OWN=given", "--build-arg", "OUTER=outside"]);
    assert_eq!(image.text("args"), "outside given [] [unset] \n");
    assert_eq!(image.text("env"), "fromenv\n");
}

#[test]
fn an_argument_without_a_value_is_taken_from_the_environment() {
    require!(Busybox);
    let context = Context::on_busybox("ARG FROM_ENV\nRUN echo $FROM_ENV > /seen\n");
    let kiln = Kiln::new();
    let layout = kiln.scratch("layout");
    let output = format!("--output=type=oci,tar=false,dest={}", layout.display());
    let mut command = kiln.build_command(context.path(), &["--build-arg=FROM_ENV", &output]);
    crate::support::run(command.env("FROM_ENV", "here")).ok();
    assert_eq!(Image::read(&layout).text("seen"), "here\n");
}

#[test]
fn targets_prune_what_they_do_not_need() {
    require!(Busybox);
    let base = base::busybox();
    let context = Context::new(&format!(
        "FROM {base} AS wanted\nRUN echo w > /wanted\nFROM 127.0.0.1:1/not/there AS broken\nRUN exit 1\nFROM broken\n"
    ));
    let image = Kiln::new().image_with(&context, &["--target=WANTED"]);
    assert_eq!(image.text("wanted"), "w\n");
}

#[test]
fn onbuild_fires_in_the_child_and_is_not_inherited() {
    require!(Busybox);
    let base = base::busybox();
    let image = Kiln::new().image(
        &Context::new(&format!(
            "FROM {base} AS parent\nONBUILD COPY note /note\nONBUILD RUN cat /note > /seen\nFROM parent AS child\nFROM child\n"
        ))
        .file("note", "n\n"),
    );
    assert_eq!(image.text("seen"), "n\n");
    assert!(image.settings()["OnBuild"].is_null());
}

#[test]
fn entrypoint_clears_an_inherited_command_only() {
    require!(Busybox);
    assert!(build("ENTRYPOINT [\"/e\"]").settings()["Cmd"].is_null());
    assert_eq!(build("CMD [\"c\"]\nENTRYPOINT [\"/e\"]").settings()["Cmd"], json!(["c"]));
}

#[test]
fn dockerignore_hides_and_shows_again() {
    require!(Busybox);
    let context = Context::on_busybox("COPY . /ctx\n")
        .file(".dockerignore", "# comment\n**/*.log\nsecret\n!keep.log\n")
        .file("keep.log", "k")
        .file("deep/drop.log", "d")
        .file("secret/key", "s")
        .file("plain", "p");
    let tree = Kiln::new().image(&context).tree();
    let copied: Vec<&str> = tree.keys().filter_map(|path| path.strip_prefix("ctx/")).collect();
    assert_eq!(copied, [".dockerignore", "Dockerfile", "deep", "keep.log", "plain"]);
}

#[test]
fn a_dockerignore_beside_the_dockerfile_wins() {
    require!(Busybox);
    let dockerfile = format!("FROM {}\nCOPY . /ctx\n", base::busybox());
    let context = Context::empty()
        .file("docker/app.Dockerfile", dockerfile)
        .file("docker/app.Dockerfile.dockerignore", "docker\nb\n")
        .file(".dockerignore", "a\n")
        .file("a", "a")
        .file("b", "b");
    let file = format!("--file={}", context.at("docker/app.Dockerfile").display());
    let tree = Kiln::new().image_with(&context, &[&file]).tree();
    assert!(tree.contains_key("ctx/a") && !tree.contains_key("ctx/b") && !tree.contains_key("ctx/docker"));
}

#[test]
fn the_context_may_be_a_tar_on_stdin() {
    require!(Busybox);
    let context = Context::on_busybox("COPY note /\n").file("note", "from tar\n");
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all(".", context.path()).unwrap();
    let kiln = Kiln::new();
    std::fs::write(kiln.scratch("context.tar"), archive.into_inner().unwrap()).unwrap();
    let layout = kiln.scratch("layout");
    let output = format!("--output=type=oci,tar=false,dest={}", layout.display());
    let mut command = kiln.command("build");
    command.args(["--progress=plain", &output, "-"]);
    let child = command
        .stdin(std::fs::File::open(kiln.scratch("context.tar")).unwrap())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    Kiln::finish(child.unwrap()).ok();
    assert_eq!(Image::read(&layout).text("note"), "from tar\n");
}

#[test]
fn special_files_times_and_long_names_survive() {
    require!(Busybox);
    let long = "n".repeat(200);
    let image = build(&format!(
        "RUN mkfifo /pipe && mkdir -p /{long}/{long} && echo x > /{long}/{long}/f && touch -d '2001-02-03 04:05:06' /old && \
         dd if=/dev/zero of=/sparse bs=1 count=1 seek=1048575 2>/dev/null && chmod 1777 /old && ln -s /nowhere /dangling\n\
         RUN mv /{long} /moved\n"
    ));
    let tree = image.tree();
    assert_eq!(tree["pipe"].kind, 'p');
    assert_eq!(tree["old"].mtime, 981_173_106);
    assert_eq!(tree["sparse"].content.len(), 1 << 20);
    assert_eq!(tree["dangling"].link, "/nowhere");
    assert!(tree.contains_key(&format!("moved/{long}/f")));
    assert!(!tree.contains_key(&long));
}

#[test]
fn a_directory_that_replaces_a_directory_hides_the_old_files() {
    require!(Busybox);
    let image = build(
        "RUN mkdir /d && touch /d/old /d/kept\nRUN rm -r /d && mkdir /d && touch /d/new\n\
         RUN rm -r /d && echo file > /d\nRUN rm /d && mkdir /d\n",
    );
    let tree = image.tree();
    assert_eq!(tree["d"].kind, 'd');
    assert_eq!(tree.keys().filter(|path| path.starts_with("d/")).count(), 0);
}

#[test]
fn labels_annotations_and_platform_from_the_command_line() {
    require!(Busybox);
    let arguments = ["--label=a=b", "--annotation=org.example.note=hello", "--platform=linux/amd64"];
    let image = Kiln::new().image_with(&Context::on_busybox("LABEL a=x c=d\n"), &arguments);
    assert_eq!(image.settings()["Labels"], json!({"a": "b", "c": "d"}));
    assert_eq!(image.manifest["annotations"]["org.example.note"], "hello");
    assert_eq!(image.config["architecture"], "amd64");
}

#[test]
fn hosts_shm_and_ulimits_are_as_asked() {
    require!(Busybox);
    let context = Context::on_busybox(
        "RUN { grep -c '10.1.2.3.*registry.example' /etc/hosts; df -m /dev/shm | tail -n 1 | awk '{print $2}'; ulimit -n; } > /seen\n",
    );
    let arguments = ["--add-host=registry.example:10.1.2.3", "--shm-size=32m", "--ulimit=nofile=512:1024"];
    assert_eq!(Kiln::new().image_with(&context, &arguments).text("seen"), "1\n32\n512\n");
}

#[test]
fn a_step_without_network_sees_loopback_only() {
    require!(Busybox);
    let context = Context::on_busybox(
        "RUN ls /sys/class/net > /interfaces; cat /proc/net/dev | tail -n +3 | wc -l > /count\n",
    );
    assert_eq!(Kiln::new().image_with(&context, &["--network=none"]).text("count").trim(), "1");
}

#[test]
fn a_single_snapshot_makes_one_layer_with_the_same_files() {
    require!(Busybox);
    let context =
        Context::on_busybox("RUN echo a > /a\nRUN rm /a && echo b > /b\nCOPY Dockerfile /d\nENV A=b\n");
    let plain = Kiln::new().image(&context);
    let out = tempfile::tempdir().unwrap();
    let layout = out.path().join("layout");
    let status = std::process::Command::new(Kiln::program())
        .args(["executor", "--no-push", "--single-snapshot", "--destination=example.org/a:1"])
        .arg(format!("--kaniko-dir={}", out.path().join("kaniko").display()))
        .arg(format!("--context=dir://{}", context.path().display()))
        .arg(format!("--dockerfile={}", context.path().join("Dockerfile").display()))
        .arg(format!("--oci-layout-path={}", layout.display()))
        .status()
        .unwrap();
    assert!(status.success());
    let single = crate::support::Image::read(&layout);
    let count = |image: &crate::support::Image| image.manifest["layers"].as_array().unwrap().len();
    assert_eq!(count(&single), count(&plain) - 2);
    let names = |image: &crate::support::Image| image.tree().into_keys().collect::<Vec<_>>();
    assert_eq!(names(&single), names(&plain));
}

#[test]
fn a_stage_that_is_only_copied_from_leaves_no_layer_behind() {
    require!(Busybox);
    let kiln = Kiln::new();
    let context = Context::new(
        "FROM scratch AS parts\nCOPY Dockerfile /not-in-the-image\nCOPY note /wanted\n\
         FROM scratch\nCOPY --from=parts /wanted /\n",
    )
    .file("note", "n\n");
    let layout = kiln.scratch("layout");
    let output = format!("--output=type=oci,dest={},tar=false", layout.display());
    kiln.build(&context, &[&output, "--cache-to=type=none"]).ok();
    let image = crate::support::Image::read(&layout);
    assert_eq!(image.tree().into_keys().collect::<Vec<_>>(), ["wanted"]);
    let blobs = std::fs::read_dir(kiln.own("store/blobs/sha256")).map_or(0, Iterator::count);
    assert!(blobs <= 1, "{blobs} blobs: the copied layer, and at most it");
    assert_eq!(std::fs::read_dir(kiln.own("work")).unwrap().count(), 0, "the work directory is gone");
}

#[test]
fn two_stages_on_a_base_that_is_new_to_the_store_do_not_wait_for_each_other() {
    require!(Busybox);
    let busybox = Context::on_busybox("");
    let from = std::fs::read_to_string(busybox.path().join("Dockerfile")).unwrap();
    let from = from.lines().next().unwrap();
    for _ in 0..5 {
        let image = Kiln::new().image(&Context::new(&format!(
            "{from} AS one\nRUN echo 1 > /one\n{from} AS two\nRUN echo 2 > /two\n\
             FROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /\n"
        )));
        assert_eq!(image.tree().into_keys().collect::<Vec<_>>(), ["one", "two"]);
    }
}
