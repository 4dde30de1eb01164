//! Tests of the language as a whole; each file's own tests stand beside it.

mod agree;
mod dump;
mod errors;
mod fixtures;
mod model;
mod properties;

#[test]
fn progress_shows_how_a_lone_heredoc_begins() {
    for (text, heading) in [
        ("RUN <<EOF\n\n  make all\nmake install\nEOF\n", "RUN <<EOF (make all...)"),
        ("RUN --network=none <<EOF\nmake\nEOF\n", "RUN --network=none <<EOF (make)"),
        ("RUN <<EOF\nEOF\n", "RUN <<EOF ()"),
        ("RUN cat <<EOF > /x\nmake\nEOF\n", "RUN cat <<EOF > /x"),
        ("RUN a \\\n  && b\n", "RUN a   && b"),
        ("COPY <<EOF /x\nmake\nEOF\n", "COPY <<EOF /x"),
    ] {
        let dockerfile = super::parse("Dockerfile", format!("FROM x\n{text}").as_bytes()).unwrap();
        assert_eq!(dockerfile.instructions[1].heading(), heading);
    }
}

/// BuildKit's: in JSON form a word names a heredoc that the line does not open, and of two with one name the last is meant.
#[test]
fn a_copied_heredoc_is_the_last_of_its_name_or_empty() {
    let sources = |line: &str| {
        let dockerfile = super::parse("Dockerfile", format!("FROM x\n{line}\n").as_bytes()).unwrap();
        let super::InstructionKind::Copy(copy) = &dockerfile.instructions[1].kind else { panic!("{line}") };
        let shown = |source: &super::Source| match source {
            super::Source::Path(path) => path.clone(),
            super::Source::Heredoc(heredoc) => format!("{}={:?}", heredoc.name, heredoc.body),
        };
        copy.sources.iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(sources(r#"COPY ["<<EOF","f","/d/"]"#), ["f", r#"EOF="""#]);
    assert_eq!(sources("COPY <<a <<a /d/\n1\na\n2\na"), [r#"a="2\n""#, r#"a="2\n""#]);
    assert_eq!(sources("COPY <<a <<-b /d/\n1\na\n\t2\nb"), [r#"a="1\n""#, r#"b="2\n""#]);
}
