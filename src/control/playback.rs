//! The file of a recording, to whoever has a link: whole or a part of it (RFC 9110 §14), piece by piece.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, SeekFrom};
use std::sync::PoisonError;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, Method, Response, StatusCode};
use futures_util::stream;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::mpsc;

use super::Backend;
use super::fault::{Fault, Kind};
use super::links;
use super::recordings::ready;
use super::refusal::forgotten;
use super::serve::{Ask, Outcome, Reply, Room};
use super::stream::Seat;
use crate::clock::Wall;
use crate::ledger::TapeRow;

/// Readers at a time: a slow one holds a connection, and for a minute a file.
pub const READERS: usize = 32;
/// Bytes that are read at once: three of these are what a reader costs, however slow.
const PIECE: u64 = 64 * 1024;
/// How long a reader may take nothing.
const STALLED: Duration = Duration::from_secs(60);
/// Links that are remembered as used.
const USED: usize = 1_024;

/// The links that were used, by signature, and until when each is good: a player asks many times for parts of a
/// recording, and has heard it once.
#[derive(Debug, Default)]
pub struct Used(BTreeMap<String, i64>);

impl Used {
    /// Whether this link is used for the first time, as far as is remembered.
    fn first(&mut self, signature: &str, now: Wall) -> bool {
        let now = now.unix_seconds();
        self.0.retain(|_, until| *until >= now);
        if self.0.contains_key(signature) {
            return false;
        }
        if self.0.len() < USED {
            self.0.insert(signature.to_owned(), now.saturating_add(links::GOOD_FOR));
        }
        true
    }

    /// It was not to be.
    fn forget(&mut self, signature: &str) {
        self.0.remove(signature);
    }
}

/// `GET /v1/recordings/{id}`
pub async fn fetch<B: Backend>(room: &Room<B>, ask: &Ask) -> Outcome {
    let id = ask.param("id");
    let reader = links::opened(room.backend.link_key(), id, &ask.query, ask.now.wall)?;
    let wanted = id.to_owned();
    let tape = room.backend.read(move |ledger| ledger.tape(&wanted)).await.map_err(|e| forgotten(&e))?;
    let tape = tape.ok_or_else(|| Fault::not_found("there is no such recording").at("id"))?;
    ready(&tape, true)?;
    let Some(seat) = Seat::take(&room.readers, READERS) else {
        let what = format!("{READERS} recordings are being read already");
        let mut fault = Fault::new(StatusCode::TOO_MANY_REQUESTS, Kind::RateLimit, "too_many_streams", what);
        fault.retry_after = Some(30);
        return Err(fault);
    };
    let (mut file, bytes) =
        room.backend.open_recording(&tape.file).await.map_err(|e| unreadable(&tape, &e))?;
    let tag = tag(&tape, bytes);
    let (part, whole) = match wanted_part(ask, tag.as_deref(), bytes) {
        Part::Whole => (0..bytes, true),
        Part::Of(part) => (part, false),
        Part::Beyond => return Ok(beyond(bytes)),
    };
    let left = part.end.saturating_sub(part.start);
    let mut response = Response::new(Body::empty());
    if ask.method != Method::HEAD {
        note(room, ask, &tape, &reader).await;
        file.seek(SeekFrom::Start(part.start)).await.map_err(|e| unreadable(&tape, &e))?;
        *response.body_mut() = Body::from_stream(pieces(file, left, seat));
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind(&tape)));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(left));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let how = if tape.encrypted { "attachment" } else { "inline" };
    let name: String =
        tape.file.chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).collect();
    for (header, value) in [(CONTENT_DISPOSITION, Some(format!("{how}; filename=\"{name}\""))), (ETAG, tag)] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.insert(header, value);
        }
    }
    if !whole {
        let range = format!("bytes {}-{}/{bytes}", part.start, part.end.saturating_sub(1));
        if let Ok(range) = HeaderValue::from_str(&range) {
            headers.insert(CONTENT_RANGE, range);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(Reply::Raw(response))
}

/// Writes down who has it now, once for each link. What can't be written down is in the log at least: a full disk is
/// no reason to keep recordings from those who want to save them.
async fn note<B: Backend>(room: &Room<B>, ask: &Ask, tape: &TapeRow, reader: &str) {
    let signature = ask.query.get("signature").unwrap_or_default();
    let now = ask.now.wall;
    if !room.used.lock().unwrap_or_else(PoisonError::into_inner).first(signature, now) {
        return;
    }
    let (who, call, file) = (reader.to_owned(), tape.call.clone(), tape.file.clone());
    let noted =
        room.backend.write(move |ledger| ledger.audit(now, &who, "recording.fetched", &call, &file)).await;
    if let Err(error) = noted {
        tracing::warn!(call = %tape.call, by = %reader, %error, "a recording was fetched, and the audit log can't be written");
        room.used.lock().unwrap_or_else(PoisonError::into_inner).forget(signature);
    }
}

/// The file can't be had, though its row says that it is here.
fn unreadable(tape: &TapeRow, error: &io::Error) -> Fault {
    tracing::warn!(call = %tape.call, file = %tape.file, %error, "a recording can't be read");
    match error.kind() {
        ErrorKind::NotFound => Fault::not_found("the recording's file is gone from the disk").at("id"),
        _ => Fault::internal(format!("the recording can't be read: {error}")),
    }
}

/// What it is. An encrypted one is nothing to a player.
fn kind(tape: &TapeRow) -> &'static str {
    match (tape.encrypted, tape.format()) {
        (true, _) => "application/octet-stream",
        (false, "ogg") => "audio/ogg",
        (false, _) => "audio/wav",
    }
}

