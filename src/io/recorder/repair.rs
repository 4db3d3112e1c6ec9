//! What a power cut has left behind: a file that was being written is cut to what can be played, closed and named.

use std::io;

use super::store::{Reading, Sheet, Store};
use super::write::{Label, PART, SEALED, expires};
use super::{RecorderSettings, millis};
use crate::call::recording::{Finished, Outcome};
use crate::clock::Wall;
use crate::io::seal;
use crate::ledger::{TapeRow, UploadState};
use crate::media::tape::{self, Form, Kind};

/// What a file has at its end that nobody can read.
pub const DAMAGED: &str = ".damaged";

/// A file without sound is no longer than this; a longer one that nobody can read is kept.
const HEADS: u64 = 8_192;

/// A file that was being written, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The call's id.
    pub id: String,
    /// The file's name, once it is finished.
    pub name: String,
    /// Whether it is encrypted.
    pub sealed: bool,
}

impl Part {
    /// `<id>.<wav|ogg>[.age].part`; `None`: this is none of ours.
    pub fn read(file: &str) -> Option<Part> {
        Part::whole(file.strip_suffix(PART)?)
    }

    /// `<id>.<wav|ogg>[.age]`, as it is called when it is finished.
    pub fn whole(name: &str) -> Option<Part> {
        let (plain, sealed) = match name.strip_suffix(SEALED) {
            Some(plain) => (plain, true),
            None => (name, false),
        };
        let (id, extension) = plain.rsplit_once('.')?;
        let ours = super::is_id(id) && matches!(extension, "wav" | "ogg");
        ours.then(|| Part { id: id.to_owned(), name: name.to_owned(), sealed })
    }

    /// As it is called until then.
    pub fn file(&self) -> String {
        format!("{}{PART}", self.name)
    }
}

/// What a file's head says of it. Of a sealed one nobody here can know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// What is written.
    pub form: Option<Form>,
    /// The configured number's `id`, cut to 120 bytes.
    pub number: Option<String>,
    /// How it came out, how many milliseconds of it are a pause, and lost; `None`: it was not closed.
    pub end: Option<(Outcome, u64, u64)>,
}

impl Told {
    /// Reads the beginning of this file.
    pub fn read(store: &dyn Store, file: &str) -> io::Result<Told> {
        let mut head = vec![0; 1_024];
        let read = store.open(file)?.read_at(&mut head, 0)?;
        head.truncate(read);
        let text = |remark: &[u8], comment: &[u8]| match head.starts_with(b"OggS") {
            true => tagged(&head, comment),
            false => word(&head, remark),
        };
        let millis = |remark: &[u8], comment: &[u8]| {
            text(remark, comment).and_then(|text| text.parse().ok()).unwrap_or_default()
        };
        let closed = [Outcome::Complete, Outcome::Gaps, Outcome::Interrupted];
        let outcome = text(b"outcome: ", b"OUTCOME=");
        let outcome = closed.into_iter().find(|known| Some(known.as_str()) == outcome);
        let end =
            outcome.map(|end| (end, millis(b"paused: ", b"PAUSED_MS="), millis(b"lost: ", b"LOST_MS=")));
        Ok(Told { form: form(&head), number: number(&head), end })
    }
}

/// The word of the remark that comes after this name.
fn word<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a str> {
    let (_, rest) = after(head, name)?;
    let end = rest.iter().position(|byte| !byte.is_ascii_alphanumeric())?;
    std::str::from_utf8(rest.get(..end)?).ok()
}

/// Where a name stands, and what comes after it.
fn after<'a>(head: &'a [u8], name: &[u8]) -> Option<(usize, &'a [u8])> {
    let at = head.windows(name.len()).position(|bytes| bytes == name)?;
    Some((at, head.get(at + name.len()..)?))
}

/// The four bytes of a length.
fn long(bytes: &[u8]) -> Option<usize> {
    Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
}

/// A comment of RFC 7845, whose length, with its name, stands before it.
fn tagged<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a str> {
    let (at, rest) = after(head, name)?;
    let both = long(head.get(at.checked_sub(4)?..at)?)?;
    std::str::from_utf8(rest.get(..both.checked_sub(name.len())?)?).ok()
}

/// The number's id: the chunk `ISRC` of RIFF, with its length after its name, or the comment.
fn number(head: &[u8]) -> Option<String> {
    let text = if head.starts_with(b"OggS") {
        tagged(head, b"NUMBER=")?
    } else {
        let (length, rest) = after(head, b"ISRC")?.1.split_at_checked(4)?;
        std::str::from_utf8(rest.get(..long(length)?)?).ok()?
    };
    let text = text.trim_end_matches('\0');
    (!text.is_empty()).then(|| text.to_owned())
}

/// What a file's first bytes say of it.
fn form(head: &[u8]) -> Option<Form> {
    let number = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
    if head.starts_with(b"OggS") {
        // RFC 7845 §5.1: the rate of what was recorded is 12 bytes after the packet's first.
        let at = head.windows(8).position(|bytes| bytes == b"OpusHead")?;
        return Some(Form { kind: Kind::Ogg, rate: number(at + 12)?, bitrate: 16_000 });
    }
    let at = head.windows(4).position(|bytes| bytes == b"fmt ")?;
    let kind = match number(at + 8)? & 0xFFFF {
        1 => Kind::WavPcm,
        6 => Kind::WavAlaw,
        7 => Kind::WavUlaw,
        _ => return None,
    };
    head.starts_with(b"RIFF").then_some(Form { kind, rate: number(at + 12)?, bitrate: 16_000 })
}

