//! More dialects where we are the telephone platform: Vonage, Plivo, Exotel, jambonz.

use serde_json::json;

use super::harness::{Call, base64, l16, session, unbase64};
use crate::agent::{AgentEvent, Dialect};
use crate::call::Direction;
use crate::media::g711;

fn ramp(samples: usize) -> Vec<i16> {
    (0..samples).map(|at| (at as i16).wrapping_mul(37) % 9_000 + 300).collect()
}

#[test]
fn vonage_names_its_sound_in_the_first_message_and_then_speaks_binary() {
    let mut call = Call::new("vonage", Direction::Inbound);
    call.connected();
    let first = call.told().remove(0);
    assert_eq!(first["event"], "websocket:connected");
    assert_eq!(first["content-type"], "audio/l16;rate=16000");
    assert_eq!((&first["from_number"], &first["shop"]), (&json!("+15550100200"), &json!("Nord \"7\"")));
    call.answered();
    call.heard(&ramp(320));
    assert_eq!(call.bytes(), [l16(&ramp(320))]);
    call.binary(&l16(&ramp(640)));
    call.say(json!({"action": "notify", "payload": {"step": 2}}));
    assert!(call.told().is_empty());
    assert_eq!(call.play(), ramp(640));
    assert_eq!(call.told(), [json!({"event": "websocket:notify", "payload": {"step": 2}})]);
    for clear in [json!({"action": "clear"}), json!({"event": "clearAudio"})] {
        call.binary(&l16(&ramp(3_200)));
        call.say(clear);
        assert!(call.tick().is_none());
        assert_eq!(call.told(), [json!({"event": "websocket:cleared"})]);
    }
    call.digit('7', 160);
    assert_eq!(call.told(), [json!({"event": "websocket:dtmf", "digit": "7", "duration": 160})]);
    call.end();
    assert!(call.sent.is_empty() && call.closed);
}

#[test]
fn plivo_starts_without_connected_and_has_its_own_words() {
    let mut call = Call::new("plivo", Direction::Inbound);
    call.connected();
    let first = call.told().remove(0);
    assert_eq!(first["event"], "start");
    assert_eq!(first["start"]["callId"], "CAff00ff00ff00ff00ff00ff00ff00ff00");
    assert_eq!(first["start"]["mediaFormat"], json!({"encoding": "audio/x-mulaw", "sampleRate": 8000}));
    let extra: serde_json::Value = serde_json::from_str(first["extra_headers"].as_str().unwrap()).unwrap();
    assert_eq!(extra["from_number"], "+15550100200");
    let stream = first["start"]["streamId"].clone();
    call.answered();
    call.heard(&ramp(160));
    call.digit('0', 100);
    let told = call.told();
    assert_eq!((&told[0]["event"], &told[0]["streamId"]), (&json!("media"), &stream));
    assert_eq!(unbase64(told[0]["media"]["payload"].as_str().unwrap())[5], g711::to_pcmu(ramp(6)[5]));
    assert_eq!(told[1]["dtmf"]["digit"], "0");
    let payload = base64(&[g711::to_pcmu(900); 320]);
    call.say(json!({"event": "playAudio", "streamId": stream,
        "media": {"contentType": "audio/x-mulaw", "sampleRate": 8000, "payload": payload}}));
    call.say(json!({"event": "checkpoint", "streamId": stream, "name": "c1"}));
    assert_eq!(call.play(), [g711::from_pcmu(g711::to_pcmu(900)); 320]);
    assert_eq!(call.told(), [json!({"event": "playedStream", "streamId": stream, "name": "c1"})]);
    let wide = base64(&l16(&[700; 1_600]));
    call.say(json!({"event": "playAudio",
        "media": {"contentType": "audio/x-l16", "sampleRate": "16000", "payload": wide}}));
    call.say(json!({"event": "checkpoint", "name": "c2"}));
    assert!(call.tick().unwrap()[100..].iter().all(|sample| (690..=710).contains(sample)));
    call.say(json!({"event": "clearAudio", "streamId": stream}));
    assert_eq!(call.told()[0]["name"], "c2");
    assert!(call.tick().is_none());
    call.end();
    assert_eq!(call.told()[0]["event"], "stop");
}

#[test]
fn exotel_gets_linear_sound_in_packets_of_100_ms() {
    let mut call = Call::new("exotel", Direction::Inbound);
    call.connected();
    let told = call.told();
    assert_eq!(told[0], json!({"event": "connected"}));
    assert_eq!(told[1]["sequence_number"], "1");
    let format = json!({"encoding": "audio/x-raw", "sample_rate": "8000", "bit_rate": "16"});
    assert_eq!(told[1]["start"]["media_format"], format);
    assert_eq!(told[1]["start"]["call_sid"], "CAff00ff00ff00ff00ff00ff00ff00ff00");
    call.answered();
    let sound = ramp(1_600);
    for frame in sound.chunks(160) {
        call.heard(frame);
        call.pass(20);
    }
    let told = call.told();
    assert_eq!(told.len(), 2);
    for (at, packet) in told.iter().enumerate() {
        assert_eq!(packet["media"]["timestamp"], (at * 100).to_string());
        assert_eq!(packet["media"]["chunk"], (at + 1).to_string());
        let payload = unbase64(packet["media"]["payload"].as_str().unwrap());
        assert_eq!(payload, l16(&sound[at * 800..(at + 1) * 800]));
    }
    call.say(json!({"event": "media", "stream_sid": "x", "media": {"payload": base64(&l16(&ramp(320)))}}));
    call.say(json!({"event": "mark", "stream_sid": "x", "mark": {"name": "m"}}));
    assert_eq!(call.play(), ramp(320));
    assert_eq!(call.told()[0]["mark"]["name"], "m");
    call.say(json!({"event": "media", "media": {"payload": base64(&l16(&ramp(3_200)))}}));
    call.say(json!({"event": "clear", "stream_sid": "x"}));
    assert!(call.tick().is_none());
    call.digit('3', 250);
    call.end();
    let told = call.told();
    assert_eq!(told[0]["dtmf"], json!({"digit": "3", "duration": "250"}));
    assert_eq!(told[1]["stop"]["call_sid"], "CAff00ff00ff00ff00ff00ff00ff00ff00");
}

