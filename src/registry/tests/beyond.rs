//! Beyond one manifest: copies, indexes, artifacts, referrers, stores.

use super::support::distribution::{Distribution, Setup};
use super::support::fault::{Fault, FaultRegistry};
use super::support::http::Response;
use super::*;
use crate::blob::Store;
use crate::registry::Artifact;

fn push(client: &Client, name: &Reference, platform: &str, seed: u64) -> Image {
    let (image, memory) = image(&[noise(50_000, seed), noise(1000, 99)], platform, ManifestFormat::Oci);
    client.push_image(&image, &memory, std::slice::from_ref(name), &[]).unwrap();
    image
}

#[test]
fn an_image_is_copied_within_a_registry_by_mounts_and_between_registries_by_bytes() {
    let (one, two) = (FaultRegistry::start(), FaultRegistry::start());
    let client = client();
    let from = reference(format!("{}/a:1", one.host()));
    let image = push(&client, &from, "linux/amd64", 1);
    let uploads = one.count("PUT", "/uploads/");
    let within = reference(format!("{}/b/c:2", one.host()));
    assert_eq!(client.copy(&from, std::slice::from_ref(&within), None).unwrap(), image.digest());
    assert_eq!(one.count("PUT", "/uploads/"), uploads, "mounts alone");
    let beyond = reference(format!("{}/d:3", two.host()));
    client.copy(&from, std::slice::from_ref(&beyond), None).unwrap();
    let pulled = client.image(&beyond, &Platform::host()).unwrap();
    assert_eq!(pulled.image.manifest, image.manifest);
    // A tag is a copy within the repository.
    let tagged = from.with_tag("other").unwrap();
    client.copy(&from, std::slice::from_ref(&tagged), None).unwrap();
    assert_eq!(client.resolve(&tagged).unwrap().digest(), image.descriptor.digest());
    // By digest, too.
    let pinned = from.with_digest(image.digest());
    client.copy(&pinned, &[reference(format!("{}/e:1", two.host()))], None).unwrap();
}

#[test]
fn a_corrupt_blob_is_not_copied() {
    let (one, two) = (FaultRegistry::start(), FaultRegistry::start());
    let client = client();
    let from = reference(format!("{}/a:1", one.host()));
    push(&client, &from, "linux/amd64", 1);
    one.plan("GET", "/blobs/", 99, Fault::Replace(noise(50_000, 2)));
    let to = reference(format!("{}/a:1", two.host()));
    let error = client.copy(&from, std::slice::from_ref(&to), None).unwrap_err();
    assert!(error.full().contains("corrupt"), "{}", error.full());
    assert!(two.with(|state| state.tags.is_empty() && state.blobs.is_empty()));
}

#[test]
fn an_index_is_copied_whole_or_one_platform_of_it() {
    let (one, two) = (FaultRegistry::start(), FaultRegistry::start());
    let client = client();
    let name = |text: &str| reference(format!("{}/{text}", one.host()));
    let amd = push(&client, &name("a:amd"), "linux/amd64", 1);
    let arm = push(&client, &name("a:arm"), "linux/arm64", 2);
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [amd.descriptor, arm.descriptor],
    });
    let index = serde_json::to_vec(&index).unwrap();
    let digest = client.put_manifest(&name("a:1"), media_type::OCI_INDEX, &index).unwrap();
    let to = reference(format!("{}/b:1", two.host()));
    assert_eq!(client.copy(&name("a:1"), std::slice::from_ref(&to), None).unwrap(), digest);
    assert_eq!(two.with(|state| state.manifests.len()), 3);
    let platform: Platform = "linux/arm64".parse().unwrap();
    let alone = reference(format!("{}/c:1", two.host()));
    assert_eq!(client.copy(&name("a:1"), &[alone], Some(&platform)).unwrap(), arm.digest());
}

#[test]
fn an_image_goes_into_a_store_and_out_again() {
    let (one, two) = (FaultRegistry::start(), FaultRegistry::start());
    let client = client();
    let from = reference(format!("{}/a:1", one.host()));
    let image = push(&client, &from, "linux/amd64", 1);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    // A cut in the middle does not matter.
    one.plan("GET", "/blobs/", 1, Fault::CutDownload(20_000));
    let top = client.download(&from, None, &store).unwrap();
    assert_eq!(descriptor_digest(&top), image.digest());
    assert!(image.layers.iter().all(|layer| store.has(&layer.digest())));
    // Again, nothing is downloaded but the manifest.
    let blobs = one.count("GET", "/blobs/");
    client.download(&from, Some(&"linux/amd64".parse().unwrap()), &store).unwrap();
    assert!(one.count("GET", "/blobs/") <= blobs + 1, "the config at most");
    let to = reference(format!("{}/b:1", two.host()));
    assert_eq!(client.upload(&top, &*store, std::slice::from_ref(&to), &[]).unwrap(), image.digest());
    assert_eq!(client.image(&to, &Platform::host()).unwrap().image.manifest, image.manifest);
    // What is corrupt does not get in.
    let (other, heard) = (reference(format!("{}/c:1", one.host())), noise(50_000, 7));
    let bad = push(&client, &other, "linux/amd64", 6);
    one.plan("GET", "/blobs/", 99, Fault::Replace(heard));
    assert!(client.download(&other, None, &store).is_err());
    assert!(!store.has(&bad.layers[0].digest()));
}

