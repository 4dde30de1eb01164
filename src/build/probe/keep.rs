//! Writing down what steps made, beside the build.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::hits::key_on;
use super::{Build, Probe, StepProbe, diff_ids, record_key};
use crate::blob::BlobSource;
use crate::build::error::Problem;
use crate::build::layers::{INTERNAL_COMPRESSION, LayerSlot};
use crate::build::stage::Stage;
use crate::cache::{Caches, Chain, Found, Inputs, Key, KeyBuilder, Made, Record, StepName};
use crate::dockerfile::Instruction;
use crate::event::Reporter;
use crate::plan::StageId;
use crate::stream::Compression;
use crate::threads;

/// A record that waits for its layer, and for those below it.
struct Pending {
    stage: StageId,
    instruction: usize,
    in_image: bool,
    /// The step's own key, if the stages it reads from are known.
    own: Option<(Key, Inputs)>,
    /// What to find the layer by on the tree it was made on.
    on_tree: Option<KeyBuilder>,
    step: StepName,
    text: String,
    parent: TreeName,
    sources: Vec<(String, TreeName)>,
    layer: LayerSlot,
    compression: Compression,
    created_seconds: i64,
    made: Made,
}

/// A tree that a record names.
enum TreeName {
    /// As the record of a hit has it.
    Known(Chain),
    /// By its layers, some of which may be in the making.
    Layers(Vec<LayerSlot>),
}

impl TreeName {
    fn chain(&self) -> Result<Chain, Problem> {
        match self {
            Self::Known(chain) => Ok(chain.clone()),
            Self::Layers(layers) => Ok(Chain::of(&diff_ids(layers)?)),
        }
    }
}

/// What the thread of a [`Keeper`] works with.
struct Desk {
    caches: Arc<Caches>,
    blobs: Arc<dyn BlobSource>,
    reporter: Reporter,
}

impl Desk {
    /// Waits for everything the record says.
    fn write(&self, pending: Pending, probe: &Probe, epoch: &str) -> Result<(), Problem> {
        let layer = pending.layer.wait()?;
        let parent = pending.parent.chain()?;
        let mut sources = Vec::new();
        for (name, tree) in &pending.sources {
            sources.push((name.clone(), tree.chain()?));
        }
        let step = probe.step(pending.stage, pending.instruction);
        if !step.is_some_and(|step| step.key.stamps.hold()) {
            let text = format!("{} is not kept in a cache: its files changed during the build", pending.step);
            self.reporter.warning(text);
            return Ok(());
        }
        let record = |(key, inputs): (Key, Inputs), step, sources| {
            let (key, form) = record_key(key, epoch);
            Record {
                key,
                step,
                instruction: pending.text.clone(),
                parent: parent.clone(),
                sources,
                layer: layer.clone(),
                compression: pending.compression,
                created_seconds: pending.created_seconds,
                inputs: Inputs([inputs.0, form.0].concat()),
            }
        };
        let put = |record| self.caches.put_later(record, self.blobs.clone(), pending.in_image, &pending.made);
        if let Some(own) = pending.on_tree.clone() {
            // A name of its own: what is explained is the step by what went into it.
            let stage = format!("{} by its tree", pending.step.stage);
            let step = StepName { stage, ..pending.step.clone() };
            put(record(key_on(own, &parent), step, Vec::new()));
        }
        if let Some(own) = pending.own.clone() {
            put(record(own, pending.step.clone(), sources));
        }
        Ok(())
    }
}

/// A record, what its build knew before it began, and what of its source epoch is in keys.
type Job = (Pending, Arc<Probe>, String);

/// Keeps the records of a build, one after the other, on a thread of its own.
pub(in crate::build) struct Keeper(Mutex<Option<Keeping>>);