/// What has become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mended {
    /// It can be played, and has its name.
    Kept(Finished),
    /// There was no sound in it: it is gone.
    Nothing,
    /// Nobody can read it: it is there, with another name, and this is why.
    Damaged(String),
}

/// Mends it. May be done again if it was cut off itself.
///
/// # Errors
/// The disk's: the file is as it was, or a little more mended.
pub fn mend(store: &dyn Store, part: &Part, row: &TapeRow) -> io::Result<Mended> {
    let file = store.open(&part.file())?;
    let long = file.bytes()?;
    let whole = match part.sealed {
        true => sealed(&*file, long),
        false => plain(&*file, long, row),
    };
    let (bytes, ticks) = match whole {
        Ok(whole) => whole,
        // What the disk can't read now it may read another time.
        Err(error) if error.raw_os_error().is_some() => return Err(error),
        Err(error) if long > HEADS => {
            store.rename(&part.file(), &format!("{}{DAMAGED}", part.name))?;
            return Ok(Mended::Damaged(error.to_string()));
        }
        Err(_) => (0, 0),
    };
    if ticks == 0 && long > HEADS {
        store.rename(&part.file(), &format!("{}{DAMAGED}", part.name))?;
        return Ok(Mended::Damaged("there is no sound in it that can be read".to_owned()));
    }
    if ticks == 0 {
        store.remove(&part.file())?;
        return Ok(Mended::Nothing);
    }
    file.sync()?;
    store.rename(&part.file(), &part.name)?;
    let (paused, lost) = silent(row, ticks);
    Ok(Mended::Kept(Finished {
        outcome: Outcome::Interrupted,
        millis: millis(ticks),
        paused_millis: millis(paused),
        lost_millis: millis(lost),
        bytes,
        error: Some("the process was cut off".to_owned()),
        ..Finished::default()
    }))
}

/// Ticks that were paused and that were lost of so many, as far as the row has heard of them.
fn silent(row: &TapeRow, ticks: u64) -> (u64, u64) {
    let before = &row.finished;
    ((before.paused_millis / 20).min(ticks), (before.lost_millis / 20).min(ticks))
}

/// Its head can't be made anew without reading the old one, for which there is no key here.
fn sealed(file: &dyn Sheet, long: u64) -> io::Result<(u64, u64)> {
    let whole = seal::whole(&mut Reading::new(file, long))?;
    if whole.ticks > 0 {
        file.cut(whole.bytes)?;
    }
    Ok((whole.bytes, whole.ticks))
}

fn plain(file: &dyn Sheet, long: u64, row: &TapeRow) -> io::Result<(u64, u64)> {
    let strange = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let form = Form::parse(&row.form).ok_or_else(|| strange("nobody knows what is written in it"))?;
    let whole = tape::whole(&form, &mut Reading::new(file, long))?;
    if whole.ticks == 0 {
        return Ok((whole.bytes, 0));
    }
    let label = Label { id: row.call.clone(), number: row.number.clone(), form, began: row.began_at };
    let (paused, lost) = silent(row, whole.ticks);
    let head = label.head(Outcome::Interrupted, whole.ticks, paused, lost);
    let mut old = vec![0; 4];
    if file.read_at(&mut old, 0)? != 4 || !head.starts_with(&old) {
        return Err(strange("its head is not that of a recording"));
    }
    file.cut(whole.bytes)?;
    file.write_at(&whole.closing, whole.bytes)?;
    file.write_at(&head, 0)?;
    Ok((whole.bytes + whole.closing.len() as u64, whole.ticks))
}

/// A row for a file that has none. It is kept from then on as long as its number says, if that is known.
pub fn unknown(part: &Part, told: Told, changed: Wall, from: Wall, settings: &RecorderSettings) -> TapeRow {
    let form = told.form.map(|form| form.word()).unwrap_or_default();
    let number = told.number.unwrap_or_default();
    let of_number = settings.numbers.get(&number);
    TapeRow {
        encrypted: part.sealed,
        expires_at: expires(from, of_number.map_or(settings.keep_days, |(_, days)| *days)),
        upload: if settings.upload { UploadState::Waiting } else { UploadState::None },
        account: of_number.map(|(account, _)| account.clone()).unwrap_or_default(),
        number,
        ..TapeRow::begun(&part.id, part.name.clone(), form, changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_unfinished_files_are_mended() {
        let part = Part::read("call_0123456789abcdef01234567.wav.part").unwrap();
        assert_eq!((part.id.as_str(), part.sealed), ("call_0123456789abcdef01234567", false));
        let part = Part::read("call_01.ogg.age.part").unwrap();
        assert_eq!((part.id.as_str(), part.name.as_str(), part.sealed), ("call_01", "call_01.ogg.age", true));
        for other in ["call_01.wav", "movie.mp4.part", "a b.wav.part", ".wav.part", "call_01.part", "x"] {
            assert_eq!(Part::read(other), None, "{other}");
        }
    }
}
