//! Users and groups of an image, read from its own `/etc/passwd` and `/etc/group`.
//!
//! Never from the machine kiln runs on, and never through NSS. The rules are runc's for `USER`
//! (moby/sys `user.GetExecUser`) and BuildKit's for `--chown`.

use std::io;

use crate::tree::RootDir;

/// Who a step runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExecUser {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Supplementary groups, the primary one included.
    pub(super) groups: Vec<u32>,
    /// Home directory; `/` for a user the image does not know.
    pub(super) home: String,
}

/// A user or group that the image does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// A name without an entry.
    #[error("unable to find {kind} {name}: no matching entries in {file} file")]
    Unknown {
        /// `user` or `group`.
        kind: &'static str,
        /// The name asked for.
        name: String,
        /// `passwd` or `group`.
        file: &'static str,
    },
    /// A name, and nothing below to look it up in. The text is BuildKit's.
    #[error("invalid user index: -1: there is no image below to look the name up in")]
    NoImage,
    /// An entry whose number no system has.
    #[error("uids and gids must be in range 0-2147483647: `{name}` is {id}")]
    OutOfRange {
        /// The user or group.
        name: String,
        /// Its number.
        id: i64,
    },
    /// The files exist and cannot be read.
    #[error("cannot read `{path}` of the image: {reason}")]
    Unreadable {
        /// Path in the image.
        path: &'static str,
        /// What the system said.
        reason: String,
    },
}

struct Passwd {
    name: String,
    uid: i64,
    gid: i64,
    home: String,
}

struct Group {
    name: String,
    gid: i64,
    members: Vec<String>,
}

/// The image's two files, parsed as runc and BuildKit do (moby/sys `user`): fields that are missing are empty, and
/// what is no number is 0.
struct Accounts {
    passwd: Option<Vec<Passwd>>,
    groups: Option<Vec<Group>>,
}

impl Accounts {
    fn read(root: &RootDir) -> Result<Self, UserError> {
        Ok(Self {
            passwd: read_lines(root, "/etc/passwd")?.map(|text| entries(&text).map(parse_passwd).collect()),
            groups: read_lines(root, "/etc/group")?
                .map(|text| entries(&text).filter(|line| !line.starts_with('#')).map(parse_group).collect()),
        })
    }

    fn passwd(&self) -> &[Passwd] {
        self.passwd.as_deref().unwrap_or_default()
    }

    fn groups(&self) -> &[Group] {
        self.groups.as_deref().unwrap_or_default()
    }
}

fn read_lines(root: &RootDir, path: &'static str) -> Result<Option<String>, UserError> {
    match root.read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(UserError::Unreadable { path, reason: e.to_string() }),
    }
}

fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

fn parse_passwd(line: &str) -> Passwd {
    let fields: Vec<&str> = line.split(':').collect();
    let field = |number: usize| fields.get(number).copied().unwrap_or_default();
    Passwd {
        name: field(0).to_owned(),
        uid: number(field(2)),
        gid: number(field(3)),
        home: field(5).to_owned(),
    }
}

fn parse_group(line: &str) -> Group {
    let fields: Vec<&str> = line.split(':').collect();
    let field = |number: usize| fields.get(number).copied().unwrap_or_default();
    let members = field(3).split(',').filter(|member| !member.is_empty()).map(str::to_owned);
    Group { name: field(0).to_owned(), gid: number(field(2)), members: members.collect() }
}

fn number(text: &str) -> i64 {
    text.parse().unwrap_or(0)
}

/// Brings an id into the system's form.
fn id(value: i64, name: &str) -> Result<u32, UserError> {
    let out_of_range = || UserError::OutOfRange { name: name.to_owned(), id: value };
    i32::try_from(value).ok().and_then(|value| u32::try_from(value).ok()).ok_or_else(out_of_range)
}

/// Finds who `USER spec` is in the image at `root`; an empty spec is root. What looks like a number is one, even if
/// a name looks the same.
pub(super) fn exec_user(spec: &str, root: &RootDir) -> Result<ExecUser, UserError> {
    let accounts = Accounts::read(root)?;
    let mut parts = spec.split(':');
    let user = parts.next().filter(|user| !user.is_empty()).unwrap_or("0");
    let group = parts.next().filter(|group| !group.is_empty());
    let wanted = user.parse::<i64>().ok().map(|uid| id(uid, user)).transpose()?;
    let entry = accounts.passwd().iter().find(|p| match wanted {
        Some(uid) => p.uid == i64::from(uid),
        None => p.name == user,
    });
    let (uid, primary, home) = match (entry, wanted) {
        (Some(entry), _) => (id(entry.uid, user)?, id(entry.gid, user)?, entry.home.clone()),
        (None, Some(uid)) => (uid, 0, "/".to_owned()),
        (None, None) => {
            return Err(UserError::Unknown { kind: "user", name: user.to_owned(), file: "passwd" });
        }
    };
    let (gid, mut groups) = match (group, entry) {
        (Some(group), _) => (find_group(&accounts, group)?, Vec::new()),
        (None, None) => (primary, Vec::new()),
        (None, Some(entry)) => {
            let member = accounts.groups().iter().filter(|g| g.members.contains(&entry.name));
            (primary, member.map(|g| id(g.gid, &g.name)).collect::<Result<_, _>>()?)
        }
    };
    if !groups.contains(&gid) {
        groups.insert(0, gid);
    }
    Ok(ExecUser { uid, gid, groups, home })
}

