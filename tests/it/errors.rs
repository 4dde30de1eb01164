//! Bad input of every sort: a clear error with its place, the right exit code, and nothing moved or left.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::distribution::{Options, PASSWORD, USER};
use crate::support::need::{Busybox, Program, Root};
use crate::support::{Context, Kiln, Outcome, Registry, base, run};

/// A build that must fail with code 1 and say these texts.
#[track_caller]
fn refuse(context: &Context, arguments: &[&str], texts: &[&str]) -> Outcome {
    let outcome = Kiln::new().build(context, arguments).fails(1, texts);
    assert_eq!(outcome.stdout, "", "a failed build has no digest");
    outcome
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let kiln = Kiln::new();
    let context = Context::new("FROM scratch\n");
    kiln.build(&context, &["--nonsense"]).fails(2, &["--nonsense"]);
    kiln.build(&context, &["--output=type=nonsense"]).fails(2, &["nonsense"]);
    kiln.build(&context, &["--output=type=oci,dest=x,nonsense=1"]).fails(2, &["nonsense"]);
    kiln.build(&context, &["--platform=vax"]).fails(2, &["vax"]);
    kiln.build(&context, &["--tag=Not/A:Ref:"]).fails(2, &["Not/A:Ref:"]);
    kiln.build(&context, &["--isolation=nonsense"]).fails(2, &["nonsense"]);
    kiln.run("nonsense", [""; 0]).fails(2, &["nonsense"]);
}

#[test]
fn a_missing_dockerfile_is_named() {
    refuse(&Context::empty().file("other", ""), &[], &["Dockerfile"]);
    refuse(&Context::new("FROM scratch\n"), &["--file=/not/there/Boxfile"], &["/not/there"]);
    refuse(&Context::new("FROM scratch\n"), &["--file=Boxfile"], &["Boxfile"]);
}

#[test]
fn a_missing_context_is_named() {
    let kiln = Kiln::new();
    run(&mut kiln.build_command(Path::new("/not/there"), &[])).fails(1, &["/not/there"]);
}

#[test]
fn syntax_errors_show_the_lines() {
    refuse(
        &Context::new("FROM scratch\n\nCOPI a b\n"),
        &[],
        &["unknown instruction: COPI", "did you mean COPY?", "Dockerfile:3"],
    );
    refuse(
        &Context::new("FROM scratch\nCMD [\"a\", 1]\n"),
        &[],
        &["arrays must be comprised of strings only", "Dockerfile:2", "CMD [\"a\", 1]"],
    );
    refuse(
        &Context::new("FROM scratch\nCOPY --nope=1 a b\n"),
        &[],
        &["unknown flag: --nope", "Dockerfile:2"],
    );
    refuse(&Context::new("FROM scratch\nCOPY a\n"), &[], &["COPY requires at least two arguments"]);
    refuse(&Context::new("RUN true\n"), &[], &["no build stage in current context"]);
    refuse(&Context::new(""), &[], &["the Dockerfile cannot be empty"]);
    refuse(&Context::new("FROM scratch\nENV A=${B\n"), &[], &["syntax error: missing '}'", "Dockerfile:2"]);
}

#[test]
fn stage_mistakes_are_explained() {
    refuse(
        &Context::new("FROM scratch\n"),
        &["--target=nope"],
        &["target stage \"nope\" could not be found"],
    );
    refuse(
        &Context::new("FROM scratch AS a\nCOPY --from=b /x /\nFROM a AS b\n"),
        &["--target=a"],
        &["Dockerfile:2", "\"b\""],
    );
    refuse(
        &Context::new("FROM scratch AS a\nCOPY --from=a /x /\n"),
        &[],
        &["circular dependency detected on stage: a"],
    );
}

#[test]
fn a_missing_source_is_named_with_its_line() {
    require!(Busybox);
    refuse(
        &Context::on_busybox("COPY nope /\n"),
        &[],
        &["\"/nope\": not found", "Dockerfile:2", "COPY nope /"],
    );
    let ignored =
        Context::on_busybox("COPY secret /\n").file("secret", "s").file(".dockerignore", "secret\n");
    refuse(&ignored, &[], &["\"/secret\": not found", ".dockerignore"]);
}

#[test]
fn a_failing_step_shows_status_output_and_line() {
    require!(Busybox);
    let context = Context::on_busybox("RUN echo about to fail && echo details >&2 && exit 7\n");
    refuse(&context, &[], &["about to fail", "details", "7", "Dockerfile:2", "RUN echo about to fail"]);
    refuse(&Context::on_busybox("RUN sh -c 'kill -9 $$; true'; exit $?\n"), &[], &["137"]);
    refuse(&Context::on_busybox("RUN [\"/no/such/program\"]\n"), &[], &["/no/such/program"]);
    refuse(&Context::on_busybox("USER nobodyhere\nRUN true\n"), &[], &["nobodyhere"]);
}

