//! The dialects where the agent is a cloud service, against the sequences that their documents show.

use serde_json::json;

use super::harness::{Call, base64, l16, session, unbase64};
use crate::agent::{AgentEvent, Dialect, Key, Message};
use crate::call::Direction;
use crate::media::g711;

fn with(dialect: &str, direction: Direction, parameters: &[(&str, &str)]) -> Call {
    let mut session = session(dialect, direction);
    session.parameters =
        parameters.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Call::of(session)
}

fn said(agent: bool, text: &str) -> AgentEvent {
    AgentEvent::Transcript { agent, text: text.into() }
}

#[test]
fn elevenlabs_is_told_the_call_and_its_formats_are_obeyed() {
    let mut call = Call::new("elevenlabs", Direction::Inbound);
    call.connected();
    let first = call.told().remove(0);
    assert_eq!(first["type"], "conversation_initiation_client_data");
    assert_eq!(first["dynamic_variables"]["from_number"], "+15550100200");
    assert!(call.events.is_empty(), "the session has not begun");
    call.say(json!({"type": "conversation_initiation_metadata", "conversation_initiation_metadata_event":
        {"conversation_id": "c", "agent_output_audio_format": "pcm_16000", "user_input_audio_format": "ulaw_8000"}}));
    assert_eq!(call.events, [AgentEvent::Ready]);
    call.answered();
    for _ in 0..5 {
        call.heard(&[500; 320]);
    }
    let told = call.told();
    assert!((4..=5).contains(&told.len()));
    let packet = unbase64(told[3]["user_audio_chunk"].as_str().unwrap());
    assert_eq!((packet.len(), g711::from_pcmu(packet[100])), (160, g711::from_pcmu(g711::to_pcmu(500))));
    assert!(told[0].get("type").is_none());

    let sound = |id: i64, sample: i16| json!({"type": "audio", "audio_event": {"audio_base_64": base64(&l16(&[sample; 3_200])), "event_id": id}});
    call.say(sound(1, 100));
    call.say(sound(2, 200));
    assert_eq!(call.tick().unwrap(), [100; 320]);
    call.say(json!({"type": "interruption", "interruption_event": {"event_id": 3}}));
    call.say(sound(3, 300));
    assert!(call.tick().is_none(), "event 3 was interrupted before it came");
    call.say(sound(4, 400));
    assert_eq!(call.tick().unwrap(), [400; 320]);
    call.say(json!({"type": "ping", "ping_event": {"event_id": 9, "ping_ms": 40}}));
    assert_eq!(call.told(), [json!({"type": "pong", "event_id": 9})]);
    call.say(json!({"type": "user_transcript", "user_transcription_event": {"user_transcript": "hello"}}));
    call.say(json!({"type": "agent_response", "agent_response_event": {"agent_response": "good day"}}));
    assert_eq!(call.events[1..], [said(false, "hello"), said(true, "good day")]);
    let summary = call.leg.summary();
    assert_eq!((summary.barge_ins, summary.transcript.len()), (1, 2));
    call.end();
    assert!(call.sent.is_empty() && call.closed);
}

#[test]
fn a_tool_that_transfers_lets_the_agent_finish_its_sentence_first() {
    let mut call = Call::talking("elevenlabs");
    call.say(
        json!({"type": "conversation_initiation_metadata", "conversation_initiation_metadata_event": {}}),
    );
    call.events.clear();
    call.say(
        json!({"type": "audio", "audio_event": {"audio_base_64": base64(&l16(&[9; 960])), "event_id": 1}}),
    );
    call.say(json!({"type": "client_tool_call", "client_tool_call":
        {"tool_name": "transfer_call", "tool_call_id": "t1", "parameters": {"to": "+15550100300"}}}));
    assert_eq!(call.told()[0]["is_error"], false);
    assert!(call.events.is_empty());
    assert_eq!(call.play().len(), 960);
    assert_eq!(call.events, [AgentEvent::Transfer("tel:+15550100300".into())]);
    call.say(
        json!({"type": "client_tool_call", "client_tool_call": {"tool_name": "order", "tool_call_id": "t2"}}),
    );
    assert_eq!(call.told()[0]["is_error"], true);
    call.say(json!({"type": "client_tool_call", "client_tool_call": {"tool_name": "end_call", "tool_call_id": "t3"}}));
    assert!(matches!(call.events.last(), Some(AgentEvent::HungUp(_))) && call.closed);
}

