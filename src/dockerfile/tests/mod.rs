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
