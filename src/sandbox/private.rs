//! Files with credentials: empty from before the first step until after the last.
//!
//! Without namespaces a step is root beside kiln and can read, move, link and replace every file of the container. So each
//! file is opened once, before there is a step, and everything later goes through that descriptor: it is emptied, and
//! refilled once, by who has ended all that steps left: when no process of any is left. A file whose path leads elsewhere by
//! then, or that has got another name, is an error, and nothing is written.
//!
//! kiln, its keeper and the process that watches over a step hold the same descriptors, so that whichever is left of them
//! can refill. The content is in an anonymous file of which each has a descriptor as well.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, MemfdFlags, Mode, OFlags, ResolveFlags, memfd_create, open, openat2, unlinkat};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::look::at;
use super::mounting::mount_id;
use super::neighbours::Neighbours;
use super::reap::NobodyLeft;
use super::wire::path;
use crate::tree::regular;

/// What the steps for which files are emptied could write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// All that is in the container, kiln's store as well.
    All,
    /// Only what is below their root.
    Credentials,
}

impl Reach {
    /// Returns that of steps without namespaces.
    pub(super) fn of_steps(are_in_place: bool) -> Self {
        if are_in_place { Self::All } else { Self::Credentials }
    }

    /// Returns the name of the note in the state directory of what is empty now, for the next start if nobody is left to refill it.
    fn note(self) -> &'static str {
        match self {
            Self::All => "emptied.json",
            Self::Credentials => "emptied-for-chroot.json",
        }
    }
}

/// How many descriptors go with one message: a round number below the kernel's limit of 253.
const DESCRIPTORS_A_MESSAGE: usize = 64;

/// No file of credentials is larger.
const LARGEST_BYTES: u64 = 64 << 20;

/// What a file was like before it was emptied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Without links.
    #[serde(with = "path")]
    pub(super) path: PathBuf,
    device: u64,
    inode: u64,
    size_bytes: u64,
    mode: u32,
    owner: (u32, u32),
    modified: Duration,
}

/// A file and what belongs into it.
#[derive(Debug)]
struct PrivateFile {
    record: Record,
    file: File,
    content: File,
}

/// A file that cannot be emptied, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Visible {
    pub(super) path: PathBuf,
    pub(super) why: &'static str,
}

/// A file that could not be refilled, and why.
#[derive(Debug, thiserror::Error)]
#[error("`{}`, which was hidden from the steps, stays empty: {source}", path.display())]
pub(super) struct Lost {
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

/// How full the files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fill {
    Full,
    Empty,
    /// Empty for good: a step was not followed to its end.
    GivenUp,
}

/// The files of one build.
#[derive(Debug)]
pub(super) struct Private {
    state_dir: OwnedFd,
    reach: Reach,
    files: Vec<PrivateFile>,
    fill: Fill,
}

impl Private {
    /// Opens those of `paths` that hold something, and tells which of them cannot be emptied.
    pub(super) fn open(
        state_dir: &Path,
        reach: Reach,
        paths: &[PathBuf],
    ) -> io::Result<(Self, Vec<Visible>)> {
        std::fs::create_dir_all(state_dir)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let state_dir = open(state_dir, flags, Mode::empty())?;
        let mut private = Self { state_dir, reach, files: Vec::new(), fill: Fill::Full };
        let mut visible = Vec::new();
        if paths.is_empty() {
            return Ok((private, visible));
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        for path in paths {
            match private.open_one(path, &mounts).map_err(|error| at(path, error))? {
                None => {}
                Some(Opened::File(file)) => private.files.push(file),
                Some(Opened::Visible(file)) if visible.contains(&file) => {}
                Some(Opened::Visible(file)) => visible.push(file),
            }
        }
        Ok((private, visible))
    }

    fn open_one(&self, path: &Path, mounts: &str) -> io::Result<Option<Opened>> {
        let path = match std::fs::canonicalize(path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            other => other?,
        };
        // Looked at first, without opening it: a FIFO would wait for somebody who writes.
        let found = open(&path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let found = File::from(found);
        let metadata = found.metadata()?;
        let visible = |why| Ok(Some(Opened::Visible(Visible { path: path.clone(), why })));
        if metadata.file_type().is_socket() {
            return visible("it is an agent's socket, which steps can reach and have sign for them");
        }
        let known = |file: &PrivateFile| file.record.is(&metadata);
        if !metadata.is_file() || metadata.len() == 0 || self.files.iter().any(known) {
            return Ok(None);
        }
        if !is_this_containers(&found, mounts)? {
            return visible("it is on a mount, and maybe not this container's alone");
        }
        if metadata.nlink() != 1 {
            return visible("it has other names, too");
        }
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match open(&path, flags, Mode::empty()) {
            Err(rustix::io::Errno::ROFS) => return visible("it is on a read-only mount"),
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
                return visible("it is write-protected");
            }
            other => File::from(other?),
        };
        // Opening it for writing may have copied it up on an overlay: from here on this is the file.
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() > LARGEST_BYTES {
            return visible("it is no small file");
        }
        let content = File::from(memfd_create(c"credentials", MemfdFlags::CLOEXEC)?);
        let mut bytes = Vec::new();
        (&file).take(LARGEST_BYTES).read_to_end(&mut bytes)?;
        content.write_all_at(&bytes, 0)?;
        let record = Record {
            path,
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: bytes.len() as u64,
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            modified: metadata.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
        };
        Ok(Some(Opened::File(PrivateFile { record, file, content })))
    }

    /// Returns what the files hold, empty or not.
    pub(super) fn contents(&self) -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
        self.files.iter().map(|file| Ok((file.record.path.clone(), file.bytes()?))).collect()
    }

