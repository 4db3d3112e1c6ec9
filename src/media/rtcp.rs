//! RTCP on the PBX's leg: sender and receiver reports, SDES with a CNAME, BYE (RFC 3550 §6).

use super::quality::Receipt;
use super::rtp::NotRtp;
use heapless::Vec;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const DESCRIPTION: u8 = 202;
const BYE: u8 = 203;
/// Reports that are read from one compound packet; a PBX sends one or two.
const MOST: usize = 8;

/// What one compound packet said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// A sender report: whose, and the middle 32 bits of its NTP time.
    Sender {
        /// Who sends.
        ssrc: u32,
        /// To be sent back as LSR.
        stamp: u32,
    },
    /// A report block: how a stream was received.
    Receipt {
        /// Whose stream.
        about: u32,
        /// Lost since the report before, in 1/256.
        fraction: u8,
        /// Lost in all, signed: what came twice counts against it.
        lost: i32,
        /// The middle 32 bits of the NTP time of the last sender report that was received.
        last_report: u32,
        /// How long ago that was, in 1/65536 s.
        delay: u32,
    },
    /// The source leaves.
    Bye {
        /// Who leaves.
        ssrc: u32,
    },
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_be_bytes(four))
}

/// Reads a compound packet; unknown kinds are passed over, and what exceeds `MOST` is left out.
///
/// # Errors
/// The first packet is not RTCP of version 2, or a length field points outside the datagram.
pub fn read(datagram: &[u8]) -> Result<Vec<Report, MOST>, NotRtp> {
    let mut reports = Vec::new();
    let mut rest = datagram;
    if rest.len() < 8 {
        return Err(NotRtp::Short { length: rest.len() });
    }
    while !rest.is_empty() {
        let [first, kind, high, low, ..] = *rest else { return Err(NotRtp::Rtcp) };
        if first >> 6 != 2 {
            return Err(if rest.len() == datagram.len() {
                NotRtp::Version(first >> 6)
            } else {
                NotRtp::Rtcp
            });
        }
        if !(192..=223).contains(&kind) {
            return Err(NotRtp::Rtcp);
        }
        let length = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
        let Some((packet, after)) = rest.split_at_checked(length) else { return Err(NotRtp::Rtcp) };
        rest = after;
        read_one(first & 31, kind, packet, &mut reports);
    }
    Ok(reports)
}

fn read_one(count: u8, kind: u8, packet: &[u8], reports: &mut Vec<Report, MOST>) {
    let blocks_at = match kind {
        SENDER_REPORT => {
            if let (Some(ssrc), Some(high), Some(low)) = (word(packet, 4), word(packet, 8), word(packet, 12))
            {
                let _ = reports.push(Report::Sender { ssrc, stamp: (high << 16) | (low >> 16) });
            }
            28
        }
        RECEIVER_REPORT => 8,
        BYE => {
            if let (Some(ssrc), true) = (word(packet, 4), count > 0) {
                let _ = reports.push(Report::Bye { ssrc });
            }
            return;
        }
        _ => return,
    };
    for block in 0..usize::from(count) {
        let at = blocks_at + 24 * block;
        let (Some(about), Some(losses), Some(last_report), Some(delay)) =
            (word(packet, at), word(packet, at + 4), word(packet, at + 16), word(packet, at + 20))
        else {
            return;
        };
        let fraction = (losses >> 24) as u8;
        // 24 bits with their sign.
        let lost = ((losses << 8) as i32) >> 8;
        let _ = reports.push(Report::Receipt { about, fraction, lost, last_report, delay });
    }
}

/// What we have sent, for a sender report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The present time as NTP (seconds since 1900, 32.32).
    pub ntp: u64,
    /// The same moment on the RTP clock.
    pub timestamp: u32,
    /// Packets since the beginning.
    pub packets: u32,
    /// Payload bytes since the beginning.
    pub octets: u32,
}

