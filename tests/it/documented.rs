//! What the documents and examples tell people to type is what kiln takes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::need::{Program, PythonModule};
use crate::support::{Kiln, run};

/// `kiln SUBCOMMAND … --flag …` in a document: the subcommand and its long flags, with the place.
struct Mention {
    place: String,
    subcommand: String,
    flags: Vec<String>,
}

#[test]
fn every_documented_flag_exists() {
    let mentions: Vec<Mention> = documents().iter().flat_map(|path| mentions(path)).collect();
    assert!(mentions.len() > 10, "the documents show kiln's command lines");
    let mut faults = BTreeSet::new();
    let subcommands: BTreeSet<&str> = mentions.iter().map(|mention| mention.subcommand.as_str()).collect();
    for subcommand in subcommands {
        let help = run(Command::new(Kiln::program()).args(subcommand.split(' ')).arg("--help")).ok().stdout;
        for mention in mentions.iter().filter(|mention| mention.subcommand == subcommand) {
            for flag in &mention.flags {
                let known = help.split(|c: char| !(c.is_alphanumeric() || c == '-')).any(|word| word == flag);
                if !known {
                    faults.insert(format!("{}: kiln {subcommand} {flag}", mention.place));
                }
            }
        }
    }
    assert!(
        faults.is_empty(),
        "flags that kiln does not have:\n{}",
        faults.into_iter().collect::<Vec<_>>().join("\n")
    );
}

/// Every pipeline and manifest is YAML, and what it has kiln do is a command line that kiln understands.
#[test]
fn command_lines_in_pipelines_and_pods_are_understood() {
    require!(Program("python3"), PythonModule("yaml"));
    let is_yaml =
        |path: &PathBuf| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    let files: Vec<PathBuf> = documents().into_iter().filter(is_yaml).collect();
    assert!(files.len() > 6, "{files:?}");
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/examples.py");
    let read = run(Command::new("python3").arg(reader).arg("commands").args(&files)).ok();
    let found: Vec<serde_json::Value> = serde_json::from_str(&read.stdout).unwrap();
    assert!(found.len() > 12, "{found:#?}");
    for command in found {
        let words = command["words"].as_array().unwrap().iter().skip(1).map(|word| word.as_str().unwrap());
        // Help is shown when everything before it was understood.
        let shown = run(Command::new(Kiln::program()).args(words).arg("--help"));
        assert!(shown.code == Some(0) && shown.stdout.contains("Usage:"), "{}\n{shown}", command["place"]);
    }
    let misspelt = run(Command::new(Kiln::program()).args(["executor", "--contxt=.", "--help"]));
    assert_eq!(misspelt.code, Some(1), "{misspelt}");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut broken = Vec::new();
    let pages =
        documents().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    for path in pages {
        let text = fs::read_to_string(&path).unwrap();
        for rest in text.split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap();
            let outside = target.is_empty() || target.contains("://");
            if !outside && !path.parent().unwrap().join(target).exists() {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Each promise of docs/security.md has a test, and its name is the right one.
#[test]
fn the_attacks_that_the_security_page_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let sources: String = fs::read_dir(root.join("tests/it/attacks"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let rows = page.lines().filter(|line| line.starts_with('|'));
    let words = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    // `attacks::caches::a_lie_…` and `a_lie_…` are both written there; files, options and calls have fewer words.
    let names = words.map(|word| word.rsplit("::").next().unwrap());
    let names: BTreeSet<&str> = names.filter(|name| name.matches('_').count() > 2).collect();
    assert!(names.len() > 50, "{names:?}");
    for name in names {
        assert!(sources.contains(&format!("#[test]\nfn {name}()")), "there is no test `{name}`");
    }
}

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pending = vec![root.join("docs"), root.join("examples"), root.join("benches")];
    let mut found = vec![root.join("README.md"), root.join("CONTRIBUTING.md"), root.join("tools/demo")];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if fs::read_to_string(&path).is_ok() {
                found.push(path);
            }
        }
    }
    found
}

fn mentions(path: &Path) -> Vec<Mention> {
    let text = fs::read_to_string(path).unwrap().replace("\\\n", " ");
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        // Code spans end at a backtick; a pipeline's next program is not kiln's business.
        for part in line.split(['`', '|', ';', '&', '(']) {
            let Some((_, rest)) = part.split_once("kiln ") else { continue };
            let mut words = rest.split_whitespace();
            let Some(first) = words.next() else { continue };
            const SUBCOMMANDS: [&str; 13] = [
                "build", "check", "copy", "doctor", "images", "inspect", "login", "ls-tags", "prune", "push",
                "rm-tag", "tag", "warm",
            ];
            let subcommand = match first {
                "index" | "artifact" | "cache" => match words.next() {
                    Some(second) if second.bytes().all(|b| b.is_ascii_lowercase()) => {
                        format!("{first} {second}")
                    }
                    _ => continue,
                },
                _ if SUBCOMMANDS.contains(&first) => first.to_owned(),
                _ => continue,
            };
            let flags = words
                .filter(|word| word.starts_with("--") && word.len() > 2)
                .map(|word| {
                    word.split('=').next().unwrap().trim_end_matches([',', '.', ')', ']', '"']).to_owned()
                })
                .collect();
            let place = format!("{}:{}", path.display(), number + 1);
            found.push(Mention { place, subcommand, flags });
        }
    }
    found
}
