//! The hash of a blob beside its reader: SHA-256 keeps one core busy at the speed of a good network, so it has a thread
//! of its own and whoever unpacks the bytes does not wait for it.
//!
//! At most a few chunks are under way. Small blobs are hashed where they are: a thread costs more than they do.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::oci::Digest;
use crate::threads;

/// Blobs below this are hashed on the caller's thread.
const WORTH_A_THREAD_BYTES: u64 = 1 << 20;
/// Chunks between reader and hash; they are shared with the reader, which holds one at a time.
const CHUNKS_UNDER_WAY: usize = 8;

/// A SHA-256 that is being computed.
pub(super) enum Hashing {
    Here(Sha256),
    Beside { chunks: SyncSender<Bytes>, thread: JoinHandle<Sha256> },
}

impl Hashing {
    /// Begins the hash of a blob of this size.
    pub(super) fn new(size_bytes: u64) -> Self {
        if size_bytes < WORTH_A_THREAD_BYTES {
            return Self::Here(Sha256::new());
        }
        let (chunks, received) = sync_channel::<Bytes>(CHUNKS_UNDER_WAY);
        let work = move || received.iter().fold(Sha256::new(), |hash, chunk| hash.chain_update(&chunk));
        match threads::spawn("hash", work) {
            Ok(thread) => Self::Beside { chunks, thread },
            // No more threads to be had: slower, and right.
            Err(_) => Self::Here(Sha256::new()),
        }
    }

    /// Adds the next bytes.
    pub(super) fn update(&mut self, chunk: &Bytes) {
        match self {
            Self::Here(hash) => hash.update(chunk),
            Self::Beside { chunks, .. } => {
                chunks.send(chunk.clone()).expect("the thread receives for as long as this sends");
            }
        }
    }

    /// Waits for the hash of all.
    pub(super) fn finish(self) -> Digest {
        let hash = match self {
            Self::Here(hash) => hash,
            Self::Beside { chunks, thread } => {
                drop(chunks);
                threads::joined(thread.join())
            }
        };
        Digest::from_sha256(hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_same_on_either_thread() {
        let bytes = Bytes::from((0..3_000_000_u32).map(|n| (n % 251) as u8).collect::<Vec<u8>>());
        for size in [10, 3_000_000] {
            let mut hashing = Hashing::new(size as u64);
            assert_eq!(matches!(hashing, Hashing::Beside { .. }), size > 10);
            for start in (0..size).step_by(70_000) {
                hashing.update(&bytes.slice(start..size.min(start + 70_000)));
            }
            assert_eq!(hashing.finish(), Digest::of(&bytes[..size]));
        }
    }

    #[test]
    fn one_that_is_dropped_holds_nothing_up() {
        let mut hashing = Hashing::new(1 << 30);
        hashing.update(&Bytes::from_static(b"x"));
        drop(hashing);
    }
}
