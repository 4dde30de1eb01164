//! Base images: resolved once for each reference and platform, shared by every stage that names them.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};

use super::check::Wanted;
use super::error::Problem;
use super::offline::{Missing, NeededImage};
use super::{Build, NamedContext};
use crate::blob::{BlobSource, Layout, Store};
use crate::dockerfile::Span;
use crate::oci::{Descriptor, Digest, Image, ImageConfig, Layer, Platform, Reference, descriptor_digest};
use crate::output::{OutputError, read_image, select_manifest};
use crate::sandbox::Cancel;
use crate::tree::RootDir;

/// An image to start from or to copy from.
#[derive(Debug, Clone)]
pub(super) struct BaseImage {
    /// What the Dockerfile calls it.
    pub(super) text: String,
    /// The repository its layers are in, where there is one.
    pub(super) repository: Option<Reference>,
    /// Digest of the index, else of the manifest: what the reference stood for.
    pub(super) digest: Digest,
    /// Digest of the manifest.
    pub(super) manifest: Digest,
    pub(super) config: ImageConfig,
    pub(super) layers: Vec<Layer>,
    /// Whether the manifest uses docker's media types.
    pub(super) docker_format: bool,
}

type Shared<T> = Arc<(Mutex<Option<Result<T, Why>>>, Condvar)>;

/// Why something could not be made; `None` if its maker panicked.
type Why = Option<Arc<Problem>>;

/// What is made once and wanted by many.
pub(super) struct Once<K, T> {
    cells: Mutex<HashMap<K, Shared<T>>>,
}

impl<K, T> Default for Once<K, T> {
    fn default() -> Self {
        Self { cells: Mutex::default() }
    }
}

impl<K: std::hash::Hash + Eq, T: Clone> Once<K, T> {
    /// Returns the value of `key`, made by whoever asks first. A failure is everybody's: the caches ask
    /// before the stages do, and leave telling to them.
    pub(super) fn get(&self, key: K, make: impl FnOnce() -> Result<T, Problem>) -> Result<T, Problem> {
        let (cell, first) = {
            let mut cells = self.cells.lock().expect("no panic while cells are looked up");
            match cells.get(&key) {
                Some(cell) => (cell.clone(), false),
                None => {
                    let cell = Shared::<T>::default();
                    cells.insert(key, cell.clone());
                    (cell, true)
                }
            }
        };
        let (value, made) = &*cell;
        if first {
            let making = Making(&cell);
            let result = make();
            return making.end(result);
        }
        let mut value = value.lock().expect("no panic while a value is set");
        while value.is_none() {
            value = made.wait(value).expect("no panic while a value is set");
        }
        match value.clone() {
            Some(Ok(value)) => Ok(value),
            Some(Err(Some(problem))) => Err(told_again(problem)),
            Some(Err(None)) | None => Err(Problem::Elsewhere),
        }
    }
}

/// A value in the making: a failure if that panics, so that nobody waits for ever.
struct Making<'a, T>(&'a Shared<T>);

impl<T: Clone> Making<'_, T> {
    fn end(self, made: Result<T, Problem>) -> Result<T, Problem> {
        let kept = made.map_err(Arc::new);
        *self.0.0.lock().expect("no panic while a value is set") = Some(kept.clone().map_err(Some));
        kept.map_err(told_again)
    }
}

/// Makes a problem that others are told as well one of the caller's own.
fn told_again(problem: Arc<Problem>) -> Problem {
    match *problem {
        Problem::Cancelled => Problem::Cancelled,
        Problem::Elsewhere => Problem::Elsewhere,
        _ => Problem::Shared(problem),
    }
}

impl<T> Drop for Making<'_, T> {
    fn drop(&mut self) {
        if let Ok(mut value) = self.0.0.lock() {
            value.get_or_insert(Err(None));
        }
        self.0.1.notify_all();
    }
}

impl<K: std::hash::Hash + Eq, T: Clone> Once<K, T> {
    /// Returns the value of `key` if it was made.
    pub(super) fn peek(&self, key: &K) -> Option<T> {
        let cells = self.cells.lock().expect("no panic while cells are looked up");
        let value = cells.get(key)?.0.lock().expect("no panic while a value is set");
        value.clone()?.ok()
    }
}

/// The images of a build.
#[derive(Default)]
pub(super) struct BaseImages {
    images: Once<(String, Platform), Arc<BaseImage>>,
    /// Images that are only read from (`COPY --from=image`), unpacked.
    roots: Once<(String, Platform), Arc<RootDir>>,
}

