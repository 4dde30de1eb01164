//! `kiln build --verify`: the same built twice, in as different a way as this machine allows, before any output
//! has a byte; and where the two images part, told for people.
//!
//! The second build has no cache, another number of threads, plain directories where the first had an overlay, cache
//! mounts of its own, and begins when the clock shows another time. Both read the same input.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::commands::diff_json;
use super::fail::Failure;
use super::home::Site;
use super::request::{CacheSetup, Invocation};
use super::wire;
use crate::build::{
    BuildError, ContextSource, EpochChoice, Finished, Outcome, Place, Problem, Services, build_gated,
};
use crate::compare::{
    Cause, Contrast, Evidence, ImageDiff, Likeness, PathChange, Side, Subject, compare_images, contrast,
    usual_cause,
};
use crate::event::{Event, Report, Reporter};
use crate::oci::{Digest, Image};

/// The coarsest time that is written into files: zip counts in two seconds.
const CLOCK_STEP: Duration = Duration::from_millis(2100);

/// How many paths are named beside the first.
const ALSO: usize = 5;

/// Two builds that gave different images.
#[derive(Debug)]
pub struct Unverified {
    /// The lines of the Dockerfile that made the first difference.
    pub place: Option<Place>,
    first: Digest,
    second: Digest,
    /// What the second build was like.
    how: String,
    /// Where the images part, in a line.
    at: String,
    /// What the first and the second have there.
    contents: Option<[String; 2]>,
    cause: Option<Cause>,
    also: Vec<String>,
    diff: Value,
}

impl Unverified {
    /// Returns what there is to say, line by line.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("first build   {}", self.first),
            format!("second build  {} ({})", self.second, self.how),
            self.at.clone(),
        ];
        if let Some([first, second]) = &self.contents {
            lines.push(format!("  first   {first}"));
            lines.push(format!("  second  {second}"));
        }
        if let Some(cause) = self.cause {
            lines.push(format!("usual cause: {}", cause.what));
        }
        lines.extend(self.also.iter().enumerate().map(|(number, text)| match number {
            0 => format!("also: {text}"),
            _ => format!("      {text}"),
        }));
        lines
    }

    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(self.cause.map_or_else(
            || "nothing was pushed or tagged; `--metadata-file` has every difference".to_owned(),
            |cause| cause.cure.to_owned(),
        ))
    }

    /// Describes it for the metadata file.
    pub fn as_json(&self) -> Value {
        json!({
            "reproducible": false,
            "digests": [self.first, self.second],
            "second": self.how,
            "at": self.at,
            "line": self.place.as_ref().map(|place| place.span.start_line),
            "cause": self.cause.map(|cause| json!({ "what": cause.what, "cure": cause.cure })),
            "diff": self.diff,
        })
    }
}

/// Builds, builds again, and hands the image to the outputs if both are the same.
pub(super) fn build_twice(
    invocation: &Invocation,
    site: &Site,
    services: &Services,
) -> Result<Outcome, Failure> {
    if invocation.request.epoch == EpochChoice::Now {
        return Err(Failure::VerifyNow);
    }
    let mut invocation = invocation.clone();
    keep_stdin(&mut invocation, services)?;
    let begun = Instant::now();
    let failure: Mutex<Option<Failure>> = Mutex::new(None);
    let gate = |first: &Finished| {
        let checked = build_again(&invocation, site, services, begun, first);
        let passed = checked.is_ok();
        *failure.lock().expect("no panic while a failure is kept") = checked.err();
        passed
    };
    let outcome = build_gated(&invocation.request, services, Some(&gate));
    let refused = failure.into_inner().expect("no panic while a failure is kept");
    match (outcome, refused) {
        (Err(BuildError { problem: Problem::Refused | Problem::Cancelled, .. }), Some(failure)) => {
            Err(failure)
        }
        (outcome, _) => outcome.map_err(Failure::from),
    }
}

/// Puts a context on standard input into a file, so that it can be read twice.
fn keep_stdin(invocation: &mut Invocation, services: &Services) -> Result<(), Failure> {
    if invocation.request.context != ContextSource::Stdin {
        return Ok(());
    }
    let path = services.work_dir.join("stdin");
    let kept = std::fs::File::create(&path).and_then(|mut file| io::copy(&mut io::stdin(), &mut file));
    kept.map_err(|source| Failure::File { action: "write", path: path.clone(), source })?;
    invocation.request.context = ContextSource::TarFile(path);
    Ok(())
}

