//! Where the directories of cache mounts are saved, so that a runner without state starts with them.
//!
//! A saved directory is a record like a step's: its key is of the mount's name, its layer is the directory's content.

use std::fmt::Debug;

use super::{Found, Key, KeyBuilder, SharedCache};
use crate::event::{Event, Reporter};

/// A cache that cache mounts are saved in.
#[derive(Debug, Clone)]
pub struct MountSink {
    /// The cache.
    pub cache: SharedCache,
    /// Mounts with more bytes of files than this are not saved.
    pub most_bytes: Option<u64>,
}

/// Where cache mounts come from and go to.
#[derive(Debug, Clone, Default)]
pub struct MountCaches {
    /// Asked in this order.
    pub sources: Vec<SharedCache>,
    /// All are written to.
    pub sinks: Vec<MountSink>,
}

impl MountCaches {
    /// Returns the key of what is saved of the mount with this name, which is the same on every runner.
    pub fn key(name: &str) -> Key {
        let mut builder = KeyBuilder::new("cache mount");
        builder.text("name", name);
        builder.finish().0
    }

    /// Finds what was saved of a mount, in one cache after the other. What is refused or cannot be reached is warned
    /// about and passed over.
    pub fn find<'a>(&'a self, key: &'a Key, reporter: &'a Reporter) -> impl Iterator<Item = Found> + 'a {
        self.sources.iter().filter_map(|cache| match cache.find(key) {
            Ok(found) => found,
            Err(error) => {
                reporter.report(Event::Warning { text: error.full(), hint: None });
                None
            }
        })
    }
}
