//! Rules about what instructions do: goes through stages with their variables, as a build does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::Regex;

use super::{BaseImage, LintError, LintInputs, Rule, Sink, rules};
use crate::dockerfile::chmod::Chmod;
use crate::dockerfile::mount::parse_mount;
use crate::dockerfile::ports::parse_port;
use crate::dockerfile::signal::validate_signal;
use crate::dockerfile::suggest::nearest;
use crate::dockerfile::{
    ArgDecl, Command, ExpandError, Instruction, InstructionKind, KeyValues, Source, Span, expand,
    expand_heredoc, expand_words, parse_trigger, quote,
};
use crate::plan::globals::format_all;
use crate::plan::{Base, Plan, Stage, StageId, remote};

/// Build arguments that never become variables.
const NEVER_IN_ENVIRONMENT: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// What is known at one point of a stage.
#[derive(Debug, Clone, Default)]
struct State {
    variables: BTreeMap<String, String>,
    declared: BTreeSet<String>,
    /// Whether the base image's environment is among the variables.
    base_known: bool,
    has_shell: bool,
    workdir_set: bool,
    last_cmd: Option<Span>,
    last_entrypoint: Option<Span>,
    last_healthcheck: Option<Span>,
}

/// The walk over all stages.
pub(super) struct Walk<'a> {
    plan: &'a Plan,
    inputs: &'a dyn LintInputs,
    sink: &'a mut Sink,
    ended: BTreeMap<StageId, State>,
}

/// An instruction, where it counts as standing.
struct Step<'a> {
    instruction: &'a Instruction,
    span: Span,
    comments: &'a [String],
}

impl<'a> Walk<'a> {
    pub(super) fn new(plan: &'a Plan, inputs: &'a dyn LintInputs, sink: &'a mut Sink) -> Self {
        Self { plan, inputs, sink, ended: BTreeMap::new() }
    }

    /// Looks into stages, which come after those they are `FROM`.
    pub(super) fn stages(&mut self, ids: &[StageId]) -> Result<(), LintError> {
        // Every base is asked for before any instruction is looked at, as in a build.
        let mut bases = BTreeMap::new();
        for id in ids {
            let stage = &self.plan.stages[id.0];
            bases.insert(*id, self.base(stage));
        }
        for id in ids {
            let stage = &self.plan.stages[id.0];
            let base = bases.remove(id).flatten();
            let mut state = self.start(stage, base.as_ref());
            // Triggers fire where the target needs the stage, also where all stages are looked into.
            let fires = self.plan.reachable.contains(id);
            let triggers = if fires { self.triggers(stage, base.as_ref()) } else { Vec::new() };
            for text in triggers {
                let trigger = parse_trigger(&text)
                    .map_err(|error| LintError { message: error.message, span: Some(stage.from_span) })?;
                let step = Step { instruction: &trigger, span: stage.from_span, comments: &[] };
                self.step(&mut state, &step)?;
            }
            for instruction in &stage.steps {
                let comments = &instruction.comments;
                self.step(&mut state, &Step { instruction, span: instruction.span, comments })?;
            }
            self.ended.insert(*id, state);
        }
        Ok(())
    }

    /// Asks for a stage's base image, and checks its platform.
    fn base(&mut self, stage: &Stage) -> Option<BaseImage> {
        let text = match &stage.base {
            Base::Image { text } => text,
            Base::Context { name, .. } => return self.inputs.context_image(name, &stage.platform),
            Base::Scratch | Base::Stage(_) => return None,
        };
        let image = self.inputs.base_image(text, &stage.platform)?;
        if let Some(actual) = &image.platform
            && (actual.os != stage.platform.os || actual.architecture != stage.platform.architecture)
        {
            let detail = format!(
                "Base image {text} was pulled with platform {}, expected {} for current build",
                quote::go(&format_all(&actual.clone().normalised())),
                quote::go(&format_all(&stage.platform.clone().normalised()))
            );
            self.sink.warn(&rules::INVALID_BASE_IMAGE_PLATFORM, stage.from_span, detail);
        }
        Some(image)
    }

