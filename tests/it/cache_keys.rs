//! What a change of the input makes a build do again: exactly the steps that it can reach, and no other.
//!
//! One project, built once; then one change at a time, on a copy of the store, and the steps that ran are compared
//! with those that had to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::need::{Busybox, Root};
use crate::support::{Context, Kiln, Outcome, Registry, base, run};

const DOCKERFILE: &str = "\
FROM BASE AS tools
RUN mkdir -p /t/bin && echo tool > /t/bin/tool
COPY tools /t/share
FROM BASE AS build
ARG USED=1
ENV BEFORE=1
WORKDIR /src
COPY src /src
RUN echo $USED > /stamp && mkdir -p /out && cat main.c > /out/main
ENV AFTER=1
RUN --mount=type=bind,source=bound,target=/b ls /b > /bound
RUN --mount=type=secret,id=key,required=false echo quiet > /quiet
RUN --mount=type=cache,target=/c,id=one echo cached > /cached
FROM BASE AS unused
RUN false
FROM BASE
LABEL one=1 two=2
COPY --from=tools /t /t
COPY --chown=1:1 final.txt /f
COPY --link linked.txt /l
COPY --from=build /out /out
RUN <<EOF
echo heredoc
EOF
USER 5
WORKDIR /w
RUN id > /tmp/id
CMD [\"/t/bin/tool\"]
";

/// All steps from one of the final stage on; 3/7 is the copy of `final.txt`.
const FINAL: [&str; 9] = ["", "", "last 2", "last 3", "last 4", "last 5", "last 6", "last 7", "last 8"];
const BUILD: [&str; 8] = ["", "", "build 2", "build 3", "build 4", "build 5", "build 6", "build 7"];

fn from(stage: &[&'static str], number: usize) -> Vec<&'static str> {
    stage[number..].to_vec()
}

/// The final stage from a step on, without its linked copy: that depends on nothing below it.
fn above_link(number: usize) -> Vec<&'static str> {
    from(&FINAL, number).into_iter().filter(|step| *step != "last 4").collect()
}

fn both(one: Vec<&'static str>, other: Vec<&'static str>) -> Vec<&'static str> {
    [one, other].concat()
}

/// Every step.
fn all() -> Vec<&'static str> {
    [vec!["tools 2", "tools 3"], from(&BUILD, 2), from(&FINAL, 2)].concat()
}

/// One change, and the steps that have to run after it.
struct Case {
    name: &'static str,
    change: Box<dyn Fn(&Path)>,
    arguments: Vec<&'static str>,
    runs: Vec<&'static str>,
}

fn files(name: &'static str, runs: Vec<&'static str>, change: impl Fn(&Path) + 'static) -> Case {
    Case { name, change: Box::new(change), arguments: Vec::new(), runs }
}