    /// Returns what the files were like.
    pub(super) fn records(&self) -> Vec<Record> {
        self.files.iter().map(|file| file.record.clone()).collect()
    }

    /// Tells which of them a process of another user's, which a step may have taken over, can read when they are refilled.
    pub(super) fn readable_for(&self, neighbours: &Neighbours) -> Vec<Visible> {
        let records = self.files.iter().map(|file| &file.record);
        let visible = |record: &Record| {
            let why = neighbours.may_read(record.mode, record.owner.0)?;
            Some(Visible { path: record.path.clone(), why })
        };
        records.filter_map(visible).collect()
    }

    /// Tells whether the files are empty now.
    pub(super) fn is_emptied(&self) -> bool {
        self.fill != Fill::Full
    }

    /// Tells whether they are for good.
    pub(super) fn has_given_up(&self) -> bool {
        self.fill == Fill::GivenUp
    }

    /// Leaves the files empty for good; tells whether there are any.
    pub(super) fn give_up(&mut self) -> bool {
        self.fill = Fill::GivenUp;
        !self.files.is_empty()
    }

    /// Takes the content out of the files.
    pub(super) fn empty(&mut self) -> io::Result<()> {
        if self.fill != Fill::Full {
            return Ok(());
        }
        self.fill = Fill::Empty;
        if self.files.is_empty() {
            return Ok(());
        }
        // Whatever a step put there is not opened.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        match unlinkat(&self.state_dir, self.reach.note(), AtFlags::empty()) {
            Err(Errno::NOENT) => {}
            other => other?,
        }
        let note = rustix::fs::openat(&self.state_dir, self.reach.note(), flags, Mode::RUSR | Mode::WUSR)?;
        File::from(note).write_all(&serde_json::to_vec(&self.records())?)?;
        self.files
            .iter()
            .try_for_each(|file| file.file.set_len(0).map_err(|error| at(&file.record.path, error)))
    }

    /// Puts the content back where the same file still is at its place, and tells where it is not.
    pub(super) fn fill(&mut self, _: NobodyLeft) -> Result<(), Lost> {
        match (self.fill, self.files.first()) {
            (Fill::Full, _) | (Fill::GivenUp, None) => return Ok(()),
            (Fill::GivenUp, Some(first)) => {
                let source = io::Error::other("a step was not followed to its end");
                return Err(Lost { path: first.record.path.clone(), source });
            }
            (Fill::Empty, _) => self.fill = Fill::Full,
        }
        let mut outcome = Ok(());
        for file in &self.files {
            if let Err(source) = file.fill() {
                outcome = outcome.and(Err(Lost { path: file.record.path.clone(), source }));
            }
        }
        // One that is not there says nothing to the next start.
        let _ = unlinkat(&self.state_dir, self.reach.note(), AtFlags::empty());
        outcome
    }

    /// Returns all descriptors, by which another process has the same with [`Self::take_over`].
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut descriptors = vec![self.state_dir.as_fd()];
        descriptors.extend(self.files.iter().flat_map(|file| [file.file.as_fd(), file.content.as_fd()]));
        descriptors
    }

    /// Makes the same of what another process handed over: descriptors, and what their files were like.
    pub(super) fn take_over(
        mut descriptors: impl Iterator<Item = OwnedFd>,
        reach: Reach,
        records: Vec<Record>,
    ) -> io::Result<Self> {
        let mut next = || descriptors.next().ok_or(io::ErrorKind::UnexpectedEof);
        let state_dir = next()?;
        let files = records
            .into_iter()
            .map(|record| Ok(PrivateFile { record, file: next()?.into(), content: next()?.into() }))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self { state_dir, reach, files, fill: Fill::Empty })
    }
}

