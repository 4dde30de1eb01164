//! Failures, and how they are shown: what, why, where in the Dockerfile, what to do.
//!
//! Everything below returns typed errors; they are rendered here, once.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use super::executor::ExecutorError;
use super::home::HomeError;
use super::request::RequestError;
use super::values::ValueError;
use super::verify::Unverified;
use crate::blob::BlobError;
use crate::build::{BuildError, Place, Problem};
use crate::cache::CacheError;
use crate::compare::CompareError;
use crate::images::ImagesError;
use crate::oci::{DigestError, PlatformError, ReferenceError};
use crate::output::OutputError;
use crate::registry::{CredentialFileError, RegistryError};
use crate::rootfs::RootfsError;
use crate::sandbox::SandboxError;
use crate::space;
use crate::text::{line, message};
use crate::threads::Refused;

/// Exit code of wrong usage.
pub const USAGE: u8 = 2;
/// Exit code of anything that failed.
pub const FAILED: u8 = 1;
/// Exit code of a build that was interrupted: buildx's, a failure like any other.
pub const INTERRUPTED: u8 = 1;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The arguments mean nothing.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The executor's flags mean nothing.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// The build failed.
    #[error(transparent)]
    Build(Box<BuildError>),
    /// kiln's own directory is none.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The store failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// An output failed.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// Whole images could not be read or moved.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// The sandbox could not be set up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// A stage's files cannot be kept here.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// A name is no image reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A digest is none.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A platform is none.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// No image of that name.
    #[error("no image `{name}` in the store")]
    NoImage {
        /// What was looked for.
        name: String,
    },
    /// No image of that name anywhere.
    #[error("no image `{name}` in the store, and none in its registry")]
    Nowhere {
        /// What was looked for.
        name: String,
        /// What the registry said.
        source: RegistryError,
    },
    /// No layout where one is named.
    #[error("`{name}` is no OCI layout or archive that is there")]
    NoLayout {
        /// What was looked for.
        name: String,
    },
    /// A change of an entry without an entry.
    #[error("which entry of `{index}` is to change?")]
    NoEntryNamed {
        /// The index.
        index: String,
    },
    /// Several images match.
    #[error("`{name}` is ambiguous in the store: it could be {candidates}")]
    Ambiguous {
        /// What was looked for.
        name: String,
        /// What it could be.
        candidates: String,
    },
    /// No image of that name in a layout.
    #[error("no image `{name}` in `{path}`, found {listed}")]
    NotInLayout {
        /// The layout.
        path: PathBuf,
        /// What was looked for.
        name: String,
        /// What there is.
        listed: String,
    },
    /// An image that is pushed has no name to push it under.
    #[error("`{image}` has no name to push it under")]
    NoDestination {
        /// The image.
        image: String,
    },
    /// A tag in another registry than the image's.
    #[error("cannot tag `{image}` as `{name}`: it is in another registry")]
    OtherRegistry {
        /// The image.
        image: String,
        /// The name it was to get.
        name: String,
    },
    /// An artifact about something in another repository.
    #[error("`{subject}` is in another repository than the artifact `{name}` that is to be about it")]
    OtherRepository {
        /// The subject.
        subject: String,
        /// The artifact.
        name: String,
    },
    /// A directory inside something that is no archive.
    #[error("the build context is not an archive: there is no `--context-sub-path` in it")]
    NoArchive,
    /// A warmer without images.
    #[error("you must select at least one image to cache or a Dockerfile to parse")]
    NothingToWarm,
    /// A file of kiln's own cannot be handled.
    #[error("cannot {action} `{path}`")]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The system refused kiln a thread that it cannot do without.
    #[error(transparent)]
    Thread(#[from] Refused),
    /// Standard output was closed.
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
    /// Credentials could not be saved or forgotten.
    #[error(transparent)]
    CredentialFile(#[from] CredentialFileError),
    /// Two images that `kiln diff` compared differ; what does has been shown already.
    #[error("the images differ")]
    Different,
    /// Two images could not be compared.
    #[error(transparent)]
    Diff(Box<Failure>),
    /// An image could not be compared.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// A second build gave another image (`--verify`).
    #[error("two builds of the same input gave different images")]
    Unverified(Box<Unverified>),
    /// A build that takes the time of day has nothing to be the same as.
    #[error("`--verify` cannot go with `--timestamp now`: each build would have a time of its own")]
    VerifyNow,
    /// A check found what `# check=error=true` makes an error; it has been shown already.
    #[error("{message}")]
    Check {
        /// Which rules.
        message: String,
    },
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self::Build(Box::new(error))
    }
}