fn find_group(accounts: &Accounts, group: &str) -> Result<u32, UserError> {
    if let Ok(gid) = group.parse() {
        return id(gid, group);
    }
    match accounts.groups().iter().find(|g| g.name == group) {
        Some(entry) => id(entry.gid, group),
        None => Err(UserError::Unknown { kind: "group", name: group.to_owned(), file: "group" }),
    }
}

/// Finds the owner that `--chown=spec` names, looked up in the image at `root` (`None`: there is no image
/// below). BuildKit's rules: an unknown name is id 0, an unknown group that of the user; only where there is nothing
/// to look in at all, not even an empty file, a name is an error.
pub(super) fn chown_owner(spec: &str, root: Option<&RootDir>) -> Result<(u32, u32), UserError> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    };
    let accounts = match root {
        Some(root) if is_name(user) || group.is_some_and(is_name) => Accounts::read(root)?,
        Some(_) => Accounts { passwd: None, groups: None },
        None if is_name(user) || group.is_some_and(is_name) => return Err(UserError::NoImage),
        None => Accounts { passwd: None, groups: None },
    };
    let (uid, primary) = match numeric(user) {
        Some(uid) => (uid, uid),
        None => match accounts.passwd().iter().find(|p| p.name == user) {
            Some(entry) => (kept(entry.uid), kept(entry.gid)),
            None => (0, 0),
        },
    };
    let gid = match group {
        None => primary,
        Some(group) => match numeric(group) {
            Some(gid) => gid,
            None => accounts.groups().iter().find(|g| g.name == group).map_or(primary, |g| kept(g.gid)),
        },
    };
    Ok((uid, gid))
}

/// Tells whether a part of `--chown` has to be looked up.
pub(super) fn is_name(part: &str) -> bool {
    numeric(part).is_none()
}

/// Reads a part of `--chown` that needs no file: nothing is 0, as `root` is.
fn numeric(part: &str) -> Option<u32> {
    match part {
        "" | "root" => Some(0),
        part => part.parse::<i32>().ok().map(|value| kept(i64::from(value))),
    }
}

