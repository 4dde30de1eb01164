//! A live view for terminals: running steps with their last line of output, bars for transfers, and above
//! them one line for everything that is over.

use std::collections::HashMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::View;
use super::split::Lines;
use super::text;
use crate::event::{Event, Report, StepId, StepOutcome, TransferId};
use crate::text::{line, message};
use crate::threads;

/// How often spinners turn: fast enough to look alive, slow enough to cost nothing.
const TICK: Duration = Duration::from_millis(120);

/// Shows what is going on.
pub(super) struct Live {
    debug: bool,
    screen: MultiProgress,
    state: Arc<Mutex<State>>,
    /// Closed with this value, which ends the thread that turns the spinners.
    _turning: Sender<()>,
}

#[derive(Default)]
struct State {
    steps: HashMap<StepId, Step>,
    transfers: HashMap<TransferId, (ProgressBar, String)>,
}

struct Step {
    bar: ProgressBar,
    heading: String,
    lines: Lines,
    layer: Option<u64>,
}

impl Live {
    /// Opens the view on standard error.
    pub(super) fn new(debug: bool) -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let (turning, ending) = channel();
        let turned = Arc::clone(&state);
        // (indicatif's own threads panic where they are refused.)
        let turn = move || {
            while matches!(ending.recv_timeout(TICK), Err(RecvTimeoutError::Timeout)) {
                let state = turned.lock().unwrap_or_else(PoisonError::into_inner);
                state.steps.values().for_each(|step| step.bar.tick());
            }
        };
        // Without it spinners stand still.
        let _ = threads::spawn("progress", turn);
        Self { debug, screen: MultiProgress::new(), state, _turning: turning }
    }

    /// Writes a line above everything that moves.
    fn line(&self, line: impl AsRef<str>) {
        let _ = self.screen.println(message(line.as_ref()));
    }

    fn start(&self, state: &mut State, step: StepId, instruction: &str) {
        let heading = format!("{} {}", text::step(&step), text::instruction(instruction));
        let heading = line(&heading).into_owned();
        let bar = self.screen.add(ProgressBar::new_spinner().with_style(style(STEP)));
        bar.set_prefix(short(&heading));
        state.steps.insert(step, Step { bar, heading, lines: Lines::default(), layer: None });
    }

    fn end(&self, state: &mut State, id: &StepId, outcome: &StepOutcome, elapsed: Duration) {
        let Some(step) = state.steps.remove(id) else { return };
        step.bar.finish_and_clear();
        self.screen.remove(&step.bar);
        let heading = &step.heading;
        let size = step.layer.map(|size| format!(" {}", text::bytes(size))).unwrap_or_default();
        match outcome {
            StepOutcome::Done => self.line(format!("✔ {heading}{size} {}", text::seconds(elapsed))),
            StepOutcome::Cached(from) => {
                self.line(format!("✔ CACHED {heading} {from}").trim_end());
            }
            // Its last lines of output come with the error.
            StepOutcome::Failed => self.line(format!("✘ {heading} {}", text::seconds(elapsed))),
        }
    }
}

impl View for Live {
    fn finish(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, step) in state.steps.drain() {
            step.bar.finish_and_clear();
        }
        for (_, (bar, _)) in state.transfers.drain() {
            bar.finish_and_clear();
        }
        let _ = self.screen.clear();
    }
}

impl Report for Live {
    fn report(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::StepStarted { step, instruction } => self.start(&mut state, step, &instruction),
            Event::StepOutput { step, bytes, .. } => {
                if let Some(step) = state.steps.get_mut(&step) {
                    let bar = &step.bar;
                    step.lines.push(&bytes, &mut |line| bar.set_message(tame(line)));
                }
            }
            Event::StepFinished { step, outcome, elapsed } => self.end(&mut state, &step, &outcome, elapsed),
            Event::StepExplained { step, reasons } => {
                self.line(format!("? {}", text::step(&step)));
                for reason in reasons {
                    self.line(format!("    not cached: {reason}"));
                }
            }
            Event::LayerFinished { step, size_bytes } => match state.steps.get_mut(&step) {
                Some(step) => step.layer = Some(size_bytes),
                // The step is over: its layer was compressed beside the next one.
                None => self.line(format!("  {} layer {}", text::step(&step), text::bytes(size_bytes))),
            },
            Event::TransferStarted { id, kind, what, total_bytes } => {
                let name = format!("{} {}", text::verb(kind), line(&what));
                let bar = match total_bytes {
                    Some(total) => ProgressBar::new(total).with_style(style(TRANSFER)),
                    None => ProgressBar::new_spinner().with_style(style(TRANSFER_UNKNOWN)),
                };
                let bar = self.screen.add(bar);
                bar.set_prefix(name.clone());
                state.transfers.insert(id, (bar, name));
            }
            Event::TransferProgress { id, done_bytes } => {
                if let Some((bar, _)) = state.transfers.get(&id) {
                    bar.set_position(done_bytes);
                }
            }
            Event::TransferFinished { id, outcome } => {
                if let Some((bar, name)) = state.transfers.remove(&id) {
                    let size = bar.position().max(bar.length().unwrap_or(0));
                    bar.finish_and_clear();
                    self.screen.remove(&bar);
                    self.line(format!("  {name} {} {outcome}", text::bytes(size)));
                }
            }
            Event::Warning { text, hint } => {
                self.line(format!("warning: {text}"));
                if let Some(hint) = hint {
                    self.line(format!("   hint: {hint}"));
                }
            }
            Event::Info { text } => self.line(text),
            Event::Debug { text } if self.debug => self.line(format!("debug: {text}")),
            Event::Debug { .. } => {}
        }
    }
}

const STEP: &str = "{spinner} {prefix} {elapsed} {wide_msg:.dim}";
const TRANSFER: &str = "  {prefix} [{bar:24}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}";
const TRANSFER_UNKNOWN: &str = "  {prefix} {spinner} {decimal_bytes} {decimal_bytes_per_sec}";

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the templates of this file are well-formed")
        .progress_chars("=> ")
}

/// Characters of a running step's heading: the rest of the line is for its output. A line that wraps cannot
/// be redrawn.
const HEADING: usize = 60;

/// Cuts a heading short.
fn short(heading: &str) -> String {
    match heading.char_indices().nth(HEADING) {
        Some((end, _)) => format!("{}…", &heading[..end]),
        None => heading.to_owned(),
    }
}

/// Returns a line of output without what would move the cursor.
fn tame(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.chars().map(|c| if c == '\t' { ' ' } else { c }).filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_well_formed() {
        for template in [STEP, TRANSFER, TRANSFER_UNKNOWN] {
            style(template);
        }
    }

    #[test]
    fn output_cannot_move_the_cursor() {
        assert_eq!(tame(b"\x1b[2Ja\tb\xff"), "[2Ja b\u{fffd}");
    }
}
