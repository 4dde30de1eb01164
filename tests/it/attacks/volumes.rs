//! In place below the container's own mounts: the step sees the image's files, and the volume is as before.