fn build_again(
    invocation: &Invocation,
    site: &Site,
    services: &Services,
    begun: Instant,
    first: &Finished,
) -> Result<(), Failure> {
    let reporter = &services.reporter;
    // A step that takes the time took it at least this long ago when it runs again.
    std::thread::sleep(CLOCK_STEP.saturating_sub(begun.elapsed()));
    let other = |threads: NonZeroUsize| NonZeroUsize::new(if threads.get() > 1 { 1 } else { 2 });
    let mut again = invocation.clone();
    again.outputs.clear();
    again.request.no_cache = true;
    again.caches = CacheSetup::default();
    again.request.pull = false;
    again.request.jobs = other(invocation.request.jobs).expect("not 0");
    again.request.compression_threads = other(invocation.request.compression_threads).expect("not 0");
    let quiet = Reporter::new(Again(reporter.clone()));
    let workshop = wire::open_second_workshop(&again, site, services, &quiet)?;
    let how = format!(
        "no cache, {} storage, {} compressing",
        workshop.services.storage.name(),
        match again.request.compression_threads.get() {
            1 => "1 thread".to_owned(),
            count => format!("{count} threads"),
        }
    );
    reporter.info(format!("verifying: building again ({how})"));
    let result: Mutex<Option<Result<(), Failure>>> = Mutex::new(None);
    let gate = |second: &Finished| {
        let same = first.image.digest() == second.image.digest();
        let verdict = if same { Ok(()) } else { Err(explain(first, second, how.clone())) };
        *result.lock().expect("no panic while a verdict is kept") = Some(verdict);
        same
    };
    let outcome = build_gated(&again.request, &workshop.services, Some(&gate));
    // What is left of it is the next build's to remove.
    let _ = workshop.close();
    match result.into_inner().expect("no panic while a verdict is kept") {
        Some(Ok(())) => {
            reporter.info(format!("verified: both builds gave {}", first.image.digest()));
            Ok(())
        }
        Some(Err(failure)) => Err(failure),
        None => match outcome {
            Err(error) => {
                reporter.warning("the second build, which `--verify` asks for, failed");
                Err(error.into())
            }
            Ok(_) => Ok(()),
        },
    }
}

/// Shows the steps of the second build apart from the first's, and keeps what was said already to itself.
struct Again(Reporter);

impl Report for Again {
    fn report(&self, mut event: Event) {
        match &mut event {
            Event::StepStarted { step, .. }
            | Event::StepOutput { step, .. }
            | Event::StepFinished { step, .. }
            | Event::LayerFinished { step, .. } => step.stage = format!("again: {}", step.stage),
            Event::Warning { .. } | Event::Info { .. } => return,
            _ => {}
        }
        self.0.report(event);
    }
}

/// Finds out where two images part.
fn explain(first: &Finished, second: &Finished, how: String) -> Failure {
    let subject =
        |finished: &Finished| Subject { image: finished.image.clone(), blobs: finished.blobs.clone() };
    let (a, b) = (subject(first), subject(second));
    let diff = match compare_images(&a, &b) {
        Ok(diff) => diff,
        Err(error) => return error.into(),
    };
    let mut found = Unverified {
        place: None,
        first: a.image.digest(),
        second: b.image.digest(),
        how,
        at: String::new(),
        contents: None,
        cause: None,
        also: Vec::new(),
        diff: diff_json(&diff),
    };
    let different = diff.layers.iter().find(|layer| layer.likeness != Likeness::Same);
    match different {
        Some(layer) => {
            let position =
                layer.before.as_ref().or(layer.after.as_ref()).map_or(0, |(position, _)| *position);
            found.place = first.places.get(position).cloned().flatten();
            let name = layer_name(&a.image, position);
            match (layer.likeness, &layer.before, &layer.after) {
                (Likeness::Entries, Some((_, one)), Some((_, other))) => {
                    found.of_entries(&name, &layer.entries, (&a, one), (&b, other));
                }
                (Likeness::Alone(_), ..) => found.at = format!("{name}: only one of the builds has it"),
                (Likeness::Compression, ..) => {
                    found.at = format!(
                        "{name}: the same content, compressed to other bytes: this is a fault of kiln's"
                    );
                }
                _ => {
                    found.at = format!(
                        "{name}: the same entries, written in another way: this is a fault of kiln's"
                    );
                }
            }
        }
        None => found.at = document(&diff),
    }
    Failure::Unverified(Box::new(found))
}

