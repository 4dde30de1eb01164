//! Registries as an output: every byte first, then the tags.
//!
//! Layers of the build are uploaded while later steps still run, by a few threads of this output's own;
//! whatever fails there is done again, and reported, at the commit. Order of a commit: layers and config
//! into every repository, then the manifest under each tag, so that a tag never points at a gap.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::{BuildResult, Output, OutputError, OutputParts, PushOptions, Receipt};
use crate::blob::{BlobSource, Growing};
use crate::event::{Reporter, with_causes};
use crate::oci::{Descriptor, Digest, Layer, Reference};
use crate::registry::{Client, Pushed, RegistryError};
use crate::threads::{self, Beside};

/// Uploads at once: what saturates a link without making a registry refuse.
const UPLOADS: usize = 4;

/// Layers up to this size are sent unasked when they are new: no more than a few packets.
const UNASKED_BYTES: u64 = 16 << 10;

/// Pushes images.
pub(super) struct RegistryOutput {
    client: Client,
    names: Vec<Reference>,
    options: PushOptions,
    reporter: Reporter,
    early: Mutex<Option<EarlyUploads>>,
    /// Asks the registries whether they will take the image.
    asking: Mutex<Option<Beside<'static, Result<(), OutputError>>>>,
    /// Those that were asked.
    repositories: Vec<Reference>,
}

impl RegistryOutput {
    /// Begins to ask each registry whether it will take the image, unless the options say not to.
    pub(super) fn open(
        parts: &OutputParts,
        names: &[Reference],
        options: PushOptions,
    ) -> Result<Self, OutputError> {
        let targets = if names.is_empty() { &parts.names } else { names };
        if targets.is_empty() {
            return Err(OutputError::NoNames);
        }
        let repositories = repositories(targets);
        let asking = options.check.then(|| {
            let (client, repositories) = (parts.client.clone(), repositories.clone());
            Beside::start("ask", move || {
                repositories.iter().try_for_each(|repository| {
                    client.open_push(repository).map_err(|source| push_error(repository, source))
                })
            })
        });
        // Layers go to the first repository early; the others take them from there at the commit.
        let early = EarlyUploads::start(parts, repositories[0].clone());
        Ok(Self {
            client: parts.client.clone(),
            names: names.to_vec(),
            options,
            reporter: parts.reporter.clone(),
            early: Mutex::new(early),
            asking: Mutex::new(asking),
            repositories,
        })
    }

    /// Puts the image's layers into a repository, but for those that are `there` already or on their way.
    fn push_layers(
        &self,
        result: &BuildResult,
        repository: &Reference,
        there: &BTreeSet<Digest>,
        mount_from: &[Reference],
    ) -> Result<(), OutputError> {
        let mut layers: BTreeMap<Digest, &Descriptor> = BTreeMap::new();
        for layer in &result.image.layers {
            layers.insert(layer.digest(), &layer.descriptor);
        }
        layers.retain(|digest, _| !there.contains(digest));
        let layers: Vec<&Descriptor> = layers.into_values().collect();
        let push = |layer: &&Descriptor| {
            push_layer(&self.client, repository, layer, result.blobs.as_ref(), mount_from).map(drop)
        };
        threads::try_each("push", &layers, UPLOADS, push).map(drop)
    }

    /// Puts the image's config into a repository: new as good as always, since it says when it was made.
    fn push_config(&self, result: &BuildResult, repository: &Reference) -> Result<(), OutputError> {
        let config = &result.image.config_bytes;
        let open =
            || -> io::Result<Box<dyn io::Read + Send>> { Ok(Box::new(io::Cursor::new(config.clone()))) };
        self.client
            .push_new_blob(repository, &result.image.config_descriptor, &open)
            .map(drop)
            .map_err(|source| push_error(repository, source))
    }

