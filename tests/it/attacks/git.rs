//! Repositories: nothing that a context, a checkout or a fetched tree names is run or believed by git.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Place;
use super::hosts::{Web, git, repository, served};
use crate::support::container::RUNTIME;
use crate::support::need::{Program, Root};
use crate::support::server::http::Response;
use crate::support::{Context, Kiln, run};

/// Says that it ran, below `.git` of the work tree that it runs in, or of the one above.
const SCRIPT: &str =
    "#!/bin/sh\nfor at in .git ../.git .; do echo \"$0 $*\" 2> /dev/null >> $at/RAN && break; done\ncat\n";

/// What a repository is believed, if it is a word.
const BELIEVED: [&str; 8] = [
    "core.autocrlf",
    "core.fileMode",
    "core.ignoreCase",
    "core.sparseCheckout",
    "core.symlinks",
    "core.trustctime",
    "extensions.",
    "status.showUntrackedFiles",
];

/// Lists the settings that git knows, each with a name for what is any.
fn settings() -> Vec<String> {
    let listing = run(Command::new("git").args(["help", "--config"])).ok().stdout;
    // The manual also has names that git's files cannot have.
    let is_key = |key: &str| key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-<>*".contains(&byte));
    let names = listing.lines().filter(|name| name.rsplit_once('.').is_some_and(|(_, key)| is_key(key)));
    let mut settings: Vec<String> = names
        .filter(|name| !BELIEVED.iter().any(|believed| name.starts_with(believed)))
        .map(|name| {
            let parts = name.split('.').map(|part| if part.contains(['<', '*']) { "x" } else { part });
            parts.collect::<Vec<_>>().join(".")
        })
        .collect();
    // The manual has them in words only.
    settings.extend(
        ["filter.x.clean", "filter.x.smudge", "filter.x.process", "diff.x.command"].map(str::to_owned),
    );
    settings.extend(["merge.x.driver", "alias.status", "pager.log", "hook.x.command"].map(str::to_owned));
    settings
}

/// What of `core` names a program or its place. For a submodule's commit git reads the rest itself, and wants numbers and
/// switches.
const CORE: [&str; 8] = [
    "alternateRefsCommand",
    "askPass",
    "editor",
    "fsmonitor",
    "gitProxy",
    "hooksPath",
    "pager",
    "sshCommand",
];

/// A line for every setting: all of them the script, which is where a work tree has its `.git`.
fn armed(script: &str, is_submodule: bool) -> String {
    let line = |name: &String| {
        let (section, key) = name.rsplit_once('.').unwrap();
        let section = match section.split_once('.') {
            Some((section, sub)) => format!("[{section} \"{sub}\"]"),
            None => format!("[{section}]"),
        };
        format!("{section}\n\t{key} = {script}\n")
    };
    let is_meant =
        |name: &&String| name.strip_prefix("core.").is_none_or(|key| !is_submodule || CORE.contains(&key));
    settings().iter().filter(is_meant).map(line).collect()
}

