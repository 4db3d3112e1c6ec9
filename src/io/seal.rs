//! Encrypted recordings: a file of messages of age, one a second, so that a card that is stolen is silent and a file
//! that is cut off plays up to there.
//!
//! ```text
//!  "watrunk-age-1\n"  block 0: the head  block 1  block 2 …
//!  block:  length of the message, u32 BE │ ticks of 20 ms in it, u32 BE │ message
//! ```
//!
//! Every message is whole: `age -d` opens it. A stanza for nobody, `-> watrunk/block CALL NUMBER COUNT`, ties it to its
//! place; the stock tool passes over it. COUNT is the block's ticks; in block 0 it is how many blocks follow, once that
//! is known. Numbers have eight digits, so that a head that is sealed again keeps its length.
//!
//! What is noticed: a block that was changed, is missing, stands elsewhere or comes from another recording, and the end
//! that is missing. What is not: whole blocks, or a whole file, that somebody made anew for the public key, which is no
//! secret. Against that the ledger keeps the file's SHA-256.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};

use super::age::{self, Identity, Recipient};

/// What a sealed file begins with.
pub const MAGIC: &[u8; 14] = b"watrunk-age-1\n";
/// The longest message that is read, in bytes: a minute of the largest format.
const LONGEST: u32 = 4 << 20;
/// Length and ticks before each message.
const FRONT: usize = 8;
/// The kind of our stanza.
const STANZA: &str = "watrunk/block";
/// The largest number that a stanza carries: three years of seconds.
const MOST: u32 = 99_999_999;

/// Seals one recording.
#[derive(Debug, Clone)]
pub struct Seal {
    to: Vec<Recipient>,
    call: String,
}

impl Seal {
    /// For all of `to` (`age1…`), as the recording of this call.
    ///
    /// # Errors
    /// Which key is wrong, in words.
    pub fn new(to: &[String], call: &str) -> Result<Seal, String> {
        if to.is_empty() {
            return Err("there is no public key to encrypt for".to_owned());
        }
        let key = |(at, text): (usize, &String)| {
            Recipient::parse(text).map_err(|why| format!("public key {}: {why}", at + 1))
        };
        let to = to.iter().enumerate().map(key).collect::<Result<_, _>>()?;
        Ok(Seal { to, call: word(call) })
    }

    /// Block 0, with the file's head alone. `blocks`: how many follow it; 0 as long as that is not known. It is as long
    /// as every other block 0 for a `plain` of this length.
    ///
    /// # Errors
    /// As [`Seal::block`].
    pub fn head(&self, plain: &[u8], blocks: u32) -> Result<Vec<u8>, String> {
        self.sealed(0, blocks, 0, plain)
    }

    /// One more block; the first after the head has the number 1.
    ///
    /// # Errors
    /// When it can't be sealed: in words.
    pub fn block(&self, number: u32, plain: &[u8], ticks: u32) -> Result<Vec<u8>, String> {
        self.sealed(number, ticks, ticks, plain)
    }

    fn sealed(&self, number: u32, count: u32, ticks: u32, plain: &[u8]) -> Result<Vec<u8>, String> {
        if number > MOST || count > MOST {
            return Err("the recording is too long to be encrypted".to_owned());
        }
        let message = age::seal(&self.to, &format!("{STANZA} {} {number:08} {count:08}", self.call), plain)?;
        let length = u32::try_from(message.len()).ok().filter(|length| *length <= LONGEST);
        let length = length.ok_or("a block is too long")?;
        let mut block = Vec::with_capacity(FRONT + message.len());
        block.extend(length.to_be_bytes());
        block.extend(ticks.to_be_bytes());
        block.extend(message);
        Ok(block)
    }
}

/// A call's id as one word of a stanza: printable ASCII, never empty.
fn word(call: &str) -> String {
    let word: String = call.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).take(128).collect();
    if word.is_empty() { "_".to_owned() } else { word }
}

/// What of a sealed file is whole, as far as can be seen without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Whole {
    /// Bytes up to the end of the last whole block. 0: not even the head is there.
    pub bytes: u64,
    /// Blocks after the head.
    pub blocks: u32,
    /// Ticks of 20 ms in them.
    pub ticks: u64,
}