fn layer_name(image: &Image, position: usize) -> String {
    format!("layer {} of {}", position + 1, image.layers.len())
}

/// Names the first field that differs where all layers are the same.
fn document(diff: &ImageDiff) -> String {
    let fields = [("manifest", &diff.manifest), ("config", &diff.config), ("history", &diff.history)];
    let first = fields.into_iter().find_map(|(name, fields)| Some((name, fields.first()?)));
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
    match first {
        Some((name, field)) => format!(
            "{name} {}: `{}` in the first, `{}` in the second",
            field.name,
            shown(&field.before),
            shown(&field.after)
        ),
        None => "the documents differ in their form alone: this is a fault of kiln's".to_owned(),
    }
}

/// A layer of an image.
type At<'a> = (&'a Subject, &'a crate::oci::Layer);

impl Unverified {
    /// Tells the first path of a layer that differs, and names some more.
    fn of_entries(&mut self, layer: &str, entries: &[PathChange], first: At<'_>, second: At<'_>) {
        let read = |change: &PathChange| contrast(&change.path, first, second).ok().flatten();
        // The time of a directory follows from what was put into it: that is what is looked for.
        let follows = |change: &PathChange| change.fields.iter().all(|field| field.name == "mtime");
        let at = entries.iter().position(|change| !follows(change)).unwrap_or(0);
        let Some(change) = entries.get(at) else { return };
        let contrast = if change.side == Side::Both { read(change) } else { None };
        self.at = format!("{layer}, /{}: {}", change.path.display(), what(change, contrast.as_ref()));
        self.contents = contrast.as_ref().map(|contrast| [0, 1].map(|which| excerpt(contrast, which)));
        self.cause = usual_cause(&Evidence { change, contrast: contrast.as_ref() });
        let others = entries.iter().enumerate().filter(|(number, _)| *number != at).map(|(_, change)| change);
        let others: Vec<&PathChange> = others.collect();
        self.also = others.iter().take(ALSO).map(|change| also(change)).collect();
        if others.len() > ALSO {
            self.also.push(format!("and {} more paths", others.len() - ALSO));
        }
    }
}

/// Says of a path what differs, for the list of further ones.
fn also(change: &PathChange) -> String {
    let cause = usual_cause(&Evidence { change, contrast: None });
    let cause = cause.map(|cause| format!(" ({})", cause.what)).unwrap_or_default();
    format!("/{}: {}{cause}", change.path.display(), what(change, None))
}

fn what(change: &PathChange, contrast: Option<&Contrast>) -> String {
    match (change.side, contrast) {
        (Side::First, _) => "only the first build made it".to_owned(),
        (Side::Second, _) => "only the second build made it".to_owned(),
        (Side::Both, Some(contrast)) => format!("content differs from byte {} on", contrast.offset),
        (Side::Both, None) => {
            let field = |name: &str| change.field(name).is_some();
            if field("content") {
                return "content differs".to_owned();
            }
            let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
            let fields = change.fields.iter();
            let fields = fields.map(|field| {
                format!("{} is {} and {}", field.name, shown(&field.before), shown(&field.after))
            });
            fields.collect::<Vec<_>>().join(", ")
        }
    }
}

/// Shows what one of the builds has at the first difference: a line of text, or bytes.
fn excerpt(contrast: &Contrast, which: usize) -> String {
    const BYTES: usize = 16;
    const CHARACTERS: usize = 100;
    let (around, at) = (&contrast.around[which], contrast.before);
    let start = around[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let end =
        around[at..].iter().position(|byte| *byte == b'\n').map_or(around.len(), |newline| at + newline);
    let is_text = |line: &[u8]| line.iter().all(|byte| *byte >= b' ' && *byte != 0x7f || *byte == b'\t');
    match std::str::from_utf8(&around[start..end]) {
        _ if around.len() == at => "ends here".to_owned(),
        Ok(line) if is_text(line.as_bytes()) => line.chars().take(CHARACTERS).collect(),
        _ => around[at..]
            .iter()
            .take(BYTES)
            .map(|byte| format!("{byte:02x} "))
            .collect::<String>()
            .trim_end()
            .to_owned(),
    }
}
