//! An in-process registry that does what the specification says, except where a fault is planned.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::http::{Body, Handler, Request, Response, Server};

/// What goes wrong.
#[derive(Clone)]
pub enum Fault {
    /// This answer, and the body of the request is read over.
    Answer(Response),
    /// This answer at once, the body is not read.
    Early(Response),
    /// The connection is reset after this many bytes of the request's body; a `PATCH` or `PUT` keeps them.
    CutUpload(u64),
    /// The connection is reset after this many bytes of the answer's body.
    CutDownload(usize),
    /// The right answer with another body (of the same or another length).
    Replace(Vec<u8>),
    /// The right answer without its last bytes, and closed as if that were all.
    Truncate(usize),
    /// The right answer, a few bytes at a time.
    Trickle(usize, Duration),
    /// The right answer, later.
    Delay(Duration),
    /// No answer: the connection is closed.
    Close,
    /// The registry forgets the upload session first.
    ForgetSession,
    /// The request is handled but its answer is lost.
    LoseAnswer,
    /// Nothing is read and nothing is said for so long; then the connection is closed.
    Sit(Duration),
    /// A `PATCH` keeps only so many bytes of its body, and says so.
    TakeLess(usize),
}

struct Plan {
    method: String,
    path: String,
    /// Requests to let pass first.
    skip: usize,
    times: usize,
    fault: Fault,
}

/// How the registry asks who is there.
#[derive(Clone, Default)]
pub enum Auth {
    #[default]
    Open,
    Basic {
        user: String,
        password: String,
    },
    /// Opaque tokens from `/token` of the same server or of another realm.
    Bearer {
        realm: Option<String>,
        /// Users, their passwords and the actions they may do on any repository; the empty name is anybody.
        users: BTreeMap<String, (String, String)>,
        /// Refresh tokens: what they stand for.
        refresh: BTreeMap<String, String>,
        life: Duration,
    },
}

#[derive(Default)]
pub struct State {
    pub blobs: BTreeMap<(String, String), Vec<u8>>,
    /// By repository and digest: media type and bytes.
    pub manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    pub tags: BTreeMap<(String, String), String>,
    pub sessions: BTreeMap<String, Vec<u8>>,
    pub log: Vec<Request>,
    plans: Vec<Plan>,
    tokens: BTreeMap<String, (Instant, BTreeSet<String>)>,
    counter: usize,
    pub auth: Auth,
    pub mounts: bool,
    pub ranges: bool,
    /// What a session says of the size of chunks.
    pub least_chunk: Option<u64>,
    /// Bodies above this get a 413.
    pub body_limit: Option<u64>,
    /// `PUT` with a body is a 405.
    pub no_monolithic: bool,
    /// Blobs are served by a redirect to this base.
    pub redirect_blobs: Option<String>,
    /// Whether `Location`s are absolute, and with what base.
    pub location_base: Option<String>,
}

/// A registry to be broken.
pub struct FaultRegistry {
    pub server: Server,
    pub state: Arc<Mutex<State>>,
}

struct Shared(Arc<Mutex<State>>);

impl FaultRegistry {
    pub fn start() -> Self {
        Self::start_on("127.0.0.1:0").expect("loopback can be listened on")
    }

    pub fn start_on(address: &str) -> std::io::Result<Self> {
        let state = State { mounts: true, ranges: true, ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let server = Server::start_on(address, Arc::new(Shared(state.clone())))?;
        Ok(Self { server, state })
    }

    pub fn host(&self) -> String {
        self.server.host()
    }

    /// What answers here, for another server to answer with.
    pub fn handler(&self) -> Arc<dyn Handler> {
        Arc::new(Shared(self.state.clone()))
    }

    /// Plans a fault for the next `times` requests of `method` whose path contains `path`.
    pub fn plan(&self, method: &str, path: &str, times: usize, fault: Fault) {
        self.plan_after(0, method, path, times, fault);
    }

    /// The same after `skip` such requests went well.
    pub fn plan_after(&self, skip: usize, method: &str, path: &str, times: usize, fault: Fault) {
        let plan = Plan { method: method.to_owned(), path: path.to_owned(), skip, times, fault };
        self.state.lock().unwrap().plans.push(plan);
    }

    pub fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap())
    }

    /// Puts a blob in and returns its digest.
    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = digest_of(bytes);
        self.with(|state| state.blobs.insert((repository.to_owned(), digest.clone()), bytes.to_vec()));
        digest
    }

    /// Puts a manifest in under a tag and returns its digest.
    pub fn put_manifest(&self, repository: &str, tag: &str, kind: &str, bytes: &[u8]) -> String {
        let digest = digest_of(bytes);
        self.with(|state| {
            let manifest = (kind.to_owned(), bytes.to_vec());
            state.manifests.insert((repository.to_owned(), digest.clone()), manifest);
            state.tags.insert((repository.to_owned(), tag.to_owned()), digest.clone());
        });
        digest
    }

    /// The requests so far, `METHOD path`.
    pub fn requests(&self) -> Vec<String> {
        self.with(|state| state.log.iter().map(|r| format!("{} {}", r.method, r.path)).collect())
    }

    pub fn count(&self, method: &str, path: &str) -> usize {
        self.with(|state| state.log.iter().filter(|r| r.method == method && r.path.contains(path)).count())
    }
}