/// Looks how much of a sealed file is whole. Nothing is opened.
///
/// # Errors
/// When it can't be read, or is no sealed file ([`ErrorKind::InvalidData`]).
pub fn whole(from: &mut dyn Read) -> io::Result<Whole> {
    let mut whole = Whole::default();
    if !magic(from)? {
        return Ok(whole);
    }
    let mut bytes = MAGIC.len() as u64;
    let mut head = true;
    while let Some((ticks, message)) = next(from)? {
        bytes += (FRONT + message.len()) as u64;
        whole.bytes = bytes;
        if !head {
            whole.blocks = whole.blocks.saturating_add(1);
            whole.ticks = whole.ticks.saturating_add(u64::from(ticks));
        }
        head = false;
    }
    Ok(whole)
}

/// What was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Opened {
    /// The call that it is the recording of.
    pub call: String,
    /// Blocks after the head.
    pub blocks: u32,
    /// Ticks of 20 ms in them.
    pub ticks: u64,
    /// What is missing at the end, in words; `None`: nothing.
    pub missing: Option<String>,
}

/// Opens a sealed file with an identity file's text and writes what is in it: block by block, so that what precedes an
/// error is written. A file that was cut off gives what is whole and says so in [`Opened::missing`].
///
/// # Errors
/// In words: the key, a block that does not open or stands in the wrong place, or the disk.
pub fn open(identity: &str, from: &mut dyn Read, to: &mut dyn Write) -> Result<Opened, String> {
    let read = |error: io::Error| match error.kind() {
        ErrorKind::InvalidData => error.to_string(),
        _ => format!("the recording can't be read: {error}"),
    };
    let identities = Identity::parse_all(identity)?;
    let mut opened = Opened::default();
    if !magic(from).map_err(read)? {
        return Err("it is cut off within its head: there is no sound".to_owned());
    }
    let (mut number, mut announced) = (0, 0);
    while let Some((ticks, message)) = next(from).map_err(read)? {
        let block =
            age::open(&identities, &message).map_err(|why| format!("block {number} does not open: {why}"))?;
        let (call, stands, count) =
            place(&block.notes).ok_or_else(|| format!("block {number} is no part of a recording"))?;
        if number > 0 && call != opened.call {
            return Err(format!("block {number} is of another recording: that of call {call}"));
        }
        if stands != number {
            return Err(format!("block {stands} stands in the place of block {number}"));
        }
        if number == 0 {
            (opened.call, announced) = (call.to_owned(), count);
        } else {
            opened.blocks = number;
            // The count in the stanza is sealed; the one in front of the message is for those without a key.
            opened.ticks = opened.ticks.saturating_add(u64::from(count));
            if count != ticks || number > announced && announced > 0 {
                return Err(format!("block {number} does not fit: the file was changed"));
            }
        }
        to.write_all(&block.plain).map_err(|error| format!("the sound can't be written: {error}"))?;
        number = number.saturating_add(1);
    }
    if number == 0 {
        return Err("it is cut off within its head: there is no sound".to_owned());
    }
    opened.missing = match announced {
        0 => Some("it was never finished: it ends where the gateway stopped".to_owned()),
        _ if opened.blocks == announced => None,
        _ => Some(format!("it is cut off: {} of {announced} blocks are there", opened.blocks)),
    };
    Ok(opened)
}

/// The call, the number and the count of our stanza.
fn place(notes: &[String]) -> Option<(&str, u32, u32)> {
    let note = notes.iter().find_map(|note| note.strip_prefix(STANZA)?.strip_prefix(' '))?;
    let mut words = note.split(' ');
    let place = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    words.next().is_none().then_some(place)
}

/// Reads what the file begins with; `false`: it is shorter than that.
fn magic(from: &mut dyn Read) -> io::Result<bool> {
    let mut begins = Vec::new();
    from.take(MAGIC.len() as u64).read_to_end(&mut begins)?;
    match MAGIC.strip_prefix(begins.as_slice()) {
        Some(rest) => Ok(rest.is_empty()),
        None => Err(io::Error::new(ErrorKind::InvalidData, "it is no encrypted recording of watrunk")),
    }
}

