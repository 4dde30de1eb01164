//! Every output, told the same image, read back.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::blob::Layout;
use crate::oci::{DiffId, ImageConfig, ManifestFormat, descriptor, media_type};
use crate::registry::RegistryConfig;

/// A store with an image of three layers, two of them equal.
pub(super) struct Fixture {
    pub(super) directory: TempDir,
    store: Arc<Store>,
    pub(super) result: BuildResult,
    stdout: Arc<Mutex<Vec<u8>>>,
}

struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn tar_with(name: &str, content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content).unwrap();
    tar.into_inner().unwrap()
}

impl Fixture {
    pub(super) fn new(names: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        let one = tar_with("one", b"1");
        let two = tar_with("two", &[7; 3000]);
        let layer = |bytes: &Vec<u8>| {
            let digest = store.put(bytes).unwrap();
            Layer {
                descriptor: descriptor(media_type::OCI_LAYER, &digest, bytes.len() as u64),
                diff_id: DiffId::new(digest),
            }
        };
        let layers = vec![layer(&one), layer(&two), layer(&one)];
        let config = ImageConfig {
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            created: Some("1970-01-01T00:00:00Z".to_owned()),
            ..ImageConfig::default()
        };
        let image = Image::seal(config, layers, ManifestFormat::Oci, BTreeMap::new());
        let result = BuildResult {
            image,
            names: names.iter().map(|name| name.parse().unwrap()).collect(),
            blobs: store.clone(),
            tree: None,
            mount_from: Vec::new(),
        };
        Self { directory, store, result, stdout: Arc::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn parts(&self) -> OutputParts {
        let stdout = Arc::clone(&self.stdout);
        OutputParts {
            client: Client::new(RegistryConfig::default(), Reporter::silent()).unwrap(),
            store: Arc::clone(&self.store),
            reporter: Reporter::silent(),
            stdout: Arc::new(move || Box::new(Shared(Arc::clone(&stdout)))),
            names: self.result.names.clone(),
        }
    }

    fn put(&self, spec: &OutputSpec) -> Result<Receipt, OutputError> {
        open(spec, &self.parts())?.commit(&self.result)
    }

    fn oci_file(&self, name: &str) -> OutputSpec {
        OutputSpec::OciArchive { destination: Destination::File(self.path(name)), names: Vec::new() }
    }
}

fn names_of(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect()
}

fn entry(tar: &[u8], name: &str) -> Vec<u8> {
    let mut archive = tar::Archive::new(tar);
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut found = entries.find(|entry| entry.path().unwrap() == Path::new(name)).unwrap();
    let mut bytes = Vec::new();
    found.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_layout_archive_holds_each_blob_once_and_is_the_same_twice() {
    let fixture = Fixture::new(&["r.io/app:1", "r.io/app:2"]);
    let receipt = fixture.put(&fixture.oci_file("a.tar")).unwrap();
    fixture.put(&fixture.oci_file("b.tar")).unwrap();
    let bytes = fs::read(fixture.path("a.tar")).unwrap();
    assert_eq!(bytes, fs::read(fixture.path("b.tar")).unwrap());
    assert_eq!(receipt.tags, ["r.io/app:1", "r.io/app:2"]);
    assert_eq!(receipt.digest, Some(fixture.result.image.digest()));
    let names = names_of(&bytes);
    assert_eq!(&names[..4], ["oci-layout", "index.json", "blobs/", "blobs/sha256/"]);
    assert_eq!(names.len(), 4 + 4);
    let index: Value = serde_json::from_slice(&entry(&bytes, "index.json")).unwrap();
    let annotations = &index["manifests"][1]["annotations"];
    assert_eq!(annotations["org.opencontainers.image.ref.name"], "2");
    assert_eq!(annotations["io.containerd.image.name"], "r.io/app:2");
    for header in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let header = header.unwrap();
        assert_eq!((header.header().mtime().unwrap(), header.header().uid().unwrap()), (0, 0));
    }
}

#[test]
fn an_archive_is_read_back_whole() {
    let fixture = Fixture::new(&["r.io/app:1"]);
    fixture.put(&fixture.oci_file("a.tar")).unwrap();
    let layout = Layout::open(&fixture.path("a.tar")).unwrap();
    let image = read_image(&layout, layout.find(Some("1")).unwrap()).unwrap();
    assert_eq!(image.manifest, fixture.result.image.manifest);
    assert_eq!(image.layers, fixture.result.image.layers);
    for layer in &image.layers {
        copy_blob(&layout, &layer.descriptor, &mut std::io::sink()).unwrap();
    }
}

#[test]
fn a_docker_archive_has_a_manifest_that_old_docker_reads() {
    let fixture = Fixture::new(&["docker.io/library/app:1", "r.io/app"]);
    let destination = Destination::File(fixture.path("d.tar"));
    fixture.put(&OutputSpec::DockerArchive { destination, names: Vec::new() }).unwrap();
    let bytes = fs::read(fixture.path("d.tar")).unwrap();
    let manifest: Value = serde_json::from_slice(&entry(&bytes, "manifest.json")).unwrap();
    assert_eq!(manifest[0]["RepoTags"], serde_json::json!(["app:1", "r.io/app:latest"]));
    let config = entry(&bytes, manifest[0]["Config"].as_str().unwrap());
    assert_eq!(config, fixture.result.image.config_bytes);
    let layers = manifest[0]["Layers"].as_array().unwrap();
    assert_eq!(layers.len(), 3);
    assert_eq!(layers[0], layers[2]);
    for layer in layers {
        entry(&bytes, layer.as_str().unwrap());
    }
}

#[test]
fn standard_output_gets_the_same_archive() {
    let fixture = Fixture::new(&[]);
    fixture.put(&fixture.oci_file("a.tar")).unwrap();
    let spec = OutputSpec::OciArchive { destination: Destination::Stdout, names: Vec::new() };
    let receipt = fixture.put(&spec).unwrap();
    assert_eq!(receipt.location, "stdout");
    assert_eq!(*fixture.stdout.lock().unwrap(), fs::read(fixture.path("a.tar")).unwrap());
}

#[test]
fn a_layout_directory_keeps_its_other_images() {
    let fixture = Fixture::new(&["r.io/app:1"]);
    let path = fixture.path("new/layout");
    let spec = |names: &[&str]| OutputSpec::OciDirectory {
        path: path.clone(),
        names: names.iter().map(|name| name.parse().unwrap()).collect(),
    };
    fixture.put(&spec(&["r.io/other:1"])).unwrap();
    fixture.put(&spec(&[])).unwrap();
    fixture.put(&spec(&[])).unwrap();
    let layout = Layout::open(&path).unwrap();
    assert_eq!(layout.manifests().len(), 2);
    let image = read_image(&layout, layout.find(Some("r.io/app:1")).unwrap()).unwrap();
    for layer in &image.layers {
        copy_blob(&layout, &layer.descriptor, &mut std::io::sink()).unwrap();
    }
}

#[test]
fn a_directory_with_other_things_is_no_place_for_a_layout() {
    let fixture = Fixture::new(&[]);
    fs::create_dir(fixture.path("d")).unwrap();
    fs::write(fixture.path("d/file"), "").unwrap();
    let spec = OutputSpec::OciDirectory { path: fixture.path("d"), names: Vec::new() };
    assert!(matches!(fixture.put(&spec), Err(OutputError::NotLayout { .. })));
    assert_eq!(fs::read_dir(fixture.path("d")).unwrap().count(), 1);
}

#[test]
fn the_store_keeps_names_and_the_nameless() {
    let fixture = Fixture::new(&["r.io/app:1"]);
    fixture.put(&OutputSpec::Store { names: Vec::new() }).unwrap();
    let nameless = BuildResult { names: Vec::new(), ..fixture.result.clone() };
    let output = open(&OutputSpec::Store { names: Vec::new() }, &fixture.parts()).unwrap();
    output.commit(&nameless).unwrap();
    let tags: Vec<String> = fixture.store.tags().unwrap().into_iter().map(|t| t.reference).collect();
    assert_eq!(tags, ["r.io/app:1".to_owned(), fixture.result.image.digest().to_string()]);
    let image = read_image(fixture.store.as_ref(), &fixture.store.tags().unwrap()[0].descriptor).unwrap();
    assert_eq!(image.config, fixture.result.image.config);
}

/// A failure half-way leaves neither file nor name.
#[test]
fn a_missing_layer_leaves_no_trace() {
    let fixture = Fixture::new(&["r.io/app:1"]);
    let digest = fixture.result.image.layers[1].digest();
    fs::remove_file(fixture.path("store/blobs/sha256").join(digest.hex())).unwrap();
    assert!(fixture.put(&fixture.oci_file("a.tar")).is_err());
    assert!(!fixture.path("a.tar").exists());
    let layout = OutputSpec::OciDirectory { path: fixture.path("layout"), names: Vec::new() };
    assert!(fixture.put(&layout).is_err());
    assert!(!fixture.path("layout/index.json").exists());
    assert!(fixture.put(&OutputSpec::Store { names: Vec::new() }).is_err());
    assert!(fixture.store.tags().unwrap().is_empty());
}

fn with_tree() -> Fixture {
    let mut fixture = Fixture::new(&[]);
    let tree = fixture.path("tree");
    fs::create_dir_all(tree.join("d/e")).unwrap();
    fs::write(tree.join("d/file"), "content").unwrap();
    fs::hard_link(tree.join("d/file"), tree.join("z")).unwrap();
    std::os::unix::fs::symlink("/d/file", tree.join("link")).unwrap();
    fixture.result.tree = Some(Arc::new(RootDir::open(&tree).unwrap()));
    fixture
}

#[test]
fn a_root_filesystem_becomes_a_directory() {
    let fixture = with_tree();
    let out = fixture.path("out");
    let receipt = fixture.put(&OutputSpec::RootfsDirectory { path: out.clone() }).unwrap();
    assert_eq!(receipt.digest, None);
    assert_eq!(fs::read(out.join("d/file")).unwrap(), b"content");
    assert_eq!(fs::read_link(out.join("link")).unwrap(), Path::new("/d/file"));
}

#[test]
fn a_root_filesystem_becomes_a_tar() {
    let fixture = with_tree();
    let destination = Destination::File(fixture.path("out.tar"));
    fixture.put(&OutputSpec::RootfsArchive { destination }).unwrap();
    let bytes = fs::read(fixture.path("out.tar")).unwrap();
    assert_eq!(names_of(&bytes), ["d/", "d/e/", "d/file", "link", "z"]);
    let mut archive = tar::Archive::new(&bytes[..]);
    let last = archive.entries().unwrap().map(Result::unwrap).last().unwrap();
    assert_eq!(last.header().entry_type(), tar::EntryType::Link);
    assert_eq!(last.link_name().unwrap().unwrap(), Path::new("d/file"));
}

#[test]
fn a_root_filesystem_needs_its_files() {
    let fixture = Fixture::new(&[]);
    let spec = OutputSpec::RootfsDirectory { path: fixture.path("out") };
    assert!(open(&spec, &fixture.parts()).unwrap().needs_tree());
    assert!(matches!(fixture.put(&spec), Err(OutputError::NoTree { .. })));
}

/// Foreign readers, where they are installed.
#[test]
fn skopeo_reads_every_archive() {
    if Command::new("skopeo").arg("--version").output().is_err() {
        return;
    }
    let fixture = Fixture::new(&["docker.io/library/app:1"]);
    fixture.put(&fixture.oci_file("a.tar")).unwrap();
    let destination = Destination::File(fixture.path("d.tar"));
    fixture.put(&OutputSpec::DockerArchive { destination, names: Vec::new() }).unwrap();
    let path = fixture.path("layout");
    fixture.put(&OutputSpec::OciDirectory { path, names: Vec::new() }).unwrap();
    let root = fixture.directory.path().display();
    for source in [
        format!("oci-archive:{root}/a.tar"),
        format!("docker-archive:{root}/d.tar"),
        format!("oci-archive:{root}/d.tar"),
        format!("oci:{root}/layout:1"),
    ] {
        let to = format!("dir:{root}/copy-{}", source.len());
        let run = Command::new("skopeo").args(["copy", "--insecure-policy", &source, &to]).output().unwrap();
        assert!(run.status.success(), "{source}: {}", String::from_utf8_lossy(&run.stderr));
    }
}

/// Knows one document.
struct Single(Vec<u8>);

impl crate::blob::BlobSource for Single {
    fn open(&self, _: &crate::oci::Descriptor) -> Result<Box<dyn Read + Send>, crate::blob::BlobError> {
        Ok(Box::new(std::io::Cursor::new(self.0.clone())))
    }

    fn contains(&self, _: &crate::oci::Digest) -> Result<bool, crate::blob::BlobError> {
        Ok(true)
    }
}

/// Reading on from the entry panicked.
#[test]
fn an_index_with_another_kind_of_digest_is_an_error() {
    let platform = crate::oci::Platform::host();
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": media_type::OCI_MANIFEST, "size": 2, "digest": format!("sha512:{}", "0".repeat(128)),
        "platform": { "os": platform.os, "architecture": platform.architecture },
    }]});
    let bytes = serde_json::to_vec(&index).unwrap();
    let digest = crate::oci::Digest::of(&bytes);
    let described = descriptor(media_type::OCI_INDEX, &digest, bytes.len() as u64);
    let error = select_manifest(&Single(bytes), &described, &platform).unwrap_err();
    assert!(error.to_string().contains(digest.as_str()), "{error}");
}
