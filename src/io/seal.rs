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
