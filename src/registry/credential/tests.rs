//! The sources of credentials, merged.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn file(origin: &str, text: &str) -> AuthFile {
    AuthFile { origin: origin.to_owned(), text: Secret::new(text) }
}

fn find(sources: &CredentialSources, registry: &str, repository: &str) -> Option<(String, String)> {
    let found = Credentials::new(sources, Reporter::silent()).find(registry, repository)?;
    Some(match found.credential {
        Credential::Basic { username, password } => (username, password.reveal().to_owned()),
        Credential::Identity(token) => ("<identity>".to_owned(), token.reveal().to_owned()),
        Credential::Bearer(token) => ("<bearer>".to_owned(), token.reveal().to_owned()),
    })
}

fn pair(user: &str, password: &str) -> Option<(String, String)> {
    Some((user.to_owned(), password.to_owned()))
}

fn files(texts: &[&str]) -> CredentialSources {
    let files = texts.iter().enumerate().map(|(at, text)| file(&format!("file {at}"), text)).collect();
    CredentialSources { files, ..CredentialSources::default() }
}

#[test]
fn every_form_of_an_entry_is_read() {
    let sources = files(&[r#"{"auths": {
        "plain.io": {"auth": "dXNlcjpwYTpzcw=="},
        "unpadded.io": {"auth": "dXNlcjpwYTpzcw"},
        "https://index.docker.io/v1/": {"auth": "aHVi OnB3"},
        "split.io": {"username": "u", "password": "p"},
        "identity.io": {"auth": "PHRva2VuPjo=", "identitytoken": "refresh"},
        "token.io": {"registrytoken": "bearer"},
        "empty.io": {},
        "nul.io": {"auth": "dTpwAAA="}
    }, "HttpHeaders": {"X": "y"}, "psFormat": "x"}"#]);
    assert_eq!(find(&sources, "plain.io", "x"), pair("user", "pa:ss"));
    assert_eq!(find(&sources, "unpadded.io", "x"), pair("user", "pa:ss"));
    assert_eq!(find(&sources, "split.io", "x"), pair("u", "p"));
    assert_eq!(find(&sources, "identity.io", "x"), pair("<identity>", "refresh"));
    assert_eq!(find(&sources, "token.io", "x"), pair("<bearer>", "bearer"));
    assert_eq!(find(&sources, "empty.io", "x"), None);
    assert_eq!(find(&sources, "nul.io", "x"), pair("u", "p"));
    assert_eq!(find(&sources, "other.io", "x"), None);
}

#[test]
fn docker_hub_is_found_under_its_old_name() {
    let sources = files(&[r#"{"auths": {"https://index.docker.io/v1/": {"auth": "aHViOnB3"}}}"#]);
    assert_eq!(find(&sources, "docker.io", "library/debian"), pair("hub", "pw"));
}

#[test]
fn files_are_merged_and_the_longest_path_wins() {
    let sources = files(&[
        r#"{"auths": {"r.io": {"username": "general", "password": "1"}}}"#,
        r#"{"auths": {"r.io": {"username": "shadowed", "password": "2"},
                      "r.io/team": {"username": "team", "password": "3"},
                      "r.io/team/app": {"username": "app", "password": "4"},
                      "q.io": {"username": "q", "password": "5"}}}"#,
    ]);
    assert_eq!(find(&sources, "r.io", "x"), pair("general", "1"));
    assert_eq!(find(&sources, "r.io", "team/x"), pair("team", "3"));
    assert_eq!(find(&sources, "r.io", "team/app"), pair("app", "4"));
    assert_eq!(find(&sources, "r.io", "team/apple"), pair("team", "3"));
    assert_eq!(find(&sources, "q.io", "x"), pair("q", "5"));
}

