//! Ctrl-C and its relatives: the first asks the build to stop, the second does not ask.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::fail::INTERRUPTED;
use crate::sandbox::{Cancel, Entered, SIGNALS_TOGETHER};
use crate::threads::{self, Refused};

/// How long a stopped build may take to end by itself. A registry that does not answer can take longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What has to be looked after when the process ends before its work has.
#[derive(Debug, Default)]
pub struct Ending {
    /// How many steps run; the process must not end while this is not 0.
    pub steps_running: Arc<AtomicUsize>,
    /// The build's own directory.
    pub work_dir: Mutex<Option<PathBuf>>,
}

impl Ending {
    /// Ends the process; steps have been stopped by now and are waited for.
    async fn end(&self) -> ! {
        tokio::time::sleep(PATIENCE).await;
        while self.steps_running.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if let Some(path) = self.work_dir.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // What is still mounted there goes with the process; the next build sweeps the rest.
            let _ = std::fs::remove_dir_all(path);
        }
        std::process::exit(i32::from(INTERRUPTED))
    }
}

/// Throws `cancel` on the first SIGINT, SIGTERM or SIGHUP, or when kiln's keeper was killed, and exits the process on the second.
///
/// Must be called after the sandbox was entered: it starts threads. Where a thread cannot be had nothing is begun; a
/// process that cannot watch signals otherwise is ended by them, which is what they are for.
pub fn watch(cancel: Arc<Cancel>, ending: Arc<Ending>, entered: Entered) -> Result<(), Refused> {
    let (end, keepers_end) = oneshot::channel();
    if entered.has_keeper() {
        let wait = move || {
            entered.wait_for_keepers_end();
            // Nobody listens after a signal.
            let _ = end.send(());
        };
        threads::spawn("keeper's end", wait).map(drop)?;
    }
    let work = move || {
        let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let Ok(mut signals) = kinds.into_iter().map(signal).collect::<Result<Vec<_>, _>>() else {
                return;
            };
            tokio::select! {
                () = next(&mut signals) => say("interrupted: stopping (once more to stop at once)"),
                Ok(()) = keepers_end => say("the process that watches over kiln was killed: stopping"),
            }
            cancel.cancel();
            tokio::time::sleep(SIGNALS_TOGETHER).await;
            drain(&mut signals).await;
            tokio::select! {
                () = next(&mut signals) => std::process::exit(i32::from(INTERRUPTED)),
                _ = ending.end() => {}
            }
        });
    };
    threads::spawn("signals", work).map(drop)
}

/// Waits for any of the signals.
async fn next(signals: &mut [Signal]) {
    std::future::poll_fn(|context| {
        let arrived = signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
        if arrived { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// Forgets what has arrived.
async fn drain(signals: &mut [Signal]) {
    std::future::poll_fn(|context| {
        for signal in &mut *signals {
            while signal.poll_recv(context).is_ready() {}
        }
        std::task::Poll::Ready(())
    })
    .await;
}

fn say(line: &str) {
    // Nobody may be listening any more; the build ends all the same.
    let _ = writeln!(std::io::stderr(), "{line}");
}
