//! A bounded pipe between two threads that carries errors as well as bytes.
//!
//! A reader never mistakes a writer that died for the end of the stream: only [`PipeWriter::finish`] ends it.
//!
//! Bytes move in chunks that go round: a chunk can be filled by its source in place ([`PipeWriter::fill`]), is read where it
//! is ([`BufRead`]), and comes back to be filled again, so that nothing is copied, allocated or cleared on the way.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Small writes are gathered into chunks of this size, so that the lock is taken rarely. Most files of an image fit, and
/// decoders are at their best where there is room for several of their windows.
const CHUNK_BYTES: usize = 256 * 1024;

/// A chunk with less room than this goes to the reader instead of being filled to the last byte: a decoder is slow at small pieces.
const LITTLE_ROOM_BYTES: usize = CHUNK_BYTES / 8;

/// A buffer that was cleared once, and how much of it counts.
#[derive(Debug, Default)]
struct Chunk {
    buffer: Vec<u8>,
    length: usize,
}

impl Chunk {
    fn room(&self) -> usize {
        self.buffer.len() - self.length
    }
}

#[derive(Debug)]
enum WriterState {
    Writing,
    Finished,
    Failed(Option<io::Error>),
}

#[derive(Debug)]
struct State {
    chunks: VecDeque<Chunk>,
    queued_bytes: usize,
    /// Chunks that were read, to be filled again.
    spare: Vec<Vec<u8>>,
    writer: WriterState,
    reader_alive: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    capacity_bytes: usize,
}

impl Shared {
    /// A panic elsewhere must not become a second one here: every state in between is consistent.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a pipe that bytes go into.
#[derive(Debug)]
pub struct PipeWriter {
    shared: Arc<Shared>,
    pending: Chunk,
    ended: bool,
}

/// The end of a pipe that bytes come out of.
#[derive(Debug)]
pub struct PipeReader {
    shared: Arc<Shared>,
    current: Chunk,
    position: usize,
}

/// Makes a pipe that holds about `capacity_bytes` at most; writers then wait for the reader.
pub fn pipe(capacity_bytes: usize) -> (PipeWriter, PipeReader) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            chunks: VecDeque::new(),
            queued_bytes: 0,
            spare: Vec::new(),
            writer: WriterState::Writing,
            reader_alive: true,
        }),
        changed: Condvar::new(),
        capacity_bytes: capacity_bytes.max(1),
    });
    let writer = PipeWriter { shared: Arc::clone(&shared), pending: Chunk::default(), ended: false };
    (writer, PipeReader { shared, current: Chunk::default(), position: 0 })
}

fn reader_gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the reader of the pipe is gone")
}

impl PipeWriter {
    /// Ends the stream: the reader sees everything written, then its end.
    pub fn finish(mut self) -> io::Result<()> {
        self.send()?;
        self.end(WriterState::Finished);
        Ok(())
    }

    /// Ends the stream with an error: the reader gets what was written, then `error`.
    pub fn fail(mut self, error: io::Error) {
        // What was written before may still be wanted; if the reader is gone, nobody is there to be told.
        let _ = self.send();
        self.end(WriterState::Failed(Some(error)));
    }

    fn end(&mut self, how: WriterState) {
        self.ended = true;
        self.shared.lock().writer = how;
        self.shared.changed.notify_all();
    }

    fn send(&mut self) -> io::Result<()> {
        if self.pending.length == 0 {
            return Ok(());
        }
        let mut state = self.shared.lock();
        while state.reader_alive
            && state.queued_bytes > 0
            && state.queued_bytes + self.pending.length > self.shared.capacity_bytes
        {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.reader_alive {
            return Err(reader_gone());
        }
        let next = Chunk { buffer: state.spare.pop().unwrap_or_default(), length: 0 };
        let chunk = std::mem::replace(&mut self.pending, next);
        state.queued_bytes += chunk.length;
        state.chunks.push_back(chunk);
        drop(state);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Returns what is still free of the chunk being filled; never empty.
    fn room(&mut self) -> &mut [u8] {
        if self.pending.buffer.is_empty() {
            self.pending.buffer = vec![0; CHUNK_BYTES.min(self.shared.capacity_bytes)];
        }
        &mut self.pending.buffer[self.pending.length..]
    }

    /// Reads once from `source`, straight into the pipe; returns what was read, empty at the end of `source`.
    pub fn fill(&mut self, source: &mut impl Read) -> io::Result<&[u8]> {
        if self.pending.length > 0 && self.pending.room() < LITTLE_ROOM_BYTES {
            self.send()?;
        }
        let room = self.room();
        let read = loop {
            match source.read(room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        let start = self.pending.length;
        self.pending.length += read;
        Ok(&self.pending.buffer[start..start + read])
    }
}

impl Write for PipeWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let room = self.room();
        let taken = buf.len().min(room.len());
        room[..taken].copy_from_slice(&buf[..taken]);
        self.pending.length += taken;
        if self.pending.room() == 0 {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        if !self.ended {
            self.end(WriterState::Failed(None));
        }
    }
}

impl Read for PipeReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let available = self.fill_buf()?;
        let taken = buf.len().min(available.len());
        buf[..taken].copy_from_slice(&available[..taken]);
        self.consume(taken);
        Ok(taken)
    }
}

impl BufRead for PipeReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.current.length {
            self.receive()?;
        }
        Ok(&self.current.buffer[self.position..self.current.length])
    }

    fn consume(&mut self, amount: usize) {
        self.position += amount;
        assert!(self.position <= self.current.length, "no more is used than there is");
    }
}

