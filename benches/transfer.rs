//! One blob to a registry or from it, with kiln's client: what `benches/registry` measures.
//!
//! `transfer push PLACE FILE DIGEST SIZE`, `transfer stream PLACE FILE DIGEST` or `transfer pull PLACE DIGEST SIZE [FILE]` prints
//! wall seconds, CPU seconds and the peak of the resident memory in MiB.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Instant;

use kiln::event::Reporter;
use kiln::oci::{Digest, Reference, descriptor, media_type};
use kiln::registry::{Client, RegistryConfig};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [verb, place, what, rest @ ..] = words.as_slice() else {
        return Err(
            "usage: transfer push|pull|stream HOST/REPOSITORY FILE|DIGEST [DIGEST] [SIZE] [FILE]".into()
        );
    };
    let place: Reference = place.parse()?;
    let client = Client::new(RegistryConfig::default(), Reporter::silent())?;
    let began = Instant::now();
    match (verb.as_str(), rest) {
        ("stream", [digest]) => {
            let digest: Digest = digest.parse()?;
            client.push_stream(&place, &mut File::open(what)?, &|| Some(digest.clone()))?;
        }
        ("push", [digest, size]) => {
            let digest: Digest = digest.parse()?;
            let blob = descriptor(media_type::OCI_LAYER, &digest, size.parse()?);
            let open = || Ok(Box::new(File::open(what)?) as Box<dyn Read + Send>);
            client.push_blob(&place, &blob, &open, &[])?;
        }
        ("pull", [size, file @ ..]) => {
            let digest: Digest = what.parse()?;
            let blob = descriptor(media_type::OCI_LAYER, &digest, size.parse()?);
            let mut reader = client.blobs(&place).open_blob(&blob)?;
            let mut to: Box<dyn Write> = match file.first() {
                Some(path) => Box::new(File::create(path)?),
                None => Box::new(io::sink()),
            };
            let mut buffer = vec![0; 256 << 10];
            loop {
                match reader.read(&mut buffer)? {
                    0 => break,
                    count => to.write_all(&buffer[..count])?,
                }
            }
        }
        _ => return Err(format!("unknown: {words:?}").into()),
    }
    println!("{:.3} {:.3} {}", began.elapsed().as_secs_f64(), cpu_seconds()?, peak_mib()?);
    Ok(())
}

/// User and system time of this process.
fn cpu_seconds() -> Outcome<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

fn peak_mib() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM")).ok_or("no VmHWM")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse::<u64>()? >> 10)
}
