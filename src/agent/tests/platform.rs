//! The dialects where we are the telephone platform and dial the agent.

use serde_json::json;

use super::harness::{Call, base64, l16, session, unbase64};
use crate::agent::{AgentEvent, Leg, Message, account_sid, call_sid};
use crate::call::Direction;
use crate::media::g711;

/// A frame that is not silence and differs from sample to sample.
fn ramp(samples: usize) -> Vec<i16> {
    (0..samples).map(|at| (at as i16).wrapping_mul(37) % 9_000 + 300).collect()
}

fn coded(samples: &[i16]) -> Vec<u8> {
    samples.iter().map(|sample| g711::to_pcmu(*sample)).collect()
}

/// The same samples after µ-law.
fn worn(samples: &[i16]) -> Vec<i16> {
    samples.iter().map(|sample| g711::from_pcmu(g711::to_pcmu(*sample))).collect()
}

#[test]
fn twilio_hears_connected_then_start_before_anything_else() {
    let mut call = Call::new("twilio", Direction::Inbound);
    call.connected();
    let told = call.told();
    assert_eq!(told[0], json!({"event": "connected", "protocol": "Call", "version": "1.0.0"}));
    let stream = told[1]["streamSid"].as_str().unwrap().to_owned();
    assert!(stream.len() == 34 && stream.starts_with("MZ"));
    assert_eq!(
        told[1],
        json!({"event": "start", "sequenceNumber": "1", "streamSid": stream, "start": {
            "accountSid": account_sid("AC00000000000000000000000000000001"), "streamSid": stream,
            "callSid": call_sid("CAff00ff00ff00ff00ff00ff00ff00ff00"), "tracks": ["inbound"],
            "customParameters": {"from_number": "+15550100200", "to_number": "+15550100100", "direction": "inbound",
                "call_id": "CAff00ff00ff00ff00ff00ff00ff00ff00", "wacid": "wacid.HBgL", "channel": "whatsapp",
                "shop": "Nord \"7\""},
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}}})
    );
    assert_eq!(told.len(), 2);
    assert_eq!(call.events, [AgentEvent::Ready]);
}

#[test]
fn twilio_counts_messages_chunks_and_milliseconds_as_text() {
    let mut call = Call::talking("twilio");
    call.pass(1_000);
    for _ in 0..3 {
        call.heard(&ramp(160));
        call.pass(20);
    }
    let told = call.told();
    for (at, message) in told.iter().enumerate() {
        assert_eq!(message["event"], "media");
        assert_eq!(message["sequenceNumber"], (at + 2).to_string());
        assert_eq!(message["media"]["chunk"], (at + 1).to_string());
        assert_eq!(message["media"]["timestamp"], (1_000 + at * 20).to_string());
        assert_eq!(message["media"]["track"], "inbound");
        assert_eq!(unbase64(message["media"]["payload"].as_str().unwrap()), coded(&ramp(160)));
    }
    assert_eq!(told.len(), 3);
    call.digit('#', 120);
    call.end();
    let told = call.told();
    assert_eq!(told[0]["dtmf"], json!({"track": "inbound_track", "digit": "#"}));
    assert_eq!(told[1]["stop"]["callSid"], call_sid("CAff00ff00ff00ff00ff00ff00ff00ff00"));
    assert_eq!(told[1]["sequenceNumber"], "6");
    assert!(call.closed);
}

#[test]
fn the_shape_of_twilio_and_its_kin_is_played_marked_and_cleared() {
    for dialect in ["twilio", "telnyx"] {
        let mut call = Call::talking(dialect);
        call.say(
            json!({"event": "media", "streamSid": "wrong", "media": {"payload": base64(&coded(&ramp(320)))}}),
        );
        call.say(json!({"event": "mark", "mark": {"name": "one"}}));
        assert_eq!(call.tick().unwrap(), worn(&ramp(320))[..160]);
        assert!(call.told().is_empty(), "{dialect}: the mark was not played yet");
        assert_eq!(call.tick().unwrap(), worn(&ramp(320))[160..]);
        assert_eq!(call.told()[0]["mark"]["name"], "one");
        call.say(json!({"event": "media", "media": {"payload": base64(&[0x12; 8_000])}}));
        call.say(json!({"event": "mark", "mark": {"name": "two"}}));
        call.say(json!({"event": "mark", "mark": {"name": "three"}}));
        call.tick().unwrap();
        call.say(json!({"event": "clear", "streamSid": "wrong"}));
        let names: Vec<_> = call.told().iter().map(|mark| mark["mark"]["name"].clone()).collect();
        assert_eq!(names, ["two", "three"], "{dialect}");
        assert!(call.tick().is_none());
        assert_eq!(call.leg.summary().barge_ins, 1);
    }
}

