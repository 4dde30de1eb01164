//! Why a step runs, and what became of every step.

use std::time::Duration;

use super::record_key;
use crate::build::stage::Stage;
use crate::build::{Build, Explain};
use crate::cache::{Around, Inputs, Record, StepName, explain};
use crate::dockerfile::Instruction;
use crate::event::{Event, StepId, StepOutcome};
use crate::plan::{Base, StageId};

/// By how many places a step is looked for that is not where it was.
const MOST_MOVED: usize = 3;

/// What became of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// The stage's name, or its number.
    pub stage: String,
    /// The step's number in its stage, from 1.
    pub number: usize,
    /// Its instruction.
    pub instruction: String,
    /// The cache that had it, if one had.
    pub cached: Option<String>,
    /// Why no cache had it, where that was asked for.
    pub reasons: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Build<'_> {
    /// Says why the step under way was in no cache, if that was asked for.
    pub(in crate::build) fn explain_miss(&self, stage: &mut Stage, instruction: &Instruction) {
        stage.reasons.clear();
        if self.request.explain == Explain::No || !self.services.caches.is_enabled() {
            return;
        }
        stage.reasons = self.reasons(stage, instruction);
        if self.request.explain == Explain::Aloud && !stage.reasons.is_empty() {
            let (step, reasons) = (stage.step.clone(), stage.reasons.clone());
            self.services.reporter.report(Event::StepExplained { step, reasons });
        }
    }

    fn reasons(&self, stage: &Stage, instruction: &Instruction) -> Vec<String> {
        if self.request.no_cache {
            return vec!["`--no-cache` was given".to_owned()];
        }
        if self.is_empty_step(stage, instruction).unwrap_or(true) {
            return Vec::new();
        }
        let Some(step) = self.probe.step(stage.id, stage.instruction) else {
            return vec!["what goes into it is not known before it runs".to_owned()];
        };
        let form = record_key(step.key.key, &self.epoch_key).1;
        let inputs = Inputs([step.key.inputs.0.clone(), form.0].concat());
        match self.before(self.step_name(stage.id, stage.step.number), &instruction.original) {
            Some(old) => {
                let mut around = self.around(stage, &step.key.sources);
                let steps = &self.plan.stages[stage.id.0].steps;
                around.has_moved = old.instruction != instruction.original
                    && steps.iter().any(|step| step.original == old.instruction);
                explain(&old, &instruction.original, &inputs, &around)
            }
            None => vec!["no cache has seen this step before".to_owned()],
        }
    }

    /// Finds the newest record of a step. Where another instruction has come to its place, it may have moved.
    fn before(&self, name: StepName, instruction: &str) -> Option<Record> {
        let caches = &self.services.caches;
        let here = caches.newest(&name);
        if here.as_ref().is_some_and(|record| record.instruction == instruction) {
            return here;
        }
        // Where there is no such number yet, a step has come in before.
        let most = if here.is_some() { MOST_MOVED } else { 1 };
        let moved = (1..=most).flat_map(|by| [name.number.checked_sub(by), name.number.checked_add(by)]);
        moved
            .flatten()
            .filter(|number| *number > 1 && (here.is_some() || *number < name.number))
            .filter_map(|number| caches.newest(&StepName { number, ..name.clone() }))
            .find(|record| record.instruction == instruction)
            .or(here)
    }

    /// Says what the step under way depends on.
    fn around(&self, stage: &Stage, sources: &[StageId]) -> Around {
        let stage_name = |id: &StageId| format!("stage `{}`", self.plan.stages[id.0].display);
        let below = match (&stage.last_run, &self.plan.stages[stage.id.0].base, &stage.base) {
            (Some(StepId { stage, number, total }), ..) => {
                format!("[{stage} {number}/{total}] runs before it")
            }
            (None, Base::Stage(below), _) => format!("{}, which it builds on, changed", stage_name(below)),
            (None, _, Some(image)) => {
                format!(
                    "the base image changed: it is `{}` with digest {} for {} now",
                    image.text,
                    image.digest.short(),
                    stage.platform
                )
            }
            (None, ..) => String::new(),
        };
        let sources = sources.iter().map(|id| format!("{}, which it reads from, changed", stage_name(id)));
        Around { has_moved: false, below, sources: sources.collect() }
    }

    /// Notes what became of the step under way.
    pub(in crate::build) fn note(
        &self,
        stage: &mut Stage,
        instruction: &Instruction,
        outcome: &StepOutcome,
        took: Duration,
    ) {
        let report = StepReport {
            stage: stage.step.stage.clone(),
            number: stage.step.number,
            instruction: instruction.original.clone(),
            cached: match outcome {
                StepOutcome::Cached(from) => Some(from.clone()),
                StepOutcome::Done | StepOutcome::Failed => None,
            },
            reasons: std::mem::take(&mut stage.reasons),
            took,
        };
        self.reports.lock().expect("no panic while a report is added").push(report);
    }
}
