//! The end of a build: times, labels, annotations; the image sealed and handed to the outputs.

use super::Build;
use super::base::check_cancelled;
use super::error::{BuildError, Problem};
use super::stage::StageResult;
use crate::event::StepId;
use crate::oci::{
    Descriptor, Digest, History, Image, ImageConfig, Layer, ManifestFormat, annotation, descriptor,
    media_type,
};
use crate::output::{BuildResult, Receipt};
use crate::snapshot::compare_trees;

/// What a build made.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The image.
    pub image: Image,
    /// The base image's name and digest, if the image has one.
    pub base: Option<(String, Digest)>,
    /// What every output did.
    pub receipts: Vec<Receipt>,
    /// The source epoch in force, in seconds since 1970.
    pub epoch: Option<i64>,
}

impl Build<'_> {
    /// Seals the target stage and hands it to the outputs.
    pub(super) fn finish(&self, target: &StageResult) -> Result<Outcome, BuildError> {
        Ok(self.seal_image(target)?)
    }

    fn seal_image(&self, target: &StageResult) -> Result<Outcome, Problem> {
        let mut layers = target.layers.iter().map(|slot| slot.wait()).collect::<Result<Vec<Layer>, _>>()?;
        check_cancelled(&self.services.cancel)?;
        let base_is_docker = target.base.as_ref().is_some_and(|base| base.docker_format);
        let format = self.request.format.unwrap_or(match base_is_docker {
            true => ManifestFormat::Docker,
            false => ManifestFormat::Oci,
        });
        let mut config = target.config.clone();
        if self.request.single_layer {
            self.squash(target, &mut config, &mut layers)?;
        }
        for layer in &mut layers {
            layer.descriptor = relabel(&layer.descriptor, format)?;
        }
        config.config.labels.extend(self.request.labels.clone());
        self.set_platform(&mut config, target);
        self.fill_times(&mut config, target.base_history);
        let image = Image::seal(config, layers, format, self.annotations(target));
        if self.services.keep_base_blobs
            && let Some(base) = &target.base
        {
            self.blobs.fetch(&base.layers)?;
        }
        let needs_tree = self.services.outputs.iter().any(|output| output.needs_tree());
        let tree = if needs_tree { Some(target.lock_tree().root()?) } else { None };
        let result = BuildResult {
            image: image.clone(),
            names: self.request.names.clone(),
            blobs: self.blobs.clone(),
            tree,
            mount_from: target.base.iter().filter_map(|base| base.repository.clone()).collect(),
        };
        let mut receipts = Vec::new();
        for output in &self.services.outputs {
            check_cancelled(&self.services.cancel)?;
            receipts.push(output.commit(&result)?);
        }
        let base = target.base.as_ref().map(|base| (base.text.clone(), base.digest.clone()));
        Ok(Outcome { image, base, receipts, epoch: self.epoch })
    }

    /// Makes one layer of all that the stage put on its base (`--single-snapshot`), and leaves one entry of its
    /// history with a layer.
    fn squash(
        &self,
        target: &StageResult,
        config: &mut ImageConfig,
        layers: &mut Vec<Layer>,
    ) -> Result<(), Problem> {
        let base = target.base.as_ref().map_or(&[][..], |base| &base.layers);
        if layers.len() <= base.len() + 1 {
            return Ok(());
        }
        let rootfs = self.services.storage.create(base, &*self.blobs)?;
        let changes = compare_trees(rootfs.root(), target.lock_tree().root()?);
        let step = StepId { stage: "single layer".to_owned(), number: 1, total: 1 };
        let layer = self.works.write(step, changes)?.wait()?;
        layers.truncate(base.len());
        layers.push(layer);
        let new = config.history.iter_mut().skip(target.base_history);
        let with_layer: Vec<&mut History> = new.filter(|entry| !entry.empty_layer).collect();
        let last = with_layer.len().saturating_sub(1);
        with_layer.into_iter().take(last).for_each(|entry| entry.empty_layer = true);
        Ok(())
    }

    /// An explicit `--platform` is what the image says it is for; else the base's stays.
    fn set_platform(&self, config: &mut ImageConfig, target: &StageResult) {
        if self.request.platform.is_none() && !config.os.is_empty() {
            return;
        }
        let wanted = if self.request.platform.is_some() { &self.platform } else { &target.platform };
        let same = config.os == wanted.os && config.architecture == wanted.architecture;
        config.os = wanted.os.clone();
        config.architecture = wanted.architecture.clone();
        if wanted.variant.is_some() || !same {
            config.variant = wanted.variant.clone();
        }
        if wanted.os_version.is_some() || !same {
            config.os_version = wanted.os_version.clone();
        }
    }

    /// Fills in when everything was made. New entries get the epoch if there is one; else those with a layer
    /// get the time of the build, and the others that of the layer before them, or of the first new one.
    fn fill_times(&self, config: &mut ImageConfig, base_history: usize) {
        let now = rfc3339(self.epoch.unwrap_or(self.services.now.seconds));
        let base_history = base_history.min(config.history.len());
        let (old, new) = config.history.split_at_mut(base_history);
        for entry in new.iter_mut().filter(|entry| self.epoch.is_some() || !entry.empty_layer) {
            entry.created = Some(now.clone());
        }
        let last_old = old.iter().rev().find_map(|entry| entry.created.clone());
        let first_new = new.iter().find_map(|entry| entry.created.clone());
        let mut previous = first_new.or(last_old);
        for entry in new {
            match &entry.created {
                Some(created) => previous = Some(created.clone()),
                None => entry.created = previous.clone(),
            }
        }
        let last = |history: &[History]| history.last().and_then(|entry| entry.created.clone());
        config.created = match self.epoch {
            Some(_) => Some(now),
            None => last(&config.history).or(Some(now)),
        };
    }

    fn annotations(&self, target: &StageResult) -> std::collections::BTreeMap<String, String> {
        let mut annotations = std::collections::BTreeMap::new();
        if let Some(base) = &target.base {
            annotations.insert(annotation::BASE_NAME.to_owned(), base.text.clone());
            annotations.insert(annotation::BASE_DIGEST.to_owned(), base.digest.to_string());
        }
        let created = rfc3339(self.epoch.unwrap_or(self.services.now.seconds));
        annotations.insert(annotation::CREATED.to_owned(), created);
        annotations.extend(self.request.annotations.clone());
        annotations
    }
}

