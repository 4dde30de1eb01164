//! Pushing images: blobs first, manifest last, tags only when all is there.

use super::support::fault::{Auth, Fault, FaultRegistry};
use super::support::http::Response;
use super::*;

fn sample() -> (Image, Memory) {
    image(&[noise(100_000, 1), noise(200_000, 2), noise(100_000, 1)], "linux/amd64", ManifestFormat::Oci)
}

#[test]
fn the_manifest_comes_last_and_blobs_once() {
    let registry = FaultRegistry::start();
    let (image, memory) = sample();
    let names: Vec<_> =
        ["a:1", "a:2", "b:1"].iter().map(|name| reference(format!("{}/{name}", registry.host()))).collect();
    let pushed = client().push_image(&image, &memory, &names, &[]).unwrap();
    // Two layers and a config to `a`; to `b` they are mounted.
    let count = |wanted: fn(&Pushed) -> bool| pushed.iter().filter(|(_, how)| wanted(how)).count();
    assert_eq!(count(|how| matches!(how, Pushed::Uploaded)), 3, "{pushed:?}");
    assert_eq!(count(|how| matches!(how, Pushed::Mounted { .. })), 3, "{pushed:?}");
    let requests = registry.requests();
    let first = requests.iter().position(|r| r.starts_with("PUT") && r.contains("/manifests/")).unwrap();
    assert!(requests[first..].iter().all(|r| r.contains("/manifests/")), "{requests:?}");
    assert_eq!(registry.with(|s| s.tags.len()), 3);
}

#[test]
fn several_registries_get_the_image_and_no_tag_moves_if_one_fails() {
    let (one, two) = (FaultRegistry::start(), FaultRegistry::start());
    let (image, memory) = sample();
    let names = [reference(format!("{}/a:1", one.host())), reference(format!("{}/b:1", two.host()))];
    two.plan("PUT", "/uploads/", 9, Fault::Answer(Response::error(403, "DENIED", "no")));
    let error = client().push_image(&image, &memory, &names, &[]).unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
    assert!(one.with(|s| s.tags.is_empty()) && two.with(|s| s.tags.is_empty()));
    let two = FaultRegistry::start();
    let names = [names[0].clone(), reference(format!("{}/b:1", two.host()))];
    client().push_image(&image, &memory, &names, &[]).unwrap();
    assert!(one.with(|s| s.tags.len() == 1) && two.with(|s| s.tags.len() == 1));
}

#[test]
fn a_mount_miss_goes_on_with_the_session_it_opened() {
    let registry = FaultRegistry::start();
    registry.with(|state| state.mounts = false);
    let bytes = noise(1000, 1);
    let open = || Ok(Box::new(Cursor::new(bytes.clone())) as Box<dyn Read + Send>);
    let to = reference(format!("{}/app", registry.host()));
    let from = [reference(format!("{}/base", registry.host())), reference("other.example/base")];
    assert_eq!(client().push_blob(&to, &blob_descriptor(&bytes), &open, &from).unwrap(), Pushed::Uploaded);
    assert_eq!(registry.count("POST", "/uploads/"), 1);
    // A repository that is said to have it and has not: the session of the miss is given back.
    let (other, client) = (noise(1000, 2), client());
    let open = || Ok(Box::new(Cursor::new(other.clone())) as Box<dyn Read + Send>);
    client.note_blob(&from[0], &Digest::of(&other));
    assert_eq!(client.push_blob(&to, &blob_descriptor(&other), &open, &[]).unwrap(), Pushed::Uploaded);
    assert_eq!((registry.count("POST", "/uploads/"), registry.count("DELETE", "/uploads/")), (3, 1));
    assert!(registry.with(|s| s.sessions.is_empty()));
}

#[test]
fn a_mount_that_is_denied_is_no_reason_to_fail() {
    let registry = FaultRegistry::start();
    let bytes = noise(1000, 1);
    registry.plan("POST", "/uploads/", 1, Fault::Answer(Response::error(403, "DENIED", "not yours")));
    let open = || Ok(Box::new(Cursor::new(bytes.clone())) as Box<dyn Read + Send>);
    let to = reference(format!("{}/app", registry.host()));
    let from = [reference(format!("{}/base", registry.host()))];
    assert_eq!(client().push_blob(&to, &blob_descriptor(&bytes), &open, &from).unwrap(), Pushed::Uploaded);
}

#[test]
fn a_robot_that_may_only_push() {
    let registry = FaultRegistry::start();
    registry.plan("HEAD", "/blobs/", 9, Fault::Answer(Response::new(403)));
    let (image, memory) = sample();
    client().push_image(&image, &memory, &[reference(format!("{}/a:1", registry.host()))], &[]).unwrap();
}

