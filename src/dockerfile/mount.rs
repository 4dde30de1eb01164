//! The values of `RUN --mount`: comma-separated options.

use super::suggest::did_you_mean;
use super::{ExpandError, csv, quote};

pub use super::device::{DeviceSpec, parse_device};

/// The permissions with setuid, setgid and sticky: there are no other bits.
const MODE_MAX: u32 = 0o7777;

/// A parsed `--mount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSpec {
    /// Where, as written (relative to the working directory); `None` if not given.
    pub target: Option<String>,
    /// What.
    pub kind: MountKind,
    /// Whether writing is refused.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// `type=bind`: part of the context, a stage, a named context or an image.
    Bind {
        /// `from`; `None` is the main context.
        from: Option<String>,
        /// `source`, by default the root.
        source: String,
    },
    /// `type=cache`: a directory that persists between builds.
    Cache {
        /// `id`; `None` means the cleaned target, see [`MountSpec::cache_id`].
        id: Option<String>,
        /// Initial content: `from`.
        from: Option<String>,
        /// Directory within the initial content, by default the root.
        source: String,
        /// How builds at the same time share it.
        sharing: Sharing,
        /// Mode of a new cache directory.
        mode: Option<u32>,
        /// Owner of a new cache directory.
        uid: Option<u32>,
        /// Group of a new cache directory.
        gid: Option<u32>,
    },
    /// `type=tmpfs`
    Tmpfs {
        /// `size`
        size_bytes: Option<u64>,
    },
    /// `type=secret`; as a file unless `env` is given without a target.
    Secret {
        /// The secret's id.
        id: String,
        /// Environment variable to set.
        env: Option<String>,
        /// Whether the secret must be there.
        required: bool,
        /// File mode.
        mode: u32,
        /// File owner.
        uid: u32,
        /// File group.
        gid: u32,
    },
    /// `type=ssh`
    Ssh {
        /// Which agent.
        id: String,
        /// Whether it must be there.
        required: bool,
        /// Socket mode.
        mode: u32,
        /// Socket owner.
        uid: u32,
        /// Socket group.
        gid: u32,
    },
}

impl MountSpec {
    /// Returns what identifies a cache mount: its id, or its cleaned target as it is written, whatever the working
    /// directory (BuildKit). `None` for other mounts.
    pub fn cache_id(&self) -> Option<String> {
        match &self.kind {
            MountKind::Cache { id, .. } => {
                let id = id.clone().filter(|id| !id.is_empty());
                Some(id.unwrap_or_else(|| clean(self.target.as_deref().unwrap_or_default())))
            }
            _ => None,
        }
    }
}

/// Cleans a path lexically, as Go's `path.Clean`.
pub(crate) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.join("/")) {
        (true, path) => format!("/{path}"),
        (false, path) if path.is_empty() => ".".to_owned(),
        (false, path) => path,
    }
}

/// How builds at the same time use one cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Together.
    #[default]
    Shared,
    /// Each its own.
    Private,
    /// One after the other.
    Locked,
}

/// A `--mount` or `--device` that cannot be; the text is BuildKit's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct MountError {
    /// The text.
    pub message: String,
}

impl From<String> for MountError {
    fn from(message: String) -> Self {
        Self { message }
    }
}

