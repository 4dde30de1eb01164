//! What a build step may do to a tree, one edit after the other.

use proptest::prelude::*;

use super::*;

/// One thing a build step may do. Names are picked from what is there.
#[derive(Debug, Clone)]
pub(super) enum Edit {
    File(String, String),
    Directory(String),
    Symlink(String, String),
    Fifo(String),
    Socket(String),
    HardLink(usize, String),
    Rename(usize, String),
    Remove(usize),
    Append(usize, String),
    /// Writes and puts the time back.
    WriteUnseen(usize, String),
    /// Writes what is there already and puts the time back.
    WriteSame(usize),
    Mode(usize, u32),
    SameMode(usize),
    Owner(usize, u32),
    Time(usize, i64),
    SameTime(usize),
    SetAttribute(usize, String),
    RemoveAttribute(usize),
    /// Removes and creates again with the same content, mode and time.
    Recreate(usize),
    Replace(usize, Box<Edit>),
    /// Removes a directory and makes it again, empty.
    Renew(usize),
}

pub(super) fn edit() -> impl Strategy<Value = Edit> {
    let name = || {
        prop_oneof![
            "[ab]",
            "[ab]/[abc]",
            "[ab]/[abc]/[ad]",
            "a/[ab]/a/[ab](/[ab])?",
            Just("o d\nd\u{ff}".to_owned()),
            "[ab]-"
        ]
    };
    let text = || "[xy]{0,3}";
    let leaf = prop_oneof![
        4 => (name(), text()).prop_map(|(name, text)| Edit::File(name, text)),
        4 => name().prop_map(Edit::Directory),
        2 => (name(), prop_oneof!["a", "/b/c", "\\.\\./x"]).prop_map(|(name, to)| Edit::Symlink(name, to)),
        1 => name().prop_map(Edit::Fifo),
        1 => name().prop_map(Edit::Socket),
        2 => (any::<usize>(), name()).prop_map(|(from, name)| Edit::HardLink(from, name)),
        3 => (any::<usize>(), name()).prop_map(|(from, name)| Edit::Rename(from, name)),
        2 => any::<usize>().prop_map(Edit::Remove),
        2 => (any::<usize>(), text()).prop_map(|(at, text)| Edit::Append(at, text)),
        2 => (any::<usize>(), text()).prop_map(|(at, text)| Edit::WriteUnseen(at, text)),
        1 => any::<usize>().prop_map(Edit::WriteSame),
        1 => (any::<usize>(), prop_oneof![Just(0o4755), Just(0o600)]).prop_map(|(at, mode)| Edit::Mode(at, mode)),
        1 => any::<usize>().prop_map(Edit::SameMode),
        1 => (any::<usize>(), 0_u32..2).prop_map(|(at, uid)| Edit::Owner(at, uid)),
        1 => (any::<usize>(), 0_i64..2).prop_map(|(at, time)| Edit::Time(at, time)),
        1 => any::<usize>().prop_map(Edit::SameTime),
        1 => (any::<usize>(), text()).prop_map(|(at, text)| Edit::SetAttribute(at, text)),
        1 => any::<usize>().prop_map(Edit::RemoveAttribute),
        1 => any::<usize>().prop_map(Edit::Recreate),
        1 => any::<usize>().prop_map(Edit::Renew),
    ];
    leaf.clone().prop_flat_map(move |edit| {
        prop_oneof![
            4 => Just(edit.clone()),
            1 => any::<usize>().prop_map(move |at| Edit::Replace(at, Box::new(edit.clone()))),
        ]
    })
}