fn write(path: &Path, content: &str, mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Puts a program into a git directory, and its name wherever a program can be named.
fn arm(git_dir: &Path, script: &str) {
    write(&git_dir.join("run.sh"), SCRIPT, 0o755);
    for hook in ["fsmonitor-watchman", "post-index-change", "reference-transaction", "query-watchman"] {
        write(&git_dir.join("hooks").join(hook), SCRIPT, 0o755);
    }
    let config = fs::read_to_string(git_dir.join("config")).unwrap();
    fs::write(git_dir.join("config"), config + &armed(script, script.contains(".."))).unwrap();
    write(&git_dir.join("info/attributes"), "* filter=x diff=x merge=x\n", 0o644);
}

/// A work tree of two repositories, one in the other; what they would run says so.
fn hostile() -> tempfile::TempDir {
    let library = tempfile::tempdir().unwrap();
    write(&library.path().join("f"), "x\n", 0o644);
    write(&library.path().join(".gitattributes"), "* filter=x\n", 0o644);
    git(library.path(), &["init", "--quiet"]);
    git(library.path(), &["add", "."]);
    git(library.path(), &["commit", "--quiet", "--message=one"]);
    let tree = repository(&[]);
    let url = library.path().to_str().unwrap();
    git(tree.path(), &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", url, "sub"]);
    write(&tree.path().join(".gitattributes"), "* filter=x diff=x merge=x\n", 0o644);
    git(tree.path(), &["add", "."]);
    git(tree.path(), &["commit", "--quiet", "--message=two"]);
    tree
}

/// Everything below a directory becomes another user's, and everybody's to change.
fn give_away(directory: &Path) {
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        lchown(&path, Some(65534), Some(65534)).unwrap();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if !metadata.is_symlink() {
            let mode = metadata.permissions().mode() & 0o7777;
            fs::set_permissions(
                &path,
                fs::Permissions::from_mode(mode | 0o666 | ((mode & 0o100) / 0o100 * 0o111)),
            )
            .unwrap();
        }
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}

/// What says that something ran, wherever below a directory.
fn ran(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let found = entries.flat_map(|entry| match entry.file_type().unwrap().is_dir() {
        true => ran(&entry.path()),
        false if entry.file_name() == "RAN" => vec![entry.path()],
        false => vec![],
    });
    found.collect()
}

/// git with the libraries that it needs, for a container that has none.
fn programs() -> Vec<String> {
    let places = ["/usr", "/lib", "/lib64"].into_iter().filter(|place| Path::new(place).is_dir());
    places.map(|place| format!("{place}:{place}")).collect()
}

#[test]
fn no_setting_of_a_repository_runs_a_program() {
    require!(Root, Program("git"), Program(RUNTIME));
    let tree = hostile();
    let at = |name: &str| tree.path().join(name);
    let commit = run(Command::new("git").arg("-C").arg(tree.path()).args(["rev-parse", "HEAD"])).ok().stdout;
    let short = &commit[..8];
    // That is what git itself does with it, before the rest of the settings keeps it from doing anything.
    write(&at(".git/run.sh"), SCRIPT, 0o755);
    write(&at(".git/modules/sub/run.sh"), SCRIPT, 0o755);
    let filter = ["filter.x.clean", "sh ../.git/run.sh || sh .git/run.sh"];
    git(&at("sub"), &["config", filter[0], filter[1]]);
    write(&at("sub/f"), "x\n", 0o644);
    git(tree.path(), &["status"]);
    let marks = ran(tree.path());
    assert!(!marks.is_empty(), "the attack is none");
    marks.iter().for_each(|mark| fs::remove_file(mark).unwrap());
    arm(&at(".git"), "sh .git/run.sh");
    arm(&at(".git/modules/sub"), "sh ../.git/run.sh");
    for (changed, tag) in [(None, ""), (Some("sub/f"), "-dirty"), (Some("file"), "-dirty")] {
        match changed {
            Some(name) => write(&at(name), "changed\n", 0o644),
            // Looked into again, whatever the index knows.
            None => ["file", "sub/f"].iter().for_each(|name| {
                let content = fs::read_to_string(at(name)).unwrap();
                write(&at(name), &content, 0o644);
            }),
        }
        give_away(tree.path());
        let metadata = |out: &Path| fs::read_to_string(out.join("metadata")).unwrap();
        let script = "$BUILD --tag=example.com/app --metadata-file=$OUT/metadata $CONTEXT";
        let mut said = Vec::new();
        for (place, volumes) in [(Place::PlainUser, vec![]), (Place::Kind("A"), programs())] {
            let out = tempfile::tempdir().unwrap();
            place.run(tree.path(), out.path(), &volumes, script).ok();
            said.push(metadata(out.path()));
        }
        let kiln = Kiln::new();
        let file = kiln.scratch("metadata");
        let option = format!("--metadata-file={}", file.display());
        run(&mut kiln.build_command(tree.path(), &["--tag=example.com/app", &option])).ok();
        said.push(fs::read_to_string(file).unwrap());
        assert_eq!(ran(tree.path()), Vec::<PathBuf>::new(), "{changed:?}");
        for said in said {
            assert!(said.contains(&format!("example.com/app:{short}{tag}\"")), "{changed:?}: {said}");
        }
    }
}

#[test]
fn a_repository_among_a_contexts_files_is_none() {
    require!(Program("git"));
    let inner = repository(&[]);
    let outer = tempfile::tempdir().unwrap();
    let docker = outer.path().join("docker");
    git(outer.path(), &["init", "--quiet"]);
    run(Command::new("cp").arg("-a").arg(inner.path().join(".git")).arg(&docker)).ok();
    for name in ["Dockerfile", "file"] {
        fs::copy(inner.path().join(name), docker.join(name)).unwrap();
    }
    write(&docker.join(".gitattributes"), "* filter=x\n", 0o644);
    write(&docker.join("run.sh"), SCRIPT, 0o755);
    let config = "[core]\nbare = false\nworktree = .\n[filter \"x\"]\nclean = sh ./run.sh\n";
    write(&docker.join("config"), config, 0o644);
    git(&docker, &["--git-dir=.", "status"]);
    let marks = ran(outer.path());
    assert!(!marks.is_empty(), "the attack is none");
    marks.iter().for_each(|mark| fs::remove_file(mark).unwrap());
    git(outer.path(), &["add", "--force", "."]);
    git(outer.path(), &["commit", "--quiet", "--message=pushed"]);
    let commit = run(Command::new("git").arg("-C").arg(outer.path()).args(["rev-parse", "HEAD"])).ok().stdout;
    write(&docker.join("file"), "content\n", 0o644);
    let kiln = Kiln::new();
    run(&mut kiln.build_command(&docker, &["--tag=example.com/app"])).ok();
    assert_eq!(ran(outer.path()), Vec::<PathBuf>::new());
    let images = kiln.run("images", [""; 0]).ok();
    assert!(images.stdout.contains(&commit[..8]) && !images.stdout.contains("-dirty"), "{images}");
}

#[test]
fn nothing_of_a_fetched_tree_is_run_or_believed() {
    require!(Program("git"));
    let tree = repository(&[]);
    let at = |name: &str| tree.path().join(name);
    write(&at(".gitattributes"), "* filter=x\nlarge filter=lfs\n", 0o644);
    write(&at("large"), "version https://git-lfs.github.com/spec/v1\n", 0o644);
    write(&at(".lfsconfig"), "[lfs]\n\turl = http://127.0.0.1:1/\n", 0o644);
    run(Command::new("cp").arg("-a").arg(at(".git")).arg(at("docker"))).ok();
    write(&at("docker/config"), "[core]\nworktree = .\n[filter \"x\"]\nsmudge = sh run.sh\n", 0o644);
    for name in ["docker/run.sh", "run.sh", "docker/hooks/post-checkout"] {
        write(&at(name), SCRIPT, 0o755);
    }
    for name in ["Dockerfile", "file", "large"] {
        fs::copy(at(name), at("docker").join(name)).unwrap();
    }
    git(tree.path(), &["add", "--force", "."]);
    git(tree.path(), &["commit", "--quiet", "--message=pushed"]);
    git(tree.path(), &["update-server-info"]);
    let modules = tempfile::tempdir().unwrap();
    run(Command::new("cp").arg("-a").arg(tree.path()).arg(modules.path().join("r"))).ok();
    let modules = modules.path().join("r");
    let shell = "[submodule \"s\"]\n\tpath = s\n\turl = ext::sh run.sh\n\tupdate = !sh run.sh\n";
    write(&modules.join(".gitmodules"), shell, 0o644);
    let commit = run(Command::new("git").arg("-C").arg(&modules).args(["rev-parse", "HEAD"])).ok().stdout;
    git(&modules, &["update-index", "--add", "--cacheinfo", &format!("160000,{},s", commit.trim())]);
    git(&modules, &["add", ".gitmodules"]);
    git(&modules, &["commit", "--quiet", "--message=submodule"]);
    git(&modules, &["update-server-info"]);
    let (plain, hostile) = (tree.path().to_owned(), modules);
    let web = Web::start(move |request| {
        served("r", &plain, request)
            .or_else(|| served("modules", &hostile, request))
            .unwrap_or_else(|| Response::new(404))
    });
    // The store is in another repository, which has everything go elsewhere.
    let around = tempfile::tempdir().unwrap();
    git(around.path(), &["init", "--quiet"]);
    git(around.path(), &["config", "url.http://127.0.0.1:1/.insteadOf", &format!("http://{}/", web.host())]);
    let around = around.path().to_owned();
    let kiln = Kiln::new();
    let build = |context: &Path, name: &str| {
        let mut command = Command::new(Kiln::program());
        command.args(["build", "--progress=plain", "--root"]).arg(around.join("store"));
        command.arg(format!("--output=type=local,dest={}", kiln.scratch(name).display()));
        run(command.arg(context))
    };
    let url = format!("http://{}", web.host());
    build(Path::new(&format!("{url}/r.git#:docker")), "context").ok();
    let context = Context::new(&format!("FROM scratch\nADD --keep-git-dir=true {url}/r.git /\n"));
    build(context.path(), "added").ok();
    // Without the program that LFS's filter names there is what the repository has.
    let large = fs::read_to_string(kiln.scratch("added").join("large")).unwrap();
    assert!(large.starts_with("version https://git-lfs"), "{large}");
    build(Path::new(&format!("{url}/modules.git")), "modules").fails(1, &["submodule"]);
    let without = build(Path::new(&format!("{url}/modules.git?submodules=false")), "modules");
    without.ok();
    for place in [kiln.scratch("added"), kiln.scratch("context"), around] {
        assert_eq!(ran(&place), Vec::<PathBuf>::new());
    }
}
