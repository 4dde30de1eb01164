//! What of the volumes is not as it was before a step, and could not be put right: noted beside the copies, which stay until the
//! volume has what they have, or until somebody removes them.
//!
//! A step can write the note, too. It says what the user is told and which copies stay; nothing is put anywhere by it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::backup::content_of;
use super::few;
use crate::sandbox::wire::{path, paths};
use crate::tree::{RootDir, regular};

/// The note in the directory of the copies.
pub(super) const NOTE: &str = "unsettled";

/// What of a volume is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::sandbox) struct Unsettled {
    /// Where the volume is mounted.
    #[serde(with = "path")]
    pub(super) point: PathBuf,
    /// Entries below its root.
    #[serde(with = "paths")]
    pub(super) entries: Vec<PathBuf>,
    /// The name of its copy in the directory of the copies.
    #[serde(with = "path")]
    pub(super) copy: PathBuf,
    /// Entries whose copy is not what it was, either.
    #[serde(with = "paths")]
    pub(super) spoilt: Vec<PathBuf>,
    /// A start has told the user of it.
    #[serde(default)]
    pub(super) is_told: bool,
}

/// What a start has to tell.
#[derive(Debug, Default)]
pub(in crate::sandbox) struct Told {
    pub(in crate::sandbox) texts: Vec<String>,
    /// Some of it is told for the first time.
    pub(in crate::sandbox) is_new: bool,
}

impl Unsettled {
    /// Returns where the volume is mounted.
    pub(in crate::sandbox) fn point(&self) -> &Path {
        &self.point
    }

    /// Returns the paths of what is not as it was, of the volume and of its copy.
    pub(super) fn paths(&self, directory: &Path) -> Vec<PathBuf> {
        let copy = directory.join(&self.copy);
        let own = self.entries.iter().map(|path| self.point.join(path));
        own.chain(self.spoilt.iter().map(|path| copy.join(path))).collect()
    }

    /// Leaves those entries out that are as their copy is, and, once they are told of, those that have none.
    fn keep_open(&mut self, directory: &Path) {
        let (volume, copy) = (RootDir::open(&self.point), RootDir::open(&directory.join(&self.copy)));
        let (volume, copy) = (volume.ok(), copy.ok());
        let Self { entries, spoilt, is_told, .. } = self;
        entries.retain(|path| {
            let has_copy = copy.as_ref().is_some_and(|copy| copy.exists(path).unwrap_or(false));
            match has_copy && !spoilt.contains(path) {
                true => !is_same(volume.as_ref(), copy.as_ref(), path).unwrap_or(false),
                false => !*is_told,
            }
        });
        if *is_told {
            spoilt.clear();
        }
    }

    fn text(&self, directory: &Path) -> String {
        let named = few(&self.paths(directory));
        let text = format!("{named}: not as it was before a step that kiln did not follow to its end");
        match self.entries.iter().any(|path| !self.spoilt.contains(path)) {
            true => format!(
                "{text}; the volume's copy is in `{}`: move back what you need, and remove the copy",
                directory.join(&self.copy).display()
            ),
            false => text,
        }
    }

    /// Tells whether its copy is one of the names that copies have.
    fn is_straight(&self) -> bool {
        let mut parts = self.copy.components();
        let is_number = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        let name =
            matches!(parts.next(), Some(Component::Normal(name)) if name.to_str().is_some_and(is_number));
        name && parts.next().is_none()
    }
}

/// Tells whether an entry of the volume is the same kind of thing as in the copy, with the same content.
fn is_same(volume: Option<&RootDir>, copy: Option<&RootDir>, path: &Path) -> io::Result<bool> {
    let (Some(volume), Some(copy)) = (volume, copy) else { return Ok(false) };
    let kind = copy.metadata(path)?.kind;
    let mut buffer = vec![0; 128 << 10];
    let mut content = |root: &RootDir| content_of(root, path, kind, &mut buffer);
    Ok(volume.metadata(path)?.kind == kind && content(volume)? == content(copy)?)
}

/// Adds what nobody could put right to the note in the directory of the copies.
pub(super) fn keep(directory: &Path, found: &[Unsettled]) -> io::Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    let (mut noted, _) = read(directory)?;
    noted.extend(found.iter().cloned());
    write(directory, merged(noted))
}

/// Returns what was noted since the last start.
pub(super) fn fresh(directory: &Path) -> io::Result<Vec<Unsettled>> {
    let (mut noted, _) = read(directory)?;
    noted.retain(|unsettled| !unsettled.is_told);
    noted.iter_mut().for_each(|unsettled| unsettled.keep_open(directory));
    Ok(noted)
}

/// Returns the names in the directory of the copies that have to stay.
pub(super) fn kept(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let (noted, _) = read(directory)?;
    Ok(noted.into_iter().map(|unsettled| unsettled.copy).chain([NOTE.into()]).collect())
}

/// Forgets what is settled by now, and says what is not.
pub(super) fn tell(directory: &Path) -> io::Result<Told> {
    if !directory.is_dir() {
        return Ok(Told::default());
    }
    let (mut noted, is_spoilt) = read(directory)?;
    let mut told = Told { texts: Vec::new(), is_new: is_spoilt };
    if is_spoilt {
        let note = directory.join(NOTE);
        told.texts
            .push(format!("`{}`: nobody can read it any more: a step may have changed it", note.display()));
    }
    noted.retain_mut(|unsettled| {
        let was_told = unsettled.is_told;
        unsettled.keep_open(directory);
        let is_open = !unsettled.entries.is_empty() || !unsettled.spoilt.is_empty();
        if is_open {
            told.is_new |= !was_told;
            told.texts.push(unsettled.text(directory));
        }
        unsettled.is_told = true;
        unsettled.keep_open(directory);
        !unsettled.entries.is_empty()
    });
    write(directory, noted)?;
    Ok(told)
}

fn merged(noted: Vec<Unsettled>) -> Vec<Unsettled> {
    let mut all: BTreeMap<(PathBuf, PathBuf), Unsettled> = BTreeMap::new();
    for Unsettled { point, entries, copy, spoilt, is_told } in noted {
        let none = || Unsettled {
            entries: vec![],
            spoilt: vec![],
            point: point.clone(),
            copy: copy.clone(),
            is_told,
        };
        let one = all.entry((point.clone(), copy.clone())).or_insert_with(none);
        for (all, more) in [(&mut one.entries, entries), (&mut one.spoilt, spoilt)] {
            all.extend(more);
            all.sort();
            all.dedup();
        }
    }
    all.into_values().collect()
}

/// Returns what is noted, and whether the note is not one that kiln wrote.
fn read(directory: &Path) -> io::Result<(Vec<Unsettled>, bool)> {
    let text = match regular::read(&directory.join(NOTE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), false)),
        // Whatever else is there was put there by somebody.
        text => text.unwrap_or_default(),
    };
    let noted: Option<Vec<Unsettled>> = serde_json::from_slice(&text).ok();
    match noted.filter(|noted| noted.iter().all(Unsettled::is_straight)) {
        Some(noted) => Ok((noted, false)),
        None => Ok((Vec::new(), true)),
    }
}

fn write(directory: &Path, noted: Vec<Unsettled>) -> io::Result<()> {
    let note = directory.join(NOTE);
    regular::remove(&note)?;
    if noted.is_empty() { Ok(()) } else { regular::replace(&note, &serde_json::to_vec(&noted)?) }
}