#[test]
fn a_format_that_is_not_understood_fails_the_session_by_its_name() {
    let mut call = Call::new("elevenlabs", Direction::Inbound);
    call.connected();
    call.say(json!({"type": "conversation_initiation_metadata", "conversation_initiation_metadata_event":
        {"agent_output_audio_format": "opus_48000"}}));
    let why = "the agent's audio format \"opus_48000\" is not pcm_<rate> or ulaw_8000";
    assert_eq!(call.events, [AgentEvent::Failed(why.into())]);
    assert!(call.closed);
}

#[test]
fn vapi_and_elevenlabs_mint_a_url_and_the_key_is_never_printed() {
    let mut session = session("vapi", Direction::Inbound);
    session.parameters.push(("assistantId".into(), "a-1".into()));
    session.key = Some(Key::new("sk-secret"));
    let request = session.dialect.mint(&session, "wss://api.vapi.ai/?assistantId=a-1").unwrap();
    assert_eq!((request.method, request.url.as_str()), ("POST", "https://api.vapi.ai/call"));
    assert!(request.headers.contains(&("authorization".into(), "Bearer sk-secret".into())));
    let body: serde_json::Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!(body["assistantId"], "a-1");
    assert_eq!(
        body["transport"],
        json!({"provider": "vapi.websocket",
            "audioFormat": {"format": "pcm_s16le", "container": "raw", "sampleRate": 16000}})
    );
    for printed in [format!("{session:?}"), format!("{request:?}")] {
        assert!(!printed.contains("secret"), "{printed}");
    }
    let answer =
        br#"{"id":"1","status":"queued","transport":{"websocketCallUrl":"wss://api.vapi.ai/1/transport"}}"#;
    assert_eq!(session.dialect.minted(201, answer).unwrap(), "wss://api.vapi.ai/1/transport");
    assert_eq!(
        session.dialect.minted(401, br#"{"message":"Invalid Key"}"#).unwrap_err(),
        "answered 401 \"Invalid Key\""
    );
    assert!(session.dialect.minted(200, b"<html>").unwrap_err().contains("transport.websocketCallUrl"));

    session.dialect = Dialect::ElevenLabs;
    session.parameters.push(("agent_id".into(), "x y".into()));
    let request =
        session.dialect.mint(&session, "ws://127.0.0.1:9/v1/convai/conversation?agent_id=x+y").unwrap();
    let url = "http://127.0.0.1:9/v1/convai/conversation/get-signed-url?agent_id=x%20y";
    assert_eq!((request.method, request.url.as_str()), ("GET", url));
    session.key = None;
    assert!(
        session.dialect.mint(&session, "wss://api.elevenlabs.io/").is_none(),
        "a public agent needs no key"
    );
}

#[test]
fn vapi_is_binary_with_a_short_queue_and_says_when_it_ends() {
    let mut call = Call::talking("vapi");
    call.heard(&[5; 320]);
    assert_eq!(call.bytes(), [l16(&[5; 320])]);
    assert!(call.leg.wants_input());
    call.binary(&l16(&[7; 4_800]));
    assert!(!call.leg.wants_input(), "300 ms wait: nothing could clear more");
    call.say(json!({"type": "transcript", "role": "user", "transcriptType": "partial", "transcript": "hel"}));
    call.say(json!({"type": "transcript", "role": "user", "transcriptType": "final", "transcript": "hello"}));
    call.say(json!({"type": "user-interrupted"}));
    assert!(call.tick().is_none());
    call.say(json!({"type": "status-update", "status": "ended", "endedReason": "assistant-ended-call"}));
    assert_eq!(call.events, [said(false, "hello"), AgentEvent::HungUp("assistant-ended-call".into())]);
    let mut call = Call::talking("vapi");
    call.end();
    assert_eq!(call.told(), [json!({"type": "hangup"})]);
}

#[test]
fn deepgram_is_configured_when_it_has_welcomed_us_and_the_session_may_begin() {
    let settings = r#"{"agent":{"think":{"provider":{"model":"gpt-x"}}},"tags":["shop"]}"#;
    let parameters =
        [("prompt", "You speak to {from}. {unknown}"), ("greeting", "Hello"), ("settings", settings)];
    // Outbound: the greeting would be spoken at once, so the settings wait for the user.
    let mut call = with("deepgram", Direction::Outbound, &parameters);
    call.connected();
    assert_eq!(call.events, [AgentEvent::Ready]);
    call.say(json!({"type": "Welcome", "request_id": "r"}));
    assert!(call.sent.is_empty());
    call.answered();
    let told = call.told().remove(0);
    assert_eq!(told["type"], "Settings");
    assert_eq!(told["audio"]["input"], json!({"encoding": "linear16", "sample_rate": 16000}));
    assert_eq!(told["agent"]["think"]["prompt"], "You speak to +15550100200. {unknown}");
    assert_eq!(told["agent"]["think"]["provider"], json!({"type": "open_ai", "model": "gpt-x"}));
    assert_eq!((&told["agent"]["greeting"], &told["tags"]), (&json!("Hello"), &json!(["shop"])));
    call.heard(&[1; 320]);
    assert!(call.sent.is_empty(), "no sound before the settings are applied");
    call.say(json!({"type": "SettingsApplied"}));
    call.heard(&[1; 320]);
    assert_eq!(call.bytes(), [l16(&[1; 320])]);
    call.binary(&l16(&[3; 3_200]));
    assert_eq!(call.tick().unwrap(), [3; 320]);
    call.say(json!({"type": "UserStartedSpeaking"}));
    assert!(call.tick().is_none());
    call.say(json!({"type": "ConversationText", "role": "assistant", "content": "Hello"}));
    call.say(json!({"type": "FunctionCallRequest", "functions":
        [{"id": "f", "name": "transfer_call", "arguments": "{\"to\":\"200\"}", "client_side": true}]}));
    assert_eq!(call.told()[0]["id"], "f");
    assert_eq!(call.events[1..], [said(true, "Hello"), AgentEvent::Transfer("tel:200".into())]);
    call.digit('5', 100);
    assert_eq!(call.told(), [json!({"type": "InjectUserMessage", "content": "The user pressed the key 5."})]);
}

#[test]
fn deepgram_is_kept_alive_while_nobody_speaks() {
    let mut call = with("deepgram", Direction::Inbound, &[]);
    call.connected();
    call.say(json!({"type": "Welcome"}));
    call.say(json!({"type": "SettingsApplied"}));
    call.sent.clear();
    let due = call.leg.poll_timeout().unwrap();
    assert_eq!(due.since(call.now).as_secs(), 8);
    call.now = due;
    call.leg.handle_timeout(due);
    call.connected();
    assert_eq!(call.told(), [json!({"type": "KeepAlive"})]);
    call.answered();
    call.pass(5_000);
    call.heard(&[0; 320]);
    assert_eq!(call.leg.poll_timeout().unwrap().since(call.now).as_secs(), 8, "sound keeps it alive as well");
}

#[test]
fn a_service_that_refuses_or_says_nothing_fails_the_session() {
    let mut call = with("deepgram", Direction::Inbound, &[]);
    call.connected();
    call.say(json!({"type": "Welcome"}));
    call.say(json!({"type": "Error", "code": "UNPARSABLE", "description": "bad settings"}));
    assert_eq!(call.events, [AgentEvent::Failed("UNPARSABLE bad settings".into())]);
    for dialect in ["elevenlabs", "deepgram", "openai"] {
        let mut call = with(dialect, Direction::Inbound, &[]);
        call.connected();
        let due = call.leg.poll_timeout().unwrap();
        call.leg.handle_timeout(due);
        call.connected();
        let why = "the session did not begin within 10 s";
        assert_eq!(call.events, [AgentEvent::Failed(why.into())], "{dialect}");
        assert!(call.closed);
    }
}

fn realtime(parameters: &[(&str, &str)]) -> Call {
    let mut call = with("openai", Direction::Inbound, parameters);
    call.connected();
    assert!(call.sent.is_empty(), "the service speaks first");
    call.say(json!({"type": "session.created"}));
    call
}

#[test]
fn openai_is_updated_after_it_was_created_and_greets_only_if_told_to() {
    let mut call =
        realtime(&[("instructions", "Caller: {from}"), ("voice", "marin"), ("greeting", "Say hello.")]);
    let told = call.told().remove(0);
    assert_eq!((&told["type"], &told["session"]["type"]), (&json!("session.update"), &json!("realtime")));
    assert_eq!(told["session"]["instructions"], "Caller: +15550100200");
    assert_eq!(
        told["session"]["audio"],
        json!({"input": {"format": {"type": "audio/pcm", "rate": 24000}, "turn_detection": {"type": "server_vad"}},
            "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin"}})
    );
    assert!(call.events.is_empty());
    call.say(json!({"type": "session.updated"}));
    assert_eq!(call.events, [AgentEvent::Ready]);
    assert_eq!(
        call.told()[0],
        json!({"type": "response.create", "response": {"instructions": "Say hello."}})
    );
    call.answered();
    call.heard(&[8; 480]);
    let told = call.told();
    assert_eq!(told[0]["type"], "input_audio_buffer.append");
    assert_eq!(unbase64(told[0]["audio"].as_str().unwrap()), l16(&[8; 480]));
    let mut call = realtime(&[]);
    call.told();
    call.say(json!({"type": "session.updated"}));
    assert!(call.sent.is_empty());
}