    fn start(&self, stage: &Stage, image: Option<&BaseImage>) -> State {
        let mut state = match stage.base {
            Base::Stage(parent) => State {
                last_cmd: None,
                last_entrypoint: None,
                last_healthcheck: None,
                ..self.ended.get(&parent).cloned().unwrap_or_default()
            },
            Base::Scratch => State { base_known: true, ..State::default() },
            _ => State { base_known: image.is_some(), ..State::default() },
        };
        if let Some(image) = image {
            state.has_shell = !image.shell.is_empty();
            for entry in &image.env {
                let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
                state.variables.insert(name.to_owned(), value.to_owned());
            }
        }
        if stage.platform.os != "windows" {
            state
                .variables
                .entry("PATH".to_owned())
                .or_insert_with(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
        }
        state
    }

    fn triggers(&self, stage: &Stage, image: Option<&BaseImage>) -> Vec<String> {
        let parent = match stage.base {
            Base::Stage(parent) => &self.plan.stages[parent.0],
            _ => return image.map(|image| image.on_build.clone()).unwrap_or_default(),
        };
        let triggers = parent.steps.iter().filter_map(|step| match &step.kind {
            InstructionKind::OnBuild(on_build) => Some(on_build.text.clone()),
            _ => None,
        });
        triggers.collect()
    }

    fn step(&mut self, state: &mut State, step: &Step<'_>) -> Result<(), LintError> {
        match &step.instruction.kind {
            InstructionKind::Env(pairs) => {
                let expanded = self.pairs(state, step, pairs)?;
                for (name, value) in expanded {
                    self.legacy(step, pairs);
                    self.secret(step, "ENV", &name);
                    state.variables.insert(name, value);
                }
            }
            InstructionKind::Label(pairs) => {
                for _ in self.pairs(state, step, pairs)? {
                    self.legacy(step, pairs);
                }
            }
            InstructionKind::Arg(declarations) => self.arg(state, step, declarations)?,
            InstructionKind::Run(run) => self.mounts(state, step, &run.mounts)?,
            InstructionKind::Copy(copy) => {
                self.words(state, step, &copy.chown)?;
                self.chmod(state, step, copy.chmod.as_deref())?;
                self.sources(state, step, &copy.sources, &copy.dest)?;
            }
            InstructionKind::Add(add) => {
                self.words(state, step, &add.chown)?;
                self.chmod(state, step, add.chmod.as_deref())?;
                self.words(state, step, &add.checksum)?;
                self.sources(state, step, &add.sources, &add.dest)?;
            }
            InstructionKind::Cmd(command) => {
                self.once(step, &mut state.last_cmd);
                self.json_recommended(state, step, command);
            }
            InstructionKind::Entrypoint(command) => {
                self.once(step, &mut state.last_entrypoint);
                self.json_recommended(state, step, command);
            }
            InstructionKind::Healthcheck(_) => self.once(step, &mut state.last_healthcheck),
            InstructionKind::Shell(_) => state.has_shell = true,
            InstructionKind::Workdir(path) => self.workdir(state, step, path)?,
            InstructionKind::User(user) => self.words(state, step, [user])?,
            InstructionKind::Volume(volumes) => {
                for volume in volumes {
                    if self.word(state, step, volume)?.is_empty() {
                        return Err(fail(step, "VOLUME specified can not be an empty string"));
                    }
                }
            }
            InstructionKind::StopSignal(signal) => {
                let signal = self.word(state, step, signal)?;
                validate_signal(&signal).map_err(|error| fail(step, error))?;
            }
            InstructionKind::Expose(ports) => self.expose(state, step, ports)?,
            InstructionKind::From(_) | InstructionKind::Maintainer(_) | InstructionKind::OnBuild(_) => {}
        }
        Ok(())
    }

    fn warn(&mut self, step: &Step<'_>, rule: &'static Rule, span: Span, detail: String) {
        self.sink.warn_at(step.comments, rule, span, detail);
    }

    /// Expands one text and reports what is not set.
    fn word(&mut self, state: &State, step: &Step<'_>, word: &str) -> Result<String, LintError> {
        let result = expand(word, &state.variables, self.plan.escape);
        let undefined = match &result {
            Ok(expanded) => &expanded.undefined,
            Err(error) => &error.undefined,
        };
        self.undefined(state, step, undefined);
        Ok(result.map_err(|error| fail(step, error))?.text)
    }

    fn words<'w>(
        &mut self,
        state: &State,
        step: &Step<'_>,
        words: impl IntoIterator<Item = &'w String>,
    ) -> Result<(), LintError> {
        words.into_iter().try_for_each(|word| self.word(state, step, word).map(drop))
    }

