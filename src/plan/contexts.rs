//! Named contexts: which name of `--build-context` a stage or reference means.

use std::collections::BTreeSet;

use crate::oci::{Platform, Reference};

/// Finds the context that stands for `name`; one for the very platform beats one for all.
///
/// Names are compared as references: `alpine` is `docker.io/library/alpine:latest`. Nothing can stand for
/// `scratch` or `context`.
pub(super) fn find(contexts: &BTreeSet<String>, name: &str, platform: &Platform) -> Option<String> {
    if name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
        return None;
    }
    let wanted = canonical(name);
    let mut general = None;
    for key in contexts {
        match key.split_once("::") {
            None if canonical(key) == wanted => general = Some(key.clone()),
            Some((key_name, key_platform)) if canonical(key_name) == wanted => {
                let key_platform = key_platform.parse::<Platform>();
                if key_platform.is_ok_and(|key_platform| key_platform == platform.clone().normalised()) {
                    return Some(key.clone());
                }
            }
            _ => {}
        }
    }
    general
}

fn canonical(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_references() {
        let contexts: BTreeSet<String> =
            ["base", "docker.io/library/alpine:latest", "busybox:1", "x", "x::linux/arm64"]
                .map(str::to_owned)
                .into();
        let amd64: Platform = "linux/amd64".parse().unwrap();
        let arm64: Platform = "linux/arm64".parse().unwrap();
        let find = |name, platform| super::find(&contexts, name, platform);
        assert_eq!(find("base", &amd64).as_deref(), Some("base"));
        assert_eq!(find("alpine", &amd64).as_deref(), Some("docker.io/library/alpine:latest"));
        assert_eq!(find("docker.io/alpine", &amd64).as_deref(), Some("docker.io/library/alpine:latest"));
        assert_eq!(find("busybox", &amd64), None);
        assert_eq!(find("x", &amd64).as_deref(), Some("x"));
        assert_eq!(find("x", &arm64).as_deref(), Some("x::linux/arm64"));
        assert_eq!(find("Not A Reference", &amd64), None);
    }
}
