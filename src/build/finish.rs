//! The end of a build: times, labels, annotations; the image sealed and handed to the outputs.

use std::sync::Arc;

use super::base::check_cancelled;
use super::error::{BuildError, Place, Problem};
use super::stage::StageResult;
use super::{Build, Gate, StepReport};
use crate::blob::BlobSource;
use crate::event::StepId;
use crate::oci::{
    Descriptor, Digest, History, Image, ImageConfig, Layer, ManifestFormat, Reference, annotation,
    descriptor, media_type,
};
use crate::output::{BuildResult, Receipt};
use crate::snapshot::compare_trees;
use crate::threads::{self, Beside};

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
    /// How each step came about, in the order they ended.
    pub steps: Vec<StepReport>,
}

/// An image that no output has yet.
pub struct Finished {
    /// The image.
    pub image: Image,
    /// Has its layers.
    pub blobs: Arc<dyn BlobSource>,
    /// The lines of the Dockerfile that made each layer; `None` for the base's.
    pub places: Vec<Option<Place>>,
}

impl Build<'_> {
    /// Seals the target stage and hands it to the outputs.
    pub(super) fn finish(&self, target: &StageResult, gate: Option<Gate<'_>>) -> Result<Outcome, BuildError> {
        Ok(self.seal_image(target, gate)?)
    }

    fn seal_image(&self, target: &StageResult, gate: Option<Gate<'_>>) -> Result<Outcome, Problem> {
        let mut layers = target.layers.iter().map(|slot| slot.wait()).collect::<Result<Vec<Layer>, _>>()?;
        check_cancelled(&self.services.cancel)?;
        // No step follows. What a step did to kiln or to what was hidden from it fails the build before a name moves.
        self.services.launch.finish()?;
        let base_is_docker = target.base.as_ref().is_some_and(|base| base.docker_format);
        let format = self.request.format.unwrap_or(match base_is_docker {
            true => ManifestFormat::Docker,
            false => ManifestFormat::Oci,
        });
        let mut config = target.config.clone();
        if self.request.single_layer {
            self.squash(target, &mut config, &mut layers)?;
        }
        if self.request.rewrite_timestamp {
            self.rewrite_base(target, &mut config, &mut layers)?;
        }
        for layer in &mut layers {
            layer.descriptor = relabel(&layer.descriptor, format)?;
        }
        config.config.labels.extend(self.request.labels.clone());
        self.set_platform(&mut config, target);
        fill_times(&mut config, target.base_history, self.epoch, self.services.now.seconds);
        let created = config.created.clone();
        let image = Image::seal(config, layers, format, self.annotations(target, created));
        if let Some(gate) = gate
            && !gate(&self.finished(target, &image))
        {
            // Whoever refused because of a cancellation was cancelled.
            check_cancelled(&self.services.cancel)?;
            return Err(Problem::Refused);
        }
        if self.services.keep_base_blobs {
            self.blobs.fetch(&image.layers)?;
        }
        let needs_tree = self.services.outputs.iter().any(|output| output.needs_tree());
        let tree = if needs_tree { Some(target.lock_tree().root()?) } else { None };
        let result = BuildResult {
            image: image.clone(),
            names: self.request.names.clone(),
            blobs: self.blobs.clone(),
            tree,
            mount_from: self.mount_from(target),
        };
        let receipts = std::thread::scope(|scope| {
            // All layers are written: what the stages were made of goes while the image is on its way.
            if !needs_tree {
                Beside::start_in(scope, "remove", || self.remove_trees());
            }
            let commit = |output: &std::sync::Arc<dyn crate::output::Output>| {
                check_cancelled(&self.services.cancel)?;
                // Whatever panicked has been told.
                if threads::panicked() {
                    return Err(Problem::Elsewhere);
                }
                Ok(output.commit(&result)?)
            };
            self.services.outputs.iter().map(commit).collect::<Result<Vec<Receipt>, Problem>>()
        })?;
        let base = target.base.as_ref().map(|base| (base.text.clone(), base.digest.clone()));
        let steps = std::mem::take(&mut *self.reports.lock().expect("no panic while a report is added"));
        Ok(Outcome { image, base, receipts, epoch: self.epoch, steps })
    }

    /// Removes the files of every stage.
    fn remove_trees(&self) {
        self.works.finish();
        for stage in self.schedule.finished() {
            stage.lock_tree().remove();
        }
        self.kept.lock().expect("no panic while keeping").clear();
    }

    /// Returns the repositories that hold some of the image's layers.
    fn mount_from(&self, target: &StageResult) -> Vec<Reference> {
        let caches = self.cache_repositories.lock().expect("no panic while a name is added").clone();
        target.base.iter().filter_map(|base| base.repository.clone()).chain(caches).collect()
    }

    /// Puts together what a gate looks at.
    fn finished(&self, target: &StageResult, image: &Image) -> Finished {
        let source = &self.dockerfile.source;
        let place = |span| Place { name: self.dockerfile.name.clone(), source: source.clone(), span };
        let mut places: Vec<_> = target.layers.iter().map(|slot| slot.span.map(place)).collect();
        // One layer of many has no lines of its own.
        if places.len() != image.layers.len() {
            places = vec![None; image.layers.len()];
        }
        Finished { image: image.clone(), blobs: self.blobs.clone(), places }
    }

    /// Clamps the times in the base's layers, and in its part of the history, to the epoch (`rewrite-timestamp`).
    fn rewrite_base(
        &self,
        target: &StageResult,
        config: &mut ImageConfig,
        layers: &mut [Layer],
    ) -> Result<(), Problem> {
        let Some(epoch) = self.epoch else {
            self.services.reporter.warning("rewrite-timestamp has no effect without a source epoch");
            return Ok(());
        };
        let base = target.base.as_ref().map_or(0, |base| base.layers.len());
        // They are read twice.
        self.blobs.fetch(&layers[..base])?;
        let mut rewritten = 0;
        for layer in &mut layers[..base] {
            check_cancelled(&self.services.cancel)?;
            let clamped = self.works.rewrite(layer, &*self.blobs)?;
            rewritten += usize::from(clamped.diff_id != layer.diff_id);
            *layer = clamped;
        }
        for entry in config.history.iter_mut().take(target.base_history) {
            let time = entry.created.as_ref().and_then(|created| created.parse::<jiff::Timestamp>().ok());
            if time.zip(jiff::Timestamp::from_second(epoch).ok()).is_some_and(|(time, epoch)| time > epoch) {
                entry.created = Some(rfc3339(epoch));
            }
        }
        if base > 0 {
            let text =
                format!("rewrite-timestamp: {rewritten} of {base} layers of the base were written anew");
            self.services.reporter.info(text);
        }
        Ok(())
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

    fn annotations(
        &self,
        target: &StageResult,
        created: Option<String>,
    ) -> std::collections::BTreeMap<String, String> {
        let mut annotations = std::collections::BTreeMap::new();
        if let Some(base) = &target.base {
            // The path of a layout is of this machine: it tells nobody else anything, and would be in the digest.
            if !base.text.starts_with("oci-layout:") {
                annotations.insert(annotation::BASE_NAME.to_owned(), base.text.clone());
            }
            annotations.insert(annotation::BASE_DIGEST.to_owned(), base.digest.to_string());
        }
        let created = created.unwrap_or_else(|| rfc3339(self.epoch.unwrap_or(self.services.now.seconds)));
        annotations.insert(annotation::CREATED.to_owned(), created);
        annotations.extend(self.request.annotations.clone());
        annotations
    }
}

