//! kiln builds container images from Dockerfiles without a daemon.
//!
//! This page is the map: the parts, which way data flows, and what holds everywhere.
//!
//! ```text
//! argv+env ─ cli ─▶ Request ─▶ Dockerfile ─▶ Plan ─▶ per stage, concurrently:
//!    Stage + Instruction ─▶ run: Rootfs + Launch ─▶ ChangeSet ─┐
//!                        └▶ copy: planned changes ─────────────┴▶ write_layer ─▶ Layer
//!    Layers + config ─▶ Image ─▶ Output.commit (blobs, config, manifest, then tags) ─▶ Receipt
//! ```
//!
//! # The house
//!
//! A file imports only lower floors and its own folder; floor-4 folders never import each other. The test
//! `floors` enforces it.
//!
//! | floor | folder | what it is |
//! |---|---|---|
//! | 0 | [`oci`] | image vocabulary: digests, descriptors, configs, platforms, references; pure |
//! | 0 | [`event`] | what the library has to say: its only voice |
//! | 0 | [`own_files`] | whether the container's own files are in their places |
//! | 0 | [`text`] | what may be shown: URLs without passwords, texts of others without control characters |
//! | 0 | [`threads`] | threads that the system may refuse: parallel work, work beside, panics that are not lost |
//! | 0 | [`space`] | full file systems: which one, and what is left on it |
//! | 1 | [`dns`] | names to addresses, by files read once |
//! | 1 | [`flock`] | waiting for locks between processes, and saying who is waited for |
//! | 1 | [`stream`] | hashing, verifying, compressing, decompressing, bounded pipes |
//! | 1 | [`tree`] | files below a root and never above it; walking and copying them; opening what kiln keeps |
//! | 1 | [`dockerfile`] | text to syntax tree, variable expansion, history texts; pure |
//! | 2 | [`blob`] | content-addressed bytes: sources, and the local store in OCI-layout form |
//! | 2 | [`layer`] | changes to layers and back: canonical tar, hostile-input checks |
//! | 2 | [`plan`] | syntax to build graph, and BuildKit's lint rules; pure |
//! | 3 | [`registry`] | the distribution client: credentials, pull, push, mount, mirrors |
//! | 3 | [`context`] | build contexts: directory, tar, git, HTTP, object stores; ignore files; wildcards |
//! | 3 | [`snapshot`] | what changed in a tree: an overlay's upper directory, or two indexes |
//! | 3 | [`compare`] | what differs between two images: documents, layers, paths; and the usual causes |
//! | 3 | [`sandbox`] | socket *launch*: one process in a root; all `unsafe` code is in `sandbox/sys.rs` |
//! | 4 | [`rootfs`] | socket *storage*: where a stage's files live: overlay or plain directory |
//! | 4 | [`output`] | socket *output*: registry, OCI layout, docker archive, root filesystem, store |
//! | 4 | [`cache`] | socket *cache*: what steps made, by key: registry repository, local directory |
//! | 5 | [`images`] | whole images wherever they are: copied, kept, merged into indexes |
//! | 5 | [`build`] | the engine: schedule, base images, one file for each kind of step |
//! | 6 | [`cli`] | the front doors (docker's and kaniko's), wiring, progress, failure rendering |
//!
//! A socket is a small trait with an `open()` that only `cli/wire.rs` calls. Nothing outside a socket asks
//! which implementation it has.
//!
//! # What holds everywhere
//!
//! * A stage's files are made only when a step or a reader needs them: a copy is planned against a view of
//!   the tree and becomes a layer straight from its source (`build/tree.rs`, `build/copy/`).
//! * A layer depends on what changed and on nothing else: entries in component-wise byte order with their
//!   ancestor directories, unchanged ones dropped, whole-second times, no names of users. Storage, isolation
//!   and thread count do not show in it.
//! * Given a source epoch the same input gives the same image digest. The commit of the context gives one.
//! * Bytes from outside are verified inside the reader that delivers them.
//! * Names (tags, `index.json`, output files) move last.
//! * Everything mounted dies with kiln: it works in a mount namespace of its own wherever it may have one.
//! * A step whose key is known to a cache does not run; nothing of what it made is fetched before something needs it.
//!   What comes out of a cache is checked, and used only on the very tree it was made on.
//!
//! Unpacked base layers, blobs and records of steps are kept in a private directory below kiln's root and reused.

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "a test that is refused a thread should stop"))]

pub mod blob;
pub mod build;
pub mod cache;
pub mod cli;
pub mod compare;
pub mod context;
pub mod dns;
pub mod dockerfile;
pub mod event;
pub mod flock;
pub mod images;
pub mod layer;
pub mod oci;
pub mod output;
pub mod own_files;
pub mod plan;
pub mod registry;
pub mod rootfs;
pub mod sandbox;
pub mod snapshot;
pub mod space;
pub mod stream;
pub mod text;
pub mod threads;
pub mod tree;