#[test]
fn jambonz_gets_metadata_then_sound_and_its_marks_say_whether_they_were_played() {
    let mut call = Call::new("jambonz", Direction::Outbound);
    call.connected();
    assert!(call.sent.is_empty());
    call.answered();
    let first = call.told().remove(0);
    assert_eq!((&first["sampleRate"], &first["mixType"]), (&json!(16_000), &json!("mono")));
    assert_eq!((&first["from"], &first["direction"]), (&json!("+15550100200"), &json!("outbound")));
    call.heard(&ramp(320));
    assert_eq!(call.bytes(), [l16(&ramp(320))]);
    call.binary(&l16(&ramp(640)));
    call.say(json!({"type": "mark", "data": {"name": "a"}}));
    assert_eq!(call.play(), ramp(640));
    call.binary(&l16(&ramp(6_400)));
    call.say(json!({"type": "mark", "data": {"name": "b"}}));
    call.say(json!({"type": "killAudio"}));
    call.binary(&l16(&ramp(640)));
    call.say(json!({"type": "mark", "data": {"name": "c"}}));
    call.say(json!({"type": "clearMarks"}));
    let events: Vec<_> = call
        .told()
        .iter()
        .map(|mark| format!("{} {}", mark["data"]["name"], mark["data"]["event"]))
        .collect();
    assert_eq!(events, [r#""a" "playout""#, r#""b" "cleared""#, r#""c" "cleared""#]);
    assert_eq!(call.play(), ramp(640), "without its mark the sound goes on");
    call.digit('4', 100);
    assert_eq!(call.told(), [json!({"event": "dtmf", "dtmf": "4", "duration": "800"})]);
    call.say(json!({"type": "transcription", "data": {"text": "good morning"}}));
    call.say(json!({"type": "transfer", "data": {"to": "sip:200@pbx.example"}}));
    call.say(json!({"type": "disconnect"}));
    assert_eq!(
        call.events[1..],
        [
            AgentEvent::Transcript { agent: false, text: "good morning".into() },
            AgentEvent::Transfer("sip:200@pbx.example".into()),
            AgentEvent::HungUp("the agent hung up".into()),
        ]
    );
    assert!(call.closed);
}

#[test]
fn jambonz_plays_a_wav_file_at_its_own_rate_and_says_when_it_is_done() {
    let mut call = Call::talking("jambonz");
    let sound = l16(&[1_234; 8_000]);
    let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    file.extend(8_000u32.to_le_bytes());
    file.extend(16_000u32.to_le_bytes());
    file.extend([2, 0, 16, 0]);
    file.extend(b"LIST\x03\0\0\0abc\0data");
    file.extend((sound.len() as u32).to_le_bytes());
    file.extend(sound);
    call.say(json!({"type": "playAudio",
        "data": {"audioContentType": "wav", "audioContent": base64(&file), "id": "w1", "queuePlay": true}}));
    let played = call.play();
    assert!((15_700..=16_320).contains(&played.len()), "one second at 16 kHz: {}", played.len());
    assert!(played[500..15_000].iter().all(|sample| (1_225..=1_243).contains(sample)));
    assert_eq!(call.told(), [json!({"type": "playDone", "data": {"id": "w1"}})]);
    for broken in [&file[..30], b"RIFFxxxxWAVEdata\xff\xff\xff\xff", b""] {
        call.say(json!({"type": "playAudio",
            "data": {"audioContentType": "wav", "audioContent": base64(broken)}}));
    }
    assert_eq!(call.leg.summary().unreadable, 3);
}

#[test]
fn jambonz_replaces_what_plays_without_anybody_having_interrupted() {
    let mut call = Call::talking("jambonz");
    let piece = base64(&l16(&[500; 16_000]));
    for _ in 0..3 {
        call.say(json!({"type": "playAudio", "data": {"audioContentType": "raw", "audioContent": piece}}));
        call.tick();
    }
    assert_eq!(call.leg.summary().barge_ins, 0);
    call.say(json!({"type": "killAudio"}));
    assert!(call.tick().is_none());
    assert_eq!(call.leg.summary().barge_ins, 1);
}

#[test]
fn raw_agents_learn_who_calls_from_headers_and_asterisk_and_jambonz_from_their_subprotocol() {
    let session = session("pcm16", Direction::Inbound);
    let headers = session.dialect.headers(&session, "wss://bot.example/");
    assert!(headers.contains(&("x-call-from".into(), "+15550100200".into())));
    assert_eq!(Dialect::Jambonz.subprotocol(), Some("audio.jambonz.org"));
    assert_eq!(Dialect::Asterisk.subprotocol(), Some("media"));
    assert_eq!(Dialect::Twilio.subprotocol(), None);
}
