//! Tags, branches, Call-IDs and jitter out of the seed: fresh in life, the same in every test run.

use std::fmt;
use std::time::Duration;

use sha2::{Digest, Sha256};

/// A stream of numbers nobody outside can guess from the ones he has seen: a hash over seed and count.
#[derive(Clone)]
pub(crate) struct Chance {
    seed: u64,
    count: u64,
}

impl fmt::Debug for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chance").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance { seed, count: 0 }
    }

    fn block(&mut self) -> [u8; 32] {
        self.count = self.count.wrapping_add(1);
        let mut hash = Sha256::new();
        hash.update(b"watrunk sip");
        hash.update(self.seed.to_be_bytes());
        hash.update(self.count.to_be_bytes());
        hash.finalize().into()
    }

    /// 64 random bits.
    pub(crate) fn number(&mut self) -> u64 {
        self.block().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// 80 random bits as 20 hexadecimal digits: a tag, or the unique part of a branch or Call-ID.
    pub(crate) fn token(&mut self) -> String {
        hex(&self.block()[..10])
    }

    /// A span between `low` and `high` per cent of `span`.
    pub(crate) fn part_of(&mut self, span: Duration, low: u64, high: u64) -> Duration {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let per_mille = low * 10 + self.number() % ((high.saturating_sub(low)) * 10 + 1);
        Duration::from_micros(micros / 1_000 * per_mille + micros % 1_000 * per_mille / 1_000)
    }
}

/// Lower-case hexadecimal, as digest (RFC 7616) writes it.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_stream_and_never_the_same_token_twice() {
        let (mut one, mut other) = (Chance::new(7), Chance::new(7));
        let tokens: Vec<String> = (0..50).map(|_| one.token()).collect();
        assert_eq!(tokens, (0..50).map(|_| other.token()).collect::<Vec<_>>());
        assert_eq!(tokens.iter().collect::<std::collections::BTreeSet<_>>().len(), 50);
        assert_ne!(Chance::new(8).token(), tokens[0]);
    }

    #[test]
    fn a_part_lies_between_its_bounds() {
        let mut chance = Chance::new(1);
        for _ in 0..200 {
            let part = chance.part_of(Duration::from_secs(300), 75, 85);
            assert!((225..=255).contains(&part.as_secs()), "{part:?}");
        }
    }
}
