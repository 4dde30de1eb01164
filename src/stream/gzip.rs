//! A gzip encoder that works on blocks in parallel.
//!
//! The stream is a row of gzip members (RFC 1952 §2.2), one for each [`BLOCK_BYTES`] of input. Every member is made
//! from its own block alone by one call of libdeflate, so neither the sizes of the writes nor the number of threads can show.
//! (Encoders that carry state from write to write, zlib's descendants all, do not have that property.)

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::deflate::BlockEncoder;
use crate::threads;

/// Input bytes of a member. Blocks of 4 MiB are 0.1 % smaller and take four times the memory.
pub(super) const BLOCK_BYTES: usize = 1 << 20;

/// Blocks in flight for each thread: one at work, one waiting, so that a thread never runs dry.
const BLOCKS_PER_THREAD: usize = 2;

struct Job {
    input: Vec<u8>,
    output: Vec<u8>,
    reply: SyncSender<io::Result<Done>>,
}

impl Job {
    fn work(self, encoder: &mut BlockEncoder) {
        let Self { input, mut output, reply } = self;
        let result = encoder.encode(&input, &mut output).map(|()| Done { input, output });
        // Nobody waits for the answer if the stream was given up.
        let _ = reply.send(result);
    }
}

/// Both buffers go back to be used again.
struct Done {
    input: Vec<u8>,
    output: Vec<u8>,
}

/// The threads, started one by one while there are blocks waiting for them; without any, the caller works.
struct Workers {
    level: u32,
    limit: usize,
    jobs: Sender<Job>,
    queue: Arc<Mutex<Receiver<Job>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    fn new(level: u32, limit: usize) -> Self {
        let (jobs, queue) = channel();
        Self { level, limit, jobs, queue: Arc::new(Mutex::new(queue)), threads: Vec::new() }
    }

    fn submit(&mut self, job: Job, waiting: usize) -> io::Result<()> {
        if self.threads.len() < self.limit && self.threads.len() <= waiting {
            let queue = Arc::clone(&self.queue);
            let mut encoder = BlockEncoder::new(self.level)?;
            let body = move || {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = next else { return };
                    job.work(&mut encoder);
                }
            };
            match threads::spawn("gzip", body) {
                Ok(thread) => self.threads.push(thread),
                Err(_) if self.threads.is_empty() => {
                    job.work(&mut BlockEncoder::new(self.level)?);
                    return Ok(());
                }
                Err(_) => {}
            }
        }
        self.jobs.send(job).map_err(|_| io::Error::other("the compression threads ended"))
    }

    fn join(self) {
        drop(self.jobs);
        for thread in self.threads {
            // A panic was already seen as a reply that never came.
            let _ = thread.join();
        }
    }
}

/// Compresses what is written to it.
pub(super) struct Gzip<W> {
    inner: W,
    level: u32,
    block: Vec<u8>,
    written_blocks: bool,
    limit: usize,
    workers: Option<Workers>,
    in_flight: VecDeque<Receiver<io::Result<Done>>>,
    spare: Vec<Done>,
}

impl<W: Write> Gzip<W> {
    pub(super) fn new(inner: W, level: u32, threads: NonZeroUsize) -> io::Result<Self> {
        BlockEncoder::check(level)?;
        Ok(Self {
            inner,
            level,
            block: Vec::new(),
            written_blocks: false,
            limit: threads.get().saturating_mul(BLOCKS_PER_THREAD),
            workers: None,
            in_flight: VecDeque::new(),
            spare: Vec::new(),
        })
    }

    /// Hands the current block to the threads; waits if they have enough to do.
    fn submit(&mut self) -> io::Result<()> {
        while self.in_flight.len() >= self.limit {
            self.collect_one()?;
        }
        let Done { input: next, output } =
            self.spare.pop().unwrap_or_else(|| Done { input: Vec::new(), output: Vec::new() });
        let input = std::mem::replace(&mut self.block, next);
        self.block.clear();
        let (reply, answer) = sync_channel(1);
        let limit = self.limit / BLOCKS_PER_THREAD;
        let workers = self.workers.get_or_insert_with(|| Workers::new(self.level, limit));
        workers.submit(Job { input, output, reply }, self.in_flight.len())?;
        self.in_flight.push_back(answer);
        self.written_blocks = true;
        Ok(())
    }

    fn collect_one(&mut self) -> io::Result<()> {
        let Some(answer) = self.in_flight.pop_front() else { return Ok(()) };
        let done = answer.recv().map_err(|_| io::Error::other("a compression thread panicked"))??;
        self.inner.write_all(&done.output)?;
        self.spare.push(done);
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        if self.workers.is_none() {
            // A small stream is not worth a thread. An empty one is still one member.
            let mut output = Vec::new();
            BlockEncoder::new(self.level)?.encode(&self.block, &mut output)?;
            self.inner.write_all(&output)?;
            return Ok(self.inner);
        }
        if !self.block.is_empty() || !self.written_blocks {
            self.submit()?;
        }
        while !self.in_flight.is_empty() {
            self.collect_one()?;
        }
        if let Some(workers) = self.workers.take() {
            workers.join();
        }
        Ok(self.inner)
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // A full block waits for the byte after it: only then is it known not to be the whole stream.
        if self.block.len() == BLOCK_BYTES && !buf.is_empty() {
            self.submit()?;
        }
        let taken = buf.len().min(BLOCK_BYTES - self.block.len());
        if self.block.capacity() < self.block.len() + taken {
            let capacity = (self.block.len() + taken).next_power_of_two().clamp(4096, BLOCK_BYTES);
            self.block.reserve_exact(capacity - self.block.len());
        }
        self.block.extend_from_slice(&buf[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
