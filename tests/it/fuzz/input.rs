//! Where inputs come from: samples, mutations of samples, and words put together.

use std::fmt;

use proptest::prelude::*;
use proptest::sample::select;

/// The bytes a target gets.
#[derive(Clone)]
pub(super) struct Input(pub(super) Vec<u8>);

impl Input {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// What the inputs of a target are made from.
pub(super) struct Samples {
    /// Valid inputs.
    pub(super) samples: Vec<Vec<u8>>,
    /// What the grammar is made of.
    pub(super) words: Vec<&'static str>,
    /// Makes an input pass what a plain mutation would fail at: checksums.
    pub(super) repair: fn(&mut Vec<u8>),
}

impl Samples {
    pub(super) fn new<S: AsRef<[u8]>>(samples: impl IntoIterator<Item = S>, words: &[&'static str]) -> Self {
        let samples = samples.into_iter().map(|sample| sample.as_ref().to_vec()).collect();
        Self { samples, words: words.to_vec(), repair: |_| {} }
    }

    pub(super) fn inputs(&self) -> impl Strategy<Value = Input> + use<> {
        let words = self.words.clone();
        let repair = self.repair;
        let mutated = (select(self.samples.clone()), prop::collection::vec(mutation(words.clone()), 0..8))
            .prop_map(|(mut bytes, mutations)| {
                for mutation in &mutations {
                    mutation.apply(&mut bytes);
                }
                bytes
            });
        let spliced = (select(self.samples.clone()), select(self.samples.clone()), any::<(u16, u16)>())
            .prop_map(|(mut first, second, (cut, from))| {
                first.truncate(place(cut, first.len()));
                first.extend_from_slice(&second[place(from, second.len())..]);
                first
            });
        let pieced =
            prop::collection::vec(select(words), 0..40).prop_map(|words| words.concat().into_bytes());
        let repeated = (select(self.words.clone()), 1..3000_usize, select(self.words.clone()))
            .prop_map(|(word, times, end)| (word.repeat(times) + end).into_bytes());
        let noise = prop::collection::vec(any::<u8>(), 0..300);
        let bytes = prop_oneof![8 => mutated, 2 => spliced, 8 => pieced, 1 => repeated, 1 => noise];
        (bytes, prop::bool::weighted(0.9)).prop_map(move |(mut bytes, repaired)| {
            if repaired {
                repair(&mut bytes);
            }
            Input(bytes)
        })
    }
}

/// A change at a place given as a part of the whole, so that it means something for any length.
#[derive(Debug, Clone)]
enum Mutation {
    Flip(u16, u8),
    Set(u16, u8),
    Insert(u16, Vec<u8>),
    Overwrite(u16, Vec<u8>),
    Delete(u16, u8),
    Repeat(u16, u8, u8),
    Truncate(u16),
}

fn mutation(words: Vec<&'static str>) -> impl Strategy<Value = Mutation> {
    let word = || {
        let words = select(words.clone()).prop_map(|word| word.as_bytes().to_vec());
        prop_oneof![4 => words, 1 => prop::collection::vec(any::<u8>(), 1..5)]
    };
    prop_oneof![
        (any::<u16>(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        (any::<u16>(), select(vec![0, 1, b' ', b'0', b'7', b'9', b'/', b'.', 0x7f, 0x80, 0xff]))
            .prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (any::<u16>(), word()).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (any::<u16>(), word()).prop_map(|(at, bytes)| Mutation::Overwrite(at, bytes)),
        any::<(u16, u8)>().prop_map(|(at, length)| Mutation::Delete(at, length)),
        (any::<u16>(), any::<u8>(), 1..20_u8)
            .prop_map(|(at, length, times)| Mutation::Repeat(at, length, times)),
        any::<u16>().prop_map(Mutation::Truncate),
    ]
}

fn place(part: u16, length: usize) -> usize {
    usize::from(part) * length / usize::from(u16::MAX)
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        let range =
            |at: u16, wanted: u8| place(at, length)..(place(at, length) + usize::from(wanted)).min(length);
        match self {
            Self::Flip(at, bit) => bytes[range(*at, 1)].iter_mut().for_each(|byte| *byte ^= 1 << bit),
            Self::Set(at, new) => bytes[range(*at, 1)].fill(*new),
            Self::Insert(at, new) => drop(bytes.splice(range(*at, 0), new.iter().copied())),
            Self::Overwrite(at, new) => {
                let range = range(*at, u8::try_from(new.len()).unwrap_or(u8::MAX));
                bytes.splice(range, new.iter().copied());
            }
            Self::Delete(at, wanted) => drop(bytes.drain(range(*at, *wanted))),
            Self::Repeat(at, wanted, times) => {
                let part = bytes[range(*at, *wanted)].repeat(usize::from(*times));
                bytes.splice(range(*at, 0), part);
            }
            Self::Truncate(at) => bytes.truncate(place(*at, length)),
        }
    }
}
