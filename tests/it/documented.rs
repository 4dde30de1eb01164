//! What the documents and examples tell people to type is what kiln takes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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

#[test]
fn pods_are_given_flags_that_exist() {
    let help = Kiln::new().run("build", ["--help"]).ok().stdout;
    let known: BTreeSet<&str> = help.split(|c: char| !(c.is_alphanumeric() || c == '-')).collect();
    let mut seen = 0;
    for path in documents().into_iter().filter(|path| path.extension().is_some_and(|e| e == "yaml")) {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        for word in
            lines.flat_map(|line| line.split([' ', '"', '=', ',', '['])).filter(|word| word.starts_with("--"))
        {
            assert!(known.contains(word), "{}: {word}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 10, "the examples give flags to pods");
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
