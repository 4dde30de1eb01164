//! Writing down what steps made, beside the build.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::hits::key_on;
use super::{Build, Form, Probe, diff_ids};
use crate::blob::BlobSource;
use crate::build::error::Problem;
use crate::build::layers::LayerSlot;
use crate::build::stage::Stage;
use crate::cache::{Caches, Chain, Inputs, Key, KeyBuilder, Record, StepName};
use crate::dockerfile::Instruction;
use crate::event::Reporter;
use crate::plan::StageId;
use crate::threads;

/// A record that waits for its layer, and for those below it.
struct Pending {
    probe: Arc<Probe>,
    stage: StageId,
    instruction: usize,
    in_image: bool,
    /// The step's own key, if the stages it reads from are known.
    own: Option<(Key, Inputs)>,
    /// What to find the layer by on the tree it was made on.
    on_tree: Option<KeyBuilder>,
    form: Form,
    step: StepName,
    text: String,
    below: Vec<LayerSlot>,
    sources: Vec<(String, Vec<LayerSlot>)>,
    layer: LayerSlot,
    created_seconds: i64,
}

impl Pending {
    /// Waits for everything the record says.
    fn write(self, caches: &Caches, blobs: &Arc<dyn BlobSource>, reporter: &Reporter) -> Result<(), Problem> {
        let layer = self.layer.wait()?;
        let parent = Chain::of(&diff_ids(&self.below)?);
        let mut sources = Vec::new();
        for (name, layers) in &self.sources {
            sources.push((name.clone(), Chain::of(&diff_ids(layers)?)));
        }
        let step = self.probe.step(self.stage, self.instruction);
        if !step.is_some_and(|step| step.key.stamps.hold()) {
            let text = format!("{} is not kept in a cache: its files changed during the build", self.step);
            reporter.warning(text);
            return Ok(());
        }
        let record = |(key, inputs): (Key, Inputs), step, sources| {
            let (key, form) = self.form.key(key);
            let inputs = Inputs([inputs.0, form.0].concat());
            Record {
                key,
                step,
                instruction: self.text.clone(),
                parent: parent.clone(),
                sources,
                layer: layer.clone(),
                created_seconds: self.created_seconds,
                inputs,
            }
        };
        if let Some(own) = self.on_tree.clone() {
            // A name of its own: what is explained is the step by what went into it.
            let step = StepName { stage: format!("{} by its tree", self.step.stage), ..self.step.clone() };
            let record = record(key_on(own, &parent), step, Vec::new());
            caches.put_later(record, blobs.clone(), self.in_image);
        }
        if let Some(own) = self.own.clone() {
            caches.put_later(record(own, self.step.clone(), sources), blobs.clone(), self.in_image);
        }
        Ok(())
    }
}

/// Keeps the records of a build, one after the other, on a thread of its own.
pub(in crate::build) struct Keeper(Mutex<Option<Keeping>>);

struct Keeping {
    write: Arc<dyn Fn(Pending) + Send + Sync>,
    /// `None` where no thread could be had: the caller writes.
    thread: Option<(Sender<Pending>, JoinHandle<()>)>,
}

impl Keeper {
    /// Starts the thread, where there is a cache to write to.
    pub(in crate::build) fn start(
        caches: &Arc<Caches>,
        blobs: Arc<dyn BlobSource>,
        reporter: &Reporter,
    ) -> Self {
        if !caches.writes() {
            return Self(Mutex::new(None));
        }
        let (queue, pending) = channel::<Pending>();
        let (caches, reporter) = (caches.clone(), reporter.clone());
        let write: Arc<dyn Fn(Pending) + Send + Sync> = Arc::new(move |pending: Pending| {
            // A layer that could not be written fails the build itself.
            let _ = pending.write(&caches, &blobs, &reporter);
        });
        let work = write.clone();
        let thread = threads::spawn("records", move || pending.into_iter().for_each(|pending| work(pending)));
        Self(Mutex::new(Some(Keeping { write, thread: thread.ok().map(|thread| (queue, thread)) })))
    }

    fn put(&self, pending: Pending) {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // The thread lives until `finish`, but for a panic, which is known.
            Some(Keeping { thread: Some((queue, _)), .. }) => drop(queue.send(pending)),
            Some(Keeping { write, thread: None }) => write(pending),
            None => {}
        }
    }

    /// Waits until everything is handed to the caches. All layers must have been waited for.
    pub(in crate::build) fn finish(&self) {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Keeping { thread: Some((queue, thread)), .. }) = running {
            drop(queue);
            threads::joined(thread.join());
        }
    }
}

impl Build<'_> {
    /// Keeps what the current instruction made: the topmost layer of its stage.
    pub(in crate::build) fn keep(&self, stage: &mut Stage, instruction: &Instruction) -> Result<(), Problem> {
        let content = stage.content_key.take();
        if !self.services.caches.writes() || !stage.has_all_layers {
            return Ok(());
        }
        let Some(step) = self.probe.step(stage.id, stage.instruction) else { return Ok(()) };
        let Some((layer, below)) = stage.layers.split_last() else { return Ok(()) };
        let mut sources = Vec::new();
        let mut sources_are_known = true;
        for id in &step.key.sources {
            let source = self.stage(*id)?;
            sources_are_known &= source.has_all_layers;
            sources.push((self.plan.stages[id.0].display.clone(), source.layers.clone()));
        }
        // Behind a copy from a stage, and for that copy itself by what is copied.
        let on_tree = match content {
            Some(content) => Some(content),
            None => (stage.copies_from_stage && sources.is_empty()).then(|| step.key.own.clone()),
        };
        let own = sources_are_known.then(|| (step.key.key, step.key.inputs.clone()));
        self.keeper.put(Pending {
            probe: self.probe.clone(),
            stage: stage.id,
            instruction: stage.instruction,
            in_image: stage.is_exported,
            own,
            on_tree,
            form: self.form(stage.is_exported),
            step: self.step_name(stage),
            text: instruction.original.clone(),
            below: below.to_vec(),
            sources,
            layer: layer.clone(),
            created_seconds: self.services.now.seconds,
        });
        Ok(())
    }

    /// Names the current step across builds.
    pub(super) fn step_name(&self, stage: &Stage) -> StepName {
        let project = match self.request.names.first() {
            Some(name) => format!("{}/{}", name.registry(), name.repository()),
            None => self.dockerfile.name.clone(),
        };
        let name = &self.plan.stages[stage.id.0];
        StepName {
            project,
            stage: name.name.clone().unwrap_or_else(|| stage.id.0.to_string()),
            number: stage.step.number,
        }
    }
}
