//! Why a step is not in a cache: what went into it now, against the newest record of the same step. Pure.

use std::collections::BTreeMap;
use std::path::Path;

use super::inputs::{FileInput, FileInputs, Input, InputValue, Inputs};
use super::record::Record;

/// How many files are named before the rest is only counted.
const FILES_NAMED: usize = 10;

/// Longest text of a value that is shown, in characters.
const MOST_SHOWN: usize = 80;

/// Says what is other than it was when `old` was made, the likeliest cause first; never nothing.
///
/// `instruction` is the step's text now, and `inputs` is what went into its key.
pub fn explain(old: &Record, instruction: &str, inputs: &Inputs) -> Vec<String> {
    let mut reasons = Vec::new();
    let is_other_instruction = old.instruction != instruction;
    if is_other_instruction {
        reasons.push(format!("the instruction changed: it was `{}`", short(&old.instruction)));
    }
    let before: BTreeMap<&str, &InputValue> = by_name(&old.inputs);
    let now: BTreeMap<&str, &InputValue> = by_name(inputs);
    let mut below = Vec::new();
    for Input { name, value } in &inputs.0 {
        match before.get(name.as_str()) {
            Some(old) if *old == value => {}
            // What another instruction is made of is no news.
            None if is_other_instruction && !is_variable(name) => {}
            _ if is_other_instruction && is_part_of_text(name) => {}
            old if is_below(name) => below.push((name, old.is_some())),
            old => change(name, old.copied(), Some(value), &mut reasons),
        }
    }
    for (name, value) in before.iter().filter(|(name, _)| !now.contains_key(*name)) {
        if !is_other_instruction || is_variable(name) {
            change(name, Some(value), None, &mut reasons);
        }
    }
    for (name, _) in below {
        reasons.push(match name.as_str() {
            "parent" => "what comes before it changed".to_owned(),
            _ => "a stage that it reads from changed".to_owned(),
        });
    }
    if reasons.is_empty() {
        reasons.push("what comes before it was built anew and came out differently".to_owned());
    }
    reasons
}

fn by_name(inputs: &Inputs) -> BTreeMap<&str, &InputValue> {
    inputs.0.iter().map(|input| (input.name.as_str(), &input.value)).collect()
}

fn is_variable(name: &str) -> bool {
    name.starts_with("variable ") || name.starts_with("argument ")
}

fn is_below(name: &str) -> bool {
    name == "parent" || name.starts_with("stage ")
}

/// Tells whether an input is written in the instruction itself.
fn is_part_of_text(name: &str) -> bool {
    name.starts_with("--")
        || name.starts_with("mount ")
        || ["command", "script", "sources", "found", "destination", "directory", "from", "checksum"]
            .contains(&name)
}

fn change(name: &str, old: Option<&InputValue>, new: Option<&InputValue>, reasons: &mut Vec<String>) {
    let what = match name.split_once(' ') {
        Some(("variable", name)) => format!("the variable {name}"),
        Some(("argument", name)) => format!("the build argument {name}"),
        _ => format!("the {name}"),
    };
    match (old, new) {
        (Some(InputValue::Files(old)), Some(InputValue::Files(new))) => files(old, new, reasons),
        (Some(InputValue::Text(old)), Some(InputValue::Text(new))) => {
            reasons.push(format!("{what} changed: `{}` was `{}`", short(new), short(old)));
        }
        (Some(InputValue::List(old)), Some(InputValue::List(new))) => {
            let (old, new) = (old.join(" "), new.join(" "));
            reasons.push(format!("{what} changed: `{}` was `{}`", short(&new), short(&old)));
        }
        (Some(_), Some(_)) => reasons.push(format!("{what} changed")),
        (None, Some(InputValue::Text(new))) => reasons.push(format!("{what} is new: `{}`", short(new))),
        (None, _) => reasons.push(format!("{what} is new")),
        (Some(_), None) => reasons.push(format!("{what} is gone")),
    }
}

fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Says which files are new, gone or other.
fn files(old: &FileInputs, new: &FileInputs, reasons: &mut Vec<String>) {
    let (Some(before), Some(now)) = (old.files(), new.files()) else {
        let (old, new) = (old.count(), new.count());
        reasons.push(format!("files changed: {new} now, {old} before; too many to name each"));
        return;
    };
    let before: BTreeMap<&Path, &FileInput> = before.iter().map(|file| (file.path.as_path(), file)).collect();
    let after: BTreeMap<&Path, &FileInput> = now.iter().map(|file| (file.path.as_path(), file)).collect();
    let mut found = Vec::new();
    for (path, file) in &after {
        match before.get(path) {
            Some(old) if old == file => {}
            Some(old) => found.push(format!("{}: {}", path.display(), difference(old, file))),
            None => found.push(format!("{}: new", path.display())),
        }
    }
    let gone = before.keys().filter(|path| !after.contains_key(*path));
    found.extend(gone.map(|path| format!("{}: gone", path.display())));
    let more = found.len().saturating_sub(FILES_NAMED);
    reasons.extend(found.into_iter().take(FILES_NAMED));
    if more > 0 {
        reasons.push(format!("and {more} more files"));
    }
}

