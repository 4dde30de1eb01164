//! Two runners with nothing in common but a registry: stores and networks of their own (`tools/runners`). How long the
//! second one takes is measured by w7 of `benches/run`.

use super::cache::{project_on, ran, requests};
use crate::support::distribution::Options;
use crate::support::need::{Busybox, Program, Root};
use crate::support::{Image, Kiln, Registry, base, run};

/// More than the base's configuration, the records and all that TCP says; much less than the smallest layer of
/// noise, which has 300,000 bytes.
const WORDS_ALONE: u64 = 60_000;

#[test]
fn another_runner_transfers_no_layer_and_pushes_by_mounting() {
    require!(Busybox, Root, Program("ip"));
    let registry = Registry::start(&Options { runners: 2, ..Options::default() });
    registry.push(&base::layout("busybox"), "latest", "base:1");
    let context = project_on(&registry.image("base:1"));
    let cache = registry.image("team/cache");
    let (to, from) = (format!("--cache-to={cache}"), format!("--cache-from={cache}"));
    let insecure = format!("--insecure-registry={}", registry.address());
    let build = |runner: usize, name: &str| {
        let (kiln, tag) = (Kiln::new(), format!("--tag={}", registry.image(name)));
        let command = kiln.build_command(context.path(), &[&insecure, "--push", &tag, &to, &from]);
        run(&mut registry.on(runner, &command)).ok()
    };
    let first = build(1, "team/app:1");
    assert!(ran(&first).len() >= 5, "{first}");
    assert!(registry.received(1) > 3 * WORDS_ALONE, "the base came to the first runner");
    let (before, received) = (registry.log().lines().count(), registry.received(2));
    let second = build(2, "team/elsewhere:2");
    assert_eq!(ran(&second), [""; 0], "{second}");
    nothing_but_names_moved(&requests(&registry, before));
    let received = registry.received(2) - received;
    assert!(received < WORDS_ALONE, "{received} bytes came to the runner\n{second}");
}

/// No layer was fetched or sent, and no more was asked than has to be.
fn nothing_but_names_moved(requests: &[(String, String, u64, u64)]) {
    let manifest = Image::read(&base::layout("busybox")).manifest;
    let base_config = manifest["config"]["digest"].as_str().unwrap();
    let layers: Vec<_> = requests
        .iter()
        .filter(|(method, path, _, bytes)| method == "GET" && path.contains("/blobs/") && *bytes > 0)
        .filter(|(_, path, ..)| !path.ends_with(base_config))
        .collect();
    assert!(layers.is_empty(), "{layers:#?}");
    let mounts = requests.iter().filter(|(_, path, status, _)| path.contains("mount=") && *status == 201);
    assert!(mounts.count() >= 3, "{requests:#?}");
    let records =
        requests.iter().filter(|(method, path, ..)| method == "GET" && path.contains("/manifests/key-"));
    assert!(records.count() <= 8, "one request for each step: {requests:#?}");
    // One blob is uploaded, the config; nothing is written to the cache, and no layer is even asked after.
    let sent = requests.iter().filter(|(method, path, ..)| {
        matches!(method.as_str(), "PUT" | "PATCH") && path.contains("/blobs/uploads/")
    });
    assert_eq!(sent.count(), 1, "{requests:#?}");
    let to_cache =
        requests.iter().filter(|(method, path, ..)| method != "GET" && path.starts_with("/v2/team/cache/"));
    assert_eq!(to_cache.count(), 0, "{requests:#?}");
    assert_eq!(requests.iter().filter(|(method, ..)| method == "HEAD").count(), 0, "{requests:#?}");
}

#[test]
fn runners_reach_the_registry_and_nothing_else() {
    require!(Busybox, Root, Program("ip"), Program("curl"));
    let registry = Registry::start(&Options { runners: 2, ..Options::default() });
    let elsewhere = Registry::open();
    let curl = |runner: usize, address: &str| {
        let mut command = std::process::Command::new("curl");
        command.args(["-sf", "--max-time", "5", &format!("http://{address}/v2/")]);
        run(&mut registry.on(runner, &command)).code
    };
    for runner in [1, 2] {
        assert_eq!(curl(runner, registry.address()), Some(0));
        assert_ne!(curl(runner, elsewhere.address()), Some(0), "this machine's own loopback");
    }
}
