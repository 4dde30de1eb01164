//! A small reader of OCI layouts: manifest, configuration and the tree that the layers add up to.
//!
//! Every digest and every diff id is checked on the way. Not a tool for huge images: layers are read whole.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// An image, read whole.
pub(crate) struct Image {
    pub(crate) digest: String,
    pub(crate) manifest: Value,
    pub(crate) config: Value,
    layers: Vec<Vec<u8>>,
}

/// One file of a layer or of the final tree.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// `f` file, `d` directory, `l` symlink, `c` and `b` devices, `p` fifo, as in `ls -l` and `find -type`.
    pub(crate) kind: char,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
    pub(crate) link: String,
    pub(crate) device: Option<(u32, u32)>,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
    pub(crate) content: Vec<u8>,
    /// Names of one file share this number; 0 for everything that has one name by nature.
    pub(crate) file_number: u64,
}

/// Paths without a leading slash, and what is there.
pub(crate) type Tree = BTreeMap<String, Node>;

impl Image {
    /// Reads the only image of an OCI layout, a directory or a tar.
    pub(crate) fn read(layout: &Path) -> Self {
        if layout.is_dir() {
            return Self::from_blobs(&|name| fs::read(layout.join(name)).unwrap());
        }
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(fs::File::open(layout).unwrap()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.insert(entry.path().unwrap().to_string_lossy().trim_start_matches("./").to_owned(), bytes);
        }
        Self::from_blobs(&|name| {
            files.get(name).unwrap_or_else(|| panic!("no `{name}` in the layout")).clone()
        })
    }

    fn from_blobs(read: &dyn Fn(&str) -> Vec<u8>) -> Self {
        let blob = |digest: &Value| {
            let digest = digest.as_str().unwrap();
            let bytes = read(&format!("blobs/{}", digest.replace(':', "/")));
            assert_eq!(sha256(&bytes), digest);
            bytes
        };
        let json = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
        let index = json(read("index.json"));
        let entries = index["manifests"].as_array().unwrap();
        assert_eq!(entries.len(), 1, "one image in the layout: {index}");
        let digest = entries[0]["digest"].as_str().unwrap().to_owned();
        let manifest = json(blob(&entries[0]["digest"]));
        let config = json(blob(&manifest["config"]["digest"]));
        let mut layers = Vec::new();
        for (position, descriptor) in manifest["layers"].as_array().unwrap().iter().enumerate() {
            let bytes = blob(&descriptor["digest"]);
            assert_eq!(descriptor["size"], bytes.len());
            let tar = decompress(&bytes);
            assert_eq!(config["rootfs"]["diff_ids"][position], sha256(&tar));
            layers.push(tar);
        }
        let history = config["history"].as_array().cloned().unwrap_or_default();
        let filled = history.iter().filter(|entry| entry["empty_layer"] != true).count();
        assert!(
            history.is_empty() || filled == layers.len(),
            "{filled} layers in the history of {}",
            layers.len()
        );
        Self { digest, manifest, config, layers }
    }

    /// The container configuration, `config` in the image's configuration.
    pub(crate) fn settings(&self) -> &Value {
        &self.config["config"]
    }

    pub(crate) fn layer_count(&self) -> usize {
        self.layers.len()
    }

    /// The entries of one layer in their order, whiteouts as they stand there.
    pub(crate) fn layer(&self, position: usize) -> Vec<(String, Node)> {
        entries(&self.layers[position])
    }

    /// The entries of the last layer, which is the last step's that changed files.
    pub(crate) fn last_layer(&self) -> Vec<String> {
        self.layer(self.layers.len() - 1).into_iter().map(|(path, _)| path).collect()
    }

    /// All layers applied, one after the other.
    pub(crate) fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        for layer in &self.layers {
            apply(&mut tree, entries(layer));
        }
        tree
    }

    /// A file's content as text.
    #[track_caller]
    pub(crate) fn text(&self, path: &str) -> String {
        let tree = self.tree();
        let node = tree.get(path).unwrap_or_else(|| panic!("no `{path}` in the image"));
        String::from_utf8(node.content.clone()).unwrap()
    }
}

