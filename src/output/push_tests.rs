//! Pushing, against a registry that fails on demand.

#[expect(clippy::duplicate_mod, reason = "shared with the registry's own tests")]
#[path = "../../tests/support/registry/mod.rs"]
mod support;

use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use support::fault::{Fault, FaultRegistry};
use support::http::Response;

use super::tests::Fixture;
use super::*;
use crate::event::{Event, Report};
use crate::registry::{RegistryConfig, Retries};

/// Keeps warnings.
#[derive(Clone, Default)]
struct Warnings(Arc<std::sync::Mutex<Vec<String>>>);

impl Report for Warnings {
    fn report(&self, event: Event) {
        if let Event::Warning { text, .. } = event {
            self.0.lock().unwrap().push(text);
        }
    }
}

struct Push {
    fixture: Fixture,
    parts: OutputParts,
    warnings: Warnings,
}

fn push(registry: &FaultRegistry, names: &[&str]) -> Push {
    push_with(registry, names, 0)
}

fn push_with(registry: &FaultRegistry, names: &[&str], retries: u32) -> Push {
    let names: Vec<String> = names.iter().map(|name| format!("{}/{name}", registry.host())).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let fixture = Fixture::new(&names);
    let warnings = Warnings::default();
    let retries = Retries { count: retries, first_pause: Duration::from_millis(1), ..Retries::default() };
    let reporter = Reporter::new(warnings.clone());
    let config = RegistryConfig { retries, ..RegistryConfig::default() };
    let client = Client::new(config, reporter.clone()).unwrap();
    let parts = OutputParts { client, reporter, ..fixture.parts() };
    Push { fixture, parts, warnings }
}

fn spec(options: PushOptions) -> OutputSpec {
    OutputSpec::Registry { names: Vec::new(), options }
}

fn quick() -> OutputSpec {
    spec(PushOptions { check: false, ..PushOptions::default() })
}

fn position(requests: &[String], wanted: &str) -> usize {
    requests.iter().position(|request| request.contains(wanted)).unwrap_or(usize::MAX)
}

fn wait_until(reached: impl Fn() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it took too long");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn layers_go_early_and_tags_last() {
    let registry = FaultRegistry::start();
    let push = push(&registry, &["app:1", "app:2"]);
    let output = open(&quick(), &push.parts).unwrap();
    for layer in &push.fixture.result.image.layers {
        output.layer_ready(layer);
    }
    let uploads =
        || registry.requests().iter().filter(|r| r.starts_with("PUT") && r.contains("/uploads/")).count();
    wait_until(|| uploads() == 2);
    assert_eq!(position(&registry.requests(), "/manifests/"), usize::MAX);
    let receipt = output.commit(&push.fixture.result).unwrap();
    // The config is all that was missing.
    assert_eq!(uploads(), 3);
    let requests = registry.requests();
    let first = requests.iter().position(|r| r.starts_with("PUT") && r.contains("/manifests/")).unwrap();
    assert!(requests[first..].iter().all(|r| r.contains("/manifests/")), "{requests:?}");
    assert_eq!(registry.count("HEAD", "/blobs/"), 0, "small layers that are new are sent unasked");
    assert_eq!(receipt.tags.len(), 2);
    assert!(push.warnings.0.lock().unwrap().is_empty());
}

#[test]
fn the_session_that_asked_takes_the_first_blob() {
    let registry = FaultRegistry::start();
    let push = push(&registry, &["app:1"]);
    let output = open(&spec(PushOptions::default()), &push.parts).unwrap();
    output.confirm().unwrap();
    output.commit(&push.fixture.result).unwrap();
    drop(output);
    // Two layers and the config: no session more, none to be given back.
    assert_eq!(registry.count("POST", "/uploads/"), 3);
    assert_eq!(registry.count("PUT", "/uploads/"), 3);
    assert_eq!(registry.count("DELETE", "/uploads/"), 0);
    assert!(registry.with(|state| state.sessions.is_empty()));
}

#[test]
fn a_build_that_pushes_nothing_gives_its_session_back() {
    let registry = FaultRegistry::start();
    let push = push(&registry, &["app:1", "other:1"]);
    let output = open(&spec(PushOptions::default()), &push.parts).unwrap();
    output.confirm().unwrap();
    assert_eq!(registry.with(|state| state.sessions.len()), 2);
    drop(output);
    assert!(registry.with(|state| state.sessions.is_empty()));
}

#[test]
fn a_session_that_was_forgotten_meanwhile_costs_a_request() {
    let registry = FaultRegistry::start();
    let push = push_with(&registry, &["app:1"], 1);
    let output = open(&spec(PushOptions::default()), &push.parts).unwrap();
    output.confirm().unwrap();
    registry.with(|state| state.sessions.clear());
    output.commit(&push.fixture.result).unwrap();
    assert_eq!(registry.count("POST", "/uploads/"), 4);
    assert_eq!(registry.with(|state| state.tags.len()), 1);
}

#[test]
fn a_second_repository_takes_its_layers_from_the_first() {
    let registry = FaultRegistry::start();
    let push = push(&registry, &["one:1", "two:1"]);
    open(&quick(), &push.parts).unwrap().commit(&push.fixture.result).unwrap();
    // All of the second repository's blobs are mounted, the config too.
    assert_eq!(registry.count("POST", "/two/blobs/uploads/"), 3);
    assert_eq!(registry.count("PUT", "/two/blobs/uploads/"), 0);
    assert_eq!(registry.with(|state| state.tags.len()), 2);
}

