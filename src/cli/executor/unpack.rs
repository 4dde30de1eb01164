//! A directory inside an archived context: unpacked first, since a context's root is what is built from.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::build::{BuildError, ContextSource, Problem};
use crate::cli::fail::Failure;
use crate::cli::home::Home;
use crate::cli::request::Invocation;
use crate::cli::wire;
use crate::context::{Archive, ContextError, open_stream};
use crate::event::Reporter;
use crate::rootfs::WorkDir;

/// Unpacks the context of `invocation` and makes `sub_path` in it the context. The files go with the value
/// returned.
pub(super) fn unpack(
    invocation: &mut Invocation,
    home: &Home,
    sub_path: &Path,
    reporter: &Reporter,
) -> Result<WorkDir, Failure> {
    let directory = wire::open_work_dir(home, reporter)?;
    let context_error = |error: ContextError| Failure::from(BuildError::from(Problem::from(error)));
    let reader: Box<dyn Read + Send> = match &invocation.request.context {
        ContextSource::Stdin => Box::new(std::io::stdin()),
        ContextSource::TarFile(path) => Box::new(File::open(path).map_err(|source| Failure::File {
            action: "read",
            path: path.clone(),
            source,
        })?),
        ContextSource::Url(url) => {
            let fetch = wire::open_fetch(&invocation.registry, reporter.clone());
            fetch.get(url, &[]).map_err(context_error)?.reader
        }
        ContextSource::Object(object) => {
            let fetch = wire::open_fetch(&invocation.registry, reporter.clone());
            fetch.object(object).map_err(context_error)?.reader
        }
        // These were given their directory when they were read.
        ContextSource::Directory(_) | ContextSource::Git(_) => return Ok(directory),
    };
    match open_stream(reader, directory.path()).map_err(context_error)? {
        Archive::Tree(_) => {
            invocation.request.context = ContextSource::Directory(directory.path().join(sub_path));
            Ok(directory)
        }
        Archive::Dockerfile(_) => Err(Failure::NoArchive),
    }
}
