//! What a Dockerfile asks for, without a build: for `--dryrun`.

use std::fmt::Write as _;

use crate::build::{BuildError, Problem, Request, Workbench, read_dockerfile};
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::home::Home;
use crate::cli::wire;
use crate::dockerfile::parse;
use crate::event::Reporter;
use crate::oci::{Platform, Reference};
use crate::own_files::OwnFiles;
use crate::plan::{Base, Plan, PlanRequest, plan};
use crate::registry::RegistryConfig;
use crate::text::line;

/// Reads and plans a request's Dockerfile.
pub(super) fn planned(
    request: &Request,
    home: &Home,
    registry: &RegistryConfig,
    environment: &Environment,
    reporter: &Reporter,
) -> Result<Plan, Failure> {
    let fetch = wire::open_fetch(registry, reporter.clone());
    let work_dir = wire::open_work_dir(home, reporter)?;
    let bench = Workbench {
        reporter,
        fetch: fetch.as_ref(),
        git_environment: &environment.for_git(),
        own_files: &OwnFiles::default(),
        work_dir: work_dir.path(),
    };
    let text = read_dockerfile(request, &bench)?;
    let dockerfile =
        parse(&text.name, &text.bytes).map_err(|error| BuildError::from(Problem::from(error)))?;
    let wanted = PlanRequest {
        build_args: request.build_args.clone(),
        target: request.target.clone(),
        build_platform: Platform::host(),
        target_platform: request.platform.clone().unwrap_or_else(Platform::host),
        contexts: std::collections::BTreeSet::new(),
    };
    Ok(plan(&dockerfile, &wanted).map_err(|error| BuildError::from(Problem::from(error)))?)
}

/// Writes what would be built: the stages that the target needs, their steps, and where the image would go.
pub(super) fn describe(plan: &Plan, destinations: &[Reference]) -> String {
    let mut text = String::new();
    for stage in plan.reachable.iter().map(|id| &plan.stages[id.0]) {
        let base = match &stage.base {
            Base::Scratch => "scratch".to_owned(),
            Base::Stage(id) => plan.stages[id.0].display.clone(),
            Base::Image { text } => text.clone(),
            Base::Context { name, .. } => name.clone(),
        };
        let _ = writeln!(text, "FROM {base} AS {} ({})", stage.display, stage.platform);
        for step in &stage.steps {
            let _ = writeln!(text, "  {}", line(step.original.trim()));
        }
    }
    for name in destinations {
        let _ = writeln!(text, "PUSH {} TO {name}", plan.stages[plan.target.0].display);
    }
    text
}