impl From<ValueError> for Failure {
    fn from(error: ValueError) -> Self {
        Self::Request(error.into())
    }
}

impl Failure {
    /// Tells whether the user stopped it.
    pub fn is_interrupted(&self) -> bool {
        matches!(self, Self::Build(error) if matches!(error.problem, Problem::Cancelled))
    }

    /// Returns the process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Request(
                RequestError::File { .. } | RequestError::RegistriesConf(_) | RequestError::NoAgent { .. },
            ) => FAILED,
            Self::Request(_) | Self::VerifyNow => USAGE,
            // As diff(1) has it.
            Self::Different => FAILED,
            Self::Diff(_) => USAGE,
            _ if self.is_interrupted() => INTERRUPTED,
            _ => FAILED,
        }
    }

    /// Returns what the user can do about it.
    fn hint(&self) -> Option<String> {
        if space::is_full(self) {
            return Some(space::HINT.to_owned());
        }
        match self {
            Self::Request(error) => error.hint().map(str::to_owned),
            Self::Executor(error) => error.hint().map(str::to_owned),
            Self::Build(error) => error.problem.hint(),
            Self::Home(error) => error.hint().map(str::to_owned),
            Self::Blob(error) => error.hint().map(str::to_owned),
            Self::Cache(error) => error.hint(),
            Self::Registry(error) => error.hint(),
            Self::CredentialFile(error) => error.hint(),
            Self::Output(error) => error.hint(),
            Self::Images(error) => error.hint(),
            Self::OtherRegistry { .. } => Some("copy it there: `kiln copy IMAGE NAME`".to_owned()),
            Self::OtherRepository { .. } => {
                Some("push the artifact into the repository of the image it is about".to_owned())
            }
            Self::Nowhere { source, .. } => source.hint(),
            Self::Diff(failure) => failure.hint(),
            Self::Unverified(unverified) => unverified.hint(),
            Self::VerifyNow => {
                Some("leave it out: the commit's time is taken, or 0 outside of git".to_owned())
            }
            Self::NoImage { .. } => Some("`kiln images` lists what is there".to_owned()),
            Self::NoEntryNamed { .. } => {
                Some("name it by platform or digest; `kiln index inspect` lists them".to_owned())
            }
            Self::NoDestination { .. } => {
                Some("give one: `kiln push IMAGE registry.example.com/app:tag`".to_owned())
            }
            _ => None,
        }
    }

    /// Writes everything there is to say, with a newline at the end.
    pub fn render(&self, colour: bool) -> String {
        let mut text = String::new();
        if matches!(self, Self::Different) {
            return text;
        }
        if let Self::Unverified(unverified) = self
            && let Some(place) = &unverified.place
        {
            excerpt(&mut text, place);
        }
        if let Self::Build(error) = self {
            if let Problem::Process { last_output, .. } = &error.problem {
                last_lines(&mut text, last_output);
            }
            if let Some(place) = &error.place {
                excerpt(&mut text, place);
            }
        }
        let (begin, end) = if colour { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        let mut lines = causes(self);
        let mut relation = "cause";
        // Which of all that was being done met the full disk matters less than which disk it is.
        if let Some(full) = space::find(self) {
            let full = full.to_string();
            lines.retain(|line| *line != full);
            lines.insert(0, full);
            relation = "while";
        }
        let _ = writeln!(text, "{begin}error:{end} {}", message(&lines[0]));
        if let Self::Unverified(unverified) = self {
            for line in unverified.lines() {
                let _ = writeln!(text, "  {}", message(&line));
            }
        }
        for cause in &lines[1..] {
            let _ = writeln!(text, "  {relation}: {}", message(cause));
        }
        let refused = || Refused::is_cause_of(self).then(|| Refused::HINT.to_owned());
        if let Some(hint) = self.hint().or_else(refused) {
            let _ = writeln!(text, "hint: {}", message(&hint));
        }
        text
    }
}

