//! What a build looks like while it runs: events in, lines or a live view on standard error out.

mod live;
mod plain;
mod quiet;
mod split;
mod text;

use std::io::Write;
use std::sync::Arc;

pub use split::Lines;
pub use text::{bytes, seconds};

use super::args::ProgressArg;
use super::environment::Environment;
use crate::event::{Event, Report, Reporter};

/// A view of a build. Dropping it leaves the terminal as it was.
pub struct Progress {
    view: Arc<dyn View>,
}

/// A receiver of events that may have to clean up.
trait View: Report {
    /// Ends the view: nothing that moves stays on screen.
    fn finish(&self);
}

/// Passes events on to a view; a type of its own because [`Reporter`] wants to own its receiver.
struct Shared(Arc<dyn View>);

impl Report for Shared {
    fn report(&self, event: Event) {
        self.0.report(event);
    }
}

impl Progress {
    /// Opens the view that `kind` and the terminal call for; `debug` shows fault-finding lines.
    pub fn open(kind: ProgressArg, debug: bool, environment: &Environment) -> Self {
        let stderr = || Box::new(std::io::stderr()) as Box<dyn Write + Send>;
        // CI systems that pretend to have a terminal say TERM=dumb or CI=true.
        let live = environment.stderr_is_terminal
            && environment.var("TERM") != Some("dumb")
            && environment.set_var("CI").is_none();
        let view: Arc<dyn View> = match kind {
            ProgressArg::Quiet => Arc::new(quiet::Quiet),
            ProgressArg::Tty => Arc::new(live::Live::new(debug)),
            ProgressArg::Auto if live => Arc::new(live::Live::new(debug)),
            ProgressArg::Auto | ProgressArg::Plain => Arc::new(plain::Plain::new(stderr(), debug)),
        };
        Self { view }
    }

    /// Returns a handle for everything that works.
    pub fn reporter(&self) -> Reporter {
        Reporter::new(Shared(Arc::clone(&self.view)))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.view.finish();
    }
}
