//! Bodies that are sent while they are read: the caller's thread reads, a worker sends.
//!
//! At most a few buffers are in memory. An answer may come before the body's end: then reading stops.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use reqwest::Response;
use tokio::sync::mpsc;
use tokio::time::timeout;
use url::Url;

use super::Inner;
use super::error::{RegistryError, Unreachable};
use super::transport::{self, host_of};

/// Bytes of one buffer: large enough that handing it over costs nothing.
const BUFFER_BYTES: usize = 256 << 10;
/// Buffers under way between reader and socket.
const BUFFERS: usize = 4;

/// Why a body could not be sent.
pub(super) enum Pumped {
    Connection(RegistryError),
    Source(io::Error),
}

/// Buffers that come back when the socket is done with them.
#[derive(Clone, Default)]
struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

struct Pooled {
    buffer: Vec<u8>,
    used: usize,
    pool: Pool,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.used]
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let mut free = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(std::mem::take(&mut self.buffer));
    }
}

impl Pool {
    /// Fills a buffer with at most `limit` bytes; empty at the end.
    fn read(&self, reader: &mut dyn Read, limit: u64) -> io::Result<Bytes> {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = free.unwrap_or_else(|| vec![0; BUFFER_BYTES]);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(buffer.len());
        let mut used = 0;
        while used < limit {
            match reader.read(&mut buffer[used..limit]) {
                Ok(0) => break,
                Ok(count) => used += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Bytes::from_owner(Pooled { buffer, used, pool: self.clone() }))
    }
}

impl Inner {
    /// Sends a request whose body is what `reader` yields (exactly `length` bytes, if given), and waits for
    /// the answer, which may come before the end.
    pub(super) fn pump(
        &self,
        request: reqwest::RequestBuilder,
        url: &Url,
        reader: &mut dyn Read,
        length: Option<u64>,
        progress: &mut dyn FnMut(&Bytes),
    ) -> Result<Response, Pumped> {
        let (sender, receiver) = mpsc::channel::<Result<Bytes, io::Error>>(BUFFERS);
        let request = if length == Some(0) {
            request.body(Bytes::new())
        } else {
            let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
                receiver.recv().await.map(|item| (item, receiver))
            });
            request.body(reqwest::Body::wrap_stream(stream))
        };
        let mut task = self.runtime.spawn(request.send());
        let retries = &self.retries;
        let stalled = || {
            let reason = Unreachable::Stalled;
            Pumped::Connection(RegistryError::Unreachable { host: host_of(url), reason })
        };
        let pool = Pool::default();
        let mut left = length.unwrap_or(u64::MAX);
        let mut early = None;
        while left > 0 {
            let chunk = match pool.read(reader, left) {
                Ok(chunk) if chunk.is_empty() && length.is_some() => {
                    task.abort();
                    return Err(Pumped::Source(io::ErrorKind::UnexpectedEof.into()));
                }
                Ok(chunk) => chunk,
                Err(error) => {
                    // Dropping the sender would end the body as if it were complete.
                    let _ = self.runtime.wait(sender.send(Err(io::Error::other("the source failed"))));
                    task.abort();
                    return Err(Pumped::Source(error));
                }
            };
            if chunk.is_empty() {
                break;
            }
            left -= chunk.len() as u64;
            let handed = chunk.clone();
            let outcome = self.runtime.wait(async {
                tokio::select! {
                    biased;
                    answer = &mut task => Err(Some(answer)),
                    sent = timeout(retries.stall_timeout, sender.send(Ok(handed))) => match sent {
                        Ok(Ok(())) => Ok(()),
                        // The request is over; the task knows how.
                        Ok(Err(_)) => Err(Some((&mut task).await)),
                        Err(_) => Err(None),
                    },
                }
            });
            match outcome {
                Ok(()) => progress(&chunk),
                Err(Some(answer)) => {
                    early = Some(answer);
                    break;
                }
                Err(None) => {
                    task.abort();
                    return Err(stalled());
                }
            }
        }
        drop(sender);
        let answer = match early {
            Some(answer) => answer,
            None => match self.runtime.wait_at_most(retries.answer_timeout, &mut task) {
                Some(answer) => answer,
                None => {
                    task.abort();
                    return Err(stalled());
                }
            },
        };
        match answer {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                Err(Pumped::Connection(transport::explain(url, error, retries.connect_timeout)))
            }
            Err(_) => Err(stalled()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back() {
        let pool = Pool::default();
        let bytes = pool.read(&mut &b"hello"[..], 3).unwrap();
        assert_eq!(&bytes[..], b"hel");
        assert!(pool.0.lock().unwrap().is_empty());
        drop(bytes);
        assert_eq!(pool.0.lock().unwrap().len(), 1);
    }
}