pub fn digest_of(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl Handler for Shared {
    fn handle(&self, request: &Request, body: &mut Body<'_>) -> Option<Response> {
        let fault = {
            let mut state = self.0.lock().unwrap();
            state.log.push(request.clone());
            next_fault(&mut state, request)
        };
        // As a proxy it is asked for whole URLs: it plays the host that is meant.
        let mut request = request.clone();
        if let Some((_, rest)) = request.path.split_once("://") {
            request.path = rest.find('/').map_or("/", |at| &rest[at..]).to_owned();
        }
        let request = &request;
        match fault {
            None => self.answer(request, body),
            Some(Fault::Answer(response)) => {
                drain(body);
                Some(response)
            }
            Some(Fault::Early(response)) => Some(response),
            Some(Fault::CutUpload(bytes)) => {
                let mut kept = Vec::new();
                let _ = body.take(bytes).read_to_end(&mut kept);
                if let Some(session) = self.0.lock().unwrap().sessions.get_mut(session_of(request)) {
                    session.extend_from_slice(&kept);
                }
                body.reset();
                None
            }
            Some(Fault::Close) => None,
            Some(Fault::Sit(pause)) => {
                std::thread::sleep(pause);
                None
            }
            Some(Fault::TakeLess(bytes)) => {
                let mut kept = vec![0; bytes];
                let _ = body.read_exact(&mut kept);
                drain(body);
                let mut state = self.0.lock().unwrap();
                let session = state.sessions.get_mut(session_of(request))?;
                session.extend_from_slice(&kept);
                let range = format!("0-{}", session.len() - 1);
                Some(Response::new(202).header("location", request.path.clone()).header("range", range))
            }
            Some(Fault::ForgetSession) => {
                self.0.lock().unwrap().sessions.remove(session_of(request));
                self.answer(request, body)
            }
            Some(Fault::LoseAnswer) => {
                self.answer(request, body);
                body.reset();
                None
            }
            Some(spoil) => self.answer(request, body).map(|response| spoiled(response, spoil)),
        }
    }
}

fn next_fault(state: &mut State, request: &Request) -> Option<Fault> {
    for plan in &mut state.plans {
        if plan.times == 0 || plan.method != request.method || !request.path.contains(&plan.path) {
            continue;
        }
        if plan.skip > 0 {
            plan.skip -= 1;
            continue;
        }
        plan.times -= 1;
        return Some(plan.fault.clone());
    }
    None
}

fn spoiled(mut response: Response, fault: Fault) -> Response {
    match fault {
        Fault::CutDownload(bytes) => response.cut_after = Some(bytes),
        Fault::Replace(body) => response.body = body,
        Fault::Truncate(bytes) => {
            response.claimed_length = Some(response.body.len() as u64);
            response.body.truncate(response.body.len().saturating_sub(bytes));
        }
        Fault::Trickle(bytes, pause) => response.trickle = Some((bytes, pause)),
        Fault::Delay(pause) => response.delay = Some(pause),
        _ => {}
    }
    response
}

fn drain(body: &mut Body<'_>) {
    let _ = std::io::copy(body, &mut std::io::sink());
}

fn session_of(request: &Request) -> &str {
    request.path.rsplit('/').next().unwrap_or_default()
}

impl Shared {
    fn answer(&self, request: &Request, body: &mut Body<'_>) -> Option<Response> {
        if request.path == "/token" {
            return Some(self.token(request, body));
        }
        if let Some(response) = self.unauthorized(request) {
            drain(body);
            return Some(response);
        }
        let Some(rest) = request.path.strip_prefix("/v2/") else {
            drain(body);
            return Some(Response::new(404));
        };
        if rest.is_empty() {
            return Some(
                Response::new(200).header("docker-distribution-api-version", "registry/2.0").body("{}"),
            );
        }
        for (marker, handler) in [
            (
                "/blobs/uploads/",
                Self::upload as fn(&Self, &Request, &str, &str, &mut Body<'_>) -> Option<Response>,
            ),
            ("/blobs/", Self::blob),
            ("/manifests/", Self::manifest),
            ("/tags/", Self::tags),
        ] {
            if let Some((repository, name)) = rest.split_once(marker) {
                return handler(self, request, repository, name, body);
            }
        }
        drain(body);
        Some(Response::error(404, "NAME_UNKNOWN", "no such thing"))
    }

    fn blob(
        &self,
        request: &Request,
        repository: &str,
        digest: &str,
        body: &mut Body<'_>,
    ) -> Option<Response> {
        drain(body);
        let state = self.0.lock().unwrap();
        let Some(bytes) = state.blobs.get(&(repository.to_owned(), digest.to_owned())) else {
            return Some(Response::error(404, "BLOB_UNKNOWN", "blob unknown to registry"));
        };
        if let Some(base) = &state.redirect_blobs {
            return Some(Response::new(307).header("location", format!("{base}/{digest}?signature=s3cr3t")));
        }
        let mut response = Response::new(200).header("docker-content-digest", digest).body(bytes.clone());
        let start = request
            .header("range")
            .filter(|_| state.ranges)
            .and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse::<usize>().ok());
        if let Some(start) = start {
            if start >= bytes.len() {
                return Some(Response::new(416));
            }
            response = Response::new(206)
                .header("content-range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()))
                .body(bytes[start..].to_vec());
        }
        Some(response)
    }

    fn manifest(
        &self,
        request: &Request,
        repository: &str,
        name: &str,
        body: &mut Body<'_>,
    ) -> Option<Response> {
        let mut bytes = Vec::new();
        if body.read_to_end(&mut bytes).is_err() {
            return None;
        }
        let mut state = self.0.lock().unwrap();
        let digest = if name.starts_with("sha256:") {
            name.to_owned()
        } else {
            state.tags.get(&(repository.to_owned(), name.to_owned())).cloned().unwrap_or_default()
        };
        match request.method.as_str() {
            "PUT" => {
                let digest = digest_of(&bytes);
                let kind = request.header("content-type").unwrap_or_default().to_owned();
                if let Some(missing) = missing_blob(&state, repository, &bytes) {
                    return Some(Response::error(400, "MANIFEST_BLOB_UNKNOWN", &missing));
                }
                state.manifests.insert((repository.to_owned(), digest.clone()), (kind, bytes));
                if !name.starts_with("sha256:") {
                    state.tags.insert((repository.to_owned(), name.to_owned()), digest.clone());
                }
                Some(Response::new(201).header("docker-content-digest", digest))
            }
            "DELETE" => {
                state.tags.retain(|(r, t), d| !(r == repository && (t == name || d == name)));
                state.manifests.remove(&(repository.to_owned(), digest));
                Some(Response::new(202))
            }
            _ => match state.manifests.get(&(repository.to_owned(), digest.clone())) {
                Some((kind, bytes)) => Some(
                    Response::new(200)
                        .header("content-type", kind.clone())
                        .header("docker-content-digest", digest)
                        .body(bytes.clone()),
                ),
                None => Some(Response::error(404, "MANIFEST_UNKNOWN", "manifest unknown")),
            },
        }
    }

    fn tags(
        &self,
        request: &Request,
        repository: &str,
        _name: &str,
        _body: &mut Body<'_>,
    ) -> Option<Response> {
        let state = self.0.lock().unwrap();
        let mut tags: Vec<&String> =
            state.tags.keys().filter(|(r, _)| r == repository).map(|(_, tag)| tag).collect();
        if let Some(last) = request.argument("last") {
            tags.retain(|tag| tag.as_str() > last);
        }
        let more = tags.len() > 2;
        tags.truncate(2);
        let body = serde_json::json!({"name": repository, "tags": tags}).to_string();
        let mut response = Response::new(200);
        if more {
            let link = format!("</v2/{repository}/tags/list?n=2&last={}>; rel=\"next\"", tags[1]);
            response = response.header("link", link);
        }
        Some(response.body(body))
    }

    fn upload(&self, request: &Request, repository: &str, id: &str, body: &mut Body<'_>) -> Option<Response> {
        let (limit, no_monolithic) = {
            let state = self.0.lock().unwrap();
            (state.body_limit, state.no_monolithic)
        };
        let length = request.header("content-length").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        if limit.is_some_and(|limit| length > limit) {
            return Some(
                Response::new(413).body("<html><head><title>413 Request Entity Too Large</title></head>"),
            );
        }
        if request.method == "PUT" && length > 0 && no_monolithic {
            drain(body);
            return Some(Response::error(405, "UNSUPPORTED", "not in one piece"));
        }
        let mut bytes = Vec::new();
        let whole = body.read_to_end(&mut bytes).is_ok();
        let mut state = self.0.lock().unwrap();
        if request.method == "POST" {
            return Some(begin(&mut state, request, repository));
        }
        let base = state.location_base.clone().unwrap_or_default();
        let location = format!("{base}/v2/{repository}/blobs/uploads/{id}");
        let Some(session) = state.sessions.get_mut(id) else {
            return Some(Response::error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"));
        };
        if let Some(start) =
            request.header("content-range").and_then(|r| r.split('-').next()?.parse::<usize>().ok())
            && start != session.len()
        {
            let range = format!("0-{}", session.len().saturating_sub(1));
            return Some(Response::new(416).header("location", location).header("range", range));
        }
        session.extend_from_slice(&bytes);
        if !whole {
            return None;
        }
        let range = format!("0-{}", session.len().saturating_sub(1));
        match request.method.as_str() {
            "GET" => Some(Response::new(204).header("location", location).header("range", range)),
            "PATCH" => Some(Response::new(202).header("location", location).header("range", range)),
            "PUT" => {
                let bytes = state.sessions.remove(id).unwrap_or_default();
                let digest = request.argument("digest").unwrap_or_default().to_owned();
                if digest_of(&bytes) != digest {
                    return Some(Response::error(
                        400,
                        "DIGEST_INVALID",
                        "provided digest did not match uploaded content",
                    ));
                }
                state.blobs.insert((repository.to_owned(), digest.clone()), bytes);
                Some(Response::new(201).header("docker-content-digest", digest))
            }
            "DELETE" => {
                state.sessions.remove(id);
                Some(Response::new(204))
            }
            _ => Some(Response::new(405)),
        }
    }

    /// Refuses a request that does not prove what it must.
    fn unauthorized(&self, request: &Request) -> Option<Response> {
        let state = self.0.lock().unwrap();
        match &state.auth {
            Auth::Open => None,
            Auth::Basic { user, password } => {
                let wanted = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
                if request.header("authorization") == Some(&wanted) {
                    return None;
                }
                let refused = Response::error(401, "UNAUTHORIZED", "authentication required");
                Some(refused.header("www-authenticate", "Basic realm=\"test\""))
            }
            Auth::Bearer { realm, .. } => {
                let needed = needed_scope(request);
                let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
                let known = token.and_then(|token| state.tokens.get(token));
                let mut error = "";
                if let Some((until, scopes)) = known {
                    if *until < Instant::now() {
                        error = ",error=\"invalid_token\"";
                    } else if needed.iter().all(|scope| scopes.contains(scope)) {
                        return None;
                    } else {
                        error = ",error=\"insufficient_scope\"";
                    }
                }
                let host = request.header("host").unwrap_or_default();
                let realm = realm.clone().unwrap_or_else(|| format!("http://{host}/token"));
                let scope = joined(&needed);
                let challenge = format!("Bearer realm=\"{realm}\",service=\"test\",scope=\"{scope}\"{error}");
                let refused = Response::error(401, "UNAUTHORIZED", "authentication required");
                Some(refused.header("www-authenticate", challenge))
            }
        }
    }

    /// Gives out a token for the scopes that the user may have.
    fn token(&self, request: &Request, body: &mut Body<'_>) -> Response {
        let mut form = String::new();
        let _ = body.read_to_string(&mut form);
        let mut state = self.0.lock().unwrap();
        let Auth::Bearer { users, refresh, life, .. } = state.auth.clone() else { return Response::new(404) };
        let form: BTreeMap<String, String> =
            url::form_urlencoded::parse(form.as_bytes()).into_owned().collect();
        let refused =
            |message: &str| Response::new(401).body(serde_json::json!({"details": message}).to_string());
        let user = if request.method == "POST" {
            let field = |name: &str| form.get(name).map_or("", String::as_str);
            match refresh.get(form.get("refresh_token").map_or("", String::as_str)) {
                Some(user) => user.clone(),
                None if field("grant_type") == "password"
                    && users
                        .get(field("username"))
                        .is_some_and(|(password, _)| password == field("password")) =>
                {
                    field("username").to_owned()
                }
                None => return Response::new(400).body("{\"error\":\"invalid_grant\"}"),
            }
        } else if let Some(encoded) = request.header("authorization").and_then(|v| v.strip_prefix("Basic ")) {
            let text = String::from_utf8(STANDARD.decode(encoded).unwrap_or_default()).unwrap_or_default();
            let (user, password) = text.split_once(':').unwrap_or_default();
            match users.get(user) {
                Some((expected, _)) if expected == password => user.to_owned(),
                _ => return refused("incorrect username or password"),
            }
        } else if users.contains_key("") {
            String::new()
        } else {
            return refused("no anonymous access");
        };
        let allowed = users.get(&user).map(|(_, actions)| actions.clone()).unwrap_or_default();
        let asked: Vec<String> = if request.method == "POST" {
            form.get("scope").map_or("", String::as_str).split(' ').map(str::to_owned).collect()
        } else {
            request.query.iter().filter(|(key, _)| key == "scope").map(|(_, value)| value.clone()).collect()
        };
        let mut granted = BTreeSet::new();
        for scope in asked {
            let Some((rest, actions)) = scope.rsplit_once(':') else { continue };
            for action in actions.split(',').filter(|action| allowed.split(',').any(|a| a == *action)) {
                granted.insert(format!("{rest}:{action}"));
            }
        }
        state.counter += 1;
        let token = format!("token-{}", state.counter);
        state.tokens.insert(token.clone(), (Instant::now() + life, granted));
        // A clock of its own: nobody may rely on it.
        let body = serde_json::json!({
            "token": token, "expires_in": life.as_secs_f64(), "issued_at": "1999-01-01T00:00:00Z",
        });
        Response::new(200).body(body.to_string())
    }
}

fn begin(state: &mut State, request: &Request, repository: &str) -> Response {
    let base = state.location_base.clone().unwrap_or_default();
    if let (Some(digest), Some(from)) = (request.argument("mount"), request.argument("from"))
        && state.mounts
        && let Some(bytes) = state.blobs.get(&(from.to_owned(), digest.to_owned())).cloned()
    {
        state.blobs.insert((repository.to_owned(), digest.to_owned()), bytes);
        return Response::new(201).header("location", format!("{base}/v2/{repository}/blobs/{digest}"));
    }
    state.counter += 1;
    let id = format!("session-{}", state.counter);
    state.sessions.insert(id.clone(), Vec::new());
    let response = Response::new(202)
        .header("location", format!("{base}/v2/{repository}/blobs/uploads/{id}"))
        .header("range", "0-0");
    match state.least_chunk {
        Some(bytes) => response.header("oci-chunk-min-length", bytes.to_string()),
        None => response,
    }
}

fn missing_blob(state: &State, repository: &str, manifest: &[u8]) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(manifest).ok()?;
    let layers = json["layers"].as_array().cloned().unwrap_or_default();
    std::iter::once(&json["config"]).chain(&layers).find_map(|descriptor| {
        let digest = descriptor["digest"].as_str()?.to_owned();
        (!state.blobs.contains_key(&(repository.to_owned(), digest.clone()))).then_some(digest)
    })
}

/// The scopes a request needs, one action each.
fn needed_scope(request: &Request) -> Vec<String> {
    let Some(rest) = request.path.strip_prefix("/v2/") else { return Vec::new() };
    let repository = ["/blobs/", "/manifests/", "/tags/"]
        .iter()
        .find_map(|marker| rest.split_once(marker))
        .map_or("", |(repository, _)| repository);
    if repository.is_empty() {
        return vec!["registry:catalog:*".to_owned()];
    }
    let actions: &[&str] = match request.method.as_str() {
        "GET" if rest.contains("/uploads/") => &["pull", "push"],
        "GET" | "HEAD" => &["pull"],
        "DELETE" if rest.contains("/manifests/") => &["delete"],
        _ => &["pull", "push"],
    };
    let mut scopes: Vec<String> =
        actions.iter().map(|action| format!("repository:{repository}:{action}")).collect();
    if let Some(from) = request.argument("from") {
        scopes.push(format!("repository:{from}:pull"));
    }
    scopes
}

/// Writes scopes as a challenge does: actions of one repository together.
fn joined(scopes: &[String]) -> String {
    let mut by_repository: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for scope in scopes {
        if let Some((rest, action)) = scope.rsplit_once(':') {
            by_repository.entry(rest).or_default().push(action);
        }
    }
    let parts: Vec<String> =
        by_repository.iter().map(|(rest, actions)| format!("{rest}:{}", actions.join(","))).collect();
    parts.join(" ")
}
