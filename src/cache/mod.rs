//! Socket *cache*: results of earlier builds, by key.
//!
//! A [`Key`] is a framed hash over everything that can reach a step ([`KeyBuilder`]). A [`Record`] is what the step
//! with that key made: its layer, the state of the tree it was made on, and what went into the key, for explaining
//! misses. A [`Cache`] keeps records; [`Caches`] is what a build has of them: sources that are asked in order, and
//! sinks that are written to beside the build.
//!
//! Everything that comes out of a cache is checked: a record names its own key, and a record that is damaged,
//! foreign or says something impossible is refused with a [`CacheError`], never used. Failing to write is a warning.

mod artifact;
mod caches;
mod entry;
mod error;
mod explain;
mod inputs;
mod key;
mod local;
mod mounts;
mod record;
mod registry;
mod verified;
mod watch;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::sync::Arc;

pub use caches::{CacheMode, Caches, Made, Sink};
pub use entry::{Entry, Keep, Removed, size_bytes};
pub use error::CacheError;
pub use explain::{Around, explain};
pub use inputs::{FileInput, FileInputs, Input, InputValue, Inputs, MOST_FILES_KEPT};
pub use key::{Chain, Key, KeyBuilder, StepName};
pub use local::{open_local, open_local_source, open_store};
pub use mounts::{MountCaches, MountSink};
pub use record::{Found, Record};
pub use registry::open_registry;
pub use verified::open_verified;

use crate::blob::BlobSource;

/// A place that keeps records. Called from many threads at once, and by many processes.
pub trait Cache: Send + Sync + Debug {
    /// Returns the place's name for people: `registry.example/team/app/cache`, a directory.
    fn describe(&self) -> String;

    /// Looks for the record of a key: one request, or one file. What is damaged, foreign or not of this key is
    /// an error: the caller warns and runs the step.
    fn find(&self, key: &Key) -> Result<Option<Found>, CacheError>;

    /// Fetches the newest record of a step, with what went into its key.
    fn newest(&self, step: &StepName) -> Result<Option<Record>, CacheError>;

    /// Keeps a record: the layer first (nothing if it is there, a mount where that is possible, else from
    /// `layer`), then the record under its key, then under its step's name.
    fn put(&self, record: &Record, layer: &dyn BlobSource) -> Result<(), CacheError>;

    /// Lists the records, those that cannot be read too.
    fn entries(&self) -> Result<Vec<Entry>, CacheError>;

    /// Removes records; nothing that a running build uses goes with them.
    fn remove(&self, entries: &[Entry]) -> Result<Removed, CacheError>;
}

/// A shared [`Cache`].
pub type SharedCache = Arc<dyn Cache>;