const KINDS: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARINGS: [&str; 3] = ["shared", "private", "locked"];
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// The options of one mount, before they are checked against each other.
#[derive(Default)]
struct Options {
    kind: Option<String>,
    from: String,
    source: String,
    target: String,
    read_only: Option<bool>,
    size_bytes: u64,
    id: String,
    sharing: Option<Sharing>,
    required: bool,
    env: Option<String>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

/// Checks what can be checked of a `--mount` value before its variables are known.
pub(super) fn check_unexpanded(raw: &str) -> Result<(), MountError> {
    for field in csv::fields(raw).map_err(|error| format!("failed to parse csv mounts: {error}"))? {
        let Some((key, value)) = field.split_once('=') else { continue };
        let dollar = value.find('$').is_some_and(|index| index + 1 != value.len());
        if key.eq_ignore_ascii_case("from") && dollar {
            return Err("'from' doesn't support variable expansion, define alias stage instead"
                .to_owned()
                .into());
        }
    }
    Ok(())
}

/// Returns the `from` of each `--mount` value: what a stage depends on before its variables are known.
pub fn unexpanded_from(raw: &str) -> Option<String> {
    let fields = csv::fields(raw).ok()?;
    let mut options = fields.iter().filter_map(|field| field.split_once('='));
    let from = options.rfind(|(key, _)| key.eq_ignore_ascii_case("from"))?.1;
    (!from.is_empty()).then(|| from.to_owned())
}

/// Parses one `--mount` value; `expand` expands the value of an option (never that of `from`).
pub fn parse_mount(
    raw: &str,
    expand: &mut dyn FnMut(&str) -> Result<String, ExpandError>,
) -> Result<MountSpec, MountError> {
    let mut options = Options::default();
    for field in csv::fields(raw).map_err(|error| format!("failed to parse csv mounts: {error}"))? {
        match field.split_once('=') {
            None => options.bare(&field)?,
            Some((key, value)) => {
                let key = key.to_lowercase();
                let value = match key.as_str() {
                    "from" => value.to_owned(),
                    _ => expand(value).map_err(|error| error.to_string())?,
                };
                options.set(&key, &value, &field)?;
            }
        }
    }
    options.finish()
}

impl Options {
    fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("bind")
    }

    /// Takes an option without a value.
    fn bare(&mut self, field: &str) -> Result<(), MountError> {
        match field.to_lowercase().as_str() {
            "readonly" | "ro" => self.read_only = Some(true),
            "readwrite" | "rw" => self.read_only = Some(false),
            key @ "required" => {
                self.only_for(key, &["secret", "ssh"])?;
                self.required = true;
            }
            _ => return Err(format!("invalid field '{field}' must be a key=value pair").into()),
        }
        Ok(())
    }

    fn only_for(&self, key: &str, kinds: &[&str]) -> Result<(), MountError> {
        if kinds.contains(&self.kind()) {
            return Ok(());
        }
        Err(format!("unexpected key '{key}' for mount type '{}'", self.kind()).into())
    }

    /// Takes an option with a value.
    fn set(&mut self, key: &str, value: &str, field: &str) -> Result<(), MountError> {
        let invalid = || MountError::from(format!("invalid value for {key}: {value}"));
        let number = |radix| {
            u32::from_str_radix(value, radix)
                .ok()
                .filter(|_| !value.starts_with('+'))
                .ok_or_else(|| MountError::from(format!("invalid value {value} for {key}")))
        };
        match key {
            "type" => {
                let kind = value.to_lowercase();
                if !KINDS.contains(&kind.as_str()) {
                    let message = format!("unsupported mount type {}", quote::go(value));
                    return Err(did_you_mean(message, value, KINDS, true).into());
                }
                self.kind = Some(kind);
            }
            "from" => value.clone_into(&mut self.from),
            "source" | "src" => value.clone_into(&mut self.source),
            "target" | "dst" | "destination" => value.clone_into(&mut self.target),
            "readonly" | "ro" => self.read_only = Some(parse_bool(value).ok_or_else(invalid)?),
            "readwrite" | "rw" => self.read_only = Some(!parse_bool(value).ok_or_else(invalid)?),
            "required" => {
                self.only_for(key, &["secret", "ssh"])?;
                self.required = parse_bool(value).ok_or_else(invalid)?;
            }
            "size" => {
                self.only_for(key, &["tmpfs"])?;
                self.size_bytes = parse_size(value).ok_or_else(invalid)?;
            }
            "id" => value.clone_into(&mut self.id),
            "sharing" => {
                self.sharing = Some(match value.to_lowercase().as_str() {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    _ => {
                        let message = format!("unsupported sharing value {}", quote::go(value));
                        return Err(did_you_mean(message, value, SHARINGS, true).into());
                    }
                });
            }
            "mode" => {
                let mode = number(8)?;
                if mode > MODE_MAX {
                    return Err(format!("invalid value {value} for mode: it is at most 07777").into());
                }
                self.mode = Some(mode);
            }
            "uid" => self.uid = Some(number(10)?),
            "gid" => self.gid = Some(number(10)?),
            "env" => self.env = Some(value.to_owned()),
            _ => {
                let message = format!("unexpected key '{key}' in '{field}'");
                return Err(did_you_mean(message, key, KEYS, true).into());
            }
        }
        Ok(())
    }