#[test]
fn immutable_tags_are_recognised() {
    for (status, code, message) in [
        (
            400,
            "TAG_INVALID",
            "The image tag '1' already exists in the 'a' repository and cannot be overwritten because the repository is immutable.",
        ),
        (412, "PRECONDITION", "Failed to process request due to 'a:1' configured as immutable."),
        (400, "MANIFEST_INVALID", "The repository has enabled tag immutability"),
        (409, "TAG_IMMUTABLE", ""),
    ] {
        let registry = FaultRegistry::start();
        let (image, memory) = sample();
        let name = reference(format!("{}/a:1", registry.host()));
        registry.put_manifest("a", "1", media_type::OCI_MANIFEST, b"{\"layers\":[]}");
        registry.plan("PUT", "/manifests/", 9, Fault::Answer(Response::error(status, code, message)));
        let error = client().push_image(&image, &memory, std::slice::from_ref(&name), &[]).unwrap_err();
        assert!(matches!(error, RegistryError::Immutable { .. }), "{error:?}");
        assert!(error.hint().unwrap().contains("--push-ignore-immutable-tag-errors"));
        // What is already there may be pushed again.
        registry.put_manifest("a", "1", media_type::OCI_MANIFEST, &image.manifest);
        client().push_image(&image, &memory, &[name], &[]).unwrap();
    }
}

#[test]
fn a_manifest_refused_for_a_blob_that_was_just_pushed_is_tried_again() {
    let registry = FaultRegistry::start();
    let unknown = Response::error(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry");
    registry.plan("PUT", "/manifests/", 2, Fault::Answer(unknown.clone()));
    let (image, memory) = sample();
    let name = reference(format!("{}/a:1", registry.host()));
    client().push_image(&image, &memory, std::slice::from_ref(&name), &[]).unwrap();
    registry.plan("PUT", "/manifests/", 99, Fault::Answer(unknown));
    let error = client().push_image(&image, &memory, &[name], &[]).unwrap_err();
    assert!(error.full().contains("MANIFEST_BLOB_UNKNOWN"), "{}", error.full());
}

#[test]
fn a_registry_that_stores_something_else_is_caught() {
    let registry = FaultRegistry::start();
    let wrong = Response::new(201).header("docker-content-digest", Digest::of(b"else").to_string());
    registry.plan("PUT", "/manifests/", 1, Fault::Answer(wrong));
    let (image, memory) = sample();
    let error = client().push_image(&image, &memory, &[reference(format!("{}/a:1", registry.host()))], &[]);
    assert!(matches!(error.unwrap_err(), RegistryError::Corrupt { .. }));
}

#[test]
fn manifest_unknown_after_a_push_is_not_found() {
    let registry = FaultRegistry::start();
    let (image, memory) = sample();
    let name = reference(format!("{}/a:1", registry.host()));
    client().push_image(&image, &memory, std::slice::from_ref(&name), &[]).unwrap();
    registry.with(|state| state.manifests.clear());
    let error = client().image(&name, &Platform::host()).unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("manifest `1` of `a`"), "{error}");
}

#[test]
fn the_permission_check_leaves_nothing_behind() {
    let registry = FaultRegistry::start();
    let to = reference(format!("{}/a:1", registry.host()));
    client().check_push(&to).unwrap();
    // The session is given back without anybody waiting for it.
    for _ in 0..500 {
        if registry.with(|state| state.sessions.is_empty()) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(registry.with(|state| state.sessions.is_empty() && state.blobs.is_empty()));
    registry.with(|s| s.auth = Auth::Basic { user: "u".to_owned(), password: "p".to_owned() });
    assert!(matches!(client().check_push(&to), Err(RegistryError::Unauthorized { .. })));
    // A registry that knows no cancellation is no reason to fail.
    registry.with(|s| s.auth = Auth::Open);
    registry.plan("DELETE", "/uploads/", 1, Fault::Answer(Response::new(405)));
    client().check_push(&to).unwrap();
}

#[test]
fn a_layer_that_must_not_be_distributed_stays_where_it_is() {
    let registry = FaultRegistry::start();
    let bytes = noise(1000, 1);
    let (mut image, memory) = image(&[], "windows/amd64", ManifestFormat::Oci);
    let kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let mut foreign = descriptor(kind, &Digest::of(&bytes), 1000);
    foreign.set_urls(Some(vec!["https://example.com/layer".to_owned()]));
    image.layers.push(Layer { descriptor: foreign, diff_id: DiffId::new(Digest::of(&bytes)) });
    let pushed =
        client().push_blobs(&image, &memory, &reference(format!("{}/a:1", registry.host())), &[]).unwrap();
    assert_eq!(pushed.len(), 1);
}

#[test]
fn a_tag_is_deleted_where_the_registry_can() {
    let registry = FaultRegistry::start();
    registry.put_manifest("a", "1", media_type::OCI_MANIFEST, b"{}");
    let name = reference(format!("{}/a:1", registry.host()));
    client().delete(&name).unwrap();
    assert!(registry.with(|s| s.tags.is_empty()));
    registry.plan("DELETE", "", 1, Fault::Answer(Response::error(405, "UNSUPPORTED", "unsupported")));
    let error = client().delete(&name).unwrap_err();
    assert!(matches!(error, RegistryError::Refused { .. }), "{error:?}");
}