    /// `UndefinedVar`; an unknown base may have set anything, so then it keeps silent.
    fn undefined(&mut self, state: &State, step: &Step<'_>, names: &[String]) {
        if !state.base_known {
            return;
        }
        for name in names {
            if state.declared.contains(name) || NEVER_IN_ENVIRONMENT.contains(&name.as_str()) {
                continue;
            }
            let mut detail = format!("Usage of undefined variable '${name}'");
            let known = state.variables.keys().map(String::as_str);
            if let Some(known) = nearest(name, known, true) {
                detail.push_str(&format!(" (did you mean ${known}?)"));
            }
            self.warn(step, &rules::UNDEFINED_VAR, step.span, detail);
        }
    }

    fn mounts(&mut self, state: &State, step: &Step<'_>, mounts: &[String]) -> Result<(), LintError> {
        for raw in mounts {
            parse_mount(raw, &mut |value| {
                let expanded = expand(value, &state.variables, self.plan.escape)?;
                self.undefined(state, step, &expanded.undefined);
                Ok(expanded.text)
            })
            .map_err(|error| fail(step, error))?;
        }
        Ok(())
    }

    fn chmod(&mut self, state: &State, step: &Step<'_>, mode: Option<&str>) -> Result<(), LintError> {
        let Some(mode) = mode else { return Ok(()) };
        let mode = self.word(state, step, mode)?;
        match mode.parse::<Chmod>() {
            Err(error) if !mode.is_empty() => Err(fail(step, error)),
            _ => Ok(()),
        }
    }

    fn pairs(
        &mut self,
        state: &State,
        step: &Step<'_>,
        pairs: &KeyValues,
    ) -> Result<Vec<(String, String)>, LintError> {
        let mut expanded = Vec::new();
        for pair in &pairs.pairs {
            let key = self.word(state, step, &pair.key)?;
            expanded.push((key, self.word(state, step, &pair.value)?));
        }
        Ok(expanded)
    }

    /// `LegacyKeyValueFormat`
    fn legacy(&mut self, step: &Step<'_>, pairs: &KeyValues) {
        if pairs.legacy {
            let keyword = &step.instruction.keyword;
            let detail = format!(
                "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
            );
            self.warn(step, &rules::LEGACY_KEY_VALUE_FORMAT, step.span, detail);
        }
    }

    /// `SecretsUsedInArgOrEnv`
    fn secret(&mut self, step: &Step<'_>, keyword: &str, name: &str) {
        if SECRET.is_match(name) && !NOT_SECRET.is_match(name) {
            let detail = format!(
                "Do not use ARG or ENV instructions for sensitive data ({keyword} {})",
                quote::go(name)
            );
            self.warn(step, &rules::SECRETS_USED_IN_ARG_OR_ENV, step.span, detail);
        }
    }

