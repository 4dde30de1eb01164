//! `kiln check` as `docker build --check` is used: what is printed where, and how it ends.

use std::process::Command;

use crate::support::{Context, Kiln, Outcome, run};

/// `kiln check` keeps nothing and so has no `--root`.
fn check(context: &Context, arguments: &[&str]) -> Outcome {
    run(Command::new(Kiln::program()).arg("check").args(arguments).arg(context.path()))
}

#[test]
fn a_clean_dockerfile_is_said_to_be_one() {
    let context = Context::new("FROM scratch\n");
    assert_eq!(check(&context, &[]).ok().stdout, "Check complete, no warnings found.\n");
    let json = check(&context, &["--format=json"]).ok().stdout;
    assert!(json.starts_with("{\n  \"warnings\": null,\n  \"sources\": [\n"), "{json}");
}

/// In the order of the lines, whatever rule found what first.
#[test]
fn warnings_are_no_failure_unless_the_dockerfile_says_so() {
    let context = Context::new("FROM scratch\nWORKDIR a\nENV a b\nRUN x \\\n\n  y\n");
    let outcome = check(&context, &[]).ok();
    assert_eq!(outcome.stderr, "");
    let rules = outcome.stdout.lines().filter_map(|line| line.strip_prefix("WARNING: "));
    let rules: Vec<_> = rules.filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(rules, ["WorkdirRelativePath", "LegacyKeyValueFormat", "NoEmptyContinuation"]);
    let begin = "Check complete, 3 warnings have been found!\n\nWARNING: WorkdirRelativePath - \
                 https://docs.docker.com/go/dockerfile/rule/workdir-relative-path/\n\
                 Relative workdir \"a\" can have unexpected results if the base image changes\nDockerfile:2\n";
    assert!(outcome.stdout.starts_with(begin), "{outcome}");

    let outcome = check(&context, &["--format=json"]).ok();
    assert_eq!(outcome.stderr, "");
    let value: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    let context = Context::new("# check=experimental=all\n# about\nFROM scratch AS a\n");
    let json = check(&context, &["--format=json"]).ok().stdout;
    assert!(json.contains(r"`# a \u003cdescription\u003e`"), "{json}");
    // BuildKit's own order here: what the parser finds comes first.
    assert_eq!(value["warnings"][0]["ruleName"], "NoEmptyContinuation");
    let location = serde_json::json!({"ranges": [{"start": {"line": 6}, "end": {"line": 6}}]});
    assert_eq!(value["warnings"][0]["location"], location);
}

#[test]
fn what_cannot_be_built_is_an_error_with_its_line() {
    let context = Context::new("FROM scratch\nWORKDIR a\nCOPY x\n");
    let error = "dockerfile parse error on line 3: COPY requires at least two arguments";
    let outcome = check(&context, &[]).fails(1, &["Dockerfile:3", error]);
    assert_eq!(outcome.stdout, "");
    let outcome = check(&context, &["--format=json"]).fails(1, &[error]);
    let value: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert!(value["buildError"]["message"].as_str().unwrap().starts_with(error), "{outcome}");
    let outcome = check(&Context::new("# check=error=true\nFROM scratch\nWORKDIR a\n"), &[]);
    outcome.fails(1, &["lint violation found for rules: WorkdirRelativePath"]);
    let outcome = check(&Context::empty(), &["--format=json"]).fails(1, &["Dockerfile"]);
    let value: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&value["warnings"], &value["sources"]), (&serde_json::Value::Null, &serde_json::json!([])));
}
