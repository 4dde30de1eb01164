//! `COPY --link`: its layer is the same whatever is below.

use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;

use crate::support::{Context, Kiln};

/// Enough for every kind of thing to stand in the way of every destination now and then.
const CASES: u32 = 24;

/// Names that the destinations below lead through or end at.
const NAMES: &[&str] =
    &["opt", "opt/app", "opt/app/one", "opt/app/sub", "etc", "etc/passwd", "etc/group", "w"];

const DESTINATIONS: &[&str] =
    &["/opt/app", "/opt/app/", "/opt", "/", "there", "./opt/", "/w/../opt/app/sub/"];

const FLAGS: &[&str] = &[
    "",
    "--chown=5:6",
    "--chown=7",
    "--chown=root",
    "--parents",
    "--exclude=one",
    "--exclude=** --chown=:9",
];

/// A thing in the base.
#[derive(Debug, Clone, Copy)]
enum Below {
    File,
    Directory,
    Link(&'static str),
}

fn below() -> impl Strategy<Value = Vec<(&'static str, Below)>> {
    let kind = prop_oneof![
        Just(Below::File),
        Just(Below::Directory),
        select(&["w", "/w", "nowhere", "..", "/opt/app"][..]).prop_map(Below::Link),
    ];
    proptest::collection::vec((select(NAMES), kind), 0..6)
}

/// Writes the base's stage: each thing is left out where something else of the same stage is in its way.
fn base(things: &[(&'static str, Below)]) -> (String, Vec<(String, Below)>) {
    let mut placed: Vec<(String, Below)> = Vec::new();
    for (name, thing) in things {
        let clashes = placed.iter().any(|(other, kind)| {
            other == name
                || other.starts_with(&format!("{name}/"))
                || (name.starts_with(&format!("{other}/")) && !matches!(kind, Below::Directory))
        });
        if !clashes {
            placed.push(((*name).to_owned(), *thing));
        }
    }
    let text = if placed.is_empty() { String::new() } else { "COPY below/ /\n".to_owned() };
    (text, placed)
}

fn context(things: &[(&'static str, Below)], copy: &str) -> Context {
    let (text, placed) = base(things);
    let mut dockerfile = String::from("FROM scratch AS base\n");
    let _ = write!(dockerfile, "{text}FROM base\nWORKDIR /\n{copy}\n");
    let context = Context::new(&dockerfile)
        .file("from/one", "1")
        .file_with_mode("from/sub/two", "2", 0o4750)
        .symlink("from/sub/link", "../one");
    placed.into_iter().fold(context, |context, (name, thing)| match thing {
        Below::File => context.file(&format!("below/{name}"), "below"),
        Below::Directory => context.directory(&format!("below/{name}")),
        Below::Link(to) => context.symlink(&format!("below/{name}"), to),
    })
}

/// The last layer's digest and diff id.
fn last_layer(kiln: &Kiln, context: &Context) -> (Value, Value) {
    let image = kiln.image_with(context, &["--timestamp=1700000000"]);
    let layer = image.manifest["layers"].as_array().unwrap().last().unwrap();
    let diff_id = image.config["rootfs"]["diff_ids"].as_array().unwrap().last().unwrap();
    (layer["digest"].clone(), diff_id.clone())
}

#[test]
fn a_linked_layer_is_the_same_on_every_base() {
    let kiln = Kiln::new();
    let case = (
        below(),
        select(DESTINATIONS),
        select(FLAGS),
        select(&["from", "from/", "from/sub", "from/one"][..]),
    );
    let config =
        Config { cases: CASES, failure_persistence: None, max_shrink_iters: 20, ..Config::default() };
    let outcome = TestRunner::new(config).run(&case, |(things, dest, flags, source)| {
        let copy = format!("COPY --link {flags} {source} {dest}");
        let alone = last_layer(&kiln, &context(&[], &copy));
        prop_assert_eq!(last_layer(&kiln, &context(&things, &copy)), alone, "{} on {:?}", copy, things);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn a_linked_copy_looks_no_name_up() {
    let passwd = "web:x:33:34::/:/bin/sh\n";
    let dockerfile = "FROM scratch\nCOPY passwd /etc/passwd\nCOPY --chown=web passwd /x\n";
    let kiln = Kiln::new();
    let image = kiln.image(&Context::new(dockerfile).file("passwd", passwd));
    assert_eq!((image.tree()["x"].uid, image.tree()["x"].gid), (33, 34));
    let linked = dockerfile.replace("--chown", "--link --chown");
    let context = Context::new(&linked).file("passwd", passwd);
    kiln.build(&context, &[]).fails(1, &["Dockerfile:3", "invalid user index: -1", "hint: "]);
}
