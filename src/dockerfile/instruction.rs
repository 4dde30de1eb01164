//! The parser's second pass: each keyword's own rules.

use std::time::Duration;

use super::flags::FlagKind::{Bool, Text, Texts};
use super::flags::{FlagKind, Flags};
use super::suggest::did_you_mean;
use super::syntax::{Args, Node};
use super::{
    Add, ArgDecl, Command, Copy, From, Healthcheck, InstructionKind, KeyValues, OnBuild, Run, Source,
};
use super::{duration, heredoc, mount, quote};

/// Why a node is no instruction.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl std::convert::From<String> for Failure {
    fn from(message: String) -> Self {
        Self { message, hint: None }
    }
}

impl std::convert::From<&str> for Failure {
    fn from(message: &str) -> Self {
        Self { message: message.to_owned(), hint: None }
    }
}

type Kind = Result<InstructionKind, Failure>;

/// The keywords, for suggestions.
const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Gives a node its meaning.
pub(super) fn understand(node: Node) -> Kind {
    let keyword = node.keyword.to_ascii_uppercase();
    if node.invalid_utf8 && matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") {
        return Err(Failure {
            message: format!("{keyword} is not valid UTF-8"),
            hint: Some(
                "its bytes would change on the way into the image: convert the file to UTF-8".to_owned(),
            ),
        });
    }
    match keyword.as_str() {
        "FROM" => from(&node),
        "ARG" => arg(&node),
        "ENV" => Ok(InstructionKind::Env(pairs(node, "ENV")?)),
        "LABEL" => Ok(InstructionKind::Label(pairs(node, "LABEL")?)),
        "MAINTAINER" => single(node, "MAINTAINER").map(InstructionKind::Maintainer),
        "RUN" => run(node),
        "COPY" => copy(node),
        "ADD" => add(node),
        "CMD" => {
            no_flags(&node)?;
            Ok(InstructionKind::Cmd(command(node.args)))
        }
        "ENTRYPOINT" => {
            no_flags(&node)?;
            Ok(InstructionKind::Entrypoint(command(node.args)))
        }
        "SHELL" => shell(node),
        "WORKDIR" => single(node, "WORKDIR").map(InstructionKind::Workdir),
        "USER" => single(node, "USER").map(InstructionKind::User),
        "STOPSIGNAL" => single(node, "STOPSIGNAL").map(InstructionKind::StopSignal),
        "VOLUME" => volume(node),
        "EXPOSE" => expose(node),
        "HEALTHCHECK" => healthcheck(node),
        "ONBUILD" => on_build(&node),
        _ => {
            let message = format!("unknown instruction: {}", node.keyword);
            Err(did_you_mean(message, &node.keyword, KEYWORDS, false).into())
        }
    }
}

fn no_flags(node: &Node) -> Result<(), Failure> {
    Flags::parse(&node.flags, &[])?;
    Ok(())
}

fn words(args: Args) -> Vec<String> {
    match args {
        Args::Words(words) | Args::Json(words) => words,
        _ => Vec::new(),
    }
}

/// An instruction that takes the rest of the line.
fn single(node: Node, keyword: &str) -> Result<String, Failure> {
    let Args::Text(text) = &node.args else {
        return Err(format!("{keyword} requires exactly one argument").into());
    };
    no_flags(&node)?;
    Ok(text.clone())
}

fn from(node: &Node) -> Kind {
    let words: &[String] = match &node.args {
        Args::Words(words) => words,
        _ => &[],
    };
    let (image, name, as_keyword) = match words {
        [image] => (image, None, None),
        [image, keyword, name] if keyword.eq_ignore_ascii_case("as") => (image, Some(name), Some(keyword)),
        _ => return Err("FROM requires either one or three arguments".into()),
    };
    let lower = name.map(|name| name.to_lowercase());
    if let (Some(name), Some(lower)) = (name, &lower)
        && !is_stage_name(lower)
    {
        return Err(format!(
            "invalid name for build stage: {}, name can't start with a number or contain symbols",
            quote::go(name)
        )
        .into());
    }
    let flags = Flags::parse(&node.flags, &[("platform", Text)])?;
    Ok(InstructionKind::From(From {
        platform: flags.text("platform"),
        image: image.clone(),
        name: lower,
        written_name: name.cloned(),
        as_keyword: as_keyword.cloned(),
    }))
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
}

fn arg(node: &Node) -> Kind {
    let words: &[String] = match &node.args {
        Args::Words(words) => words,
        _ => &[],
    };
    if words.is_empty() {
        return Err("ARG requires at least one argument".into());
    }
    no_flags(node)?;
    let declarations = words.iter().map(|word| match word.split_once('=') {
        Some(("", _)) => Err(Failure::from("ARG names can not be blank")),
        Some((name, default)) => Ok(ArgDecl { name: name.to_owned(), default: Some(default.to_owned()) }),
        None => Ok(ArgDecl { name: word.clone(), default: None }),
    });
    Ok(InstructionKind::Arg(declarations.collect::<Result<_, _>>()?))
}

