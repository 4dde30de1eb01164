//! Writing down what steps made, beside the build.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Build, Probe, diff_ids};
use crate::blob::BlobSource;
use crate::build::error::Problem;
use crate::build::layers::LayerSlot;
use crate::build::stage::Stage;
use crate::cache::{Caches, Chain, Inputs, Key, Record, StepName};
use crate::dockerfile::Instruction;
use crate::event::Reporter;
use crate::plan::StageId;

/// A record that waits for its layer, and for those below it.
struct Pending {
    probe: Arc<Probe>,
    stage: StageId,
    instruction: usize,
    in_image: bool,
    keys: Vec<Named>,
    step: StepName,
    text: String,
    below: Vec<LayerSlot>,
    sources: Vec<(String, Vec<LayerSlot>)>,
    layer: LayerSlot,
    created_seconds: i64,
    took: Duration,
}

/// One key a layer is to be found by.
struct Named {
    key: Key,
    inputs: Inputs,
    /// Whether the trees of the step's sources are part of what has to fit.
    has_sources: bool,
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
        for Named { key, inputs, has_sources } in self.keys {
            let record = Record {
                key,
                step: self.step.clone(),
                instruction: self.text.clone(),
                parent: parent.clone(),
                sources: if has_sources { sources.clone() } else { Vec::new() },
                layer: layer.clone(),
                created_seconds: self.created_seconds,
                seconds: self.took.as_secs_f64(),
                inputs,
            };
            caches.put_later(record, blobs.clone(), self.in_image);
        }
        Ok(())
    }
}

/// Keeps the records of a build, one after the other, on a thread of its own.
pub(in crate::build) struct Keeper(Mutex<Option<(Sender<Pending>, JoinHandle<()>)>>);

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
        let thread = std::thread::spawn(move || {
            for pending in pending {
                // A layer that could not be written fails the build itself.
                let _ = pending.write(&caches, &blobs, &reporter);
            }
        });
        Self(Mutex::new(Some((queue, thread))))
    }

    fn put(&self, pending: Pending) {
        if let Some((queue, _)) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // The thread lives until `finish`.
            let _ = queue.send(pending);
        }
    }

    /// Waits until everything is handed to the caches. All layers must have been waited for.
    pub(in crate::build) fn finish(&self) {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((queue, thread)) = running {
            drop(queue);
            let _ = thread.join();
        }
    }
}

impl Build<'_> {
    /// Keeps what the current instruction made: the topmost layer of its stage.
    pub(in crate::build) fn keep(
        &self,
        stage: &mut Stage,
        instruction: &Instruction,
        took: Duration,
    ) -> Result<(), Problem> {
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
        let in_image = stage.is_exported;
        let named = |key: Key, inputs: Inputs, has_sources| {
            let (key, how) = self.record_key(key, in_image);
            let mut inputs = inputs;
            inputs.0.extend(how.0.into_iter().filter(|input| input.name != "step"));
            Named { key, inputs, has_sources }
        };
        let mut keys: Vec<Named> =
            content.into_iter().map(|(key, inputs)| named(key, inputs, false)).collect();
        if sources_are_known {
            keys.push(named(step.key.key, step.key.inputs.clone(), true));
        }
        self.keeper.put(Pending {
            probe: self.probe.clone(),
            stage: stage.id,
            instruction: stage.instruction,
            in_image,
            keys,
            step: self.step_name(stage),
            text: instruction.original.clone(),
            below: below.to_vec(),
            sources,
            layer: layer.clone(),
            created_seconds: self.services.now.seconds,
            took,
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