impl Build<'_> {
    /// Finds an image by the text of a `FROM` or `--from`.
    pub(super) fn image(&self, text: &str, platform: &Platform) -> Result<Arc<BaseImage>, Problem> {
        self.bases
            .images
            .get((text.to_owned(), platform.clone()), || self.resolve_image(text, platform).map(Arc::new))
    }

    /// Returns the config of an image that the build has resolved.
    pub(super) fn known_image(&self, wanted: &Wanted<'_>, platform: &Platform) -> Option<ImageConfig> {
        let text = match wanted {
            Wanted::Reference(text) => (*text).to_owned(),
            Wanted::Context(name) => match self.request.named_contexts.get(*name)? {
                NamedContext::Image(text) => text.clone(),
                NamedContext::Layout(spec) => format!("oci-layout://{spec}"),
                NamedContext::Files(_) => return None,
            },
        };
        Some(self.bases.images.peek(&(text, platform.clone()))?.config.clone())
    }

    /// Returns an image's files, for reading.
    pub(super) fn image_root(&self, text: &str, platform: &Platform) -> Result<Arc<RootDir>, Problem> {
        let image = self.image(text, platform)?;
        self.unpacked(text, platform, &image)
    }

    /// Returns the files of an image that was resolved, for reading.
    pub(super) fn unpacked(
        &self,
        text: &str,
        platform: &Platform,
        image: &BaseImage,
    ) -> Result<Arc<RootDir>, Problem> {
        let kept = || self.kept.lock().expect("no panic while keeping");
        let root = self.bases.roots.get((text.to_owned(), platform.clone()), || {
            let rootfs = self.services.storage.create(&image.layers, &*self.blobs)?;
            let root = rootfs.root();
            kept().push(rootfs);
            Ok(root)
        })?;
        kept().iter().filter(|kept| Arc::ptr_eq(&kept.root(), &root)).try_for_each(|kept| kept.check())?;
        Ok(root)
    }

    /// Finds the image that a named context stands for; `None` if it stands for files.
    pub(super) fn context_image(
        &self,
        name: &str,
        platform: &Platform,
    ) -> Result<Option<Arc<BaseImage>>, Problem> {
        match self.request.named_contexts.get(name) {
            // `docker-image://scratch` is an empty tree.
            Some(NamedContext::Image(text)) if text == "scratch" => Ok(None),
            Some(NamedContext::Image(text)) => self.image(text, platform).map(Some),
            Some(NamedContext::Layout(spec)) => {
                let key = (format!("oci-layout://{spec}"), platform.clone());
                self.bases.images.get(key, || self.layout_image(spec, platform).map(Arc::new)).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn resolve_image(&self, text: &str, platform: &Platform) -> Result<BaseImage, Problem> {
        check_cancelled(&self.services.cancel)?;
        let reference: Reference = text.parse()?;
        let offline = self.request.offline;
        let stored = if self.request.pull {
            None
        } else {
            // A step could point names elsewhere for as long as it runs.
            let _held = self.services.ground.hold();
            stored_image(&self.services.store, &reference, platform, offline)?
        };
        if let Some((digest, image)) = stored {
            return Ok(base_image(text, Some(reference), digest, image));
        }
        if offline {
            // Only triggers of base images come here: what the Dockerfile names was looked for at the start.
            let span = Span { start_line: 0, end_line: 0 };
            let image = NeededImage { text: text.to_owned(), platform: platform.clone(), span };
            return Err(Problem::Offline { missing: vec![Missing::Image(image)] });
        }
        let remote = self
            .services
            .registry
            .image(&reference, platform)
            .map_err(|source| Problem::BaseImage { reference: reference.familiar(), source })?;
        self.register_layouts(&remote.image.layers);
        let source: Arc<dyn BlobSource> = self.services.registry.blobs(&remote.reference);
        self.blobs.register(&remote.image.layers, &source);
        let digest = remote.index_digest.unwrap_or_else(|| remote.image.digest());
        Ok(base_image(text, Some(reference), digest, remote.image))
    }

    /// Has layers come from the directories that were filled beforehand, where they are there. One that cannot be
    /// read costs a download, not the build.
    fn register_layouts(&self, layers: &[Layer]) {
        let _present = self.services.own_files.present();
        for path in &self.request.base_layouts {
            match Layout::open(path) {
                Ok(layout) => {
                    let has = |layer: &&Layer| layout.contains(&layer.digest()).is_ok_and(|there| there);
                    let there: Vec<Layer> = layers.iter().filter(has).cloned().collect();
                    let source: Arc<dyn BlobSource> = Arc::new(layout);
                    self.blobs.register(&there, &source);
                }
                Err(error) => self.services.reporter.warning(format!("base layers are downloaded: {error}")),
            }
        }
    }

    fn layout_image(&self, spec: &str, platform: &Platform) -> Result<BaseImage, Problem> {
        let (path, rest) = layout_path(spec);
        let (tag, digest) = rest.split_once('@').map_or((rest, None), |(tag, digest)| (tag, Some(digest)));
        let tag = tag.strip_prefix(':');
        // What the names in it stand for; blobs are known by their digests.
        let present = self.services.own_files.present();
        let layout = Arc::new(Layout::open(std::path::Path::new(path))?);
        drop(present);
        let found = layout.find(digest.or(tag)).cloned().ok_or_else(|| Problem::Instruction {
            message: format!("no image `{}` in the layout `{path}`", digest.or(tag).unwrap_or("latest")),
        })?;
        let descriptor = select_manifest(&*layout, &found, platform)?;
        let image = read_image(&*layout, &descriptor)?;
        let source: Arc<dyn BlobSource> = layout;
        self.blobs.register(&image.layers, &source);
        let digest = image.digest();
        Ok(base_image(&format!("oci-layout://{spec}"), None, digest, image))
    }
}

/// Splits what names an image in a layout into the layout's path and `[:tag][@digest]`.
pub(super) fn layout_path(spec: &str) -> (&str, &str) {
    let end = spec.find('@').unwrap_or(spec.len());
    let end = spec[..end].rfind(':').filter(|colon| !spec[*colon..end].contains('/')).unwrap_or(end);
    spec.split_at(end)
}

/// Finds an image that was built, or brought, into the store: by its name, or by the digest it is pinned to.
/// Returns what the name stands for, which may be an index, and the image; nothing if a part of it is missing.
/// An image for another platform counts only if there is no asking elsewhere (`any_platform`).
pub(super) fn stored_image(
    store: &Arc<Store>,
    reference: &Reference,
    platform: &Platform,
    any_platform: bool,
) -> Result<Option<(Digest, Image)>, Problem> {
    let name = reference.to_string();
    let tags = store.tags()?;
    let pinned = |descriptor: &Descriptor| {
        reference.digest().is_some_and(|digest| *digest == descriptor_digest(descriptor))
    };
    let named = tags.iter().find(|tagged| tagged.reference == name);
    let Some(tagged) = named.or_else(|| tags.iter().find(|tagged| pinned(&tagged.descriptor))) else {
        return Ok(None);
    };
    let descriptor = match select_manifest(&**store, &tagged.descriptor, platform) {
        Ok(descriptor) => descriptor,
        Err(OutputError::NoPlatform { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // An index may be here with some of its images only.
    if !store.has(&descriptor_digest(&descriptor)) {
        return Ok(None);
    }
    let image = read_image(&**store, &descriptor)?;
    let fits = any_platform || platform.accepts(&image.config.platform()).is_some();
    if !fits || !image.layers.iter().all(|layer| store.has(&layer.digest())) {
        return Ok(None);
    }
    Ok(Some((descriptor_digest(&tagged.descriptor), image)))
}

fn base_image(text: &str, repository: Option<Reference>, digest: Digest, image: Image) -> BaseImage {
    let docker_format = image.descriptor.media_type().to_string().contains("docker");
    BaseImage {
        text: text.to_owned(),
        repository,
        digest,
        manifest: image.digest(),
        config: image.config,
        layers: image.layers,
        docker_format,
    }
}

pub(super) fn check_cancelled(cancel: &Cancel) -> Result<(), Problem> {
    if cancel.is_cancelled() { Err(Problem::Cancelled) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn failure() -> Problem {
        Problem::Instruction { message: "no".to_owned() }
    }

    #[test]
    fn the_second_asker_waits_and_gets_what_the_first_made() {
        let once = Once::<u8, u32>::default();
        let (begun, has_begun) = mpsc::channel();
        std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                once.get(1, || {
                    begun.send(()).unwrap();
                    std::thread::sleep(Duration::from_millis(100));
                    Ok(7)
                })
            });
            has_begun.recv().unwrap();
            assert_eq!(once.peek(&1), None);
            assert_eq!(once.get(1, || panic!("made twice")).unwrap(), 7);
            assert_eq!(first.join().unwrap().unwrap(), 7);
        });
        assert_eq!((once.peek(&1), once.peek(&2)), (Some(7), None));
        assert_eq!(once.get(2, || Ok(8)).unwrap(), 8);
    }

    #[test]
    fn a_failure_is_everybodys() {
        let once = Once::<u8, u32>::default();
        let first = once.get(1, || Err(failure())).unwrap_err();
        let second = once.get(1, || panic!("tried again")).unwrap_err();
        assert!(matches!(first, Problem::Shared(_)), "{first:?}");
        assert_eq!((first.to_string(), second.to_string()), (failure().to_string(), failure().to_string()));
        assert_eq!(once.peek(&1), None);
    }

    #[test]
    fn a_panic_is_a_failure_to_whoever_waits() {
        let once = Once::<u8, u32>::default();
        let (begun, has_begun) = mpsc::channel();
        std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                once.get(1, || {
                    begun.send(()).unwrap();
                    std::thread::sleep(Duration::from_millis(50));
                    panic!("on purpose")
                })
            });
            has_begun.recv().unwrap();
            assert!(matches!(once.get(1, || Ok(1)), Err(Problem::Elsewhere)));
            assert!(first.join().is_err());
        });
    }
}
