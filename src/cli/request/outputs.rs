//! Where the image goes and what it is called there.

use super::RequestError;
use crate::cli::args::OutputArgs;
use crate::cli::environment::Environment;
use crate::cli::tags::{self, Commit};
use crate::cli::values::{ImageOptions, ValueError, parse_output};
use crate::oci::{ManifestFormat, Reference, ReferenceError};
use crate::output::{Destination, OutputSpec, PushOptions};

/// What is delivered, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The image's names.
    pub names: Vec<Reference>,
    /// Where it goes.
    pub outputs: Vec<OutputSpec>,
    /// What it must be like.
    pub image: ImageOptions,
}

/// Reads `--tag`, `--output` and `--push`.
pub fn delivery(
    args: &OutputArgs,
    environment: &Environment,
    commit: Option<&Commit>,
) -> Result<Delivery, RequestError> {
    let mut names: Vec<Reference> = Vec::new();
    for text in &args.tag {
        let name = tags::name(text, commit)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut outputs = Vec::new();
    let mut image = ImageOptions::default();
    for text in &args.output {
        let option = parse_output(text)?;
        image.merge(option.image).map_err(|option| RequestError::Disagree { option })?;
        if let Some(mut spec) = option.spec {
            settle(&mut spec, environment, commit)?;
            outputs.push(spec);
        }
    }
    if image.force_compression {
        return Err(RequestError::ForceCompression);
    }
    if args.push {
        push(&mut outputs);
    }
    for output in &mut outputs {
        if let OutputSpec::Registry { options, .. } = output {
            options.check &= !args.skip_push_permission_check;
            options.keep_immutable |= args.push_ignore_immutable_tag_errors;
        }
    }
    if let Some(format) = args.image_format.as_deref().map(image_format).transpose()? {
        if image.format.is_some_and(|other| other != format) {
            return Err(RequestError::Disagree { option: "--image-format" });
        }
        image.format = Some(format);
    }
    if args.output.is_empty() && outputs.is_empty() {
        outputs.push(OutputSpec::Store { names: Vec::new() });
    }
    check(&outputs, &names, environment)?;
    Ok(Delivery { names, outputs, image })
}

fn image_format(text: &str) -> Result<ManifestFormat, ValueError> {
    match text {
        "oci" => Ok(ManifestFormat::Oci),
        "docker" => Ok(ManifestFormat::Docker),
        other => Err(ValueError::new("--image-format", other, "expected oci or docker")),
    }
}

/// Adds `--push`: outputs of images without a destination are pushed, or else the registry is one more.
fn push(outputs: &mut Vec<OutputSpec>) {
    let mut pushed = false;
    for output in outputs.iter_mut() {
        match output {
            OutputSpec::Store { names } => {
                let names = std::mem::take(names);
                *output = OutputSpec::Registry { names, options: PushOptions::default() };
                pushed = true;
            }
            OutputSpec::Registry { .. } => pushed = true,
            _ => {}
        }
    }
    if !pushed {
        outputs.push(OutputSpec::Registry { names: Vec::new(), options: PushOptions::default() });
    }
}

/// Makes paths absolute and gives names their tags.
fn settle(
    spec: &mut OutputSpec,
    environment: &Environment,
    commit: Option<&Commit>,
) -> Result<(), RequestError> {
    let at = |destination: &mut Destination| {
        if let Destination::File(path) = destination {
            *path = environment.directory.join(&*path);
        }
    };
    let tag = |names: &mut Vec<Reference>, tag: bool| -> Result<(), ReferenceError> {
        for name in names.iter_mut().filter(|name| tag && name.tag().is_none() && name.digest().is_none()) {
            *name = name.with_tag(&commit.map_or_else(|| "latest".to_owned(), Commit::tag))?;
        }
        Ok(())
    };
    match spec {
        OutputSpec::Registry { names, options } => tag(names, !options.by_digest)?,
        OutputSpec::Store { names } => tag(names, true)?,
        OutputSpec::OciDirectory { path, names } => {
            *path = environment.directory.join(&*path);
            tag(names, true)?;
        }
        OutputSpec::OciArchive { destination, names } | OutputSpec::DockerArchive { destination, names } => {
            at(destination);
            tag(names, true)?;
        }
        OutputSpec::RootfsDirectory { path } => *path = environment.directory.join(&*path),
        OutputSpec::RootfsArchive { destination } => at(destination),
    }
    Ok(())
}

/// Tells whether an output writes to standard output.
pub fn writes_stdout(spec: &OutputSpec) -> bool {
    matches!(
        spec,
        OutputSpec::OciArchive { destination: Destination::Stdout, .. }
            | OutputSpec::DockerArchive { destination: Destination::Stdout, .. }
            | OutputSpec::RootfsArchive { destination: Destination::Stdout }
    )
}

fn check(outputs: &[OutputSpec], names: &[Reference], environment: &Environment) -> Result<(), RequestError> {
    for output in outputs {
        if let OutputSpec::Registry { names: own, .. } = output
            && own.is_empty()
            && names.is_empty()
        {
            return Err(RequestError::PushWithoutName);
        }
    }
    match outputs.iter().filter(|output| writes_stdout(output)).count() {
        0 => Ok(()),
        1 if environment.stdout_is_terminal => Err(RequestError::StdoutTerminal),
        1 => Ok(()),
        _ => Err(RequestError::StdoutTwice),
    }
}
