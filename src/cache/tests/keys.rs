//! Keys: what is in them, and that nothing else makes the same one.

use super::*;

/// A part of a key, as a test makes it up.
#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String, String),
    Bytes(String, Vec<u8>),
    List(String, Vec<String>),
    Files(String, Vec<(String, u32)>),
}

impl Part {
    fn add(&self, builder: &mut KeyBuilder) {
        match self.clone() {
            Self::Text(name, value) => builder.text(&name, &value),
            Self::Bytes(name, value) => builder.bytes(&name, &value),
            Self::List(name, values) => builder.list(&name, values),
            Self::Files(name, files) => {
                let files = files.into_iter().map(|(path, mode)| FileInput { mode, ..file(&path) });
                builder.files(&name, FileInputs::new(files.collect()))
            }
        };
    }

    /// Parts are equal if they say the same; files have no order of their own.
    fn sorted(mut self) -> Self {
        if let Self::Files(_, files) = &mut self {
            files.sort();
        }
        self
    }
}

/// Texts of few letters, so that joining them in the wrong places often gives the same bytes.
fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["", "a", "b", "=", ",", "\0", "run", "\u{1}"], 0..4)
        .prop_map(|words| words.concat())
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        (text(), text()).prop_map(|(name, value)| Part::Text(name, value)),
        (text(), text()).prop_map(|(name, value)| Part::Bytes(name, value.into_bytes())),
        (text(), proptest::collection::vec(text(), 0..4)).prop_map(|(name, list)| Part::List(name, list)),
        (text(), proptest::collection::btree_map("[ab/]{1,3}", 0u32..3, 0..3))
            .prop_map(|(name, files)| Part::Files(name, files.into_iter().collect())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn different_parts_never_make_the_same_key(
        one in proptest::collection::vec(part(), 0..4),
        other in proptest::collection::vec(part(), 0..4),
    ) {
        let of = |parts: &[Part]| key(|builder| parts.iter().for_each(|part| part.add(builder)));
        let says = |parts: &[Part]| parts.iter().cloned().map(Part::sorted).collect::<Vec<_>>();
        prop_assert_eq!(of(&one) == of(&other), says(&one) == says(&other));
    }

    #[test]
    fn bytes_moved_across_a_boundary_make_another_key(name in "[a-c]{1,6}", value in "[a-c]{1,6}", at in 0usize..6) {
        let joined = format!("{name}{value}");
        let at = at.min(joined.len());
        let (left, right) = joined.split_at(at);
        let moved = key(|b| { b.text(left, right); });
        let unmoved = key(|b| { b.text(&name, &value); });
        prop_assert_eq!(moved == unmoved, left == name);
        let list = |values: &[&str]| key(|b| { b.list("x", values.iter().map(|v| (*v).to_owned())); });
        prop_assert!(list(&[left, right]) != list(&[&joined]));
        prop_assert_eq!(list(&[left, right]) == list(&[&name, &value]), left == name);
    }
}

#[test]
fn everything_of_a_file_is_in_the_key() {
    let of = |files: Vec<FileInput>| {
        key(|b| {
            b.files("files", FileInputs::new(files));
        })
    };
    let plain = of(vec![file("a"), file("b")]);
    assert_eq!(plain, of(vec![file("b"), file("a")]), "order is not");
    let changes: Vec<FileInput> = vec![
        FileInput { path: "c".into(), ..file("a") },
        FileInput { kind: FileKind::Symlink, ..file("a") },
        FileInput { kind: FileKind::CharDevice(Device { major: 1, minor: 3 }), ..file("a") },
        FileInput { mode: 0o600, ..file("a") },
        FileInput { uid: 1, ..file("a") },
        FileInput { gid: 1, ..file("a") },
        FileInput { content: None, ..file("a") },
        FileInput { content: Some(Digest::of(b"x")), ..file("a") },
        FileInput { xattrs: Some(Digest::of(b"content")), ..file("a") },
        // A digest in the one place is not the same digest in the other.
        FileInput { xattrs: Some(Digest::of(b"content")), content: None, ..file("a") },
        FileInput { size_bytes: 8, ..file("a") },
    ];
    let mut keys = vec![plain, of(vec![file("a")]), of(Vec::new())];
    keys.extend(changes.into_iter().map(|change| of(vec![change, file("b")])));
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), count);
}

#[test]
fn keys_do_not_drift() {
    // Pinned: a change of framing must raise `VERSION`, or old records would answer to new meanings.
    let (key, _) = {
        let mut builder = KeyBuilder::new("run");
        builder.text("instruction", "make").bytes("secret", b"x").list("env", ["A=b".to_owned()]);
        builder
            .key("parent", "00".repeat(32).parse().unwrap())
            .files("files", FileInputs::new(vec![file("a")]));
        builder.finish()
    };
    assert_eq!(key.to_string(), PINNED_KEY);
    assert_eq!(Chain::of(&[]).to_string(), PINNED_CHAIN);
    assert!(key.to_string().parse::<Key>().is_ok_and(|read| read == key));
    for text in ["", "00", &"0".repeat(63), &"A".repeat(64), &"g".repeat(64)] {
        assert!(text.parse::<Key>().is_err(), "{text}");
    }
}

const PINNED_KEY: &str = "2f36aee442aba562666483d9cd2e20ce27b377f80c1dc47ed8c28b1f52bfaf07";
const PINNED_CHAIN: &str = "sha256:3de70ee27a544b3a9a001002a5ee923776d0f23ee39eb75e66ed88d644310502";

#[test]
fn step_names_do_not_run_together() {
    let name = |project: &str, stage: &str, number| {
        StepName { project: project.to_owned(), stage: stage.to_owned(), number }.id()
    };
    let ids = [name("a", "b", 1), name("ab", "", 1), name("", "ab", 1), name("a", "b", 2)];
    let distinct: BTreeMap<_, ()> = ids.iter().map(|id| (id, ())).collect();
    assert_eq!(distinct.len(), ids.len());
}
