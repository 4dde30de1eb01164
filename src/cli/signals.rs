//! Ctrl-C and its relatives: the first asks the build to stop, the second does not ask.

use std::io::Write;
use std::sync::Arc;
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::fail::INTERRUPTED;
use crate::sandbox::Cancel;

/// Throws `cancel` on the first SIGINT, SIGTERM or SIGHUP and exits the process on the second.
///
/// Must be called after the sandbox was entered: it starts a thread. A process that cannot watch signals
/// is ended by them, which is what they are for.
pub fn watch(cancel: Arc<Cancel>) {
    thread::spawn(move || {
        let Ok(runtime) = Builder::new_current_thread().enable_io().build() else { return };
        runtime.block_on(async {
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let Ok(mut signals) = kinds.into_iter().map(signal).collect::<Result<Vec<_>, _>>() else {
                return;
            };
            next(&mut signals).await;
            say("interrupted: stopping (once more to stop at once)");
            cancel.cancel();
            next(&mut signals).await;
            std::process::exit(i32::from(INTERRUPTED));
        });
    });
}

/// Waits for any of the signals.
async fn next(signals: &mut [Signal]) {
    std::future::poll_fn(|context| {
        let arrived = signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
        if arrived { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

fn say(line: &str) {
    // Nobody may be listening any more; the build ends all the same.
    let _ = writeln!(std::io::stderr(), "{line}");
}