#[test]
fn a_failed_build_moves_no_tag() {
    require!(Busybox);
    let kiln = Kiln::new();
    let registry = Registry::open();
    let name = registry.image("app:stable");
    kiln.build(&Context::on_busybox("RUN echo 1 > /v\n"), &["--push", "--tag", &name]).ok();
    let before = registry.digest("app:stable");
    kiln.build(&Context::on_busybox("RUN echo 2 > /v\nRUN exit 1\n"), &["--push", "--tag", &name])
        .fails(1, &["exit"]);
    assert_eq!(registry.digest("app:stable"), before);
}

#[test]
fn an_unreachable_registry_is_named() {
    refuse(&Context::new("FROM 127.0.0.1:1/some/image:tag\n"), &[], &["127.0.0.1:1", "Dockerfile:1"]);
}

#[test]
fn an_unknown_image_is_named() {
    require!(Busybox);
    let missing = Registry::shared().image("nothing/here:v1");
    refuse(&Context::new(&format!("FROM {missing}\n")), &[], &[&missing, "not found"]);
}

#[test]
fn a_registry_that_wants_an_account() {
    require!(Busybox);
    let registry = Registry::start(&Options { password: true, ..Options::default() });
    let name = registry.image("app:1");
    let context = Context::on_busybox("RUN true\n");
    let push = |config: &Path| {
        let kiln = Kiln::new();
        run(kiln.build_command(context.path(), &["--push", "--tag", &name]).env("DOCKER_CONFIG", config))
    };
    push(Path::new("/nonexistent")).fails(1, &[registry.address(), "hint"]);
    push(registry.docker_config(USER, "wrong").path()).fails(1, &[registry.address()]);
    let refused = push(registry.docker_config(USER, "wr0ng-pass").path());
    assert!(!refused.stderr.contains("wr0ng-pass"), "no password in messages\n{refused}");
    push(registry.docker_config(USER, PASSWORD).path()).ok();
}

#[test]
fn a_read_only_registry_refuses_the_push() {
    require!(Busybox);
    let registry = Registry::start(&Options { read_only: true, ..Options::default() });
    let name = registry.image("app:1");
    refuse(&Context::on_busybox("RUN true\n"), &["--push", "--tag", &name], &[registry.address()]);
}

#[test]
fn an_unknown_certificate_authority_is_explained() {
    require!(Busybox, Program("openssl"));
    let registry = Registry::start(&Options { tls: true, ..Options::default() });
    let name = registry.image("app:1");
    let context = Context::on_busybox("RUN true\n");
    refuse(&context, &["--push", "--tag", &name], &["certificate", "--registry-ca"]);
    let authority = format!("--registry-ca={}={}", registry.address(), registry.authority().display());
    Kiln::new().build(&context, &["--push", "--tag", &name, &authority]).ok();
}

/// A registry of its own with the busybox image, to be damaged.
fn damaged(how: impl Fn(&mut Vec<u8>)) -> Registry {
    let registry = Registry::open();
    registry.push(&base::layout("busybox"), "latest", "busybox:latest");
    let image = crate::support::Image::read(&base::layout("busybox"));
    let file = registry.blob_file(image.manifest["layers"][0]["digest"].as_str().unwrap());
    let mut bytes = fs::read(&file).unwrap();
    how(&mut bytes);
    fs::write(&file, bytes).unwrap();
    registry
}

#[test]
fn a_corrupt_blob_is_never_used() {
    require!(Busybox);
    let registry = damaged(|bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let context = Context::new(&format!("FROM {}\nRUN true\n", registry.image("busybox:latest")));
    refuse(&context, &[], &["corrupt", "expected sha256:", "found sha256:"]);
}

#[test]
fn a_truncated_download_is_an_error() {
    require!(Busybox);
    let registry = damaged(|bytes| bytes.truncate(bytes.len() / 2));
    let context = Context::new(&format!("FROM {}\nRUN true\n", registry.image("busybox:latest")));
    refuse(&context, &[], &["sha256:"]);
}

#[test]
fn an_index_without_the_platform_lists_what_it_has() {
    require!(Busybox);
    let registry = Registry::open();
    registry.push(&base::layout("busybox"), "latest", "multi:part");
    let part = registry.digest("multi:part");
    let size = fs::metadata(registry.blob_file(&part)).unwrap().len();
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": part, "size": size,
                       "platform": {"os": "linux", "architecture": "s390x"}}],
    });
    let kiln = Kiln::new();
    fs::write(kiln.scratch("index.json"), index.to_string()).unwrap();
    let url = format!("http://{}/v2/multi/manifests/all", registry.address());
    let put = [
        "import sys, urllib.request as u; data = open(sys.argv[2], 'rb').read()",
        "u.urlopen(u.Request(sys.argv[1], data, {'Content-Type': 'application/vnd.oci.image.index.v1+json'}, method='PUT'))",
    ]
    .join("; ");
    run(Command::new("python3").args(["-c", &put, &url]).arg(kiln.scratch("index.json"))).ok();
    let context = Context::new(&format!("FROM {}\nRUN true\n", registry.image("multi:all")));
    refuse(&context, &["--platform=linux/amd64"], &["linux/amd64", "linux/s390x", "Dockerfile:1"]);
}

