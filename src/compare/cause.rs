//! The usual causes of a difference between two builds of the same input, told from names and bytes.
//!
//! These are guesses for people: each says what it takes the difference for and what is done about it. Rules are
//! tried in order, the more certain first; a rule that is wrong costs a minute, one that says nothing an hour.

use std::sync::LazyLock;

use regex::bytes::Regex;

use super::{Contrast, PathChange, Side};

/// What makes a difference, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause {
    /// What it is.
    pub what: &'static str,
    /// What to do about it.
    pub cure: &'static str,
}

/// What a rule looks at.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The path and what differs of it.
    pub change: &'a PathChange,
    /// Its contents, if it is a file of both.
    pub contrast: Option<&'a Contrast>,
}

/// Finds the usual cause of a difference, if there is one.
pub fn usual_cause(evidence: &Evidence<'_>) -> Option<Cause> {
    let path = evidence.change.path.to_string_lossy();
    of_path(&path)
        .or_else(|| of_content(&path, evidence.contrast?))
        .or_else(|| of_fields(&path, evidence.change))
}

const fn cause(what: &'static str, cure: &'static str) -> Option<Cause> {
    Some(Cause { what, cure })
}

/// What is told by the name alone.
fn of_path(path: &str) -> Option<Cause> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let below = |directory: &str| path.starts_with(directory);
    if path.ends_with(".pyc") || path.contains("__pycache__") {
        return cause(
            "Python writes the time of the source file into compiled files",
            "declare `ARG SOURCE_DATE_EPOCH` before the step and compile with `python -m compileall`, or set \
             `ENV PYTHONDONTWRITEBYTECODE=1`",
        );
    }
    if below("var/log/apt/") || matches!(path, "var/log/dpkg.log" | "var/log/alternatives.log") {
        return cause(
            "apt and dpkg write into their logs when they ran",
            "end the step with `rm -rf /var/log/apt /var/log/dpkg.log /var/log/alternatives.log`",
        );
    }
    if below("var/lib/apt/lists") || below("var/cache/apt/") {
        return cause(
            "apt keeps what its mirror served at that time",
            "end the step with `rm -rf /var/lib/apt/lists/* /var/cache/apt/*`",
        );
    }
    if below("var/lib/dpkg/") || below("lib/apk/db/") || below("usr/lib/sysimage/") || below("var/lib/rpm") {
        return cause(
            "the package database: another package or version was installed, or times are in it",
            "pin versions, or install from a snapshot of the mirror (snapshot.debian.org)",
        );
    }
    if matches!(path, "etc/machine-id" | "var/lib/dbus/machine-id") {
        return cause("a machine id is drawn at random", "end the step with `: > /etc/machine-id`");
    }
    if below("etc/ssh/ssh_host_") {
        return cause(
            "ssh host keys are drawn at random when the server is installed, and every container has the same",
            "remove them in the same step (`rm /etc/ssh/ssh_host_*`), and run `ssh-keygen -A` at the start",
        );
    }
    if matches!(path, "var/cache/ldconfig/aux-cache" | "etc/ld.so.cache") {
        return cause(
            "ldconfig's cache holds times and inode numbers",
            "end the step with `rm -f /var/cache/ldconfig/aux-cache`",
        );
    }
    if below("var/cache/fontconfig/") || below("var/cache/man/") || below("var/cache/debconf/") {
        return cause("a cache that holds times", "remove `/var/cache` entries in the step that makes them");
    }
    if matches!(path, "etc/shadow" | "etc/shadow-" | "etc/gshadow" | "etc/gshadow-") {
        return cause(
            "the day of the last password change, or a salt drawn at random",
            "declare `ARG SOURCE_DATE_EPOCH` before `useradd`, which honours it; give passwords as hashes",
        );
    }
    if below("root/.cache/") || path.contains("/.npm/") || path.contains("/_cacache/") || below("root/.npm") {
        return cause(
            "a package manager's cache",
            "keep it out of the image: `RUN --mount=type=cache,target=…`, or `pip --no-cache-dir`",
        );
    }
    if below("var/log/") || name.ends_with(".log") {
        return cause("a log says when it was written", "remove it in the step that writes it");
    }
    None
}

/// What the bytes tell.
fn of_content(path: &str, contrast: &Contrast) -> Option<Cause> {
    let [head, _] = &contrast.heads;
    let begins = |magic: &[u8]| head.starts_with(magic);
    if begins(&[0x1f, 0x8b]) && (4..8).contains(&contrast.offset) {
        return cause("gzip writes the time into its header", "compress with `gzip -n`");
    }
    if begins(b"PK\x03\x04") {
        return cause(
            "zip archives (jars, wheels) hold the times of their files",
            "declare `ARG SOURCE_DATE_EPOCH`; for Maven set `project.build.outputTimestamp`, for Gradle \
             `preserveFileTimestamps = false` and `reproducibleFileOrder = true`",
        );
    }
    if begins(b"!<arch>\n") {
        return cause("ar writes times and owners of its members", "make the archive with `ar rcD`");
    }
    if head.get(257..262) == Some(&b"ustar"[..]) {
        return cause(
            "a tar holds times, owners and the order of a directory",
            "`tar --sort=name --mtime=@$SOURCE_DATE_EPOCH --owner=0 --group=0 --numeric-owner`",
        );
    }
    if begins(b"SQLite format 3\0") {
        return cause("a database holds times and the order of writes", "make it when the container starts");
    }
    if begins(b"\x7fELF") {
        return Some(of_binary(contrast));
    }
    of_text(path, contrast)
}