    /// Checks what does not go together.
    fn check(&self) -> Result<(), MountError> {
        let kind = self.kind();
        let fail = |message: &str| Err(MountError::from(message.to_owned()));
        if matches!(kind, "bind" | "tmpfs") {
            let given = [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)];
            if let Some((key, _)) = given.into_iter().find(|(_, value)| value.is_some()) {
                return fail(&format!("{key} not allowed for \"{kind}\" type mounts"));
            }
        }
        if kind == "secret" {
            if !self.from.is_empty() {
                return fail("secret mount should not have a from");
            }
            if self.sharing.is_some() {
                return fail("secret mount should not define sharing");
            }
            if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() {
                return fail("invalid secret mount. one of source, target required");
            }
            if !self.source.is_empty() && !self.id.is_empty() {
                return fail("both source and id can't be set");
            }
        }
        if self.sharing.is_some() && kind != "cache" {
            return fail(&format!("invalid cache sharing set for {kind} mount"));
        }
        if kind == "ssh" && !self.source.is_empty() {
            return fail("ssh does not support source");
        }
        Ok(())
    }

    fn finish(self) -> Result<MountSpec, MountError> {
        self.check()?;
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let source = given(self.source.clone()).unwrap_or_else(|| "/".to_owned());
        let owner = (self.uid.unwrap_or(0), self.gid.unwrap_or(0));
        let read_only = self.read_only.unwrap_or(!matches!(self.kind(), "cache" | "tmpfs"));
        let kind = match self.kind() {
            "cache" => MountKind::Cache {
                id: given(self.id),
                from: given(self.from),
                source,
                sharing: self.sharing.unwrap_or_default(),
                mode: self.mode,
                uid: self.uid,
                gid: self.gid,
            },
            "tmpfs" => MountKind::Tmpfs { size_bytes: Some(self.size_bytes).filter(|size| *size > 0) },
            "secret" => MountKind::Secret {
                id: given(self.source).or(given(self.id)).unwrap_or_else(|| {
                    self.target.rsplit('/').find(|part| !part.is_empty()).unwrap_or("/").to_owned()
                }),
                env: self.env,
                required: self.required,
                mode: self.mode.unwrap_or(0o400),
                uid: owner.0,
                gid: owner.1,
            },
            "ssh" => MountKind::Ssh {
                id: given(self.id).unwrap_or_else(|| "default".to_owned()),
                required: self.required,
                mode: self.mode.unwrap_or(0o600),
                uid: owner.0,
                gid: owner.1,
            },
            _ => MountKind::Bind { from: given(self.from), source },
        };
        Ok(MountSpec { target: given(self.target), kind, read_only })
    }
}

/// Go's `strconv.ParseBool`.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// A size such as `128m`, `1.5 GiB`, `4096`: the units are powers of 1024.
fn parse_size(text: &str) -> Option<u64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.').map(|index| index + 1)?;
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0)?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        unit => {
            let (letter, rest) = unit.split_at_checked(1)?;
            if !matches!(rest, "" | "b" | "ib") {
                return None;
            }
            "kmgtp".find(letter)? + 1
        }
    };
    let bytes = number * 1024_f64.powi(i32::try_from(power).ok()?);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked just above and here"
    )]
    (bytes < 9.2e18).then_some(bytes as u64)
}

#[cfg(test)]
mod tests;