/// Fills in when everything was made. New entries get the epoch if there is one; else those with a layer
/// get the time of the build, and the others that of the layer before them, or of the first new one.
fn fill_times(config: &mut ImageConfig, base_history: usize, epoch: Option<i64>, now: i64) {
    let now = rfc3339(epoch.unwrap_or(now));
    let base_history = base_history.min(config.history.len());
    let (old, new) = config.history.split_at_mut(base_history);
    for entry in new.iter_mut().filter(|entry| epoch.is_some() || !entry.empty_layer) {
        // What came out of a cache has a time already.
        if epoch.is_some() || entry.created.is_none() {
            entry.created = Some(now.clone());
        }
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
    config.created = match epoch {
        Some(_) => Some(now),
        None => last(&config.history).or(Some(now)),
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;
    const NOW_TEXT: &str = "2023-11-14T22:13:20Z";
    const OLD: &str = "2001-01-01T00:00:00Z";

    /// A config with history of the base, as it has times, and new entries, as they have layers.
    fn config(base: &[Option<&str>], new: &[bool]) -> ImageConfig {
        let base =
            base.iter().map(|created| History { created: created.map(str::to_owned), ..History::default() });
        let new = new.iter().map(|has_layer| History { empty_layer: !has_layer, ..History::default() });
        ImageConfig {
            created: Some("before".to_owned()),
            history: base.chain(new).collect(),
            ..ImageConfig::default()
        }
    }

    fn times(mut config: ImageConfig, base: usize, epoch: Option<i64>) -> (Vec<String>, String) {
        fill_times(&mut config, base, epoch, NOW);
        let shown = |created: &Option<String>| created.clone().unwrap_or_else(|| "none".to_owned());
        (config.history.iter().map(|entry| shown(&entry.created)).collect(), shown(&config.created))
    }

    #[test]
    fn entries_with_a_layer_have_the_time_of_the_build() {
        let (history, created) = times(config(&[Some(OLD)], &[true, false, true]), 1, None);
        assert_eq!(history, [OLD, NOW_TEXT, NOW_TEXT, NOW_TEXT]);
        assert_eq!(created, NOW_TEXT);
    }

    #[test]
    fn empty_entries_before_the_first_layer_have_its_time() {
        let (history, _) = times(config(&[Some(OLD)], &[false, true]), 1, None);
        assert_eq!(history, [OLD, NOW_TEXT, NOW_TEXT]);
    }

    #[test]
    fn an_image_of_metadata_alone_keeps_the_bases_time() {
        let (history, created) = times(config(&[Some(OLD), None], &[false, false]), 2, None);
        assert_eq!(history, [OLD, "none", OLD, OLD]);
        assert_eq!(created, OLD);
    }

    #[test]
    fn an_image_without_any_time_has_that_of_the_build() {
        assert_eq!(times(config(&[], &[]), 0, None), (vec![], NOW_TEXT.to_owned()));
        let (history, created) = times(config(&[None], &[false]), 1, None);
        assert_eq!((history, created.as_str()), (vec!["none".to_owned(), "none".to_owned()], NOW_TEXT));
    }

    #[test]
    fn an_epoch_is_the_time_of_everything_new() {
        let (history, created) = times(config(&[Some(OLD)], &[false, true]), 1, Some(0));
        assert_eq!(history, [OLD, "1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"]);
        assert_eq!(created, "1970-01-01T00:00:00Z");
        assert_eq!(times(config(&[Some(OLD)], &[]), 1, Some(0)).1, "1970-01-01T00:00:00Z");
    }

    #[test]
    fn a_base_with_less_history_than_it_says_does_no_harm() {
        assert_eq!(times(config(&[], &[true]), 9, None).1, NOW_TEXT);
    }

    #[test]
    fn times_beyond_rfc_3339_are_the_last_there_is() {
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59Z");
    }

    fn relabelled(old: &str, format: ManifestFormat) -> Result<String, String> {
        let mut layer = descriptor(old, &Digest::of(b"x"), 5);
        layer.set_annotations(Some([("a".to_owned(), "b".to_owned())].into()));
        let new = relabel(&layer, format).map_err(|problem| problem.to_string())?;
        assert_eq!((new.digest(), new.size(), new.annotations()), (layer.digest(), 5, layer.annotations()));
        Ok(new.media_type().to_string())
    }

    #[test]
    fn layers_get_the_media_types_of_the_manifest() {
        let oci = "application/vnd.oci.image.layer.v1.tar";
        let docker = "application/vnd.docker.image.rootfs.diff.tar";
        for (old, in_oci, in_docker) in [
            (oci.to_owned(), oci.to_owned(), docker.to_owned()),
            (docker.to_owned(), oci.to_owned(), docker.to_owned()),
            (format!("{oci}+gzip"), format!("{oci}+gzip"), format!("{docker}.gzip")),
            (format!("{docker}.gzip"), format!("{oci}+gzip"), format!("{docker}.gzip")),
        ] {
            assert_eq!(relabelled(&old, ManifestFormat::Oci).unwrap(), in_oci);
            assert_eq!(relabelled(&old, ManifestFormat::Docker).unwrap(), in_docker);
        }
    }

    #[test]
    fn dockers_format_has_no_zstd() {
        for old in [
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.diff.tar.zstd",
        ] {
            assert_eq!(
                relabelled(old, ManifestFormat::Oci).unwrap(),
                "application/vnd.oci.image.layer.v1.tar+zstd"
            );
            let error = relabelled(old, ManifestFormat::Docker).unwrap_err();
            assert_eq!(error, "a zstd layer in a manifest of docker's format is not supported");
        }
    }

    #[test]
    fn foreign_layers_stay_foreign() {
        for old in [
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        ] {
            for format in [ManifestFormat::Oci, ManifestFormat::Docker] {
                assert_eq!(relabelled(old, format).unwrap(), old);
            }
        }
    }
}
