//! Datagrams on ports that anybody may send to: STUN as we and as our WebRTC stack read it, RTP, RTCP, and answers of a
//! name server.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use rtc_shared::marshal::Unmarshal;
use watrunk::{dns, media, stun};

fuzz_target!(|data: &[u8]| {
    if let Some(ufrag) = stun::local_ufrag(data) {
        assert!(data.windows(ufrag.len().max(1)).any(|part| part == ufrag.as_bytes()) || ufrag.is_empty());
    }
    let mut message = rtc_stun::message::Message::new();
    if message.unmarshal_binary(data).is_ok() {
        let _ = message.to_string();
    }
    if media::rtp::is_rtcp(data) {
        let _ = rtc_rtcp::packet::unmarshal(&mut BytesMut::from(data));
    } else if let Ok(packet) = media::rtp::read(data) {
        assert!(packet.payload.len() < data.len());
        let _ = rtc_rtp::Packet::unmarshal(&mut BytesMut::from(data));
    }
    for kind in [dns::Kind::A, dns::Kind::Aaaa, dns::Kind::Srv, dns::Kind::Naptr] {
        let Some(question) = dns::question(7, "_sip._udp.pbx.example", kind) else { continue };
        let _ = dns::reply(data, &question);
        // What begins as the answer to the question, with three records.
        let mut answer = [question.as_slice(), data].concat();
        answer[2] |= 0x80;
        answer[7] = 3;
        let reply = dns::reply(&answer, &question);
        assert!(reply.is_none_or(|reply| reply.records.len() <= 3));
    }
});
