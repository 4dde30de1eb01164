//! How fast, beside curl through the same registry in the same run. Not run by default:
//! `cargo test --lib registry::tests::speed -- --ignored --nocapture`.

use std::process::Command;
use std::time::Instant;

use super::support::distribution::{Distribution, Setup};
use super::*;

const SIZE: u64 = 1 << 30;

/// Bytes that cost nothing to make.
struct Pattern {
    block: Arc<Vec<u8>>,
    left: u64,
}

impl Read for Pattern {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let at = usize::try_from((SIZE - self.left) % self.block.len() as u64).unwrap();
        let count =
            buffer.len().min(self.block.len() - at).min(usize::try_from(self.left).unwrap_or(usize::MAX));
        buffer[..count].copy_from_slice(&self.block[at..at + count]);
        self.left -= count as u64;
        Ok(count)
    }
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn measure<T>(name: &str, work: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = work();
    let seconds = began.elapsed().as_secs_f64();
    println!("{name:28} {:7.0} MB/s   peak {} MiB", SIZE as f64 / 1e6 / seconds, peak_kib() >> 10);
    result
}

#[test]
#[ignore = "a measurement"]
fn throughput_beside_curl() {
    let Some(registry) = Distribution::start(&Setup::default()) else { return };
    let block = Arc::new(noise(4 << 20, 5));
    let source = || Pattern { block: block.clone(), left: SIZE };
    let mut hash = crate::stream::HashingReader::new(source());
    std::io::copy(&mut hash, &mut std::io::sink()).unwrap();
    let digest = hash.finish().1.digest;
    let descriptor = descriptor(media_type::OCI_LAYER, &digest, SIZE);
    let client = client();
    let host = registry.host();
    for round in 0..2 {
        let to = reference(format!("{host}/speed{round}"));
        measure("push, one PUT", || {
            client.push_blob(&to, &descriptor, &|| Ok(Box::new(source())), &[]).unwrap()
        });
        measure("push, stream", || client.push_stream(&to, &mut source(), &|| Some(digest.clone())).unwrap());
        measure("pull, verified", || {
            let mut reader = client.blobs(&to).open(&descriptor).unwrap();
            std::io::copy(&mut reader, &mut std::io::sink()).unwrap()
        });
        let url = format!("http://{host}/v2/speed{round}/blobs/{digest}");
        measure("curl pull", || {
            assert!(Command::new("curl").args(["-sfo", "/dev/null", &url]).status().unwrap().success());
        });
        let file = registry.directory.path().join("blob");
        std::io::copy(&mut source(), &mut std::fs::File::create(&file).unwrap()).unwrap();
        let location = Command::new("curl")
            .args(["-si", "-X", "POST", &format!("http://{host}/v2/curl{round}/blobs/uploads/")])
            .output()
            .unwrap();
        let text = String::from_utf8(location.stdout).unwrap();
        let location = text.lines().find_map(|l| l.strip_prefix("Location: ")).unwrap().trim().to_owned();
        measure("curl push", || {
            let url = format!("{location}&digest={digest}");
            let status = Command::new("curl").arg("-sf").arg("-T").arg(&file).arg(&url).status();
            assert!(status.unwrap().success());
        });
        std::fs::remove_dir_all(registry.directory.path().join("data")).unwrap();
    }
}