/// Writes a compound packet: SR (or RR if nothing was sent), one report block if something was
/// received, and SDES with the CNAME. `None` if it does not fit.
///
/// `last_report` is the stamp of the last sender report that came, and how long ago (1/65536 s).
pub fn write<const N: usize>(
    ssrc: u32,
    sent: Option<Sent>,
    receipt: Option<Receipt>,
    last_report: Option<(u32, u32)>,
    cname: &str,
    out: &mut Vec<u8, N>,
) -> Option<()> {
    out.clear();
    let blocks = u8::from(receipt.is_some());
    let words = 1 + 5 * u16::from(sent.is_some()) + 6 * u16::from(blocks);
    let kind = if sent.is_some() { SENDER_REPORT } else { RECEIVER_REPORT };
    out.extend_from_slice(&[0x80 | blocks, kind]).ok()?;
    out.extend_from_slice(&words.to_be_bytes()).ok()?;
    out.extend_from_slice(&ssrc.to_be_bytes()).ok()?;
    if let Some(sent) = sent {
        out.extend_from_slice(&sent.ntp.to_be_bytes()).ok()?;
        for value in [sent.timestamp, sent.packets, sent.octets] {
            out.extend_from_slice(&value.to_be_bytes()).ok()?;
        }
    }
    if let Some(receipt) = receipt {
        let losses = (u32::from(receipt.fraction) << 24) | (receipt.lost as u32 & 0x00FF_FFFF);
        let (stamp, delay) = last_report.unwrap_or((0, 0));
        for value in [receipt.ssrc, losses, receipt.highest, receipt.jitter, stamp, delay] {
            out.extend_from_slice(&value.to_be_bytes()).ok()?;
        }
    }
    // SDES: one chunk, item 1 (CNAME), then one to four zero bytes up to the next word.
    let name = cname.as_bytes().get(..cname.len().min(64))?;
    let item = 4 + 2 + name.len();
    let padded = item / 4 * 4 + 4;
    out.extend_from_slice(&[0x81, DESCRIPTION]).ok()?;
    out.extend_from_slice(&((padded / 4) as u16).to_be_bytes()).ok()?;
    out.extend_from_slice(&ssrc.to_be_bytes()).ok()?;
    out.extend_from_slice(&[1, name.len() as u8]).ok()?;
    out.extend_from_slice(name).ok()?;
    for _ in item..padded {
        out.push(0).ok()?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RECEIPT: Receipt = Receipt { ssrc: 7, fraction: 25, lost: -3, highest: 0x1_0005, jitter: 12 };

    #[test]
    fn a_sender_report_has_the_layout_of_the_standard() {
        let mut out: Vec<u8, 256> = Vec::new();
        let sent = Sent { ntp: 0x0102_0304_0506_0708, timestamp: 9, packets: 10, octets: 11 };
        write(0xAABB_CCDD, Some(sent), Some(RECEIPT), Some((0x1234, 0x8000)), "wat", &mut out).unwrap();
        assert_eq!(&out[..4], [0x81, 200, 0, 12]);
        assert_eq!(&out[4..8], [0xAA, 0xBB, 0xCC, 0xDD]);
        assert_eq!(&out[8..16], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(&out[32..36], [25, 0xFF, 0xFF, 0xFD], "cumulative loss is signed, 24 bits");
        // SDES: chunk of SSRC, CNAME "wat" and padding, in whole words.
        assert_eq!(&out[52..], [0x81, 202, 0, 3, 0xAA, 0xBB, 0xCC, 0xDD, 1, 3, b'w', b'a', b't', 0, 0, 0]);
        assert_eq!(out.len() % 4, 0);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut out: Vec<u8, 256> = Vec::new();
        write(1, None, Some(RECEIPT), Some((0x1234, 0x8000)), "name@host", &mut out).unwrap();
        let reports = read(&out).unwrap();
        let expected =
            Report::Receipt { about: 7, fraction: 25, lost: -3, last_report: 0x1234, delay: 0x8000 };
        assert_eq!(reports.as_slice(), [expected]);
        let sent = Sent { ntp: 0x0102_0304_0506_0708, timestamp: 9, packets: 10, octets: 11 };
        write(1, Some(sent), None, None, "n", &mut out).unwrap();
        assert_eq!(read(&out).unwrap().as_slice(), [Report::Sender { ssrc: 1, stamp: 0x0304_0506 }]);
    }

    #[test]
    fn the_list_of_items_ends_with_a_zero_whatever_the_length_of_the_name() {
        for cname in ["a", "ab", "abc", "abcd"] {
            let mut out: Vec<u8, 256> = Vec::new();
            write(1, None, None, None, cname, &mut out).unwrap();
            // RR of two words, then SDES: header, SSRC, CNAME item, zeros.
            let zeros = &out[8 + 8 + 2 + cname.len()..];
            assert!(
                (1..=4).contains(&zeros.len()) && zeros.iter().all(|zero| *zero == 0),
                "{cname}: {zeros:?}"
            );
            let words = usize::from(u16::from_be_bytes([out[10], out[11]]));
            assert_eq!(out.len(), 8 + 4 * (words + 1), "{cname}");
        }
    }

    #[test]
    fn a_bye_is_heard() {
        assert_eq!(read(&[0x81, 203, 0, 1, 0, 0, 0, 9]).unwrap().as_slice(), [Report::Bye { ssrc: 9 }]);
    }

    #[test]
    fn a_length_that_points_outside_is_refused() {
        assert_eq!(read(&[0x80, 201, 0, 9, 0, 0, 0, 1]), Err(NotRtp::Rtcp));
        assert_eq!(read(&[0, 1, 0, 0, 0, 0, 0, 0]), Err(NotRtp::Version(0)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..120), count in 0u8..32, kind in 195u8..210
        ) {
            let _ = read(&bytes);
            if bytes.len() >= 4 {
                let words = (bytes.len() / 4 - 1) as u16;
                bytes.truncate(bytes.len() / 4 * 4);
                bytes[0] = 0x80 | count;
                bytes[1] = kind;
                bytes[2..4].copy_from_slice(&words.to_be_bytes());
                let _ = read(&bytes);
            }
        }
    }
}