    /// Waits for the early uploads; returns the layers that are to be sent again.
    fn finish_early(&self, early: EarlyUploads) -> BTreeSet<Digest> {
        let mut failed = BTreeSet::new();
        for (layer, outcome) in early.finish() {
            if let Err(error) = outcome {
                self.reporter.warning(format!(
                    "the early upload of layer {} failed and is done again: {error}",
                    layer.short()
                ));
                failed.insert(layer);
            }
        }
        failed
    }

    /// Puts the manifest under a name and checks what the registry made of it.
    fn put_manifest(&self, result: &BuildResult, name: &Reference) -> Result<(), OutputError> {
        let image = &result.image;
        let media_type = image.descriptor.media_type().to_string();
        let found = self
            .client
            .put_manifest(name, &media_type, &image.manifest)
            .map_err(|source| push_error(name, source))?;
        let expected = image.digest();
        if found == expected {
            Ok(())
        } else {
            Err(OutputError::OtherDigest { reference: name.to_string(), expected, found })
        }
    }
}

impl Drop for RegistryOutput {
    /// A build that failed, or had only to mount, has no use for the sessions that it asked with.
    fn drop(&mut self) {
        let asking = self.asking.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Who is still waiting for an answer is not waited for.
        if asking.as_ref().is_none_or(Beside::is_finished) {
            self.repositories.iter().for_each(|repository| self.client.close_push(repository));
        }
    }
}

impl Output for RegistryOutput {
    fn name(&self) -> String {
        "registry".to_owned()
    }

    fn confirm(&self) -> Result<(), OutputError> {
        // Who comes second waits here for the first, who is told.
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        asking.take().map_or(Ok(()), Beside::join)
    }

    fn layer_ready(&self, layer: &Layer) {
        if let Some(early) = &mut *self.early.lock().unwrap_or_else(PoisonError::into_inner) {
            early.queue(layer.clone());
        }
    }

    fn layer_growing(&self, growing: &Arc<Growing>) {
        if let Some(early) = &mut *self.early.lock().unwrap_or_else(PoisonError::into_inner) {
            early.stream(growing);
        }
    }

    fn needs_tree(&self) -> bool {
        false
    }

    fn commit(&self, result: &BuildResult) -> Result<Receipt, OutputError> {
        self.confirm()?;
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner).take();
        let names = result.names_or(&self.names);
        let repositories = repositories(names);
        if repositories.is_empty() {
            return Err(OutputError::NoNames);
        }
        let mut mount_from = result.mount_from.clone();
        for repository in &repositories {
            let underway = match &early {
                Some(early) if early.repository.name() == repository.name() => early.queued.clone(),
                _ => BTreeSet::new(),
            };
            // All at once: the config, what the early uploads left to do, and the end of those themselves.
            let failed = thread::scope(|scope| {
                let config = Beside::start_in(scope, "push", || self.push_config(result, repository));
                let layers = Beside::start_in(scope, "push", || {
                    self.push_layers(result, repository, &underway, &mount_from)
                });
                let failed = early.take().map(|early| self.finish_early(early)).unwrap_or_default();
                for thread in [config, layers] {
                    thread.join()?;
                }
                Ok::<_, OutputError>(failed)
            })?;
            if underway.iter().any(|layer| failed.contains(layer)) {
                let there = underway.difference(&failed).cloned().collect();
                self.push_layers(result, repository, &there, &mount_from)?;
            }
            mount_from.push(repository.clone());
        }
        let digest = result.image.digest();
        let mut tags = Vec::new();
        if self.options.by_digest {
            for repository in &repositories {
                self.put_manifest(result, &at_digest(repository, &digest)?)?;
            }
        } else {
            for name in names {
                let name = tagged(name)?;
                match self.put_manifest(result, &name) {
                    Err(error) if self.options.keep_immutable && is_immutable(&error) => {
                        self.reporter
                            .warning(format!("`{name}` exists and cannot be moved: {}", with_causes(&error)));
                    }
                    put => put?,
                }
                tags.push(name.to_string());
            }
        }
        let hosts: BTreeSet<&str> = repositories.iter().map(Reference::registry).collect();
        Ok(Receipt {
            name: self.name(),
            digest: Some(digest),
            size_bytes: result.size_bytes(),
            tags,
            location: hosts.into_iter().collect::<Vec<_>>().join(", "),
        })
    }
}

