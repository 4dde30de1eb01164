//! What a change of the input makes a build do again: exactly the steps that it can reach, and no other.
//!
//! One project, built once; then one change at a time, on a copy of the store, and the steps that ran are compared
//! with those that had to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use super::kaniko::GitServer;
use crate::support::need::{Busybox, Program, Root};
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
        text("the same path", none(), "COPY src /src", "COPY ./src/ /src"),
        text("the same owner", none(), "--chown=1:1", "--chown=1"),
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

/// The sorts of named contexts.
const SORTS: [&str; 6] = ["dir", "tar", "web", "git", "image", "layout"];

/// Where the contexts of each sort are, and the registry that has the image.
struct Contexts {
    directory: tempfile::TempDir,
    server: GitServer,
}

impl Contexts {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        for sort in ["dir", "tar", "web", "git", "image", "layout"] {
            fs::create_dir(at.join(sort)).unwrap();
            // Of the same files in two contexts the records would be the same.
            fs::write(at.join(sort).join("f"), sort).unwrap();
            fs::write(at.join(sort).join("other"), format!("other of {sort}")).unwrap();
        }
        fs::write(at.join("dir/.dockerignore"), "ignored\n").unwrap();
        let server = GitServer::start(at);
        let contexts = Self { directory, server };
        contexts.git(&["init", "--quiet", "--initial-branch=main", "."]);
        SORTS.iter().for_each(|sort| contexts.publish(sort));
        contexts
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.directory.path().join(path)
    }

    fn git(&self, words: &[&str]) {
        let mut command = Command::new("git");
        command.arg("-C").arg(self.at("git")).args(["-c", "user.name=a", "-c", "user.email=a@b"]);
        run(command.args(words)).ok();
    }

    /// Makes of a directory what a context of its sort is.
    fn publish(&self, sort: &str) {
        let tar = |to: &str| {
            let (archive, files) = (self.at(to), self.at(sort));
            run(Command::new("tar").arg("-cf").arg(archive).arg("-C").arg(files).args(["f", "other"])).ok();
        };
        let context = || {
            let context = Context::new("FROM scratch\nCOPY f other /\n");
            let read = |name: &str| fs::read(self.at(sort).join(name)).unwrap();
            context.file("f", read("f")).file("other", read("other"))
        };
        match sort {
            "tar" => tar("context.tar"),
            "web" => tar("web.tar"),
            "git" => {
                self.git(&["add", "--all"]);
                self.git(&["commit", "--quiet", "--message=one", "--allow-empty"]);
                let _ = fs::remove_dir_all(self.at("repo.git"));
                self.git(&["clone", "--quiet", "--bare", ".", self.at("repo.git").to_str().unwrap()]);
            }
            "image" => {
                let tag = format!("--tag={}", Registry::shared().image("contexts:one"));
                Kiln::new().build(&context(), &["--push", &tag, "--timestamp=1"]).ok();
            }
            "layout" => {
                let _ = fs::remove_dir_all(self.at("oci"));
                let output = format!("--output=type=oci,tar=false,dest={}", self.at("oci").display());
                Kiln::new().build(&context(), &[&output, "--timestamp=1"]).ok();
            }
            _ => {}
        }
    }

    fn arguments(&self) -> BTreeMap<&'static str, String> {
        let path = |name: &str| self.at(name).display().to_string();
        let port = &self.server.port;
        BTreeMap::from([
            ("dir", path("dir")),
            ("tar", path("context.tar")),
            ("web", format!("http://127.0.0.1:{port}/web.tar")),
            ("git", format!("http://127.0.0.1:{port}/cgi-bin/git/repo.git#main")),
            ("image", format!("docker-image://{}", Registry::shared().image("contexts:one"))),
            ("layout", format!("oci-layout://{}", path("oci"))),
        ])
    }
}

/// Every way to read from each sort of context, each in a stage of its own.
fn reading_all() -> String {
    let mut stages = String::new();
    let mut last = "FROM scratch\n".to_owned();
    for sort in SORTS {
        stages += &format!(
            "FROM scratch AS c-{sort}\nCOPY --from={sort} f /f\nFROM {sort} AS f-{sort}\nWORKDIR /w\n\
             FROM {} AS r-{sort}\nRUN --mount=type=bind,from={sort},target=/b cat /b/f > /f\n\
             RUN --mount=type=cache,id={sort},from={sort},target=/c cat /c/f > /g\n",
            base::busybox()
        );
        for way in ["c", "f", "r"] {
            last += &format!("COPY --link --from={way}-{sort} /f /{way}-{sort}\n");
        }
    }
    stages + &last
}

