//! Compression: one result, valid for others, pinned by golden digests.

use std::io::{Read as _, Write as _};
use std::num::NonZeroUsize;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::*;
use crate::oci::Digest;

const MIB: usize = 1 << 20;

/// Reproducible noise (xorshift64).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out
}

/// Something like a layer: text, numbers, a stretch of noise, zeros.
fn sample(length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + 64);
    let noise = noise(3 * MIB);
    let mut line = 0u64;
    while out.len() < length {
        line += 1;
        match out.len() / (MIB / 2) % 5 {
            3 => out.extend_from_slice(&noise[out.len() % (2 * MIB)..][..4096]),
            4 => out.extend_from_slice(&[0; 512]),
            _ => {
                writeln!(out, "{line}: the quick brown fox {} jumps over {}", line * 7919, line % 13).unwrap()
            }
        }
    }
    out.truncate(length);
    out
}

fn compress(data: &[u8], compression: Compression, threads: usize, chunk: usize) -> Vec<u8> {
    let threads = NonZeroUsize::new(threads).unwrap();
    let mut compressor = Compressor::new(Vec::new(), compression, threads).unwrap();
    for chunk in data.chunks(chunk) {
        compressor.write_all(chunk).unwrap();
        compressor.flush().unwrap();
    }
    compressor.finish().unwrap()
}

fn decompress(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    auto_decoder(data).unwrap().1.read_to_end(&mut out).unwrap();
    out
}

fn all() -> Vec<Compression> {
    let gzip = (1..=9).map(|level| Compression::Gzip { level });
    let zstd = [1, 3, 9].map(|level| Compression::Zstd { level });
    gzip.chain(zstd).chain([Compression::None]).collect()
}

#[test]
fn threads_and_chunks_do_not_show() {
    let data = sample(2 * MIB + 312_345);
    for compression in [
        Compression::None,
        Compression::Gzip { level: 1 },
        Compression::gzip(),
        Compression::Gzip { level: 9 },
        Compression::Zstd { level: 1 },
        Compression::zstd(),
    ] {
        let expected = compress(&data, compression, 1, data.len());
        assert!(decompress(&expected) == data, "{compression}");
        for threads in [1, 2, 4] {
            for chunk in [1000, 65_537, 5 * MIB] {
                let found = compress(&data, compression, threads, chunk);
                assert!(found == expected, "{compression}, {threads} threads, writes of {chunk}");
            }
        }
    }
}

#[test]
fn lengths_around_a_block_are_right() {
    let data = sample(2 * MIB + 1);
    for length in [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1] {
        for compression in [Compression::Gzip { level: 1 }, Compression::Zstd { level: 1 }, Compression::None]
        {
            let one = compress(&data[..length], compression, 1, MIB);
            assert!(decompress(&one) == data[..length], "{compression}, {length}");
            assert!(compress(&data[..length], compression, 2, 777_777) == one, "{compression}, {length}");
            assert_eq!(one.is_empty(), length == 0 && compression == Compression::None);
        }
    }
}

#[test]
fn golden_digests() {
    let data = sample(5 * MIB + 4321);
    let found: Vec<String> = all()
        .into_iter()
        .map(|compression| {
            let bytes = compress(&data, compression, 2, 100_000);
            format!("{compression}: {} {}", bytes.len(), Digest::of(&bytes).short())
        })
        .collect();
    // A change here changes the digest of every layer kiln writes: say so in the CHANGELOG.
    let expected = include_str!("../../testdata/compression.golden");
    assert_eq!(found.join("\n"), expected.trim_end());
}

#[test]
fn noise_is_stored_and_hidden_repetition_is_not() {
    let noise = noise(MIB);
    let stored = compress(&noise, Compression::gzip(), 1, MIB);
    assert!((noise.len()..noise.len() + 200).contains(&stored.len()), "{}", stored.len());
    // Every byte value is equally frequent, and yet there is a lot to gain.
    let repeated = noise[..8192].repeat(128);
    let found = compress(&repeated, Compression::gzip(), 1, MIB).len();
    assert!(found < MIB / 50, "{found}");
}