struct Keeping {
    write: Arc<dyn Fn(Job) + Send + Sync>,
    /// `None` where no thread could be had: the caller writes.
    thread: Option<(Sender<Job>, JoinHandle<()>)>,
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
        let (queue, pending) = channel::<Job>();
        let desk = Desk { caches: caches.clone(), blobs, reporter: reporter.clone() };
        let write: Arc<dyn Fn(Job) + Send + Sync> = Arc::new(move |(pending, probe, epoch)| {
            // A layer that could not be written fails the build itself.
            let _ = desk.write(pending, &probe, &epoch);
        });
        let work = write.clone();
        let thread = threads::spawn("records", move || pending.into_iter().for_each(|pending| work(pending)));
        Self(Mutex::new(Some(Keeping { write, thread: thread.ok().map(|thread| (queue, thread)) })))
    }

    fn put(&self, job: Job) {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // The thread lives until `finish`, but for a panic, which is known.
            Some(Keeping { thread: Some((queue, _)), .. }) => drop(queue.send(job)),
            Some(Keeping { write, thread: None }) => write(job),
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
    /// Keeps what the current instruction made, or what a cache had of it: the topmost layer of its stage.
    pub(in crate::build) fn keep(&self, stage: &mut Stage, instruction: &Instruction) -> Result<(), Problem> {
        let (content, hit) = (stage.content_key.take(), stage.hit.take());
        if !self.services.caches.writes() || !stage.has_all_layers {
            return Ok(());
        }
        let Some(step) = self.probe.step(stage.id, stage.instruction) else { return Ok(()) };
        let Some((layer, below)) = stage.layers.split_last() else { return Ok(()) };
        // A hit by the step's own key says itself what it was made from: no stage is worked on for that.
        let own_hit = hit.as_ref().filter(|hit| hit.key == self.record_key(step.key.key));
        let is_anew = hit.as_ref().is_some_and(|hit| self.is_compressed_anew(stage, hit));
        if own_hit.is_some() && !is_anew && !self.services.caches.writes_hits() {
            return Ok(());
        }
        let by_key = own_hit.is_some();
        let (sources, sources_are_known) = match own_hit {
            Some(hit) => (known_sources(hit), true),
            None => self.made_sources(step)?,
        };
        // Behind a copy from a stage, and for that copy itself by what is copied.
        let on_tree = match content {
            Some(content) => Some(content),
            None => (stage.copies_from_stage && step.key.sources.is_empty()).then(|| step.key.own.clone()),
        };
        let compression = match &hit {
            Some(hit) if !is_anew => hit.compression,
            _ if stage.is_exported => self.request.compression,
            _ => INTERNAL_COMPRESSION,
        };
        let pending = Pending {
            stage: stage.id,
            instruction: stage.instruction,
            in_image: stage.is_exported,
            own: sources_are_known.then(|| (step.key.key, step.key.inputs.clone())),
            on_tree,
            step: self.step_name(stage.id, stage.step.number),
            text: instruction.original.clone(),
            parent: TreeName::Layers(below.to_vec()),
            sources,
            layer: layer.clone(),
            compression,
            created_seconds: hit.as_ref().map_or(self.services.now.seconds, |hit| hit.created_seconds),
            made: hit.map_or(Made::Now, |hit| Made::Before { from: hit.from, is_anew, by_key }),
        };
        self.put(pending);
        Ok(())
    }

    fn put(&self, pending: Pending) {
        self.keeper.put((pending, self.probe.clone(), self.epoch_key.clone()));
    }

    /// Returns the trees that a step which did run has read from, and whether all of them have a name.
    fn made_sources(&self, step: &StepProbe) -> Result<(Vec<(String, TreeName)>, bool), Problem> {
        let mut sources = Vec::new();
        let mut are_known = true;
        for id in &step.key.sources {
            let source = self.stage(*id)?;
            are_known &= source.has_all_layers;
            let layers = TreeName::Layers(source.layers.clone());
            sources.push((self.plan.stages[id.0].display.clone(), layers));
        }
        Ok((sources, are_known))
    }

    /// Keeps what caches have of the stages that nobody had to work on, for the next build that has to.
    pub(in crate::build) fn keep_untouched(&self) {
        if !self.services.caches.writes_internal() || !self.services.caches.writes_hits() {
            return;
        }
        for (index, stage) in self.probe.stages.iter().enumerate() {
            let id = StageId(index);
            let Some(stage) = stage.as_ref().filter(|_| self.schedule.is_untouched(id)) else { continue };
            for (instruction, step) in &stage.steps {
                let Some(hit) = step.pick.map(|pick| &step.found[pick]) else { break };
                self.register(hit);
                self.put(Pending {
                    stage: id,
                    instruction: *instruction,
                    in_image: false,
                    own: Some((step.key.key, step.key.inputs.clone())),
                    on_tree: None,
                    step: self.step_name(id, step.number),
                    text: step.text.clone(),
                    parent: TreeName::Known(hit.parent.clone()),
                    sources: known_sources(hit),
                    layer: LayerSlot::finished(hit.layer.clone()),
                    compression: hit.compression,
                    created_seconds: hit.created_seconds,
                    made: Made::Before { from: hit.from.clone(), is_anew: false, by_key: true },
                });
            }
        }
    }

    /// Names a step across builds.
    pub(super) fn step_name(&self, stage: StageId, number: usize) -> StepName {
        let project = match self.request.names.first() {
            Some(name) => format!("{}/{}", name.registry(), name.repository()),
            None => self.dockerfile.name.clone(),
        };
        let name = self.plan.stages[stage.0].name.clone();
        StepName { project, stage: name.unwrap_or_else(|| stage.0.to_string()), number }
    }
}

fn known_sources(hit: &Found) -> Vec<(String, TreeName)> {
    hit.sources.iter().map(|(name, chain)| (name.clone(), TreeName::Known(chain.clone()))).collect()
}
