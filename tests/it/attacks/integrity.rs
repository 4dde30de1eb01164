//! What a step in place can write to: other stages' trees, the store, kiln's own files. Nothing of it gets into an image.
