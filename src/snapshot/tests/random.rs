//! Random edits of random trees.

use proptest::prelude::*;

use super::edit::{Edit, edit, perform};
use super::*;

fn cases(count: u32) -> ProptestConfig {
    // More by hand, in containers for one: tools/unit-in-kinds.
    let wanted = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: wanted.unwrap_or(count),
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    }
}

/// Compares index and full comparison over two steps, and applies what they say.
fn check_index(dir: &Path, first: &[Edit], steps: &[Vec<Edit>]) {
    let dir = tempfile::tempdir_in(dir).unwrap();
    let dir = dir.path();
    let root = subdir(dir, "root");
    first.iter().for_each(|edit| perform(&root, edit));
    let mut index = Arc::new(scan(&root, &[]).unwrap());
    for edits in steps {
        let before = subdir(dir, "before");
        copy_tree(&root, "", &before, "").unwrap();
        edits.iter().for_each(|edit| perform(&root, edit));
        let after = Arc::new(index.rescan(&root, &[], &[]).unwrap());
        let by_index = || diff(Arc::clone(&index), Arc::clone(&after), Arc::clone(&root));
        let compared = lines(compare_trees(Arc::clone(&before), Arc::clone(&root)));
        assert_eq!(lines(by_index()), compared);
        assert_turns_into(dir, &before, &root, by_index);
        index = after;
        Arc::get_mut(&mut index).unwrap().complete(&root).unwrap();
        fs::remove_dir_all(dir.join("before")).unwrap();
    }
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn index_says_what_a_full_comparison_says(
        first in prop::collection::vec(edit(), 0..20),
        steps in prop::collection::vec(prop::collection::vec(edit(), 0..8), 1..3),
    ) {
        on_each_file_system(|dir| check_index(dir, &first, &steps));
    }

    #[test]
    fn overlay_says_what_a_full_comparison_says(
        first in prop::collection::vec(edit(), 0..20),
        edits in prop::collection::vec(edit(), 0..12),
    ) {
        let first: Vec<&Edit> = first.iter().filter(|edit| !matches!(edit, Edit::HardLink(..))).collect();
        with_mounts(|| {
            let dir = tempfile::tempdir().unwrap();
            let lower = subdir(dir.path(), "lower");
            first.iter().for_each(|edit| perform(&lower, edit));
            let edit = |merged: &RootDir| edits.iter().for_each(|edit| perform(merged, edit));
            with_overlay(dir.path(), &lower, edit, |Edited { dir, upper, merged, userxattr }| {
                let by_upper = || overlay_changes(Arc::clone(&upper), Arc::clone(&lower), userxattr, &[]);
                let compared = lines(compare_trees(Arc::clone(&lower), Arc::clone(&merged)));
                assert_eq!(lines(by_upper()), compared);
                assert_turns_into(&dir, &lower, &merged, by_upper);
            });
        });
    }
}
