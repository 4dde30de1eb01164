//! kiln's own store as an output: the embedded default, so that a build needs no registry.

use std::sync::Arc;

use super::{BuildResult, Output, OutputError, Receipt, copy_blob};
use crate::blob::Store;
use crate::oci::{Layer, Reference};

/// Keeps images and their names in the store.
pub(super) struct StoreOutput {
    store: Arc<Store>,
    names: Vec<Reference>,
}

impl StoreOutput {
    /// Keeps images in `store`.
    pub(super) fn open(store: &Arc<Store>, names: &[Reference]) -> Self {
        Self { store: Arc::clone(store), names: names.to_vec() }
    }
}

impl Output for StoreOutput {
    fn name(&self) -> String {
        "store".to_owned()
    }

    fn layer_ready(&self, _layer: &Layer) {}

    fn needs_tree(&self) -> bool {
        false
    }

    fn commit(&self, result: &BuildResult) -> Result<Receipt, OutputError> {
        let image = &result.image;
        for layer in &image.layers {
            if self.store.has(&layer.digest()) {
                continue;
            }
            let mut writer = self.store.writer().map_err(OutputError::Store)?;
            copy_blob(result.blobs.as_ref(), &layer.descriptor, &mut writer)?;
            writer.commit(Some(&layer.descriptor)).map_err(OutputError::Store)?;
        }
        self.store.put(&image.config_bytes).map_err(OutputError::Store)?;
        self.store.put(&image.manifest).map_err(OutputError::Store)?;
        let names = result.names_or(&self.names);
        let mut tags: Vec<String> = names.iter().map(ToString::to_string).collect();
        // An image without a name is kept under its digest until `kiln prune`.
        if tags.is_empty() {
            self.set_tag(image.digest().as_str(), result)?;
        }
        for tag in &tags {
            self.set_tag(tag, result)?;
        }
        tags.dedup();
        Ok(Receipt {
            name: self.name(),
            digest: Some(image.digest()),
            size_bytes: result.size_bytes(),
            tags,
            location: self.store.path().display().to_string(),
        })
    }
}

impl StoreOutput {
    fn set_tag(&self, tag: &str, result: &BuildResult) -> Result<(), OutputError> {
        self.store.set_tag(tag, &result.image.descriptor).map_err(OutputError::Store)
    }
}