    fn arg(&mut self, state: &mut State, step: &Step<'_>, declarations: &[ArgDecl]) -> Result<(), LintError> {
        for ArgDecl { name, default } in declarations {
            self.secret(step, "ARG", name);
            let value = match (self.plan.build_args.get(name), default) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(default)) => Some(self.word(state, step, default)?),
                (None, None) => self.plan.global_args.get(name).cloned(),
            };
            if let Some(value) = value.filter(|_| !NEVER_IN_ENVIRONMENT.contains(&name.as_str())) {
                state.variables.insert(name.clone(), value);
            }
            state.declared.insert(name.clone());
        }
        Ok(())
    }

    fn sources(
        &mut self,
        state: &State,
        step: &Step<'_>,
        sources: &[Source],
        dest: &str,
    ) -> Result<(), LintError> {
        let mut paths = Vec::new();
        for source in sources {
            if let Source::Path(path) = source {
                paths.push(self.word(state, step, path)?);
            }
        }
        self.word(state, step, dest)?;
        for source in sources {
            if let Source::Heredoc(heredoc) = source
                && heredoc.expand
            {
                let expanded =
                    expand_heredoc(&heredoc.body, &state.variables).map_err(|error| fail(step, error))?;
                self.undefined(state, step, &expanded.undefined);
            }
        }
        let verb = match &step.instruction.kind {
            InstructionKind::Copy(copy) if copy.from.is_some() => return Ok(()),
            InstructionKind::Copy(_) => "Copy",
            _ => "Add",
        };
        paths.iter().for_each(|path| self.ignored(step, verb, path));
        Ok(())
    }

    /// `CopyIgnoredFile`. An ignore file with exceptions is beyond a look at one path.
    fn ignored(&mut self, step: &Step<'_>, verb: &str, path: &str) {
        let patterns = self.inputs.ignore_patterns();
        if patterns.is_empty() || patterns.iter().any(|p| p.starts_with('!')) || remote::is_remote(path) {
            return;
        }
        let path = remote::clean(path);
        let is_ignored = if matches!(path.as_str(), "." | "/") {
            // The root itself is never left out: only patterns that leave out everything in it count.
            patterns.iter().any(|p| matches!(p.as_str(), "*" | "**" | "**/*"))
        } else {
            self.inputs.is_ignored(&path)
        };
        if is_ignored {
            let detail =
                format!("Attempting to {verb} file {} that is excluded by .dockerignore", quote::go(&path));
            self.warn(step, &rules::COPY_IGNORED_FILE, step.span, detail);
        }
    }

    /// `MultipleInstructionsDisallowed`, at the earlier one: it is the one without effect.
    fn once(&mut self, step: &Step<'_>, last: &mut Option<Span>) {
        if let Some(earlier) = last.replace(step.span) {
            let detail = format!(
                "Multiple {} instructions should not be used in the same stage because only the last one will be used",
                step.instruction.keyword
            );
            self.warn(step, &rules::MULTIPLE_INSTRUCTIONS_DISALLOWED, earlier, detail);
        }
    }

    /// `JSONArgsRecommended`
    fn json_recommended(&mut self, state: &State, step: &Step<'_>, command: &Command) {
        if matches!(command, Command::Shell(_)) && !state.has_shell {
            let detail = format!(
                "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                step.instruction.keyword
            );
            self.warn(step, &rules::JSON_ARGS_RECOMMENDED, step.span, detail);
        }
    }

    /// `WorkdirRelativePath`: only the first one in the Dockerfile matters, whatever the base image says.
    fn workdir(&mut self, state: &mut State, step: &Step<'_>, path: &str) -> Result<(), LintError> {
        let path = self.word(state, step, path)?;
        if !state.workdir_set && !path.starts_with('/') {
            let detail = format!(
                "Relative workdir {} can have unexpected results if the base image changes",
                quote::go(&path)
            );
            self.warn(step, &rules::WORKDIR_RELATIVE_PATH, step.span, detail);
        }
        state.workdir_set = true;
        Ok(())
    }

    /// `ExposeProtoCasing` and `ExposeInvalidFormat`
    fn expose(&mut self, state: &State, step: &Step<'_>, words: &[String]) -> Result<(), LintError> {
        for word in words {
            let ports = expand_words(word, &state.variables, self.plan.escape)
                .map_err(|error: ExpandError| fail(step, error))?;
            for port in ports {
                let spec = parse_port(&port).map_err(|error| fail(step, error))?;
                if spec.odd_casing {
                    let detail =
                        format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
                    self.warn(step, &rules::EXPOSE_PROTO_CASING, step.span, detail);
                }
                if spec.host_part {
                    let detail = format!(
                        "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                    );
                    self.warn(step, &rules::EXPOSE_INVALID_FORMAT, step.span, detail);
                }
            }
        }
        Ok(())
    }
}

fn fail(step: &Step<'_>, error: impl std::fmt::Display) -> LintError {
    LintError { message: error.to_string(), span: Some(step.span) }
}

/// Names whose first, last or middle word is about secrets.
static SECRET: LazyLock<Regex> = LazyLock::new(|| {
    words(&[
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ])
});

/// Names that are about secrets and yet hold none.
static NOT_SECRET: LazyLock<Regex> = LazyLock::new(|| words(&["public", "file", "version"]));

fn words(words: &[&str]) -> Regex {
    let expression = format!("(?i)(?:_|^)(?:{})(?:_|$)", words.join("|"));
    Regex::new(&expression).expect("the words are plain letters")
}
