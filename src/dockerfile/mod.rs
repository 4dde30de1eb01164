//! Dockerfile text to syntax tree: the language of BuildKit's `docker/dockerfile:1`.
//!
//! Pure: text in, values out; nothing here reads a file, an environment or a registry. All texts in the tree
//! are *unexpanded*: [`expand`] and its sisters expand them later, against the variables of the moment.
//! Every error carries the lines it is about and BuildKit's literal text. What a stage or a target is, and
//! what the lint rules say, is `plan/`'s business.

pub mod chmod;
mod csv;
mod device;
pub(crate) mod directives;
mod duration;
pub mod expand;
mod flags;
mod heredoc;
pub mod history;
mod instruction;
mod lexer;
mod lines;
pub mod mount;
mod pattern;
pub mod ports;
pub(crate) mod quote;
pub mod signal;
pub mod suggest;
pub(crate) mod syntax;
mod words;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use directives::check_syntax;
pub use expand::{ExpandError, Expanded, NoVariables, Variables, expand, expand_heredoc, expand_words};

/// Lines of a Dockerfile, from 1, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// First line.
    pub start_line: usize,
    /// Last line.
    pub end_line: usize,
}

impl Span {
    /// Spans one line.
    pub fn line(line: usize) -> Self {
        Self { start_line: line, end_line: line }
    }
}

/// A Dockerfile that cannot be understood; the text is BuildKit's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// The whole message, with its `dockerfile parse error on line N: ` where BuildKit has one.
    pub message: String,
    /// The lines it is about; `None` when it is about the file as a whole.
    pub span: Option<Span>,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
}

/// A parsed Dockerfile.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    /// Its name as shown in errors.
    pub name: String,
    /// Its text (invalid UTF-8 replaced), for showing lines of it.
    pub source: Arc<str>,
    /// Its parser directives.
    pub directives: Directives,
    /// Its instructions, in order.
    pub instructions: Vec<Instruction>,
    /// Lines that are blank inside a continued instruction (lint `NoEmptyContinuation`): the instruction's span.
    pub empty_continuations: Vec<Span>,
}

/// The parser directives at the top of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`, in any of its forms.
    pub syntax: Option<Syntax>,
    /// `# escape=`: a backslash or a backtick.
    pub escape: char,
    /// `# check=`.
    pub check: Option<CheckDirective>,
}

/// A `# syntax=` directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syntax {
    /// The frontend's image: the first word of the value.
    pub image: String,
    /// The whole value.
    pub command_line: String,
    /// Where it stands.
    pub span: Span,
}

/// A `# check=` directive: the text as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckDirective {
    /// The value, `skip=…;error=…`.
    pub value: String,
    /// Where it stands.
    pub span: Span,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Its lines, heredoc bodies included.
    pub span: Span,
    /// The keyword as written, `run`.
    pub keyword: String,
    /// The logical line (continuations joined, comments dropped), without heredoc bodies.
    pub original: String,
    /// What it says.
    pub kind: InstructionKind,
    /// The comment lines right above it, without `#` and outer blanks.
    pub comments: Vec<String>,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstructionKind {
    /// `FROM`
    From(From),
    /// `ARG`
    Arg(Vec<ArgDecl>),
    /// `ENV`
    Env(KeyValues),
    /// `LABEL`
    Label(KeyValues),
    /// `MAINTAINER`
    Maintainer(String),
    /// `RUN`
    Run(Run),
    /// `COPY`
    Copy(Copy),
    /// `ADD`
    Add(Add),
    /// `CMD`
    Cmd(Command),
    /// `ENTRYPOINT`
    Entrypoint(Command),
    /// `SHELL`, never empty
    Shell(Vec<String>),
    /// `WORKDIR`
    Workdir(String),
    /// `USER`
    User(String),
    /// `VOLUME`
    Volume(Vec<String>),
    /// `EXPOSE`: words before expansion
    Expose(Vec<String>),
    /// `STOPSIGNAL`
    StopSignal(String),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `ONBUILD`
    OnBuild(OnBuild),
}

