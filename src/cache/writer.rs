//! Writing records beside the build: a few threads, a bounded queue, and one warning for each sink that fails.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::{CacheError, Record, SharedCache};
use crate::blob::BlobSource;
use crate::event::{Event, Reporter};
use crate::threads;

/// How many records are written at once. Most of the time is spent waiting for the registry.
const THREADS: usize = 4;
/// How many more may wait. A record is small but for its list of files: a few MiB at most.
const MOST_WAITING: usize = 32;

/// A record to be written.
pub(super) struct Job {
    /// The number of the sink.
    pub(super) sink: usize,
    pub(super) cache: SharedCache,
    pub(super) record: Arc<Record>,
    /// Has its layer.
    pub(super) layer: Arc<dyn BlobSource>,
    /// Whether the cache is asked first: one request spares three where the record is there.
    pub(super) may_have_it: bool,
}

/// What went wrong with a sink.
struct Failure {
    place: String,
    first: CacheError,
    count: usize,
}

/// Writes records on threads of its own, which start with the first one.
pub(super) struct Writer {
    reporter: Reporter,
    failures: Arc<Mutex<BTreeMap<usize, Failure>>>,
    running: Mutex<Option<Running>>,
}

struct Running {
    /// `None` where no thread could be had: the caller writes.
    queue: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

impl Writer {
    pub(super) fn new(reporter: Reporter) -> Self {
        Self { reporter, failures: Arc::default(), running: Mutex::default() }
    }

    /// Writes a record later; waits while the queue is full.
    pub(super) fn put(&self, job: Job) {
        let queue = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.get_or_insert_with(|| start(&self.failures, &self.reporter)).queue.clone()
        };
        match queue {
            // The threads live until `finish`, which only the end of the build calls.
            Some(queue) => {
                if queue.send(job).is_err() {
                    self.reporter.warning("a cache record could not be written: its threads have ended");
                }
            }
            None => write(job, &self.failures, &self.reporter),
        }
    }

    /// Waits for everything that was put, and warns about sinks that failed.
    pub(super) fn finish(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { queue, threads }) = running else { return };
        drop(queue);
        for thread in threads {
            if thread.join().is_err() {
                self.reporter.warning("a thread that wrote cache records ended early");
            }
        }
        let failures = std::mem::take(&mut *self.failures.lock().unwrap_or_else(PoisonError::into_inner));
        for Failure { place, first, count } in failures.into_values() {
            let records = if count == 1 { "1 record".to_owned() } else { format!("{count} records") };
            let text = format!("{records} could not be written to cache `{place}`: {}", first.full());
            self.reporter.report(Event::Warning { text, hint: first.hint() });
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.finish();
    }
}

fn start(failures: &Arc<Mutex<BTreeMap<usize, Failure>>>, reporter: &Reporter) -> Running {
    let (queue, jobs) = sync_channel(MOST_WAITING);
    let jobs = Arc::new(Mutex::new(jobs));
    let threads: Vec<_> = (0..THREADS)
        .map_while(|_| {
            let (jobs, failures, reporter) = (jobs.clone(), failures.clone(), reporter.clone());
            threads::spawn("cache", move || write_all(&jobs, &failures, &reporter)).ok()
        })
        .collect();
    Running { queue: (!threads.is_empty()).then_some(queue), threads }
}

fn write_all(jobs: &Mutex<Receiver<Job>>, failures: &Mutex<BTreeMap<usize, Failure>>, reporter: &Reporter) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        write(job, failures, reporter);
    }
}

fn write(job: Job, failures: &Mutex<BTreeMap<usize, Failure>>, reporter: &Reporter) {
    let Job { sink, cache, record, layer, may_have_it } = job;
    // A sink that failed once is not waited for again and again.
    if let Some(failure) = failures.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&sink) {
        failure.count += 1;
        return;
    }
    // What is wrong with the record that is there does not matter: it is written anew.
    if may_have_it && cache.find(&record.key).is_ok_and(|found| found.is_some_and(|f| f.agrees(&record))) {
        return;
    }
    match cache.put(&record, &*layer) {
        Ok(()) => reporter.debug(format!("cache `{}`: kept {}", cache.describe(), record.step)),
        Err(error) => {
            let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
            let place = cache.describe();
            failures.entry(sink).or_insert(Failure { place, first: error, count: 0 }).count += 1;
        }
    }
}