#[test]
fn an_early_upload_that_fails_is_done_again_and_said() {
    let registry = FaultRegistry::start();
    let push = push(&registry, &["app:1"]);
    registry.plan("PUT", "/uploads/", 1, Fault::Answer(Response::error(403, "DENIED", "no")));
    let output = open(&quick(), &push.parts).unwrap();
    output.layer_ready(&push.fixture.result.image.layers[0]);
    wait_until(|| registry.count("PUT", "/uploads/") == 1);
    output.commit(&push.fixture.result).unwrap();
    let warnings = push.warnings.0.lock().unwrap();
    assert!(warnings.iter().any(|text| text.contains("is done again")), "{warnings:?}");
    assert_eq!(registry.with(|state| state.tags.len()), 1);
}

/// Writes a layer of the fixture again, while the output may read along.
fn grow(push: &Push, output: &dyn Output, half_way: impl Fn()) {
    let layer = &push.fixture.result.image.layers[0];
    let bytes = push.parts.store.read(&layer.descriptor).unwrap();
    let mut writer = push.parts.store.writer().unwrap();
    let (first, second) = bytes.split_at(bytes.len() / 2);
    writer.write_all(first).unwrap();
    output.layer_growing(&writer.growing().unwrap());
    half_way();
    writer.write_all(second).unwrap();
    writer.commit(Some(&layer.descriptor)).unwrap();
    output.layer_ready(layer);
}

#[test]
fn a_large_layer_is_uploaded_while_it_is_written() {
    let registry = FaultRegistry::start();
    let push = push(&registry, &["app:1"]);
    let output = open(&quick(), &push.parts).unwrap();
    grow(&push, output.as_ref(), || wait_until(|| registry.count("POST", "/uploads/") == 1));
    output.commit(&push.fixture.result).unwrap();
    assert_eq!(registry.count("PATCH", "/uploads/"), 1);
    // One for each blob: the layer is not sent again.
    assert_eq!(registry.count("PUT", "/uploads/"), 3);
    assert_eq!(registry.with(|state| state.tags.len()), 1);
}

#[test]
fn a_large_layer_that_was_cut_or_never_completed_is_no_loss() {
    let registry = FaultRegistry::start();
    let push = push(&registry, &["app:1"]);
    registry.plan("PATCH", "/uploads/", 1, Fault::Answer(Response::error(500, "UNKNOWN", "no")));
    let output = open(&quick(), &push.parts).unwrap();
    let mut given_up = push.parts.store.writer().unwrap();
    given_up.write_all(b"half a layer").unwrap();
    output.layer_growing(&given_up.growing().unwrap());
    drop(given_up);
    grow(&push, output.as_ref(), || ());
    output.commit(&push.fixture.result).unwrap();
    assert_eq!(registry.count("PUT", "/uploads/"), 3);
    assert_eq!(registry.with(|state| state.tags.len()), 1);
    assert!(push.warnings.0.lock().unwrap().is_empty());
}

#[test]
fn no_tag_moves_if_a_blob_is_refused() {
    let registry = FaultRegistry::start();
    let push = push(&registry, &["app:1"]);
    registry.plan("PUT", "/uploads/", 9, Fault::Answer(Response::error(403, "DENIED", "no")));
    let error = open(&quick(), &push.parts).unwrap().commit(&push.fixture.result).unwrap_err();
    assert!(matches!(error, OutputError::Push { .. }), "{error:?}");
    assert!(registry.with(|state| state.tags.is_empty()));
}

#[test]
fn an_immutable_tag_is_an_error_unless_it_may_stay() {
    let registry = FaultRegistry::start();
    let refusal = || Fault::Answer(Response::error(400, "TAG_INVALID", "the repository is immutable"));
    let push = push(&registry, &["app:1"]);
    registry.plan("PUT", "/manifests/", 1, refusal());
    assert!(open(&quick(), &push.parts).unwrap().commit(&push.fixture.result).is_err());
    registry.plan("PUT", "/manifests/", 1, refusal());
    let keep = spec(PushOptions { check: false, keep_immutable: true, ..PushOptions::default() });
    open(&keep, &push.parts).unwrap().commit(&push.fixture.result).unwrap();
    let warnings = push.warnings.0.lock().unwrap();
    assert!(warnings.iter().any(|text| text.contains("cannot be moved")), "{warnings:?}");
}

#[test]
fn a_push_by_digest_moves_no_tag() {
    let registry = FaultRegistry::start();
    let push = push(&registry, &["app:1"]);
    let options = PushOptions { by_digest: true, check: false, ..PushOptions::default() };
    let receipt = open(&spec(options), &push.parts).unwrap().commit(&push.fixture.result).unwrap();
    assert!(receipt.tags.is_empty());
    assert!(registry.with(|state| state.tags.is_empty()));
    assert!(registry.requests().iter().any(|r| r.contains(push.fixture.result.image.digest().hex())));
}

#[test]
fn a_registry_that_refuses_is_found_out_before_the_build() {
    let registry = FaultRegistry::start();
    let push = push(&registry, &["app:1"]);
    registry.plan("POST", "/uploads/", 9, Fault::Answer(Response::error(403, "DENIED", "no")));
    assert!(matches!(
        open(&spec(PushOptions::default()), &push.parts).and_then(|output| output.confirm()),
        Err(OutputError::Push { .. })
    ));
    let nameless = OutputParts { names: Vec::new(), ..push.parts.clone() };
    assert!(matches!(open(&quick(), &nameless), Err(OutputError::NoNames)));
}
