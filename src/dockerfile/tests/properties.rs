//! Properties of the parser: it never panics, its spans are in order and in the file, and what is written
//! from known parts comes back as those parts.

use proptest::prelude::*;

use crate::dockerfile::mount::{parse_device, parse_mount};
use crate::dockerfile::ports::parse_port;
use crate::dockerfile::{
    ArgDecl, Command, InstructionKind, KeyValue, Source, check_syntax, expand, expand_heredoc, expand_words,
    parse, parse_trigger,
};

/// Texts made of what matters to the parser.
fn dockerfile_like() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "FROM ",
        "RUN ",
        "COPY ",
        "ENV ",
        "ARG ",
        "ONBUILD ",
        "HEALTHCHECK ",
        "LABEL ",
        "x",
        "a=b",
        "--from=",
        "--mount=",
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
        "<<EOF",
        "<<-E",
        "EOF\n",
        "E\n",
        "[",
        "]",
        "\"",
        "'",
        ",",
        "${",
        "}",
        "$x",
        "as ",
        "AS y",
        "--",
        "\u{feff}",
        "\u{e9}",
        "\0",
        "/",
        ":",
        "%",
        "CMD",
        "NONE",
    ]);
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

fn check_spans(text: &[u8]) {
    if let Ok(dockerfile) = parse("Dockerfile", text) {
        let lines = text.split_inclusive(|b| *b == b'\n').count();
        let mut last = 0;
        for instruction in &dockerfile.instructions {
            assert!(last < instruction.span.start_line, "{:?}", instruction.span);
            assert!(instruction.span.start_line <= instruction.span.end_line);
            last = instruction.span.end_line;
        }
        assert!(last <= lines);
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_spans(&bytes);
        let _ = check_syntax(&bytes, None);
    }

    #[test]
    fn arbitrary_dockerfiles_do_not_panic(text in dockerfile_like()) {
        check_spans(text.as_bytes());
        check_spans(format!("FROM x\n{text}").as_bytes());
        let _ = parse_trigger(&text);
        let _ = check_syntax(text.as_bytes(), None);
    }

    #[test]
    fn arbitrary_words_do_not_panic(word in "[ -~\\n$\\{\\}\\\\'\"`/#%*?:<\u{e9}-]{0,40}") {
        let variables = vec![("x".to_owned(), "a/b".to_owned())];
        for escape in ['\\', '`'] {
            let _ = expand(&word, &variables, escape);
            let _ = expand_words(&word, &variables, escape);
        }
        let _ = expand_heredoc(&word, &variables);
        let _ = parse_mount(&word, &mut |value| Ok(value.to_owned()));
        let _ = parse_device(&word);
        let _ = parse_port(&word);
    }

    #[test]
    fn key_values_come_back(pairs in prop::collection::vec(("[A-Za-z_][A-Za-z0-9_.]{0,5}", "[ -~\u{e9}]{0,12}"), 1..5)) {
        // Single quotes take anything but themselves.
        let pairs: Vec<(String, String)> =
            pairs.into_iter().map(|(key, value)| (key, format!("'{}'", value.replace('\'', "")))).collect();
        let words: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let text = format!("FROM x\nLABEL {}\nARG {}\n", words.join(" \\\n  "), words.join("\t"));
        let dockerfile = parse("Dockerfile", text.as_bytes()).unwrap();
        let InstructionKind::Label(labels) = &dockerfile.instructions[1].kind else { panic!() };
        let InstructionKind::Arg(arguments) = &dockerfile.instructions[2].kind else { panic!() };
        for (index, (key, value)) in pairs.iter().enumerate() {
            prop_assert_eq!(&labels.pairs[index], &KeyValue { key: key.clone(), value: value.clone() });
            prop_assert_eq!(&arguments[index], &ArgDecl { name: key.clone(), default: Some(value.clone()) });
            let unquoted = expand(value, &Vec::<(String, String)>::new(), '\\').unwrap().text;
            prop_assert_eq!(format!("'{unquoted}'"), value.clone());
        }
        prop_assert_eq!(labels.pairs.len(), pairs.len());
    }

    #[test]
    fn exec_forms_come_back(argv in prop::collection::vec(any::<String>(), 0..5)) {
        // The JSON is on one line: its own escapes take care of line ends.
        let json = serde_json::to_string(&argv).unwrap();
        let text = format!("FROM x\nCMD {json}\n");
        let dockerfile = parse("Dockerfile", text.as_bytes()).unwrap();
        prop_assert_eq!(&dockerfile.instructions[1].kind, &InstructionKind::Cmd(Command::Exec(argv)));
    }

    #[test]
    fn heredocs_come_back(
        bodies in prop::collection::vec("[ -~\\t\\r\\n\u{e9}]{0,30}", 1..4),
        quoted in any::<bool>(),
    ) {
        let mut text = "FROM x\nCOPY".to_owned();
        for index in 0..bodies.len() {
            text.push_str(&if quoted { format!(" <<'END{index}'") } else { format!(" <<END{index}") });
        }
        text.push_str(" /to/\n");
        let bodies: Vec<String> =
            bodies.into_iter().map(|body| if body.is_empty() { body } else { body + "\n" }).collect();
        for (index, body) in bodies.iter().enumerate() {
            text.push_str(&format!("{body}END{index}\n"));
        }
        text.push_str("USER after\n");
        let dockerfile = parse("Dockerfile", text.as_bytes()).unwrap();
        let InstructionKind::Copy(copy) = &dockerfile.instructions[1].kind else { panic!() };
        prop_assert_eq!(copy.sources.len(), bodies.len());
        for (index, (source, body)) in copy.sources.iter().zip(&bodies).enumerate() {
            let Source::Heredoc(heredoc) = source else { panic!() };
            prop_assert_eq!(&heredoc.body, body);
            prop_assert_eq!(&heredoc.name, &format!("END{index}"));
            prop_assert_eq!(heredoc.expand, !quoted);
        }
        prop_assert_eq!(&dockerfile.instructions[2].kind, &InstructionKind::User("after".to_owned()));
    }

    /// Cutting a line at any blank and continuing it changes nothing but what the line looks like.
    #[test]
    fn continuations_are_invisible(words in prop::collection::vec("[a-z]{1,5}", 1..6), cuts in any::<u8>(), crlf in any::<bool>()) {
        let mut text = "FROM x\nRUN".to_owned();
        let end = if crlf { "\r\n" } else { "\n" };
        for (index, word) in words.iter().enumerate() {
            if cuts & (1 << index) != 0 {
                text.push_str(&format!(" \\  {end}# between{end}{word}"));
            } else {
                text.push_str(&format!(" {word}"));
            }
        }
        text.push_str(end);
        let dockerfile = parse("Dockerfile", text.as_bytes()).unwrap();
        let InstructionKind::Run(run) = &dockerfile.instructions[1].kind else { panic!() };
        prop_assert_eq!(&run.command, &Command::Shell(words.join(" ")));
    }
}
