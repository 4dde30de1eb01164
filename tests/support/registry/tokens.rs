//! A token service as Harbor has one: tokens are JSON web tokens signed with a key whose certificate the
//! registry knows, and grant exactly the scopes that the user may have.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use super::http::{Body, Handler, Request, Response, Server};

/// docker-registry takes a token for so long after it expired.
const LEEWAY_SECONDS: u64 = 60;

/// The service; stops when dropped.
pub struct TokenService {
    pub server: Server,
    pub directory: Arc<tempfile::TempDir>,
    pub log: Arc<Mutex<Vec<Request>>>,
}

struct Service {
    directory: Arc<tempfile::TempDir>,
    /// User → password, actions.
    users: BTreeMap<&'static str, (&'static str, &'static str)>,
    life_seconds: u64,
    /// What clients are told of it.
    told_seconds: u64,
    log: Arc<Mutex<Vec<Request>>>,
}

impl TokenService {
    /// Starts one. The empty user is anybody.
    pub fn start(users: &[(&'static str, &'static str, &'static str)], life_seconds: u64) -> Self {
        Self::start_telling(users, life_seconds, life_seconds)
    }

    /// The same, with tokens that the registry takes for `life_seconds` (docker-registry's leeway of a minute is
    /// taken off) while clients are told `told_seconds`.
    pub fn start_telling(
        users: &[(&'static str, &'static str, &'static str)],
        life_seconds: u64,
        told_seconds: u64,
    ) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a temporary directory can be made"));
        let output = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=tokens"])
            .args(["-keyout", "token.key", "-out", "token.crt"])
            .current_dir(directory.path())
            .output()
            .expect("openssl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let users = users.iter().map(|(user, password, actions)| (*user, (*password, *actions))).collect();
        let log = Arc::new(Mutex::new(Vec::new()));
        let service =
            Service { directory: directory.clone(), users, life_seconds, told_seconds, log: log.clone() };
        Self { server: Server::start(Arc::new(service)), directory, log }
    }

    pub fn realm(&self) -> String {
        format!("http://{}/token", self.server.host())
    }
}

impl Handler for Service {
    fn handle(&self, request: &Request, body: &mut Body<'_>) -> Option<Response> {
        let _ = body.read_to_end(&mut Vec::new());
        self.log.lock().unwrap().push(request.clone());
        let mut user = String::new();
        if let Some(encoded) = request.header("authorization").and_then(|value| value.strip_prefix("Basic "))
        {
            let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
            let (name, password) = text.split_once(':')?;
            if self.users.get(name).is_none_or(|(expected, _)| *expected != password) {
                return Some(Response::new(401).body(r#"{"details":"incorrect username or password"}"#));
            }
            user = name.to_owned();
        }
        let allowed: Vec<&str> =
            self.users.get(user.as_str()).map_or("", |(_, actions)| actions).split(',').collect();
        let access: Vec<_> = request
            .query
            .iter()
            .filter(|(key, _)| key == "scope")
            .filter_map(|(_, scope)| {
                let (kind, rest) = scope.split_once(':')?;
                let (name, actions) = rest.rsplit_once(':')?;
                let granted: Vec<&str> = actions.split(',').filter(|a| allowed.contains(a)).collect();
                Some(json!({"type": kind, "name": name, "actions": granted}))
            })
            .collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let claims = json!({
            "iss": "kiln-tests", "sub": user, "aud": "test", "jti": format!("{now}"),
            "exp": now + self.life_seconds - if self.told_seconds == self.life_seconds { 0 } else { LEEWAY_SECONDS }, "nbf": now - 10, "iat": now, "access": access,
        });
        let token = self.sign(&claims);
        let answer = json!({"token": token, "expires_in": self.told_seconds});
        Some(Response::new(200).body(answer.to_string()))
    }
}

impl Service {
    fn sign(&self, claims: &serde_json::Value) -> String {
        let pem = std::fs::read_to_string(self.directory.path().join("token.crt")).expect("it was made");
        let certificate: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [certificate]});
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let mut child = Command::new("openssl")
            .args(["dgst", "-sha256", "-sign", "token.key", "-binary"])
            .current_dir(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("openssl runs");
        std::io::Write::write_all(&mut child.stdin.take().expect("it is piped"), signed.as_bytes())
            .expect("openssl reads");
        let output = child.wait_with_output().expect("openssl ends");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(output.stdout))
    }
}
