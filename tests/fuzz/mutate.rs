//! Inputs: a sample of the corpus that was tampered with, a beginning of one with noise behind it, or noise.

use proptest::collection::vec;
use proptest::prelude::*;

/// One thing that is done to a sample; `at` and `value` are taken modulo what there is.
#[derive(Debug, Clone)]
struct Change {
    kind: u8,
    at: u32,
    value: u32,
}

/// Numbers that are wrong in interesting ways.
const NUMBERS: [u32; 10] = [0, 1, 2, 0x7f, 0xff, 0xffff, 0x0010_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
/// No input is made longer than this (bytes): growth is not what is looked for.
const MAX_BYTES: usize = 256 * 1024;

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
        let at = self.at as usize % (bytes.len() + 1);
        let number = NUMBERS[self.value as usize % NUMBERS.len()];
        let len = self.value as usize % 64;
        let byte = bytes.get(at).copied().unwrap_or(0);
        match self.kind % 11 {
            0 => edit(bytes, at, &[byte ^ (1 << (self.value % 8))]),
            1 => edit(bytes, at, &[self.value as u8]),
            2 => edit(bytes, at, &number.to_be_bytes()),
            3 => edit(bytes, at, &number.to_le_bytes()),
            4 => edit(bytes, at, &self.value.to_be_bytes()),
            5 => bytes.truncate(at),
            6 => drop(bytes.drain(at..(at + len).min(bytes.len()))),
            7 => insert(bytes, at, &self.value.to_be_bytes()[..len % 5]),
            8 => {
                let again = bytes[at..(at + len * 8).min(bytes.len())].to_vec();
                insert(bytes, at, &again);
            }
            9 => {
                let other = &others[self.value as usize % others.len()];
                let from = self.value as usize / 7 % (other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            // One more or one less, where a length may stand.
            _ if self.value.is_multiple_of(2) => edit(bytes, at, &[byte.wrapping_add(1)]),
            _ => edit(bytes, at, &[byte.wrapping_sub(1)]),
        }
        bytes.truncate(MAX_BYTES);
    }
}

fn edit(bytes: &mut [u8], at: usize, new: &[u8]) {
    bytes.iter_mut().skip(at).zip(new).for_each(|(old, new)| *old = *new);
}

fn insert(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    bytes.splice(at..at, new.iter().copied());
}

/// See the module header.
pub fn inputs(corpus: Vec<Vec<u8>>, seal: fn(Vec<u8>) -> Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<u8>(), any::<u32>(), any::<u32>()).prop_map(|(kind, at, value)| Change { kind, at, value });
    let (samples, beginnings) = (corpus.clone(), corpus);
    let tampered = (any::<u32>(), vec(change, 1..8), any::<bool>()).prop_map(move |(which, changes, sealed)| {
        let mut bytes = samples[which as usize % samples.len()].clone();
        changes.iter().for_each(|change| change.apply(&mut bytes, &samples));
        if sealed { seal(bytes) } else { bytes }
    });
    let begun = (any::<u32>(), any::<u32>(), vec(any::<u8>(), 0..300)).prop_map(move |(which, cut, noise)| {
        let mut bytes = beginnings[which as usize % beginnings.len()].clone();
        bytes.truncate(cut as usize % (bytes.len() + 1));
        bytes.extend(noise);
        bytes
    });
    prop_oneof![8 => tampered, 2 => begun, 1 => vec(any::<u8>(), 0..600)]
}
