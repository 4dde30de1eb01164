//! `--explain`: which input of a step changed.

use serde_json::Value;

use crate::support::need::Busybox;
use crate::support::{Context, Kiln};

const LINES: &str = "ARG WORD=1\nENV MODE=fast\nCOPY src /src\nRUN echo $WORD $MODE\n";

fn context(lines: &str) -> Context {
    Context::on_busybox(lines).file("src/a", "one").file("src/b", "b")
}

#[test]
fn each_step_that_runs_is_explained_by_what_changed() {
    require!(Busybox);
    let kiln = Kiln::new();
    let new = kiln.build(&context(LINES), &["--explain"]).ok();
    assert!(new.stderr.contains("not cached: no cache has seen this step before"), "{new}");
    let again = kiln.build(&context(LINES), &["--explain"]).ok();
    assert!(!again.stderr.contains("not cached"), "{again}");
    let file = kiln.build(&context(LINES).file("src/a", "two!").file("src/c", ""), &["--explain"]).ok();
    for text in [
        "not cached: src/a: other content, 4 bytes instead of 3",
        " src/c: new",
        "what comes before it changed",
    ] {
        assert!(file.stderr.contains(text), "{text}\n{file}");
    }
    let kept = kiln.build(&context(LINES), &["--no-cache", "--explain"]).ok();
    assert!(kept.stderr.contains("not cached: `--no-cache` was given"), "{kept}");
}

#[test]
fn the_metadata_file_has_the_reasons_and_values_of_arguments_are_kept_back() {
    require!(Busybox);
    let kiln = Kiln::new();
    kiln.build(&context(LINES), &["--build-arg=WORD=hush-1"]).ok();
    let path = kiln.scratch("metadata.json");
    let argument = format!("--metadata-file={}", path.display());
    let lines = LINES.replace("fast", "slow");
    let built = kiln.build(&context(&lines), &["--build-arg=WORD=hush-2", &argument]).ok();
    assert!(!built.stderr.contains("not cached"), "{built}");
    let metadata: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let steps = metadata["kiln.steps"].as_array().unwrap();
    assert_eq!(steps.len(), 2, "{metadata:#}");
    assert_eq!(
        (&steps[0]["cached"], &steps[0]["instruction"]),
        (&"the local cache".into(), &"COPY src /src".into())
    );
    assert_eq!(steps[1]["cached"], Value::Null);
    let reasons = ["the build argument WORD changed", "the variable MODE changed: `slow` was `fast`"];
    assert_eq!(steps[1]["reasons"], Value::from(reasons.to_vec()), "{metadata:#}");
    assert!(!metadata["kiln.steps"].to_string().contains("hush-"), "{metadata:#}");
}
