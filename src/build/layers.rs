//! Layers in the making: compressed beside the build, awaited at its end.

use std::sync::{Arc, Condvar, Mutex};

use super::error::Problem;
use crate::blob::{BlobSource, Store};
use crate::dockerfile::Span;
use crate::event::{Event, Reporter, StepId};
use crate::layer::{
    ChangeSet, LayerError, LayerOptions, Watch, is_newer, recompress_layer, rewrite_layer, write_layer,
};
use crate::oci::{DiffId, Layer, ManifestFormat};
use crate::output::Output;
use crate::stream::{Compression, auto_decoder};
use crate::threads::Beside;

/// A layer that is finished or will be.
#[derive(Debug, Clone)]
pub(super) struct LayerSlot {
    slot: Arc<Slot>,
    /// The lines that made it; a base's has none here.
    pub(super) span: Option<Span>,
}

#[derive(Debug)]
struct Slot {
    /// Known before the layer is finished where only its compression changes.
    diff_id: Option<DiffId>,
    result: Mutex<Option<Result<Layer, Arc<LayerError>>>>,
    finished: Condvar,
}

impl LayerSlot {
    /// Wraps a finished layer.
    pub(super) fn finished(layer: Layer) -> Self {
        Self::new(Some(layer.diff_id.clone()), Some(Ok(layer)))
    }

    fn pending(diff_id: Option<DiffId>) -> Self {
        Self::new(diff_id, None)
    }

    fn new(diff_id: Option<DiffId>, result: Option<Result<Layer, Arc<LayerError>>>) -> Self {
        let slot = Slot { diff_id, result: Mutex::new(result), finished: Condvar::new() };
        Self { slot: Arc::new(slot), span: None }
    }

    fn fill(&self, result: Result<Layer, Arc<LayerError>>) {
        *self.slot.result.lock().expect("no panic while a slot is filled") = Some(result);
        self.slot.finished.notify_all();
    }

    /// Returns the layer's diff id, waiting for the layer only where that is not known before.
    pub(super) fn diff_id(&self) -> Result<DiffId, Problem> {
        match &self.slot.diff_id {
            Some(diff_id) => Ok(diff_id.clone()),
            None => Ok(self.wait()?.diff_id),
        }
    }

    /// Waits until the layer is in the store.
    pub(super) fn wait(&self) -> Result<Layer, Problem> {
        let mut result = self.slot.result.lock().expect("no panic while a slot is filled");
        loop {
            match &*result {
                Some(Ok(layer)) => return Ok(layer.clone()),
                Some(Err(error)) => return Err(Problem::SharedLayer(error.clone())),
                None => result = self.slot.finished.wait(result).expect("no panic while a slot is filled"),
            }
        }
    }
}

/// What a layer is written from.
enum Origin {
    /// What a step changed.
    Changes(ChangeSet),
    /// A layer of a cache that is compressed otherwise.
    Cached(Box<Layer>, Arc<dyn BlobSource>),
}

impl Origin {
    fn write(self, options: &LayerOptions, store: &Store, watch: Watch<'_>) -> Result<Layer, LayerError> {
        let (layer, blobs) = match self {
            Self::Changes(changes) => return write_layer(changes, options, store, Some(watch)),
            Self::Cached(layer, blobs) => (layer, blobs),
        };
        let mut write = || {
            let reader = blobs.open(&layer.descriptor)?;
            let (_, tar) = auto_decoder(reader).map_err(|source| LayerError::Archive { source })?;
            recompress_layer(tar, &layer.diff_id, options, store, Some(watch))
        };
        write().map_err(|source| LayerError::OfCache { digest: layer.digest(), source: source.into() })
    }
}

/// How layers that no image has are compressed.
pub(super) const INTERNAL_COMPRESSION: Compression = Compression::Zstd { level: 1 };