/// The file's checksum as an entity tag, unless it has another length than when that was made.
fn tag(tape: &TapeRow, bytes: u64) -> Option<String> {
    if tape.finished.bytes != bytes {
        tracing::warn!(
            call = %tape.call,
            was = tape.finished.bytes,
            is = bytes,
            "a recording has not the size that it had when it was finished"
        );
        return None;
    }
    Some(&tape.finished.sha256).filter(|sum| !sum.is_empty()).map(|sum| format!("\"{sum}\""))
}

/// What of the file is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Of(std::ops::Range<u64>),
    Beyond,
}

fn wanted_part(ask: &Ask, tag: Option<&str>, bytes: u64) -> Part {
    // A part of another file than the one that the reader has begun with is of no use to it (RFC 9110 §13.1.5).
    let same = ask.headers.get(IF_RANGE).is_none_or(|said| said.to_str().is_ok_and(|said| Some(said) == tag));
    let asked = ask.headers.get_all(RANGE).iter().collect::<Vec<_>>();
    match asked.as_slice() {
        [only] if same => only.to_str().map_or(Part::Whole, |text| range(text, bytes)),
        _ => Part::Whole,
    }
}

/// Reads `Range` (RFC 9110 §14.2). What is not one range of bytes is as if it were not there.
fn range(text: &str, bytes: u64) -> Part {
    let Some((unit, set)) = text.split_once('=') else { return Part::Whole };
    let Some((first, last)) = set.trim().split_once('-') else { return Part::Whole };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // A number that is too large for us is beyond every file.
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let (first, last) = (first.trim(), last.trim());
    let part = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(bytes),
        (Some(first), None) if last.is_empty() => first..bytes,
        (None, Some(most)) if first.is_empty() => bytes.saturating_sub(most)..bytes,
        _ => return Part::Whole,
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Part::Whole;
    }
    if part.start < part.end { Part::Of(part) } else { Part::Beyond }
}

/// 416: there is nothing of that.
fn beyond(bytes: u64) -> Reply {
    let what = format!("the recording has {bytes} bytes: the range that is asked for is not among them");
    let fault =
        Fault::new(StatusCode::RANGE_NOT_SATISFIABLE, Kind::InvalidRequest, "range_not_satisfiable", what);
    let mut response = fault.into_response();
    if let Ok(range) = HeaderValue::from_str(&format!("bytes */{bytes}")) {
        response.headers_mut().insert(CONTENT_RANGE, range);
    }
    Reply::Raw(response)
}

/// So many bytes of the file, as the reader takes them: one piece is on its way and one waits. Whoever takes nothing for
/// long, such as a player that was paused, makes room for others; asking for the rest it goes on.
fn pieces(
    mut file: File,
    mut left: u64,
    seat: Seat,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (give, taken) = mpsc::channel(1);
    tokio::spawn(async move {
        let _seat = seat;
        while left > 0 {
            let piece = piece(&mut file, left).await;
            left = piece.as_ref().map_or(0, |piece| left.saturating_sub(piece.len() as u64));
            match tokio::time::timeout(STALLED, give.send(piece)).await {
                Ok(Ok(())) => {}
                // The answer breaks off: it has not the length that was announced.
                Ok(Err(_)) | Err(_) => return,
            }
        }
    });
    stream::unfold(taken, |mut taken| async move { taken.recv().await.map(|piece| (piece, taken)) })
}

async fn piece(file: &mut File, left: u64) -> io::Result<Bytes> {
    let mut piece = vec![0; usize::try_from(left.min(PIECE)).unwrap_or(0)];
    let read = file.read(&mut piece).await?;
    if read == 0 {
        return Err(io::Error::from(ErrorKind::UnexpectedEof));
    }
    piece.truncate(read);
    Ok(Bytes::from(piece))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_bytes_is_understood_and_everything_else_is_the_whole() {
        for (text, part) in [
            ("bytes=0-99", Part::Of(0..100)),
            ("bytes=10-10", Part::Of(10..11)),
            ("Bytes = 990-", Part::Of(990..1_000)),
            ("bytes=990-5000", Part::Of(990..1_000)),
            ("bytes=-10", Part::Of(990..1_000)),
            ("bytes=-5000", Part::Of(0..1_000)),
            ("bytes=0-99999999999999999999999999", Part::Of(0..1_000)),
            ("bytes=1000-", Part::Beyond),
            ("bytes=99999999999999999999999999-", Part::Beyond),
            ("bytes=-0", Part::Beyond),
            ("bytes=10-9", Part::Whole),
            ("bytes=0-1,5-6", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("bytes", Part::Whole),
            ("seconds=1-2", Part::Whole),
            ("", Part::Whole),
        ] {
            assert_eq!(range(text, 1_000), part, "{text}");
        }
        assert_eq!(range("bytes=0-", 0), Part::Beyond, "of nothing there is no part");
    }

    #[test]
    fn a_link_counts_once_as_long_as_it_is_good() {
        let mut used = Used::default();
        let at = |seconds: i64| Wall(seconds * 1_000);
        assert!(used.first("a", at(0)));
        assert!(!used.first("a", at(links::GOOD_FOR)));
        assert!(used.first("b", at(0)));
        for n in 0..5_000 {
            used.first(&n.to_string(), at(1));
        }
        assert!(used.0.len() <= USED, "{}", used.0.len());
        assert!(used.first("c", at(links::GOOD_FOR * 3)));
        assert_eq!(used.0.len(), 1);
    }
}
