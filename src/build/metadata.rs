//! Instructions that only change the image's config.

use super::Build;
use super::error::Problem;
use super::stage::Stage;
use crate::dockerfile::expand::{expand, expand_words};
use crate::dockerfile::ports::parse_ports;
use crate::dockerfile::signal::validate_signal;
use crate::dockerfile::{
    ArgDecl, Command, Healthcheck, Instruction, InstructionKind, KeyValue, KeyValues, history,
};
use crate::oci::{self, Empty};

/// The shell of an image that sets none.
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Joins `path` to the working directory `current`: absolute and clean, a trailing slash kept.
pub(super) fn working_directory(current: &str, path: &str) -> String {
    if path.starts_with('/') {
        super::copy::clean(path, true)
    } else {
        super::copy::clean(&format!("{current}/{path}"), true)
    }
}

impl Stage {
    /// Expands a text with the variables in force.
    pub(super) fn expand(&self, text: &str) -> Result<String, Problem> {
        Ok(expand(text, &self.scope, self.escape)?.text)
    }

    fn expand_all(&self, texts: &[String]) -> Result<Vec<String>, Problem> {
        texts.iter().map(|text| self.expand(text)).collect()
    }

    /// Expands both sides of every pair with the variables as they are before the instruction.
    fn expand_pairs(&self, pairs: &KeyValues) -> Result<Vec<KeyValue>, Problem> {
        pairs
            .pairs
            .iter()
            .map(|pair| Ok(KeyValue { key: self.expand(&pair.key)?, value: self.expand(&pair.value)? }))
            .collect()
    }

    /// Returns the argument vector of a command; a text is given to the shell.
    pub(super) fn argv(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(argv) => argv.clone(),
            Command::Shell(text) => self.shell_argv(text),
        }
    }

    pub(super) fn shell_argv(&self, text: &str) -> Vec<String> {
        let shell = &self.config.config.shell;
        let mut argv: Vec<String> =
            if shell.is_empty() { DEFAULT_SHELL.map(str::to_owned).to_vec() } else { shell.clone() };
        argv.push(text.to_owned());
        argv
    }

    fn set_env(&mut self, key: &str, value: &str) {
        let entry = format!("{key}={value}");
        let env = &mut self.config.config.env;
        match env.iter_mut().find(|old| old.split('=').next() == Some(key)) {
            Some(old) => *old = entry,
            None => env.push(entry),
        }
        self.scope.set(key, value);
    }
}

impl Build<'_> {
    /// Runs an instruction that makes no layer.
    pub(super) fn run_metadata(&self, stage: &mut Stage, instruction: &Instruction) -> Result<(), Problem> {
        let created_by = match &instruction.kind {
            InstructionKind::Arg(declarations) => self.declare(stage, declarations)?,
            InstructionKind::Env(pairs) => {
                let pairs = stage.expand_pairs(pairs)?;
                for pair in &pairs {
                    if pair.key.is_empty() {
                        return Err(Problem::Instruction {
                            message: "ENV names can not be blank".to_owned(),
                        });
                    }
                    stage.set_env(&pair.key, &pair.value);
                }
                history::env(&pairs)
            }
            InstructionKind::Label(pairs) => {
                let pairs = stage.expand_pairs(pairs)?;
                for pair in &pairs {
                    stage.config.config.labels.insert(pair.key.clone(), pair.value.clone());
                }
                history::label(&pairs)
            }
            InstructionKind::Maintainer(name) => {
                stage.config.author = Some(name.clone());
                history::maintainer(name)
            }
            InstructionKind::Cmd(command) => {
                let argv = stage.argv(command);
                stage.config.config.cmd = Some(argv.clone()).filter(|argv| !argv.is_empty());
                stage.config.config.args_escaped = true;
                stage.cmd_is_set = true;
                history::cmd(&argv)
            }
            InstructionKind::Entrypoint(command) => {
                let argv = stage.argv(command);
                stage.config.config.entrypoint = Some(argv.clone()).filter(|argv| !argv.is_empty());
                if !stage.cmd_is_set {
                    stage.config.config.cmd = None;
                }
                history::entrypoint(&argv)
            }
            InstructionKind::Shell(argv) => {
                stage.config.config.shell = argv.clone();
                history::shell(argv)
            }
            InstructionKind::User(user) => {
                let user = stage.expand(user)?;
                stage.config.config.user = user.clone();
                history::user(&user)
            }
            InstructionKind::Volume(paths) => {
                let paths = stage.expand_all(paths)?;
                for path in &paths {
                    if path.is_empty() {
                        let message = "VOLUME specified can not be an empty string".to_owned();
                        return Err(Problem::Instruction { message });
                    }
                    stage.config.config.volumes.insert(path.clone(), Empty {});
                }
                history::volume(&paths)
            }
            InstructionKind::Expose(words) => self.expose(stage, words)?,
            InstructionKind::StopSignal(signal) => {
                let signal = stage.expand(signal)?;
                validate_signal(&signal).map_err(|e| Problem::Instruction { message: e.to_string() })?;
                stage.config.config.stop_signal = signal.clone();
                history::stop_signal(&signal)
            }
            InstructionKind::Healthcheck(check) => {
                stage.config.config.healthcheck = Some(healthcheck(check));
                history::healthcheck(check)
            }
            InstructionKind::OnBuild(trigger) => {
                stage.config.config.on_build.push(trigger.text.clone());
                return Ok(());
            }
            InstructionKind::From(_)
            | InstructionKind::Run(_)
            | InstructionKind::Copy(_)
            | InstructionKind::Add(_)
            | InstructionKind::Workdir(_) => unreachable!("handled before"),
        };
        stage.record(created_by, false);
        Ok(())
    }

    /// `ARG`: the build argument, else the default, else the global value, else declared and unset.
    fn declare(&self, stage: &mut Stage, declarations: &[ArgDecl]) -> Result<String, Problem> {
        let mut shown = Vec::new();
        for declaration in declarations {
            let name = &declaration.name;
            let value = match (self.plan.build_args.get(name), &declaration.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(stage.expand(default)?),
                (None, None) => self.plan.global_args.get(name).cloned(),
            };
            stage.scope.declare(name, value.as_deref());
            shown.push((name.clone(), value));
        }
        Ok(history::arg(&shown))
    }

    fn expose(&self, stage: &mut Stage, words: &[String]) -> Result<String, Problem> {
        let mut ports = Vec::new();
        for word in words {
            ports.extend(expand_words(word, &stage.scope, stage.escape)?);
        }
        let ports = parse_ports(&ports).map_err(|e| Problem::Instruction { message: e.to_string() })?;
        for port in &ports {
            stage.config.config.exposed_ports.insert(port.clone(), Empty {});
        }
        Ok(history::expose(&ports))
    }
}

fn healthcheck(check: &Healthcheck) -> oci::Healthcheck {
    let nanoseconds = |duration: &Option<std::time::Duration>| {
        duration.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
    };
    match check {
        Healthcheck::None => {
            oci::Healthcheck { test: vec!["NONE".to_owned()], ..oci::Healthcheck::default() }
        }
        Healthcheck::Cmd { interval, timeout, start_period, start_interval, retries, command } => {
            let test = match command {
                Command::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
                Command::Exec(argv) => [vec!["CMD".to_owned()], argv.clone()].concat(),
            };
            oci::Healthcheck {
                test,
                interval: nanoseconds(interval),
                timeout: nanoseconds(timeout),
                start_period: nanoseconds(start_period),
                start_interval: nanoseconds(start_interval),
                retries: retries.map_or(0, i64::from),
            }
        }
    }
}
