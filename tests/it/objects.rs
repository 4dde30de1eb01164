//! Contexts in object stores, out of emulators that check who asks: moto for S3, Azurite for Azure's blobs.
//! Google's store is a fake beside the code.

use std::path::PathBuf;
use std::process::Command;

use crate::support::emulators::Emulator;
use crate::support::need::{Busybox, Program, PythonModule};
use crate::support::{Context, Kiln, Outcome, run};

/// A context as an archive, and what it is built into.
struct Archive {
    context: Context,
    file: PathBuf,
}

impl Archive {
    fn new(kiln: &Kiln) -> Self {
        let context = Context::empty()
            .file("app/Dockerfile", "FROM scratch\nCOPY note /\n")
            .file("app/note", "from the bucket\n")
            .file("Dockerfile", "FROM scratch\nCOPY app/note /top\n");
        let file = kiln.scratch("context.tar.gz");
        run(Command::new("tar").arg("-czf").arg(&file).arg("-C").arg(context.path()).arg(".")).ok();
        Self { context, file }
    }
}

/// Runs the executor without a push; what it builds goes to a layout, whose digest is compared.
fn executor(kiln: &Kiln, arguments: &[&str], variables: &[(&str, &str)]) -> Outcome {
    let mut command = Command::new(Kiln::program());
    command.env_clear().env("HOME", kiln.scratch("home")).env("KILN_ROOT", kiln.store());
    command.env("PATH", std::env::var_os("PATH").unwrap()).envs(variables.iter().copied());
    // A Dockerfile of the working directory comes before the context's, as with kaniko.
    command.current_dir(kiln.scratch(""));
    // What a real machine of a cloud would offer must not decide a test.
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    let digest = format!("--digest-file={}", kiln.scratch("digest").display());
    command.args(["executor", "--no-push", "--reproducible", "--log-format=text", &digest]).args(arguments);
    run(&mut command)
}

fn digest(kiln: &Kiln) -> String {
    std::fs::read_to_string(kiln.scratch("digest")).unwrap()
}

/// The digest of the same build from a directory.
fn expected(kiln: &Kiln, archive: &Archive, sub_path: &str) -> String {
    executor(kiln, &["--context", archive.context.at(sub_path).to_str().unwrap()], &[]).ok();
    digest(kiln)
}

#[test]
fn a_context_comes_out_of_s3() {
    require!(Busybox, PythonModule("ensurepip"), Program("npm"));
    let kiln = Kiln::new();
    let archive = Archive::new(&kiln);
    let s3 = Emulator::s3(&archive.file);
    let (id, secret) = (s3.text("/reader/id"), s3.text("/reader/secret"));
    let variables =
        [("S3_ENDPOINT", s3.text("/endpoint")), ("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", secret)];
    let whole = expected(&kiln, &archive, "");
    executor(&kiln, &["--context=s3://contexts/team/context.tar.gz"], &variables).ok();
    assert_eq!(digest(&kiln), whole);
    executor(&kiln, &["--context=s3://contexts"], &variables).ok();
    assert_eq!(digest(&kiln), whole);
    let part = expected(&kiln, &archive, "app");
    let words = ["--context=s3://contexts/team/context.tar.gz", "--context-sub-path=app"];
    executor(&kiln, &words, &variables).ok();
    assert_eq!(digest(&kiln), part);

    // The same key from a file, as kaniko's documentation mounts it.
    let file = kiln.scratch("credentials");
    std::fs::write(&file, format!("[default]\naws_access_key_id={id}\naws_secret_access_key={secret}\n"))
        .unwrap();
    let of_file = [variables[0], ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap())];
    executor(&kiln, &["--context=s3://contexts"], &of_file).ok();
    assert_eq!(digest(&kiln), whole);

    let fails = |url: &str, variables: &[(&str, &str)], texts: &[&str]| {
        executor(&kiln, &[&format!("--context={url}")], variables).fails(1, texts);
    };
    fails("s3://contexts/none.tar.gz", &variables, &["there is no `none.tar.gz` in `contexts`"]);
    fails("s3://nobodys/a.tar.gz", &variables, &["there is no bucket or container `nobodys`"]);
    let stranger = [
        variables[0],
        ("AWS_ACCESS_KEY_ID", s3.text("/stranger/id")),
        ("AWS_SECRET_ACCESS_KEY", s3.text("/stranger/secret")),
    ];
    fails("s3://contexts", &stranger, &["access denied: AccessDenied", "s3:GetObject"]);
    let forged = [variables[0], variables[1], ("AWS_SECRET_ACCESS_KEY", "forged")];
    fails("s3://contexts", &forged, &["access denied: SignatureDoesNotMatch", "not one of this store"]);
    fails("s3://contexts", &variables[..1], &["no credentials for `s3://contexts`", "AWS_ACCESS_KEY_ID"]);
    let gone = [("S3_ENDPOINT", "http://127.0.0.1:1"), variables[1], variables[2]];
    fails("s3://contexts", &gone, &["cannot read `s3://contexts`"]);
}

#[test]
fn a_context_comes_out_of_azure() {
    require!(Busybox, PythonModule("ensurepip"), Program("npm"), Program("node"));
    let kiln = Kiln::new();
    let archive = Archive::new(&kiln);
    let azure = Emulator::azure(&archive.file);
    let (endpoint, account, key) = (azure.text("/endpoint"), azure.text("/account"), azure.text("/key"));
    let variables = [("AZURE_STORAGE_ENDPOINT", endpoint), ("AZURE_STORAGE_ACCESS_KEY", key)];
    let url = |path: &str| format!("https://{account}.blob.core.windows.net/{path}");
    let build = |path: &str, variables: &[(&str, &str)]| {
        executor(&kiln, &[&format!("--context={}", url(path))], variables)
    };
    let whole = expected(&kiln, &archive, "");
    build("contexts/team/context.tar.gz", &variables).ok();
    assert_eq!(digest(&kiln), whole);
    build("contexts/none", &variables).fails(1, &["there is no `none` in `contexts`"]);
    build("nobodys/a", &variables).fails(1, &["there is no bucket or container `nobodys`"]);
    let forged = [variables[0], ("AZURE_STORAGE_ACCESS_KEY", "Zm9yZ2Vk")];
    build("contexts/team/context.tar.gz", &forged).fails(1, &["access denied", "not one of this store"]);
    build("contexts/team/context.tar.gz", &variables[..1])
        .fails(1, &["AZURE_STORAGE_ACCESS_KEY is not set", "signed URL"]);
}
