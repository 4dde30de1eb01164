//! Users and groups of an image, read from its own `/etc/passwd` and `/etc/group`.
//!
//! Never from the machine kiln runs on, and never through NSS. The rules are runc's for `USER`
//! (opencontainers/runc `user.GetExecUser`) and BuildKit's for `--chown`.

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
    /// A name, and no file to look it up in.
    #[error("invalid {kind} index: -1")]
    NoFile {
        /// `user` or `group`.
        kind: &'static str,
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
    uid: u32,
    gid: u32,
    home: String,
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// The image's two files, parsed. Lines that are not entries are skipped, as runc does.
struct Accounts {
    passwd: Option<Vec<Passwd>>,
    groups: Option<Vec<Group>>,
}

impl Accounts {
    fn read(root: &RootDir) -> Result<Self, UserError> {
        Ok(Self {
            passwd: read_lines(root, "/etc/passwd")?
                .map(|text| text.lines().filter_map(parse_passwd).collect()),
            groups: read_lines(root, "/etc/group")?
                .map(|text| text.lines().filter_map(parse_group).collect()),
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

fn parse_passwd(line: &str) -> Option<Passwd> {
    let mut fields = line.trim().split(':');
    let (name, _password) = (fields.next()?, fields.next()?);
    let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let home = fields.nth(1).unwrap_or_default();
    Some(Passwd { name: name.to_owned(), uid, gid, home: home.to_owned() })
}

fn parse_group(line: &str) -> Option<Group> {
    let mut fields = line.trim().split(':');
    let (name, _password) = (fields.next()?, fields.next()?);
    let gid = fields.next()?.parse().ok()?;
    let members = fields.next().unwrap_or_default();
    Some(Group {
        name: name.to_owned(),
        gid,
        members: members.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect(),
    })
}

/// Finds who `USER spec` is in the image at `root`; an empty spec is root.
pub(super) fn exec_user(spec: &str, root: &RootDir) -> Result<ExecUser, UserError> {
    let accounts = Accounts::read(root)?;
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (spec, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let entry = accounts.passwd().iter().find(|p| p.name == user || Some(p.uid) == number);
    let (uid, primary, home) = match (entry, number) {
        (Some(entry), _) => (entry.uid, entry.gid, entry.home.clone()),
        (None, Some(uid)) => (uid, 0, String::new()),
        (None, None) => {
            return Err(UserError::Unknown { kind: "user", name: user.to_owned(), file: "passwd" });
        }
    };
    let (gid, mut groups) = match group {
        Some(group) => (find_group(&accounts, group)?, Vec::new()),
        None => {
            let name = entry.map_or(user, |e| e.name.as_str());
            let member = accounts.groups().iter().filter(|g| g.members.iter().any(|m| m == name));
            (primary, member.map(|g| g.gid).collect())
        }
    };
    if !groups.contains(&gid) {
        groups.insert(0, gid);
    }
    let home = if home.is_empty() { "/".to_owned() } else { home };
    Ok(ExecUser { uid, gid, groups, home })
}

fn find_group(accounts: &Accounts, group: &str) -> Result<u32, UserError> {
    let number = group.parse::<u32>().ok();
    match (accounts.groups().iter().find(|g| g.name == group || Some(g.gid) == number), number) {
        (Some(entry), _) => Ok(entry.gid),
        (None, Some(gid)) => Ok(gid),
        (None, None) => Err(UserError::Unknown { kind: "group", name: group.to_owned(), file: "group" }),
    }
}

/// Finds the owner that `--chown=spec` names, looked up in the image at `root` (`None`: there is no image
/// below). BuildKit's rules: an unknown name is id 0, unless the image has no file to look in.
pub(super) fn chown_owner(spec: &str, root: Option<&RootDir>) -> Result<(u32, u32), UserError> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    };
    let numbers = (user.parse::<u32>(), group.map(str::parse::<u32>));
    if let (Ok(uid), None) = numbers {
        return Ok((uid, uid));
    }
    if let (Ok(uid), Some(Ok(gid))) = numbers {
        return Ok((uid, gid));
    }
    let accounts = match root {
        Some(root) => Accounts::read(root)?,
        None => Accounts { passwd: None, groups: None },
    };
    let (uid, primary) = match user.parse::<u32>() {
        Ok(uid) => (uid, uid),
        Err(_) if user.is_empty() => (0, 0),
        Err(_) => {
            let passwd = accounts.passwd.as_ref().ok_or(UserError::NoFile { kind: "user" })?;
            passwd.iter().find(|p| p.name == user).map_or((0, 0), |p| (p.uid, p.gid))
        }
    };
    let gid = match group {
        None => primary,
        Some("") => primary,
        Some(group) => match group.parse::<u32>() {
            Ok(gid) => gid,
            Err(_) => {
                let groups = accounts.groups.as_ref().ok_or(UserError::NoFile { kind: "group" })?;
                groups.iter().find(|g| g.name == group).map_or(uid, |g| g.gid)
            }
        },
    };
    Ok((uid, gid))
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
        ] {
            assert_eq!(chown_owner(spec, Some(&root)).unwrap(), expected, "{spec}");
        }
        assert_eq!(chown_owner("1:2", None).unwrap(), (1, 2));
        assert_eq!(chown_owner("web", None).unwrap_err().to_string(), "invalid user index: -1");
    }
}
