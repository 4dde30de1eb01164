//! What kiln does instead: flags and variables of kaniko that are accepted and have nothing left to do.
//!
//! Each is said once, at info level, when it is given; nothing is dropped in silence.

use super::args::{ExecutorArgs, MootFlags, RegistryFlags};
use crate::cli::environment::Environment;

/// Returns a line for every moot flag and variable that was given.
pub(super) fn notes(args: &ExecutorArgs, environment: &Environment) -> Vec<String> {
    let mut notes = flags(&args.moot);
    notes.extend(of_values(args));
    notes.extend(super::cache::notes(&args.cache, environment));
    notes.extend(registry(&args.registry));
    notes.extend(variables(environment));
    notes
}

fn flags(moot: &MootFlags) -> Vec<String> {
    let given = [
        (
            moot.snapshot_mode.is_some(),
            "--snapshot-mode",
            "changes are found exactly and without reading files that did not change",
        ),
        (
            moot.use_new_run.is_some(),
            "--use-new-run",
            "every RUN is compared by metadata, with content only where that leaves a doubt",
        ),
        (
            moot.compressed_caching.is_some(),
            "--compressed-caching",
            "layers are streamed and never held in memory",
        ),
        (
            moot.cleanup.is_some(),
            "--cleanup",
            "stages live in directories of their own; the container is as it was after every build",
        ),
        (moot.pre_cleanup.is_some(), "--pre-cleanup", "the container's own files are never part of a build"),
        (
            moot.preserve_context.is_some(),
            "--preserve-context",
            "a build does not change the container's own files",
        ),
        (
            moot.materialize.is_some(),
            "--materialize",
            "files are made when a step needs them; use `kiln build --output type=local` for a tree",
        ),
        (
            moot.skip_unused_stages.is_some(),
            "--skip-unused-stages",
            "only stages that the target needs are built",
        ),
        (
            moot.force_build_metadata.is_some(),
            "--force-build-metadata",
            "metadata instructions make no layers, as in BuildKit",
        ),
        (
            moot.force.is_some(),
            "--force",
            "kiln runs inside and outside of containers (with KILN_ISOLATION=in-place it is what insists)",
        ),
    ];
    given
        .into_iter()
        .filter(|(given, ..)| *given)
        .map(|(_, flag, instead)| format!("{flag}: {instead}"))
        .collect()
}

fn of_values(args: &ExecutorArgs) -> Vec<String> {
    let mut notes = Vec::new();
    match args.ignore_var_run {
        Some(true) => {
            notes.push("--ignore-var-run: what the container mounts is never part of a layer".to_owned())
        }
        Some(false) => notes
            .push("--ignore-var-run=false: /var/run is part of layers like any other directory".to_owned()),
        None => {}
    }
    if args.git.iter().any(|text| text.starts_with("single-branch=") || text.starts_with("depth=")) {
        notes.push("--git single-branch, depth: kiln fetches the one commit it needs".to_owned());
    }
    notes
}

fn registry(flags: &RegistryFlags) -> Vec<String> {
    let mut notes = Vec::new();
    if flags.azure_container_registry_config.is_some() {
        notes.push(
            "--azure-container-registry-config: Azure is asked with AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET or a \
             federated token"
                .to_owned(),
        );
    }
    if flags.image_fs_extract_retry > 0 {
        notes.push(
            "--image-fs-extract-retry: a download that is cut is resumed where it was; an extraction need not be repeated"
                .to_owned(),
        );
    }
    notes
}

/// kaniko's feature flags, and what is true in kiln whatever they say.
const FEATURES: &[(&str, &str)] = &[
    ("ADD_CHECKSUM", "ADD --checksum is always verified"),
    ("BUILDKIT_ARG_ENV_PRECEDENCE", "ARG and ENV have BuildKit's precedence"),
    ("CACHE_HASH_BLAKE3", "kiln's cache keys are its own"),
    ("CACHE_LOOKAHEAD", "kiln's cache looks ahead by itself"),
    ("CACHE_PROBE_AFTER_MISS", "kiln's cache looks on after a miss by itself"),
    ("CHOWN_ON_IMPLICIT_DIRS", "--chown holds for directories made on the way, as in BuildKit"),
    ("CLEAN_KANIKO_DIR", "a build's directory is removed at its end"),
    ("COPY_AS_ROOT", "COPY makes files of root unless --chown says otherwise"),
    ("COPY_CHMOD_ON_IMPLICIT_DIRS", "--chmod holds for directories made on the way, as in BuildKit"),
    ("COPY_SKIP_SPECIAL_FILES", "special files are copied as BuildKit copies them"),
    ("CROSS_REPO_MOUNT", "layers that the registry has are mounted, not uploaded"),
    ("DEPRECATE_INTER_STAGE_RESTORE", "stages never share a root"),
    ("DEPRECATE_LAYERLESS_CACHE_ENTRIES", "kiln's cache records are its own"),
    ("DISABLE_HTTP2", "HTTP/2 is used where the registry offers it"),
    ("EXPAND_HEREDOC", "heredocs are expanded as in BuildKit"),
    ("HASH_DIR_FRAMING", "kiln's cache keys are framed"),
    ("IGNORE_CACHED_MANIFEST", "kiln's cache records are its own"),
    ("INFER_CROSS_STAGE_CACHE_KEY", "COPY --from is keyed by the stage's own key first"),
    ("NATIVE_COPY", "kiln copies by itself"),
    ("NO_PROPAGATE_ANNOTATIONS", "annotations of the base image are not passed on"),
    ("OCI_SCRATCH_BASE", "images from scratch are OCI images unless --image-format says otherwise"),
    ("OCI_WARMER", "the warmer writes an OCI layout"),
    ("PATH_SCOPED_REGISTRY_AUTH", "credentials are found by the longest matching path"),
    ("PLATFORM_CACHE_KEY", "the platform is part of kiln's cache keys"),
    ("PRECOMPILE_DOCKERIGNORE", "ignore patterns are compiled once"),
    ("PRESERVE_HARDLINKS", "hard links stay hard links"),
    ("PRESERVE_MOUNTED_PATHS", "what the container mounts is never touched"),
    ("RELATIVE_LINK_TARGETS", "hard links in layers have relative targets"),
    ("REPRODUCIBLE_PRESERVE_BASE_LAYERS", "layers of the base image are kept byte for byte"),
    ("RESOLVE_CACHE_KEY", "kiln's cache keys are its own"),
    ("ROLLING_CACHE_KEY", "kiln's cache keys are its own"),
    ("RUN_HONOR_GROUP", "USER user:group holds for RUN"),
    ("RUN_MOUNT_BIND", "RUN --mount works"),
    ("RUN_VIA_TINI", "what a step leaves running is killed and reaped"),
    ("SCOPED_DOCKERIGNORE", "<Dockerfile>.dockerignore goes before .dockerignore"),
    ("SECUREJOIN_EXTRACTION", "nothing is extracted outside of its root"),
    ("SHARED_BASE_CACHE", "base layers are shared by all builds of a store"),
    ("SKIP_CACHED_STAGES", "stages whose result is cached are not built"),
    ("SKIP_RELABEL_RECOMPRESS", "layers are not compressed again to change their media type"),
    ("SKIP_WRITE_WHITEOUTS", "whiteouts are written where something was removed"),
    ("UNTAR_SKIP_ROOT", "the root directory is never part of a layer"),
    ("VOLUME_SKIP_MKDIR", "VOLUME makes no directories, as in BuildKit"),
    ("WARMER_CACHE_LOCK", "the store is locked while it is written"),
];

