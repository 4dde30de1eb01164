//! `kiln diff`: what it says about images that were built a little differently, wherever they are.

use serde_json::Value;

use crate::support::need::Busybox;
use crate::support::{Context, Kiln, Outcome, Registry};

const EPOCH: &str = "--timestamp=1600000000";

/// Builds a context into the store under a name.
fn build(kiln: &Kiln, name: &str, context: &Context) {
    kiln.build(context, &[EPOCH, "--tag", name]).ok();
}

fn diff(kiln: &Kiln, arguments: &[&str]) -> Outcome {
    kiln.run("diff", arguments)
}

#[test]
fn exit_codes_are_those_of_diff() {
    let kiln = Kiln::new();
    build(&kiln, "a:1", &Context::new("FROM scratch\nCOPY f /f\n").file("f", "one"));
    build(&kiln, "b:1", &Context::new("FROM scratch\nCOPY f /f\n").file("f", "two"));
    let same = diff(&kiln, &["a:1", "a:1"]);
    assert_eq!((same.code, same.stdout.as_str(), same.stderr.as_str()), (Some(0), "the same image\n", ""));
    let different = diff(&kiln, &["a:1", "b:1"]);
    assert_eq!((different.code, different.stderr.as_str()), (Some(1), ""), "{different}");
    let missing = diff(&kiln, &["a:1", "localhost:1/none:1"]);
    assert_eq!(missing.code, Some(2), "{missing}");
    assert!(missing.stderr.contains("localhost:1/none:1"), "{missing}");
    assert_eq!(diff(&kiln, &["a:1"]).code, Some(2));
}

#[test]
fn people_are_told_what_differs() {
    let kiln = Kiln::new();
    let first = Context::new("FROM scratch\nENV A=1 B=2\nCOPY common /common\nCOPY tree /t\nCOPY old /old\n");
    let second =
        Context::new("FROM scratch\nENV A=2 B=2\nCOPY common /common\nCOPY tree /t\nCOPY new /new\n");
    let fill = |context: Context, content: &str| {
        context.file("common", "same").file("tree/changed", content).file("tree/same", "same")
    };
    build(&kiln, "a:1", &fill(first, "12345").file("old/one", "1").file("old/two", "2"));
    build(&kiln, "b:1", &fill(second, "67890").file_with_mode("new", "n", 0o755));
    let said = diff(&kiln, &["a:1", "b:1"]);
    assert_eq!(said.code, Some(1), "{said}");
    let text = &said.stdout;
    let first = text.lines().next().unwrap();
    assert!(
        first.starts_with("different: 2 of 3 layers, 5 paths, 1 config field, 2 history lines"),
        "{text}"
    );
    for line in [
        "  ~ config.Env.A  1 → 2",
        "  = 1    the same",
        "  ~ t/changed  content",
        "  + new        file 0755 0:0 1B",
        "  - old        directory 0755 0:0 and 2 paths below",
    ] {
        assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
    }
    assert!(text.contains("COPY tree /t"), "{text}");
    assert!(!text.contains("t/same") && !text.contains("old/one"), "{text}");
    let layers = diff(&kiln, &["--layers", "a:1", "b:1"]).stdout;
    assert!(layers.contains("t/changed") && !layers.contains("\nfiles\n"), "{layers}");
}

#[test]
fn a_program_is_told_everything() {
    require!(Busybox);
    let kiln = Kiln::new();
    let registry = Registry::open();
    let context = |line: &str| Context::on_busybox(&format!("RUN {line}\n"));
    let name = registry.image("app:1");
    kiln.build(&context("echo x > /x; rm /etc/group"), &[EPOCH, "--tag", &name, "--push"]).ok();
    let archive = kiln.scratch("b.tar");
    let output = format!("--output=type=oci,dest={}", archive.display());
    kiln.build(&context("echo x > /x; chmod 600 /x"), &[EPOCH, &output]).ok();
    // A kiln that has seen neither: one is in the registry, the other in an archive.
    let other = Kiln::new();
    let said = diff(&other, &["--format=json", &name, archive.to_str().unwrap()]);
    assert_eq!(said.code, Some(1), "{said}");
    let found: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(found["layers"][0]["likeness"], "same");
    let paths = found["paths"].as_array().unwrap();
    let names: Vec<_> = paths.iter().map(|path| path["path"].as_str().unwrap()).collect();
    assert_eq!(names, ["etc", "etc/group", "x"]);
    assert_eq!(paths[1]["change"], "added");
    assert_eq!(paths[2]["fields"]["mode"]["after"], "0600");
    assert_eq!(
        found["layers"][1]["entries"].as_array().unwrap().len(),
        3,
        "etc, the whiteout and x: {found:#}"
    );
}
