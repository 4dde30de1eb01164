//! A stage: a fold over its instructions.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use super::base::{BaseImage, check_cancelled};
use super::error::{BuildError, Problem};
use super::layers::LayerSlot;
use super::scope::Scope;
use super::tree::{Origin, SharedTree, StageLayers, Tree};
use super::{Build, NamedContext, metadata};
use crate::cache::{Found, Key, KeyBuilder};
use crate::dockerfile::{Copy, Instruction, InstructionKind, Span, parse_trigger};
use crate::event::{Event, StepId, StepOutcome};
use crate::layer::ChangeSet;
use crate::oci::{History, ImageConfig, Platform};
use crate::plan::{Base, FromRef, StageId};

/// `PATH` of an image that sets none (BuildKit `util/system`).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A stage at one point of its instructions.
pub(super) struct Stage {
    pub(super) id: StageId,
    pub(super) platform: Platform,
    pub(super) config: ImageConfig,
    /// How many entries of the history came with the base.
    pub(super) base_history: usize,
    pub(super) scope: Scope,
    pub(super) layers: StageLayers,
    pub(super) tree: Tree,
    pub(super) base: Option<Arc<BaseImage>>,
    /// Whether a `CMD` was given in this stage: then `ENTRYPOINT` keeps it.
    pub(super) cmd_is_set: bool,
    pub(super) escape: char,
    /// Whether its layers are the image's: those of a stage that is only copied from are never written.
    pub(super) is_exported: bool,
    /// The step under way.
    pub(super) step: StepId,
    /// The index of the instruction under way, the base's triggers counted first.
    pub(super) instruction: usize,
    /// What went into it up to here, while it is folded for caches.
    pub(super) key: Option<Key>,
    /// Whether every change since the base is in `layers`.
    pub(super) has_all_layers: bool,
    /// The key that the step under way has by the content it copies.
    pub(super) content_key: Option<KeyBuilder>,
    /// Whether a layer below was copied from a stage.
    pub(super) copies_from_stage: bool,
    /// Whether a step since the base did run: its layer may still be in the making.
    pub(super) has_run: bool,
    /// When the layer was made that the step under way took from a cache, in seconds since 1970.
    pub(super) cached_seconds: Option<i64>,
    /// The record that the step under way was taken from.
    pub(super) hit: Option<Found>,
    /// Why no cache had the step under way.
    pub(super) reasons: Vec<String>,
    /// The last step of this stage that did run.
    pub(super) last_run: Option<StepId>,
    /// What the step under way did not see of the stage: its result is no cache's.
    pub(super) hidden: Vec<PathBuf>,
}

/// A finished stage.
pub(super) struct StageResult {
    pub(super) platform: Platform,
    pub(super) config: ImageConfig,
    pub(super) base_history: usize,
    pub(super) scope: Scope,
    pub(super) layers: StageLayers,
    pub(super) tree: SharedTree,
    pub(super) base: Option<Arc<BaseImage>>,
    /// Whether every change since the base is in `layers`.
    pub(super) has_all_layers: bool,
    pub(super) copies_from_stage: bool,
    pub(super) has_run: bool,
}

impl StageResult {
    pub(super) fn lock_tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().expect("no panic while a tree is used")
    }
}