#[test]
fn openai_learns_how_much_was_played_not_how_much_it_sent() {
    let mut call = realtime(&[]);
    call.say(json!({"type": "session.updated"}));
    call.answered();
    call.sent.clear();
    let delta = |item: &str, millis: usize| {
        json!({"type": "response.output_audio.delta", "item_id": item, "content_index": 0,
            "delta": base64(&l16(&vec![6; millis * 24]))})
    };
    // 1 s of the first item, then 10 s of the second; 1.5 s are played.
    call.say(delta("i1", 1_000));
    call.say(delta("i2", 5_000));
    call.say(delta("i2", 5_000));
    for _ in 0..75 {
        call.tick().unwrap();
    }
    call.say(json!({"type": "input_audio_buffer.speech_started", "audio_start_ms": 1}));
    assert_eq!(
        call.told(),
        [
            json!({"type": "conversation.item.truncate", "item_id": "i2", "content_index": 0, "audio_end_ms": 500})
        ]
    );
    assert!(call.tick().is_none());
    call.say(delta("i2", 1_000));
    assert!(call.tick().is_none(), "what was still on its way is not played");
    call.say(delta("i3", 1_000));
    assert_eq!(call.play().len(), 24_000);
    call.say(json!({"type": "input_audio_buffer.speech_started"}));
    assert!(call.told().is_empty(), "everything was played: nothing to truncate");
    assert_eq!(call.leg.summary().barge_ins, 1);
}

