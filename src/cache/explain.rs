//! Why a step is not in a cache: what went into it now, against the newest record of the same step. Pure.

use std::collections::BTreeMap;
use std::path::Path;

use super::inputs::{FileInput, FileInputs, Input, InputValue, Inputs};
use super::record::Record;

/// How many files are named before the rest is only counted.
const FILES_NAMED: usize = 10;

/// Longest text of a value that is shown, in characters.
const MOST_SHOWN: usize = 80;

/// How much of what two values have in common is shown before what they have not, in characters.
const COMMON_SHOWN: usize = 16;

/// What people call that which a step depends on, for saying that it changed.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// Whether the step that was in this place is somewhere else now.
    pub has_moved: bool,
    /// What to say if what comes before the step changed.
    pub below: String,
    /// What to say of each stage that it reads from.
    pub sources: Vec<String>,
}

/// Says what is other than it was when `old` was made, the likeliest cause first; never nothing.
///
/// `instruction` is the step's text now, and `inputs` is what went into its key.
pub fn explain(old: &Record, instruction: &str, inputs: &Inputs, around: &Around) -> Vec<String> {
    let mut reasons = Vec::new();
    let keyword = |text: &str| text.split_whitespace().next().map(str::to_ascii_uppercase);
    let is_other_instruction = old.instruction != instruction;
    // Another step has come to this place: what that one was made of is of no interest.
    let is_other_step = around.has_moved || keyword(&old.instruction) != keyword(instruction);
    if is_other_step {
        reasons.push(format!("the step is new: in its place was `{}`", short(&old.instruction)));
    } else if is_other_instruction {
        let (new, old) = contrast(instruction, &old.instruction);
        reasons.push(format!("the instruction changed: `{new}` was `{old}`"));
    }
    let before: BTreeMap<&str, &InputValue> = by_name(&old.inputs);
    let now: BTreeMap<&str, &InputValue> = by_name(inputs);
    let mut below = Vec::new();
    for Input { name, value } in &inputs.0 {
        match before.get(name.as_str()) {
            Some(old) if *old == value => {}
            _ if is_below(name) => below.push(name.as_str()),
            _ if is_other_step => {}
            // What another instruction is made of is no news.
            None if is_other_instruction && !is_variable(name) => {}
            _ if is_other_instruction && is_part_of_text(name) => {}
            old => change(name, old.copied(), Some(value), &mut reasons),
        }
    }
    for (name, value) in before.iter().filter(|(name, _)| !is_other_step && !now.contains_key(*name)) {
        if !is_below(name) && (!is_other_instruction || is_variable(name)) {
            change(name, Some(value), None, &mut reasons);
        }
    }
    if !is_other_step {
        reasons.extend(below.into_iter().map(|name| around.says(name)));
    }
    if reasons.is_empty() {
        reasons.push("what comes before it was built anew and came out differently".to_owned());
    }
    reasons
}

impl Around {
    fn says(&self, name: &str) -> String {
        let number = name.strip_prefix("stage ").and_then(|number| number.parse::<usize>().ok());
        let source = number.and_then(|number| self.sources.get(number.checked_sub(1)?));
        match (name, source) {
            ("parent", _) if !self.below.is_empty() => self.below.clone(),
            ("parent", _) => "what comes before it changed".to_owned(),
            (_, Some(text)) => text.clone(),
            (_, None) => "a stage that it reads from changed".to_owned(),
        }
    }
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
    let mut changed = |new: &str, old: &str| {
        let (new, old) = contrast(new, old);
        reasons.push(format!("{what} changed: `{new}` was `{old}`"));
    };
    match (old, new) {
        (Some(InputValue::Files(old)), Some(InputValue::Files(new))) => files(old, new, reasons),
        (Some(InputValue::Text(old)), Some(InputValue::Text(new))) => changed(new, old),
        (Some(InputValue::List(old)), Some(InputValue::List(new))) => changed(&new.join(" "), &old.join(" ")),
        (Some(_), Some(_)) => reasons.push(format!("{what} changed")),
        (None, Some(InputValue::Text(new))) => reasons.push(format!("{what} is new: `{}`", short(new))),
        (None, _) => reasons.push(format!("{what} is new")),
        (Some(_), None) => reasons.push(format!("{what} is gone")),
    }
}