fn difference(old: &FileInput, new: &FileInput) -> String {
    let mut parts = Vec::new();
    if old.kind != new.kind {
        parts.push("another type of file".to_owned());
    } else if old.content != new.content {
        parts.push(match old.size_bytes == new.size_bytes {
            true => "other content".to_owned(),
            false => format!("other content, {} bytes instead of {}", new.size_bytes, old.size_bytes),
        });
    }
    if old.mode != new.mode {
        parts.push(format!("mode {:04o} instead of {:04o}", new.mode, old.mode));
    }
    if (old.uid, old.gid) != (new.uid, new.gid) {
        parts.push(format!("owner {}:{} instead of {}:{}", new.uid, new.gid, old.uid, old.gid));
    }
    if old.xattrs != new.xattrs {
        parts.push("other extended attributes".to_owned());
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Chain, KeyBuilder, StepName};
    use crate::oci::{DiffId, Digest, Layer, descriptor};
    use crate::tree::FileKind;

    fn file(path: &str, content: &str, mode: u32) -> FileInput {
        FileInput {
            path: path.into(),
            kind: FileKind::File,
            mode,
            uid: 0,
            gid: 0,
            content: Some(Digest::of(content.as_bytes())),
            xattrs: None,
            size_bytes: content.len() as u64,
        }
    }

    fn record(instruction: &str, fill: impl FnOnce(&mut KeyBuilder)) -> Record {
        let mut key = KeyBuilder::new("test");
        fill(&mut key);
        let (key, inputs) = key.finish();
        let digest = Digest::of(b"layer");
        Record {
            key,
            step: StepName { project: "p".to_owned(), stage: "s".to_owned(), number: 2 },
            instruction: instruction.to_owned(),
            parent: Chain::of(&[]),
            sources: Vec::new(),
            layer: Layer {
                descriptor: descriptor("application/vnd.oci.image.layer.v1.tar", &digest, 5),
                diff_id: DiffId::new(digest),
            },
            created_seconds: 0,
            seconds: 1.0,
            inputs,
        }
    }

    fn reasons(old: impl FnOnce(&mut KeyBuilder), new: impl FnOnce(&mut KeyBuilder)) -> Vec<String> {
        explain(&record("RUN x", old), "RUN x", &record("RUN x", new).inputs)
    }

    #[test]
    fn files_are_named_with_what_is_other() {
        let files = |key: &mut KeyBuilder, files: Vec<FileInput>| {
            key.files("files", FileInputs::new(files));
        };
        let found = reasons(
            |key| files(key, vec![file("a", "1", 0o644), file("b", "1", 0o644), file("c", "1", 0o644)]),
            |key| files(key, vec![file("a", "22", 0o644), file("b", "1", 0o755), file("d", "1", 0o644)]),
        );
        let expected =
            ["a: other content, 2 bytes instead of 1", "b: mode 0755 instead of 0644", "d: new", "c: gone"];
        assert_eq!(found, expected);
    }

    #[test]
    fn many_files_are_counted() {
        let many = |text: &'static str| {
            move |key: &mut KeyBuilder| {
                let files = (0..25).map(|n| file(&format!("f{n:02}"), text, 0o644)).collect();
                key.files("files", FileInputs::new(files));
            }
        };
        let found = reasons(many("1"), many("2"));
        assert_eq!((found.len(), found[10].as_str()), (11, "and 15 more files"));
    }

    #[test]
    fn variables_have_their_names_and_arguments_keep_their_values_to_themselves() {
        let found = reasons(
            |key| {
                key.text("variable A", "1").bytes("argument B", b"1").text("variable C", "1");
            },
            |key| {
                key.text("variable A", "2").bytes("argument B", b"2").text("variable D", "1");
            },
        );
        let expected = [
            "the variable A changed: `2` was `1`",
            "the build argument B changed",
            "the variable D is new: `1`",
            "the variable C is gone",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn another_instruction_is_said_once() {
        let old = record("RUN one", |key| {
            key.list("command", ["sh".to_owned(), "one".to_owned()]).text("USER", "");
        });
        let new = record("RUN two", |key| {
            key.list("command", ["sh".to_owned(), "two".to_owned()]).text("USER", "");
        });
        let found = explain(&old, "RUN two", &new.inputs);
        assert_eq!(found, ["the instruction changed: it was `RUN one`"]);
    }

    #[test]
    fn what_comes_before_is_said_last_and_nothing_is_never_said() {
        let key = |name: &str| KeyBuilder::new(name).finish().0;
        let found = reasons(
            |builder| {
                builder.key("parent", key("a")).text("USER", "1");
            },
            |builder| {
                builder.key("parent", key("b")).text("USER", "2");
            },
        );
        assert_eq!(found, ["the USER changed: `2` was `1`", "what comes before it changed"]);
        let found = reasons(|_| {}, |_| {});
        assert_eq!(found, ["what comes before it was built anew and came out differently"]);
    }
}