/// Returns an error's text and its causes', leaving out what a text above says already.
pub fn causes(error: &dyn Error) -> Vec<String> {
    let mut lines = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !text.is_empty() && !lines.iter().any(|line| line.contains(&text)) {
            lines.push(text);
        }
        next = cause.source();
    }
    lines
}

/// How many lines of the Dockerfile are shown before and after those meant.
const MARGIN: usize = 2;

/// Writes the lines of the Dockerfile that an error is about, in BuildKit's shape.
pub fn excerpt(text: &mut String, place: &Place) {
    let lines: Vec<&str> = place.source.lines().collect();
    let first = place.span.start_line.max(1);
    let last = place.span.end_line.max(first);
    let _ = writeln!(text, "{}:{first}", line(&place.name));
    let rule = "-".repeat(20);
    let _ = writeln!(text, "{rule}");
    let shown = first.saturating_sub(MARGIN).max(1)..=(last + MARGIN).min(lines.len());
    for number in shown {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let shown = format!("{number:4} | {mark} {}", line(lines[number - 1]));
        let _ = writeln!(text, "{}", shown.trim_end());
    }
    let _ = writeln!(text, "{rule}");
}

/// Writes the last lines that a step printed, as it printed them.
fn last_lines(text: &mut String, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "the last lines of its output:");
    for line in lines {
        let _ = writeln!(text, "    {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::Span;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layered(&'static str, #[source] Option<Box<Layered>>);

    fn place(first: usize, last: usize) -> Place {
        Place {
            name: "Dockerfile".to_owned(),
            source: "FROM a\n\nRUN x\nRUN y \\\n  z\nCMD q\n".into(),
            span: Span { start_line: first, end_line: last },
        }
    }

    #[test]
    fn causes_do_not_repeat_each_other() {
        let bottom = Layered("no space left", None);
        let middle = Layered("cannot write `x`: no space left", Some(Box::new(bottom)));
        let top = Layered("cannot push", Some(Box::new(middle)));
        assert_eq!(causes(&top), ["cannot push", "cannot write `x`: no space left"]);
    }

    #[test]
    fn the_excerpt_marks_the_lines_meant() {
        let mut text = String::new();
        excerpt(&mut text, &place(4, 5));
        assert_eq!(
            text,
            "Dockerfile:4\n--------------------\n   2 |\n   3 |     RUN x\n   4 | >>> RUN y \\\n   5 | >>>   z\n   6 |     CMD q\n--------------------\n"
        );
    }

    #[test]
    fn the_excerpt_stays_inside_the_file() {
        for (first, last) in [(0, 0), (1, 1), (6, 6), (6, 99), (50, 51)] {
            let mut text = String::new();
            excerpt(&mut text, &place(first, last));
            assert!(text.starts_with("Dockerfile:"), "{text}");
        }
    }

    #[test]
    fn a_failed_step_shows_output_place_and_hint() {
        let problem = Problem::Process {
            command: "/bin/sh -c x".to_owned(),
            ending: "exit code: 127".to_owned(),
            code: 127,
            last_output: vec!["sh: x: not found".to_owned()],
            absent: vec!["`--ssh default`".to_owned()],
        };
        let failure = Failure::from(BuildError { problem, place: Some(place(3, 3)) });
        let text = failure.render(false);
        assert!(text.contains("    sh: x: not found\n"), "{text}");
        assert!(text.contains("   3 | >>> RUN x\n"), "{text}");
        assert!(
            text.contains("error: process \"/bin/sh -c x\" did not complete successfully: exit code: 127\n")
        );
        let hint = "hint: the shell did not find the command in the image; it mounts what this build was not given: `--ssh default`";
        assert!(text.contains(hint), "{text}");
        assert_eq!(failure.exit_code(), FAILED);
    }

    #[test]
    fn usage_errors_and_interruptions_have_codes_of_their_own() {
        assert_eq!(Failure::Request(RequestError::StdinTwice).exit_code(), USAGE);
        assert_eq!(Failure::from(BuildError::from(Problem::Cancelled)).exit_code(), INTERRUPTED);
    }
}