impl Build<'_> {
    /// Runs one stage from its base to its last instruction.
    pub(super) fn run_stage(&self, id: StageId) -> Result<StageResult, BuildError> {
        let planned = &self.plan.stages[id.0];
        let begun = std::time::Instant::now();
        let mut stage =
            self.begin_stage(id).map_err(|problem| problem.at(&self.dockerfile, planned.from_span))?;
        self.confirm_outputs().map_err(|problem| BuildError { problem, place: None })?;
        self.warn_of_platform(&stage);
        let triggers = std::mem::take(&mut stage.config.config.on_build);
        let triggers = self
            .read_triggers(&triggers, planned.from_span)
            .map_err(|problem| problem.at(&self.dockerfile, planned.from_span))?;
        stage.step.total = 1 + triggers.iter().chain(&planned.steps).filter(|i| makes_layer(&i.kind)).count();
        self.announce_base(&stage, begun);
        for (index, instruction) in triggers.iter().chain(&planned.steps).enumerate() {
            check_cancelled(&self.services.cancel)?;
            stage.instruction = index;
            let result = self.run_instruction(&mut stage, instruction);
            result.map_err(|problem| problem.at(&self.dockerfile, instruction.span))?;
        }
        Ok(StageResult {
            platform: stage.platform,
            config: stage.config,
            base_history: stage.base_history,
            scope: stage.scope,
            layers: stage.layers,
            tree: Mutex::new(stage.tree),
            base: stage.base,
            has_all_layers: stage.has_all_layers,
            copies_from_stage: stage.copies_from_stage,
            has_run: stage.has_run,
        })
    }

    /// Waits until every destination is known to take the image: no step runs for one that does not.
    fn confirm_outputs(&self) -> Result<(), Problem> {
        Ok(self.services.outputs.iter().try_for_each(|output| output.confirm())?)
    }

    /// Reads the base's `ONBUILD` triggers as instructions that stand where the `FROM` stands.
    pub(super) fn read_triggers(&self, triggers: &[String], span: Span) -> Result<Vec<Instruction>, Problem> {
        triggers
            .iter()
            .map(|text| {
                let mut instruction = parse_trigger(text)?;
                instruction.span = span;
                Ok(instruction)
            })
            .collect()
    }

    fn announce_base(&self, stage: &Stage, begun: std::time::Instant) {
        let planned = &self.plan.stages[stage.id.0];
        let text = match &planned.base {
            Base::Scratch => "scratch".to_owned(),
            Base::Stage(id) => self.plan.stages[id.0].display.clone(),
            Base::Image { text } => match &stage.base {
                Some(base) => format!("{text}@{}", base.digest),
                None => text.clone(),
            },
            Base::Context { name, .. } => format!("context {name}"),
        };
        let step = StepId { number: 1, ..stage.step.clone() };
        let reporter = &self.services.reporter;
        reporter.report(Event::StepStarted { step: step.clone(), instruction: format!("FROM {text}") });
        let elapsed = begun.elapsed();
        reporter.report(Event::StepFinished { step, outcome: StepOutcome::Done, elapsed });
    }

    pub(super) fn begin_stage(&self, id: StageId) -> Result<Stage, Problem> {
        let planned = &self.plan.stages[id.0];
        match &planned.base {
            Base::Scratch => Ok(self.scratch_stage(id)),
            Base::Stage(parent) => {
                let parent = self.stage(*parent)?;
                Ok(Stage {
                    platform: parent.platform.clone(),
                    config: parent.config.clone(),
                    base_history: parent.base_history,
                    scope: parent.scope.clone(),
                    layers: parent.layers.clone(),
                    base: parent.base.clone(),
                    has_all_layers: parent.has_all_layers,
                    copies_from_stage: parent.copies_from_stage,
                    has_run: parent.has_run,
                    ..self.new_stage(id, Origin::Stage(parent.clone()))
                })
            }
            Base::Image { text } => {
                let image = self.image(text, &planned.platform)?;
                Ok(self.image_stage(id, image))
            }
            Base::Context { name, .. } => match self.context_image(name, &planned.platform)? {
                Some(image) => Ok(self.image_stage(id, image)),
                None if self.is_scratch_context(name) => Ok(self.scratch_stage(id)),
                None => self.files_stage(id, name),
            },
        }
    }

    /// Returns a stage on top of one that was only folded, without its files.
    pub(super) fn stage_on(&self, id: StageId, parent: &Stage) -> Stage {
        Stage {
            platform: parent.platform.clone(),
            config: parent.config.clone(),
            base_history: parent.base_history,
            scope: parent.scope.clone(),
            base: parent.base.clone(),
            ..self.new_stage(id, Origin::Scratch)
        }
    }

    /// Returns the named context whose files a stage starts from, if it does.
    pub(super) fn files_base(&self, id: StageId) -> Option<&str> {
        match &self.plan.stages[id.0].base {
            Base::Context { name, .. } if !self.is_scratch_context(name) => {
                match self.request.named_contexts.get(name)? {
                    NamedContext::Files(_) => Some(name),
                    NamedContext::Image(_) | NamedContext::Layout(_) => None,
                }
            }
            _ => None,
        }
    }

    /// Tells whether the target is the stage or starts from it.
    pub(super) fn is_exported(&self, id: StageId) -> bool {
        let mut at = self.plan.target;
        loop {
            if at == id {
                return true;
            }
            match &self.plan.stages[at.0].base {
                Base::Stage(below) => at = *below,
                Base::Scratch | Base::Image { .. } | Base::Context { .. } => return false,
            }
        }
    }

    fn new_stage(&self, id: StageId, origin: Origin) -> Stage {
        let planned = &self.plan.stages[id.0];
        Stage {
            id,
            platform: planned.platform.clone(),
            config: ImageConfig::default(),
            base_history: 0,
            scope: Scope::default(),
            layers: Vec::new(),
            tree: Tree::new(origin, self.services, self.blobs.clone()),
            base: None,
            cmd_is_set: false,
            escape: self.plan.escape,
            is_exported: self.is_exported(id),
            step: StepId { stage: planned.display.clone(), number: 1, total: 1 },
            instruction: 0,
            key: None,
            has_all_layers: true,
            content_key: None,
            copies_from_stage: false,
            has_run: false,
            cached_seconds: None,
            hit: None,
            reasons: Vec::new(),
            last_run: None,
            hidden: Vec::new(),
        }
    }

    pub(super) fn scratch_stage(&self, id: StageId) -> Stage {
        let mut stage = self.new_stage(id, Origin::Scratch);
        stage.config.os = stage.platform.os.clone();
        stage.config.architecture = stage.platform.architecture.clone();
        stage.config.variant = stage.platform.variant.clone();
        stage.config.os_version = stage.platform.os_version.clone();
        stage.config.config.working_dir = "/".to_owned();
        stage.add_path();
        stage
    }

    fn image_stage(&self, id: StageId, image: Arc<BaseImage>) -> Stage {
        let mut stage = self.new_stage(id, Origin::Layers(image.layers.clone()));
        stage.config = image.config.clone();
        stage.config.created = None;
        stage.config.extra.clear();
        stage.config.config.extra.clear();
        stage.config.config.args_escaped = false;
        let directory = stage.config.config.working_dir.clone();
        if !directory.is_empty() {
            stage.config.config.working_dir = metadata::working_directory("/", &directory);
        }
        complete_history(&mut stage.config, image.layers.len());
        stage.base_history = stage.config.history.len();
        stage.layers = image.layers.iter().cloned().map(LayerSlot::finished).collect();
        stage.add_path();
        stage.base = Some(image);
        stage
    }

    fn warn_of_platform(&self, stage: &Stage) {
        let starts_from_image =
            matches!(self.plan.stages[stage.id.0].base, Base::Image { .. } | Base::Context { .. });
        if let Some(image) = stage.base.as_ref().filter(|_| starts_from_image)
            && image.config.platform().normalised() != stage.platform
        {
            let text = format!(
                "Base image {} was pulled with platform \"{}\", expected \"{}\" for current build",
                image.text,
                image.config.platform().normalised(),
                stage.platform
            );
            self.services.reporter.warning(text);
        }
    }

    fn is_scratch_context(&self, name: &str) -> bool {
        matches!(self.request.named_contexts.get(name), Some(NamedContext::Image(text)) if text == "scratch")
    }

    /// Starts from the files of a named context: they become the stage's first layer.
    fn files_stage(&self, id: StageId, name: &str) -> Result<Stage, Problem> {
        let mut stage = self.scratch_stage(id);
        self.copy_context(&mut stage, name)?;
        Ok(stage)
    }

    fn run_instruction(&self, stage: &mut Stage, instruction: &Instruction) -> Result<(), Problem> {
        if !makes_layer(&instruction.kind) {
            return self.run_metadata(stage, instruction);
        }
        stage.step.number += 1;
        let step = stage.step.clone();
        let reporter = &self.services.reporter;
        reporter.report(Event::StepStarted { step: step.clone(), instruction: instruction.heading() });
        let begun = std::time::Instant::now();
        let below = stage.layers.len();
        let result = self.make_layer(stage, instruction);
        for slot in stage.layers.iter_mut().skip(below) {
            slot.span = Some(instruction.span);
        }
        let outcome = result.as_ref().map_or(StepOutcome::Failed, StepOutcome::clone);
        self.note(stage, instruction, &outcome, begun.elapsed());
        reporter.report(Event::StepFinished { step, outcome, elapsed: begun.elapsed() });
        result.map(drop)
    }

    /// Tells whether an instruction copies from another stage, which may come out otherwise though nothing here changed.
    fn copies_from_stage(&self, id: StageId, instruction: &Instruction) -> Result<bool, Problem> {
        let InstructionKind::Copy(Copy { from: Some(from), .. }) = &instruction.kind else {
            return Ok(false);
        };
        Ok(matches!(self.plan.resolve_from(from, id)?, FromRef::Stage(_)))
    }

    /// Takes the step's layer from a cache, or runs the step.
    fn make_layer(&self, stage: &mut Stage, instruction: &Instruction) -> Result<StepOutcome, Problem> {
        let cached = self.cached(stage, instruction)?;
        let is_copy_from_stage = self.copies_from_stage(stage.id, instruction)?;
        stage.copies_from_stage |= is_copy_from_stage && cached.is_some();
        if let Some(outcome) = cached {
            self.keep(stage, instruction)?;
            return Ok(outcome);
        }
        // What a stage gives may be the same though the stage is not: that is known when the copy was tried.
        if !is_copy_from_stage {
            self.explain_miss(stage, instruction);
        }
        let layers = stage.layers.len();
        stage.hidden.clear();
        let done = |()| StepOutcome::Done;
        let outcome = match &instruction.kind {
            InstructionKind::Run(run) => self.run_step(stage, run).map(done),
            InstructionKind::Copy(copy) => self.copy_step(stage, copy),
            InstructionKind::Add(add) => self.add_step(stage, add).map(done),
            InstructionKind::Workdir(path) => self.workdir_step(stage, path).map(done),
            _ => unreachable!("every other instruction is metadata"),
        }?;
        if is_copy_from_stage && outcome == StepOutcome::Done {
            self.explain_miss(stage, instruction);
        }
        stage.copies_from_stage |= is_copy_from_stage;
        if outcome == StepOutcome::Done {
            stage.has_run = true;
            stage.last_run = Some(stage.step.clone());
        }
        if stage.layers.len() > layers && stage.hidden.is_empty() {
            self.keep(stage, instruction)?;
        }
        Ok(outcome)
    }

    /// Writes what a step changed as the stage's next layer, where anybody wants it.
    pub(super) fn push_layer(&self, stage: &mut Stage, changes: ChangeSet) -> Option<LayerSlot> {
        let layer = if stage.is_exported {
            self.works.start(stage.step.clone(), changes)
        } else if self.services.caches.writes_internal() {
            self.works.start_internal(stage.step.clone(), changes)
        } else {
            stage.has_all_layers = false;
            return None;
        };
        stage.layers.push(layer.clone());
        Some(layer)
    }
}

