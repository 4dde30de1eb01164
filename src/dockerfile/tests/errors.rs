//! Errors: their literal texts and their lines.

use crate::dockerfile::{Span, parse, parse_trigger};

/// Errors of the second pass, on line 2 of a file that begins with `FROM x`.
const LINE_2: &[(&str, &str)] = &[
    ("foo bar", "unknown instruction: foo (did you mean from?)"),
    ("instruct x", "unknown instruction: instruct"),
    ("RNU x", "unknown instruction: RNU (did you mean RUN?)"),
    ("copi a b", "unknown instruction: copi (did you mean copy?)"),
    ("RUN --mont=type=tmpfs x", "unknown flag: --mont (did you mean mount?)"),
    ("RUN --network=x y", "invalid network mode \"x\""),
    ("RUN --network= y", "invalid network mode \"\""),
    ("RUN --security=x y", "security \"x\" is not valid"),
    (
        "RUN --mount=from=$x,target=/y z",
        "'from' doesn't support variable expansion, define alias stage instead",
    ),
    ("RUN --device=a,name=b c", "device name already set to a"),
    ("CMD --x y", "unknown flag: --x"),
    ("ARG --x y", "unknown flag: --x"),
    ("USER --x y", "unknown flag: --x"),
    (
        "COPY",
        "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
    ),
    (
        "ADD a",
        "ADD requires at least two arguments, but only one was provided. Destination could not be determined",
    ),
    ("COPY --from a b", "missing a value on flag: --from"),
    ("COPY --from=a --from=b c d", "duplicate flag specified: --from"),
    ("COPY --checksum=x a b", "unknown flag: --checksum"),
    ("COPY --link=x a b", "expecting boolean value for flag --link, not: x"),
    ("COPY a <<EOF\nEOF", "COPY cannot accept a heredoc as a destination"),
    (r#"COPY ["a","<<EOF"]"#, "COPY cannot accept a heredoc as a destination"),
    ("ENV", "ENV requires at least one argument"),
    ("ENV =x", "ENV names can not be blank"),
    ("LABEL a=b =x", "LABEL names can not be blank"),
    ("ARG", "ARG requires at least one argument"),
    ("ARG =x", "ARG names can not be blank"),
    ("MAINTAINER", "MAINTAINER requires exactly one argument"),
    ("USER", "USER requires exactly one argument"),
    ("WORKDIR", "WORKDIR requires exactly one argument"),
    ("STOPSIGNAL", "STOPSIGNAL requires exactly one argument"),
    ("VOLUME", "VOLUME requires at least one argument"),
    ("VOLUME []", "VOLUME requires at least one argument"),
    ("VOLUME [\"a\", \" \"]", "VOLUME specified can not be an empty string"),
    ("EXPOSE", "EXPOSE requires at least one argument"),
    ("SHELL", "SHELL requires at least one argument"),
    ("SHELL []", "SHELL requires at least one argument"),
    ("SHELL sh -c", "SHELL requires the arguments to be in JSON form"),
    ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
    ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
    ("HEALTHCHECK foo x", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
    ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
    ("HEALTHCHECK CMD []", "Missing command after HEALTHCHECK CMD"),
    ("HEALTHCHECK --interval=5 CMD x", "time: missing unit in duration \"5\""),
    ("HEALTHCHECK --timeout=1us CMD x", "Interval \"timeout\" cannot be less than 1ms"),
    ("HEALTHCHECK --timeout=-1s CMD x", "Interval \"timeout\" cannot be less than 1ms"),
    ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
    ("HEALTHCHECK --retries=x CMD x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
    (
        "HEALTHCHECK --retries=9999999999 CMD x",
        "strconv.ParseInt: parsing \"9999999999\": value out of range",
    ),
    ("ONBUILD", "ONBUILD requires at least one argument"),
    ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
    ("ONBUILD from x", "FROM isn't allowed as an ONBUILD trigger"),
    ("ONBUILD MAINTAINER x", "MAINTAINER isn't allowed as an ONBUILD trigger"),
    ("FROM", "FROM requires either one or three arguments"),
    ("FROM a b", "FROM requires either one or three arguments"),
    ("FROM a is b", "FROM requires either one or three arguments"),
    (
        "FROM a AS 1x",
        "invalid name for build stage: \"1x\", name can't start with a number or contain symbols",
    ),
    (
        "FROM a AS \u{e9}",
        "invalid name for build stage: \"\u{e9}\", name can't start with a number or contain symbols",
    ),
];

#[test]
fn errors_of_instructions() {
    for (text, message) in LINE_2 {
        let error = parse("Dockerfile", format!("FROM x\n{text}\n").as_bytes()).expect_err(text);
        assert_eq!(error.message, format!("dockerfile parse error on line 2: {message}"), "{text}");
        assert_eq!(error.span.unwrap().start_line, 2, "{text}");
    }
}

#[test]
fn errors_of_lines_come_without_a_prefix() {
    for (text, message, start_line, end_line) in [
        (
            "FROM x\nFOO\nCMD [\"a\", \\\n 1]",
            "when using JSON array syntax, arrays must be comprised of strings only",
            3,
            4,
        ),
        (
            "FROM x\nCMD [ \"echo\", [ \"nested json\" ] ]",
            "when using JSON array syntax, arrays must be comprised of strings only",
            2,
            2,
        ),
        ("FROM x\nENV a", "ENV must have two arguments", 2, 2),
        ("FROM x\nONBUILD LABEL a", "LABEL must have two arguments", 2, 2),
        (
            "FROM x\nENV a=b \"c\\\"",
            "Syntax error - can't find = in \"\\\"c\\\\\\\"\". Must be of the form: name=value",
            2,
            2,
        ),
        ("FROM x\nRUN <<EOF\na\n", "unterminated heredoc", 2, 3),
        ("FROM x\nONBUILD COPY <<E /x\nEOF\n", "unterminated heredoc", 2, 3),
        ("# escape=x\nFROM x", "invalid escape token 'x' does not match ` or \\", 1, 1),
        ("# check=a\n# check=b\nFROM x", "only one check parser directive can be used", 2, 2),
        ("# only\n# comments\n", "file with no instructions", 2, 2),
        ("RUN x\nFROM y", "no build stage in current context", 1, 1),
    ] {
        let error = parse("Dockerfile", text.as_bytes()).expect_err(text);
        assert_eq!(error.message, message, "{text}");
        assert_eq!(error.span, Some(Span { start_line, end_line }), "{text}");
    }
    for (text, message) in
        [("", "the Dockerfile cannot be empty"), ("ARG x\n", "dockerfile contains no stages to build")]
    {
        let error = parse("Dockerfile", text.as_bytes()).unwrap_err();
        assert_eq!((error.message.as_str(), error.span), (message, None));
    }
}

#[test]
fn triggers_are_one_instruction() {
    for (text, message) in [
        ("RUN a\nRUN b", "onbuild trigger should be a single expression"),
        ("", "onbuild trigger should be a single expression"),
        ("FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        // BuildKit's too: the line would be one of the trigger.
        ("FOO x", "unknown instruction: FOO (did you mean FROM?)"),
    ] {
        assert_eq!(parse_trigger(text).unwrap_err().message, message, "{text}");
    }
    assert_eq!(parse_trigger("RUN <<E\na\nE").unwrap().span, Span { start_line: 1, end_line: 3 });
}

#[test]
fn bytes_that_would_change_are_refused() {
    parse("Dockerfile", b"FROM x\n# caf\xe9\nMAINTAINER Ren\xe9\nLABEL a=\xff\n").unwrap();
    for text in [&b"RUN echo \xe9"[..], b"COPY a\xe9 b", b"ADD <<E /b\n\xe9\nE"] {
        let error = parse("Dockerfile", &[b"FROM x\n", text].concat()).unwrap_err();
        assert!(error.message.ends_with("is not valid UTF-8"), "{error}");
        assert!(error.hint.is_some());
    }
}

/// Each `ONBUILD` used to be read inside the one before it, on the stack.
#[test]
fn a_chain_of_triggers_as_long_as_it_may_be_is_refused() {
    let text = format!("FROM x\n{}RUN x\n", format!("{}\\\n", "ONBUILD ".repeat(5000)).repeat(100));
    let error = parse("Dockerfile", text.as_bytes()).unwrap_err();
    assert!(error.message.ends_with("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"), "{error:?}");
}
