//! Taking a step's layer from a cache.

use super::{StepProbe, diff_ids};
use crate::build::Build;
use crate::build::copy::CopySource;
use crate::build::copy_step::{CopyFlags, expand_copy};
use crate::build::error::Problem;
use crate::build::layers::LayerSlot;
use crate::build::stage::Stage;
use crate::cache::{Chain, Found, Inputs, Key, KeyBuilder};
use crate::dockerfile::{Instruction, InstructionKind};
use crate::event::StepOutcome;

impl Build<'_> {
    /// Takes the current instruction's layer from a cache if there is one that fits.
    pub(in crate::build) fn cached(
        &self,
        stage: &mut Stage,
        instruction: &Instruction,
    ) -> Result<Option<StepOutcome>, Problem> {
        let Some(step) = self.probe.step(stage.id, stage.instruction) else { return Ok(None) };
        let found = match step.pick {
            Some(pick) => Some(step.found[pick].clone()),
            None => match self.fitting_now(stage, step)? {
                Some(found) => Some(found.clone()),
                None => self.found_on_tree(stage, step)?,
            },
        };
        let Some(found) = found else { return Ok(None) };
        let from = found.from.clone();
        self.adopt(stage, found);
        self.skip(stage, instruction)?;
        Ok(Some(StepOutcome::Cached(from)))
    }

    /// Looks once more for a step's record, by the tree the step works on instead of by what went into that: behind
    /// a copy from a stage that came out otherwise everything may be as it was.
    fn found_on_tree(&self, stage: &Stage, step: &StepProbe) -> Result<Option<Found>, Problem> {
        // To wait for the layer of a step that did run would hold up the next.
        if !stage.copies_from_stage || stage.has_run || !step.key.sources.is_empty() {
            return Ok(None);
        }
        let Some(chain) = self.chain(stage)? else { return Ok(None) };
        let key = key_on(step.key.own.clone(), &chain).0;
        Ok(self.services.caches.find_on(&self.record_key(key), &chain))
    }

    /// Returns the first record that was made on the trees that have been made meanwhile.
    fn fitting_now<'s>(&self, stage: &Stage, step: &'s StepProbe) -> Result<Option<&'s Found>, Problem> {
        for found in &step.found {
            if self.fits_now(stage, step, found)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Compares the trees a record was made on with those that have been made meanwhile.
    fn fits_now(&self, stage: &Stage, step: &StepProbe, found: &Found) -> Result<bool, Problem> {
        if !step.key.is_independent && self.chain(stage)?.as_ref() != Some(&found.parent) {
            return Ok(false);
        }
        if step.key.sources.len() != found.sources.len() {
            return Ok(false);
        }
        for (source, (_, expected)) in step.key.sources.iter().zip(&found.sources) {
            let source = self.stage(*source)?;
            if !source.has_all_layers || Chain::of(&diff_ids(&source.layers)?) != *expected {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Names the tree a stage has come to; `None` if not all of it is in layers.
    pub(super) fn chain(&self, stage: &Stage) -> Result<Option<Chain>, Problem> {
        match stage.has_all_layers {
            true => Ok(Some(Chain::of(&diff_ids(&stage.layers)?))),
            false => Ok(None),
        }
    }

    /// Makes the layer of a hit one of the build's blobs.
    pub(super) fn register(&self, found: &Found) {
        if let Some(blobs) = &found.blobs {
            self.blobs.register(std::slice::from_ref(&found.layer), blobs);
        }
    }

    /// Puts a layer that a cache has on top of a stage. In the image it is compressed as all of the image is.
    fn adopt(&self, stage: &mut Stage, found: Found) {
        self.register(&found);
        if let Some(repository) = &found.repository {
            let mut repositories = self.cache_repositories.lock().expect("no panic while a name is added");
            if !repositories.contains(repository) {
                repositories.push(repository.clone());
            }
        }
        stage.cached_seconds = Some(found.created_seconds);
        let layer = found.layer.clone();
        stage.tree.push_layer(layer.clone());
        stage.layers.push(match self.is_compressed_anew(stage, &found) {
            true => self.works.start_cached(stage.step.clone(), layer, self.blobs.clone()),
            false => LayerSlot::finished(layer),
        });
        stage.hit = Some(found);
    }

    pub(super) fn is_compressed_anew(&self, stage: &Stage, found: &Found) -> bool {
        stage.is_exported && found.compression != self.request.compression
    }

    /// Does what an instruction does besides its layer.
    pub(super) fn skip(&self, stage: &mut Stage, instruction: &Instruction) -> Result<(), Problem> {
        match &instruction.kind {
            InstructionKind::Run(run) => {
                let argv = stage.run_argv(run)?;
                stage.record_run(&argv);
            }
            InstructionKind::Copy(copy) => {
                let created_by = expand_copy(stage, copy)?.created_by();
                stage.record(created_by, true);
            }
            InstructionKind::Add(add) => {
                let created_by = crate::build::add::expand_add(stage, add)?.created_by();
                stage.record(created_by, true);
            }
            InstructionKind::Workdir(path) => {
                let directory = stage.workdir(path)?;
                stage.set_workdir(directory);
            }
            _ => unreachable!("every other instruction is metadata"),
        }
        Ok(())
    }

    /// Tells whether an instruction counts as a step and yet makes no layer.
    pub(super) fn is_empty_step(&self, stage: &Stage, instruction: &Instruction) -> Result<bool, Problem> {
        match &instruction.kind {
            InstructionKind::Workdir(path) => Ok(stage.workdir(path)? == "/"),
            _ => Ok(false),
        }
    }

    /// Looks once more for the layer of a copy from a stage that came out otherwise: what is copied may be the same.
    pub(in crate::build) fn content_hit(
        &self,
        stage: &mut Stage,
        sources: &[CopySource],
        flags: &CopyFlags<'_>,
    ) -> Result<Option<StepOutcome>, Problem> {
        let Some(step) = self.probe.step(stage.id, stage.instruction) else { return Ok(None) };
        if !step.key.copies_from_stage {
            return Ok(None);
        }
        let mut key = step.key.own.clone();
        self.add_content(&mut key, "files", stage, sources.to_vec(), flags)?;
        stage.content_key = Some(key.clone());
        if stage.has_run {
            return Ok(None);
        }
        let Some(chain) = self.chain(stage)? else { return Ok(None) };
        let key = key_on(key, &chain).0;
        let Some(found) = self.services.caches.find_on(&self.record_key(key), &chain) else {
            return Ok(None);
        };
        let from = found.from.clone();
        self.adopt(stage, found);
        Ok(Some(StepOutcome::Cached(from)))
    }
}

/// Ends the key of a step by the tree it works on; stages it reads from are not in it.
pub(super) fn key_on(mut own: KeyBuilder, tree: &Chain) -> (Key, Inputs) {
    own.text("tree below", tree.digest().as_str());
    own.finish()
}
