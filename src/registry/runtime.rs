//! The tokio runtimes behind the blocking methods.
//!
//! Sockets and timers live on two threads, each with a runtime of its own: tokio's runtime of several threads panics, or
//! waits for ever, where the system refuses it one of them, and this does with one. A caller's future is polled on the
//! caller's own thread, which parks while it waits: it needs neither `'static` nor `Send`, and unlike tokio's `block_on`
//! it may be called from anywhere, even from a thread of another runtime. Nothing may use tokio's pool for blocking work.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::threads;

/// One connection can be read while another is decrypted. The CPUs belong to compression.
const THREADS: usize = 2;

/// A runtime that does not mind where it is used or dropped.
pub(super) struct Runtime {
    first: Worker,
    others: Vec<Worker>,
}

/// A thread, which ends with this value.
struct Worker {
    handle: Handle,
    _end: oneshot::Sender<()>,
}

impl Worker {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, (end, ended)) = (runtime.handle().clone(), oneshot::channel());
        threads::spawn("registry", move || drop(runtime.block_on(ended)))?;
        Ok(Self { handle, _end: end })
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

impl Runtime {
    pub(super) fn new() -> io::Result<Self> {
        let first = Worker::start()?;
        Ok(Self { first, others: (1..THREADS).map_while(|_| Worker::start().ok()).collect() })
    }

    /// Returns the worker with the fewest tasks: each connection is one.
    fn handle(&self) -> &Handle {
        let workers = std::iter::once(&self.first).chain(&self.others).map(|worker| &worker.handle);
        workers.min_by_key(|handle| handle.metrics().num_alive_tasks()).unwrap_or(&self.first.handle)
    }

    /// Runs `future` to its end on this thread.
    pub(super) fn wait<F: Future>(&self, future: F) -> F::Output {
        let _context = self.handle().enter();
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut future = pin!(future);
        loop {
            match future.as_mut().poll(&mut context) {
                Poll::Ready(output) => return output,
                Poll::Pending => thread::park(),
            }
        }
    }

    /// The same, but no longer than `limit`. (A timer can only be made inside the runtime.)
    pub(super) fn wait_at_most<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        self.wait(async { tokio::time::timeout(limit, future).await.ok() })
    }

    /// Starts `future` on the workers.
    pub(super) fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle().spawn(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_on_any_thread() {
        let runtime = Runtime::new().unwrap();
        let nap = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            7
        };
        assert_eq!(runtime.wait(nap), 7);
        assert_eq!(runtime.wait_at_most(Duration::from_millis(5), std::future::pending::<()>()), None);
        let task = runtime.spawn(async { 8 });
        thread::scope(|scope| {
            scope.spawn(|| assert_eq!(runtime.wait(task).unwrap(), 8));
        });
    }

    #[test]
    fn it_waits_and_drops_inside_another_runtime() {
        let outer = tokio::runtime::Runtime::new().unwrap();
        outer.block_on(async {
            let inner = Runtime::new().unwrap();
            inner.wait(async { tokio::time::sleep(Duration::from_millis(1)).await });
        });
    }
}