impl InstructionKind {
    /// Returns the keyword in capitals.
    pub fn name(&self) -> &'static str {
        match self {
            Self::From(_) => "FROM",
            Self::Arg(_) => "ARG",
            Self::Env(_) => "ENV",
            Self::Label(_) => "LABEL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::Run(_) => "RUN",
            Self::Copy(_) => "COPY",
            Self::Add(_) => "ADD",
            Self::Cmd(_) => "CMD",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Shell(_) => "SHELL",
            Self::Workdir(_) => "WORKDIR",
            Self::User(_) => "USER",
            Self::Volume(_) => "VOLUME",
            Self::Expose(_) => "EXPOSE",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::OnBuild(_) => "ONBUILD",
        }
    }
}

/// `FROM [--platform=P] image [AS name]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// `--platform`, unexpanded.
    pub platform: Option<String>,
    /// The image or stage, unexpanded.
    pub image: String,
    /// The stage's name, lower-cased.
    pub name: Option<String>,
    /// The stage's name as written (lint `StageNameCasing`).
    pub written_name: Option<String>,
    /// `AS` as written (lint `FromAsCasing`).
    pub as_keyword: Option<String>,
}

/// One declaration of an `ARG`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDecl {
    /// The name.
    pub name: String,
    /// The default, unexpanded; `Some("")` for `ARG X=`.
    pub default: Option<String>,
}

/// A pair of an `ENV` or `LABEL`, both unexpanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// Before the `=`.
    pub key: String,
    /// After it.
    pub value: String,
}

/// The pairs of an `ENV` or `LABEL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValues {
    /// The pairs, never empty.
    pub pairs: Vec<KeyValue>,
    /// Whether they came as `KEY rest of line`.
    pub legacy: bool,
}

/// The command of `RUN`, `CMD`, `ENTRYPOINT` or `HEALTHCHECK CMD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A text for the shell; may be empty.
    Shell(String),
    /// An argument vector; empty where docker allows it.
    Exec(Vec<String>),
}

/// `RUN`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Each `--mount`'s value, unexpanded; see [`mount::parse_mount`].
    pub mounts: Vec<String>,
    /// `--network`: `default`, `none` or `host`.
    pub network: Option<String>,
    /// `--security`: `sandbox` or `insecure`.
    pub security: Option<String>,
    /// Each `--device`'s value.
    pub devices: Vec<String>,
    /// The command, without heredoc bodies.
    pub command: Command,
    /// The heredocs that the command opens, in order.
    pub heredocs: Vec<Heredoc>,
}

/// What a `RUN` executes, heredocs put in their place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunScript {
    /// This argument vector.
    Exec(Vec<String>),
    /// This text, as the last argument of the stage's `SHELL`.
    Shell(String),
    /// An executable file of this name (at `/dev/pipes/NAME`) and content: a lone heredoc with `#!`.
    File {
        /// The heredoc's word.
        name: String,
        /// The file's content.
        body: String,
    },
}

impl Run {
    /// Returns what is to be executed.
    ///
    /// A text that is nothing but `<<WORD` runs the body itself; any other text goes to the shell with all
    /// bodies and terminators behind it, as they were written.
    pub fn script(&self) -> RunScript {
        let text = match &self.command {
            Command::Exec(argv) => return RunScript::Exec(argv.clone()),
            Command::Shell(text) => text,
        };
        if let Some(first) = self.lone_heredoc() {
            return if first.body.starts_with("#!") {
                RunScript::File { name: first.name.clone(), body: first.body.clone() }
            } else {
                RunScript::Shell(first.body.clone())
            };
        }
        let mut script = text.clone();
        for heredoc in &self.heredocs {
            script.push('\n');
            script.push_str(&heredoc.raw_body);
            script.push_str(&heredoc.name);
        }
        RunScript::Shell(script)
    }

