//! Credential helper programs: `docker-credential-NAME get`, called as docker calls them.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::Credential;
use crate::registry::secret::Secret;

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
    // The name is from a file: it must not lead out of the search path.
    if name.contains('/') || name.contains('\0') {
        return Err("its name is not a program's name".to_owned());
    }
    let program = format!("docker-credential-{name}");
    let file = path
        .iter()
        .map(|directory| directory.join(&program))
        .find(|file| is_program(file))
        .ok_or_else(|| format!("there is no `{program}` in PATH"))?;
    // Docker Hub is known to helpers by its oldest name.
    let server = if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry };
    let (success, output, error) = run(&file, server)?;
    let text = String::from_utf8_lossy(&output);
    if !success {
        // Helpers say so on standard output, each in its own words.
        let said = format!("{text} {}", String::from_utf8_lossy(&error)).to_lowercase();
        if ["not found", "no credentials", "credentials not", "not configured"]
            .iter()
            .any(|s| said.contains(s))
        {
            return Ok(None);
        }
        let said = if text.trim().is_empty() { String::from_utf8_lossy(&error) } else { text };
        return Err(said.lines().next().unwrap_or("it failed without a word").trim().to_owned());
    }
    let answer: Answer = serde_json::from_str(&text)
        .map_err(|_| "its answer is not the JSON of a credential helper".to_owned())?;
    if answer.username.is_empty() && answer.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(Credential::basic(answer.username, Secret::new(answer.secret))))
}

fn is_program(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Runs `file get` with the server's name on its standard input.
fn run(file: &Path, server: &str) -> Result<(bool, Vec<u8>, Vec<u8>), String> {
    let failed = |error: std::io::Error| format!("`{}`: {error}", file.display());
    let mut child = Command::new(file)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let collect = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(pipe) = pipe {
                let _ = pipe.take(LONGEST_ANSWER_BYTES).read_to_end(&mut bytes);
            }
            bytes
        })
    };
    let output = collect(stdout.map(|pipe| Box::new(pipe) as _));
    let error = collect(stderr.map(|pipe| Box::new(pipe) as _));
    if let Some(stdin) = &mut stdin {
        // A helper that does not read its input (it has but one answer) closes it: no fault.
        let _ = stdin.write_all(server.as_bytes());
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
    let finished = |thread: std::thread::JoinHandle<Vec<u8>>| thread.join().unwrap_or_default();
    Ok((status.success(), finished(output), finished(error)))
}
