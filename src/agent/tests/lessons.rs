//! What other platforms got wrong, one test for each; and what must hold whatever an agent sends.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::harness::{ALL, Call, base64, l16, session};
use crate::agent::{AgentEvent, Leg, LegOutput, Message, Session};
use crate::call::Direction;
use crate::clock::Tick;
use crate::media::g711;

fn coded(samples: usize) -> Vec<u8> {
    (0..samples).map(|at| g711::to_pcmu((at % 8_000) as i16 + 500)).collect()
}

fn heard(codes: &[u8]) -> Vec<i16> {
    codes.iter().map(|code| g711::from_pcmu(*code)).collect()
}

fn media(codes: &[u8]) -> Value {
    json!({"event": "media", "media": {"payload": base64(codes)}})
}

fn mark(name: &str) -> Value {
    json!({"event": "mark", "mark": {"name": name}})
}

#[test]
fn a_clear_with_30_s_queued_leaves_no_stale_speech_and_echoes_the_marks_in_order() {
    let mut call = Call::talking("twilio");
    for at in 0..30 {
        call.say(media(&coded(8_000)));
        call.say(mark(&at.to_string()));
    }
    for _ in 0..100 {
        call.tick().unwrap();
    }
    let echoed = |call: &mut Call| -> Vec<String> {
        call.told().iter().map(|told| told["mark"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(echoed(&mut call), ["0", "1"]);
    call.say(json!({"event": "clear"}));
    let rest: Vec<_> = (2..30).map(|at| at.to_string()).collect();
    assert_eq!(echoed(&mut call), rest);
    assert!(call.tick().is_none(), "not one frame more");
}

#[test]
fn what_comes_after_a_clear_is_played_and_what_came_before_is_not() {
    let mut call = Call::talking("pcm16");
    // An odd byte is pending when the clear comes: it must not shift what follows by half a sample.
    call.binary(&[&l16(&[11; 999]), &[0x55][..]].concat());
    call.say(json!({"type": "clear"}));
    call.binary(&l16(&[22; 640]));
    assert_eq!(call.play(), [22; 640]);
}

#[test]
fn chunks_of_any_size_give_identical_audio() {
    let sound: Vec<i16> = (0..48_000).map(|at| (at as i16).wrapping_mul(31)).collect();
    for size in [7, 159, 161, 65_536] {
        let mut call = Call::talking("pcm16");
        for chunk in l16(&sound).chunks(size) {
            call.binary(chunk);
        }
        assert_eq!(call.play(), sound, "binary messages of {size} bytes");
    }
    let codes = coded(24_000);
    for size in [7, 159, 161, 65_536] {
        let mut call = Call::talking("twilio");
        for chunk in codes.chunks(size) {
            call.say(media(chunk));
        }
        assert_eq!(call.play(), heard(&codes), "payloads of {size} bytes");
    }
}

#[test]
fn a_mark_is_echoed_when_it_is_played_not_when_it_is_received() {
    let mut call = Call::talking("twilio");
    let began = call.now;
    for at in 1..=5u64 {
        call.say(media(&coded(8_000)));
        call.say(mark(&format!("{}", at * 1_000)));
    }
    let mut echoed = vec![];
    for _ in 0..250 {
        call.tick().unwrap();
        for told in call.told() {
            let due: u64 = told["mark"]["name"].as_str().unwrap().parse().unwrap();
            echoed.push((due, call.now.since(began).as_millis() as u64));
        }
    }
    assert_eq!(echoed.len(), 5);
    assert!(echoed.iter().all(|(due, at)| due.abs_diff(*at) <= 20), "{echoed:?}");
}

#[test]
fn an_agent_that_speaks_at_once_is_held_until_the_answer_and_nothing_is_lost() {
    for direction in [Direction::Inbound, Direction::Outbound] {
        for dialect in ["twilio", "telnyx"] {
            let mut call = Call::new(dialect, direction);
            call.connected();
            call.say(media(&coded(1_600)));
            call.say(mark("greeted"));
            call.told();
            call.pass(3_000);
            assert!(call.tick().is_none(), "nobody is there to hear it");
            assert!(call.told().is_empty(), "and the mark was not played");
            call.answered();
            call.told();
            assert_eq!(call.play(), heard(&coded(1_600)));
            assert_eq!(call.told()[0]["mark"]["name"], "greeted");
            assert_eq!(call.leg.summary().first_audio, Some(Duration::ZERO));
        }
    }
}

#[test]
fn on_an_outbound_call_start_comes_only_after_the_user_has_answered() {
    for dialect in
        ["twilio", "telnyx", "exotel", "plivo", "vonage", "jambonz", "asterisk", "elevenlabs", "deepgram"]
    {
        let mut call = Call::new(dialect, Direction::Outbound);
        call.connected();
        assert_eq!(call.events, [AgentEvent::Ready], "{dialect}: the user may be rung");
        let early = call.told();
        assert!(early.iter().all(|told| told["event"] == "connected"), "{dialect}: {early:?}");
        call.heard(&[1; 320]);
        call.digit('1', 100);
        assert!(call.sent.is_empty(), "{dialect}");
        if dialect == "deepgram" {
            call.say(json!({"type": "Welcome"}));
        }
        call.answered();
        let first = call.told().remove(0);
        let kinds = [&first["event"], &first["type"], &first["callSid"]];
        assert!(kinds.iter().any(|kind| kind.is_string()), "{dialect}: {first}");
        assert_eq!(call.events.len(), 1, "{dialect}: ready only once");
    }
}

#[test]
fn a_minute_of_sound_in_one_message_is_played_whole_and_the_socket_waits() {
    let mut call = Call::talking("vonage");
    let minute: Vec<i16> = (0..960_000).map(|at| (at as i16).wrapping_mul(7)).collect();
    assert!(call.leg.wants_input());
    call.binary(&l16(&minute));
    assert!(!call.leg.wants_input(), "60 s wait: no more is read");
    call.tick().unwrap();
    assert!(call.leg.wants_input());
    assert_eq!(call.play(), minute[320..]);
    assert_eq!(call.leg.summary().dropped_samples, 0);
}

#[test]
fn sound_adds_at_most_40_ms_before_it_is_played() {
    for pace in [20u64, 100] {
        let mut call = Call::talking("twilio");
        let samples = pace as usize * 8;
        let began = call.now;
        let mut first = None;
        for step in 0..10 {
            if step % (pace / 20) == 0 {
                call.say(media(&coded(samples)));
            }
            if call.tick().is_some() && first.is_none() {
                first = Some(call.now.since(began).as_millis() as u64 - 20);
            }
        }
        assert!(first.unwrap() <= 40, "{pace} ms packets: first played after {first:?} ms");
        // The user's sound waits for nothing.
        call.told();
        call.heard(&[1; 160]);
        assert_eq!(call.sent.len(), 1);
    }
}

#[test]
fn an_agent_that_sends_in_real_time_and_trembles_is_heard_without_holes() {
    let mut call = Call::talking("twilio");
    let (mut started, mut holes) = (false, 0);
    let mut late: Option<Value> = None;
    for step in 0..500u64 {
        if let Some(packet) = late.take() {
            call.say(packet);
        }
        let packet = media(&coded(160));
        // Every fourth packet misses its tick by a little.
        if step % 4 == 3 {
            late = Some(packet)
        } else {
            call.say(packet)
        }
        match call.tick() {
            Some(_) => started = true,
            None if started => holes += 1,
            None => {}
        }
    }
    assert!(started && holes == 0, "{holes} holes");
}

#[test]
fn every_agent_is_told_who_calls_whom_in_both_directions() {
    for direction in [Direction::Inbound, Direction::Outbound] {
        for dialect in ["twilio", "telnyx", "exotel", "plivo", "vonage", "jambonz", "asterisk", "elevenlabs"]
        {
            let mut call = Call::new(dialect, direction);
            call.connected();
            call.answered();
            let told = format!("{:?}", call.told());
            for fact in ["+15550100200", "+15550100100", direction.as_str()] {
                assert!(told.contains(fact), "{dialect} {direction:?}: {fact} is not in {told}");
            }
        }
    }
}

#[test]
fn an_agent_that_dies_in_the_middle_is_reported_once_and_plays_no_more() {
    for dialect in ALL {
        let mut call = Call::talking(dialect);
        call.binary(&[7; 6_400]);
        call.say(media(&coded(800)));
        while call.leg.poll().is_some() {}
        call.leg.closed("connection reset", call.now);
        let Some(LegOutput::Event(AgentEvent::Failed(why))) = call.leg.poll() else {
            panic!("{dialect}: nobody was told");
        };
        assert!(why.ends_with("connection reset"), "{why}");
        let mut frame = vec![0; call.leg.rate() as usize / 50];
        assert!(!call.leg.next(&mut frame, call.now));
        call.leg.heard(&frame, call.now);
        call.leg.end("over", call.now);
        assert_eq!((call.leg.poll(), call.leg.poll_timeout()), (None, None), "{dialect}");
        assert!(!call.leg.wants_input());
    }
}

#[test]
fn what_cannot_be_read_is_counted_and_the_call_goes_on() {
    let mut call = Call::talking("twilio");
    for line in ["", "{", "[]", "null", "42", "{\"event\":\"media\"}", "{\"event\":\"mark\",\"mark\":{}}"] {
        call.text(line);
    }
    call.say(json!({"event": "media", "media": {"payload": "%%%"}}));
    call.binary(&[1, 2, 3]);
    call.say(json!({"event": "something new"}));
    assert_eq!(call.leg.summary().unreadable, 9);
    assert!(call.sent.is_empty() && call.events.is_empty() && !call.closed);
    call.say(media(&coded(320)));
    assert_eq!(call.play(), heard(&coded(320)));
}

#[test]
fn nothing_grows_without_a_bound() {
    let mut call = Call::talking("twilio");
    for _ in 0..1_500 {
        call.say(mark("m"));
    }
    assert_eq!(call.told().len(), 1_500, "with nothing queued a mark is reached at once");
    call.say(media(&coded(800)));
    for _ in 0..1_500 {
        call.say(mark("m"));
    }
    assert_eq!(call.leg.summary().unreadable, 500);
    // Nobody takes what is sent.
    for _ in 0..2_000 {
        call.leg.heard(&[0; 160], call.now);
    }
    assert_eq!(std::iter::from_fn(|| call.leg.poll()).count(), 1_500);
    assert_eq!(call.leg.summary().unsent, 500);
    let mut call = Call::talking("jambonz");
    let long = "x".repeat(10_000);
    for _ in 0..600 {
        call.say(json!({"type": "json", "data": long}));
        call.say(json!({"type": "transcription", "data": long}));
    }
    let summary = call.leg.summary();
    let bytes: usize = summary.transcript.iter().map(|line| line.text.len()).sum();
    let noted: usize = summary.events.iter().map(|noted| noted.name.len() + noted.detail.len()).sum();
    assert!((30_000..=32 * 1024).contains(&(bytes + noted)), "{bytes} and {noted}");
    assert!(summary.transcript.iter().all(|line| line.text.len() == 2_000));
    let mut call = Call::talking("jambonz");
    for _ in 0..600 {
        call.say(json!({"type": "transcription", "data": "yes"}));
    }
    assert_eq!(call.leg.summary().transcript.len(), 200);
}

#[test]
fn a_clear_sends_every_waiting_mark_back_however_many_there_are() {
    let mut call = Call::talking("twilio");
    call.say(media(&coded(800)));
    for at in 0..1_000 {
        call.say(mark(&format!("m{at}")));
    }
    assert!(call.told().is_empty());
    call.say(json!({"event": "clear"}));
    let told = call.told();
    assert_eq!(told.len(), 1_000);
    assert!(told.iter().enumerate().all(|(at, mark)| mark["mark"]["name"] == format!("m{at}")));
    assert_eq!(call.leg.summary().unsent, 0);
}

#[test]
fn an_agent_that_floods_the_call_with_words_is_not_handed_on_word_by_word() {
    let mut call = Call::talking("jambonz");
    for _ in 0..5_000 {
        call.say(json!({"type": "transcription", "data": "yes"}));
    }
    assert_eq!(call.events.len(), 50);
    assert_eq!(call.leg.summary().transcript.len(), 200, "the record has as many as it ever has");
    call.pass(2_000);
    for _ in 0..100 {
        call.say(json!({"type": "transcription", "data": "yes"}));
    }
    assert_eq!(call.events.len(), 90);
    call.say(json!({"type": "disconnect"}));
    assert_eq!(call.events.last(), Some(&AgentEvent::HungUp("the agent hung up".into())));
}

#[test]
fn an_agent_that_sends_silence_has_said_nothing() {
    let silence = Some(Duration::from_secs(3));
    let mut call = Call::of(Session { silence, ..session("twilio", Direction::Inbound) });
    call.connected();
    call.answered();
    for _ in 0..100 {
        call.say(media(&[0xff; 160]));
        call.tick();
    }
    assert_eq!(call.leg.summary().first_audio, None);
    let due = call.leg.poll_timeout();
    assert!(due.is_some(), "it may still be found silent");
    call.say(media(&coded(160)));
    call.play();
    assert_eq!(call.leg.poll_timeout(), None);
    let first = call.leg.summary().first_audio.unwrap();
    assert!((2_000..2_200).contains(&first.as_millis()), "{first:?}");
}

#[test]
fn an_agent_that_leaves_before_the_answer_has_failed_and_afterwards_has_hung_up() {
    for answered in [false, true] {
        let mut call = Call::new("twilio", Direction::Inbound);
        call.connected();
        if answered {
            call.answered();
        }
        call.events.clear();
        call.leg.closed("", call.now);
        let event = std::iter::from_fn(|| call.leg.poll()).find_map(|output| match output {
            LegOutput::Event(event) => Some(event),
            _ => None,
        });
        let refused = "the agent closed the connection before the call was answered";
        let gone = "the agent closed the connection";
        let wanted = match answered {
            false => AgentEvent::Failed(refused.into()),
            true => AgentEvent::HungUp(gone.into()),
        };
        assert_eq!(event, Some(wanted));
    }
}

#[test]
fn more_sound_at_once_than_is_kept_is_told_on_the_record() {
    let mut call = Call::talking("twilio");
    call.say(media(&coded(200 * 8_000)));
    call.say(media(&coded(8_000)));
    let summary = call.leg.summary();
    assert_eq!(summary.dropped_samples, 21 * 8_000);
    let told: Vec<_> = summary.events.iter().map(|noted| noted.name.as_str()).collect();
    assert_eq!(told, ["overflow"], "once");
}

#[test]
fn an_agent_that_says_nothing_after_the_answer_has_failed() {
    let silence = Some(Duration::from_secs(8));
    for speaks in [false, true] {
        let mut call = Call::of(Session { silence, ..session("twilio", Direction::Inbound) });
        call.connected();
        call.pass(60_000);
        assert_eq!(call.leg.poll_timeout(), None, "while it rings nobody waits for it to speak");
        call.answered();
        call.pass(7_900);
        if speaks {
            call.say(media(&coded(160)));
            assert_eq!(call.leg.poll_timeout(), None, "from then on it may be silent");
            continue;
        }
        let due = call.leg.poll_timeout().unwrap();
        call.pass(100);
        assert_eq!(due, call.now);
        call.leg.handle_timeout(due);
        while let Some(output) = call.leg.poll() {
            if let LegOutput::Event(event) = output {
                call.events.push(event);
            }
        }
        let failed = AgentEvent::Failed("it has said nothing within 8 s".into());
        assert_eq!(call.events, [AgentEvent::Ready, failed]);
        assert_eq!(call.leg.poll_timeout(), None);
    }
}

#[test]
fn what_the_user_says_may_be_dropped_and_what_is_no_sound_may_not() {
    // Those whose session begins without a word of theirs.
    for dialect in ALL.into_iter().filter(|word| !["elevenlabs", "deepgram", "openai"].contains(word)) {
        let mut call = Call::talking(dialect);
        let frame = vec![100; call.leg.rate() as usize / 50 * 5];
        call.leg.heard(&frame, call.now);
        call.leg.digit('5', 100, call.now);
        let kinds: Vec<bool> = std::iter::from_fn(|| call.leg.poll())
            .map(|output| matches!(output, LegOutput::Sound(_)))
            .collect();
        let sounds = kinds.iter().filter(|sound| **sound).count();
        assert!(sounds >= 1, "{dialect}: {kinds:?}");
        assert!(kinds[..sounds].iter().all(|sound| *sound), "{dialect}: {kinds:?}");
        assert!(kinds[sounds..].iter().all(|sound| !*sound), "{dialect}: {kinds:?}");
    }
    let mut call = Call::talking("twilio");
    call.leg.skipped(3);
    call.leg.tried();
    let summary = call.leg.summary();
    assert_eq!((summary.unsent, summary.attempts), (3, 1));
}

#[test]
fn we_hang_up_once_and_before_the_socket_is_open_nothing_is_said() {
    let mut leg = Leg::new(session("twilio", Direction::Inbound), Tick::ZERO);
    leg.end("the caller gave up", Tick::ZERO);
    assert_eq!((leg.poll(), leg.poll()), (Some(LegOutput::Close), None));
    let mut call = Call::talking("twilio");
    call.end();
    assert_eq!(call.told()[0]["event"], "stop");
    call.end();
    assert!(call.sent.is_empty());
}

/// Words that the dialects know, so that what is drawn gets past the first look.
fn word() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop::sample::select(vec![
            "media",
            "mark",
            "clear",
            "playAudio",
            "checkpoint",
            "clearAudio",
            "killAudio",
            "disconnect",
            "transfer",
            "MEDIA_START",
            "DTMF_END",
            "STOP_MEDIA_BUFFERING",
            "MARK_MEDIA",
            "GET_STATUS",
            "audio",
            "interruption",
            "ping",
            "client_tool_call",
            "transfer_call",
            "Welcome",
            "SettingsApplied",
            "FunctionCallRequest",
            "Error",
            "session.created",
            "session.updated",
            "response.output_audio.delta",
            "response.output_item.done",
            "function_call",
            "input_audio_buffer.speech_started",
            "conversation_initiation_metadata",
            "wav",
            "slin16",
            "pcm_44100",
            "UklGRg==",
            "AAAA",
            "+15550100100",
            "sip:a@b",
            "notify",
            "transcription",
            "hangup",
        ])
        .prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        Just(Value::Null),
    ]
}

fn thing() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec![
        "event",
        "type",
        "action",
        "command",
        "data",
        "media",
        "payload",
        "name",
        "id",
        "format",
        "to",
        "delta",
        "item_id",
        "item",
        "event_id",
        "audio_event",
        "audio_base_64",
        "interruption_event",
        "sampleRate",
        "functions",
        "audioContent",
        "audioContentType",
        "arguments",
        "parameters",
        "correlation_id",
        "contentType",
        "tool_name",
        "conversation_initiation_metadata_event",
        "agent_output_audio_format",
        "client_tool_call",
        "queuePlay",
    ]);
    word().prop_recursive(3, 24, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6).prop_map(|pairs| Value::Object(
                pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            )),
        ]
    })
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        4 => thing().prop_map(|value| Message::Text(value.to_string())),
        1 => ".{0,60}".prop_map(Message::Text),
        1 => "[A-Z_]{1,22} [a-z_:0-9 ]{0,40}".prop_map(Message::Text),
        2 => prop::collection::vec(any::<u8>(), 0..2_000).prop_map(Message::Binary),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_an_agent_sends_nothing_breaks(
        messages in prop::collection::vec(message(), 1..25),
        outbound: bool,
        answered_at in 0usize..25,
    ) {
        for dialect in ALL {
            let direction = if outbound { Direction::Outbound } else { Direction::Inbound };
            let mut call = Call::new(dialect, direction);
            call.connected();
            for (at, message) in messages.iter().enumerate() {
                if at == answered_at {
                    call.answered();
                }
                call.leg.received(message.clone(), call.now);
                call.tick();
                call.heard(&vec![100; call.leg.rate() as usize / 50]);
                call.digit('5', 100);
                if let Some(due) = call.leg.poll_timeout().filter(|due| *due <= call.now) {
                    call.leg.handle_timeout(due);
                }
            }
            call.end();
            prop_assert!(call.closed, "{dialect}");
            let told = call.events.iter().filter(|event| matches!(event, AgentEvent::Ready)).count();
            prop_assert!(told <= 1, "{dialect}");
        }
    }
}
