use std::io::Write as _;
use std::sync::Mutex;

use super::*;
use crate::context::loopback::{Answer, Server};
use crate::event::{Event, Report};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Event>>>);

impl Report for Log {
    fn report(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl Log {
    fn warnings(&self) -> Vec<String> {
        let text = |event: &Event| match event {
            Event::Warning { text, .. } => Some(text.clone()),
            _ => None,
        };
        self.0.lock().unwrap().iter().filter_map(text).collect()
    }
}

fn options() -> HttpOptions {
    HttpOptions { retries: 2, first_pause: Duration::from_millis(1), ..HttpOptions::default() }
}

fn client(log: &Log) -> HttpFetch {
    HttpFetch::new(options(), Reporter::new(log.clone()))
}

fn get(url: &str) -> Result<(Fetched, Vec<u8>), ContextError> {
    let mut fetched = client(&Log::default()).get(url, &[])?;
    let mut body = Vec::new();
    fetched.reader.read_to_end(&mut body).unwrap();
    Ok((fetched, body))
}

fn error(url: &str) -> String {
    get(url).err().unwrap().to_string()
}

#[test]
fn an_answer_with_its_headers() {
    let server = Server::start(|_, _| {
        Answer::new(200, "text")
            .with("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
            .with("Content-Type", "text/plain")
            .with("Content-Disposition", "attachment; filename=\"n\"")
    });
    let (fetched, body) = get(&format!("{}/a?b=c", server.url)).unwrap();
    assert_eq!(body, b"text");
    assert_eq!(fetched.last_modified, Some(784_111_777));
    assert_eq!(fetched.content_type.as_deref(), Some("text/plain"));
    assert_eq!(fetched.file_name.as_deref(), Some("n"));
    assert_eq!(fetched.size_bytes, Some(4));
    assert_eq!(fetched.final_url, format!("{}/a?b=c", server.url));
    let request = &server.requests()[0];
    assert_eq!(request.path, "/a?b=c");
    assert!(request.header("user-agent").unwrap().starts_with("kiln/"));
    assert_eq!(request.header("accept-encoding"), None);
}

#[test]
fn credentials_and_headers_are_sent_but_not_shown() {
    let server = Server::start(|_, _| Answer::new(403, ""));
    let log = Log::default();
    let url = server.url.replace("http://", "http://user:secret@");
    let headers = [("X-Own".to_owned(), "value".to_owned())];
    let error = client(&log).get(&format!("{url}/a"), &headers).err().unwrap();
    assert_eq!(error.to_string(), format!("cannot download `{}/a`: invalid response status 403", server.url));
    assert!(error.hint().unwrap().contains("HTTP_AUTH_TOKEN_"));
    let request = &server.requests()[0];
    assert_eq!(request.header("authorization"), Some("Basic dXNlcjpzZWNyZXQ="));
    assert_eq!(request.header("x-own"), Some("value"));
}

#[test]
fn authorization_stays_with_its_host() {
    let other = Server::start(|_, _| Answer::new(200, "other"));
    let target = format!("{}/x", other.url.replace("127.0.0.1", "localhost"));
    let server = Server::start(move |_, _| Answer::new(302, "").with("Location", &target));
    let headers = [("Authorization".to_owned(), "Bearer secret".to_owned())];
    let mut fetched = client(&Log::default()).get(&server.url, &headers).unwrap();
    let mut body = String::new();
    fetched.reader.read_to_string(&mut body).unwrap();
    assert_eq!(body, "other");
    assert!(fetched.final_url.starts_with("http://localhost:"));
    assert_eq!(server.requests()[0].header("authorization"), Some("Bearer secret"));
    assert_eq!(other.requests()[0].header("authorization"), None);
}

#[test]
fn passing_failures_are_repeated_and_told() {
    let server = Server::start(|_, before| match before {
        0 => Answer::new(503, ""),
        1 => Answer::new(429, "").with("Retry-After", "0"),
        _ => Answer::new(200, "at last"),
    });
    let log = Log::default();
    let mut body = String::new();
    client(&log).get(&server.url, &[]).unwrap().reader.read_to_string(&mut body).unwrap();
    assert_eq!(body, "at last");
    let url = format!("{}/", server.url);
    assert_eq!(
        log.warnings(),
        [
            format!("cannot download `{url}`: invalid response status 503; trying again in 1ms (1 of 2)"),
            format!("cannot download `{url}`: invalid response status 429; trying again in 0ns (2 of 2)"),
        ]
    );
}

#[test]
fn repetitions_end() {
    let server = Server::start(|_, _| Answer::new(500, ""));
    assert!(error(&server.url).ends_with("invalid response status 500"));
    assert_eq!(server.requests().len(), 3);
    let server = Server::start(|_, _| Answer::new(404, ""));
    assert!(error(&server.url).ends_with("invalid response status 404"));
    assert_eq!(server.requests().len(), 1);
    let server = Server::start(|_, _| Answer::new(302, "").with("Location", "/again"));
    assert!(error(&server.url).contains("too many redirects"), "{}", error(&server.url));
}

#[test]
fn unreachable_and_odd_urls() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = error(&format!("http://u:secret@127.0.0.1:{port}/x"));
    assert!(text.starts_with(&format!("cannot download `http://127.0.0.1:{port}/x`: ")), "{text}");
    assert!(text.contains("refused"), "{text}");
    assert!(error("ftp://h/x").contains("expected http or https, found `ftp`"));
    assert!(error("http://").starts_with("invalid URL `http://`"));
    assert!(error("not a url").starts_with("invalid URL"));
}

#[test]
fn a_cut_body_is_an_error_and_a_failed_transfer() {
    let server = Server::start(|_, _| Answer { cut_after: Some(10), ..Answer::new(200, "x".repeat(100)) });
    let log = Log::default();
    let mut fetched = client(&log).get(&server.url, &[]).unwrap();
    assert!(fetched.reader.read_to_end(&mut Vec::new()).is_err());
    drop(fetched);
    let events = log.0.lock().unwrap();
    assert!(matches!(events.last(), Some(Event::TransferFinished { outcome, .. }) if outcome == "failed"));
}

#[test]
fn proxies_are_asked_except_for_loopback() {
    let proxy = Server::start(|_, _| Answer::new(200, "from the proxy"));
    let direct = Server::start(|_, _| Answer::new(200, "direct"));
    let address = proxy.url.strip_prefix("http://").unwrap().to_owned();
    let proxies = Proxies { http: Some(address), https: None, no_proxy: "example.org".to_owned() };
    let client = HttpFetch::new(HttpOptions { proxies, ..options() }, Reporter::silent());
    let body = |url: &str| {
        let mut body = String::new();
        client.get(url, &[]).unwrap().reader.read_to_string(&mut body).unwrap();
        body
    };
    assert_eq!(body("http://host.example/file"), "from the proxy");
    assert_eq!(proxy.requests()[0].path, "http://host.example/file");
    assert_eq!(body(&direct.url), "direct");
}

#[test]
fn bad_settings_are_told() {
    let new = |options| {
        let got = HttpFetch::new(options, Reporter::silent()).get("http://127.0.0.1:1/", &[]);
        got.err().map(|error| error.to_string())
    };
    let proxies = Proxies { http: Some("socks5://u:secret@h".to_owned()), ..Proxies::default() };
    assert_eq!(
        new(HttpOptions { proxies, ..options() }).unwrap(),
        "cannot set up downloads: HTTP_PROXY: expected an http or https proxy, found `socks5`"
    );
    let bad = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec();
    for authority in [bad, b"no certificate".to_vec()] {
        let error = new(HttpOptions { extra_authorities: vec![authority], ..options() }).unwrap();
        assert!(error.starts_with("cannot set up downloads"), "{error}");
    }
}

#[test]
fn a_text_is_put_again_until_it_is_taken() {
    let server = Server::start(|_, before| Answer::new(if before == 0 { 503 } else { 201 }, ""));
    let log = Log::default();
    client(&log).put(&format!("{}/digest?sig=secret", server.url), "text/plain", b"sha256:0").unwrap();
    let requests = server.requests();
    assert_eq!((requests.len(), requests[1].path.as_str()), (2, "/digest?sig=secret"));
    assert_eq!(requests[1].header("content-type"), Some("text/plain"));
    assert_eq!(requests[1].header("content-length"), Some("8"));
    assert!(!log.warnings().concat().contains("secret"), "{:?}", log.warnings());
    let refusing = Server::start(|_, _| Answer::new(403, ""));
    let error = client(&log).put(&refusing.url, "text/plain", b"x").unwrap_err().to_string();
    assert!(error.contains("cannot upload to") && error.contains("403"), "{error}");
}

#[test]
fn a_download_that_trickles_is_given_up_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/file", listener.local_addr().unwrap());
    let (asked, asks) = std::sync::mpsc::channel();
    threads::spawn("trickle", move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            asked.send(()).unwrap();
            let _ = connection.read(&mut [0; 4096]);
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
            while connection.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    })
    .unwrap();
    let options = HttpOptions { stall_timeout: Duration::from_millis(400), ..options() };
    let client = HttpFetch::new(options, Reporter::silent());
    let into = tempfile::tempdir().unwrap();
    let error = crate::context::http::download(&client, &url, &[], into.path(), None).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot download `{url}`: the transfer stalled"));
    assert_eq!(asks.try_iter().count(), 1);
}