enum Opened {
    File(PrivateFile),
    Visible(Visible),
}

/// Tells whether what is lost with all of kiln's processes goes with the container anyway: its own file system, one in memory,
/// or a volume that the engine or the cluster made for it. A file of the host's must not be emptied.
fn is_this_containers(file: &File, mounts: &str) -> io::Result<bool> {
    /// Parts of the paths, on their own file systems, of volumes that go with a job: Kubernetes', Docker's, podman's.
    const MADE_FOR_IT: &str = "/volumes/kubernetes.io~empty-dir/";
    /// The same of volumes of which only those without a name of their own do.
    const MAYBE_MADE_FOR_IT: [&str; 2] = ["/docker/volumes/", "/containers/storage/volumes/"];
    let id = mount_id(file)?;
    if id == mount_id(open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)? {
        return Ok(true);
    }
    let id = id.to_string();
    // proc_pid_mountinfo(5): id, parent, device, root, target, options, optional fields, `-`, type.
    let line = mounts.lines().find(|line| line.split(' ').next() == Some(&id)).unwrap_or_default();
    let root = line.split(' ').nth(3).unwrap_or_default();
    let kind = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').next());
    let name_in = |part| root.split_once(part).and_then(|(_, rest): (&str, &str)| rest.split('/').next());
    let is_anonymous = MAYBE_MADE_FOR_IT.into_iter().filter_map(name_in).any(is_made_up);
    Ok(kind == Some("tmpfs") || root.contains(MADE_FOR_IT) || is_anonymous)
}

/// Tells whether a volume's name is one that Docker and podman make up: such a volume goes with its container.
fn is_made_up(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Record {
    /// Tells whether this is the file.
    pub(super) fn is(&self, metadata: &std::fs::Metadata) -> bool {
        self.is_inode(metadata.dev(), metadata.ino())
    }

    /// The same by the numbers alone.
    pub(super) fn is_inode(&self, device: u64, inode: u64) -> bool {
        (self.device, self.inode) == (device, inode)
    }

    /// Opens what is at the path now, without following any link; an error if that is not the file.
    fn find(&self) -> io::Result<std::fs::Metadata> {
        let root = open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let path = self.path.strip_prefix("/").map_err(io::Error::other)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let found = openat2(root, path, flags, Mode::empty(), resolve).map_err(|errno| {
            io::Error::new(io::Error::from(errno).kind(), "it is not at its place any more")
        })?;
        let metadata = File::from(found).metadata()?;
        if !self.is(&metadata) {
            return Err(io::Error::other("another file is at its place"));
        }
        if metadata.nlink() != 1 {
            return Err(io::Error::other("it has got another name"));
        }
        Ok(metadata)
    }
}

impl PrivateFile {
    fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.record.size_bytes).map_err(io::Error::other)?];
        self.content.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn fill(&self) -> io::Result<()> {
        self.record.find()?;
        let bytes = self.bytes()?;
        // Closed to others before there is something to read.
        let (uid, gid) = self.record.owner;
        std::os::unix::fs::fchown(&self.file, Some(uid), Some(gid))?;
        self.file.set_permissions(std::fs::Permissions::from_mode(self.record.mode))?;
        self.file.set_len(0)?;
        self.file.write_all_at(&bytes, 0)?;
        self.file.set_modified(SystemTime::UNIX_EPOCH + self.record.modified)
    }
}

/// Tells whether a kiln has emptied files and not refilled them yet.
pub(super) fn is_noted(state_dir: &Path, reach: Reach) -> bool {
    state_dir.join(reach.note()).symlink_metadata().is_ok()
}

/// Says which files a kiln that was killed with all of its processes left empty, and removes them: nobody shall take what
/// is left for a secret without content. Nothing is refilled: nobody knows the content any more.
pub(super) fn settle(state_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut lost = Vec::new();
    for reach in [Reach::All, Reach::Credentials] {
        settle_one(state_dir, reach, &mut lost)?;
    }
    Ok(lost)
}