#[test]
fn the_command_line_wins_over_all() {
    let mut sources = files(&[r#"{"auths": {"r.io/team": {"username": "file", "password": "1"}}}"#]);
    sources.explicit.push(("r.io".to_owned(), Credential::basic("flag", Secret::new("2"))));
    assert_eq!(find(&sources, "r.io", "team"), pair("flag", "2"));
}

#[test]
fn variables_are_read_as_ci_systems_set_them() {
    let mut sources = files(&[]);
    for (name, value) in [
        ("KILN_R_EXAMPLE_IO_USER", "k"),
        ("KILN_R_EXAMPLE_IO_PASSWORD", "1"),
        ("KANIKO_Q_IO_5000_USER", "q"),
        ("KANIKO_Q_IO_5000_PASSWORD", "2"),
        ("CI_REGISTRY", "registry.gitlab.example"),
        ("CI_REGISTRY_USER", "gitlab-ci-token"),
        ("CI_REGISTRY_PASSWORD", "job"),
        ("CI_DEPENDENCY_PROXY_SERVER", "gitlab.example:443"),
        ("CI_DEPENDENCY_PROXY_USER", "proxy"),
        ("CI_DEPENDENCY_PROXY_PASSWORD", "job2"),
    ] {
        sources.environment.insert(name.to_owned(), value.to_owned());
    }
    assert_eq!(find(&sources, "r.example.io", "x"), pair("k", "1"));
    assert_eq!(find(&sources, "r.example.io:8443", "x"), pair("k", "1"));
    assert_eq!(find(&sources, "q.io:5000", "x"), pair("q", "2"));
    assert_eq!(find(&sources, "q.io", "x"), None);
    assert_eq!(find(&sources, "registry.gitlab.example", "g/p"), pair("gitlab-ci-token", "job"));
    assert_eq!(
        find(&sources, "gitlab.example", "g/dependency_proxy/containers/alpine"),
        pair("proxy", "job2")
    );
    assert_eq!(find(&sources, "evil.example", "x"), None);
}

#[test]
fn a_broken_file_is_a_warning_that_shows_nothing_of_it() {
    use crate::event::{Event, Report};
    use std::sync::{Arc, Mutex};
    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<String>>);
    impl Report for Heard {
        fn report(&self, event: Event) {
            self.0.lock().unwrap().push_str(&format!("{event:?}"));
        }
    }
    let heard = Heard::default();
    let sources = files(&[
        r#"{"auths": {"r.io": {"password": hunter2}}}"#,
        r#"{"auths": {"bad.io": {"auth": "!!hunter2!!"}, "half.io": {"username": "u"}, "q.io": {"auth": "cTpw"}}}"#,
    ]);
    let credentials = Credentials::new(&sources, Reporter::new(heard.clone()));
    assert!(credentials.find("q.io", "x").is_some());
    let said = heard.0.lock().unwrap().clone();
    assert!(said.contains("file 0") && said.contains("`bad.io`") && said.contains("`half.io`"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

fn helper(directory: &std::path::Path, name: &str, script: &str) {
    let file = directory.join(format!("docker-credential-{name}"));
    fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn helpers_are_called_as_docker_calls_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    helper(
        path,
        "echo",
        r#"read server; [ "$1" = get ] && echo "{\"ServerURL\":\"$server\",\"Username\":\"user\",\"Secret\":\"for $server\"}""#,
    );
    helper(path, "none", "echo 'credentials not found in native keychain'; exit 1");
    helper(path, "token", r#"echo '{"Username":"<token>","Secret":"refresh"}'"#);
    helper(path, "broken", "echo 'the sky is falling' >&2; exit 1");
    let mut sources = files(&[r#"{
        "auths": {"own.io": {"auth": "ZmlsZTpwdw=="}, "broken.io": {"auth": "ZmlsZTpwdw=="}, "none.io": {"auth": "ZmlsZTpwdw=="}},
        "credHelpers": {"own.io": "echo", "none.io": "none", "token.io": "token", "broken.io": "broken", "lost.io": "no-such", "off.io": "", "../x.io": "../../bin/sh"},
        "credsStore": "echo"
    }"#]);
    sources.helper_path = vec!["/nonexistent".into(), path.to_owned()];
    assert_eq!(find(&sources, "own.io", "x"), pair("user", "for own.io"));
    assert_eq!(find(&sources, "docker.io", "library/x"), pair("user", "for https://index.docker.io/v1/"));
    assert_eq!(find(&sources, "token.io", "x"), pair("<identity>", "refresh"));
    // Where the helper knows nothing or is of no use, the file still counts.
    assert_eq!(find(&sources, "none.io", "x"), pair("file", "pw"));
    assert_eq!(find(&sources, "broken.io", "x"), pair("file", "pw"));
    assert_eq!(find(&sources, "lost.io", "x"), None);
    assert_eq!(find(&sources, "off.io", "x"), None);
}

#[test]
fn login_and_logout_keep_the_rest_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    let linked = directory.path().join("linked.json");
    std::os::unix::fs::symlink("config.json", &linked).unwrap();
    let file = CredentialFile { path: linked.clone(), helper_path: Vec::new() };
    let read = || serde_json::from_str::<serde_json::Value>(&fs::read_to_string(&path).unwrap()).unwrap();
    let basic = Credential::basic("u", Secret::new("p"));
    assert_eq!(file.forget(&Scope::parse("r.io")).unwrap(), None);
    assert!(!path.exists(), "nothing to forget, nothing to write");
    fs::write(
        &path,
        r#"{"auths": {"http://r.io": {"auth": "x"}, "index.docker.io": {"auth": "y"}}, "own": "z"}"#,
    )
    .unwrap();
    assert_eq!(file.save(&Scope::parse("docker.io"), &basic).unwrap(), Keeper::File);
    assert_eq!(read()["auths"]["https://index.docker.io/v1/"]["auth"], "dTpw");
    assert_eq!(read()["auths"].as_object().unwrap().len(), 2, "an older spelling goes");
    assert_eq!(read()["own"], "z");
    assert_eq!(file.forget(&Scope::parse("r.io")).unwrap(), Some(Keeper::File));
    assert_eq!(read()["auths"].as_object().unwrap().len(), 1);
    assert!(linked.is_symlink());
    for broken in ["[]", "{ not json", r#"{"auths": 1}"#] {
        fs::write(&path, broken).unwrap();
        let error = file.save(&Scope::parse("r.io"), &basic).unwrap_err();
        assert!(matches!(error, CredentialFileError::Malformed { .. }), "{error:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), broken, "left alone");
    }
}

/// As docker does: the secret goes to the program, and the file gets a mark.
#[test]
fn login_and_logout_use_the_helper_that_the_file_names() {
    let directory = tempfile::tempdir().unwrap();
    let (programs, path) = (directory.path(), directory.path().join("config.json"));
    helper(programs, "safe", &format!("tee -a {0}/$1 >&2; echo >> {0}/$1", programs.display()));
    helper(programs, "empty", "echo 'credentials not found in native keychain'; exit 1");
    helper(programs, "angry", "echo 'the keychain is locked'; exit 1");
    fs::write(
        &path,
        r#"{"credsStore": "safe", "credHelpers": {"e.io": "empty", "a.io": "angry", "f.io": "", "l.io": "lost"}}"#,
    )
    .unwrap();
    let file = CredentialFile { path: path.clone(), helper_path: vec![programs.to_owned()] };
    let basic = Credential::basic("u", Secret::new("s3cret"));
    let safe = Keeper::Helper("safe".to_owned());
    assert_eq!(file.save(&Scope::parse("r.io:5000"), &basic).unwrap(), safe);
    assert_eq!(
        file.save(&Scope::parse("docker.io"), &Credential::basic("<token>", Secret::new("t"))).unwrap(),
        safe
    );
    assert_eq!(file.save(&Scope::parse("f.io"), &basic).unwrap(), Keeper::File);
    let stored = fs::read_to_string(programs.join("store")).unwrap();
    let stored: Vec<serde_json::Value> =
        stored.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let entry =
        |server, user, secret| serde_json::json!({"ServerURL": server, "Username": user, "Secret": secret});
    assert_eq!(
        stored,
        [entry("r.io:5000", "u", "s3cret"), entry("https://index.docker.io/v1/", "<token>", "t")]
    );
    let read = || serde_json::from_str::<serde_json::Value>(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(read()["auths"]["r.io:5000"], serde_json::json!({}));
    assert_eq!(read()["auths"]["f.io"]["auth"], "dTpzM2NyZXQ=");
    assert_eq!(file.forget(&Scope::parse("r.io:5000")).unwrap(), Some(safe));
    assert_eq!(fs::read_to_string(programs.join("erase")).unwrap(), "r.io:5000\n");
    assert_eq!(read()["auths"].get("r.io:5000"), None);
    assert_eq!(file.forget(&Scope::parse("e.io")).unwrap(), None);
    for (registry, reason) in [
        ("r.io:5000/team", "log in to `r.io:5000`"),
        ("a.io", "the keychain is locked"),
        ("l.io", "no `docker-credential-lost` in PATH"),
    ] {
        let before = read();
        let error = file.save(&Scope::parse(registry), &basic).unwrap_err();
        assert!(error.to_string().contains(reason) && error.hint().is_some(), "{error}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
        assert_eq!(read(), before);
        file.forget(&Scope::parse(registry)).unwrap_err();
    }
}
