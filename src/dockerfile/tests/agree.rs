//! Agreement with another parser, `parse-dockerfile`: where both accept a file, they must find the same
//! instructions on the same lines.

use parse_dockerfile::Instruction as Theirs;

use super::fixtures;
use crate::dockerfile::parse;

/// Where a keyword stands, in bytes.
fn keyword_start(instruction: &Theirs<'_>) -> Option<usize> {
    macro_rules! start {
        ($($variant:ident . $keyword:ident),*) => {
            match instruction {
                $(Theirs::$variant(i) => Some(i.$keyword.span.start),)*
                _ => None,
            }
        };
    }
    start!(
        Add.add,
        Arg.arg,
        Cmd.cmd,
        Copy.copy,
        Entrypoint.entrypoint,
        Env.env,
        Expose.expose,
        From.from,
        Healthcheck.healthcheck,
        Label.label,
        Maintainer.maintainer,
        Onbuild.onbuild,
        Run.run,
        Shell.shell,
        Stopsignal.stopsignal,
        User.user,
        Volume.volume,
        Workdir.workdir
    )
}

/// Lists the keywords they found, with their lines; `None` if they refuse the file.
fn theirs(text: &str) -> Option<Vec<(String, usize)>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let file = parse_dockerfile::parse(text).ok()?;
    let keywords = file.instructions.iter().map(|instruction| {
        let start = keyword_start(instruction).unwrap();
        let keyword: String = text[start..].chars().take_while(char::is_ascii_alphabetic).collect();
        (keyword.to_ascii_uppercase(), text[..start].matches('\n').count() + 1)
    });
    Some(keywords.collect())
}

fn ours(text: &str) -> Option<Vec<(String, usize)>> {
    let file = parse("Dockerfile", text.as_bytes()).ok()?;
    let keywords = file.instructions.iter().map(|i| (i.keyword.to_ascii_uppercase(), i.span.start_line));
    Some(keywords.collect())
}

/// What they are known to get wrong, or to refuse.
const THEIR_FAULTS: [&str; 2] = [
    // A doubled escape at the end of a line does not continue it.
    "escapes", // A heredoc's word may be quoted in part.
    "heredocs",
];

#[test]
fn the_same_instructions_are_found() {
    let mut compared = 0;
    for (name, bytes, _) in fixtures::all() {
        let Ok(text) = String::from_utf8(bytes) else { continue };
        if THEIR_FAULTS.contains(&name.as_str()) {
            continue;
        }
        if let (Some(ours), Some(theirs)) = (ours(&text), theirs(&text)) {
            assert_eq!(ours, theirs, "{name}");
            compared += 1;
        }
    }
    assert!(compared >= 5, "only {compared} fixtures were accepted by both");
}

#[test]
fn generated_files_agree() {
    // Every order of a few instructions with awkward ends and starts.
    let pieces = [
        "RUN a \\\n  b\n",
        "# comment\nENV x=y\n",
        "RUN <<EOF\nCOPY not an instruction\nEOF\n",
        "CMD [\"a\", \\\n \"b\"]\n",
        "copy --chown=1 a \\\n# inside\n b\n",
        "\n\nLABEL a='x y' \\\n      b=c\n",
    ];
    for first in &pieces {
        for second in &pieces {
            for third in &pieces {
                let text = format!("FROM x\n{first}{second}{third}");
                assert_eq!(ours(&text), theirs(&text), "{text}");
            }
        }
    }
}
