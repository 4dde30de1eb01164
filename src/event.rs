//! What the library has to say while it works: the only voice below `cli/`.
//!
//! Nothing under `cli/` prints. Every part is handed a [`Reporter`] and reports events; the command line
//! decides how they look. Events carry values, not finished sentences, wherever a screen needs the values.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Identifies a step of a build on screen: `[stage 2/5]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StepId {
    /// The stage's name, or its index as text; empty for work of the build as a whole.
    pub stage: String,
    /// The step's number in its stage, from 1.
    pub number: usize,
    /// How many steps the stage has.
    pub total: usize,
}

/// Which of its outputs a step wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    /// It ran.
    Done,
    /// Its result came from a cache; the text says which.
    Cached(String),
    /// It failed; the error itself is the build's result.
    Failed,
}

/// Names one transfer of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(u64);

/// What a transfer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferKind {
    /// Blob from a registry.
    Pull,
    /// Blob to a registry.
    Push,
    /// Layer into a tree.
    Extract,
    /// File over HTTP, or a git repository.
    Fetch,
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A step begins; `instruction` is its text on one line.
    StepStarted {
        /// Which.
        step: StepId,
        /// Its text.
        instruction: String,
    },
    /// A step wrote to its output.
    StepOutput {
        /// Which.
        step: StepId,
        /// To which of them.
        stream: OutputStream,
        /// What, not necessarily whole lines.
        bytes: Vec<u8>,
    },
    /// A step ended.
    StepFinished {
        /// Which.
        step: StepId,
        /// How.
        outcome: StepOutcome,
        /// How long it took.
        elapsed: Duration,
    },
    /// A step has to run: why nothing of an earlier build could be taken for it.
    StepExplained {
        /// Which.
        step: StepId,
        /// The reasons, the likeliest first.
        reasons: Vec<String>,
    },
    /// A step's layer is complete in the store.
    LayerFinished {
        /// The step that made it.
        step: StepId,
        /// Bytes of the blob.
        size_bytes: u64,
    },
    /// Bytes begin to move.
    TransferStarted {
        /// Which.
        id: TransferId,
        /// What for.
        kind: TransferKind,
        /// Name for people: a short digest, a URL.
        what: String,
        /// How many bytes there will be, if known.
        total_bytes: Option<u64>,
    },
    /// Bytes moved, in all so far.
    TransferProgress {
        /// Which.
        id: TransferId,
        /// Bytes so far.
        done_bytes: u64,
    },
    /// The transfer is over.
    TransferFinished {
        /// Which.
        id: TransferId,
        /// In a word: `done`, `exists`, `mounted from x`, `failed: …`.
        outcome: String,
    },
    /// Something the user should know and may want to change.
    Warning {
        /// What.
        text: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Something worth a line.
    Info {
        /// What.
        text: String,
    },
    /// Something worth a line when looking for a fault.
    Debug {
        /// What.
        text: String,
    },
}

/// Where events go.
pub trait Report: Send + Sync {
    /// Takes one event; called from any thread.
    fn report(&self, event: Event);
}

/// A cheap handle on a [`Report`], passed to everything that works.
#[derive(Clone)]
pub struct Reporter(Arc<dyn Report>);

impl Reporter {
    /// Wraps a receiver of events.
    pub fn new(report: impl Report + 'static) -> Self {
        Self(Arc::new(report))
    }

    /// Drops every event.
    pub fn silent() -> Self {
        struct Silent;
        impl Report for Silent {
            fn report(&self, _event: Event) {}
        }
        Self::new(Silent)
    }

    /// Reports one event.
    pub fn report(&self, event: Event) {
        self.0.report(event);
    }

    /// Reports a warning without a hint.
    pub fn warning(&self, text: impl Into<String>) {
        self.report(Event::Warning { text: text.into(), hint: None });
    }

    /// Reports a line of information.
    pub fn info(&self, text: impl Into<String>) {
        self.report(Event::Info { text: text.into() });
    }

    /// Reports a line for fault finding.
    pub fn debug(&self, text: impl Into<String>) {
        self.report(Event::Debug { text: text.into() });
    }

    /// Begins a transfer; the returned handle reports its progress and its end.
    pub fn transfer(
        &self,
        kind: TransferKind,
        what: impl Into<String>,
        total_bytes: Option<u64>,
    ) -> Transfer {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = TransferId(NEXT.fetch_add(1, Ordering::Relaxed));
        self.report(Event::TransferStarted { id, kind, what: what.into(), total_bytes });
        Transfer { reporter: self.clone(), id, done_bytes: 0, finished: false }
    }
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reporter")
    }
}

/// A transfer under way. Dropped without [`Transfer::finish`], it is reported as failed.
#[derive(Debug)]
pub struct Transfer {
    reporter: Reporter,
    id: TransferId,
    done_bytes: u64,
    finished: bool,
}

impl Transfer {
    /// Adds `bytes` to what has moved.
    pub fn advance(&mut self, bytes: u64) {
        self.done_bytes += bytes;
        self.reporter.report(Event::TransferProgress { id: self.id, done_bytes: self.done_bytes });
    }

    /// Ends the transfer with a word on how.
    pub fn finish(mut self, outcome: impl Into<String>) {
        self.finished = true;
        self.reporter.report(Event::TransferFinished { id: self.id, outcome: outcome.into() });
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if !self.finished {
            self.reporter.report(Event::TransferFinished { id: self.id, outcome: "failed".to_owned() });
        }
    }
}
/// Returns an error with its causes, on one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