fn arguments(name: &'static str, runs: Vec<&'static str>, arguments: &[&'static str]) -> Case {
    Case { name, change: Box::new(|_| {}), arguments: arguments.to_vec(), runs }
}

fn text(name: &'static str, runs: Vec<&'static str>, old: &'static str, new: &'static str) -> Case {
    let change = move |at: &Path| {
        let path = at.join("Dockerfile");
        let before = fs::read_to_string(&path).unwrap();
        assert!(before.contains(old), "{old}");
        fs::write(path, before.replacen(old, new, 1)).unwrap();
    };
    Case { name, change: Box::new(change), arguments: Vec::new(), runs }
}

fn write(path: &'static str, content: &'static str) -> impl Fn(&Path) {
    move |at| fs::write(at.join(path), content).unwrap()
}

fn mode(path: &'static str, mode: u32) -> impl Fn(&Path) {
    move |at| fs::set_permissions(at.join(path), fs::Permissions::from_mode(mode)).unwrap()
}

fn chown(path: &'static str) -> impl Fn(&Path) {
    move |at| std::os::unix::fs::chown(at.join(path), Some(7), Some(7)).unwrap()
}

/// Changes that can reach nothing: not one step runs.
fn harmless() -> Vec<Case> {
    let none = Vec::new;
    vec![
        files("nothing", none(), |_| {}),
        files("newer files", none(), |at| {
            let touch = Command::new("find").arg(at).args(["-exec", "touch", "{}", "+"]).status().unwrap();
            assert!(touch.success());
        }),
        files("a file that no step takes", none(), write("unused.txt", "new")),
        files("an ignored file in a copied directory", none(), write("src/ignored.log", "new")),
        files("the owner of a file on disk", none(), chown("src/main.c")),
        files("the owner of a file that is given one", none(), chown("final.txt")),
        files(
            "another pattern that ignores nothing more",
            none(),
            write(".dockerignore", "**/*.log\nnothing\n"),
        ),
        files("the other way to ignore the same", none(), |at| {
            fs::write(at.join("Dockerfile.dockerignore"), "src/*.log\n").unwrap();
        }),
        text("a comment", none(), "ENV AFTER", "# comment\nENV AFTER"),
        text("a stage that nothing needs", none(), "RUN false", "RUN false or not"),
        text("the name of a label", none(), "one=1", "three=1"),
        text("the order of labels", none(), "one=1 two=2", "two=2 one=1"),
        text("CMD", none(), "[\"/t/bin/tool\"]", "[\"/other\"]"),
        text("an exposed port", none(), "CMD", "EXPOSE 80\nCMD"),
        text("the last USER", none(), "CMD", "USER 6\nCMD"),
        text("an ENV after all steps", none(), "CMD", "ENV LAST=1\nCMD"),
        text("an ARG after all steps", none(), "CMD", "ARG LAST=1\nCMD"),
        text("white space in an instruction", none(), "COPY tools /t/share", "COPY   tools   /t/share"),
        text("the case of an instruction", none(), "COPY tools /t/share", "copy tools /t/share"),
        text("a continued line", none(), "COPY --chown=1:1 final.txt", "COPY --chown=1:1 \\\n final.txt"),
        text("the same with a variable", none(), "COPY tools", "ARG DIR=tools\nCOPY ${DIR}"),
        text("the name of a stage", none(), "AS unused", "AS other"),
        text("how builds share a cache mount", none(), "id=one", "id=one,sharing=locked"),
        arguments("the value of a secret", none(), &["--secret=id=key,env=LANG"]),
        arguments("an unused build argument", none(), &["--build-arg=NOBODY=1"]),
        arguments("a build argument's own default", none(), &["--build-arg=USED=1"]),
        arguments("a proxy", none(), &["--build-arg=HTTP_PROXY=http://127.0.0.1:1"]),
        arguments("a label", none(), &["--label=a=b"]),
        arguments("a name", none(), &["--tag=example.test/other:1"]),
        arguments("an annotation", none(), &["--annotation=a=b"]),
        arguments("how many stages work at once", none(), &["--jobs=1"]),
        arguments("the target, by its number", none(), &["--target=3"]),
    ]
}

/// Changes to files.
fn of_files() -> Vec<Case> {
    vec![
        files("a byte", both(from(&BUILD, 3), from(&FINAL, 5)), write("src/main.c", "int main2;")),
        files("a byte that is not in what is copied on", from(&BUILD, 3), write("src/other.c", "changed")),
        files("a mode", from(&BUILD, 3), mode("src/other.c", 0o755)),
        files("the mode of a directory", from(&BUILD, 3), mode("src/sub", 0o700)),
        files("a new file", from(&BUILD, 3), write("src/new.c", "")),
        files("a file less", from(&BUILD, 3), |at| fs::remove_file(at.join("src/other.c")).unwrap()),
        files("a rename", from(&BUILD, 3), |at| {
            fs::rename(at.join("src/other.c"), at.join("src/another.c")).unwrap();
        }),
        files("a new empty directory", from(&BUILD, 3), |at| fs::create_dir(at.join("src/new")).unwrap()),
        files("a file that became a link to the same", from(&BUILD, 3), |at| {
            fs::rename(at.join("src/other.c"), at.join("src/sub/other.c")).unwrap();
            symlink("sub/other.c", at.join("src/other.c")).unwrap();
        }),
        files("a link that points elsewhere", from(&BUILD, 3), |at| {
            fs::remove_file(at.join("src/link")).unwrap();
            symlink("elsewhere", at.join("src/link")).unwrap();
        }),
        files(
            "a pattern that ignores a file",
            from(&BUILD, 3),
            write(".dockerignore", "**/*.log\nsrc/other.c\n"),
        ),
        files("a pattern that ignores one less", from(&BUILD, 3), write(".dockerignore", "")),
        files("what a mount shows", from(&BUILD, 5), write("bound/data", "changed")),
        files("a file beside what a mount shows", from(&BUILD, 5), write("bound/more", "")),
        files("a file that the final stage copies", above_link(3), write("final.txt", "changed")),
        files("its mode", above_link(3), mode("final.txt", 0o600)),
        files(
            "a file in what is copied on whole",
            both(vec!["tools 3"], above_link(2)),
            write("tools/x", "y"),
        ),
        files("a file of a linked copy", from(&FINAL, 4), |at| {
            fs::write(at.join("linked.txt"), "changed").unwrap();
        }),
    ]
}

/// Changes to the Dockerfile and to the command line.
fn of_texts() -> Vec<Case> {
    vec![
        text("a command", both(vec!["tools 2", "tools 3"], above_link(2)), "echo tool", "echo tool2"),
        text("a command that comes to the same", vec!["tools 2", "tools 3"], "echo tool ", "echo  tool "),
        text("an ENV before a step", from(&BUILD, 4), "BEFORE=1", "BEFORE=2"),
        text("an ENV's name", from(&BUILD, 4), "BEFORE=1", "BEFOREHAND=1"),
        text("an ENV in between", from(&BUILD, 5), "AFTER=1", "AFTER=2"),
        text("an ARG's default", from(&BUILD, 4), "USED=1", "USED=2"),
        text("a new ARG", from(&BUILD, 4), "ENV BEFORE", "ARG MORE=1\nENV BEFORE"),
        text("a new ARG without a value", vec![], "ENV BEFORE", "ARG MORE\nENV BEFORE"),
        text("a WORKDIR", from(&BUILD, 2), "WORKDIR /src", "WORKDIR /src/"),
        text("a mount's source", from(&BUILD, 5), "source=bound", "source=src"),
        text("a mount's target", from(&BUILD, 5), "target=/b ls /b", "target=/bb ls /bb"),
        text("a mount that may be written", from(&BUILD, 5), "target=/b ", "target=/b,rw "),
        text("a secret's id", from(&BUILD, 6), "id=key", "id=another"),
        text("a secret's mode", from(&BUILD, 6), "id=key", "id=key,mode=0444"),
        text("a cache's id", from(&BUILD, 7), "id=one", "id=two"),
        text(
            "the network of a step",
            from(&BUILD, 7),
            "--mount=type=cache",
            "--network=none --mount=type=cache",
        ),
        text("the body of a heredoc", from(&FINAL, 6), "echo heredoc", "echo other"),
        text("the owner of a copy", above_link(3), "--chown=1:1", "--chown=2:1"),
        text("a mode for a copy", above_link(3), "--chown=1:1", "--chown=1:1 --chmod=600"),
        text("a destination", above_link(3), "final.txt /f", "final.txt /g"),
        text("a destination that is a directory", above_link(3), "final.txt /f", "final.txt /f/"),
        text("what is left out of a copy", from(&BUILD, 3), "COPY src", "COPY --exclude=other.c src"),
        text("the user of a step", vec!["last 7", "last 8"], "USER 5", "USER 6"),
        text("a SHELL", vec!["last 8"], "RUN id", "SHELL [\"/bin/sh\", \"-ec\"]\nRUN id"),
        text(
            "the exec form of the same",
            vec![],
            "RUN id > /tmp/id",
            "RUN [\"/bin/sh\", \"-c\", \"id > /tmp/id\"]",
        ),
        text("a step more", vec!["last 6", "last 7", "last 8", "last 9"], "RUN <<EOF", "RUN true\nRUN <<EOF"),
        text("a step less", vec!["last 7"], "WORKDIR /w\n", ""),
        arguments("a build argument", from(&BUILD, 4), &["--build-arg=USED=2"]),
        text(
            "the base of a stage",
            vec!["tools 2", "tools 3"],
            "busybox:latest AS tools",
            "busybox:keys AS tools",
        ),
        // What is copied onto the same files is the same for any platform.
        arguments(
            "the platform",
            [vec!["tools 2", "tools 3"], from(&BUILD, 2), from(&FINAL, 6)].concat(),
            &["--platform=linux/386"],
        ),
        arguments("the source epoch", all(), &["--timestamp=5"]),
        arguments("the source epoch as a build argument", all(), &["--build-arg=SOURCE_DATE_EPOCH=5"]),
        arguments(
            "a host's address",
            [vec!["tools 2", "tools 3"], from(&BUILD, 4), from(&FINAL, 6)].concat(),
            &["--add-host=example.test:127.0.0.1"],
        ),
    ]
}

fn project() -> Context {
    Context::new(&DOCKERFILE.replace("BASE", base::busybox()))
        .file(".dockerignore", "**/*.log\n")
        .file("src/main.c", "int main;")
        .file("src/other.c", "other")
        .file("src/ignored.log", "log")
        .file("src/sub/deep", "deep")
        .symlink("src/link", "main.c")
        .file("bound/data", "data")
        .file("tools/x", "x")
        .file("final.txt", "final")
        .file("linked.txt", "linked")
}

/// Returns the steps that ran, as `stage number`; the final stage is `last`.
fn ran(outcome: &Outcome) -> BTreeSet<String> {
    let mut names = BTreeMap::new();
    let mut ran = BTreeSet::new();
    for line in outcome.stderr.lines() {
        let Some((id, rest)) = line.split_once(' ') else { continue };
        if let Some((step, instruction)) = rest.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
            let (stage, number) = step.rsplit_once(' ').unwrap();
            let stage = if stage.starts_with("stage-") { "last" } else { stage };
            let number = number.split('/').next().unwrap();
            if !instruction.starts_with("FROM") {
                names.insert(id.to_owned(), format!("{stage} {number}"));
            }
        } else if rest.starts_with("DONE")
            && let Some(name) = names.get(id)
        {
            ran.insert(name.clone());
        }
    }
    ran
}