    /// Returns the heredoc that is all there is.
    fn lone_heredoc(&self) -> Option<&Heredoc> {
        let Command::Shell(text) = &self.command else { return None };
        let first = self.heredocs.first()?;
        heredoc::parse_opening(text).is_ok_and(|opening| opening.is_some()).then_some(first)
    }
}

impl Instruction {
    /// Returns the instruction as progress shows it: a `RUN` that is only a heredoc with the heredoc's first line.
    pub fn heading(&self) -> String {
        let InstructionKind::Run(run) = &self.kind else { return self.original.clone() };
        let Some(heredoc) = run.lone_heredoc() else { return self.original.clone() };
        let mut lines = heredoc.body.trim().lines();
        let first = lines.next().unwrap_or_default();
        let more = if lines.next().is_some() { "..." } else { "" };
        format!("{} ({first}{more})", self.original)
    }
}

/// A source of `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path, pattern, URL or git address, unexpanded.
    Path(String),
    /// A file written in the Dockerfile.
    Heredoc(Heredoc),
}

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word after `<<`, unquoted: the terminator, and for `COPY` the file's name.
    pub name: String,
    /// The number before `<<`.
    pub file_descriptor: Option<u32>,
    /// Whether variables expand: no part of the word was quoted.
    pub expand: bool,
    /// Whether it was `<<-`.
    pub strip_tabs: bool,
    /// The body; leading tabs are gone where it was `<<-`.
    pub body: String,
    /// The body exactly as written.
    pub raw_body: String,
}

/// `COPY`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// The sources, never empty; paths first, then heredocs, as BuildKit orders them.
    pub sources: Vec<Source>,
    /// The destination, unexpanded.
    pub dest: String,
    /// `--from`, never expanded.
    pub from: Option<String>,
    /// `--chown`, unexpanded.
    pub chown: Option<String>,
    /// `--chmod`, unexpanded.
    pub chmod: Option<String>,
    /// `--link`
    pub link: bool,
    /// `--parents`
    pub parents: bool,
    /// Each `--exclude`, never expanded.
    pub exclude: Vec<String>,
}

/// `ADD`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// The sources, never empty; paths first, then heredocs, as BuildKit orders them.
    pub sources: Vec<Source>,
    /// The destination, unexpanded.
    pub dest: String,
    /// `--chown`, unexpanded.
    pub chown: Option<String>,
    /// `--chmod`, unexpanded.
    pub chmod: Option<String>,
    /// `--link`
    pub link: bool,
    /// Each `--exclude`, never expanded.
    pub exclude: Vec<String>,
    /// `--checksum`, unexpanded.
    pub checksum: Option<String>,
    /// `--keep-git-dir`, if given.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`, if given.
    pub unpack: Option<bool>,
}

/// `HEALTHCHECK`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// `HEALTHCHECK NONE`
    None,
    /// `HEALTHCHECK CMD`; absent or zero options mean inherited.
    Cmd {
        /// `--interval`
        interval: Option<Duration>,
        /// `--timeout`
        timeout: Option<Duration>,
        /// `--start-period`
        start_period: Option<Duration>,
        /// `--start-interval`
        start_interval: Option<Duration>,
        /// `--retries`
        retries: Option<u32>,
        /// What to run.
        command: Command,
    },
}

/// `ONBUILD`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnBuild {
    /// The trigger with its original spacing, heredoc bodies appended: what the image config stores.
    pub text: String,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.start_line == self.end_line {
            write!(f, "line {}", self.start_line)
        } else {
            write!(f, "lines {}-{}", self.start_line, self.end_line)
        }
    }
}

/// Parses a Dockerfile. `name` is only for showing.
pub fn parse(name: &str, bytes: &[u8]) -> Result<Dockerfile, ParseError> {
    syntax::parse(name, bytes)
}

/// Parses one `ONBUILD` trigger of a base image's config (or of a stage), as the instruction it stands for.
///
/// The lines of its span count within the trigger's text.
pub fn parse_trigger(text: &str) -> Result<Instruction, ParseError> {
    syntax::parse_trigger(text)
}

#[cfg(test)]
mod tests;
