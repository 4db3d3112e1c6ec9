//! A public key of age (`age1…`): Bech32 (BIP 173) of 32 bytes, with its checksum.

/// The letters of Bech32 by their value.
const LETTERS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// What stands before the data.
const PREFIX: &str = "age1";

/// Letters in all: the prefix, 52 for 32 bytes, 6 for the checksum.
const LENGTH: usize = 62;

/// Checks a public key. The error is the rest of a sentence that begins with the key's name, and a hint; neither
/// tells the text, which may be the wrong half of a pair.
pub(super) fn recipient(text: &str) -> Result<(), (&'static str, &'static str)> {
    const MAKE: &str = "make a pair with age-keygen -o watrunk.key, which prints the public key";
    if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
        let hint = "put the public key here (age-keygen -y FILE prints it), and keep the secret one off this machine";
        return Err(("is a secret key: whoever has it can hear the recordings", hint));
    }
    let shape = ("must be a public key of age (\"age1\" and 58 more lower-case letters and digits)", MAKE);
    let data = text.strip_prefix(PREFIX).filter(|_| text.len() == LENGTH).ok_or(shape)?;
    let mut values = Vec::with_capacity(LENGTH);
    for byte in data.bytes() {
        let at = LETTERS.iter().position(|letter| *letter == byte);
        values.push(at.and_then(|at| u32::try_from(at).ok()).ok_or(shape)?);
    }
    // 52 letters hold 260 bits: the last four of 256 must be zero.
    let padded = values.get(51).is_some_and(|last| last & 0x0f == 0);
    if !padded || checksum(&values) != 1 {
        return Err(("has a wrong checksum: a letter of it was changed", "copy it again"));
    }
    Ok(())
}

/// BIP 173: 1 if all is well.
fn checksum(values: &[u32]) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let name = PREFIX.trim_end_matches('1').bytes().map(u32::from);
    let expanded = name.clone().map(|b| b >> 5).chain([0]).chain(name.map(|b| b & 31));
    expanded.chain(values.iter().copied()).fold(1, |sum, value| {
        let top = sum >> 25;
        let next = (sum & 0x01ff_ffff) << 5 ^ value;
        (0..).zip(GENERATOR).filter(|(bit, _)| top >> bit & 1 == 1).fold(next, |sum, (_, term)| sum ^ term)
    })
}