/// A change of one context: its sort, what is done, and which steps of the stages that read it run.
type ContextCase =
    (&'static str, &'static str, fn(&Contexts, &mut BTreeMap<&'static str, String>), &'static [&'static str]);

const READERS: &[&str] = &["c-SORT 2", "f-SORT 2", "r-SORT 2", "r-SORT 3"];

fn publish_other(contexts: &Contexts, sort: &str, path: &str) {
    fs::write(contexts.at(sort).join(path), "changed").unwrap();
    contexts.publish(sort);
}

const CONTEXT_CASES: &[ContextCase] = &[
    ("dir", "content", |at, _| publish_other(at, "dir", "f"), READERS),
    ("tar", "content", |at, _| publish_other(at, "tar", "f"), READERS),
    ("web", "content", |at, _| publish_other(at, "web", "f"), READERS),
    ("git", "content", |at, _| publish_other(at, "git", "f"), READERS),
    ("image", "content", |at, _| publish_other(at, "image", "f"), READERS),
    ("layout", "content", |at, _| publish_other(at, "layout", "f"), READERS),
    // A copy takes one file; a base and a mount have all of them.
    ("dir", "another file", |at, _| publish_other(at, "dir", "other"), &READERS_OF_ALL),
    ("tar", "another file", |at, _| publish_other(at, "tar", "other"), &READERS_OF_ALL),
    ("web", "another file", |at, _| publish_other(at, "web", "other"), &READERS_OF_ALL),
    ("git", "another file", |at, _| publish_other(at, "git", "other"), &READERS_OF_ALL),
    (
        "dir",
        "a mode",
        |at, _| fs::set_permissions(at.at("dir/f"), fs::Permissions::from_mode(0o755)).unwrap(),
        READERS,
    ),
    ("dir", "an ignored file", |at, _| publish_other(at, "dir", "ignored"), &[]),
    (
        "dir",
        "times",
        |at, _| drop(run(Command::new("touch").arg(at.at("dir/f")).arg(at.at("dir"))).ok()),
        &[],
    ),
    (
        "dir",
        "a path",
        |at, arguments| {
            run(Command::new("cp").arg("-r").arg(at.at("dir")).arg(at.at("moved"))).ok();
            arguments.insert("dir", at.at("moved").display().to_string());
        },
        &[],
    ),
    (
        "tar",
        "another sort with the same files",
        |at, arguments| drop(arguments.insert("tar", at.at("tar").display().to_string())),
        &[],
    ),
    (
        "web",
        "a URL",
        |at, arguments| {
            fs::rename(at.at("web.tar"), at.at("other.tar")).unwrap();
            let url = arguments["web"].replace("web.tar", "other.tar");
            arguments.insert("web", url);
        },
        &[],
    ),
    ("git", "a commit with the same files", |at, _| at.publish("git"), &[]),
    (
        "layout",
        "a path",
        |at, arguments| {
            fs::rename(at.at("oci"), at.at("oci2")).unwrap();
            arguments.insert("layout", format!("oci-layout://{}", at.at("oci2").display()));
        },
        &[],
    ),
    (
        "image",
        "a digest instead of a tag",
        |_, arguments| {
            let name = Registry::shared().image("contexts");
            let digest = Registry::shared().digest("contexts:one");
            arguments.insert("image", format!("docker-image://{name}@{digest}"));
        },
        &[],
    ),
];

const READERS_OF_ALL: [&str; 3] = ["f-SORT 2", "r-SORT 2", "r-SORT 3"];

/// What a named context holds is in the key of every step that reads it, and where it is and what it is called is not.
#[test]
fn a_named_context_of_any_sort_counts_by_its_content() {
    require!(Busybox, Root, Program("git"), Program("python3"));
    let (first, contexts) = (Kiln::new(), Contexts::new());
    let text = reading_all();
    let build = |kiln: &Kiln, text: &str, arguments: &BTreeMap<&str, String>| {
        let named = arguments.iter().map(|(name, value)| format!("--build-context={name}={value}"));
        let named: Vec<String> = named.chain(["--tag=example.test/app:1".to_owned()]).collect();
        let named: Vec<&str> = named.iter().map(String::as_str).collect();
        kiln.build(&Context::new(text), &named)
    };
    let begun = build(&first, &text, &contexts.arguments()).ok();
    assert!(ran(&begun).len() >= 42, "{begun}");
    // The same by other names.
    let renamed = SORTS.iter().fold(text.clone(), |text, sort| {
        text.replace(&format!("from={sort}"), &format!("from={sort}2"))
            .replace(&format!("FROM {sort} "), &format!("FROM {sort}2 "))
    });
    let kiln = Kiln::new();
    run(Command::new("cp").arg("-a").arg(first.store()).arg(kiln.store())).ok();
    let names: Vec<String> = SORTS.iter().map(|sort| format!("{sort}2")).collect();
    let arguments = contexts.arguments();
    let other = names.iter().zip(SORTS).map(|(name, sort)| (name.as_str(), arguments[sort].clone()));
    let again = build(&kiln, &renamed, &other.collect()).ok();
    assert_eq!(ran(&again), BTreeSet::new(), "{again}");
    let mut wrong = Vec::new();
    for (sort, what, change, runs) in CONTEXT_CASES {
        let (kiln, mut arguments) = (Kiln::new(), contexts.arguments());
        run(Command::new("cp").arg("-a").arg(first.store()).arg(kiln.store())).ok();
        let saved = tempfile::tempdir().unwrap();
        run(Command::new("cp").arg("-a").arg(contexts.at(".")).arg(saved.path())).ok();
        change(&contexts, &mut arguments);
        let outcome = build(&kiln, &text, &arguments).ok();
        // `FROM` a git context has the times of its checkout: what is above is made anew wherever it is worked on.
        let is_of_now = |step: &str| step == "f-git 2" && *sort != "git";
        let found: BTreeSet<String> =
            ran(&outcome).into_iter().filter(|step| !step.starts_with("last") && !is_of_now(step)).collect();
        let expected = runs.iter().map(|step| step.replace("SORT", sort)).collect();
        if found != expected {
            wrong.push(format!("{what} of {sort}: {found:?} ran, not {expected:?}"));
        }
        run(Command::new("find").arg(contexts.at(".")).args(["-mindepth", "1", "-delete"])).ok();
        run(Command::new("cp").arg("-a").arg(saved.path().join(".")).arg(contexts.at("."))).ok();
        if *sort == "image" {
            contexts.publish("image");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
