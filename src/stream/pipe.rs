//! A bounded pipe between two threads that carries errors as well as bytes.
//!
//! A reader never mistakes a writer that died for the end of the stream: only [`PipeWriter::finish`] ends it.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Small writes are gathered into chunks of this size, so that the lock is taken rarely.
const CHUNK_BYTES: usize = 64 * 1024;

#[derive(Debug)]
enum WriterState {
    Writing,
    Finished,
    Failed(Option<io::Error>),
}

#[derive(Debug)]
struct State {
    chunks: VecDeque<Vec<u8>>,
    queued_bytes: usize,
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
    pending: Vec<u8>,
    ended: bool,
}

/// The end of a pipe that bytes come out of.
#[derive(Debug)]
pub struct PipeReader {
    shared: Arc<Shared>,
    current: Vec<u8>,
    position: usize,
}

/// Makes a pipe that holds about `capacity_bytes` at most; writers then wait for the reader.
pub fn pipe(capacity_bytes: usize) -> (PipeWriter, PipeReader) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            chunks: VecDeque::new(),
            queued_bytes: 0,
            writer: WriterState::Writing,
            reader_alive: true,
        }),
        changed: Condvar::new(),
        capacity_bytes: capacity_bytes.max(1),
    });
    let writer = PipeWriter { shared: Arc::clone(&shared), pending: Vec::new(), ended: false };
    (writer, PipeReader { shared, current: Vec::new(), position: 0 })
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
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut state = self.shared.lock();
        while state.reader_alive
            && state.queued_bytes > 0
            && state.queued_bytes + self.pending.len() > self.shared.capacity_bytes
        {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.reader_alive {
            return Err(reader_gone());
        }
        let chunk = std::mem::take(&mut self.pending);
        state.queued_bytes += chunk.len();
        state.chunks.push_back(chunk);
        drop(state);
        self.shared.changed.notify_all();
        Ok(())
    }
}

impl Write for PipeWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let limit = CHUNK_BYTES.min(self.shared.capacity_bytes);
        if self.pending.capacity() == 0 {
            self.pending.reserve_exact(limit);
        }
        let taken = buf.len().min(limit - self.pending.len());
        self.pending.extend_from_slice(&buf[..taken]);
        if self.pending.len() == limit {
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
        if self.position == self.current.len() && !self.receive()? {
            return Ok(0);
        }
        let taken = buf.len().min(self.current.len() - self.position);
        buf[..taken].copy_from_slice(&self.current[self.position..self.position + taken]);
        self.position += taken;
        Ok(taken)
    }
}

impl PipeReader {
    /// Waits for the next chunk; `false` is the end of the stream.
    fn receive(&mut self) -> io::Result<bool> {
        let mut state = self.shared.lock();
        loop {
            if let Some(chunk) = state.chunks.pop_front() {
                state.queued_bytes -= chunk.len();
                drop(state);
                self.shared.changed.notify_all();
                self.current = chunk;
                self.position = 0;
                return Ok(true);
            }
            match &mut state.writer {
                WriterState::Writing => {}
                WriterState::Finished => return Ok(false),
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
