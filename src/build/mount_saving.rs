//! Cache mounts across runners: begun with what was saved of them, and saved when they changed.
//!
//! Restoring is lazy: when the first step that has the mount runs, and only if there is no directory for it yet. Saving comes
//! after the image is delivered, takes the mount's lock, and is best effort: whatever goes wrong is a warning.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Build;
use super::cache_mount::Cache;
use super::error::Problem;
use super::mounts::io_problem;
use crate::cache::{Chain, Found, Inputs, MountCaches, MountSink, Record, StepName};
use crate::event::{Event, with_causes};
use crate::layer::{LayerOptions, TarOptions, write_layer};
use crate::oci::{Digest, Layer, ManifestFormat};
use crate::rootfs::unpack_over;
use crate::snapshot::compare_trees;
use crate::stream::Compression;
use crate::tree::{FileKind, RootDir, Walk};

/// How long a mount is waited for that another build is using: what it holds can be saved the next time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Package archives are compressed already: more effort would cost time and save next to nothing.
const LEVEL: i32 = 1;

/// The mounts that steps of this build have used, by the names of their directories, with what people call them.
#[derive(Debug, Default)]
pub(super) struct UsedMounts(Mutex<BTreeMap<String, String>>);

/// What is known of a directory's content: kept beside it.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Saved {
    /// Of the content when it was saved or restored.
    fingerprint: String,
    /// The caches that have it.
    places: Vec<String>,
}

/// The state of a directory, without reading its files.
struct Look {
    fingerprint: String,
    size_bytes: u64,
}

impl UsedMounts {
    /// Notes that a step uses a mount.
    pub(super) fn note(&self, name: &str, label: &str) {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        used.insert(name.to_owned(), label.to_owned());
    }

