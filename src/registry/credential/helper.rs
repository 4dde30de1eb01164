//! Credential helper programs: `docker-credential-NAME get|store|erase`, called as docker calls them.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use super::key::HUB;
use super::{Credential, IDENTITY};
use crate::registry::secret::Secret;
use crate::threads;

/// Helpers ask cloud services; one that takes longer than this will not answer.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// No answer is longer.
const LONGEST_ANSWER_BYTES: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks a helper; nothing if it knows no credential for the registry.
pub(super) fn get(name: &str, registry: &str, path: &[PathBuf]) -> Result<Option<Credential>, String> {
    // Helpers know Docker Hub by its oldest name.
    let server = if registry == "docker.io" { HUB } else { registry };
    let ran = run(&find(name, path)?, "get", server)?;
    if !ran.success {
        return if ran.knows_nothing() { Ok(None) } else { Err(ran.complaint()) };
    }
    let answer: Answer = serde_json::from_str(&ran.output)
        .map_err(|_| "its answer is not the JSON of a credential helper".to_owned())?;
    if answer.username.is_empty() && answer.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(Credential::basic(answer.username, Secret::new(answer.secret))))
}

/// Gives a helper a credential to keep, under the key that docker's file would have.
pub(super) fn store(
    name: &str,
    server: &str,
    credential: &Credential,
    path: &[PathBuf],
) -> Result<(), String> {
    let (username, secret) = match credential {
        Credential::Basic { username, password } => (username.as_str(), password),
        Credential::Identity(token) => (IDENTITY, token),
        Credential::Bearer(_) => return Err("it keeps no tokens that are sent as they are".to_owned()),
    };
    let entry = json!({ "ServerURL": server, "Username": username, "Secret": secret.reveal() });
    let ran = run(&find(name, path)?, "store", &entry.to_string())?;
    if ran.success { Ok(()) } else { Err(ran.complaint()) }
}

/// Makes a helper forget a credential; `false` if it knew none.
pub(super) fn erase(name: &str, server: &str, path: &[PathBuf]) -> Result<bool, String> {
    let ran = run(&find(name, path)?, "erase", server)?;
    match ran.success {
        true => Ok(true),
        false if ran.knows_nothing() => Ok(false),
        false => Err(ran.complaint()),
    }
}

fn find(name: &str, path: &[PathBuf]) -> Result<PathBuf, String> {
    // The name is from a file: it must not lead out of the search path.
    if name.contains('/') || name.contains('\0') {
        return Err("its name is not a program's name".to_owned());
    }
    places(name, path)
        .find(|file| is_program(file))
        .ok_or_else(|| format!("there is no `docker-credential-{name}` in PATH"))
}

/// Lists where a helper is looked for.
pub(super) fn places(name: &str, path: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
    let program = format!("docker-credential-{name}");
    path.iter().map(move |directory| directory.join(&program))
}

/// What became of a call.
struct Ran {
    success: bool,
    output: String,
    error: String,
}

impl Ran {
    /// Helpers say so on standard output, each in its own words.
    fn knows_nothing(&self) -> bool {
        let said = format!("{} {}", self.output, self.error).to_lowercase();
        let words = ["not found", "no credentials", "credentials not", "not configured"];
        words.iter().any(|words| said.contains(words))
    }

    fn complaint(&self) -> String {
        let said = if self.output.trim().is_empty() { &self.error } else { &self.output };
        said.lines().next().unwrap_or("it failed without a word").trim().to_owned()
    }
}

fn is_program(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Runs `file verb` with `input` on its standard input.
fn run(file: &Path, verb: &str, input: &str) -> Result<Ran, String> {
    let failed = |error: std::io::Error| format!("`{}`: {error}", file.display());
    let mut child = Command::new(file)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let collect = |pipe: Option<Box<dyn Read + Send>>| {
        threads::spawn("helper", move || {
            let mut bytes = Vec::new();
            if let Some(pipe) = pipe {
                let _ = pipe.take(LONGEST_ANSWER_BYTES).read_to_end(&mut bytes);
            }
            bytes
        })
    };
    let threads = collect(stdout.map(|pipe| Box::new(pipe) as _))
        .and_then(|output| Ok((output, collect(stderr.map(|pipe| Box::new(pipe) as _))?)));
    let (output, error) = match threads {
        Ok(threads) => threads,
        Err(refused) => {
            let _ = child.kill();
            let _ = child.wait();
            return Err(refused.to_string());
        }
    };
    if let Some(stdin) = &mut stdin {
        // A helper that does not read its input (it has but one answer) closes it: no fault.
        let _ = stdin.write_all(input.as_bytes());
    }
    drop(stdin);
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if began.elapsed() > TIME_LIMIT {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("no answer within {} s", TIME_LIMIT.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let finished = |thread: std::thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&thread.join().unwrap_or_default()).into_owned()
    };
    Ok(Ran { success: status.success(), output: finished(output), error: finished(error) })
}
