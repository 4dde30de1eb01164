//! One block into one gzip member.

use std::io;

use libdeflater::{CompressionLvl, Compressor};

/// The most that byte frequencies may differ from noise, as a fraction of 1024, for a block to count as noise.
/// Compressed and encrypted data is within 2; text, programs and images are above 100.
const NOISE_TOLERANCE: u64 = 8;

/// How many samples of a block that looks like noise are tried.
const SAMPLES: usize = 4;

/// Long enough for matches to show, short enough to cost nothing.
const SAMPLE_BYTES: usize = 16 * 1024;

/// Makes gzip members at one level.
pub(super) struct BlockEncoder {
    compressor: Compressor,
    stored: Compressor,
    quick: Compressor,
}

impl BlockEncoder {
    /// Accepts the levels that users of gzip know.
    pub(super) fn check(level: u32) -> io::Result<()> {
        if (1..=9).contains(&level) {
            return Ok(());
        }
        let text = format!("gzip level out of range: expected 1 to 9, found {level}");
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }

    pub(super) fn new(level: u32) -> io::Result<Self> {
        Self::check(level)?;
        Ok(Self { compressor: compressor(level), stored: compressor(0), quick: compressor(1) })
    }

    /// Replaces `output` by the member for `block`.
    ///
    /// What cannot be compressed (archives in the image, keys, noise) is recognised and stored: several times faster, and a few bytes smaller.
    pub(super) fn encode(&mut self, block: &[u8], output: &mut Vec<u8>) -> io::Result<()> {
        let compressor = if self.is_noise(block, output) { &mut self.stored } else { &mut self.compressor };
        compress(compressor, block, output)
    }

    /// Frequencies decide quickly for most blocks; where they are even, repetition may still hide.
    fn is_noise(&mut self, block: &[u8], scratch: &mut Vec<u8>) -> bool {
        if block.len() < SAMPLES * SAMPLE_BYTES || !frequencies_are_even(block) {
            return false;
        }
        let stride = block.len() / SAMPLES;
        block.chunks_exact(stride).all(|part| {
            let sample = &part[..SAMPLE_BYTES];
            compress(&mut self.quick, sample, scratch).is_ok() && scratch.len() >= sample.len()
        })
    }
}

fn compressor(level: u32) -> Compressor {
    let level = i32::try_from(level).ok().and_then(|level| CompressionLvl::new(level).ok());
    Compressor::new(level.expect("0 to 9 are levels of libdeflate"))
}

fn compress(compressor: &mut Compressor, input: &[u8], output: &mut Vec<u8>) -> io::Result<()> {
    output.resize(compressor.gzip_compress_bound(input.len()), 0);
    let length = compressor.gzip_compress(input, output).map_err(io::Error::other)?;
    output.truncate(length);
    Ok(())
}

/// Compares the sum of the squared frequencies with what noise would give: integers only, the same everywhere.
fn frequencies_are_even(block: &[u8]) -> bool {
    // Four tables, so that equal neighbours do not wait for each other's counter.
    let mut counts = [[0u32; 256]; 4];
    let mut quads = block.chunks_exact(4);
    for quad in &mut quads {
        for (table, byte) in counts.iter_mut().zip(quad) {
            table[usize::from(*byte)] += 1;
        }
    }
    for byte in quads.remainder() {
        counts[0][usize::from(*byte)] += 1;
    }
    let squares: u64 = (0..256)
        .map(|byte| counts.iter().map(|table| u64::from(table[byte])).sum::<u64>())
        .map(|count| count * count)
        .sum();
    let length = block.len() as u64;
    // Noise has n²/256 + n·255/256.
    let noise = length * length / 256 + length;
    squares <= noise + noise * NOISE_TOLERANCE / 1024
}