    fn all(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Build<'_> {
    /// Makes the directory `fresh` of what was saved of the mount, in the cache's own `directory`; `false` if there is
    /// nothing, or nothing that can be used. Then `fresh` may hold a part of it.
    pub(super) fn restore_mount(&self, name: &str, label: &str, directory: &RootDir, fresh: &str) -> bool {
        let services = self.services;
        let key = MountCaches::key(name);
        services
            .mount_caches
            .find(&key, &services.reporter)
            .any(|found| self.restore(&found, label, directory, fresh))
    }

    /// Makes `fresh` of what was found of a mount, whatever is there.
    fn restore(&self, found: &Found, label: &str, directory: &RootDir, fresh: &str) -> bool {
        let (services, started) = (self.services, Instant::now());
        let restore = || -> Result<(), Box<dyn std::error::Error>> {
            directory.remove_all(fresh)?;
            directory.create_dir(fresh, 0o755)?;
            let root = directory.subdir(fresh)?;
            match &found.blobs {
                Some(blobs) => unpack_over(&found.layer, &**blobs, &root, &services.reporter)?,
                None => unpack_over(&found.layer, &*services.store, &root, &services.reporter)?,
            }
            let fingerprint = look(&root)?.fingerprint;
            write_saved(directory, &Saved { fingerprint, places: vec![found.from.clone()] })?;
            Ok(())
        };
        match restore() {
            Ok(()) => {
                let took = started.elapsed().as_secs_f64();
                let bytes = found.layer.descriptor.size();
                let text = format!("cache mount {label}: {bytes} bytes from {} in {took:.1} s", found.from);
                services.reporter.info(text);
                true
            }
            Err(error) => {
                let text = format!(
                    "cache mount {label} could not be restored from `{}`: {}",
                    found.from,
                    with_causes(&*error)
                );
                services.reporter.warning(text);
                false
            }
        }
    }

    /// Saves the mounts that changed in this build.
    pub(super) fn save_mounts(&self) {
        if self.services.mount_caches.sinks.is_empty() {
            return;
        }
        for (name, label) in self.used_mounts.all() {
            if self.services.cancel.is_cancelled() {
                return;
            }
            if let Err(error) = self.save_mount(&name, &label) {
                let text = format!("cache mount {label} was not saved: {}", with_causes(&error));
                self.services.reporter.report(Event::Warning { text, hint: None });
            }
        }
    }

    fn save_mount(&self, name: &str, label: &str) -> Result<(), Problem> {
        let services = self.services;
        let root = &services.cache_mounts_dir;
        let Some(cache) = Cache::claim_alone(root, name, PATIENCE, &services.cancel)? else {
            services.reporter.info(format!("cache mount {label} was not saved: another build is using it"));
            return Ok(());
        };
        let tree = Arc::new(cache.content()?);
        let state = look(&tree).map_err(io_problem("read the cache", &cache.data()))?;
        let known = read_saved(cache.directory());
        let is_known = known.fingerprint == state.fingerprint;
        let wanted: Vec<&MountSink> = services
            .mount_caches
            .sinks
            .iter()
            .filter(|sink| !(is_known && known.places.contains(&sink.cache.describe())))
            .filter(|sink| self.fits(sink, label, state.size_bytes))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let layer = self.mount_layer(tree)?;
        // Others may use the mount while its content, which is in the store now, is on its way.
        let directory = cache.let_go();
        let mut places = if is_known { known.places } else { Vec::new() };
        let record = mount_record(name, label, layer, services.now.seconds);
        for sink in wanted {
            let place = sink.cache.describe();
            match sink.cache.put(&record, &*services.store) {
                Ok(()) => {
                    let bytes = record.layer.descriptor.size();
                    services.reporter.info(format!("cache mount {label}: {bytes} bytes saved to {place}"));
                    places.push(place);
                }
                Err(error) => {
                    let text = format!("cache mount {label} was not saved: {}", error.full());
                    services.reporter.report(Event::Warning { text, hint: error.hint() });
                }
            }
        }
        let saved = Saved { fingerprint: state.fingerprint, places };
        write_saved(&directory, &saved).map_err(io_problem("write beside the cache", directory.path()))
    }

    fn fits(&self, sink: &MountSink, label: &str, size_bytes: u64) -> bool {
        let Some(most) = sink.most_bytes.filter(|most| size_bytes > *most) else { return true };
        let text = format!(
            "cache mount {label} was not saved to `{}`: it has {size_bytes} bytes, and `max-size` is {most}",
            sink.cache.describe()
        );
        self.services.reporter.warning(text);
        false
    }

    /// Writes everything in a directory as a layer.
    fn mount_layer(&self, tree: Arc<RootDir>) -> Result<Layer, Problem> {
        let empty = self.services.work_dir.join("empty");
        fs::create_dir_all(&empty).map_err(io_problem("create", &empty))?;
        let nothing = Arc::new(RootDir::open(&empty).map_err(io_problem("open", &empty))?);
        let options = LayerOptions {
            compression: Compression::Zstd { level: LEVEL },
            threads: self.request.compression_threads,
            tar: TarOptions::default(),
            format: ManifestFormat::Oci,
        };
        Ok(write_layer(compare_trees(nothing, tree), &options, &self.services.store, None)?)
    }
}

fn mount_record(name: &str, label: &str, layer: Layer, created_seconds: i64) -> Record {
    Record {
        key: MountCaches::key(name),
        step: StepName { project: String::new(), stage: format!("cache mount {name}"), number: 0 },
        instruction: format!("cache mount {label}"),
        parent: Chain::of(&[]),
        sources: Vec::new(),
        layer,
        compression: Compression::Zstd { level: LEVEL },
        created_seconds,
        inputs: Inputs::default(),
    }
}

/// Looks at everything in a directory but the content of files: who writes a file changes its time.
fn look(root: &RootDir) -> io::Result<Look> {
    let mut hash = Sha256::new();
    let mut size_bytes: u64 = 0;
    for entry in Walk::new(root, "")? {
        let entry = entry?;
        let metadata = entry.metadata;
        let path = entry.path.as_os_str().as_encoded_bytes();
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path);
        hash.update(format!("{:?} {:o} {} {} ", metadata.kind, metadata.mode, metadata.uid, metadata.gid));
        if metadata.kind != FileKind::Directory {
            size_bytes += metadata.size_bytes;
            let mtime = metadata.mtime;
            hash.update(format!("{} {}.{} ", metadata.size_bytes, mtime.seconds, mtime.nanoseconds));
        }
    }
    Ok(Look { fingerprint: Digest::from_sha256(hash.finalize().into()).hex().to_owned(), size_bytes })
}

fn read_saved(directory: &RootDir) -> Saved {
    // Whatever is wrong with it: then the mount is saved again.
    let text = directory.read("saved").unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn write_saved(directory: &RootDir, saved: &Saved) -> io::Result<()> {
    let text = serde_json::to_vec(saved)?;
    directory.remove_all("saved")?;
    directory.create_file("saved", 0o644)?.write_all(&text)
}
