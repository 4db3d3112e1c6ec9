//! RTP headers in and out: the only door of `rtp-rs` (RFC 3550 §5.1).

use heapless::Vec;
use rtp_rs::{RtpPacketBuilder, RtpReader, RtpReaderError, Seq};

/// The length of an RTP header without contributing sources and extensions.
pub const HEADER: usize = 12;

/// Why a datagram is neither RTP nor RTCP. The caller drops it and may count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotRtp {
    /// Fewer bytes than its own header says it has.
    Short {
        /// How long it is.
        length: usize,
    },
    /// The version field is not 2: STUN, DTLS or noise.
    Version(u8),
    /// The padding it declares is longer than the packet, or zero.
    Padding(u8),
    /// An RTCP packet whose fields contradict its length.
    Rtcp,
}

impl std::fmt::Display for NotRtp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NotRtp::Short { length } => write!(f, "not RTP: cut short at {length} bytes"),
            NotRtp::Version(version) => write!(f, "not RTP: version {version}, expected 2"),
            NotRtp::Padding(length) => write!(f, "not RTP: {length} bytes of padding do not fit"),
            NotRtp::Rtcp => write!(f, "not RTCP: its length field contradicts its content"),
        }
    }
}

impl std::error::Error for NotRtp {}

/// One RTP packet as read: the fields that are used, and the payload without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Synchronisation source.
    pub ssrc: u32,
    /// Payload type, 0..=127.
    pub payload_type: u8,
    /// The marker bit.
    pub marker: bool,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp in units of the payload's clock.
    pub timestamp: u32,
    /// What it carries.
    pub payload: &'a [u8],
}

/// Reads one datagram.
///
/// # Errors
/// The datagram is not an RTP packet of version 2.
pub fn read(datagram: &[u8]) -> Result<Packet<'_>, NotRtp> {
    let reader = RtpReader::new(datagram).map_err(|error| match error {
        RtpReaderError::BufferTooShort(length) => NotRtp::Short { length },
        RtpReaderError::UnsupportedVersion(version) => NotRtp::Version(version),
        RtpReaderError::HeadersTruncated { buffer_len, .. } => NotRtp::Short { length: buffer_len },
        RtpReaderError::PaddingLengthInvalid(length) => NotRtp::Padding(length),
    })?;
    Ok(Packet {
        ssrc: reader.ssrc(),
        payload_type: reader.payload_type(),
        marker: reader.mark(),
        sequence: reader.sequence_number().into(),
        timestamp: reader.timestamp(),
        payload: reader.payload(),
    })
}

/// Writes one packet as a datagram; `None` if it does not fit into `N` bytes.
pub fn write<const N: usize>(packet: &Packet<'_>) -> Option<Vec<u8, N>> {
    let mut datagram = Vec::new();
    datagram.resize(HEADER + packet.payload.len(), 0).ok()?;
    RtpPacketBuilder::new()
        .payload_type(packet.payload_type & 0x7F)
        .marked(packet.marker)
        .sequence(Seq::from(packet.sequence))
        .timestamp(packet.timestamp)
        .ssrc(packet.ssrc)
        .payload(packet.payload)
        .build_into(&mut datagram)
        .ok()?;
    Some(datagram)
}

/// Whether a datagram on a shared port is RTCP: packet types 192 to 223 (RFC 5761 §4).
pub fn is_rtcp(datagram: &[u8]) -> bool {
    datagram.get(1).is_some_and(|kind| (192..=223).contains(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            ssrc: u32, payload_type in 0u8..128, marker: bool, sequence: u16, timestamp: u32,
            payload in proptest::collection::vec(any::<u8>(), 0..180),
        ) {
            let packet = Packet { ssrc, payload_type, marker, sequence, timestamp, payload: &payload };
            let datagram: Vec<u8, 192> = write(&packet).unwrap();
            prop_assert_eq!(read(&datagram).unwrap(), packet);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(&bytes);
            let mut looks_right = bytes;
            if let Some(first) = looks_right.first_mut() {
                *first = (*first & 0x3F) | 0x80;
            }
            let _ = read(&looks_right);
        }
    }

    #[test]
    fn a_packet_that_does_not_fit_is_refused_not_cut() {
        let payload = [0u8; 181];
        let packet =
            Packet { ssrc: 1, payload_type: 0, marker: false, sequence: 1, timestamp: 1, payload: &payload };
        assert_eq!(write::<192>(&packet), None);
    }

    #[test]
    fn stun_and_dtls_on_the_media_port_are_named_as_not_rtp() {
        assert_eq!(read(&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 0, 0, 0, 0]), Err(NotRtp::Version(0)));
        assert_eq!(read(&[22, 254]), Err(NotRtp::Short { length: 2 }));
    }

    #[test]
    fn rtcp_on_the_media_port_is_recognised() {
        assert!(is_rtcp(&[0x80, 200]));
        assert!(!is_rtcp(&[0x80, 0x80]));
        assert!(!is_rtcp(&[0x80, 126]));
    }
}
