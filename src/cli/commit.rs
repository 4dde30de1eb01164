//! Finds the commit that a build is made from: the CI system's word, else git's.

use super::environment::Environment;
use super::request::context_source;
use super::tags::Commit;
use crate::build::ContextSource;
use crate::context::{GitState, git_state};
use crate::text::without_credentials;

/// Finds the commit of the context `context`. A context that is somewhere else has a commit of its own,
/// which is not known before the build.
pub fn find(context: &str, environment: &Environment) -> Option<Commit> {
    let state = match context_source(context, environment) {
        ContextSource::Directory(path) => git_state(&path, &environment.for_git()),
        ContextSource::Stdin | ContextSource::TarFile(_) | ContextSource::Object(_) => None,
        ContextSource::Url(_) | ContextSource::Git(_) => return None,
    };
    combine(state, environment)
}

/// Puts what the CI system says over what git says. Changes count if git's commit is the CI system's.
fn combine(state: Option<GitState>, environment: &Environment) -> Option<Commit> {
    let Some(id) = environment.set_var("CI_COMMIT_SHA") else {
        let state = state?;
        return Some(Commit {
            id: state.commit,
            short: None,
            dirty: state.dirty,
            source: state.remote_url.as_deref().map(without_credentials),
            time: Some(state.commit_time),
        });
    };
    let dirty = state.as_ref().is_some_and(|state| state.commit == id && state.dirty);
    let known = state.as_ref().filter(|state| state.commit == id).map(|state| state.commit_time);
    let told = || environment.set_var("CI_COMMIT_TIMESTAMP")?.parse::<jiff::Timestamp>().ok();
    let time = known.or_else(|| Some(told()?.as_second()));
    let remote = state.and_then(|state| state.remote_url);
    let source = environment.set_var("CI_PROJECT_URL").map(str::to_owned).or(remote);
    Some(Commit {
        id: id.to_owned(),
        short: environment.set_var("CI_COMMIT_SHORT_SHA").map(str::to_owned),
        dirty,
        source: source.as_deref().map(without_credentials),
        time,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::environment::tests::environment;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    fn state(dirty: bool) -> GitState {
        GitState {
            commit: ID.to_owned(),
            commit_time: 5,
            dirty,
            remote_url: Some("https://u:p@h/a.git".to_owned()),
        }
    }

    #[test]
    fn git_is_asked_without_a_ci_system() {
        assert_eq!(combine(None, &environment(&[])), None);
        let commit = combine(Some(state(true)), &environment(&[])).unwrap();
        assert_eq!(commit.tag(), "01234567-dirty");
        assert_eq!(commit.source.as_deref(), Some("https://h/a.git"));
    }

    #[test]
    fn the_ci_systems_word_goes_first() {
        let ci = environment(&[
            ("CI_COMMIT_SHA", ID),
            ("CI_COMMIT_SHORT_SHA", "0123456"),
            ("CI_PROJECT_URL", "https://gitlab/a"),
        ]);
        let commit = combine(Some(state(true)), &ci).unwrap();
        assert_eq!(
            (commit.tag().as_str(), commit.source.as_deref()),
            ("0123456-dirty", Some("https://gitlab/a"))
        );
        assert_eq!(combine(None, &ci).unwrap().tag(), "0123456");
        let other = GitState { commit: "f".repeat(40), ..state(true) };
        let bare = environment(&[("CI_COMMIT_SHA", ID)]);
        assert_eq!(combine(Some(other), &bare).unwrap().tag(), "01234567");
    }

    #[test]
    fn the_commits_time_is_gits_or_what_the_ci_system_says() {
        let time = |state, variables: &[(&str, &str)]| combine(state, &environment(variables))?.time;
        let ci = [("CI_COMMIT_SHA", ID), ("CI_COMMIT_TIMESTAMP", "2023-11-14T23:13:20+01:00")];
        assert_eq!(time(Some(state(true)), &[]), Some(5));
        assert_eq!(time(Some(state(false)), &ci), Some(5));
        assert_eq!(time(None, &ci), Some(1_700_000_000));
        let other = GitState { commit: "f".repeat(40), ..state(false) };
        assert_eq!(time(Some(other), &ci), Some(1_700_000_000));
        assert_eq!(time(None, &[ci[0], ("CI_COMMIT_TIMESTAMP", "yesterday")]), None);
    }

    #[test]
    fn a_context_elsewhere_has_no_commit_here() {
        let ci = environment(&[("CI_COMMIT_SHA", ID)]);
        assert_eq!(find("https://h/a.git", &ci), None);
        assert!(find("-", &ci).is_some());
    }
}
