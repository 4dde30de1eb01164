//! What caches know of a build before anything of it runs.
//!
//! Every stage is folded once without touching a file of it: that gives each step its key. All keys are looked up
//! at once, and `decide` finds out which records fit and which stages have to be worked on. Then the stages run as
//! they always do (`stage`), and take a layer from here where there is one (`hits`). What they make is written down
//! for the next build (`keep`).

mod decide;
mod explain;
mod files;
mod hits;
mod keep;
mod keys;

use std::collections::BTreeMap;

use decide::{BaseView, FoundView, StageView, StepView, decide};
use keys::{Ends, StepKey};

pub use explain::StepReport;
pub(super) use keep::Keeper;

use super::Build;
use super::error::Problem;
use super::layers::LayerSlot;
use super::stage::{Stage, makes_layer};
use crate::cache::{Found, Inputs, Key, KeyBuilder};
use crate::oci::DiffId;
use crate::plan::{Base, StageId};
use crate::threads;

/// Requests to caches at once.
const LOOKUPS: usize = 16;

/// What caches know of a build.
#[derive(Default)]
pub(super) struct Probe {
    stages: Vec<Option<StageProbe>>,
    needed: Option<Vec<StageId>>,
}

/// Returns the key of a step's record, and what it has beyond the step's own inputs: the source epoch, to which every
/// time in the layer is clamped (`epoch::for_keys`). How the layer is compressed is no part of it.
fn record_key(step: Key, epoch: &str) -> (Key, Inputs) {
    let mut form = KeyBuilder::new("form");
    form.text("source epoch", epoch);
    let (form, inputs) = form.finish();
    let mut record = KeyBuilder::new("record");
    record.key("step", step).key("form", form);
    (record.finish().0, inputs)
}

/// What caches know of a stage.
struct StageProbe {
    /// By the instruction's index; only those that make layers.
    steps: BTreeMap<usize, StepProbe>,
    base: BaseView,
    /// Whether every step has a key.
    is_known: bool,
}

/// What caches know of a step.
pub(super) struct StepProbe {
    pub(super) key: StepKey,
    /// The records of it, the first ones first. Which of them fits is not a matter of their key alone.
    pub(super) found: Vec<Found>,
    /// The one of them that was found to fit before anything ran.
    pub(super) pick: Option<usize>,
    /// The step's number in its stage, from 1: that of its `FROM`.
    number: usize,
    /// The instruction as it is written.
    text: String,
}

impl Probe {
    /// Returns what is known of an instruction, by its index in its stage.
    pub(super) fn step(&self, stage: StageId, instruction: usize) -> Option<&StepProbe> {
        self.stages.get(stage.0)?.as_ref()?.steps.get(&instruction)
    }

    /// Returns the stages that have to be worked on; `None` if all may have to be.
    pub(super) fn needed(&self) -> Option<&[StageId]> {
        self.needed.as_deref()
    }
}