/// Returns each repository once, in the order of the names.
fn repositories(names: &[Reference]) -> Vec<Reference> {
    let mut seen = BTreeSet::new();
    names.iter().filter(|name| seen.insert(name.name())).cloned().collect()
}

/// Returns the name to push: with its tag (`latest` if it has none) and without a digest.
fn tagged(name: &Reference) -> Result<Reference, OutputError> {
    let tag = name.tag().unwrap_or("latest");
    name.with_tag(tag).map_err(|source| OutputError::Name { source })
}

/// Returns the repository at a digest and without a tag.
fn at_digest(repository: &Reference, digest: &Digest) -> Result<Reference, OutputError> {
    Reference::new(repository.registry(), repository.repository(), None, Some(digest.clone()))
        .map_err(|source| OutputError::Name { source })
}

fn push_error(reference: &Reference, source: crate::registry::RegistryError) -> OutputError {
    OutputError::Push { reference: reference.to_string(), source }
}

/// Puts one layer into a repository.
fn push_layer(
    client: &Client,
    repository: &Reference,
    layer: &Descriptor,
    blobs: &dyn BlobSource,
    mount_from: &[Reference],
) -> Result<Pushed, OutputError> {
    let open = || blobs.open(layer).map_err(io::Error::other);
    client.push_blob(repository, layer, &open, mount_from).map_err(|source| push_error(repository, source))
}

/// Puts a layer that this build has made into a repository: a small one without asking whether it is there, which in all
/// likelihood it is not, and which costs about as much as sending it.
fn push_made_layer(
    client: &Client,
    repository: &Reference,
    layer: &Descriptor,
    blobs: &dyn BlobSource,
) -> Result<Pushed, OutputError> {
    if layer.size() > UNASKED_BYTES {
        return push_layer(client, repository, layer, blobs, &[]);
    }
    let open = || blobs.open(layer).map_err(io::Error::other);
    client.push_new_blob(repository, layer, &open).map_err(|source| push_error(repository, source))
}

/// What became of an early upload; the error is for a warning.
type EarlyOutcome = (Digest, Result<(), String>);

/// Threads that upload layers while the build goes on.
struct EarlyUploads {
    client: Client,
    repository: Reference,
    queue: Sender<(Layer, Option<Stream>)>,
    queued: BTreeSet<Digest>,
    streams: Vec<Stream>,
    threads: Vec<JoinHandle<Vec<EarlyOutcome>>>,
}

/// A layer that is uploaded while it is written.
struct Stream {
    growing: Arc<Growing>,
    upload: JoinHandle<Result<(), RegistryError>>,
}

impl Stream {
    /// Returns whether the complete layer is in the repository: as soon as that is so, whoever brought it there.
    fn finish(self, client: &Client, repository: &Reference, layer: &Layer) -> bool {
        if !self.upload.is_finished() && client.blob_exists(repository, &layer.digest()).unwrap_or(false) {
            self.growing.abandon();
            // What it made of the end is no matter; that it panicked is known.
            let _ = self.upload.join();
            return true;
        }
        threads::joined(self.upload.join()).is_ok()
    }
}

