//! Dockerfiles: parsed, planned, linted; and the small languages in them.

use std::collections::{BTreeMap, BTreeSet};

use kiln::dockerfile::chmod::Chmod;
use kiln::dockerfile::mount::{MountKind, parse_device, parse_mount};
use kiln::dockerfile::ports::parse_port;
use kiln::dockerfile::signal::validate_signal;
use kiln::dockerfile::{
    InstructionKind, check_syntax, expand, expand_heredoc, expand_words, parse, parse_trigger,
};
use kiln::oci::Platform;
use kiln::plan::lint::{BaseImage, LintInputs, Scope, lint_text};
use kiln::plan::{PlanRequest, plan};

use super::fuzz;
use super::input::{Input, Samples};

/// The parser's own samples.
fn dockerfiles() -> Vec<Vec<u8>> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/dockerfile");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "dockerfile"))
        .collect();
    files.sort();
    files.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

const WORDS: &[&str] = &[
    "FROM ",
    "FROM x AS y\n",
    "RUN ",
    "COPY ",
    "ADD ",
    "ENV ",
    "ARG ",
    "LABEL ",
    "ONBUILD ",
    "HEALTHCHECK ",
    "CMD ",
    "SHELL ",
    "EXPOSE ",
    "VOLUME ",
    "USER ",
    "WORKDIR ",
    "STOPSIGNAL ",
    "MAINTAINER ",
    "x",
    "a=b ",
    "--from=",
    "--mount=type=cache,target=",
    "--chmod=",
    "--exclude=",
    "--parents ",
    " ",
    "\n",
    "\r\n",
    "\t",
    "\\",
    "\\\n",
    "`",
    "#",
    "# escape=`\n",
    "# syntax=x\n",
    "# check=skip=all\n",
    "<<EOF",
    "<<-E",
    "EOF\n",
    "\nE\n",
    "[",
    "]",
    "\"",
    "'",
    ",",
    "${",
    "}",
    "$x",
    ":-",
    "##",
    "%",
    "//",
    "as ",
    " AS y",
    "--",
    "\u{feff}",
    "\u{e9}",
    "\0",
    "/",
    ":",
    "NONE",
    "--interval=1s ",
    "--platform=$TARGETPLATFORM ",
    "scratch",
];

struct NothingKnown;

impl LintInputs for NothingKnown {
    fn base_image(&self, _: &str, _: &Platform) -> Option<BaseImage> {
        None
    }

    fn context_image(&self, _: &str, _: &Platform) -> Option<BaseImage> {
        None
    }

    fn ignore_patterns(&self) -> &[String] {
        &[]
    }

    fn is_ignored(&self, _: &str) -> bool {
        false
    }
}

#[test]
fn dockerfiles_are_parsed_and_planned() {
    let request = PlanRequest {
        build_args: BTreeMap::from([("x".to_owned(), "a/b".to_owned())]),
        target: None,
        build_platform: Platform::host(),
        target_platform: Platform::host(),
        contexts: BTreeSet::new(),
    };
    fuzz("dockerfiles", 300, &Samples::new(dockerfiles(), WORDS), |input| {
        let _ = check_syntax(&input.0, None);
        let _ = parse_trigger(&input.text());
        let (partial, report) = lint_text("Dockerfile", &input.0, &request, Scope::All, &NothingKnown);
        let lines = partial.source.split_inclusive('\n').count();
        for warning in &report.warnings {
            assert!(warning.span.start_line <= warning.span.end_line && warning.span.end_line <= lines);
        }
        let Ok(dockerfile) = parse("Dockerfile", &input.0) else { return };
        let mut last = 0;
        for instruction in &dockerfile.instructions {
            assert!(last < instruction.span.start_line, "{:?}", instruction.span);
            assert!(instruction.span.start_line <= instruction.span.end_line);
            last = instruction.span.end_line;
            if let InstructionKind::OnBuild(on_build) = &instruction.kind {
                let _ = parse_trigger(&on_build.text);
            }
        }
        assert!(last <= lines, "{last} of {lines} lines");
        let Ok(plan) = plan(&dockerfile, &request) else { return };
        for (index, stage) in plan.stages.iter().enumerate() {
            assert_eq!(stage.id.0, index);
        }
        assert!(plan.reachable.contains(&plan.target));
        let order = plan.closure(plan.target);
        assert!(order.len() <= plan.stages.len());
    });
}