impl Build<'_> {
    /// Asks the caches about the whole build. Where something cannot be known before it runs, neither can what
    /// comes after it: errors here are found again, and told, by the stage itself.
    pub(super) fn probe(&self) -> Probe {
        if !self.services.caches.is_enabled() {
            return Probe::default();
        }
        let mut ends: Vec<Option<Stage>> = Vec::new();
        let mut stages: Vec<Option<StageProbe>> = Vec::new();
        for index in 0..self.plan.stages.len() {
            let id = StageId(index);
            let folded = match self.plan.reachable.contains(&id) {
                true => self.fold(id, &ends),
                false => None,
            };
            let (probe, end) = folded.map_or((None, None), |(probe, end)| (Some(probe), end));
            stages.push(probe);
            ends.push(end);
        }
        self.look_up(&mut stages);
        self.settle(stages)
    }

    /// Goes through a stage without working on it. Returns its state at the end if it is known.
    fn fold(&self, id: StageId, ends: &[Option<Stage>]) -> Option<(StageProbe, Option<Stage>)> {
        let mut stage = match self.shell(id, ends) {
            Ok(stage) => stage?,
            Err(problem) => {
                self.services.reporter.debug(format!("no cache for stage {}: {problem}", id.0));
                return None;
            }
        };
        let base = match &self.plan.stages[id.0].base {
            Base::Stage(parent) => BaseView::Stage(parent.0),
            Base::Scratch => BaseView::Layers(Vec::new()),
            _ => match &stage.base {
                Some(image) => BaseView::Layers(image.layers.iter().map(|l| l.diff_id.clone()).collect()),
                None => BaseView::Unknown,
            },
        };
        let mut probe = StageProbe { steps: BTreeMap::new(), base, is_known: true };
        let result = self.fold_steps(&mut stage, &mut probe, ends);
        if let Err(problem) = result {
            self.services.reporter.debug(format!("no cache for the rest of stage {}: {problem}", id.0));
            probe.is_known = false;
        }
        let end = (probe.is_known && stage.key.is_some()).then_some(stage);
        Some((probe, end))
    }

    fn fold_steps(
        &self,
        stage: &mut Stage,
        probe: &mut StageProbe,
        ends: &[Option<Stage>],
    ) -> Result<(), Problem> {
        let planned = &self.plan.stages[stage.id.0];
        let triggers = std::mem::take(&mut stage.config.config.on_build);
        let triggers = self.read_triggers(&triggers, planned.from_span)?;
        let mut number = 1;
        for (index, instruction) in triggers.iter().chain(&planned.steps).enumerate() {
            super::base::check_cancelled(&self.services.cancel)?;
            if !makes_layer(&instruction.kind) {
                self.run_metadata(stage, instruction)?;
                continue;
            }
            number += 1;
            if !self.is_empty_step(stage, instruction)? {
                let Some(key) = self.step_key(stage, instruction, &Ends(ends))? else {
                    stage.key = None;
                    probe.is_known = false;
                    return Ok(());
                };
                // What lies above a layer that depends on nothing depends on what is below that all the same.
                stage.key = match (key.is_independent, stage.key) {
                    (true, Some(below)) => Some(joined(below, key.key)),
                    _ => Some(key.key),
                };
                let text = instruction.original.clone();
                let step = StepProbe { key, found: Vec::new(), pick: None, number, text };
                probe.steps.insert(index, step);
            }
            self.skip(stage, instruction)?;
        }
        Ok(())
    }

    /// Returns a stage as it begins, for folding only: without its files.
    fn shell(&self, id: StageId, ends: &[Option<Stage>]) -> Result<Option<Stage>, Problem> {
        let planned = &self.plan.stages[id.0];
        if let Base::Stage(parent) = &planned.base {
            let Some(parent) = &ends[parent.0] else { return Ok(None) };
            let mut stage = self.stage_on(id, parent);
            stage.key = parent.key;
            return Ok(Some(stage));
        }
        let mut stage = match self.files_base(id) {
            Some(name) => {
                let mut stage = self.scratch_stage(id);
                let mut key = KeyBuilder::new("files");
                self.add_named_context(&mut key, &stage, name)?;
                stage.key = Some(key.finish().0);
                return Ok(Some(stage));
            }
            None => self.begin_stage(id)?,
        };
        let mut key = KeyBuilder::new("base");
        key.text("platform", &stage.platform.to_string());
        if let Some(base) = &stage.base {
            key.text("manifest", &base.manifest.to_string());
        }
        stage.key = Some(key.finish().0);
        Ok(Some(stage))
    }

    /// Looks all keys up: in one cache after the other, until one has it.
    fn look_up(&self, stages: &mut [Option<StageProbe>]) {
        self.extend_all(stages, |key, _| self.services.caches.find(key).into_iter().collect());
    }

    /// Looks for more records of the steps that have one, in the caches that were not asked for it.
    fn look_further(&self, stages: &mut [Option<StageProbe>]) {
        let caches = &self.services.caches;
        self.extend_all(stages, |_, known| {
            let [known] = known else { return Vec::new() };
            let mut found = caches.find_others(known);
            found.retain(|found| !found.is_same(known));
            found
        });
    }

    /// Adds to what was found of each step what `find` finds for its key beside it; many at once.
    fn extend_all(
        &self,
        stages: &mut [Option<StageProbe>],
        find: impl Fn(&Key, &[Found]) -> Vec<Found> + Sync,
    ) {
        if !self.services.caches.reads() {
            return;
        }
        let mut wanted = Vec::new();
        for stage in stages.iter_mut().flatten() {
            let steps = stage.steps.values_mut();
            wanted.extend(steps.map(|step| (self.record_key(step.key.key), &mut step.found)));
        }
        let questions: Vec<(&Key, &[Found])> = wanted.iter().map(|(key, found)| (key, &found[..])).collect();
        let answers = threads::each("look up", &questions, LOOKUPS, |(key, known)| {
            (!self.services.cancel.is_cancelled()).then(|| find(key, known))
        });
        for ((_, found), answer) in wanted.iter_mut().zip(answers) {
            found.extend(answer.into_iter().flatten());
        }
    }

    /// Returns the key of a step's record.
    fn record_key(&self, step: Key) -> Key {
        record_key(step, &self.epoch_key).0
    }

    /// Finds out which records fit, and which stages are needed.
    fn settle(&self, mut stages: Vec<Option<StageProbe>>) -> Probe {
        let view = |stages: &[Option<StageProbe>]| -> Vec<Option<StageView>> {
            stages.iter().map(|stage| stage.as_ref().map(StageProbe::view)).collect()
        };
        let target = self.plan.target.0;
        let mut views = view(&stages);
        let mut decision = decide(&views, target);
        if decision.is_held_up(&views) {
            self.look_further(&mut stages);
            views = view(&stages);
            decision = decide(&views, target);
        }
        for (stage, picks) in stages.iter_mut().zip(&decision.picks) {
            let Some(stage) = stage else { continue };
            for (step, pick) in stage.steps.values_mut().zip(picks) {
                step.pick = Some(*pick);
            }
        }
        let needed = decision.needed.into_iter().map(StageId).collect();
        Probe { stages, needed: Some(needed) }
    }
}

impl StageProbe {
    fn view(&self) -> StageView {
        let steps = self.steps.values().map(|step| StepView {
            sources: step.key.sources.iter().map(|id| id.0).collect(),
            is_independent: step.key.is_independent,
            found: step.found.iter().map(FoundView::of).collect(),
        });
        StageView { base: self.base.clone(), steps: steps.collect(), is_known: self.is_known }
    }
}

fn joined(below: Key, above: Key) -> Key {
    let mut key = KeyBuilder::new("on top");
    key.key("below", below).key("above", above);
    key.finish().0
}

/// Returns the diff ids of a stage's layers, waiting for those in the making.
pub(super) fn diff_ids(layers: &[LayerSlot]) -> Result<Vec<DiffId>, Problem> {
    layers.iter().map(LayerSlot::diff_id).collect()
}