/// The ticks and the message of the next block; `None` where the file ends, or goes on with something else than a whole
/// block: after a power cut a disk may show zeros there.
fn next(from: &mut dyn Read) -> io::Result<Option<(u32, Vec<u8>)>> {
    let mut front = Vec::with_capacity(FRONT);
    from.take(FRONT as u64).read_to_end(&mut front)?;
    let Ok([a, b, c, d, e, f, g, h]) = <[u8; FRONT]>::try_from(front) else { return Ok(None) };
    let (length, ticks) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
    if length > LONGEST {
        return Ok(None);
    }
    let mut message = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut message)?;
    let whole = message.len() as u64 == u64::from(length) && message.starts_with(age::VERSION.as_bytes());
    Ok(whole.then_some((ticks, message)))
}

/// Corrects the sizes in the head of a WAV file that was never finished, so that every player knows how long it is.
/// Anything else is left as it is. Says whether something was changed.
///
/// # Errors
/// The disk's.
pub fn mend(file: &mut (impl Read + Write + Seek)) -> io::Result<bool> {
    let end = file.seek(SeekFrom::End(0))?;
    let Ok(riff_size) = u32::try_from(end.saturating_sub(8)) else { return Ok(false) };
    let mut read = |at: u64| -> io::Result<Option<[u8; 8]>> {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(at))?;
        (&mut *file).take(8).read_to_end(&mut bytes)?;
        Ok(bytes.try_into().ok())
    };
    if read(0)?.is_none_or(|head| !head.starts_with(b"RIFF"))
        || read(8)?.is_none_or(|head| !head.starts_with(b"WAVE"))
    {
        return Ok(false);
    }
    // Neither the number of chunks nor their length is trusted: a WAV file of ours has five at most.
    let mut at = 12;
    for _ in 0..16 {
        let Some([a, b, c, d, size @ ..]) = read(at)? else { return Ok(false) };
        let body = at.saturating_add(8);
        let (size, left) = (u64::from(u32::from_le_bytes(size)), end.saturating_sub(body));
        if [a, b, c, d] == *b"data" {
            let Some(data_size) = u32::try_from(left).ok().filter(|_| size > left) else { return Ok(false) };
            for (at, size) in [(4, riff_size), (at.saturating_add(4), data_size)] {
                file.seek(SeekFrom::Start(at))?;
                file.write_all(&size.to_le_bytes())?;
            }
            return Ok(true);
        }
        at = body.saturating_add(size).saturating_add(size & 1);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const PUBLIC: &str = "age1l6vkmp2tarz5nehhhr69kdlcn8r755r4pf62dj7xnr3fhm48g3rs2an8l4";
    const SECRET: &str = "AGE-SECRET-KEY-1523CDHHE5S6X4L5NEW2PQ0SD3CRL3UQXNQH42A84M72895F3Z28STPEZGK";
    const OTHER: &str = "AGE-SECRET-KEY-1LK945AR6MDZJ0WJYFVUNLQXYJ34WUU30EZWZQELKUSAK2F000CUQ8EA23P";
    const SECONDS: u32 = 5;
    /// One second of two channels of A-law.
    const SECOND: usize = 16_000;

    fn seal() -> Seal {
        Seal::new(&[PUBLIC.to_owned()], "call_1").unwrap()
    }

    /// A WAV head whose sizes are as given.
    fn head(data: u32) -> Vec<u8> {
        let mut head = b"RIFF".to_vec();
        head.extend(data.saturating_add(36).to_le_bytes());
        head.extend(b"WAVEfmt \x10\0\0\0\x06\0\x02\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x08\0data");
        head.extend(data.to_le_bytes());
        head
    }

    fn sound(number: u32) -> Vec<u8> {
        (0..SECOND).map(|at| (at as u32).wrapping_mul(number).to_le_bytes()[1]).collect()
    }

    /// The blocks of a recording, block 0 as it was at first and at last.
    fn blocks(seal: &Seal) -> (Vec<u8>, Vec<Vec<u8>>) {
        let first = seal.head(&head(u32::MAX), 0).unwrap();
        let mut blocks = vec![seal.head(&head(SECONDS * SECOND as u32), SECONDS).unwrap()];
        blocks.extend((1..=SECONDS).map(|number| seal.block(number, &sound(number), 50).unwrap()));
        (first, blocks)
    }

    fn file(blocks: &[Vec<u8>]) -> Vec<u8> {
        [MAGIC.to_vec(), blocks.concat()].concat()
    }

    fn plain(seconds: u32, data: u32) -> Vec<u8> {
        [head(data), (1..=seconds).flat_map(sound).collect()].concat()
    }

    fn opened(identity: &str, mut file: &[u8]) -> (Result<Opened, String>, Vec<u8>) {
        let mut out = Vec::new();
        (open(identity, &mut file, &mut out), out)
    }

    #[test]
    fn a_finished_recording_opens_to_the_bytes_that_were_sealed() {
        let (first, blocks) = blocks(&seal());
        assert_eq!(first.len(), blocks[0].len(), "the head can't be sealed in place");
        let (said, out) = opened(SECRET, &file(&blocks));
        let expected = Opened { call: "call_1".into(), blocks: SECONDS, ticks: 250, missing: None };
        assert_eq!(said, Ok(expected));
        assert!(out == plain(SECONDS, SECONDS * SECOND as u32));
        assert!(
            !file(&blocks).windows(8).any(|bytes| bytes == &sound(3)[100..108]),
            "the sound lies in the clear"
        );
    }

    #[test]
    fn a_recording_that_is_cut_anywhere_plays_up_to_the_last_whole_second() {
        let (first, mut blocks) = blocks(&seal());
        for finished in [true, false] {
            if !finished {
                blocks[0] = first.clone();
            }
            let file = file(&blocks);
            let mut ends = vec![MAGIC.len()];
            for block in &blocks {
                ends.push(ends[ends.len() - 1] + block.len());
            }
            // What precedes a cut is opened over and over: every byte of the fronts and heads, some of the others.
            let cuts = (0..file.len()).filter(|cut| {
                ends.iter().any(|end| cut.abs_diff(*end) < 12) || *cut < ends[1] || cut % 977 == 0
            });
            for cut in cuts {
                let whole_blocks = ends.iter().filter(|end| **end <= cut).count().saturating_sub(2);
                let whole = whole(&mut &file[..cut]).unwrap();
                let seconds = u32::try_from(whole_blocks).unwrap();
                assert_eq!((whole.blocks, whole.ticks), (seconds, u64::from(seconds) * 50), "cut at {cut}");
                let kept = ends.iter().filter(|end| **end <= cut).skip(1).max().copied().unwrap_or(0);
                assert_eq!(whole.bytes, kept as u64, "cut at {cut}");
                let (said, out) = opened(SECRET, &file[..cut]);
                if cut < ends[1] {
                    assert!(said.unwrap_err().contains("no sound"), "cut at {cut}");
                    continue;
                }
                let data = if finished { SECONDS * SECOND as u32 } else { u32::MAX };
                assert!(out == plain(seconds, data), "cut at {cut}");
                let said = said.unwrap();
                let says =
                    if finished { format!("{seconds} of {SECONDS} blocks") } else { "never finished".into() };
                assert_eq!((said.blocks, said.ticks), (seconds, u64::from(seconds) * 50));
                assert!(said.missing.unwrap().contains(&says), "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_disk_that_shows_zeros_behind_the_last_block_does_not_lengthen_the_recording() {
        let (first, mut blocks) = blocks(&seal());
        blocks[0] = first;
        let whole_file = file(&blocks);
        for behind in [
            vec![0; 4_096],
            vec![0xff; 4_096],
            blocks[2][..FRONT].iter().copied().chain([0; 40_000]).collect(),
        ] {
            let file = [whole_file.clone(), behind].concat();
            let seen = whole(&mut file.as_slice()).unwrap();
            assert_eq!(seen, Whole { bytes: whole_file.len() as u64, blocks: SECONDS, ticks: 250 });
            let (said, out) = opened(SECRET, &file);
            assert_eq!(said.unwrap().blocks, SECONDS);
            assert!(out == plain(SECONDS, u32::MAX));
        }
    }

    #[test]
    fn blocks_that_were_exchanged_left_out_or_taken_from_another_call_are_noticed() {
        let (_, ours) = blocks(&seal());
        let (_, theirs) = blocks(&Seal::new(&[PUBLIC.to_owned()], "call_2").unwrap());
        let mut exchanged = ours.clone();
        exchanged.swap(2, 3);
        let mut left_out = ours.clone();
        left_out.remove(2);
        let mut twice = ours.clone();
        twice.insert(2, ours[2].clone());
        let mut foreign = ours.clone();
        foreign[2] = theirs[2].clone();
        let mut ticks = ours.clone();
        ticks[2][7] ^= 1;
        let mut longer = ours.clone();
        longer.push(seal().block(SECONDS + 1, &sound(9), 50).unwrap());
        let mut changed = ours.clone();
        changed[2][4_000] ^= 1;
        for (blocks, says) in [
            (exchanged, "block 3 stands in the place of block 2"),
            (left_out, "block 3 stands in the place of block 2"),
            (twice, "block 2 stands in the place of block 3"),
            (foreign, "that of call call_2"),
            (ticks, "block 2 does not fit"),
            (longer, "block 6 does not fit"),
            (changed, "block 2 does not open"),
        ] {
            let why = opened(SECRET, &file(&blocks)).0.unwrap_err();
            assert!(why.contains(says), "{why}");
        }
    }

    #[test]
    fn the_wrong_key_and_a_file_of_another_kind_are_told_apart() {
        let (_, blocks) = blocks(&seal());
        let (said, out) = opened(OTHER, &file(&blocks));
        assert!(said.unwrap_err().contains("the key does not fit"));
        assert!(out.is_empty());
        for other in [b"age-encryption.org/v1\n".as_slice(), b"RIFF....WAVEfmt ", b"x"] {
            assert!(opened(SECRET, other).0.unwrap_err().contains("no encrypted recording"));
            assert_eq!(whole(&mut &*other).unwrap_err().kind(), ErrorKind::InvalidData);
        }
    }

    #[test]
    fn two_recipients_open_it_each_alone() {
        let both =
            [PUBLIC.to_owned(), "age1f5v8grwyvlmhd8sy3n9er57r4tfmfyzlkjv7ye0egt9afn2xna4qj68c49".to_owned()];
        let (_, blocks) = blocks(&Seal::new(&both, "call_1").unwrap());
        for identity in [SECRET, OTHER] {
            assert!(opened(identity, &file(&blocks)).1 == plain(SECONDS, SECONDS * SECOND as u32));
        }
        let why = Seal::new(&[PUBLIC.to_owned(), "age1f5v8g".to_owned()], "call_1").unwrap_err();
        assert!(why.contains("public key 2"), "{why}");
        assert!(Seal::new(&[], "call_1").is_err());
    }

    #[test]
    fn a_call_id_of_any_characters_makes_a_message_that_opens() {
        for call in ["", "wacid.HBg=", "a b\n-> X25519 c", "\u{e9}", &"x".repeat(500)] {
            let seal = Seal::new(&[PUBLIC.to_owned()], call).unwrap();
            let file = file(&[seal.head(&head(0), 0).unwrap(), seal.block(1, b"sound", 50).unwrap()]);
            assert_eq!(opened(SECRET, &file).0.unwrap().blocks, 1, "{call:?}");
        }
    }

    #[test]
    fn a_wav_file_that_was_cut_off_gets_the_sizes_of_what_is_there() {
        let mut file = Cursor::new(plain(3, u32::MAX));
        assert!(mend(&mut file).unwrap());
        assert!(file.get_ref() == &plain(3, 3 * SECOND as u32));
        // Nothing to do, and nothing that is no WAV file is touched.
        assert!(!mend(&mut file).unwrap());
        for other in
            [Vec::new(), b"OggS".to_vec(), b"RIFF\xff\xff\xff\xffWAVE".to_vec(), head(9)[..30].to_vec()]
        {
            let mut file = Cursor::new(other.clone());
            assert!(!mend(&mut file).unwrap());
            assert_eq!(file.into_inner(), other);
        }
    }
}
