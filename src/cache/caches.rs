//! What a build has of caches: sources in order, sinks beside it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::watch::Broken;
use super::writer::{Job, Writer};
use super::{CacheError, Chain, Found, Key, Record, SharedCache, StepName};
use crate::blob::BlobSource;
use crate::event::{Event, Reporter};
use crate::oci::Digest;

/// Which records a sink gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// Those of all stages.
    #[default]
    Max,
    /// Those of the stages that end up in the image.
    Min,
}

/// A cache that is written to.
#[derive(Debug, Clone)]
pub struct Sink {
    /// The cache.
    pub cache: SharedCache,
    /// What it gets.
    pub mode: CacheMode,
    /// Whether it is kiln's own store: there a hit of another cache is not kept, for that would transfer its layer.
    pub is_own: bool,
}

/// How the layer of a record came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// Its step ran.
    Now,
    /// The cache of this name had it. `is_anew` tells whether it is compressed otherwise than there.
    Before {
        /// What [`Found::from`] says.
        from: String,
        /// Whether it was compressed anew.
        is_anew: bool,
        /// Whether it was found by the key of its step, and not by the tree the step works on: then the record is new.
        by_key: bool,
    },
}

/// The caches of a build.
#[derive(Debug)]
pub struct Caches {
    sources: Vec<SharedCache>,
    sinks: Vec<Sink>,
    /// `false` with `--no-cache`: nothing is looked for, records are still written.
    use_hits: AtomicBool,
    /// Records of this age and older are not used.
    most_age: Option<Duration>,
    now_seconds: i64,
    reporter: Reporter,
    /// Sources that failed: each is warned about once and not asked again.
    failed: Mutex<HashSet<usize>>,
    /// Layers of records that turned out not to be readable.
    broken: Broken,
    writer: Writer,
}

impl Caches {
    /// Has no caches at all.
    pub fn none() -> Self {
        Self::new(Vec::new(), Vec::new(), Reporter::silent())
    }

    /// Asks `sources` in order and writes to `sinks`.
    pub fn new(sources: Vec<SharedCache>, sinks: Vec<Sink>, reporter: Reporter) -> Self {
        let writer = Writer::new(reporter.clone());
        let failed = Mutex::default();
        Self {
            sources,
            sinks,
            use_hits: AtomicBool::new(true),
            most_age: None,
            now_seconds: 0,
            reporter,
            failed,
            broken: Broken::default(),
            writer,
        }
    }

    /// Says whether hits are used at all: not with `--no-cache`.
    pub fn using_hits(self, use_hits: bool) -> Self {
        self.use_hits.store(use_hits, Ordering::Relaxed);
        self
    }

    /// Uses no hit from now on: too many were wrong.
    pub fn give_up_hits(&self) {
        self.use_hits.store(false, Ordering::Relaxed);
    }

    /// Ignores records that were made `most_age` or more before `now_seconds`, used or not: with an age of 0 all of them,
    /// those of this very second too.
    pub fn with_most_age(mut self, most_age: Option<Duration>, now_seconds: i64) -> Self {
        (self.most_age, self.now_seconds) = (most_age, now_seconds);
        self
    }

    /// Tells whether keys are of any use in this build.
    pub fn is_enabled(&self) -> bool {
        !(self.sources.is_empty() && self.sinks.is_empty())
    }

    /// Tells whether anything is looked for.
    pub fn reads(&self) -> bool {
        self.use_hits.load(Ordering::Relaxed) && !self.sources.is_empty()
    }

    /// Tells whether records are written.
    pub fn writes(&self) -> bool {
        !self.sinks.is_empty()
    }

    /// Tells whether records of stages that are only copied from are written.
    pub fn writes_internal(&self) -> bool {
        self.sinks.iter().any(|sink| sink.mode == CacheMode::Max)
    }

    /// Tells whether hits are written as well: kiln's own store has those that it gave.
    pub fn writes_hits(&self) -> bool {
        self.sinks.iter().any(|sink| !sink.is_own)
    }

