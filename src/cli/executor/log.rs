//! kaniko's log: one line for each message, in the shapes of its logging library; output of steps as it
//! is, on standard output.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde_json::json;

use super::args::{LogFlags, LogFormat, Verbosity};
use crate::cli::progress::{Lines, bytes};
use crate::event::{Event, Report, StepId, StepOutcome, TransferId, TransferKind};

/// Logs events.
pub(super) struct Log {
    verbosity: Verbosity,
    format: LogFormat,
    timestamp: bool,
    begun: Instant,
    state: Mutex<State>,
}

struct State {
    log: Box<dyn Write + Send>,
    output: Box<dyn Write + Send>,
    lines: HashMap<StepId, Lines>,
    transfers: HashMap<TransferId, (TransferKind, String, Option<u64>)>,
}

impl Log {
    /// Logs to `log`; what steps print goes to `output`.
    pub(super) fn new(flags: &LogFlags, log: Box<dyn Write + Send>, output: Box<dyn Write + Send>) -> Self {
        Self {
            verbosity: flags.verbosity,
            format: flags.log_format,
            timestamp: flags.log_timestamp == Some(true),
            begun: Instant::now(),
            state: Mutex::new(State { log, output, lines: HashMap::new(), transfers: HashMap::new() }),
        }
    }

    /// Logs a message of kiln's own, or a failure as it was rendered.
    pub(super) fn message(&self, level: Verbosity, text: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_as_it_is(&mut state, level, text);
    }

    /// Logs what an event says: names and answers in it are anybody's.
    fn write(&self, state: &mut State, level: Verbosity, text: &str) {
        self.write_as_it_is(state, level, &crate::text::message(text));
    }

    fn write_as_it_is(&self, state: &mut State, level: Verbosity, text: &str) {
        if level > self.verbosity {
            return;
        }
        let line = self.line(level, text, &now());
        // A log that cannot be written to must not end the build.
        let _ = writeln!(state.log, "{line}");
    }

    fn line(&self, level: Verbosity, text: &str, time: &str) -> String {
        let (name, short, colour) = level_names(level);
        match self.format {
            LogFormat::Json => {
                crate::text::json(&json!({"level": name, "msg": text, "time": time}).to_string()).into_owned()
            }
            LogFormat::Text => format!("time=\"{time}\" level={name} msg={}", quoted(text)),
            LogFormat::Color => {
                let at = match self.timestamp {
                    true => time.to_owned(),
                    false => format!("{:04}", self.begun.elapsed().as_secs()),
                };
                format!("\x1b[{colour}m{short}\x1b[0m[{at}] {text}")
            }
        }
    }

    fn step_output(state: &mut State, step: StepId, bytes: &[u8]) {
        let State { lines, output, .. } = state;
        let mut whole = Vec::new();
        lines.entry(step).or_default().push(bytes, &mut |line| {
            whole.extend_from_slice(line);
            whole.push(b'\n');
        });
        let _ = output.write_all(&whole).and_then(|()| output.flush());
    }

    fn finish_output(state: &mut State, step: &StepId) {
        let Some(mut lines) = state.lines.remove(step) else { return };
        let State { output, .. } = state;
        lines.finish(&mut |line| {
            let _ = output.write_all(line).and_then(|()| output.write_all(b"\n"));
        });
        let _ = output.flush();
    }

    fn transferred(&self, state: &mut State, id: TransferId, outcome: &str) {
        let Some((kind, what, size)) = state.transfers.remove(&id) else { return };
        let size = size.map(|size| format!(" ({})", bytes(size))).unwrap_or_default();
        let (level, verb) = match kind {
            TransferKind::Pull => (Verbosity::Debug, "Pulled"),
            TransferKind::Push => (Verbosity::Info, "Pushed"),
            TransferKind::Extract => (Verbosity::Debug, "Extracted"),
            TransferKind::Fetch => (Verbosity::Info, "Fetched"),
        };
        self.write(state, level, &format!("{verb} {what}{size}: {outcome}"));
    }
}