#[test]
fn a_change_makes_exactly_the_steps_run_that_it_can_reach() {
    require!(Busybox, Root);
    let first = Kiln::new();
    // Another image with the same files.
    let other = Context::on_busybox("CMD [\"other\"]\nRUN touch /other\n");
    let name = format!("--tag={}", Registry::shared().image("busybox:keys"));
    Kiln::new().build(&other, &["--push", &name]).ok();
    let begun = first.build(&project(), &["--tag=example.test/app:1"]).ok();
    assert_eq!(ran(&begun).len(), 15, "{begun}");
    let cases: Vec<Case> = [harmless(), of_files(), of_texts()].into_iter().flatten().collect();
    assert!(cases.len() >= 60, "{}", cases.len());
    let mut wrong = Vec::new();
    for Case { name, change, arguments, runs } in cases {
        let kiln = Kiln::new();
        run(Command::new("cp").arg("-a").arg(first.store()).arg(kiln.store())).ok();
        let context = project();
        change(context.path());
        let arguments: Vec<&str> = ["--tag=example.test/app:1"].into_iter().chain(arguments).collect();
        let outcome = kiln.build(&context, &arguments);
        if outcome.code != Some(0) {
            wrong.push(format!("{name}: {outcome}"));
            continue;
        }
        let (found, expected) = (ran(&outcome), runs.iter().map(|step| (*step).to_owned()).collect());
        if found != expected {
            wrong.push(format!("{name}: {found:?} ran, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