    /// Asks the sources in order for a record. What is refused is warned about and passed over; a source that
    /// cannot be used is warned about once.
    pub fn find(&self, key: &Key) -> Option<Found> {
        self.all(key, 0).next()
    }

    /// Asks the sources in order for a record that was made on the tree `parent`.
    pub fn find_on(&self, key: &Key, parent: &Chain) -> Option<Found> {
        self.all(key, 0).find(|found| found.parent == *parent)
    }

    /// Asks the sources behind the one that `found` is of: theirs may be of another run of the same step.
    pub fn find_others(&self, found: &Found) -> Vec<Found> {
        self.all(&found.key, found.source + 1).collect()
    }

    /// Asks the sources from number `first` on, one after the other. One whose record is too old, or of a layer that
    /// is known to be broken, leaves it to the next.
    fn all(&self, key: &Key, first: usize) -> impl Iterator<Item = Found> {
        let sources = if self.use_hits.load(Ordering::Relaxed) { &self.sources[..] } else { &[] };
        sources.iter().enumerate().skip(first).filter_map(move |(source, cache)| {
            let mut found = self.ask(source, || cache.find(key))?;
            if self.is_too_old(found.created_seconds) || self.broken.has(&found.layer) {
                return None;
            }
            found.source = source;
            self.broken.note_hit(&found);
            found.blobs = found.blobs.map(|blobs| self.broken.watch(blobs));
            Some(found)
        })
    }

    /// Tells whether the layer of a hit could not be used, since this was asked last; `blamed` is the layer that the
    /// build failed of, if it failed of one. It is not used again, so that the build can be tried once more, and a
    /// record in kiln's own store is removed.
    pub fn drop_broken(&self, blamed: Option<&Digest>) -> bool {
        self.broken.drop_news(blamed)
    }

    /// Fetches the newest record of a step from the first source that has one. Works with `--no-cache` too.
    pub fn newest(&self, step: &StepName) -> Option<Record> {
        self.sources.iter().enumerate().find_map(|(source, cache)| self.ask(source, || cache.newest(step)))
    }

    /// Writes a record to every sink that lacks it, beside the build; `in_image` tells whether the layer is one of the
    /// image's. Waits only if too many are being written already.
    pub fn put_later(&self, record: Record, layer: Arc<dyn BlobSource>, in_image: bool, made: &Made) {
        let record = Arc::new(record);
        for (index, sink) in self.sinks.iter().enumerate() {
            let is_wanted = in_image || sink.mode == CacheMode::Max;
            let (has_it, may_have_it) = match made {
                Made::Now | Made::Before { is_anew: true, .. } => (false, false),
                Made::Before { from, by_key, .. } => {
                    let is_from_there = *from == sink.cache.describe();
                    let would_transfer = sink.is_own && !is_from_there;
                    (*by_key && is_from_there || would_transfer, true)
                }
            };
            if is_wanted && !has_it {
                let (cache, record, layer) = (sink.cache.clone(), record.clone(), layer.clone());
                self.writer.put(Job { sink: index, cache, record, layer, may_have_it });
            }
        }
    }

    /// Waits until everything is written; warns about each sink that something could not be written to.
    pub fn finish(&self) {
        self.writer.finish();
    }

    fn is_too_old(&self, created_seconds: i64) -> bool {
        let age = u64::try_from(self.now_seconds.saturating_sub(created_seconds)).unwrap_or_default();
        self.most_age.is_some_and(|most| age >= most.as_secs())
    }

    /// Asks a source, if it has not failed before.
    fn ask<T>(&self, source: usize, ask: impl FnOnce() -> Result<Option<T>, CacheError>) -> Option<T> {
        let failed = || self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed().contains(&source) {
            return None;
        }
        match ask() {
            Ok(answer) => answer,
            Err(error) => {
                if error.is_refusal() {
                    self.reporter.report(Event::Warning { text: error.full(), hint: error.hint() });
                } else if failed().insert(source) {
                    let text = format!("{}; it is left alone from here on", error.full());
                    self.reporter.report(Event::Warning { text, hint: error.hint() });
                }
                None
            }
        }
    }
}
