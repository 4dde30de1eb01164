//! One line after the other: for CI logs and pipes, in BuildKit's shape.
//!
//! ```text
//! #4 [build 2/3] RUN make
//! #4 0.312 cc -o app app.c
//! #4 layer 1.2MB
//! #4 DONE 0.8s
//! ```
//! Every line of a step begins with its number, since steps run side by side.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::View;
use super::split::Lines;
use super::text;
use crate::event::{Event, OutputStream, Report, StepId, StepOutcome, TransferId, TransferKind};
use crate::text::message;

/// A transfer is mentioned again when this much time has passed: a CI log must show that it lives.
const TRANSFER_NEWS: Duration = Duration::from_secs(10);

/// Shows lines.
pub(super) struct Plain {
    debug: bool,
    state: Mutex<State>,
}

struct State {
    out: Box<dyn Write + Send>,
    steps: HashMap<StepId, Step>,
    next_number: usize,
    transfers: HashMap<TransferId, Moving>,
}

struct Step {
    number: usize,
    begun: Instant,
    stdout: Lines,
    stderr: Lines,
}

struct Moving {
    kind: TransferKind,
    what: String,
    total_bytes: Option<u64>,
    done_bytes: u64,
    begun: Instant,
    mentioned: Instant,
}

impl Plain {
    /// Shows lines on `out`.
    pub(super) fn new(out: Box<dyn Write + Send>, debug: bool) -> Self {
        let state = State { out, steps: HashMap::new(), next_number: 1, transfers: HashMap::new() };
        Self { debug, state: Mutex::new(state) }
    }
}

impl View for Plain {
    fn finish(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let steps: Vec<StepId> = state.steps.keys().cloned().collect();
        for step in steps {
            state.flush_output(&step);
        }
        let _ = state.out.flush();
    }
}

impl Report for Plain {
    fn report(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::StepStarted { step, instruction } => state.start(step, &instruction),
            Event::StepOutput { step, stream, bytes } => state.output(&step, stream, &bytes),
            Event::StepFinished { step, outcome, elapsed } => state.end(&step, &outcome, elapsed),
            Event::StepExplained { step, reasons } => {
                let number = state.number(&step);
                for (place, reason) in reasons.iter().enumerate() {
                    let lead = if place == 0 { "not cached:" } else { "           " };
                    state.line(&format!("#{number} {lead} {reason}"));
                }
            }
            Event::LayerFinished { step, size_bytes } => {
                let number = state.number(&step);
                state.line(&format!("#{number} layer {}", text::bytes(size_bytes)));
            }
            Event::TransferStarted { id, kind, what, total_bytes } => {
                let now = Instant::now();
                let moving = Moving { kind, what, total_bytes, done_bytes: 0, begun: now, mentioned: now };
                state.transfers.insert(id, moving);
            }
            Event::TransferProgress { id, done_bytes } => state.moved(id, done_bytes),
            Event::TransferFinished { id, outcome } => state.arrived(id, &outcome),
            Event::Warning { text, hint } => {
                state.line(&format!("warning: {text}"));
                if let Some(hint) = hint {
                    state.line(&format!("   hint: {hint}"));
                }
            }
            Event::Info { text } => state.line(&text),
            Event::Debug { text } if self.debug => state.line(&format!("debug: {text}")),
            Event::Debug { .. } => {}
        }
    }
}

impl State {
    /// Writes a line of kiln's own. A log that cannot be written to must not end the build.
    fn line(&mut self, line: &str) {
        let _ = writeln!(self.out, "{}", message(line));
    }

    fn start(&mut self, step: StepId, instruction: &str) {
        let number = self.next_number;
        self.next_number += 1;
        self.line(&format!("#{number} {} {}", text::step(&step), text::instruction(instruction)));
        let begun = Instant::now();
        self.steps.insert(step, Step { number, begun, stdout: Lines::default(), stderr: Lines::default() });
    }

    /// Returns a step's number; one that was never announced has none.
    fn number(&self, step: &StepId) -> usize {
        self.steps.get(step).map_or(0, |step| step.number)
    }

    fn output(&mut self, id: &StepId, stream: OutputStream, bytes: &[u8]) {
        let Some(step) = self.steps.get_mut(id) else { return };
        let prefix = prefix(step);
        let lines = match stream {
            OutputStream::Stdout => &mut step.stdout,
            OutputStream::Stderr => &mut step.stderr,
        };
        lines.push(bytes, &mut |line| write_output(&mut self.out, &prefix, line));
    }

    fn flush_output(&mut self, id: &StepId) {
        let Some(step) = self.steps.get_mut(id) else { return };
        let prefix = prefix(step);
        step.stdout.finish(&mut |line| write_output(&mut self.out, &prefix, line));
        step.stderr.finish(&mut |line| write_output(&mut self.out, &prefix, line));
    }

