//! The sources of credentials, merged.

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
    std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
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
    let before = r#"{"auths": {"r.io": {"auth": "x"}, "https://index.docker.io/v1/": {"auth": "y"}}, "credsStore": "z"}"#;
    let login =
        docker_config::edit(before, "docker.io", Some(&Credential::basic("u", Secret::new("p")))).unwrap();
    let json: serde_json::Value = serde_json::from_str(&login).unwrap();
    assert_eq!(json["auths"]["https://index.docker.io/v1/"]["auth"], "dTpw");
    assert_eq!(json["auths"].as_object().unwrap().len(), 2);
    assert_eq!(json["credsStore"], "z");
    let logout = docker_config::edit(&login, "r.io", None).unwrap();
    assert!(!logout.contains("\"r.io\""), "{logout}");
    assert!(
        docker_config::edit("", "r.io", Some(&Credential::basic("u", Secret::new("p"))))
            .unwrap()
            .contains("r.io")
    );
    assert!(docker_config::edit("[]", "r.io", None).is_err());
}
