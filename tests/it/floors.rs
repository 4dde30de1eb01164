//! The house of `src/`: a file imports only lower floors and its own folder (`src/lib.rs` has the map).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Folder (or top-level file) and its floor. Floor 4 holds sockets, which do not know each other either.
const FLOORS: &[(&str, u8)] = &[
    ("oci", 0),
    ("event", 0),
    ("threads", 0),
    ("own_files", 0),
    ("text", 0),
    ("dns", 1),
    ("space", 0),
    ("flock", 1),
    ("stream", 1),
    ("tree", 1),
    ("dockerfile", 1),
    ("blob", 2),
    ("layer", 2),
    ("plan", 2),
    ("registry", 3),
    ("context", 3),
    ("snapshot", 3),
    ("compare", 3),
    ("sandbox", 3),
    ("rootfs", 4),
    ("output", 4),
    ("cache", 4),
    ("images", 5),
    ("build", 5),
    ("cli", 6),
];

/// Neighbours on one floor of which the first knows the second: layers are written into the store.
const KNOWS: &[(&str, &str)] = &[("layer", "blob")];

#[test]
fn imports_point_downwards() {
    let floors: BTreeMap<&str, u8> = FLOORS.iter().copied().collect();
    let mut faults = Vec::new();
    for (file, text) in sources() {
        let owner = owner(&file);
        if owner == "lib" || owner == "main" {
            continue;
        }
        let Some(&floor) = floors.get(owner.as_str()) else {
            faults.push(format!("{}: `{owner}` stands on no floor", file.display()));
            continue;
        };
        for (line, target) in crate_imports(&text) {
            let allowed = target == owner
                || KNOWS.contains(&(owner.as_str(), target.as_str()))
                || floors.get(target.as_str()).is_some_and(|&below| below < floor);
            if !allowed {
                faults.push(format!("{}:{line}: `{owner}` (floor {floor}) uses `{target}`", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn unsafe_code_stays_in_one_file() {
    let offenders: Vec<String> = sources()
        .into_iter()
        .filter(|(file, _)| !file.ends_with("sandbox/sys.rs"))
        .filter(|(_, text)| {
            code_lines(text).any(|(_, line)| line.contains("unsafe {") || line.contains("unsafe fn"))
        })
        .map(|(file, _)| file.display().to_string())
        .collect();
    assert!(offenders.is_empty(), "unsafe outside sandbox/sys.rs: {offenders:?}");
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|(file, text)| !text.starts_with("//!") && !file.ends_with("tests.rs"))
        .map(|(file, _)| file.display().to_string())
        .collect();
    assert!(silent.is_empty(), "files that do not open with `//!`: {silent:?}");
}

#[test]
fn the_import_finder_sees_every_form() {
    let text = "use crate::oci::Digest;\nuse crate::{blob::Store, tree::{Walk, RootDir}, event};\n\
                pub(crate) use crate::layer;\nlet x = crate::stream::pipe(1);\n// crate::cli::nothing\n\
                use crate::{\n    plan::Plan,\n    registry,\n};\n";
    let found: Vec<String> = crate_imports(text).into_iter().map(|(_, target)| target).collect();
    assert_eq!(found, ["oci", "blob", "tree", "event", "layer", "stream", "plan", "registry"]);
}

/// Where files are that a step in place can replace by a FIFO, on which an open waits for ever.
const KEPT: &[&str] = &[
    "blob",
    "build/cache_mount.rs",
    "cache",
    "output/layout.rs",
    "rootfs",
    "sandbox/cache_files.rs",
    "sandbox/guard",
    "sandbox/private.rs",
    "sandbox/successor.rs",
    "sandbox/volumes",
];

#[test]
fn what_kiln_keeps_is_opened_only_if_it_is_a_file() {
    let plain = [
        "File::open(",
        "File::create",
        "File::options(",
        "OpenOptions",
        "fs::read(",
        "fs::read_to_",
        "fs::write(",
    ];
    let mut faults = Vec::new();
    for kept in KEPT {
        assert!(sources().iter().any(|(file, _)| file.starts_with(kept)), "there is no `{kept}`");
    }
    for (file, text) in sources() {
        if !KEPT.iter().any(|kept| file.starts_with(kept))
            || file.components().any(|part| part.as_os_str() == "tests")
        {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (line, code) in code_lines(code) {
            let is_other = ["\"/proc", "\"/dev/", "PendingFile::"].iter().any(|path| code.contains(path));
            if plain.iter().any(|call| code.contains(call)) && !is_other && !file.ends_with("tests.rs") {
                faults.push(format!(
                    "{}:{line}: use `crate::tree::regular`: {}",
                    file.display(),
                    code.trim()
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Every Rust file below `src/`, with its path relative to it.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut pending = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(&root).unwrap().to_owned(), text));
            }
        }
    }
    files.sort();
    files
}

/// The folder, or the top-level file's stem, that a source file belongs to.
fn owner(file: &Path) -> String {
    let first = file.components().next().unwrap().as_os_str();
    Path::new(first).file_stem().unwrap().to_string_lossy().into_owned()
}

/// Lines that are not comments, with their numbers.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Every `crate::NAME` of a file: paths, single imports and the first level of grouped imports.
fn crate_imports(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<(usize, &str)> = code_lines(text).collect();
    let mut found = Vec::new();
    for (index, (number, line)) in lines.iter().enumerate() {
        for (at, _) in line.match_indices("crate::") {
            let before = line[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let rest = &line[at + "crate::".len()..];
            if let Some(first) = rest.strip_prefix('{') {
                let following = lines[index + 1..].iter().map(|(_, line)| *line);
                let group: String = std::iter::once(first).chain(following).collect::<Vec<_>>().join(" ");
                found.extend(group_heads(&group).into_iter().map(|name| (*number, name)));
            } else {
                found.push((*number, identifier(rest)));
            }
        }
    }
    found.retain(|(_, name)| !name.is_empty() && name.starts_with(|c: char| c.is_lowercase()));
    found
}

/// The first path segment of each member of `a::B, c::{D, E}, f}…`.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 0usize;
    let mut member_starts = true;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => member_starts = true,
            c if member_starts && !c.is_whitespace() => {
                heads.push(identifier(&group[at..]));
                member_starts = false;
            }
            _ => {}
        }
    }
    heads
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}