/// Turns changes into layers, at most `capacity` at a time.
pub(super) struct LayerWorks {
    store: Arc<Store>,
    outputs: Vec<Arc<dyn Output>>,
    reporter: Reporter,
    options: LayerOptions,
    running: Arc<(Mutex<usize>, Condvar)>,
    capacity: usize,
}

impl LayerWorks {
    pub(super) fn new(
        store: Arc<Store>,
        outputs: Vec<Arc<dyn Output>>,
        reporter: Reporter,
        options: LayerOptions,
    ) -> Self {
        // Two layers keep the cores busy when one of them is short of input; more would only cost memory.
        Self { store, outputs, reporter, options, running: Arc::default(), capacity: 2 }
    }

    /// Writes a layer of the image beside the build.
    pub(super) fn start(&self, step: StepId, changes: ChangeSet) -> LayerSlot {
        self.begin(step, Origin::Changes(changes), self.options, self.outputs.clone())
    }

    /// Writes a layer of a stage that is only copied from, for caches: quickly, and for no output.
    pub(super) fn start_internal(&self, step: StepId, changes: ChangeSet) -> LayerSlot {
        let options =
            LayerOptions { compression: INTERNAL_COMPRESSION, format: ManifestFormat::Oci, ..self.options };
        self.begin(step, Origin::Changes(changes), options, Vec::new())
    }

    /// Writes a layer of a cache anew, beside the build, as the image has its layers.
    pub(super) fn start_cached(&self, step: StepId, layer: Layer, blobs: Arc<dyn BlobSource>) -> LayerSlot {
        self.begin(step, Origin::Cached(Box::new(layer), blobs), self.options, self.outputs.clone())
    }

    fn begin(
        &self,
        step: StepId,
        origin: Origin,
        options: LayerOptions,
        outputs: Vec<Arc<dyn Output>>,
    ) -> LayerSlot {
        let slot = LayerSlot::pending(match &origin {
            Origin::Changes(_) => None,
            Origin::Cached(layer, _) => Some(layer.diff_id.clone()),
        });
        let (running, changed) = &*self.running;
        {
            let mut count = running.lock().expect("no panic while counting");
            while *count >= self.capacity {
                count = changed.wait(count).expect("no panic while counting");
            }
            *count += 1;
        }
        let job = Job {
            store: self.store.clone(),
            outputs,
            reporter: self.reporter.clone(),
            options,
            permit: Permit(self.running.clone()),
            slot: Filler(slot.clone()),
        };
        // Nobody joins it: the slot says what became of it.
        Beside::start("layer", move || job.run(step, origin));
        slot
    }

    /// Writes a layer of the base anew with its times clamped to the epoch; one without a newer time stays.
    pub(super) fn rewrite(&self, layer: &Layer, blobs: &dyn BlobSource) -> Result<Layer, Problem> {
        let Some(epoch) = self.options.tar.epoch else { return Ok(layer.clone()) };
        let open = || -> Result<_, LayerError> {
            let reader = blobs.open(&layer.descriptor)?;
            let (_, tar) = auto_decoder(reader).map_err(|source| LayerError::Archive { source })?;
            Ok(tar)
        };
        if !is_newer(open()?, epoch)? {
            return Ok(layer.clone());
        }
        Ok(rewrite_layer(open()?, &self.options, &self.store)?)
    }

    /// Waits until no layer is being written: until nothing reads the stages' files any more.
    pub(super) fn finish(&self) {
        let (running, changed) = &*self.running;
        let count = running.lock().expect("no panic while counting");
        drop(changed.wait_while(count, |count| *count > 0).expect("no panic while counting"));
    }

    /// Writes a layer now: its changes cannot be read later.
    pub(super) fn write(&self, step: StepId, changes: ChangeSet) -> Result<LayerSlot, Problem> {
        let slot = self.start(step, changes);
        slot.wait()?;
        Ok(slot)
    }
}