#[test]
fn telnyx_is_known_by_its_stream_id_and_call_control_id() {
    let mut call = Call::new("telnyx", Direction::Inbound);
    call.connected();
    call.answered();
    let told = call.told();
    assert_eq!(told[0], json!({"event": "connected", "version": "1.0.0"}));
    assert_eq!(told[1]["sequence_number"], "1");
    assert_eq!(told[1]["stream_id"].as_str().unwrap().len(), 36);
    let start = &told[1]["start"];
    assert_eq!(start["call_control_id"], "CAff00ff00ff00ff00ff00ff00ff00ff00");
    assert_eq!(start["media_format"], json!({"encoding": "PCMU", "sample_rate": 8000, "channels": 1}));
    assert_eq!((&start["from"], &start["to"]), (&json!("+15550100200"), &json!("+15550100100")));
    call.heard(&ramp(160));
    call.digit('5', 100);
    call.end();
    let told = call.told();
    assert_eq!(told[0]["media"]["chunk"], "1");
    assert_eq!(unbase64(told[0]["media"]["payload"].as_str().unwrap()), coded(&ramp(160)));
    assert_eq!(told[1]["dtmf"]["digit"], "5");
    assert_eq!(told[2]["event"], "stop");
}

#[test]
fn raw_pcm_is_binary_both_ways_and_its_control_is_optional() {
    for (dialect, samples) in [("pcm16", 320), ("pcm16-8000", 160), ("pcm16-24000", 480)] {
        let mut call = Call::new(dialect, Direction::Inbound);
        call.connected();
        assert!(call.sent.is_empty(), "{dialect}: an agent that knows only sound hears nothing else");
        assert_eq!(call.events, [AgentEvent::Ready]);
        call.answered();
        call.heard(&ramp(samples));
        assert_eq!(call.bytes(), [l16(&ramp(samples))]);
        call.binary(&l16(&ramp(samples * 2)));
        assert_eq!(call.play(), ramp(samples * 2));
    }
    let mut call = Call::talking("pcm16");
    call.say(json!({"type": "ping", "event_id": 42}));
    assert_eq!(call.told(), [json!({"type": "pong", "event_id": 42})]);
    call.binary(&l16(&ramp(1_000)));
    call.say(json!({"type": "mark", "name": "m"}));
    call.say(json!({"type": "clear"}));
    assert_eq!(call.told(), [json!({"type": "mark", "name": "m"})]);
    call.say(json!({"type": "transfer", "to": "+15550100300"}));
    call.say(json!({"type": "transfer", "to": "sip:200@pbx>\r\nX: y"}));
    assert_eq!(call.events, [AgentEvent::Transfer("tel:+15550100300".into())]);
    call.digit('1', 90);
    call.end();
    assert_eq!(call.told()[0], json!({"type": "dtmf", "digit": "1", "duration_ms": 90}));
}

#[test]
fn a_raw_rate_that_opus_does_not_have_is_converted_both_ways() {
    let mut call = Call::talking("pcm16-44100");
    assert_eq!(call.leg.rate(), 24_000);
    for _ in 0..50 {
        call.heard(&[4_000; 480]);
    }
    let bytes = call.bytes();
    assert!(bytes.iter().all(|packet| packet.len() == 1_764), "20 ms at 44.1 kHz");
    assert!((48..=50).contains(&bytes.len()));
    call.binary(&l16(&[4_000; 44_100]));
    let played = call.play();
    assert!((23_400..=24_480).contains(&played.len()), "{} samples", played.len());
    assert!(played[1_000..20_000].iter().all(|sample| (3_950..=4_050).contains(sample)));
}

#[test]
fn an_application_for_asterisk_gets_media_start_and_can_do_what_it_could_there() {
    let mut call = Call::new("asterisk", Direction::Inbound);
    call.connected();
    let start = call.told().remove(0);
    assert_eq!(start["event"], "MEDIA_START");
    assert_eq!(start["format"], "slin16");
    assert_eq!((&start["optimal_frame_size"], &start["ptime"]), (&json!(640), &json!(20)));
    assert_eq!(start["channel_variables"]["from_number"], "+15550100200");
    call.answered();
    call.heard(&ramp(320));
    assert_eq!(call.bytes(), [l16(&ramp(320))]);
    call.digit('9', 100);
    let told = call.told();
    assert_eq!((&told[0]["event"], &told[0]["digit"]), (&json!("DTMF_END"), &json!("9")));

    call.say(json!({"command": "START_MEDIA_BUFFERING"}));
    call.binary(&l16(&ramp(640)));
    call.say(json!({"command": "MARK_MEDIA", "correlation_id": "a"}));
    call.say(json!({"command": "STOP_MEDIA_BUFFERING", "correlation_id": "b"}));
    call.text("REPORT_QUEUE_DRAINED");
    call.say(json!({"command": "GET_STATUS"}));
    assert_eq!(call.told()[0]["queue_length"], 2);
    call.say(json!({"command": "PAUSE_MEDIA"}));
    assert!(call.tick().is_none());
    call.say(json!({"command": "CONTINUE_MEDIA"}));
    assert_eq!(call.play(), ramp(640));
    let told = call.told();
    let events: Vec<_> = told.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["MEDIA_MARK_PROCESSED", "MEDIA_BUFFERING_COMPLETED", "QUEUE_DRAINED"]);
    assert_eq!((&told[0]["correlation_id"], &told[1]["correlation_id"]), (&json!("a"), &json!("b")));

    // 20 s at once: told to stop at 18 s, and to go on below 16 s.
    for _ in 0..20 {
        call.binary(&l16(&ramp(16_000)));
    }
    assert_eq!(call.told()[0]["event"], "MEDIA_XOFF");
    for _ in 0..205 {
        call.tick().unwrap();
    }
    assert_eq!(call.told()[0]["event"], "MEDIA_XON");
    call.say(json!({"command": "FLUSH_MEDIA"}));
    assert!(call.tick().is_none());
    call.say(json!({"command": "HANGUP"}));
    assert!(matches!(call.events.last(), Some(AgentEvent::HungUp(_))) && call.closed);
}

