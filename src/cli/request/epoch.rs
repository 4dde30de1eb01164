//! What time it is for the image: the option, the outputs', the build argument, the environment's, the commit's.
//!
//! What is given becomes the build argument `SOURCE_DATE_EPOCH`, as buildx does it with the variable: steps that
//! declare it see it. A commit's time is only kiln's own default and does not reach any step.

use super::RequestError;
use crate::build::{EpochChoice, Request};
use crate::cli::args::{OutputArgs, TimestampArg};
use crate::cli::environment::Environment;
use crate::cli::tags::Commit;

/// The build argument, and the variable.
const NAME: &str = "SOURCE_DATE_EPOCH";

/// Reads the variable, in seconds since 1970.
pub(crate) fn of_environment(environment: &Environment) -> Result<Option<i64>, RequestError> {
    match environment.set_var(NAME) {
        None => Ok(None),
        Some(value) => value.parse().map(Some).map_err(|_| RequestError::Epoch { value: value.to_owned() }),
    }
}

/// Sets the request's epoch. `output` is what the outputs' `source-date-epoch` says.
pub(super) fn choose(
    request: &mut Request,
    args: &OutputArgs,
    environment: &Environment,
    output: Option<i64>,
    commit: Option<&Commit>,
) -> Result<(), RequestError> {
    let variable = of_environment(environment)?;
    let mut set = |value: String| request.build_args.insert(NAME.to_owned(), value);
    request.epoch = match (args.timestamp, output, variable) {
        (Some(TimestampArg::Now), ..) => {
            // Empty means none, also where the Dockerfile has one.
            set(String::new());
            EpochChoice::Now
        }
        (Some(TimestampArg::Seconds(seconds)), ..) | (None, Some(seconds), _) => {
            set(seconds.to_string());
            EpochChoice::Given(seconds)
        }
        (None, None, Some(seconds)) => {
            request.build_args.entry(NAME.to_owned()).or_insert_with(|| seconds.to_string());
            EpochChoice::Given(seconds)
        }
        (None, None, None) => EpochChoice::Commit {
            local: commit.and_then(|commit| commit.time),
            // Two builds at two times can only be compared as at one.
            otherwise: (args.reproducible || args.verify).then_some(0),
        },
    };
    Ok(())
}
