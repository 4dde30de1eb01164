//! What a cache holds, and what of it may go.

use std::collections::{BTreeMap, BTreeSet};

use super::key::Key;
use crate::oci::Digest;

/// A record in a cache, as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What the cache calls it: a tag, a file.
    pub name: String,
    /// Its key, if it can be read.
    pub key: Option<Key>,
    /// The instruction it is of; what is wrong with it, if it cannot be read.
    pub instruction: String,
    /// What goes when it goes, in a cache that removes by digest.
    pub manifest: Option<Digest>,
    /// Its layer and its config, with their sizes in bytes.
    pub blobs: Vec<(Digest, u64)>,
    /// When it was made, in seconds since 1970; 0 if it cannot be read.
    pub created_seconds: i64,
    /// When it was used last, in a cache that knows.
    pub used_seconds: Option<i64>,
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many records.
    pub records: u64,
    /// How many bytes of blobs, as far as the cache frees them itself.
    pub bytes: u64,
    /// How many blobs.
    pub blobs: u64,
}

/// Which records stay. Without any limit none does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// Those made at this time or later, in seconds since 1970.
    pub made_since_seconds: Option<i64>,
    /// Those used at this time or later; where a cache does not know, those made.
    pub used_since_seconds: Option<i64>,
    /// Those used last, up to this many bytes of different blobs.
    pub most_bytes: Option<u64>,
}

impl Entry {
    /// Returns when the record was used last, or else made.
    pub fn last_seconds(&self) -> i64 {
        self.used_seconds.unwrap_or(self.created_seconds).max(self.created_seconds)
    }
}

/// Returns how many bytes the different blobs of all entries have.
pub fn size_bytes<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> u64 {
    let blobs: BTreeMap<&Digest, u64> =
        entries.into_iter().flat_map(|entry| &entry.blobs).map(|(digest, size)| (digest, *size)).collect();
    blobs.values().sum()
}

impl Keep {
    /// Returns those of `entries` that go, oldest use first.
    pub fn split(&self, entries: &[Entry]) -> Vec<Entry> {
        let has_limit = *self != Self::default();
        let stays = |entry: &Entry| {
            has_limit
                && self.made_since_seconds.is_none_or(|since| entry.created_seconds >= since)
                && self.used_since_seconds.is_none_or(|since| entry.last_seconds() >= since)
        };
        let (mut staying, mut going): (Vec<&Entry>, Vec<&Entry>) =
            entries.iter().partition(|entry| stays(entry));
        if let Some(most) = self.most_bytes {
            staying.sort_by_key(|entry| (std::cmp::Reverse(entry.last_seconds()), &entry.name));
            let mut counted: BTreeSet<&Digest> = BTreeSet::new();
            let mut bytes: u64 = 0;
            let mut count = 0;
            for entry in &staying {
                let new = entry.blobs.iter().filter(|(digest, _)| !counted.contains(digest));
                bytes = bytes.saturating_add(new.map(|(_, size)| size).sum());
                if bytes > most {
                    break;
                }
                counted.extend(entry.blobs.iter().map(|(digest, _)| digest));
                count += 1;
            }
            going.extend(staying.split_off(count));
        }
        going.sort_by_key(|entry| (entry.last_seconds(), &entry.name));
        going.into_iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, created: i64, used: Option<i64>, blobs: &[(&str, u64)]) -> Entry {
        Entry {
            name: name.to_owned(),
            key: None,
            instruction: String::new(),
            manifest: None,
            blobs: blobs.iter().map(|(text, size)| (Digest::of(text.as_bytes()), *size)).collect(),
            created_seconds: created,
            used_seconds: used,
        }
    }

    fn going(keep: Keep, entries: &[Entry]) -> Vec<String> {
        keep.split(entries).into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn limits_are_by_age_by_use_and_by_size() {
        let entries = [
            entry("old, in use", 10, Some(95), &[("a", 100)]),
            entry("old", 10, Some(20), &[("b", 100)]),
            entry("new", 90, None, &[("a", 100), ("c", 50)]),
        ];
        assert_eq!(going(Keep::default(), &entries), ["old", "new", "old, in use"]);
        let keep = |keep| going(keep, &entries);
        assert_eq!(keep(Keep { made_since_seconds: Some(50), ..Keep::default() }), ["old", "old, in use"]);
        assert_eq!(keep(Keep { used_since_seconds: Some(50), ..Keep::default() }), ["old"]);
        // What two records share counts once.
        assert_eq!(keep(Keep { most_bytes: Some(150), ..Keep::default() }), ["old"]);
        assert_eq!(keep(Keep { most_bytes: Some(149), ..Keep::default() }), ["old", "new"]);
        assert_eq!(keep(Keep { most_bytes: Some(1000), ..Keep::default() }), [""; 0]);
        assert_eq!(size_bytes(&entries), 250);
    }
}