/// Turns an id into what `chown` makes of it: -1 leaves the owner of a new file, root.
fn kept(value: i64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the system call takes 32 bits"
    )]
    let id = value as u32;
    if id == u32::MAX { 0 } else { id }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> (tempfile::TempDir, RootDir) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let passwd = "root:x:0:0:root:/root:/bin/sh\n# comment\nweb:x:33:34::/var/www:/bin/sh\n";
        std::fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(dir.path().join("etc/group"), "root:x:0:\nweb:x:34:\nlog:x:7:web,x\n").unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn a_name_brings_its_groups_and_an_explicit_group_drops_them() {
        let (_dir, root) = image();
        let user = exec_user("web", &root).unwrap();
        assert_eq!((user.uid, user.gid, user.groups, user.home.as_str()), (33, 34, vec![34, 7], "/var/www"));
        let user = exec_user("web:log", &root).unwrap();
        assert_eq!((user.uid, user.gid, user.groups), (33, 7, vec![7]));
    }

    #[test]
    fn an_unknown_number_has_group_0_and_no_home() {
        let (_dir, root) = image();
        let user = exec_user("1234", &root).unwrap();
        assert_eq!((user.uid, user.gid, user.groups, user.home.as_str()), (1234, 0, vec![0], "/"));
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        let (_dir, root) = image();
        let text = exec_user("nosuch", &root).unwrap_err().to_string();
        assert_eq!(text, "unable to find user nosuch: no matching entries in passwd file");
        let text = exec_user("web:nosuch", &root).unwrap_err().to_string();
        assert_eq!(text, "unable to find group nosuch: no matching entries in group file");
    }

    /// runc and BuildKit read what is there of a line, and take 0 for what is no number.
    #[test]
    fn odd_lines_of_passwd_and_group_count_as_far_as_they_go() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let passwd = "\n#c:x:9:9::/c:\nshort:x:11\nbad:x:abc:3::/b:\nfive:x:5:55:::\nfive:x:6:66:::\n  lead:x:21:22::/l:/s\nbig:x:4294967296:1::/g\nlast:x:33:34";
        let group = "root:x:0:\n#g:x:8:five\nwheel:x:10:five,lead\nzz:x:zz:five\nshort:x\n77:x:177:\n";
        std::fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(dir.path().join("etc/group"), group).unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        let user = |spec: &str| {
            let user = exec_user(spec, &root).unwrap();
            (user.uid, user.gid, user.groups, user.home)
        };
        let home = str::to_owned;
        assert_eq!(user("short"), (11, 0, vec![0], home("")));
        assert_eq!(user("bad"), (0, 3, vec![3], home("/b")));
        assert_eq!(user("five"), (5, 55, vec![55, 10, 0], home("")));
        assert_eq!(user("6"), (6, 66, vec![66, 10, 0], home("")));
        assert_eq!(user("lead"), (21, 22, vec![22, 10], home("/l")));
        assert_eq!(user("#c"), (9, 9, vec![9], home("/c")));
        assert_eq!(user("last:77"), (33, 77, vec![77], home("")));
        assert_eq!(user("last:short"), (33, 0, vec![0], home("")));
        assert_eq!(user("last:wheel:more"), (33, 10, vec![10], home("")));
        assert_eq!(user("12"), (12, 0, vec![0], home("/")));
        for spec in ["big", "-1", "4294967295", "5:4294967295", "99999999999"] {
            let text = exec_user(spec, &root).unwrap_err().to_string();
            assert!(text.starts_with("uids and gids must be in range"), "{spec}: {text}");
        }
        for spec in ["five:#g", "c", "five:nosuch"] {
            assert!(exec_user(spec, &root).is_err(), "{spec}");
        }
        for (spec, owner) in
            [("short", (11, 0)), ("bad", (0, 3)), ("big", (0, 1)), ("1:zz", (1, 0)), ("c", (0, 0))]
        {
            assert_eq!(chown_owner(spec, Some(&root)).unwrap(), owner, "{spec}");
        }
    }

    proptest::proptest! {
        /// Against a model that knows nothing of files: a list of entries, the first of a name counts.
        #[test]
        fn names_are_looked_up_as_in_a_list(
            users in proptest::collection::vec(("[a-e]{1,2}", 0..2000_u32, 0..2000_u32), 0..8),
            groups in proptest::collection::vec(("[a-e]{1,2}", 0..2000_u32), 0..8),
            user in "[a-e]{1,2}|[0-9]{1,4}|",
            group in proptest::option::of("[a-e]{1,2}|[0-9]{1,4}|"),
        ) {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("etc")).unwrap();
            let passwd: String = users.iter().map(|(n, u, g)| format!("{n}:x:{u}:{g}::/h/{n}:/s\n")).collect();
            let file: String = groups.iter().map(|(n, g)| format!("{n}:x:{g}:\n")).collect();
            std::fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
            std::fs::write(dir.path().join("etc/group"), file).unwrap();
            let root = RootDir::open(dir.path()).unwrap();
            let spec = group.as_ref().map_or(user.clone(), |group| format!("{user}:{group}"));
            let named = users.iter().find(|(name, ..)| *name == user).map(|(_, uid, gid)| (*uid, *gid));
            let (uid, primary) = match user.parse() {
                Ok(uid) => (uid, uid),
                Err(_) => named.unwrap_or((0, 0)),
            };
            let gid = match group.as_deref() {
                None => primary,
                Some("") => 0,
                Some(text) => text.parse().ok().unwrap_or_else(|| {
                    groups.iter().find(|(name, _)| name == text).map_or(primary, |(_, gid)| *gid)
                }),
            };
            proptest::prop_assert_eq!(chown_owner(&spec, Some(&root)).unwrap(), (uid, gid));
        }
    }

    #[test]
    fn chown_follows_buildkits_rules() {
        let (_dir, root) = image();
        for (spec, expected) in [
            ("5", (5, 5)),
            (":7", (0, 7)),
            ("web", (33, 34)),
            ("web:log", (33, 7)),
            ("33:log", (33, 7)),
            ("nosuch", (0, 0)),
            ("5:nosuch", (5, 5)),
            ("5:", (5, 0)),
            ("web:", (33, 0)),
            ("web:nosuch", (33, 34)),
            ("root:log", (0, 7)),
            ("4294967295", (0, 0)),
        ] {
            assert_eq!(chown_owner(spec, Some(&root)).unwrap(), expected, "{spec}");
        }
        assert_eq!(chown_owner("1:2", None).unwrap(), (1, 2));
        for spec in ["web", "1:web", "web:1"] {
            let text = chown_owner(spec, None).unwrap_err().to_string();
            assert!(text.starts_with("invalid user index: -1"), "{text}");
        }
    }
}