fn pairs(node: Node, keyword: &str) -> Result<KeyValues, Failure> {
    no_flags(&node)?;
    match node.args {
        Args::Pairs(pairs) if pairs.pairs.iter().any(|pair| pair.key.is_empty()) => {
            Err(format!("{keyword} names can not be blank").into())
        }
        Args::Pairs(pairs) => Ok(pairs),
        _ => Err(format!("{keyword} requires at least one argument").into()),
    }
}

/// A command in shell or JSON form; nothing at all is an empty text for the shell.
fn command(args: Args) -> Command {
    match args {
        Args::Json(words) => Command::Exec(words),
        Args::Text(text) => Command::Shell(text),
        _ => Command::Shell(String::new()),
    }
}

const RUN_FLAGS: [(&str, FlagKind); 4] =
    [("mount", Texts), ("network", Text), ("security", Text), ("device", Texts)];

fn run(node: Node) -> Kind {
    let flags = Flags::parse(&node.flags, &RUN_FLAGS)?;
    let network = flags.written("network").map(str::to_owned);
    if let Some(mode) = network.as_deref().filter(|mode| !matches!(*mode, "default" | "none" | "host")) {
        return Err(format!("invalid network mode {}", quote::go(mode)).into());
    }
    let security = flags.written("security").map(str::to_owned);
    if let Some(mode) = security.as_deref().filter(|mode| !matches!(*mode, "sandbox" | "insecure")) {
        return Err(format!("security {} is not valid", quote::go(mode)).into());
    }
    let mounts = flags.texts("mount");
    for raw in &mounts {
        mount::check_unexpanded(raw).map_err(|error| error.to_string())?;
    }
    let devices = flags.texts("device");
    for raw in &devices {
        mount::parse_device(raw).map_err(|error| error.to_string())?;
    }
    let command = command(node.args);
    Ok(InstructionKind::Run(Run { mounts, network, security, devices, command, heredocs: node.heredocs }))
}

/// Splits the arguments of `COPY` or `ADD`; a heredoc's body goes where its word stands. As in BuildKit a word in JSON form
/// names a heredoc as well, and one that the line does not open is an empty file of that name.
fn sources(node: Node, keyword: &str) -> Result<(Vec<Source>, String), Failure> {
    let mut words = words(node.args);
    // A word that does not fall into quotes is a path.
    let opening = |word: &str| heredoc::parse_opening(word).unwrap_or_default();
    let dest = words.pop().unwrap_or_default();
    if opening(&dest).is_some() {
        return Err(format!("{keyword} cannot accept a heredoc as a destination").into());
    }
    let (mut paths, mut contents) = (Vec::new(), Vec::new());
    for word in words {
        match opening(&word) {
            None => paths.push(Source::Path(word)),
            Some(opening) => {
                // Of several with one name the last is the one.
                let body = node.heredocs.iter().rfind(|heredoc| heredoc.name == opening.name);
                contents.push(Source::Heredoc(match body {
                    Some(body) => body.clone(),
                    None => opening.with_body(String::new()),
                }));
            }
        }
    }
    paths.extend(contents);
    Ok((paths, dest))
}

fn check_destination(node: &Node, keyword: &str) -> Result<(), Failure> {
    let count = match &node.args {
        Args::Words(words) | Args::Json(words) => words.len(),
        _ => 0,
    };
    if count < 2 {
        return Err(format!(
            "{keyword} requires at least two arguments, but only one was provided. \
             Destination could not be determined"
        )
        .into());
    }
    Ok(())
}

const COPY_FLAGS: [(&str, FlagKind); 6] =
    [("chown", Text), ("from", Text), ("chmod", Text), ("link", Bool), ("exclude", Texts), ("parents", Bool)];

fn copy(node: Node) -> Kind {
    check_destination(&node, "COPY")?;
    let flags = Flags::parse(&node.flags, &COPY_FLAGS)?;
    let (sources, dest) = sources(node, "COPY")?;
    Ok(InstructionKind::Copy(Copy {
        sources,
        dest,
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.switch("link").unwrap_or(false),
        parents: flags.switch("parents").unwrap_or(false),
        exclude: flags.texts("exclude"),
    }))
}

const ADD_FLAGS: [(&str, FlagKind); 7] = [
    ("chown", Text),
    ("chmod", Text),
    ("link", Bool),
    ("keep-git-dir", Bool),
    ("checksum", Text),
    ("unpack", Bool),
    ("exclude", Texts),
];

