//! Build checks: the lint rules over a Dockerfile, with what is known of its base images.

use super::error::{BuildError, Problem};
use super::inputs::{DockerfileText, plan_request};
use super::{Build, Request};
use crate::context::Ignore;
use crate::dockerfile::Dockerfile;
use crate::event::Event;
use crate::oci::{ImageConfig, Platform};
use crate::plan::lint::{BaseImage, LintInputs, LintReport, Scope, lint, lint_text};

/// An image a rule wants to know about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// By the text of a `FROM`.
    Reference(&'a str),
    /// By the name of a build context.
    Context(&'a str),
}

/// Looks an image's config up; `None` if it cannot be had.
pub type ImageLookup<'a> = &'a dyn Fn(&Wanted<'_>, &Platform) -> Option<ImageConfig>;

fn known(config: ImageConfig) -> BaseImage {
    let platform = (!config.os.is_empty()).then(|| config.platform().normalised());
    let run = config.config;
    BaseImage { env: run.env, shell: run.shell, on_build: run.on_build, platform }
}

struct Known<'a> {
    ignore: &'a Ignore,
    image: ImageLookup<'a>,
}

impl LintInputs for Known<'_> {
    fn base_image(&self, reference: &str, platform: &Platform) -> Option<BaseImage> {
        (self.image)(&Wanted::Reference(reference), platform).map(known)
    }

    fn context_image(&self, name: &str, platform: &Platform) -> Option<BaseImage> {
        (self.image)(&Wanted::Context(name), platform).map(known)
    }

    fn ignore_patterns(&self) -> &[String] {
        self.ignore.patterns()
    }

    fn is_ignored(&self, path: &str) -> bool {
        self.ignore.is_ignored(std::path::Path::new(path))
    }
}

/// Checks a Dockerfile as `kiln check` does: every stage, unless the request names a target. One that cannot
/// be parsed is checked up to where that shows.
pub fn check(
    request: &Request,
    build_platform: &Platform,
    text: &DockerfileText,
    image: ImageLookup<'_>,
) -> (Dockerfile, LintReport) {
    let platform = request.platform.as_ref().unwrap_or(build_platform);
    let planned = plan_request(request, build_platform, platform);
    let inputs = Known { ignore: &text.ignore, image };
    lint_text(&text.name, &text.bytes, &planned, Scope::All, &inputs)
}

impl Build<'_> {
    fn lint(&self, image: ImageLookup<'_>) -> LintReport {
        let request = plan_request(self.request, &self.services.build_platform, &self.platform);
        let ignore = &self.inputs.main().ignore;
        lint(&self.dockerfile, &request, Scope::Reachable, &Known { ignore, image })
    }

    /// Refuses a Dockerfile whose `# check=error=true` its own warnings violate, before anything is built.
    pub(super) fn enforce_checks(&self) -> Result<(), BuildError> {
        let given = self.request.build_args.contains_key("BUILDKIT_DOCKERFILE_CHECK");
        let directive = &self.dockerfile.directives.check;
        if !given && !directive.as_ref().is_some_and(|check| check.value.contains("error")) {
            return Ok(());
        }
        let report = self.lint(&|wanted, platform| match wanted {
            Wanted::Reference(text) => Some(self.image(text, platform).ok()?.config.clone()),
            Wanted::Context(name) => Some(self.context_image(name, platform).ok()??.config.clone()),
        });
        match report.violation.clone() {
            Some(message) => {
                self.report_warnings(&report);
                let span = report.warnings.first().map(|warning| warning.span);
                let problem = Problem::Lint { message };
                Err(match span {
                    Some(span) => problem.at(&self.dockerfile, span),
                    None => problem.into(),
                })
            }
            None => Ok(()),
        }
    }

    /// Reports what the rules have to say of what was built, and the build arguments nothing used.
    pub(super) fn warn(&self) {
        let report = self.lint(&|wanted, platform| self.known_image(wanted, platform));
        self.report_warnings(&report);
        if !self.plan.unused_build_args.is_empty() {
            let names = self.plan.unused_build_args.join(" ");
            let text = format!("one or more build-args were not consumed: [{names}]");
            let hint = "declare them with ARG in the stage that uses them";
            self.services.reporter.report(Event::Warning { text, hint: Some(hint.to_owned()) });
        }
    }

    fn report_warnings(&self, report: &LintReport) {
        for warning in &report.warnings {
            let (rule, line) = (warning.rule.name, warning.span.start_line);
            let text = format!("{rule}: {} ({}:{line})", warning.detail, self.dockerfile.name);
            self.services.reporter.report(Event::Warning { text, hint: None });
        }
    }
}
