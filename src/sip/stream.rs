//! SIP on a stream (RFC 3261 §18.3): bytes in, whole messages and keep-alives (RFC 5626 §4.4.1) out.

use super::wire::LONGEST;

/// What a stream holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// One message, from its start line to the end of its body.
    Message(Vec<u8>),
    /// A double CRLF between messages: the other side wants a single one back.
    Ping,
}

/// Why a stream can't be read on: where the next message would begin is not known, so the connection must go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Garbage {
    /// It does not begin as SIP does.
    NotSip,
    /// It begins as TLS does: the other side speaks TLS where we don't.
    Tls,
    /// Longer than 16 KiB.
    TooLong,
    /// Content-Length is no number, or there are several that differ.
    Length,
}

impl std::fmt::Display for Garbage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Garbage::NotSip => "what came is not SIP",
            Garbage::Tls => "the peer speaks TLS on a port for plain TCP",
            Garbage::TooLong => "a message was longer than 16 KiB",
            Garbage::Length => "a message had no usable Content-Length",
        })
    }
}

impl std::error::Error for Garbage {}

/// Cuts one direction of one connection. Holds at most one message and what was pushed with its end.
#[derive(Debug, Default)]
pub struct Framer {
    held: Vec<u8>,
    /// Bytes of `held` in which the end of the header section is known not to be.
    searched: usize,
    /// The length of header section and body together, once the header section is whole.
    whole: Option<usize>,
    /// Ends of line since the last message or ping: none or one.
    blank: bool,
    /// Why nothing more can be read.
    lost: Option<Garbage>,
}

impl Framer {
    /// A stream at its beginning.
    pub fn new() -> Framer {
        Framer::default()
    }

    /// Takes what was read. To be followed by [`Framer::piece`] until there is none.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.lost.is_none() {
            self.held.extend_from_slice(bytes);
        }
    }

    /// The next piece that is whole; `None`: more has to be read.
    ///
    /// # Errors
    /// The stream is lost, the connection has to be closed. Every later call says the same.
    pub fn piece(&mut self) -> Result<Option<Piece>, Garbage> {
        if let Some(garbage) = self.lost {
            return Err(garbage);
        }
        let piece = self.next();
        if let Err(garbage) = piece {
            self.lost = Some(garbage);
            self.held = Vec::new();
        }
        piece
    }

    fn next(&mut self) -> Result<Option<Piece>, Garbage> {
        if self.searched == 0 && self.between() {
            return Ok(Some(Piece::Ping));
        }
        let Some(&first) = self.held.first() else { return Ok(None) };
        if !is_token(first) {
            return Err(if first == 0x16 { Garbage::Tls } else { Garbage::NotSip });
        }
        let whole = match self.whole {
            Some(whole) => whole,
            None => match self.header_section()? {
                Some(whole) => whole,
                None => return Ok(None),
            },
        };
        self.whole = Some(whole);
        if self.held.len() < whole {
            return Ok(None);
        }
        let rest = self.held.split_off(whole);
        let message = std::mem::replace(&mut self.held, rest);
        (self.searched, self.whole, self.blank) = (0, None, false);
        Ok(Some(Piece::Message(message)))
    }

    /// Whether a message has begun and is not whole.
    pub fn is_amid(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes back a single CRLF at the end of what was read: true if there was one. It is the answer to a ping of
    /// ours; or half a ping, if its other half comes at once; or the habit of a peer to end its messages so.
    pub fn take_single(&mut self) -> bool {
        self.held.is_empty() && std::mem::take(&mut self.blank)
    }

    /// Leaves out the ends of line between messages; true at the second in a row.
    fn between(&mut self) -> bool {
        let mut gone = 0;
        let mut ping = false;
        for byte in &self.held {
            match byte {
                b'\r' => {}
                b'\n' if self.blank => (self.blank, ping) = (false, true),
                b'\n' => self.blank = true,
                _ => break,
            }
            gone += 1;
            if ping {
                break;
            }
        }
        self.held.drain(..gone);
        ping
    }

    /// Searches the empty line, and gives the length of the whole message by what stands before it.
    fn header_section(&mut self) -> Result<Option<usize>, Garbage> {
        while let Some(at) = self.held.iter().skip(self.searched).position(|byte| *byte == b'\n') {
            let end = self.searched + at;
            let line = self.held.get(self.searched..end).unwrap_or_default();
            if self.searched == 0 && !is_start(line) {
                return Err(Garbage::NotSip);
            }
            let empty = matches!(line, b"" | b"\r");
            self.searched = end + 1;
            if empty {
                let section = self.held.get(..self.searched).unwrap_or_default();
                let whole = section.len() + body_length(section)?;
                return if whole > LONGEST { Err(Garbage::TooLong) } else { Ok(Some(whole)) };
            }
            if self.searched > LONGEST {
                return Err(Garbage::TooLong);
            }
        }
        // The search goes on at the beginning of the line that is not whole.
        if self.held.len() > LONGEST { Err(Garbage::TooLong) } else { Ok(None) }
    }
}