/// One line for each path, for comparing and for reading: all that must agree between builders but the times.
pub(crate) fn listing(tree: &Tree) -> Vec<String> {
    let mut names: BTreeMap<u64, &str> = BTreeMap::new();
    let mut lines = Vec::new();
    for (path, node) in tree {
        let mut line = format!("{} {:04o} {}:{} {path}", node.kind, node.mode, node.uid, node.gid);
        match node.kind {
            'f' => {
                let first = *names.entry(node.file_number).or_insert(path);
                write!(line, " {} {}", node.content.len(), &sha256(&node.content)[7..19]).unwrap();
                if first != path {
                    write!(line, " = {first}").unwrap();
                }
            }
            'l' => write!(line, " -> {}", node.link).unwrap(),
            'c' | 'b' => write!(line, " {:?}", node.device).unwrap(),
            _ => {}
        }
        for (name, value) in &node.xattrs {
            write!(line, " {name}={}", sha256(value)).unwrap();
        }
        lines.push(line);
    }
    lines
}

fn apply(tree: &mut Tree, layer: Vec<(String, Node)>) {
    let mut own = std::collections::BTreeSet::new();
    for (path, node) in layer {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let inside =
            |directory: &str| if directory.is_empty() { String::new() } else { format!("{directory}/") };
        if name == ".wh..wh..opq" {
            let below = inside(directory);
            tree.retain(|path, _| !path.starts_with(&below) || own.contains(path));
        } else if let Some(hidden) = name.strip_prefix(".wh.") {
            remove(tree, &format!("{}{hidden}", inside(directory)));
        } else {
            let is_directory = node.kind == 'd';
            match tree.get(&path).map(|old| old.kind == 'd') {
                Some(true) if !is_directory => remove(tree, &path),
                Some(false) => drop(tree.remove(&path)),
                _ => {}
            }
            let node = if node.kind == 'h' {
                tree.get(&node.link)
                    .unwrap_or_else(|| panic!("`{path}`: hard link to missing `{}`", node.link))
                    .clone()
            } else {
                node
            };
            tree.insert(path.clone(), node);
            own.insert(path);
        }
    }
}

fn remove(tree: &mut Tree, path: &str) {
    let below = format!("{path}/");
    tree.retain(|other, _| other != path && !other.starts_with(&below));
}

/// The entries of a layer's tar; a hard link is of kind `h` here.
fn entries(tar: &[u8]) -> Vec<(String, Node)> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    let mut found = Vec::new();
    for entry in tar::Archive::new(Cursor::new(tar)).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut xattrs = BTreeMap::new();
        if let Some(extensions) = entry.pax_extensions().unwrap() {
            for extension in extensions.flatten() {
                if let Some(name) = extension.key().unwrap().strip_prefix("SCHILY.xattr.") {
                    xattrs.insert(name.to_owned(), extension.value_bytes().to_vec());
                }
            }
        }
        let path = normal(&String::from_utf8_lossy(&entry.path_bytes()));
        let link = entry
            .link_name_bytes()
            .map(|name| String::from_utf8_lossy(&name).into_owned())
            .unwrap_or_default();
        let header = entry.header().clone();
        let kind = match header.entry_type() {
            tar::EntryType::Directory => 'd',
            tar::EntryType::Symlink => 'l',
            tar::EntryType::Link => 'h',
            tar::EntryType::Char => 'c',
            tar::EntryType::Block => 'b',
            tar::EntryType::Fifo => 'p',
            _ => 'f',
        };
        let device = matches!(kind, 'c' | 'b')
            .then(|| (header.device_major().unwrap().unwrap(), header.device_minor().unwrap().unwrap()));
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        if path.is_empty() {
            continue;
        }
        let node = Node {
            kind,
            mode: header.mode().unwrap() & 0o7777,
            uid: header.uid().unwrap(),
            gid: header.gid().unwrap(),
            mtime: header.mtime().unwrap(),
            link: if kind == 'h' { normal(&link) } else { link },
            device,
            xattrs,
            content,
            file_number: NUMBERS.fetch_add(1, Ordering::Relaxed),
        };
        found.push((path, node));
    }
    found
}

fn normal(path: &str) -> String {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/")
}

fn decompress(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    } else if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        plain = zstd::decode_all(bytes).unwrap();
    } else {
        plain.extend_from_slice(bytes);
    }
    plain
}

fn sha256(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