/// Puts a text on one line.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Cuts a text.
fn short(text: &str) -> String {
    let line = line(text);
    match line.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Cuts two texts to where they differ.
fn contrast(new: &str, old: &str) -> (String, String) {
    let (one, other) = (line(new), line(old));
    let same: Vec<usize> = one
        .char_indices()
        .zip(other.chars())
        .take_while(|((_, a), b)| a == b)
        .map(|((place, _), _)| place)
        .collect();
    let longest = one.chars().count().max(other.chars().count());
    let is_white_space = one == other;
    match same.len().checked_sub(COMMON_SHOWN) {
        Some(skipped) if skipped > 0 && longest > MOST_SHOWN && !is_white_space => {
            let from = same[skipped];
            (format!("…{}", short(&one[from..])), format!("…{}", short(&other[from..])))
        }
        _ => (short(&one), short(&other)),
    }
}

/// Says which files are new, gone, renamed or other.
fn files(old: &FileInputs, new: &FileInputs, reasons: &mut Vec<String>) {
    let (Some(before), Some(now)) = (old.files(), new.files()) else {
        let (old, new) = (old.count(), new.count());
        reasons.push(format!("files changed: {new} now, {old} before; too many to name each"));
        return;
    };
    let before: BTreeMap<&Path, &FileInput> = before.iter().map(|file| (file.path.as_path(), file)).collect();
    let after: BTreeMap<&Path, &FileInput> = now.iter().map(|file| (file.path.as_path(), file)).collect();
    let mut found: BTreeMap<&Path, String> = BTreeMap::new();
    let mut added: BTreeMap<&Path, &FileInput> = BTreeMap::new();
    for (path, file) in &after {
        match before.get(path) {
            Some(old) if old == file => {}
            Some(old) => drop(found.insert(path, difference(old, file))),
            None => drop(added.insert(path, file)),
        }
    }
    let mut gone: BTreeMap<&Path, &FileInput> = before
        .iter()
        .filter(|(path, _)| !after.contains_key(*path))
        .map(|(path, file)| (*path, *file))
        .collect();
    added.retain(|path, file| {
        let Some(from) =
            gone.iter().find(|(_, old)| is_same_but_for_its_name(old, file)).map(|(from, _)| *from)
        else {
            return true;
        };
        gone.remove(from);
        found.insert(path, format!("was {}", from.display()));
        false
    });
    found.extend(tops(&added).into_iter().map(|(path, below)| (path, with_below("new", below))));
    let gone = tops(&gone).into_iter().map(|(path, below)| (path, with_below("gone", below)));
    let found: Vec<_> = found.into_iter().chain(gone).collect();
    let more = found.len().saturating_sub(FILES_NAMED);
    reasons.extend(found.iter().take(FILES_NAMED).map(|(path, text)| format!("{}: {text}", path.display())));
    if more > 0 {
        reasons.push(format!("and {more} more files"));
    }
}

fn is_same_but_for_its_name(one: &FileInput, other: &FileInput) -> bool {
    let nameless = |file: &FileInput| FileInput { path: "".into(), ..file.clone() };
    one.size_bytes > 0 && one.content.is_some() && nameless(one) == nameless(other)
}

/// Returns the paths that are below no other, with how many are below each.
fn tops<'a>(files: &BTreeMap<&'a Path, &FileInput>) -> Vec<(&'a Path, usize)> {
    let mut tops: Vec<(&Path, usize)> = Vec::new();
    for path in files.keys() {
        match tops.last_mut() {
            Some((top, below)) if path.starts_with(&**top) => *below += 1,
            _ => tops.push((path, 0)),
        }
    }
    tops
}

fn with_below(what: &str, below: usize) -> String {
    match below {
        0 => what.to_owned(),
        below => format!("{what}, with {below} below it"),
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
    use crate::stream::Compression;
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
            compression: Compression::None,
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
            inputs,
        }
    }

    fn reasons(old: impl FnOnce(&mut KeyBuilder), new: impl FnOnce(&mut KeyBuilder)) -> Vec<String> {
        explain(&record("RUN x", old), "RUN x", &record("RUN x", new).inputs, &Around::default())
    }

    #[test]
    fn files_are_named_with_what_is_other() {
        let files = |key: &mut KeyBuilder, files: Vec<FileInput>| {
            key.files("files", FileInputs::new(files));
        };
        let found = reasons(
            |key| files(key, vec![file("a", "1", 0o644), file("b", "1", 0o644), file("c", "1", 0o644)]),
            |key| files(key, vec![file("a", "22", 0o644), file("b", "1", 0o755), file("d", "4", 0o644)]),
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
        let found = explain(&old, "RUN two", &new.inputs, &Around::default());
        assert_eq!(found, ["the instruction changed: `RUN two` was `RUN one`"]);
        // A step that has come in between is none that changed.
        let found = explain(&old, "COPY a b", &new.inputs, &Around::default());
        assert_eq!(found, ["the step is new: in its place was `RUN one`"]);
    }

    #[test]
    fn long_texts_are_shown_where_they_differ() {
        let long = |end: &str| format!("RUN {} && {end}", "apt-get install something ".repeat(20));
        let (new, old) = contrast(&long("make"), &long("true"));
        assert_eq!((new.as_str(), old.as_str()), ("…ll something && make", "…ll something && true"));
        assert_eq!(contrast("a  b", "a c"), ("a b".to_owned(), "a c".to_owned()));
        let (new, old) = contrast(&"x".repeat(200), &"x".repeat(300));
        assert_eq!((new.chars().count(), old.chars().count()), (17, 82));
    }

    #[test]
    fn a_file_that_was_renamed_and_a_directory_that_went_are_one_line_each() {
        let files = |files: Vec<FileInput>| {
            move |key: &mut KeyBuilder| {
                key.files("files", FileInputs::new(files));
            }
        };
        let directory =
            |path: &str| FileInput { kind: FileKind::Directory, content: None, ..file(path, "", 0o755) };
        let found = reasons(
            files(vec![
                file("a", "1", 0o644),
                directory("d"),
                file("d/1", "2", 0o644),
                file("d/2", "3", 0o644),
            ]),
            files(vec![file("b", "1", 0o644), directory("n"), file("n/x", "4", 0o644)]),
        );
        assert_eq!(found, ["b: was a", "n: new, with 1 below it", "d: gone, with 2 below it"]);
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
        let around = Around {
            has_moved: false,
            below: "below".to_owned(),
            sources: vec!["one".to_owned(), "two".to_owned()],
        };
        let record = |one: &str| {
            record("COPY", |builder| {
                builder.key("parent", key("a")).key("stage 1", key(one)).key("stage 2", key("b"));
            })
        };
        assert_eq!(explain(&record("x"), "COPY", &record("y").inputs, &around), ["one"]);
        let found = reasons(|_| {}, |_| {});
        assert_eq!(found, ["what comes before it was built anew and came out differently"]);
    }
}
