//! What a step mounts: sources, targets and devices never lead out of where they belong.