#[test]
fn a_real_asterisk_is_spoken_to_as_its_application_in_its_own_codec() {
    let plain = "MEDIA_START connection_id:media/32966726 channel:WebSocket/32966726/0xffff channel_id:1750872500.1 \
                 format:ulaw optimal_frame_size:160 ptime:20";
    let json = json!({"event": "MEDIA_START", "channel_id": "1", "format": "ulaw", "ptime": 20}).to_string();
    for (start, answer, hang_up) in
        [(plain, "ANSWER", "HANGUP"), (&json, r#"{"command":"ANSWER"}"#, r#"{"command":"HANGUP"}"#)]
    {
        let mut call = Call::new("asterisk", Direction::Inbound);
        call.connected();
        call.text(start);
        call.sent.clear();
        call.answered();
        assert_eq!(call.sent, [Message::Text(answer.into())]);
        call.sent.clear();
        for _ in 0..10 {
            call.heard(&[1_000; 320]);
        }
        let packets = call.bytes();
        assert!(packets.len() >= 9 && packets.iter().all(|packet| packet.len() == 160));
        for _ in 0..10 {
            call.binary(&[g711::to_pcmu(1_000); 160]);
        }
        assert!(call.play().len() >= 2_800, "8 kHz became 16 kHz");
        call.end();
        assert_eq!(call.sent, [Message::Text(hang_up.into())]);
    }
}

#[test]
fn an_agent_that_closes_has_hung_up_and_one_that_never_came_has_failed() {
    let mut call = Call::talking("twilio");
    call.leg.closed("", call.now);
    let goodbye = AgentEvent::HungUp("the agent closed the connection".into());
    assert_eq!(call.leg.poll(), Some(crate::agent::LegOutput::Event(goodbye)));
    assert_eq!(call.leg.poll(), None);
    call.leg.end("too late", call.now);
    assert_eq!(call.leg.poll(), None);

    let mut leg = Leg::new(session("twilio", Direction::Inbound), call.now);
    leg.closed("connection refused", call.now);
    let reason = "the agent could not be reached: connection refused";
    assert_eq!(leg.poll(), Some(crate::agent::LegOutput::Event(AgentEvent::Failed(reason.into()))));
}

#[test]
fn telnyx_in_its_wide_codec_is_the_same_in_pcm16_at_16_khz() {
    let mut call = Call::new("telnyx-l16", Direction::Inbound);
    call.connected();
    let told = call.told();
    let format = &told[1]["start"]["media_format"];
    assert_eq!(*format, json!({"encoding": "L16", "sample_rate": 16000, "channels": 1}));
    call.answered();
    call.heard(&ramp(320));
    let told = call.told();
    assert_eq!(unbase64(told[0]["media"]["payload"].as_str().unwrap()), l16(&ramp(320)));
    // A chunk that ends in the middle of a sample.
    let bytes = l16(&ramp(640));
    for part in [&bytes[..333], &bytes[333..]] {
        call.say(json!({"event": "media", "media": {"payload": base64(part)}}));
    }
    assert_eq!(call.play(), ramp(640));
}

#[test]
fn the_way_in_is_signed_as_twilio_does_and_only_for_those_who_expect_it() {
    let mut session = session("twilio", Direction::Inbound);
    let url = "wss://bot.example.com/call?tenant=7";
    assert!(session.dialect.headers(&session, url).is_empty(), "nothing to sign with");
    session.auth_token = Some(crate::agent::Key::new("12345"));
    // openssl dgst -sha1 -hmac 12345 -binary | base64
    let signature = "rpe5lYGRQiAiw/8KUEJ+KaU8bfo=".to_owned();
    assert_eq!(session.dialect.headers(&session, url), [("x-twilio-signature".to_owned(), signature)]);
    session.dialect = "telnyx".parse().unwrap();
    assert!(session.dialect.headers(&session, url).is_empty());
}