    fn end(&mut self, id: &StepId, outcome: &StepOutcome, elapsed: Duration) {
        self.flush_output(id);
        let number = self.number(id);
        let took = text::seconds(elapsed);
        self.line(&match outcome {
            StepOutcome::Done => format!("#{number} DONE {took}"),
            StepOutcome::Cached(from) if from.is_empty() => format!("#{number} CACHED"),
            StepOutcome::Cached(from) => format!("#{number} CACHED {from}"),
            StepOutcome::Failed => format!("#{number} ERROR {took}"),
        });
    }

    fn moved(&mut self, id: TransferId, done_bytes: u64) {
        let Some(moving) = self.transfers.get_mut(&id) else { return };
        moving.done_bytes = done_bytes;
        if moving.mentioned.elapsed() < TRANSFER_NEWS {
            return;
        }
        moving.mentioned = Instant::now();
        let of = moving.total_bytes.map(|total| format!(" / {}", text::bytes(total))).unwrap_or_default();
        let line = format!(
            "{} {} {}{of} {}",
            text::verb(moving.kind),
            moving.what,
            text::bytes(done_bytes),
            text::seconds(moving.begun.elapsed())
        );
        self.line(&line);
    }

    fn arrived(&mut self, id: TransferId, outcome: &str) {
        let Some(moving) = self.transfers.remove(&id) else { return };
        // A transfer whose bytes were never counted is as large as was announced.
        let size = if moving.done_bytes > 0 { Some(moving.done_bytes) } else { moving.total_bytes };
        let size = size.map(|size| format!(" {}", text::bytes(size))).unwrap_or_default();
        let took = text::seconds(moving.begun.elapsed());
        let line = format!("{} {}{size} {outcome} {took}", text::verb(moving.kind), moving.what);
        self.line(&line);
    }
}

fn prefix(step: &Step) -> String {
    format!("#{} {:.3} ", step.number, step.begun.elapsed().as_secs_f64())
}

/// Writes a line of a step's output as it came: it need not be UTF-8.
fn write_output(out: &mut dyn Write, prefix: &str, line: &[u8]) {
    let mut whole = Vec::with_capacity(prefix.len() + line.len() + 1);
    whole.extend_from_slice(prefix.as_bytes());
    whole.extend_from_slice(line);
    whole.push(b'\n');
    let _ = out.write_all(&whole);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::Reporter;

    /// A buffer that the view writes to and the test reads.
    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Buffer {
        /// Returns the lines with numbers that depend on time replaced.
        fn lines(&self) -> Vec<String> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            let times = regex::Regex::new(r"\b\d+\.\d+(s?)\b").unwrap();
            text.lines().map(|line| times.replace_all(line, "T$1").into_owned()).collect()
        }
    }

    fn id(stage: &str, number: usize) -> StepId {
        StepId { stage: stage.into(), number, total: 2 }
    }

    fn started(step: StepId, text: &str) -> Event {
        Event::StepStarted { step, instruction: text.into() }
    }

    fn finished(step: StepId, outcome: StepOutcome) -> Event {
        Event::StepFinished { step, outcome, elapsed: Duration::from_millis(1) }
    }

    fn wrote(step: StepId, stream: OutputStream, text: &str) -> Event {
        Event::StepOutput { step, stream, bytes: text.into() }
    }

    #[test]
    fn steps_have_numbers_and_their_output_a_prefix() {
        let buffer = Buffer::default();
        let view = Plain::new(Box::new(buffer.clone()), false);
        view.report(started(id("a", 1), "RUN make"));
        view.report(started(id("b", 1), "RUN <<EOF\nx\nEOF"));
        view.report(wrote(id("a", 1), OutputStream::Stdout, "one\ntw"));
        view.report(wrote(id("b", 1), OutputStream::Stdout, "other\n"));
        view.report(wrote(id("a", 1), OutputStream::Stderr, "error\n"));
        view.report(wrote(id("a", 1), OutputStream::Stdout, "o\nunfinished"));
        view.report(finished(id("a", 1), StepOutcome::Failed));
        view.report(finished(id("b", 1), StepOutcome::Cached(String::new())));
        view.report(Event::LayerFinished { step: id("b", 1), size_bytes: 5 });
        assert_eq!(
            buffer.lines(),
            [
                "#1 [a 1/2] RUN make",
                "#2 [b 1/2] RUN <<EOF ...",
                "#1 T one",
                "#2 T other",
                "#1 T error",
                "#1 T two",
                "#1 T unfinished",
                "#1 ERROR Ts",
                "#2 CACHED",
                "#2 layer 5B",
            ]
        );
    }

    #[test]
    fn transfers_are_one_line_and_debug_is_hidden() {
        let buffer = Buffer::default();
        let reporter = Reporter::new(Plain::new(Box::new(buffer.clone()), false));
        let mut transfer = reporter.transfer(TransferKind::Pull, "abc", Some(7));
        transfer.advance(3);
        transfer.advance(4);
        transfer.finish("done");
        reporter.debug("hidden");
        reporter.report(Event::Warning { text: "careful".into(), hint: Some("do this".into()) });
        assert_eq!(buffer.lines(), ["pull abc 7B done Ts", "warning: careful", "   hint: do this"]);
    }
}
