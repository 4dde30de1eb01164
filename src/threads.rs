//! Threads, which the system may refuse: a container's pids limit, `ulimit -u`, no address space left for a stack.
//!
//! Work that can do with fewer threads does ([`each`], [`Beside`]), down to the caller's own; what cannot do without
//! one is a [`Refused`]. A panic reaches whoever waits for the thread, and is remembered: a process in which
//! anything panicked delivers nothing more and does not end well ([`panicked`]).
//!
//! Stacks have the size that Rust gives them, 2 MiB: address space, of which only what is used becomes memory.
//! Nothing else in `src/` starts threads (`clippy.toml`).

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::error::Error;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, Builder, JoinHandle, Scope, ScopedJoinHandle};

use rustix::io::Errno;

/// The system has no more threads or processes for kiln.
#[derive(Debug, thiserror::Error)]
#[error("the system refused kiln {what}: {source}")]
pub struct Refused {
    /// `a thread for …`, `a process to …`, `memory for …`.
    pub what: String,
    /// What the system said.
    pub source: io::Error,
}

impl Refused {
    /// What can be done about it.
    pub const HINT: &str = "too many processes and threads, or too little memory: raise the limit, which is the cgroup's `pids.max` \
         (docker's `--pids-limit`, the kubelet's `podPidsLimit`), `ulimit -u` or `ulimit -v`";

    fn thread(name: &str, source: io::Error) -> Self {
        Self { what: format!("a thread for `{name}`"), source }
    }

    /// Tells whether an error comes from here, or is the system's refusal of a process.
    pub fn is_cause_of(error: &(dyn Error + 'static)) -> bool {
        let mut next = Some(error);
        while let Some(error) = next {
            let inner = error.downcast_ref::<io::Error>();
            let is_refusal = error.is::<Self>()
                || inner.and_then(io::Error::get_ref).is_some_and(|inner| inner.is::<Self>())
                || inner.is_some_and(Self::is_by_system);
            if is_refusal {
                return true;
            }
            next = error.source();
        }
        false
    }

    /// `fork(2)` says EAGAIN at a limit. So do sockets and locks, but kiln waits for those and does not report them.
    fn is_by_system(error: &io::Error) -> bool {
        matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory)
    }
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        Self::new(refused.source.kind(), refused)
    }
}

/// Starts a thread that nothing can do without.
#[expect(clippy::disallowed_methods, reason = "the place that the lint sends everybody to")]
pub fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Refused> {
    Builder::new().name(name.to_owned()).spawn(work).map_err(|source| Refused::thread(name, source))
}

/// The same within a scope.
#[expect(clippy::disallowed_methods, reason = "the place that the lint sends everybody to")]
pub fn spawn_in<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, Refused> {
    Builder::new()
        .name(name.to_owned())
        .spawn_scoped(scope, work)
        .map_err(|source| Refused::thread(name, source))
}

/// Returns how many threads do as much as can be done at once, and no more than `most`: what the process may use of the machine
/// when this is asked first. Finding that out takes longer than many a piece of work.
pub fn count(most: usize) -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    let found = PROCESSORS.get_or_init(|| thread::available_parallelism().map_or(1, NonZeroUsize::get));
    most.min(*found)
}

/// Hands on what a thread came to: its result, or its panic.
pub fn joined<T>(outcome: thread::Result<T>) -> T {
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Work beside the caller's own; where the system refuses a thread it was done at once, by the caller.
#[derive(Debug)]
pub struct Beside<'scope, T>(Place<'scope, T>);

#[derive(Debug)]
enum Place<'scope, T> {
    Thread(JoinHandle<T>),
    Scoped(ScopedJoinHandle<'scope, T>),
    Here(T),
}

impl<T: Send + 'static> Beside<'static, T> {
    /// Begins work that outlives the caller.
    pub fn start(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Self {
        let kept = Arc::new(Mutex::new(Some(work)));
        let given = Arc::clone(&kept);
        Self(match spawn(name, move || take(&given)()) {
            Ok(thread) => Place::Thread(thread),
            Err(_) => Place::Here(take(&kept)()),
        })
    }
}

impl<'scope, T: Send + 'scope> Beside<'scope, T> {
    /// Begins work within a scope.
    pub fn start_in(
        scope: &'scope Scope<'scope, '_>,
        name: &str,
        work: impl FnOnce() -> T + Send + 'scope,
    ) -> Self {
        let kept = Arc::new(Mutex::new(Some(work)));
        let given = Arc::clone(&kept);
        Self(match spawn_in(scope, name, move || take(&given)()) {
            Ok(thread) => Place::Scoped(thread),
            Err(_) => Place::Here(take(&kept)()),
        })
    }

    /// Waits for the result; a panic is the caller's as well.
    pub fn join(self) -> T {
        match self.0 {
            Place::Thread(thread) => joined(thread.join()),
            Place::Scoped(thread) => joined(thread.join()),
            Place::Here(result) => result,
        }
    }