#[test]
fn levels_out_of_range_are_refused() {
    for compression in [
        Compression::Gzip { level: 0 },
        Compression::Gzip { level: 10 },
        Compression::Zstd { level: 0 },
        Compression::Zstd { level: 23 },
    ] {
        let error = Compressor::new(Vec::new(), compression, NonZeroUsize::MIN).unwrap_err();
        assert!(error.to_string().contains("level out of range: expected 1 to"), "{error}");
    }
}

#[test]
fn a_writer_that_fails_ends_the_stream_with_its_error() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    for compression in [Compression::gzip(), Compression::zstd(), Compression::None] {
        let mut compressor = Compressor::new(Full, compression, NonZeroUsize::MIN).unwrap();
        let result = compressor.write_all(&noise(12 * MIB)).and_then(|()| compressor.finish().map(drop));
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::StorageFull, "{compression}");
    }
}

/// Runs a program on `input`; `None` where there is no such program.
fn run(program: &str, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut child =
        Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{program} failed");
    Some(output.stdout)
}

#[test]
fn other_programs_read_it() {
    let data = sample(3 * MIB + 99);
    let gzip = compress(&data, Compression::gzip(), 2, 100_000);
    let zstd = compress(&data, Compression::zstd(), 2, 100_000);
    let python = "import gzip,sys; sys.stdout.buffer.write(gzip.decompress(sys.stdin.buffer.read()))";
    for (program, arguments, input) in
        [("gzip", &["-dc"][..], &gzip), ("python3", &["-c", python], &gzip), ("zstd", &["-dc"], &zstd)]
    {
        if let Some(output) = run(program, arguments, input) {
            assert!(output == data, "{program}");
        }
    }
}

#[test]
fn golden_file_of_an_empty_layer() {
    // 1,024 zeros: what every tool's empty layer is, and the smallest thing to look at when bytes drift.
    let bytes = compress(&[0; 1024], Compression::Gzip { level: 6 }, 1, 1024);
    assert_eq!(&bytes[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff], "no time, no name, unknown system");
    assert_eq!(decompress(&bytes), [0; 1024]);
}

/// Streams a file through a compressor; returns the compressed size and the peak of the memory in KiB.
fn stream_file(path: &std::path::Path, compression: Compression, threads: usize) -> (u64, u64) {
    // Resets the peak (proc(5), `clear_refs`).
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let out = HashingWriter::new(std::io::sink());
    let mut compressor = Compressor::new(out, compression, NonZeroUsize::new(threads).unwrap()).unwrap();
    std::io::copy(&mut std::fs::File::open(path).unwrap(), &mut compressor).unwrap();
    let size = compressor.finish().unwrap().size_bytes();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    (size, peak.trim().trim_end_matches(" kB").parse().unwrap())
}

/// `KILN_MEASURE=/path/of/a/file cargo test --release --lib stream::tests::measure -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn measure() {
    let Some(path) = std::env::var_os("KILN_MEASURE") else { return };
    let path = std::path::Path::new(&path);
    let length = std::fs::metadata(path).unwrap().len();
    let levels = [1, 3, 4, 5, 6, 9].map(|level| Compression::Gzip { level });
    for compression in levels.into_iter().chain([1, 3, 9].map(|level| Compression::Zstd { level })) {
        let mut line = format!("{compression}:");
        let mut size = 0;
        for threads in [1, 2, 4] {
            let start = Instant::now();
            let (found, peak) = stream_file(path, compression, threads);
            let rate = length as f64 / 1e6 / start.elapsed().as_secs_f64();
            line += &format!(" {rate:.0} MB/s and {} MiB on {threads},", peak / 1024);
            size = found;
        }
        println!("{line} ratio {:.4}", size as f64 / length as f64);
    }
}