struct Job {
    store: Arc<Store>,
    outputs: Vec<Arc<dyn Output>>,
    reporter: Reporter,
    options: LayerOptions,
    permit: Permit,
    slot: Filler,
}

impl Job {
    fn run(self, step: StepId, origin: Origin) {
        let mut watch = |growing| {
            for output in &self.outputs {
                output.layer_growing(&growing);
            }
        };
        let result = origin.write(&self.options, &self.store, &mut watch);
        drop(self.permit);
        if let Ok(layer) = &result {
            let size_bytes = layer.descriptor.size();
            self.reporter.report(Event::LayerFinished { step, size_bytes });
            for output in &self.outputs {
                output.layer_ready(layer);
            }
        }
        self.slot.0.fill(result.map_err(Arc::new));
    }
}

/// Gives a place back when its layer is done, also in a panic.
struct Permit(Arc<(Mutex<usize>, Condvar)>);

impl Drop for Permit {
    fn drop(&mut self) {
        let (running, changed) = &*self.0;
        if let Ok(mut count) = running.lock() {
            *count -= 1;
        }
        changed.notify_all();
    }
}

/// Fails a slot whose thread ends without a result, so that nobody waits for ever.
struct Filler(LayerSlot);

impl Drop for Filler {
    fn drop(&mut self) {
        let Ok(result) = self.0.slot.result.lock() else { return };
        if result.is_none() {
            drop(result);
            let error = std::io::Error::other("the thread that wrote the layer ended early");
            self.0.fill(Err(Arc::new(LayerError::Write { source: error })));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::layer::{Change, TarOptions};

    fn works(directory: &tempfile::TempDir) -> LayerWorks {
        let options = LayerOptions {
            compression: Compression::None,
            threads: NonZeroUsize::MIN,
            tar: TarOptions::default(),
            format: ManifestFormat::Oci,
        };
        LayerWorks::new(Store::open(directory.path()).unwrap(), Vec::new(), Reporter::silent(), options)
    }

    fn step() -> StepId {
        StepId { stage: "s".to_owned(), number: 1, total: 1 }
    }

    fn nothing() -> ChangeSet {
        Box::new(std::iter::empty())
    }

    #[test]
    fn a_slot_has_its_layer_once_that_is_written_for_everybody() {
        let directory = tempfile::tempdir().unwrap();
        let slot = works(&directory).start(step(), nothing());
        let layer = slot.wait().unwrap();
        assert_eq!(slot.clone().wait().unwrap().diff_id, layer.diff_id);
        assert_eq!(LayerSlot::finished(layer.clone()).wait().unwrap().diff_id, layer.diff_id);
    }

    #[test]
    fn a_failure_is_told_to_everybody_who_waits() {
        let directory = tempfile::tempdir().unwrap();
        let works = works(&directory);
        let failing = || -> ChangeSet {
            let source = std::io::Error::other("gone");
            Box::new(std::iter::once(Err(LayerError::Read { path: "x".into(), source })))
        };
        let slot = works.start(step(), failing());
        for _ in 0..2 {
            assert!(matches!(slot.wait(), Err(Problem::SharedLayer(_))));
        }
        assert!(works.write(step(), failing()).is_err());
    }

    #[test]
    fn panics_fail_their_layers_and_give_their_places_back() {
        let directory = tempfile::tempdir().unwrap();
        let works = works(&directory);
        let panicking = || -> ChangeSet {
            Box::new(std::iter::from_fn(|| -> Option<Result<Change, LayerError>> { panic!("on purpose") }))
        };
        let slots: Vec<LayerSlot> = (0..5).map(|_| works.start(step(), panicking())).collect();
        for slot in slots {
            match slot.wait() {
                Err(Problem::SharedLayer(error)) => {
                    assert!(
                        matches!(&*error, LayerError::Write { source } if source.to_string().contains("ended early"))
                    );
                }
                other => panic!("{other:?}"),
            }
        }
        works.start(step(), nothing()).wait().unwrap();
    }
}