/// Writes seconds since 1970 as RFC 3339 in UTC.
pub(super) fn rfc3339(seconds: i64) -> String {
    match jiff::Timestamp::from_second(seconds) {
        Ok(timestamp) => timestamp.to_string(),
        // Beyond the year 9999 there is no RFC 3339.
        Err(_) => "9999-12-31T23:59:59Z".to_owned(),
    }
}

/// Gives a layer's descriptor the media type that `format` has for it.
fn relabel(layer: &Descriptor, format: ManifestFormat) -> Result<Descriptor, Problem> {
    let old = layer.media_type().to_string();
    let zstd = old.ends_with("+zstd") || old.ends_with(".zstd");
    let gzip = old.ends_with("gzip");
    let foreign = old.contains("nondistributable") || old.contains("foreign");
    if foreign {
        return Ok(layer.clone());
    }
    let new = match (format, zstd, gzip) {
        (ManifestFormat::Docker, true, _) => {
            return Err(Problem::Unsupported {
                what: "a zstd layer in a manifest of docker's format".to_owned(),
                hint: "use `oci-mediatypes=true` (or `--image-format=oci`), or `compression=gzip`".to_owned(),
            });
        }
        (ManifestFormat::Docker, _, true) => media_type::DOCKER_LAYER_GZIP.to_owned(),
        (ManifestFormat::Docker, ..) => media_type::DOCKER_LAYER.to_owned(),
        (ManifestFormat::Oci, true, _) => format!("{}+zstd", media_type::OCI_LAYER),
        (ManifestFormat::Oci, _, true) => format!("{}+gzip", media_type::OCI_LAYER),
        (ManifestFormat::Oci, ..) => media_type::OCI_LAYER.to_owned(),
    };
    let mut described = descriptor(&new, &crate::oci::descriptor_digest(layer), layer.size());
    described.set_annotations(layer.annotations().clone());
    Ok(described)
}