impl Stage {
    fn add_path(&mut self) {
        let env = &mut self.config.config.env;
        if self.platform.os != "windows" && !env.iter().any(|entry| entry.starts_with("PATH=")) {
            env.push(format!("PATH={DEFAULT_PATH}"));
        }
        self.scope = Scope::from_environment(env);
    }

    /// Adds a line to the history; times are filled in when the image is sealed.
    pub(super) fn record(&mut self, created_by: String, makes_layer: bool) {
        let created = self.cached_seconds.take().map(super::finish::rfc3339);
        self.config.history.push(History {
            created,
            created_by: Some(created_by),
            author: None,
            comment: Some("buildkit.dockerfile.v0".to_owned()),
            empty_layer: !makes_layer,
        });
    }

    /// Returns the directory that relative paths count from.
    pub(super) fn working_dir(&self) -> &str {
        match self.config.config.working_dir.as_str() {
            "" => "/",
            path => path,
        }
    }
}

/// Tells whether an instruction makes a layer and so counts as a step; the others only change the config.
pub(super) fn makes_layer(kind: &InstructionKind) -> bool {
    matches!(
        kind,
        InstructionKind::Run(_)
            | InstructionKind::Copy(_)
            | InstructionKind::Add(_)
            | InstructionKind::Workdir(_)
    )
}

/// Makes an image's history have one entry for each layer: some builders write none.
fn complete_history(config: &mut ImageConfig, layers: usize) {
    let mut have = config.history.iter().filter(|entry| !entry.empty_layer).count();
    for entry in config.history.iter_mut() {
        if have > layers && !entry.empty_layer {
            entry.empty_layer = true;
            have -= 1;
        }
    }
    let created = config.history.last().and_then(|entry| entry.created.clone());
    for _ in have..layers {
        config.history.push(History {
            created: created.clone(),
            comment: Some("kiln: layer of the base image".to_owned()),
            ..History::default()
        });
    }
}
