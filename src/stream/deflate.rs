//! One block into one gzip member.

use std::io;

use libdeflater::{CompressionLvl, Compressor};
use rustix::io::Errno;

use crate::threads;

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
        let new = || Self { compressor: compressor(level), stored: compressor(0), quick: compressor(1) };
        Ok(threads::refusable("memory for gzip", Errno::NOMEM, new)?)
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

/// The parts in which a block is looked at: most blocks are known not to be noise after the first.
const PARTS: usize = 8;

/// Compares the sum of the squared frequencies with what noise would give: integers only, the same everywhere.
fn frequencies_are_even(block: &[u8]) -> bool {
    let length = block.len() as u64;
    // Noise has n²/256 + n·255/256.
    let noise = length * length / 256 + length;
    let limit = noise + noise * NOISE_TOLERANCE / 1024;
    // Four tables, so that equal neighbours do not wait for each other's counter.
    let mut counts = [[0u32; 256]; 4];
    let total = |counts: &[[u32; 256]; 4]| -> [u64; 256] {
        std::array::from_fn(|byte| counts.iter().map(|table| u64::from(table[byte])).sum())
    };
    let part = block.len().div_ceil(PARTS).next_multiple_of(4).max(4);
    for part in block.chunks(part) {
        let (quads, rest) = part.as_chunks::<4>();
        for [first, second, third, fourth] in quads {
            counts[0][usize::from(*first)] += 1;
            counts[1][usize::from(*second)] += 1;
            counts[2][usize::from(*third)] += 1;
            counts[3][usize::from(*fourth)] += 1;
        }
        for byte in rest {
            counts[0][usize::from(*byte)] += 1;
        }
        // Never above what the whole block has: looking at the rest would not change the answer.
        if least_squares(&total(&counts), length) > limit {
            return false;
        }
    }
    total(&counts).iter().map(|count| count * count).sum::<u64>() <= limit
}

/// Returns the least that the squared frequencies of a block of `length` bytes can sum up to when these `counts` are
/// those of its beginning: bytes that are too frequent already stay so, the rest is as even as it can be.
fn least_squares(counts: &[u64; 256], length: u64) -> u64 {
    let (mut frequent, mut bytes, mut squares) = (0, 0, 0);
    for count in counts.iter().filter(|count| **count * 256 > length) {
        frequent += 1;
        bytes += count;
        squares += count * count;
    }
    let rest = length - bytes;
    squares + rest * rest / (256 - frequent)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same question, all bytes looked at.
    fn evenness(block: &[u8]) -> bool {
        let mut counts = [0u64; 256];
        block.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        let length = block.len() as u64;
        let noise = length * length / 256 + length;
        counts.iter().map(|count| count * count).sum::<u64>() <= noise + noise * NOISE_TOLERANCE / 1024
    }

    #[test]
    fn stopping_early_changes_no_answer() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        };
        let (mut even, mut uneven) = (0, 0);
        for length in [1, 3, 257, 65_536, 100_003, 1 << 20] {
            // From noise to text: every `spoilt`th byte is another, all over the block, at its start or at its end.
            for spoilt in [0, 1, 2, 5, 9, 10, 11, 12, 13, 15, 20, 40, 200] {
                for place in 0..3 {
                    let block: Vec<u8> = (0..length)
                        .map(|at| {
                            let there = [true, at < length / 8, at > length / 2][place];
                            let spoil = there && spoilt > 0 && at % spoilt == 0;
                            if spoil { random() % 7 } else { random() }
                        })
                        .collect();
                    let answer = evenness(&block);
                    assert_eq!(frequencies_are_even(&block), answer, "{length} bytes, {spoilt}, {place}");
                    *if answer { &mut even } else { &mut uneven } += 1;
                }
            }
        }
        assert!(even > 20 && uneven > 20, "{even} blocks were even, {uneven} were not");
        assert!(frequencies_are_even(&[]) == evenness(&[]));
    }

    #[test]
    fn every_byte_as_often_and_one_byte_alone() {
        let even: Vec<u8> = (0..1u32 << 18).map(|at| at as u8).collect();
        assert!(frequencies_are_even(&even));
        assert!(!frequencies_are_even(&vec![7; 1 << 18]));
    }
}
