//! Just enough of an HTTP/1.1 server on plain threads to be a registry that misbehaves exactly as told.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// The head of a request; header names are in lower case.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Query, decoded, in order.
    pub query: Vec<(String, String)>,
    pub headers: BTreeMap<String, String>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn argument(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Said in place of the body's length.
    pub claimed_length: Option<u64>,
    /// The connection is reset after this many bytes of the body.
    pub cut_after: Option<usize>,
    /// Bytes of the body sent at once, with a pause after each.
    pub trickle: Option<(usize, std::time::Duration)>,
    /// The head is sent after this pause.
    pub delay: Option<std::time::Duration>,
}

impl Response {
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// An error in the form of the distribution specification.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({"errors": [{"code": code, "message": message}]});
        Self::new(status).header("content-type", "application/json").body(body.to_string())
    }
}

/// What requests come in on.
pub trait Connection: Read + Write {
    fn socket(&self) -> &TcpStream;
}

impl Connection for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Connection for StreamOwned<ServerConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }
}

/// The body of a request as it arrives.
pub struct Body<'a> {
    reader: &'a mut BufReader<Box<dyn Connection>>,
    left: Left,
}

enum Left {
    Length(u64),
    /// Bytes left of the current chunk.
    Chunked(u64),
    Done,
}

impl Body<'_> {
    /// Resets the connection: the client sees it cut.
    pub fn reset(&self) {
        reset(self.reader.get_ref().socket());
    }

    pub fn is_done(&self) -> bool {
        matches!(self.left, Left::Done | Left::Length(0))
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.left {
            Left::Done | Left::Length(0) => Ok(0),
            Left::Length(left) => {
                let limit = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let count = self.reader.read(&mut buffer[..limit])?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.left = Left::Length(left - count as u64);
                Ok(count)
            }
            Left::Chunked(0) => {
                let mut line = String::new();
                self.reader.read_line(&mut line)?;
                if line.trim().is_empty() {
                    line.clear();
                    self.reader.read_line(&mut line)?;
                }
                let size = u64::from_str_radix(line.trim(), 16)
                    .map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
                if size == 0 {
                    self.reader.read_line(&mut line)?;
                    self.left = Left::Done;
                    return Ok(0);
                }
                self.left = Left::Chunked(size);
                self.read(buffer)
            }
            Left::Chunked(left) => {
                let limit = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let count = self.reader.read(&mut buffer[..limit])?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.left = Left::Chunked(left - count as u64);
                Ok(count)
            }
        }
    }
}

/// What answers requests; nothing means that the connection was cut.
pub trait Handler: Send + Sync + 'static {
    fn handle(&self, request: &Request, body: &mut Body<'_>) -> Option<Response>;
}

/// A server; stops when dropped.
pub struct Server {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Server {
    pub fn start(handler: Arc<dyn Handler>) -> Self {
        Self::start_on("127.0.0.1:0", handler).expect("loopback can be listened on")
    }

    pub fn start_on(address: &str, handler: Arc<dyn Handler>) -> io::Result<Self> {
        Self::start_with(address, handler, None)
    }

    /// Starts a proxy that plays every host it is asked to tunnel to, with TLS.
    pub fn start_proxy(tls: Arc<ServerConfig>, handler: Arc<dyn Handler>) -> Self {
        Self::start_with("127.0.0.1:0", handler, Some(tls)).expect("loopback can be listened on")
    }

    fn start_with(
        address: &str,
        handler: Arc<dyn Handler>,
        tls: Option<Arc<ServerConfig>>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr().expect("a listener has an address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (Ok(stream), handler, tls) = (stream, handler.clone(), tls.clone()) else { break };
                thread::spawn(move || serve(stream, tls, &*handler));
            }
        });
        Ok(Self { address, stop })
    }

    /// `127.0.0.1:port`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: TcpStream, tls: Option<Arc<ServerConfig>>, handler: &dyn Handler) {
    let _ = stream.set_nodelay(true);
    let mut reader: BufReader<Box<dyn Connection>> = BufReader::with_capacity(64 << 10, Box::new(stream));
    if let Some(tls) = tls {
        let Some(tunnelled) = tunnel(reader, tls) else { return };
        reader = tunnelled;
    }
    while let Ok(Some((request, left))) = read_head(&mut reader) {
        let mut body = Body { reader: &mut reader, left };
        let Some(response) = handler.handle(&request, &mut body) else { return };
        let drained = body.is_done();
        if write_response(reader.get_mut(), &request, &response).is_err() || !drained {
            break;
        }
    }
    let _ = reader.get_ref().socket().shutdown(Shutdown::Both);
}

/// Answers the `CONNECT` to a proxy and takes the place of whom it is meant for.
fn tunnel(
    mut reader: BufReader<Box<dyn Connection>>,
    tls: Arc<ServerConfig>,
) -> Option<BufReader<Box<dyn Connection>>> {
    let (request, _) = read_head(&mut reader).ok()??;
    if request.method != "CONNECT" {
        return None;
    }
    reader.get_mut().write_all(b"HTTP/1.1 200 X\r\n\r\n").ok()?;
    let socket = reader.get_ref().socket().try_clone().ok()?;
    let connection = StreamOwned::new(ServerConnection::new(tls).ok()?, socket);
    Some(BufReader::with_capacity(64 << 10, Box::new(connection)))
}

fn read_head(reader: &mut BufReader<Box<dyn Connection>>) -> io::Result<Option<(Request, Left)>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut parts = line.split_whitespace();
    let (method, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let mut request =
        Request { method: method.to_owned(), path: path.to_owned(), query, headers: BTreeMap::new() };
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            request.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let left = if request.header("transfer-encoding").is_some() {
        Left::Chunked(0)
    } else {
        Left::Length(request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0))
    };
    Ok(Some((request, left)))
}

fn write_response(
    stream: &mut Box<dyn Connection>,
    request: &Request,
    response: &Response,
) -> io::Result<()> {
    if let Some(delay) = response.delay {
        thread::sleep(delay);
    }
    let mut head = format!("HTTP/1.1 {} X\r\n", response.status);
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let has_length = response.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = response.claimed_length.unwrap_or(response.body.len() as u64);
    if !has_length && response.status != 204 {
        head.push_str(&format!("content-length: {length}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    if request.method == "HEAD" {
        return stream.flush();
    }
    let end = response.cut_after.unwrap_or(response.body.len()).min(response.body.len());
    match response.trickle {
        None => stream.write_all(&response.body[..end])?,
        Some((bytes, pause)) => {
            for piece in response.body[..end].chunks(bytes) {
                stream.write_all(piece)?;
                thread::sleep(pause);
            }
        }
    }
    if response.cut_after.is_some() {
        // What was written must arrive before the reset does.
        thread::sleep(std::time::Duration::from_millis(5));
        reset(stream.socket());
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    if length != response.body.len() as u64 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    stream.flush()
}

/// Closes with a reset instead of a farewell.
fn reset(stream: &TcpStream) {
    let linger = rustix::net::sockopt::set_socket_linger(stream, Some(std::time::Duration::ZERO));
    linger.expect("a socket takes the option");
    let _ = stream.shutdown(Shutdown::Both);
}