/// Does an edit as far as it is possible; what is not is not done, on every tree alike.
pub(super) fn perform(root: &RootDir, edit: &Edit) {
    let all: Vec<PathBuf> = Walk::new(root, "").unwrap().map(|entry| entry.unwrap().path).collect();
    let at = |index: &usize| all.get(index % all.len().max(1));
    if let Edit::File(name, _) | Edit::Directory(name) | Edit::HardLink(_, name) | Edit::Rename(_, name) =
        edit
    {
        let parent = Path::new(name).parent().unwrap();
        let _ = root.create_dir_all(parent, 0o755, &mut |_| {});
    }
    let _ = match edit {
        Edit::File(name, text) => {
            root.create_file(name, 0o644).and_then(|mut file| file.write_all(text.as_bytes()))
        }
        Edit::Directory(name) => root.create_dir(name, 0o755),
        Edit::Symlink(name, target) => root.symlink(Path::new(target), name),
        Edit::Fifo(name) => root.mknod(name, FileKind::Fifo, 0o600),
        Edit::Socket(name) => root.mknod(name, FileKind::Socket, 0o600),
        Edit::HardLink(from, name) => at(from).map_or(Ok(()), |from| root.hard_link(from, name)),
        Edit::Rename(from, name) => at(from).map_or(Ok(()), |from| rename(root, from, Path::new(name))),
        Edit::Remove(index) => at(index).map_or(Ok(()), |path| root.remove_all(path)),
        Edit::Replace(index, edit) => {
            if let Some(path) = at(index) {
                root.remove_all(path).unwrap();
                let named = |edit: &Edit| match edit.clone() {
                    Edit::File(_, text) => Edit::File(path.to_str().unwrap().to_owned(), text),
                    Edit::Directory(_) => Edit::Directory(path.to_str().unwrap().to_owned()),
                    Edit::Symlink(_, target) => Edit::Symlink(path.to_str().unwrap().to_owned(), target),
                    edit => edit,
                };
                perform(root, &named(edit));
            }
            Ok(())
        }
        edit => {
            if let Some(path) = match edit {
                Edit::Append(index, _)
                | Edit::WriteUnseen(index, _)
                | Edit::WriteSame(index)
                | Edit::Mode(index, _)
                | Edit::SameMode(index)
                | Edit::Owner(index, _)
                | Edit::Time(index, _)
                | Edit::SameTime(index)
                | Edit::SetAttribute(index, _)
                | Edit::RemoveAttribute(index)
                | Edit::Recreate(index)
                | Edit::Renew(index) => at(index),
                _ => unreachable!(),
            } {
                change(root, path, edit);
            }
            Ok(())
        }
    };
}

/// Renames as programs do: a directory from a lower layer is copied and removed.
pub(super) fn rename(root: &RootDir, from: &Path, to: &Path) -> std::io::Result<()> {
    match root.rename(from, to) {
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
            if to.starts_with(from) || root.exists(to)? {
                return Ok(());
            }
            copy_tree(root, from, root, to)?;
            root.remove_all(from)
        }
        result => result,
    }
}

pub(super) fn change(root: &RootDir, path: &Path, edit: &Edit) {
    let metadata = root.metadata(path).unwrap();
    let file = || {
        let file = fs::OpenOptions::new().write(true).open(root.path().join(path)).unwrap();
        let length = file.metadata().unwrap().len();
        (file, length)
    };
    match edit {
        Edit::Mode(_, mode) if metadata.kind != FileKind::Symlink => root.set_mode(path, *mode).unwrap(),
        Edit::SameMode(_) if metadata.kind != FileKind::Symlink => {
            root.set_mode(path, metadata.mode).unwrap()
        }
        Edit::Owner(_, uid) if is_root() => root.set_owner(path, *uid, 0).unwrap(),
        Edit::Time(_, seconds) => {
            root.set_mtime(path, Timestamp { seconds: *seconds, nanoseconds: 9 }).unwrap();
        }
        Edit::SameTime(_) => root.set_mtime(path, metadata.mtime).unwrap(),
        Edit::Renew(_) if metadata.kind.is_dir() => {
            root.remove_all(path).unwrap();
            root.create_dir(path, metadata.mode).unwrap();
        }
        _ if metadata.kind != FileKind::File => {}
        Edit::Append(_, text) => {
            let (file, length) = file();
            file.write_all_at(text.as_bytes(), length).unwrap();
        }
        Edit::WriteUnseen(_, text) => {
            file().0.write_all_at(text.as_bytes(), 0).unwrap();
            root.set_mtime(path, metadata.mtime).unwrap();
        }
        Edit::WriteSame(_) => {
            let content = root.read(path).unwrap();
            file().0.write_all_at(&content, 0).unwrap();
            root.set_mtime(path, metadata.mtime).unwrap();
        }
        Edit::SetAttribute(_, text) => {
            root.set_xattr(path, OsStr::new("user.test"), text.as_bytes()).unwrap();
        }
        Edit::RemoveAttribute(_) => root.remove_xattr(path, OsStr::new("user.test")).unwrap(),
        Edit::Recreate(_) => {
            let (content, xattrs) = (root.read(path).unwrap(), root.xattrs(path).unwrap());
            root.remove_file(path).unwrap();
            root.create_file(path, metadata.mode).unwrap().write_all(&content).unwrap();
            xattrs.iter().for_each(|(name, value)| root.set_xattr(path, name, value).unwrap());
            root.set_mtime(path, metadata.mtime).unwrap();
        }
        _ => {}
    }
}
