//! A readable listing of a syntax tree, for fixtures.

use std::fmt::Write as _;

use crate::dockerfile::{
    Command, Dockerfile, Healthcheck, Instruction, InstructionKind, KeyValues, RunScript, Source,
};

/// Lists a Dockerfile: one line per instruction, its parts indented below.
pub(super) fn dump(dockerfile: &Dockerfile) -> String {
    let mut out = String::new();
    let directives = &dockerfile.directives;
    if let Some(syntax) = &directives.syntax {
        writeln!(out, "syntax {:?} of {:?}, {}", syntax.image, syntax.command_line, syntax.span).unwrap();
    }
    if directives.escape != '\\' {
        writeln!(out, "escape {:?}", directives.escape).unwrap();
    }
    if let Some(check) = &directives.check {
        writeln!(out, "check {:?}, {}", check.value, check.span).unwrap();
    }
    for span in &dockerfile.empty_continuations {
        writeln!(out, "empty continuation, {span}").unwrap();
    }
    for instruction in &dockerfile.instructions {
        dump_instruction(instruction, &mut out);
    }
    out
}

fn dump_instruction(instruction: &Instruction, out: &mut String) {
    let Instruction { span, keyword, original, kind, comments } = instruction;
    writeln!(out, "{} ({keyword}), {span}: {original:?}", kind.name()).unwrap();
    for comment in comments {
        writeln!(out, "  comment {comment:?}").unwrap();
    }
    let mut line = |name: &str, value: &dyn std::fmt::Debug| writeln!(out, "  {name} {value:?}").unwrap();
    macro_rules! given {
        ($($value:expr => $name:literal),*) => { $(if let Some(value) = &$value { line($name, value); })* };
    }
    match kind {
        InstructionKind::From(from) => {
            line("image", &from.image);
            given!(from.platform => "platform", from.name => "name", from.written_name => "written", from.as_keyword => "as");
        }
        InstructionKind::Arg(declarations) => {
            for declaration in declarations {
                match &declaration.default {
                    Some(default) => line("default", &(&declaration.name, default)),
                    None => line("bare", &declaration.name),
                }
            }
        }
        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => dump_pairs(pairs, &mut line),
        InstructionKind::Run(run) => {
            run.mounts.iter().for_each(|mount| line("mount", mount));
            run.devices.iter().for_each(|device| line("device", device));
            given!(run.network => "network", run.security => "security");
            match run.script() {
                RunScript::Exec(argv) => line("exec", &argv),
                RunScript::Shell(text) => line("shell", &text),
                RunScript::File { name, body } => line("file", &(name, body)),
            }
        }
        InstructionKind::Copy(copy) => {
            dump_sources(&copy.sources, &mut line);
            line("dest", &copy.dest);
            given!(copy.from => "from", copy.chown => "chown", copy.chmod => "chmod");
            copy.exclude.iter().for_each(|pattern| line("exclude", pattern));
            given!(copy.link.then_some(true) => "link", copy.parents.then_some(true) => "parents");
        }
        InstructionKind::Add(add) => {
            dump_sources(&add.sources, &mut line);
            line("dest", &add.dest);
            given!(add.chown => "chown", add.chmod => "chmod", add.checksum => "checksum");
            add.exclude.iter().for_each(|pattern| line("exclude", pattern));
            given!(add.link.then_some(true) => "link", add.keep_git_dir => "keep-git-dir", add.unpack => "unpack");
        }
        InstructionKind::Cmd(command) | InstructionKind::Entrypoint(command) => {
            dump_command(command, &mut line);
        }
        InstructionKind::Shell(words) | InstructionKind::Volume(words) | InstructionKind::Expose(words) => {
            line("words", words);
        }
        InstructionKind::Workdir(text)
        | InstructionKind::User(text)
        | InstructionKind::StopSignal(text)
        | InstructionKind::Maintainer(text) => line("text", text),
        InstructionKind::Healthcheck(Healthcheck::None) => line("none", &()),
        InstructionKind::Healthcheck(Healthcheck::Cmd {
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
            command,
        }) => {
            given!(*interval => "interval", *timeout => "timeout", *start_period => "start-period",
                *start_interval => "start-interval", *retries => "retries");
            dump_command(command, &mut line);
        }
        InstructionKind::OnBuild(on_build) => line("trigger", &on_build.text),
    }
}

type Line<'a> = dyn FnMut(&str, &dyn std::fmt::Debug) + 'a;

fn dump_command(command: &Command, line: &mut Line<'_>) {
    match command {
        Command::Shell(text) => line("shell", text),
        Command::Exec(argv) => line("exec", argv),
    }
}

fn dump_pairs(pairs: &KeyValues, line: &mut Line<'_>) {
    for pair in &pairs.pairs {
        line(if pairs.legacy { "legacy" } else { "pair" }, &(&pair.key, &pair.value));
    }
}

fn dump_sources(sources: &[Source], line: &mut Line<'_>) {
    for source in sources {
        match source {
            Source::Path(path) => line("source", path),
            Source::Heredoc(heredoc) => {
                let how = if heredoc.expand { "expanded" } else { "verbatim" };
                line(&format!("heredoc {how}"), &(&heredoc.name, &heredoc.body));
            }
        }
    }
}