impl Report for Log {
    fn report(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        match event {
            Event::StepStarted { instruction, .. } => {
                self.write(state, Verbosity::Info, instruction.trim_end())
            }
            Event::StepOutput { step, bytes, .. } => Self::step_output(state, step, &bytes),
            Event::StepFinished { step, outcome, elapsed } => {
                Self::finish_output(state, &step);
                let took = format!("{:.1}s", elapsed.as_secs_f64());
                let (level, text) = match outcome {
                    StepOutcome::Done => (Verbosity::Debug, format!("step done in {took}")),
                    StepOutcome::Cached(from) => {
                        (Verbosity::Info, format!("Using caching version of step {from}"))
                    }
                    StepOutcome::Failed => (Verbosity::Debug, format!("step failed after {took}")),
                };
                self.write(state, level, text.trim_end());
            }
            Event::StepExplained { reasons, .. } => {
                let text = format!("No cached layer found: {}", reasons.join("; "));
                self.write(state, Verbosity::Info, &text);
            }
            Event::LayerFinished { size_bytes, .. } => {
                self.write(state, Verbosity::Debug, &format!("layer of {}", bytes(size_bytes)));
            }
            Event::TransferStarted { id, kind, what, total_bytes } => {
                state.transfers.insert(id, (kind, what, total_bytes));
            }
            Event::TransferProgress { .. } => {}
            Event::TransferFinished { id, outcome } => self.transferred(state, id, &outcome),
            Event::Warning { text, hint } => {
                let hint = hint.map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
                self.write(state, Verbosity::Warn, &format!("{text}{hint}"));
            }
            Event::Info { text } => self.write(state, Verbosity::Info, &text),
            Event::Debug { text } => self.write(state, Verbosity::Debug, &text),
        }
    }
}

/// Returns a level's name, its four letters and its colour.
fn level_names(level: Verbosity) -> (&'static str, &'static str, u8) {
    match level {
        Verbosity::Panic => ("panic", "PANI", 31),
        Verbosity::Fatal => ("fatal", "FATA", 31),
        Verbosity::Error => ("error", "ERRO", 31),
        Verbosity::Warn => ("warning", "WARN", 33),
        Verbosity::Info => ("info", "INFO", 36),
        Verbosity::Debug => ("debug", "DEBU", 37),
        Verbosity::Trace => ("trace", "TRAC", 37),
    }
}

/// Quotes a text where `key=value` readers need it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    crate::text::json(&json!(text).to_string()).into_owned()
}

/// Returns the time of day, RFC 3339 in whole seconds.
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::event::OutputStream;

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
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn log(format: LogFormat, verbosity: Verbosity) -> (Log, Buffer, Buffer) {
        let (log, output) = (Buffer::default(), Buffer::default());
        let flags = LogFlags { verbosity, log_format: format, log_timestamp: None };
        (Log::new(&flags, Box::new(log.clone()), Box::new(output.clone())), log, output)
    }

    #[test]
    fn the_formats_are_kanikos() {
        let line =
            |format| log(format, Verbosity::Info).0.line(Verbosity::Info, "Taking a \"snapshot\"", "T");
        assert_eq!(line(LogFormat::Color), "\x1b[36mINFO\x1b[0m[0000] Taking a \"snapshot\"");
        assert_eq!(line(LogFormat::Text), r#"time="T" level=info msg="Taking a \"snapshot\"""#);
        assert_eq!(line(LogFormat::Json), r#"{"level":"info","msg":"Taking a \"snapshot\"","time":"T"}"#);
    }

    #[test]
    fn verbosity_hides_what_is_below_it() {
        let (log, buffer, _) = log(LogFormat::Color, Verbosity::Warn);
        log.report(Event::Info { text: "info".into() });
        log.report(Event::Warning { text: "careful".into(), hint: None });
        log.message(Verbosity::Fatal, "end");
        assert!(!buffer.text().contains("info"));
        assert!(buffer.text().contains("careful") && buffer.text().contains("FATA"));
    }

    #[test]
    fn output_of_steps_goes_to_standard_output_in_whole_lines() {
        let (log, buffer, output) = log(LogFormat::Text, Verbosity::Info);
        let step = StepId { stage: "0".into(), number: 1, total: 1 };
        log.report(Event::StepStarted { step: step.clone(), instruction: "RUN x".into() });
        let wrote = |text: &str| Event::StepOutput {
            step: step.clone(),
            stream: OutputStream::Stderr,
            bytes: text.into(),
        };
        log.report(wrote("a\nb"));
        assert_eq!(output.text(), "a\n");
        log.report(wrote("c"));
        let elapsed = Duration::ZERO;
        log.report(Event::StepFinished { step: step.clone(), outcome: StepOutcome::Done, elapsed });
        assert_eq!(output.text(), "a\nbc\n");
        assert!(buffer.text().contains("msg=\"RUN x\""));
    }
}