impl PipeReader {
    /// Gives the chunk that was read back and waits for the next; none comes at the end of the stream.
    fn receive(&mut self) -> io::Result<()> {
        let done = std::mem::take(&mut self.current);
        self.position = 0;
        let mut state = self.shared.lock();
        if !done.buffer.is_empty() {
            state.spare.push(done.buffer);
        }
        loop {
            if let Some(chunk) = state.chunks.pop_front() {
                state.queued_bytes -= chunk.length;
                drop(state);
                self.shared.changed.notify_all();
                self.current = chunk;
                return Ok(());
            }
            match &mut state.writer {
                WriterState::Writing => {}
                WriterState::Finished => return Ok(()),
                WriterState::Failed(error) => {
                    return Err(error.take().unwrap_or_else(|| {
                        io::Error::new(io::ErrorKind::UnexpectedEof, "the writer of the pipe gave up")
                    }));
                }
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        self.shared.lock().reader_alive = false;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let data: Vec<u8> = (0..1_000_000u32).map(|i| (i * 7 % 253) as u8).collect();
        for capacity in [1, 100, 64 * 1024, 1 << 20] {
            let (mut writer, mut reader) = pipe(capacity);
            let sent = data[..capacity.saturating_mul(2000).min(data.len())].to_vec();
            let expected = sent.clone();
            let thread = thread::spawn(move || {
                for chunk in sent.chunks(1013) {
                    writer.write_all(chunk).unwrap();
                }
                writer.finish().unwrap();
            });
            let mut received = Vec::new();
            reader.read_to_end(&mut received).unwrap();
            thread.join().unwrap();
            assert!(received == expected, "capacity {capacity}");
            assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0, "the end stays the end");
        }
    }

    #[test]
    fn a_source_fills_it_in_place() {
        struct Lumps(Vec<u8>, usize);
        impl Read for Lumps {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                self.1 += 1;
                if self.1.is_multiple_of(7) {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                let length = (self.1 * 10_007).min(buf.len()).min(self.0.len());
                buf[..length].copy_from_slice(&self.0[..length]);
                self.0.drain(..length);
                Ok(length)
            }
        }
        let data: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 % 253) as u8).collect();
        for capacity in [1000, 1 << 20] {
            let (mut writer, mut reader) = pipe(capacity);
            let mut source = Lumps(data.clone(), 0);
            let thread = thread::spawn(move || {
                let mut passed = Vec::new();
                loop {
                    let bytes = writer.fill(&mut source).unwrap();
                    if bytes.is_empty() {
                        break;
                    }
                    passed.extend_from_slice(bytes);
                }
                writer.finish().unwrap();
                passed
            });
            let mut received = Vec::new();
            loop {
                let bytes = reader.fill_buf().unwrap();
                if bytes.is_empty() {
                    break;
                }
                let used = bytes.len().min(100_003);
                received.extend_from_slice(&bytes[..used]);
                reader.consume(used);
            }
            assert!(received == data && thread.join().unwrap() == data, "capacity {capacity}");
            let state = reader.shared.lock();
            let chunks = capacity.div_ceil(CHUNK_BYTES) + 3;
            assert!(state.spare.len() <= chunks, "{} chunks were made", state.spare.len());
        }
    }

    #[test]
    fn a_writer_that_gives_up_is_not_an_end() {
        let (mut writer, mut reader) = pipe(100);
        writer.write_all(b"half").unwrap();
        drop(writer);
        let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(reader.read(&mut [0; 8]).is_err(), "an error stays an error");
    }

    #[test]
    fn an_error_reaches_the_reader_after_the_bytes() {
        let (mut writer, mut reader) = pipe(100);
        writer.write_all(b"half").unwrap();
        writer.fail(io::Error::new(io::ErrorKind::PermissionDenied, "no"));
        let mut received = Vec::new();
        let error = reader.read_to_end(&mut received).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::PermissionDenied, "no"));
        assert_eq!(received, b"half");
    }

    #[test]
    fn a_reader_that_leaves_wakes_the_writer() {
        let (mut writer, reader) = pipe(10);
        let thread = thread::spawn(move || {
            loop {
                if let Err(error) = writer.write_all(b"0123456789") {
                    return error.kind();
                }
            }
        });
        thread::sleep(std::time::Duration::from_millis(20));
        drop(reader);
        assert_eq!(thread.join().unwrap(), io::ErrorKind::BrokenPipe);
    }
}