/// A layer or archive with these entries: (path, type, link target, content).
fn archive(entries: &[(&str, tar::EntryType, &str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (path, kind, link, content) in entries {
        let mut header = tar::Header::new_ustar();
        // The crate's own setters refuse what this is about.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

#[test]
fn archives_cannot_climb_out_of_the_image() {
    require!(Busybox);
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("victim"), "untouched").unwrap();
    let place = outside.path().display().to_string();
    let victim = format!("{place}/victim");
    let climbing = format!("../../../../../../../../../..{victim}");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("dot-dot", archive(&[(&climbing, Regular, "", "evil")])),
        ("absolute", archive(&[(&victim, Regular, "", "evil")])),
        ("symlink", archive(&[("out", Symlink, &place, ""), ("out/victim", Regular, "", "evil")])),
        (
            "relative-symlink",
            archive(&[
                ("d", Directory, "", ""),
                ("d/out", Symlink, &format!("../../../../../../../..{place}"), ""),
                ("d/out/victim", Regular, "", "evil"),
            ]),
        ),
        ("hard-link", archive(&[("steal", Link, &climbing, ""), ("steal", Regular, "", "evil")])),
    ];
    for (name, bytes) in cases {
        for dockerfile in ["ADD evil.tar /\n", "ADD evil.tar /\nRUN true\n"] {
            let context = Context::on_busybox(dockerfile).file("evil.tar", &bytes);
            let outcome = Kiln::new().build(&context, &[]);
            let left = fs::read_to_string(outside.path().join("victim")).unwrap();
            assert_eq!(left, "untouched", "{name}: {outcome}");
            assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{name}: {outcome}");
            assert!(matches!(outcome.code, Some(0 | 1)), "{name}: {outcome}");
        }
        let registry = Registry::open();
        hostile_image(&registry, &bytes);
        let context = Context::new(&format!("FROM {}\nRUN [\"/none\"]\n", registry.image("evil:latest")));
        let outcome = Kiln::new().build(&context, &[]).fails(1, &[]);
        let left = fs::read_to_string(outside.path().join("victim")).unwrap();
        assert_eq!(left, "untouched", "{name} as a layer: {outcome}");
    }
}

/// Pushes an image whose only layer is this tar.
fn hostile_image(registry: &Registry, layer: &[u8]) {
    let work = tempfile::tempdir().unwrap();
    let image = format!("{}/layout:latest", work.path().display());
    fs::write(work.path().join("layer.tar"), layer).unwrap();
    let umoci = |arguments: &[&str]| run(Command::new("umoci").args(arguments)).ok();
    umoci(&["init", "--layout", &format!("{}/layout", work.path().display())]);
    umoci(&["new", "--image", &image]);
    umoci(&["raw", "add-layer", "--image", &image, &format!("{}/layer.tar", work.path().display())]);
    registry.push(&work.path().join("layout"), "latest", "evil:latest");
}

/// Runs a build in a mount namespace after a preparation; `$ROOT` is kiln's store.
fn build_after(prepare: &str, kiln: &Kiln, context: &Context) -> Outcome {
    let build = kiln.build_command(context.path(), &[]);
    let script = format!("set -e; ROOT={}; mkdir -p $ROOT; {prepare}; exec \"$@\"", kiln.store().display());
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation=private", "sh", "-c", &script, "sh"]);
    run(command.arg(build.get_program()).args(build.get_args()))
}

#[test]
fn a_full_disk_is_said_and_the_store_goes_on_working() {
    require!(Busybox, Root);
    let kiln = Kiln::new();
    let context = Context::on_busybox("RUN dd if=/dev/urandom of=/big bs=1M count=64\n");
    // The disk is an image file, so that the second run finds what the first left.
    let disk = kiln.scratch("disk");
    run(Command::new("sh").args(["-c", "truncate -s 40M \"$0\" && mkfs.ext4 -q \"$0\""]).arg(&disk)).ok();
    let mount = format!("mount -o loop {} $ROOT", disk.display());
    build_after(&mount, &kiln, &context).fails(1, &["No space left on device"]);
    build_after(&mount, &kiln, &Context::on_busybox("RUN echo fits > /small\n")).ok();
}

#[test]
fn a_read_only_store_is_said() {
    require!(Busybox, Root);
    let kiln = Kiln::new();
    let prepare = "mount -t tmpfs -o ro tmpfs $ROOT";
    let outcome = build_after(prepare, &kiln, &Context::on_busybox("RUN true\n"));
    outcome.fails(1, &["ead-only file system", &kiln.store().display().to_string()]);
}

#[test]
fn what_is_not_there_yet_is_refused_by_name() {
    require!(Busybox);
    refuse(&Context::on_busybox("RUN --device=vendor.com/gpu true\n"), &[], &["device"]);
    let syntax = Context::new(&format!("# syntax=example.org/other/frontend:1\nFROM {}\n", base::busybox()));
    refuse(&syntax, &[], &["example.org/other/frontend:1"]);
}