fn sbom() -> (Artifact, Memory) {
    let bytes = b"{\"sbom\": true}".to_vec();
    let mut memory = Memory::default();
    memory.0.insert(Digest::of(&bytes), bytes.clone());
    let artifact = Artifact {
        artifact_type: "application/vnd.example.sbom".to_owned(),
        layers: vec![descriptor("application/json", &Digest::of(&bytes), bytes.len() as u64)],
        annotations: BTreeMap::from([("org.example".to_owned(), "y".to_owned())]),
        ..Artifact::default()
    };
    (artifact, memory)
}

#[test]
fn an_artifact_refers_to_its_image_by_the_tag_where_there_is_no_api() {
    let Some(registry) = Distribution::start(&Setup::default()) else { return };
    let (client, host) = (client(), registry.host());
    let name = reference(format!("{host}/app:1"));
    let image = push(&client, &name, "linux/amd64", 1);
    assert_eq!(client.referrers(&name, None).unwrap(), []);
    let (mut artifact, memory) = sbom();
    artifact.subject =
        Some(descriptor(media_type::OCI_MANIFEST, &image.digest(), image.manifest.len() as u64));
    let to = reference(format!("{host}/app:sbom"));
    let pushed = client.push_artifact(&artifact, &memory, &to).unwrap();
    client.push_artifact(&artifact, &memory, &to).unwrap();
    let found = client.referrers(&name, Some("application/vnd.example.sbom")).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].digest(), pushed.digest());
    assert!(client.referrers(&name, Some("application/other")).unwrap().is_empty());
    let (_, pulled) = client.artifact(&to).unwrap();
    assert_eq!(pulled.artifact_type, artifact.artifact_type);
    assert_eq!(pulled.layers, artifact.layers);
    assert_eq!(pulled.subject, artifact.subject);
    assert_eq!(read_all(&client, &to, &pulled.layers[0]).unwrap(), b"{\"sbom\": true}");
    // An artifact is not an image.
    let error = client.image(&to, &Platform::host()).unwrap_err();
    assert!(matches!(error, RegistryError::NotAnImage { .. }), "{error:?}");
    // One without files, and by digest alone.
    let empty = Artifact { artifact_type: "application/vnd.example.mark".to_owned(), ..Artifact::default() };
    client.push_artifact(&empty, &Memory::default(), &reference(format!("{host}/marks"))).unwrap();
}

#[test]
fn referrers_are_asked_for_where_there_is_an_api() {
    let registry = FaultRegistry::start();
    let client = client();
    let subject = reference(format!("{}/app:1", registry.host())).with_digest(Digest::of(b"subject"));
    let entry = serde_json::json!({
        "mediaType": media_type::OCI_MANIFEST, "digest": Digest::of(b"sbom").as_str(), "size": 4,
        "artifactType": "application/vnd.example.sbom",
    });
    let page = |entries: serde_json::Value| {
        let body =
            serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries});
        Response::new(200).header("content-type", media_type::OCI_INDEX).body(body.to_string())
    };
    let link = format!("</v2/app/referrers/{}?page=2>; rel=\"next\"", Digest::of(b"subject"));
    registry.plan(
        "GET",
        "/referrers/",
        1,
        Fault::Answer(page(serde_json::json!([entry])).header("link", link)),
    );
    registry.plan("GET", "/referrers/", 1, Fault::Answer(page(serde_json::json!([]))));
    assert_eq!(client.referrers(&subject, None).unwrap().len(), 1);
    assert_eq!(registry.count("GET", "/referrers/"), 2);
    // A registry that notes subjects itself needs no tag.
    let (mut artifact, memory) = sbom();
    artifact.subject = Some(descriptor(media_type::OCI_MANIFEST, &Digest::of(b"subject"), 7));
    let noted = Response::new(201).header("oci-subject", Digest::of(b"subject").to_string());
    registry.plan("PUT", "/manifests/", 1, Fault::Answer(noted));
    client.push_artifact(&artifact, &memory, &reference(format!("{}/app:sbom", registry.host()))).unwrap();
    assert_eq!(registry.count("PUT", "/manifests/"), 1);
}