/// What a method may consist of (RFC 3261 §25.1, `token`).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte)
}

/// Whether a line can be the first of a SIP message: its version stands at its beginning or its end.
fn is_start(line: &[u8]) -> bool {
    line.to_ascii_uppercase().windows(4).any(|part| part == b"SIP/")
}

/// Content-Length, also as `l`, folded, and in any case (RFC 3261 §7.3, §20.14). Without one there is no body.
fn body_length(section: &[u8]) -> Result<usize, Garbage> {
    let mut found: Option<usize> = None;
    let mut value: Option<Vec<u8>> = None;
    let mut take = |value: Option<Vec<u8>>| {
        let Some(value) = value else { return Ok(()) };
        let digits = value.trim_ascii();
        let fit = !digits.is_empty() && digits.len() <= 10 && digits.iter().all(u8::is_ascii_digit);
        let length = std::str::from_utf8(digits).ok().filter(|_| fit).and_then(|digits| digits.parse().ok());
        match (length, found) {
            (None, _) => Err(Garbage::Length),
            (Some(length), Some(before)) if length != before => Err(Garbage::Length),
            (Some(length), _) if length > LONGEST => Err(Garbage::TooLong),
            (Some(length), _) => {
                found = Some(length);
                Ok(())
            }
        }
    };
    for line in section.split(|byte| *byte == b'\n').skip(1) {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            if let Some(value) = &mut value {
                value.extend_from_slice(line);
            }
            continue;
        }
        take(value.take())?;
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (name, rest) = (parts.next().unwrap_or_default().trim_ascii(), parts.next());
        if name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"l") {
            value = rest.map(<[u8]>::to_vec);
        }
    }
    take(value)?;
    Ok(found.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INVITE: &str = "INVITE sip:a@b SIP/2.0\r\nVia: x\r\nContent-Length: 4\r\n\r\nv=0\n";
    const BYE: &str = "BYE sip:a@b SIP/2.0\r\nl : 0\r\n\r\n";
    const FOLDED: &str = "SIP/2.0 200 OK\r\ncontent-LENGTH:\r\n  3\r\nX: y\r\n\r\n\r\n\r";
    const BARE: &str = "OPTIONS sip:a SIP/2.0\nCONTENT-length:2\n\nok";
    const ODD: &str = "!odd-Method sip:a SIP/2.0\r\nSubject: Content-Length: 9\r\n\r\n";

    /// Everything, in pieces of these sizes.
    fn cut(stream: &[u8], sizes: &[usize]) -> Result<Vec<Piece>, Garbage> {
        let mut framer = Framer::new();
        let (mut pieces, mut rest) = (Vec::new(), stream);
        let mut sizes = sizes.iter().cycle();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(*sizes.next().unwrap_or(&1)));
            framer.push(now);
            while let Some(piece) = framer.piece()? {
                pieces.push(piece);
            }
            rest = later;
        }
        assert!(!framer.is_amid(), "something is left over");
        Ok(pieces)
    }

    fn message(text: &str) -> Piece {
        Piece::Message(text.as_bytes().to_vec())
    }

    #[test]
    fn messages_are_told_apart_by_their_content_length_however_it_is_written() {
        let stream = [INVITE, BYE, FOLDED, BARE, ODD].concat();
        let all = [INVITE, BYE, FOLDED, BARE, ODD].map(message).to_vec();
        assert_eq!(cut(stream.as_bytes(), &[10_000]), Ok(all));
    }

    #[test]
    fn a_double_crlf_between_messages_is_a_ping_and_a_single_one_is_not() {
        let stream = format!("\r\n\r\n{BYE}\r\n{INVITE}\r\n\r\n\r\n\r\n{BYE}");
        let pieces = cut(stream.as_bytes(), &[10_000]).unwrap();
        let ping = Piece::Ping;
        assert_eq!(pieces, [ping.clone(), message(BYE), message(INVITE), ping.clone(), ping, message(BYE)]);
    }

    #[test]
    fn two_answers_to_our_pings_are_no_ping_of_the_peers() {
        let mut framer = Framer::new();
        for _ in 0..2 {
            framer.push(b"\r\n");
            assert_eq!(framer.piece(), Ok(None));
            assert!(framer.take_single(), "the answer");
            assert!(!framer.take_single(), "there was one");
        }
        framer.push(b"\r\n\r\n");
        assert_eq!(framer.piece(), Ok(Some(Piece::Ping)));
        assert!(!framer.take_single());
    }

    #[test]
    fn what_is_not_sip_ends_the_stream_with_a_reason() {
        for (stream, why) in [
            (&b"GET / HTTP/1.1\r\n"[..], Garbage::NotSip),
            (b"\x16\x03\x01\x02", Garbage::Tls),
            (b"\0\0\0\0", Garbage::NotSip),
            (b"BYE sip:a SIP/2.0\r\nContent-Length: -1\r\n\r\n", Garbage::Length),
            (b"BYE sip:a SIP/2.0\r\nContent-Length: \r\n\r\n", Garbage::Length),
            (b"BYE sip:a SIP/2.0\r\nContent-Length: 1\r\nl: 2\r\n\r\n", Garbage::Length),
            (b"BYE sip:a SIP/2.0\r\nContent-Length: 16400\r\n\r\n", Garbage::TooLong),
            (b"BYE sip:a SIP/2.0\r\nContent-Length: 99999999999999999999\r\n\r\n", Garbage::Length),
        ] {
            for size in [1, 3, 1_000] {
                assert_eq!(cut(stream, &[size]), Err(why), "{}", String::from_utf8_lossy(stream));
            }
        }
    }

    #[test]
    fn a_lost_stream_stays_lost_and_keeps_nothing() {
        let mut framer = Framer::new();
        framer.push(b"BYE sip:a SIP/2.0\nl: 1\nContent-Length: 2\n\n");
        assert_eq!(framer.piece(), Err(Garbage::Length));
        framer.push(BYE.as_bytes());
        assert_eq!(framer.piece(), Err(Garbage::Length));
        assert!(!framer.is_amid());
    }

    #[test]
    fn a_message_that_never_ends_is_held_to_a_limit() {
        let mut framer = Framer::new();
        framer.push(b"BYE sip:a SIP/2.0\r\n");
        let mut said = Ok(None);
        for _ in 0..LONGEST {
            framer.push(b"X: y\r\n");
            said = framer.piece();
            if said.is_err() {
                break;
            }
        }
        assert_eq!(said, Err(Garbage::TooLong));
        assert_eq!(framer.piece(), Err(Garbage::TooLong), "it stays lost");
        assert!(framer.held.len() <= LONGEST + 10);

        let mut framer = Framer::new();
        framer.push(&vec![b'A'; LONGEST + 1]);
        assert_eq!(framer.piece(), Err(Garbage::TooLong), "a line without an end");
    }

    proptest! {
        #[test]
        fn any_cut_of_a_stream_gives_the_same_pieces(
            which in proptest::collection::vec(0_usize..7, 0..12),
            sizes in proptest::collection::vec(1_usize..40, 1..20),
        ) {
            let parts = [INVITE, BYE, FOLDED, BARE, ODD, "\r\n\r\n", "\r\n"];
            let stream: String = which.iter().filter_map(|index| parts.get(*index).copied()).collect();
            let whole = cut(stream.as_bytes(), &[stream.len().max(1)]);
            prop_assert_eq!(cut(stream.as_bytes(), &sizes), whole);
        }

        #[test]
        fn random_bytes_never_panic_and_never_grow(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
        ) {
            let mut framer = Framer::new();
            for chunk in chunks {
                framer.push(&chunk);
                loop {
                    match framer.piece() {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => return Ok(()),
                    }
                }
                prop_assert!(framer.held.len() <= LONGEST);
            }
        }
    }
}