fn settle_one(state_dir: &Path, reach: Reach, lost: &mut Vec<PathBuf>) -> io::Result<()> {
    if !is_noted(state_dir, reach) {
        return Ok(());
    }
    let note = state_dir.join(reach.note());
    // A step may have put anything there: what is no file says nothing.
    let text = regular::read(&note).unwrap_or_default();
    // A note cut short was written before anything was emptied.
    let records: Vec<Record> = serde_json::from_slice(&text).unwrap_or_default();
    for record in records {
        if record.find().is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0) {
            std::fs::remove_file(&record.path).map_err(|error| at(&record.path, error))?;
            lost.push(record.path);
        }
    }
    let name = note.file_name().unwrap_or_default();
    crate::tree::RootDir::open_exact(state_dir)?.remove_all(name)
}

/// Sends any number of descriptors.
pub(super) fn send_descriptors(socket: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let count = u32::try_from(descriptors.len()).map_err(io::Error::other)?;
    (&*socket).write_all(&count.to_ne_bytes())?;
    for some in descriptors.chunks(DESCRIPTORS_A_MESSAGE) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_A_MESSAGE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(some)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        sendmsg(socket, &[IoSlice::new(&[0])], &mut control, SendFlags::empty())?;
    }
    Ok(())
}

/// Receives what [`send_descriptors`] sent; `None` if the other side is gone.
pub(super) fn receive_descriptors(socket: &UnixStream) -> io::Result<Option<Vec<OwnedFd>>> {
    let mut count = [0; 4];
    match (&*socket).read_exact(&mut count) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let count = usize::try_from(u32::from_ne_bytes(count)).map_err(io::Error::other)?;
    let mut descriptors = Vec::new();
    while descriptors.len() < count {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_A_MESSAGE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let received =
            recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                descriptors.extend(some);
            }
        }
    }
    Ok(Some(descriptors))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory on the container's own file system, without links in its path.
    fn directory() -> tempfile::TempDir {
        tempfile::tempdir_in("/").unwrap_or_else(|_| tempfile::tempdir().unwrap())
    }

    fn hide(directory: &Path, paths: &[PathBuf]) -> Private {
        let (mut private, visible) = Private::open(&directory.join("state"), Reach::All, paths).unwrap();
        assert_eq!(visible, []);
        private.empty().unwrap();
        private
    }

    #[test]
    fn a_file_is_emptied_and_filled_again() {
        let directory = directory();
        let path = directory.path().join("config.json");
        std::fs::write(&path, "token").unwrap();
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        let before = std::fs::metadata(&path).unwrap();
        let paths = [link, path.clone(), directory.path().join("none"), directory.path().to_owned()];
        let mut private = hide(directory.path(), &paths);
        assert_eq!(private.records().len(), 1);
        assert_eq!(private.contents().unwrap(), BTreeMap::from([(path.clone(), b"token".to_vec())]));
        assert!(!format!("{private:?}").contains(&format!("{:?}", b"token")));
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        assert!(is_noted(&directory.path().join("state"), Reach::All));
        // What a step does to the very file is undone.
        std::fs::write(&path, "longer than before").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        private.fill(NobodyLeft::in_a_test()).unwrap();
        let after = std::fs::metadata(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"token");
        assert_eq!((after.mode(), after.modified().unwrap()), (before.mode(), before.modified().unwrap()));
        assert!(!is_noted(&directory.path().join("state"), Reach::All));
    }

    #[test]
    fn nothing_is_written_where_another_file_is() {
        type Attack = fn(&Path);
        let attacks: [(&str, Attack); 4] = [
            ("not at its place", |at| std::fs::rename(at.join("d"), at.join("d2")).unwrap()),
            ("not at its place", |at| {
                std::fs::rename(at.join("d"), at.join("d2")).unwrap();
                symlink("d2", at.join("d")).unwrap();
            }),
            ("another file", |at| {
                std::fs::write(at.join("d/new"), "").unwrap();
                std::fs::rename(at.join("d/new"), at.join("d/config.json")).unwrap();
            }),
            ("another name", |at| std::fs::hard_link(at.join("d/config.json"), at.join("stolen")).unwrap()),
        ];
        for (why, attack) in attacks {
            let directory = directory();
            let path = directory.path().join("d/config.json");
            std::fs::create_dir(directory.path().join("d")).unwrap();
            std::fs::write(&path, "token").unwrap();
            let mut private = hide(directory.path(), std::slice::from_ref(&path));
            attack(directory.path());
            let lost = private.fill(NobodyLeft::in_a_test()).unwrap_err();
            assert_eq!(lost.path, path);
            assert!(lost.to_string().contains(why), "{why}: {lost}");
            assert!(!lost.to_string().contains("token"));
            for place in ["d/config.json", "d2/config.json", "stolen"] {
                assert!(std::fs::read(directory.path().join(place)).unwrap_or_default().is_empty(), "{why}");
            }
        }
    }

    #[test]
    fn another_process_can_refill() {
        let directory = directory();
        let path = directory.path().join("config.json");
        std::fs::write(&path, "token").unwrap();
        let private = hide(directory.path(), std::slice::from_ref(&path));
        let (ours, theirs) = UnixStream::pair().unwrap();
        send_descriptors(&ours, &private.descriptors()).unwrap();
        let records = private.records();
        drop((private, ours));
        let descriptors = receive_descriptors(&theirs).unwrap().unwrap();
        assert!(receive_descriptors(&theirs).unwrap().is_none());
        Private::take_over(descriptors.into_iter(), Reach::All, records)
            .unwrap()
            .fill(NobodyLeft::in_a_test())
            .unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"token");
    }

    #[test]
    fn what_was_given_up_stays_empty() {
        let directory = directory();
        let path = directory.path().join("config.json");
        std::fs::write(&path, "token").unwrap();
        let mut private = hide(directory.path(), std::slice::from_ref(&path));
        assert!(private.give_up());
        for _ in 0..2 {
            let lost = private.fill(NobodyLeft::in_a_test()).unwrap_err();
            assert!(lost.to_string().contains("not followed to its end"), "{lost}");
            assert_eq!(std::fs::read(&path).unwrap(), b"");
        }
    }

    #[test]
    fn any_number_of_descriptors_is_handed_over() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = File::open("/").unwrap();
        for count in [0, 1, DESCRIPTORS_A_MESSAGE, 2 * DESCRIPTORS_A_MESSAGE + 1] {
            send_descriptors(&ours, &vec![file.as_fd(); count]).unwrap();
            assert_eq!(receive_descriptors(&theirs).unwrap().unwrap().len(), count);
        }
    }

    #[test]
    fn what_nobody_refilled_is_told_and_removed() {
        let directory = directory();
        let (path, state) = (directory.path().join("config.json"), directory.path().join("state"));
        std::fs::write(&path, "token").unwrap();
        drop(hide(directory.path(), std::slice::from_ref(&path)));
        assert_eq!(settle(&state).unwrap(), std::slice::from_ref(&path));
        assert!(!path.exists());
        assert!(settle(&state).unwrap().is_empty());
        // One that was written anew is somebody else's.
        std::fs::write(&path, "token").unwrap();
        drop(hide(directory.path(), std::slice::from_ref(&path)));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "new").unwrap();
        assert!(settle(&state).unwrap().is_empty());
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn only_plain_files_of_the_containers_own_are_opened() {
        let directory = directory();
        let [fifo, two] = ["fifo", "two"].map(|name| directory.path().join(name));
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        std::fs::write(&two, "token").unwrap();
        std::fs::hard_link(&two, directory.path().join("names")).unwrap();
        let version = PathBuf::from("/proc/sys/kernel/ostype");
        let (private, visible) =
            Private::open(&directory.path().join("state"), Reach::All, &[fifo, two.clone(), version.clone()])
                .unwrap();
        assert_eq!(private.records(), []);
        // What the kernel makes up as it is read has no length, and so no content to hide.
        assert_eq!(visible.iter().map(|file| &file.path).collect::<Vec<_>>(), [&two]);
    }

    #[test]
    fn volumes_that_go_with_a_job_are_its_own() {
        let root = File::open("/proc").unwrap();
        let id = mount_id(&root).unwrap();
        let line = |root: &str, kind: &str| {
            format!("{id} 1 8:1 {root} /x rw,relatime shared:1 - {kind} /dev/sda1 rw\n")
        };
        let made_up = "0123456789abcdef".repeat(4);
        for (root_of, kind, own) in [
            ("/home/me/.docker", "ext4", false),
            ("/var/lib/kubelet/pods/0/volumes/kubernetes.io~empty-dir/builds", "ext4", true),
            ("/var/lib/kubelet/pods/0/volumes/kubernetes.io~secret/registry", "ext4", false),
            (&format!("/var/lib/docker/volumes/{made_up}/_data"), "ext4", true),
            (&format!("/var/lib/containers/storage/volumes/{made_up}/_data"), "ext4", true),
            ("/var/lib/docker/volumes/credentials/_data", "ext4", false),
            ("/var/lib/containers/storage/volumes/credentials/_data", "ext4", false),
            ("/", "tmpfs", true),
        ] {
            assert_eq!(is_this_containers(&root, &line(root_of, kind)).unwrap(), own, "{root_of}");
        }
    }
}