fn add(node: Node) -> Kind {
    check_destination(&node, "ADD")?;
    let flags = Flags::parse(&node.flags, &ADD_FLAGS)?;
    let (sources, dest) = sources(node, "ADD")?;
    Ok(InstructionKind::Add(Add {
        sources,
        dest,
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.switch("link").unwrap_or(false),
        exclude: flags.texts("exclude"),
        checksum: flags.text("checksum"),
        keep_git_dir: flags.switch("keep-git-dir"),
        unpack: flags.switch("unpack"),
    }))
}

fn shell(node: Node) -> Kind {
    no_flags(&node)?;
    match node.args {
        Args::Json(words) if !words.is_empty() => Ok(InstructionKind::Shell(words)),
        Args::Text(_) => Err("SHELL requires the arguments to be in JSON form".into()),
        _ => Err("SHELL requires at least one argument".into()),
    }
}

fn volume(node: Node) -> Kind {
    no_flags(&node)?;
    let volumes: Vec<String> = words(node.args).iter().map(|word| word.trim().to_owned()).collect();
    if volumes.is_empty() {
        return Err("VOLUME requires at least one argument".into());
    }
    if volumes.iter().any(String::is_empty) {
        return Err("VOLUME specified can not be an empty string".into());
    }
    Ok(InstructionKind::Volume(volumes))
}

fn expose(node: Node) -> Kind {
    no_flags(&node)?;
    let mut ports = words(node.args);
    if ports.is_empty() {
        return Err("EXPOSE requires at least one argument".into());
    }
    ports.sort();
    Ok(InstructionKind::Expose(ports))
}

const HEALTHCHECK_FLAGS: [(&str, FlagKind); 5] = [
    ("interval", Text),
    ("timeout", Text),
    ("start-period", Text),
    ("start-interval", Text),
    ("retries", Text),
];

fn healthcheck(node: Node) -> Kind {
    let Args::Health(word, rest) = node.args else {
        return Err("HEALTHCHECK requires at least one argument".into());
    };
    let word = word.to_uppercase();
    if word == "NONE" && !matches!(*rest, Args::None) {
        return Err("HEALTHCHECK NONE takes no arguments".into());
    }
    let flags = Flags::parse(&node.flags, &HEALTHCHECK_FLAGS)?;
    if word == "NONE" {
        return Ok(InstructionKind::Healthcheck(Healthcheck::None));
    }
    if word != "CMD" {
        return Err(format!("Unknown type {} in HEALTHCHECK (try CMD)", quote::go(&word)).into());
    }
    let command = match *rest {
        Args::Text(text) => Command::Shell(text),
        Args::Json(words) if !words.is_empty() => Command::Exec(words),
        _ => return Err("Missing command after HEALTHCHECK CMD".into()),
    };
    Ok(InstructionKind::Healthcheck(Healthcheck::Cmd {
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries: retries(&flags)?,
        command,
    }))
}

fn interval(flags: &Flags, name: &str) -> Result<Option<Duration>, Failure> {
    let Some(text) = flags.text(name) else { return Ok(None) };
    let nanoseconds = duration::parse(&text)?;
    if nanoseconds == 0 {
        return Ok(Some(Duration::ZERO));
    }
    match u64::try_from(nanoseconds) {
        Ok(nanoseconds) if nanoseconds >= 1_000_000 => Ok(Some(Duration::from_nanos(nanoseconds))),
        _ => Err(format!("Interval {} cannot be less than 1ms", quote::go(name)).into()),
    }
}

fn retries(flags: &Flags) -> Result<Option<u32>, Failure> {
    let Some(text) = flags.text("retries") else { return Ok(None) };
    let failed = |reason| Failure::from(format!("strconv.ParseInt: parsing {}: {reason}", quote::go(&text)));
    let digits = text.strip_prefix(['+', '-']).unwrap_or(&text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(failed("invalid syntax"));
    }
    let number: i32 = text.parse().map_err(|_| failed("value out of range"))?;
    match u32::try_from(number) {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(format!("--retries cannot be negative ({number})").into()),
    }
}

fn on_build(node: &Node) -> Kind {
    let Args::Trigger(trigger) = &node.args else {
        return Err("ONBUILD requires at least one argument".into());
    };
    no_flags(node)?;
    match trigger.keyword.to_ascii_uppercase().as_str() {
        "ONBUILD" => return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into()),
        keyword @ ("FROM" | "MAINTAINER") => {
            return Err(format!("{keyword} isn't allowed as an ONBUILD trigger").into());
        }
        _ => {}
    }
    // The keyword is ASCII in any case: seven bytes.
    let mut text = node.line.trim_start()["ONBUILD".len()..].trim_start().to_owned();
    for heredoc in &node.heredocs {
        text.push('\n');
        text.push_str(&heredoc.raw_body);
        text.push_str(&heredoc.name);
    }
    Ok(InstructionKind::OnBuild(OnBuild { text }))
}
