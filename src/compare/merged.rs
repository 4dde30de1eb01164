//! The files that two stacks of layers come to, without a look at the layers that both begin with, unless
//! something is only told by those.

use std::collections::{BTreeMap, BTreeSet};

use super::listing::{Listed, Listing, Mark, Path, list, mark};
use super::pair::Pair;
use super::{CompareError, PathChange, Subject};
use crate::oci::Layer;

/// What the layers above the common ones make of the tree.
#[derive(Default)]
struct Upper {
    /// `None` is a path that they remove.
    entries: BTreeMap<Path, Option<Listed>>,
    /// Directories of which nothing older shows.
    cleared: BTreeSet<Path>,
}

/// What an [`Upper`] says about a path.
enum Word<'a> {
    Is(&'a Listed),
    Gone,
    /// It is as the common layers have it.
    AsBelow,
}

/// Compares the files of two images. `pairs` have the listings of all layers that differ.
pub(super) fn paths(
    first: &Subject,
    second: &Subject,
    pairs: &[Pair],
) -> Result<Vec<PathChange>, CompareError> {
    let common = pairs.iter().take_while(|pair| is_common(pair)).count();
    if common == pairs.len() {
        return Ok(Vec::new());
    }
    let mut a = Upper::default();
    let mut b = Upper::default();
    for pair in &pairs[common..] {
        // The same tar above layers that differ: it was not listed yet.
        let shared = match (&pair.change.after, is_common(pair)) {
            (Some((_, layer)), true) => Some(list(second, layer, |_| true)?),
            _ => None,
        };
        for (upper, own) in [(&mut a, &pair.first), (&mut b, &pair.second)] {
            if let Some(listing) = own.as_ref().or(shared.as_ref()) {
                upper.add(listing);
            }
        }
    }
    let below = Below::read(first, &pairs[..common], &a, &b)?;
    let touched = a.entries.keys().chain(b.entries.keys()).chain(below.0.keys());
    let touched: BTreeSet<&Path> = touched.collect();
    Ok(touched
        .into_iter()
        .filter_map(|path| {
            let of = |upper| below.resolve(upper, path);
            Listed::compare(path, of(a.word(path)), of(b.word(path)))
        })
        .collect())
}

fn is_common(pair: &Pair) -> bool {
    match (&pair.change.before, &pair.change.after) {
        (Some((_, a)), Some((_, b))) => a.diff_id == b.diff_id,
        _ => false,
    }
}

impl Upper {
    /// Puts a layer on top. Its marks are about older layers only, wherever they stand in it.
    fn add(&mut self, listing: &Listing) {
        for path in listing.entries.keys() {
            match mark(path) {
                Some(Mark::Opaque(directory)) => self.clear(directory),
                Some(Mark::Removed(path)) => {
                    self.clear(path.clone());
                    self.entries.insert(path, None);
                }
                None => {}
            }
        }
        for (path, listed) in listing.entries.iter().filter(|(path, _)| mark(path).is_none()) {
            if !listed.is_directory() {
                remove_below(&mut self.entries, path);
            }
            self.entries.insert(path.clone(), Some(listed.clone()));
        }
    }

    fn clear(&mut self, directory: Path) {
        remove_below(&mut self.entries, &directory);
        self.cleared.insert(directory);
    }

    fn word(&self, path: &[u8]) -> Word<'_> {
        match self.entries.get(path) {
            Some(Some(listed)) => return Word::Is(listed),
            Some(None) => return Word::Gone,
            None => {}
        }
        for above in ancestors(path) {
            let replaced = match self.entries.get(above) {
                Some(Some(listed)) => !listed.is_directory(),
                Some(None) => true,
                None => false,
            };
            if replaced || self.cleared.contains(above) {
                return Word::Gone;
            }
        }
        Word::AsBelow
    }

    /// Tells whether the files of a path may differ between the two.
    fn hides_as(&self, other: &Self, path: &[u8]) -> bool {
        matches!(self.word(path), Word::AsBelow) == matches!(other.word(path), Word::AsBelow)
    }
}

/// The proper ancestors of a path, the root (empty) last.
fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(path);
    std::iter::from_fn(move || {
        let path = rest?;
        let above = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => &path[..slash],
            None => &b""[..],
        };
        rest = (!above.is_empty()).then_some(above);
        Some(above)
    })
}

/// Removes everything below a directory; the empty one is the root.
fn remove_below<T>(entries: &mut BTreeMap<Path, T>, directory: &[u8]) {
    if directory.is_empty() {
        entries.clear();
        return;
    }
    let (start, end) = range_below(directory);
    let below: Vec<Path> = entries.range(start..end).map(|(path, _)| path.clone()).collect();
    for path in below {
        entries.remove(&path);
    }
}

/// The range of all paths below one: the byte after the slash ends it.
fn range_below(directory: &[u8]) -> (Path, Path) {
    ([directory, b"/"].concat(), [directory, b"0"].concat())
}

/// What the common layers have at the paths that they are asked about.
struct Below(BTreeMap<Path, Listed>);

impl Below {
    /// Reads the common layers if one side says something where the other says nothing.
    fn read(subject: &Subject, common: &[Pair], a: &Upper, b: &Upper) -> Result<Self, CompareError> {
        let mut tree: BTreeMap<Path, Listed> = BTreeMap::new();
        let one_sided = |own: &Upper, other: &Upper| {
            let words = own.entries.keys().any(|path| !own.hides_as(other, path));
            words || own.cleared.iter().any(|path| !other.clears(path))
        };
        if common.is_empty() || !(one_sided(a, b) || one_sided(b, a)) {
            return Ok(Self(tree));
        }
        let layers = common.iter().filter_map(|pair| pair.change.before.as_ref());
        let layers: Vec<&Layer> = layers.map(|(_, layer)| layer).collect();
        for layer in layers {
            // What stands where a directory stood takes away what was below that.
            let replaces = |path: &[u8]| {
                let (start, end) = range_below(path);
                tree.range(start..end).next().is_some()
            };
            let wanted = |path: &[u8]| mark(path).is_some() || !a.hides_as(b, path) || replaces(path);
            let listing = list(subject, layer, wanted)?;
            for path in listing.entries.keys() {
                match mark(path) {
                    Some(Mark::Opaque(directory)) => remove_below(&mut tree, &directory),
                    Some(Mark::Removed(path)) => {
                        remove_below(&mut tree, &path);
                        tree.remove(&path);
                    }
                    None => {}
                }
            }
            for (path, listed) in listing.entries {
                if mark(&path).is_none() {
                    if !listed.is_directory() {
                        remove_below(&mut tree, &path);
                    }
                    tree.insert(path, listed);
                }
            }
        }
        Ok(Self(tree))
    }

    fn resolve<'a>(&'a self, word: Word<'a>, path: &[u8]) -> Option<&'a Listed> {
        match word {
            Word::Is(listed) => Some(listed),
            Word::Gone => None,
            Word::AsBelow => self.0.get(path),
        }
    }
}

impl Upper {
    /// Tells whether nothing older shows in a directory.
    fn clears(&self, directory: &[u8]) -> bool {
        self.cleared.contains(directory)
            || !directory.is_empty() && matches!(self.word(directory), Word::Gone)
    }
}