/// kaniko's other variables that kiln has no use for.
const VARIABLES: &[(&str, &str)] = &[
    ("SNAPSHOT_TIMEOUT_DURATION", "finding changes has no time limit; it takes seconds"),
    ("BENCHMARK_FILE", "`--verbosity=debug` says where time goes"),
    ("STACKLOG_PATH", "`--verbosity=debug` says what kiln does"),
    ("KANIKO_CLEANUP", "the container is as it was after every build"),
    ("KANIKO_PRE_CLEANUP", "the container's own files are never part of a build"),
    ("KANIKO_PRESERVE_CONTEXT", "a build does not change the container's own files"),
    ("KANIKO_TELEMETRY_ENDPOINT", "kiln sends nothing to anybody"),
    ("KANIKO_TELEMETRY_OMIT_DOCKERFILE", "kiln sends nothing to anybody"),
    ("KANIKO_IGNORE_ASSERTIONS", "kiln has no assertions that could be ignored"),
    ("UPSTREAM_CLIENT_TYPE", "kiln names itself to registries"),
];

fn variables(environment: &Environment) -> Vec<String> {
    let mut notes = Vec::new();
    for (name, value) in &environment.variables {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
        if let Some(feature) = name.strip_prefix("FF_KANIKO_") {
            let instead = FEATURES.iter().find(|(known, _)| *known == feature).map_or(
                "kiln does not know this feature flag of kaniko; it has no effect",
                |(_, instead)| instead,
            );
            notes.push(format!("{name}={value}: {instead}"));
        } else if let Some((_, instead)) = VARIABLES.iter().find(|(known, _)| *known == name) {
            notes.push(format!("{name}: {instead}"));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::environment::tests::environment;
    use crate::cli::executor::args::ExecutorCli;

    fn said(words: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
        let cli = ExecutorCli::try_parse_from(["executor"].iter().chain(words)).unwrap();
        notes(&cli.build, &environment(variables))
    }

    #[test]
    fn nothing_is_said_of_what_is_not_given() {
        assert_eq!(said(&[], &[("PATH", "/bin")]), [""; 0]);
    }

    #[test]
    fn every_moot_flag_is_said_once() {
        let words = [
            "--snapshot-mode=redo",
            "--use-new-run",
            "--compressed-caching=false",
            "--cleanup",
            "--pre-cleanup",
            "--preserve-context",
            "--materialize",
            "--skip-unused-stages=true",
            "--force-build-metadata",
            "--force",
            "--ignore-var-run=false",
            "--git=depth=1",
            "--cache-copy-layers",
            "--image-fs-extract-retry=2",
            "--azure-container-registry-config=/etc/kubernetes/azure.json",
        ];
        let said = said(&words, &[]);
        assert_eq!(said.len(), words.len());
        for word in words {
            let flag = word.split('=').next().unwrap();
            assert_eq!(said.iter().filter(|note| note.starts_with(flag)).count().min(1), 1, "{flag}");
        }
    }

    #[test]
    fn feature_flags_are_explained() {
        let said =
            said(&[], &[("FF_KANIKO_RUN_VIA_TINI", "1"), ("FF_KANIKO_NEW", "true"), ("KANIKO_CLEANUP", "1")]);
        assert!(said[0].contains("FF_KANIKO_NEW=true: kiln does not know"));
        assert!(said[1].contains("killed and reaped"));
        assert!(said[2].starts_with("KANIKO_CLEANUP: "));
    }

    #[test]
    fn feature_flags_are_sorted_and_unique() {
        let mut names: Vec<&str> = FEATURES.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FEATURES.len());
    }
}