#[test]
fn words_are_expanded() {
    let samples = [
        "${a:-${b:+$c}}",
        "'$a'\"$b\"\\$c",
        "${a#*/}${a##*/}${a%.*}${a%%.*}",
        "${a/x/y}${a//[x]/$b}",
        "${a:?no}",
        "$a$1$@",
        "x\\\ny `$a`",
    ];
    let words = &[
        "$", "{", "}", "${", "a", "b", "c", "unset", ":", "-", "+", "?", "#", "%", "/", "*", "\\", "'", "\"",
        "`", " ", "\n", "\u{e9}", "1", "@", "<", "<<",
    ];
    let variables = vec![
        ("a".to_owned(), "x/y.tar.gz".to_owned()),
        ("b".to_owned(), "two words".to_owned()),
        ("c".to_owned(), String::new()),
    ];
    fuzz("expander", 1000, &Samples::new(samples, words), |input| {
        let word = input.text();
        for escape in ['\\', '`'] {
            let expanded = expand(&word, &variables, escape);
            let _ = expand_words(&word, &variables, escape);
            if let Ok(expanded) = expanded {
                if !word.contains(['$', '\'', '"', escape]) {
                    assert_eq!(expanded.text, word);
                }
                for name in &expanded.used {
                    assert!(variables.iter().any(|(known, _)| known == name), "{name}");
                }
                for name in &expanded.undefined {
                    assert!(variables.iter().all(|(known, _)| known != name), "{name}");
                }
            }
        }
        if let Ok(body) = expand_heredoc(&word, &variables)
            && !word.contains(['$', '\\'])
        {
            assert_eq!(body.text, word);
        }
    });
}

#[test]
fn mounts_are_parsed() {
    let samples = [
        "type=bind,from=base,source=a/../b,target=/x,rw",
        "type=cache,id=a,target=/x,sharing=locked,mode=0700,uid=5,gid=6,from=x,source=y",
        "type=tmpfs,target=/t,size=128m",
        "type=secret,id=s,target=/t,env=E,required,mode=0400,uid=0,gid=0",
        "type=ssh,id=default,target=/t,required=true,mode=0600",
        "\"target=/a,b\",type=bind",
    ];
    let words = &[
        "type=",
        "bind",
        "cache",
        "tmpfs",
        "secret",
        "ssh",
        ",",
        "=",
        "target=",
        "dst=",
        "source=",
        "src=",
        "from=",
        "id=",
        "env=",
        "required",
        "mode=",
        "uid=",
        "gid=",
        "ro",
        "rw",
        "sharing=",
        "shared",
        "private",
        "size=",
        "128m",
        "9999999999999999999g",
        "0700",
        "-1",
        "true",
        "/",
        "..",
        "\"",
        "$a",
        "\n",
        " ",
        "\u{e9}",
    ];
    fuzz("mounts", 500, &Samples::new(samples, words), |input| {
        let text = input.text();
        let _ = parse_device(&text);
        let _ = parse_port(&text);
        let _ = validate_signal(&text);
        let again = |text: &str| parse_mount(text, &mut |value| Ok(value.to_owned()));
        if let Ok(mount) = again(&text) {
            if let MountKind::Cache { mode: Some(mode), .. } = mount.kind {
                assert!(mode <= 0o7777, "{mode:o}");
            }
            if let Some(id) = mount.cache_id() {
                assert!(!id.is_empty());
            }
            // Quoting every field changes nothing.
            if !text.contains(['"', '\n', '\r']) {
                let quoted: Vec<String> = text.split(',').map(|field| format!("\"{field}\"")).collect();
                assert_eq!(again(&quoted.join(",")).unwrap(), mount);
            }
        }
    });
}

#[test]
fn modes_are_parsed() {
    let samples = ["755", "u=rwX,go-w", "a+X", "g=u,o=", "+t,u+s", "07777"];
    let words = &[
        "u",
        "g",
        "o",
        "a",
        "r",
        "w",
        "x",
        "X",
        "s",
        "t",
        "+",
        "-",
        "=",
        ",",
        "0",
        "7",
        "8",
        "777777777777",
    ];
    fuzz("modes", 2000, &Samples::new(samples, words), |input: &Input| {
        if let Ok(chmod) = input.text().parse::<Chmod>() {
            for mode in [0, 0o644, 0o755, 0o7777] {
                for is_directory in [false, true] {
                    let once = chmod.apply(mode, is_directory);
                    assert!(once <= 0o7777, "{once:o}");
                    if let Chmod::Octal(octal) = chmod {
                        assert_eq!(once, octal);
                    }
                }
            }
        }
    });
}