#[test]
fn openai_can_end_the_call_and_is_answered_when_it_asks_for_what_is_not_there() {
    let mut call = realtime(&[]);
    call.say(json!({"type": "session.updated"}));
    call.answered();
    call.sent.clear();
    let asked = |name: &str| {
        json!({"type": "response.output_item.done",
            "item": {"type": "function_call", "call_id": "c", "name": name, "arguments": "{}"}})
    };
    call.say(asked("weather"));
    let told = call.told();
    assert_eq!(told[0]["item"]["call_id"], "c");
    assert_eq!(told[1], json!({"type": "response.create"}));
    call.say(json!({"type": "response.output_audio_transcript.done", "transcript": "Goodbye."}));
    call.say(asked("end_call"));
    assert_eq!(
        call.events[1..],
        [said(true, "Goodbye."), AgentEvent::HungUp("the agent ended the call".into())]
    );
}

#[test]
fn cloud_services_get_their_key_in_the_header_they_want() {
    let mut session = session("openai", Direction::Inbound);
    session.key = Some(Key::new("k"));
    assert_eq!(
        session.dialect.headers(&session, "wss://bot.example/"),
        [("authorization".into(), "Bearer k".into())]
    );
    session.dialect = Dialect::Deepgram;
    assert_eq!(
        session.dialect.headers(&session, "wss://bot.example/"),
        [("authorization".into(), "Token k".into())]
    );
    session.dialect = Dialect::Twilio;
    assert!(
        session.dialect.headers(&session, "wss://bot.example/").is_empty(),
        "a bot of the user's is not told a service's key"
    );
    let mut call = realtime(&[]);
    call.sent.clear();
    call.binary(&[1, 2, 3]);
    assert!(!call.sent.contains(&Message::Binary(vec![1, 2, 3])));
}

#[test]
fn openai_that_can_not_answer_says_why_on_the_record() {
    let mut call = realtime(&[]);
    call.say(json!({"type": "session.updated"}));
    call.answered();
    let error = json!({"type": "insufficient_quota", "message": "You exceeded your current quota."});
    call.say(json!({"type": "response.done", "response": {"status": "completed"}}));
    call.say(json!({"type": "response.done",
        "response": {"status": "failed", "status_details": {"type": "failed", "error": error}}}));
    let summary = call.leg.summary();
    let told: Vec<_> =
        summary.events.iter().map(|noted| (noted.name.as_str(), noted.detail.as_str())).collect();
    assert_eq!(told, [("error", "You exceeded your current quota.")]);
}