fn of_binary(contrast: &Contrast) -> Cause {
    let temporary = contrast.around.iter().any(|around| TEMPORARY.is_match(around));
    let time = contrast.around.iter().all(|around| TIME.is_match(around));
    match (time, temporary) {
        (true, _) => Cause {
            what: "a time in a binary: `__DATE__`, `__TIME__` or a version string made at compile time",
            cure: "declare `ARG SOURCE_DATE_EPOCH` before the step, which gcc and clang honour; `-Wdate-time` finds \
                   the places",
        },
        (_, true) => Cause {
            what: "the name of a temporary directory in a binary",
            cure: "build in a fixed directory; `go build -trimpath`, `-ffile-prefix-map` for gcc and clang",
        },
        _ => Cause {
            what: "a binary was linked differently: a time, a path, a build id, or the order of its parts",
            cure: "declare `ARG SOURCE_DATE_EPOCH`, build in a fixed directory, and with a fixed order of inputs",
        },
    }
}

/// Patterns around a difference.
static TIME: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?x)\d{4}-\d\d-\d\d | \d\d:\d\d(:\d\d)? | \b(Mon|Tue|Wed|Thu|Fri|Sat|Sun)\b
          | \b(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b | \b(1[6-9]|2[01])\d{8}(\d{3}|\d{6}|\d{9})?\b
          | \b(1[6-9]|2[01])\d{8}\.\d+ | \b20\d\d[01]\d[0-3]\d([0-2]\d[0-5]\d)?",
    )
});
static UUID: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"));
static RANDOM: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"[0-9a-f]{16,}|[0-9A-F]{16,}|[A-Za-z0-9+/_-]{22,}={0,2}|-----BEGIN "));
static TEMPORARY: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"/tmp/[A-Za-z0-9._-]*|tmp[A-Za-z0-9_-]{6,}|tmp\.[A-Za-z0-9]{6,}|go-build\d+|cc[A-Za-z0-9]{6}\.o")
});

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern that the tests use")
}

fn of_text(path: &str, contrast: &Contrast) -> Option<Cause> {
    let [a, b] = &contrast.heads;
    if is_reordered(a, b) {
        return cause(
            "the same lines in another order: a directory as it was listed, a hash table, or jobs side by side",
            "sort what is written (`LC_ALL=C sort`), and inputs before they are used",
        );
    }
    let lines = [line(contrast, 0), line(contrast, 1)];
    let both = |pattern: &Regex| lines.iter().all(|line| pattern.is_match(line));
    if both(&UUID) {
        return cause(
            "a UUID drawn at random",
            "give it a fixed value, or make it when the container starts",
        );
    }
    if both(&TIME) {
        return cause(
            "the time of the build",
            "leave it out, or use the epoch: `ARG SOURCE_DATE_EPOCH`, `date -u -d @$SOURCE_DATE_EPOCH`",
        );
    }
    if both(&TEMPORARY) {
        return cause("the name of a temporary file", "use a fixed name, or leave it out");
    }
    if both(&RANDOM) || looks_random(contrast) || path.ends_with(".pem") || path.ends_with(".key") {
        return cause(
            "random bytes: a key, a token, a salt or an id",
            "make it when the container starts, or pass it in as a secret; give seeds a fixed value",
        );
    }
    None
}

/// The line of the first difference, of the first or of the second.
fn line(contrast: &Contrast, which: usize) -> &[u8] {
    let around = &contrast.around[which];
    let start = around[..contrast.before].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let rest = &around[contrast.before..];
    let end = rest.iter().position(|byte| *byte == b'\n').map_or(around.len(), |at| contrast.before + at);
    &around[start..end]
}

fn is_reordered(a: &[u8], b: &[u8]) -> bool {
    let lines = |text: &[u8]| -> Vec<Vec<u8>> {
        let mut lines: Vec<Vec<u8>> = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort();
        lines
    };
    a != b && a.len() == b.len() && lines(a).len() > 2 && lines(a) == lines(b)
}

/// Tells whether most bytes after the difference are not text, and few of them the same in both.
fn looks_random(contrast: &Contrast) -> bool {
    let [a, b] = contrast.around.each_ref().map(|around| &around[contrast.before..]);
    let length = a.len().min(b.len());
    let same = a.iter().zip(b).filter(|(a, b)| a == b).count();
    let text = a.iter().filter(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()).count();
    length >= 16 && same * 8 < length && text * 10 < a.len() * 9
}

/// What the kind of difference tells.
fn of_fields(path: &str, change: &PathChange) -> Option<Cause> {
    let names: Vec<&str> = change.fields.iter().map(|field| field.name.as_str()).collect();
    if change.side != Side::Both {
        if TEMPORARY.is_match(path.as_bytes()) || path.starts_with("tmp/") {
            return cause(
                "a temporary file with a name drawn at random",
                "remove it in the step that makes it",
            );
        }
        if UUID.is_match(path.as_bytes()) || RANDOM.is_match(path.as_bytes()) {
            return cause("a name drawn at random", "give it a fixed name");
        }
        if TIME.is_match(path.as_bytes()) {
            return cause("the time of the build in a name", "give it a fixed name");
        }
        return None;
    }
    if names == ["mtime"] {
        return cause(
            "a file's time before the epoch, set from something that changes",
            "give the file a fixed time: `touch -d @$SOURCE_DATE_EPOCH`",
        );
    }
    if change.field("target").is_some() && TIME.is_match(path.as_bytes()) {
        return cause("a link to a name with the time in it", "give it a fixed name");
    }
    None
}