impl EarlyUploads {
    /// Starts the threads; `None` where there are none to be had, which leaves all to the commit.
    fn start(parts: &OutputParts, repository: Reference) -> Option<Self> {
        let (queue, layers) = channel::<(Layer, Option<Stream>)>();
        let layers = Arc::new(Mutex::new(layers));
        // Two: enough to keep a link busy without taking the CPU from the build itself.
        let threads: Vec<_> = (0..2)
            .map_while(|_| {
                let layers = Arc::clone(&layers);
                let (client, store, repository) =
                    (parts.client.clone(), Arc::clone(&parts.store), repository.clone());
                let work = move || {
                    let mut outcomes = Vec::new();
                    loop {
                        let next = layers.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok((layer, stream)) = next else { return outcomes };
                        let digest = layer.digest();
                        if stream.is_some_and(|stream| stream.finish(&client, &repository, &layer)) {
                            outcomes.push((digest, Ok(())));
                            continue;
                        }
                        let done = push_made_layer(&client, &repository, &layer.descriptor, store.as_ref());
                        outcomes.push((digest, done.map(drop).map_err(|error| with_causes(&error))));
                    }
                };
                threads::spawn("upload", work).ok()
            })
            .collect();
        let (client, streams) = (parts.client.clone(), Vec::new());
        let queued = BTreeSet::new();
        (!threads.is_empty()).then_some(Self { client, repository, queue, queued, streams, threads })
    }

    /// Begins to upload a layer that is still written; what fails here, or finds no thread, is done again when it is complete.
    fn stream(&mut self, growing: &Arc<Growing>) {
        let (client, repository) = (self.client.clone(), self.repository.clone());
        let growing = Arc::clone(growing);
        let upload = threads::spawn("stream", {
            let growing = Arc::clone(&growing);
            move || client.push_stream(&repository, &mut growing.follow(), &|| growing.digest())
        });
        if let Ok(upload) = upload {
            self.streams.push(Stream { growing, upload });
        }
    }

    /// Queues a layer, each blob once; a queue nobody reads any more is found out at the commit.
    fn queue(&mut self, layer: Layer) {
        let digest = layer.digest();
        let at = self.streams.iter().position(|stream| stream.growing.digest().as_ref() == Some(&digest));
        let stream = at.map(|at| self.streams.swap_remove(at));
        if self.queued.insert(digest) {
            let _ = self.queue.send((layer, stream));
        } else if let Some(stream) = stream {
            stream.growing.abandon();
        }
    }

    /// Waits for what is under way; returns what became of every layer that was queued.
    fn finish(self) -> Vec<EarlyOutcome> {
        drop(self.queue);
        for stream in self.streams {
            stream.growing.abandon();
            let _ = stream.upload.join();
        }
        self.threads.into_iter().flat_map(|thread| threads::joined(thread.join())).collect()
    }
}

/// Tells whether a registry refuses to move a tag. There is no code for it: ECR, Artifact Registry, Harbor
/// and GitLab all say it in words.
fn is_immutable(error: &OutputError) -> bool {
    if let OutputError::Push { source, .. } = error
        && matches!(source.last(), RegistryError::Immutable { .. })
    {
        return true;
    }
    with_causes(error).to_ascii_lowercase().contains("immutable")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(texts: &[&str]) -> Vec<Reference> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn repositories_are_named_once_in_order() {
        let names = references(&["b.io/x:1", "a.io/x:1", "b.io/x:2", "b.io/y"]);
        let found: Vec<String> = repositories(&names).iter().map(Reference::name).collect();
        assert_eq!(found, ["b.io/x", "a.io/x", "b.io/y"]);
    }

    #[test]
    fn a_tag_is_pushed_without_a_digest_and_a_digest_without_a_tag() {
        let digest = Digest::of(b"x");
        let name: Reference = format!("r.io/app:1@{digest}").parse().unwrap();
        assert_eq!(tagged(&name).unwrap().to_string(), "r.io/app:1");
        assert_eq!(at_digest(&name, &digest).unwrap().to_string(), format!("r.io/app@{digest}"));
        assert_eq!(tagged(&"r.io/app".parse().unwrap()).unwrap().to_string(), "r.io/app:latest");
    }
}