    /// Returns whether `join` would not have to wait.
    pub fn is_finished(&self) -> bool {
        match &self.0 {
            Place::Thread(thread) => thread.is_finished(),
            Place::Scoped(thread) => thread.is_finished(),
            Place::Here(_) => true,
        }
    }
}

/// Returns work that is kept by the caller as well: a thread that is refused takes with it what it was given.
fn take<F>(work: &Mutex<Option<F>>) -> F {
    let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
    work.expect("either the thread runs or its caller does")
}

/// Does `work` on each of `items`, on at most `most` threads, the caller's among them; the results are in the items' order.
pub fn each<T: Sync, R: Send>(name: &str, items: &[T], most: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    each_with(name, items, most, || (), |(), item| work(item))
}

/// The same with something that each thread keeps from item to item.
pub fn each_with<T: Sync, R: Send, S>(
    name: &str,
    items: &[T],
    most: usize,
    begin: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let run = || {
        let (mut state, mut done) = (begin(), Vec::new());
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            done.push((index, work(&mut state, item)));
        }
    };
    let mut all = thread::scope(|scope| {
        let others = 1..most.min(items.len());
        let others: Vec<_> = others.map_while(|_| spawn_in(scope, name, run).ok()).collect();
        let mut all = run();
        others.into_iter().for_each(|thread| all.extend(joined(thread.join())));
        all
    });
    all.sort_unstable_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, result)| result).collect()
}

/// The same with work that can fail: then nothing more is begun, and the first failure in the items' order is returned.
pub fn try_each<T: Sync, R: Send, E: Send>(
    name: &str,
    items: &[T],
    most: usize,
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let failed = AtomicBool::new(false);
    let results = each(name, items, most, |item| {
        if failed.load(Ordering::Relaxed) {
            return None;
        }
        let result = work(item);
        failed.fetch_or(result.is_err(), Ordering::Relaxed);
        Some(result)
    });
    results.into_iter().flatten().collect()
}

/// Whether anything in this process panicked.
static PANICKED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Whether a panic of this thread is an answer that is waited for.
    static IS_EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Has every panic remembered, and told to `say`.
pub fn watch_panics(say: impl Fn(&str) + Send + Sync + 'static) {
    std::panic::set_hook(Box::new(move |panic| {
        if IS_EXPECTED.get() {
            return;
        }
        PANICKED.store(true, Ordering::SeqCst);
        let text = panic.payload_as_str().unwrap_or("no reason given");
        let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
        say(&format!("{text}{place}"));
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            say(&trace.to_string());
        }
    }));
}

/// Returns whether anything panicked since [`watch_panics`].
pub fn panicked() -> bool {
    PANICKED.load(Ordering::SeqCst)
}

/// Calls others' code that panics where the system refuses it `what`, which is `errno` elsewhere.
pub fn refusable<T>(what: &str, errno: Errno, work: impl FnOnce() -> T) -> Result<T, Refused> {
    let before = IS_EXPECTED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    IS_EXPECTED.set(before);
    outcome.map_err(|_| Refused { what: what.to_owned(), source: errno.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        let items: Vec<u32> = (0..1000).collect();
        for most in [0, 1, 3, 2000] {
            let doubled = each("test", &items, most.min(16), |item| item * 2);
            assert!(doubled.iter().zip(&items).all(|(double, item)| *double == item * 2), "{most}");
            assert_eq!(doubled.len(), items.len());
        }
    }

    #[test]
    fn nothing_is_begun_after_a_failure() {
        let begun = AtomicUsize::new(0);
        let items: Vec<u32> = (0..1000).collect();
        let result = try_each("test", &items, 1, |item| {
            begun.fetch_add(1, Ordering::Relaxed);
            if *item == 7 { Err(*item) } else { Ok(()) }
        });
        assert_eq!((result, begun.into_inner()), (Err(7), 8));
    }

    #[test]
    fn a_panic_reaches_who_waits() {
        let waited = catch_unwind(|| each("test", &[1, 2, 3, 4], 4, |item| assert!(*item != 3)));
        assert!(waited.is_err());
        assert!(catch_unwind(|| Beside::start("test", || panic!("on purpose")).join()).is_err());
    }

    #[test]
    fn a_refusal_is_found_below_other_errors() {
        let refused = || Refused::thread("x", io::ErrorKind::WouldBlock.into());
        let wrapped = io::Error::other(io::Error::from(refused()));
        assert!(Refused::is_cause_of(&refused()));
        assert!(Refused::is_cause_of(&io::Error::from(refused())));
        assert!(Refused::is_cause_of(&wrapped));
        assert!(!Refused::is_cause_of(&io::Error::other("no")));
        assert!(refusable("x", Errno::AGAIN, || panic!("OS can't spawn worker thread")).is_err());
    }
}
