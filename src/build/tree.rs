//! A stage's files, made only when somebody needs them.
//!
//! A stage begins as a list of layers. Copies queue up as plans, and layers out of a cache as layers. The first
//! step that runs something, or the first reader from another stage, has the layers unpacked and the queue applied.

use std::sync::{Arc, Mutex};

use super::copy::{Below, Pending, apply};
use super::error::Problem;
use super::layers::LayerSlot;
use super::services::Services;
use super::stage::StageResult;
use crate::blob::BlobSource;
use crate::event::Reporter;
use crate::layer::{Change, ChangeSet};
use crate::oci::Layer;
use crate::rootfs::{Rootfs, Storage, unpack_over};
use crate::sandbox::Ground;
use crate::tree::RootDir;

/// Where a tree comes from.
pub(super) enum Origin {
    /// Nothing.
    Scratch,
    /// An image's layers.
    Layers(Vec<Layer>),
    /// A finished stage.
    Stage(Arc<StageResult>),
}

/// Something that waits to be put into a tree.
enum Queued {
    /// What a copy planned.
    Changes(Vec<Change>),
    /// A layer that an earlier build made.
    Layer(Box<Layer>),
}

/// A stage's files and what waits to be put into them.
pub(super) struct Tree {
    origin: Origin,
    storage: Arc<dyn Storage>,
    ground: Arc<Ground>,
    blobs: Arc<dyn BlobSource>,
    reporter: Reporter,
    rootfs: Option<Box<dyn Rootfs>>,
    queue: Vec<Queued>,
    /// All of `queue` as one; `None` once a change came that was planned without looking at the tree.
    merged: Option<Pending>,
}

impl Tree {
    pub(super) fn new(origin: Origin, services: &Services, blobs: Arc<dyn BlobSource>) -> Self {
        Self {
            origin,
            storage: services.storage.clone(),
            ground: services.ground.clone(),
            blobs,
            reporter: services.reporter.clone(),
            rootfs: None,
            queue: Vec::new(),
            merged: Some(Pending::default()),
        }
    }

    /// Tells whether there is no base, or a stage that has none itself, and nothing was done yet.
    pub(super) fn is_untouched(&self) -> bool {
        let is_empty = match &self.origin {
            Origin::Scratch => true,
            Origin::Layers(_) => false,
            Origin::Stage(stage) => stage.lock_tree().is_untouched(),
        };
        is_empty && self.rootfs.is_none() && self.queue.is_empty()
    }

    /// Makes the files as they were before anything queued, and returns them, untouched by steps of other stages.
    fn live(&mut self) -> Result<&mut Box<dyn Rootfs>, Problem> {
        match &self.rootfs {
            Some(rootfs) => rootfs.check()?,
            None => {
                self.rootfs = Some(match &self.origin {
                    Origin::Scratch => self.storage.create(&[], &*self.blobs)?,
                    Origin::Layers(layers) => self.storage.create(layers, &*self.blobs)?,
                    Origin::Stage(stage) => stage.lock_tree().flushed()?.fork()?,
                });
            }
        }
        Ok(self.rootfs.as_mut().expect("made just now"))
    }

    /// Returns the files that a step of the stage itself has just worked on.
    pub(super) fn worked_on(&mut self) -> Result<&mut Box<dyn Rootfs>, Problem> {
        match self.rootfs {
            Some(ref mut rootfs) => Ok(rootfs),
            None => self.flushed(),
        }
    }

    /// Returns the layers that are all there is to the tree, where that is so and no files were made yet.
    fn layers(&self) -> Option<Vec<Layer>> {
        if self.rootfs.is_some() {
            return None;
        }
        let mut layers = match &self.origin {
            Origin::Scratch => Vec::new(),
            Origin::Layers(layers) => layers.clone(),
            Origin::Stage(stage) => stage.lock_tree().layers()?,
        };
        for queued in &self.queue {
            match queued {
                Queued::Layer(layer) => layers.push(Layer::clone(layer)),
                Queued::Changes(_) => return None,
            }
        }
        Some(layers)
    }

    /// Makes the files as they are after everything queued, and returns them.
    pub(super) fn flushed(&mut self) -> Result<&mut Box<dyn Rootfs>, Problem> {
        if !self.queue.is_empty()
            && let Some(layers) = self.layers()
        {
            self.queue.clear();
            self.origin = Origin::Layers(layers);
        }
        let queue = std::mem::take(&mut self.queue);
        self.merged = Some(Pending::default());
        let (blobs, reporter) = (self.blobs.clone(), self.reporter.clone());
        let _held = self.ground.hold();
        let rootfs = self.live()?;
        if !queue.is_empty() {
            let root = rootfs.root();
            for queued in &queue {
                match queued {
                    Queued::Changes(changes) => {
                        apply(changes, &root).map_err(|(path, source)| Problem::Io {
                            action: "write into the stage",
                            path,
                            source,
                        })?;
                    }
                    Queued::Layer(layer) => unpack_over(layer, &*blobs, &root, &reporter)?,
                }
            }
            // What was applied is in layers of its own already.
            drop(rootfs.seal_step(&[], &[])?);
        }
        Ok(rootfs)
    }

    /// Removes the files: nobody reads them any more.
    pub(super) fn remove(&mut self) {
        self.rootfs = None;
        self.queue.clear();
    }

    /// Returns the files, for reading.
    pub(super) fn root(&mut self) -> Result<Arc<RootDir>, Problem> {
        Ok(self.flushed()?.root())
    }

    /// Hands the tree as a copy finds it to `plan`, and queues what was planned.
    pub(super) fn plan<E>(
        &mut self,
        plan: impl FnOnce(Below<'_>) -> Result<(Vec<Change>, Pending), E>,
    ) -> Result<Vec<Change>, Problem>
    where
        Problem: From<E>,
    {
        if self.merged.is_none() {
            self.flushed()?;
        }
        let _held = self.ground.hold();
        let root = match (&self.origin, &self.rootfs) {
            (Origin::Scratch, None) => None,
            _ => Some(self.live()?.root()),
        };
        let merged = self.merged.as_mut().expect("flushed above");
        let (changes, planned) = plan(Below { root: root.as_ref(), pending: merged })?;
        merged.merge(planned);
        if !changes.is_empty() {
            self.queue.push(Queued::Changes(changes.clone()));
        }
        Ok(changes)
    }

    /// Queues changes that were planned without looking at the tree.
    pub(super) fn push_independent(&mut self, changes: Vec<Change>) {
        self.merged = None;
        self.queue.push(Queued::Changes(changes));
    }

    /// Queues a layer that an earlier build made.
    pub(super) fn push_layer(&mut self, layer: Layer) {
        self.merged = None;
        self.queue.push(Queued::Layer(Box::new(layer)));
    }
}

/// Turns a list of changes into the form layers are written from.
pub(super) fn change_set(changes: Vec<Change>) -> ChangeSet {
    Box::new(changes.into_iter().map(Ok))
}

/// A tree that several may read.
pub(super) type SharedTree = Mutex<Tree>;

/// A layer of a stage, and whether the image had it before.
pub(super) type StageLayers = Vec<LayerSlot>;
