//! The same input gives the same digest: again, on other storage, with other numbers of threads.

use std::process::Command;

use crate::support::need::{Busybox, Program, Root};
use crate::support::{Context, Kiln, Outcome, base, run};

const EPOCH: &str = "--build-arg=SOURCE_DATE_EPOCH=1700000000";

/// Everything that differs between an overlay and a directory when one is not careful.
fn context() -> Context {
    let base = base::busybox();
    let mut context = Context::new(&format!(
        "FROM {base} AS one\nRUN mkdir -p /d/e && echo x > /d/e/f && ln /d/e/f /d/g && chmod 750 /d\n\
         RUN touch /d/e/f && chmod 750 /d && cat /etc/passwd > /dev/null\n\
         RUN rm -r /d/e && mkdir /d/e && echo y > /d/e/z && rm /etc/group\n\
         RUN mv /home /house && mkdir /home && cp /bin/busybox /copy\n\
         RUN mkfifo /p && dd if=/dev/zero of=/sparse bs=1 count=1 seek=3000000 2>/dev/null && ln -s x /l\n\
         FROM {base}\nCOPY --from=one / /everything\nCOPY tree /tree\nWORKDIR /new/place\nRUN echo done >> /tree/f1\n"
    ));
    for number in 0..40 {
        context = context.file(&format!("tree/f{number}"), format!("file {number}\n").repeat(number * 100));
    }
    context
}

fn digest(outcome: Outcome) -> String {
    let outcome = outcome.ok();
    assert!(outcome.stdout.starts_with("sha256:"), "{outcome}");
    outcome.stdout.trim().to_owned()
}

#[test]
fn twice_and_with_any_number_of_threads() {
    require!(Busybox, Program("taskset"));
    let context = context();
    let first = digest(Kiln::new().build(&context, &[EPOCH]));
    assert_eq!(digest(Kiln::new().build(&context, &[EPOCH])), first, "again");
    assert_eq!(digest(Kiln::new().build(&context, &[EPOCH, "--jobs=1"])), first, "--jobs=1");
    let kiln = Kiln::new();
    let build = kiln.build_command(context.path(), &[EPOCH, "--jobs=4"]);
    let mut pinned = Command::new("taskset");
    pinned.args(["-c", "0"]).arg(build.get_program()).args(build.get_args());
    assert_eq!(digest(run(&mut pinned)), first, "on one processor");
}

#[test]
fn on_overlay_and_on_directory_storage() {
    require!(Busybox, Root);
    let context = context();
    let on_overlay = digest(Kiln::new().build(&context, &[EPOCH]));
    assert_eq!(digest(on_directory_storage(&Kiln::new(), &context, &[EPOCH])), on_overlay);
}

#[test]
fn as_root_and_in_a_user_namespace() {
    require!(Busybox, Root);
    let context = context();
    let namespaces = digest(Kiln::new().build(&context, &[EPOCH, "--isolation=namespaces"]));
    assert_eq!(digest(Kiln::new().build(&context, &[EPOCH, "--isolation=user-namespaces"])), namespaces);
}

#[test]
fn the_environment_gives_the_epoch_too() {
    require!(Busybox);
    let context = Context::on_busybox("RUN echo x > /x\n");
    let given = digest(Kiln::new().build(&context, &[EPOCH]));
    let kiln = Kiln::new();
    let mut command = kiln.build_command(context.path(), &[]);
    assert_eq!(digest(run(command.env("SOURCE_DATE_EPOCH", "1700000000"))), given);
}

/// A store on an overlay cannot hold another overlay's upper directory: kiln must take plain directories.
pub(crate) fn on_directory_storage(kiln: &Kiln, context: &Context, arguments: &[&str]) -> Outcome {
    let build = kiln.build_command(context.path(), arguments);
    let script = "set -e; store=$1; shift; mkdir -p $store; mount -t tmpfs tmpfs $store; cd $store; mkdir l u w m; \
                  mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m; mount --move m $store; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation=private", "sh", "-c", script, "sh"]).arg(kiln.store());
    run(command.arg(build.get_program()).args(build.get_args()))
}

#[test]
fn the_bases_layers_are_rewritten_on_demand_only() {
    require!(Busybox);
    let context = Context::on_busybox("RUN echo x > /x\n");
    let layers = |arguments: &[&str]| -> Vec<String> {
        let layout = tempfile::tempdir().unwrap();
        let output = format!(
            "--output=type=oci,tar=false,dest={},{}",
            layout.path().join("l").display(),
            arguments.first().unwrap_or(&"compression=gzip")
        );
        let kiln = Kiln::new();
        let rest = arguments.iter().skip(1).copied().chain(["--timestamp=5", output.as_str()]);
        kiln.build(&context, &rest.collect::<Vec<_>>()).ok();
        let image = crate::support::Image::read(&layout.path().join("l"));
        let newer = image.tree().values().filter(|node| node.mtime > 5).count();
        let digests = image.manifest["layers"].as_array().unwrap().iter();
        let mut lines: Vec<String> = digests.map(|layer| layer["digest"].to_string()).collect();
        lines.push(format!("{newer} newer"));
        lines
    };
    let plain = layers(&[]);
    assert_ne!(plain.last().unwrap(), "0 newer", "the base has times of its own");
    let rewritten = layers(&["rewrite-timestamp=true"]);
    assert_eq!(rewritten.last().unwrap(), "0 newer");
    assert_ne!(rewritten[0], plain[0]);
    assert_eq!(rewritten[1], plain[1], "new layers are clamped in any case");
    assert_eq!(layers(&["rewrite-timestamp=true", "--jobs=1"]), rewritten, "again");
}
