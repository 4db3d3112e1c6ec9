//! Stories of calls whose destination is a voice agent.

use super::*;
use crate::agent::{AgentEvent, Dialect};
use crate::config::Destination;
use crate::gateway::AgentSetup;
use crate::gateway::desk::Command;
use crate::media::Alone;

const BOT: &str = "wss://bot.example.com/call?dialect=pcm16-24000&tenant=7";

impl Story {
    /// A gateway whose number goes to an agent.
    fn with_agent() -> Story {
        let mut story = Story::with_trunk_up();
        let text = CONFIG.replace("sip:200@pbx", BOT);
        let (config, _) = Config::parse(&text, &SystemSecrets::beside("/tmp")).unwrap();
        story.tell(Input::Reload(Box::new(Settings::from_config(&config))));
        story
    }

    fn expect_agent(&mut self) -> Box<AgentSetup> {
        match self.lines.pop_front() {
            Some((_, LineOrder::Agent(setup))) => setup,
            other => panic!("the agent was to be called, not {other:?}"),
        }
    }

    fn agent_says(&mut self, call: CallKey, event: AgentEvent) {
        self.tell(Input::Line { call, event: LineEvent::Agent(event) });
    }

    /// The user talks to the agent.
    fn talking_to_agent() -> (Story, CallKey) {
        let mut story = Story::with_agent();
        story.connect("wacid.1");
        let call = story.line_opens();
        story.graph_agrees("pre_accept");
        story.expect_agent();
        story.agent_says(call, AgentEvent::Ready);
        story.graph_agrees("accept");
        assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::OpenGate { early: false }))));
        assert_eq!(story.gateway.view_calls()[0].state, "talking");
        (story, call)
    }
}

#[test]
fn the_call_is_accepted_when_the_agent_is_there_and_not_before() {
    let mut story = Story::with_agent();
    story.connect("wacid.1");
    let call = story.line_opens();
    story.graph_agrees("pre_accept");
    let setup = story.expect_agent();
    assert_eq!(setup.url, "wss://bot.example.com/call?tenant=7", "the dialect is for us alone");
    assert_eq!(setup.session.dialect, Dialect::Pcm16 { rate: 24_000 });
    assert_eq!(setup.session.from, "+4915112345678");
    assert!(!setup.answered);
    story.wait(Duration::from_secs(3));
    assert!(story.graph.is_empty(), "nobody has answered yet");
    story.agent_says(call, AgentEvent::Ready);
    story.graph_agrees("accept");
    story.lines.clear();
    story.agent_says(call, AgentEvent::HungUp("done".into()));
    story.graph_agrees("terminate");
    assert!(story.sip.is_empty(), "the PBX hears nothing of it");
    story.line_closes(call);
    let record = story.over(Why::FarHungUp);
    assert_eq!(record.destination, "wss://bot.example.com/call", "a query may hold a key");
    assert_eq!(record.detail, "the agent hung up: done");
}

#[test]
fn an_agent_that_refuses_ends_the_call_at_meta() {
    let mut story = Story::with_agent();
    story.connect("wacid.1");
    let call = story.line_opens();
    story.graph_agrees("pre_accept");
    story.expect_agent();
    story.agent_says(call, AgentEvent::Failed("HTTP 403".into()));
    story.graph_agrees("terminate");
    story.line_closes(call);
    let record = story.over(Why::FarUnreachable);
    assert!(record.detail.contains("HTTP 403"), "{}", record.detail);
}

#[test]
fn a_user_who_hangs_up_ends_the_agents_part_too() {
    let (mut story, call) = Story::talking_to_agent();
    story.terminate("wacid.1", true);
    assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::Close))));
    assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::AgentEnd(Why::UserHungUp)))));
    let quality = Quality::default();
    story.tell(Input::Line { call, event: LineEvent::Closed { whatsapp: quality, far: quality } });
    story.over(Why::UserHungUp);
}

#[test]
fn an_agent_hands_the_user_over_to_a_human_at_the_pbx() {
    let (mut story, call) = Story::talking_to_agent();
    story.agent_says(call, AgentEvent::Transfer("sip:300@pbx".into()));
    assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::AgentEnd(_)))));
    assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::Alone(Alone::RingBack)))));
    let invite = story.expect_sip("INVITE sip:300@192.0.2.10");
    // The agent's own goodbye is no longer this call's.
    story.agent_says(call, AgentEvent::HungUp("bye".into()));
    story.pbx_says(&invite, "200 OK", PBX_SDP);
    story.expect_sip("ACK");
    assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::Far(_)))));
    story.pbx_hangs_up(&invite);
    story.graph_agrees("terminate");
    story.line_closes(call);
    assert_eq!(story.over(Why::FarHungUp).destination, "sip:300@pbx");
}

#[test]
fn a_plain_extension_is_one_of_the_numbers_own_pbx() {
    let (mut story, call) = Story::talking_to_agent();
    story.agent_says(call, AgentEvent::Transfer("tel:300".into()));
    story.expect_sip("INVITE sip:300@192.0.2.10");
}

#[test]
fn a_hand_over_that_can_not_be_done_leaves_the_user_with_the_agent_and_is_on_the_record() {
    let (mut story, call) = Story::talking_to_agent();
    for _ in 0..30 {
        story.wait(Duration::from_secs(1));
        story.agent_says(call, AgentEvent::Transfer("sip:300@nowhere".into()));
    }
    assert!(story.lines.is_empty() && story.sip.is_empty());
    assert_eq!(story.gateway.view_calls()[0].state, "talking");
    story.agent_says(call, AgentEvent::HungUp("done".into()));
    story.graph_agrees("terminate");
    story.line_closes(call);
    let events = story.over(Why::FarHungUp).agent.unwrap().events;
    assert_eq!(events.len(), 10, "some are enough");
    assert_eq!((events[0].name.as_str(), events[0].at_ms), ("transfer_failed", 1_000));
    assert!(events[0].detail.contains("no trunk leads there"), "{:?}", events[0]);
}

#[test]
fn an_address_tells_the_agent_what_was_meant_and_a_number_has_headers_and_keys_of_its_own() {
    let mut story = Story::with_trunk_up();
    let bot = "wss://bot.example.com/call?name=Ren%C3%A9%20M&at=+49\"\nagent_key = \"own-key\"\n\
               agent_auth_token = \"own-token\"\nagent_headers = { authorization = \"Bearer own\" }\n\
               dialect = \"twilio";
    let text = CONFIG.replace("sip:200@pbx", bot)
        + "\n[agent]\nkey = \"all-key\"\nauth_token = \"all-token\"\n\
           headers = { Authorization = \"Bearer all\", X-Shop = \"7\" }\n";
    let (config, _) = Config::parse(&text, &SystemSecrets::beside("/tmp")).unwrap();
    story.tell(Input::Reload(Box::new(Settings::from_config(&config))));
    story.connect("wacid.1");
    story.line_opens();
    story.graph_agrees("pre_accept");
    let setup = story.expect_agent();
    assert_eq!(setup.url, "wss://bot.example.com/call?name=Ren%C3%A9%20M&at=+49");
    let told = |name: &str| setup.session.parameter(name).unwrap().to_owned();
    assert_eq!((told("name"), told("at")), ("René M".to_owned(), "+49".to_owned()));
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(setup.headers, [header("X-Shop", "7"), header("authorization", "Bearer own")]);
    assert_eq!(setup.session.key.as_ref().unwrap().expose(), "own-key");
    assert_eq!(setup.session.auth_token.as_ref().unwrap().expose(), "own-token");
}

#[test]
fn a_human_hands_the_user_over_to_an_agent() {
    let (mut story, call, _) = Story::talking("wacid.1");
    let id = story.gateway.view_calls()[0].id.clone();
    let to = Destination::Wss("wss://bot.example.com/".into());
    story.tell(Input::Asked { ticket: Ticket(1), command: Command::Transfer { id, to } });
    assert!(story.told.pop_front().unwrap().1.is_ok());
    let bye = story.expect_sip("BYE");
    story.pbx_says(&bye, "200 OK", "");
    assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::Alone(Alone::RingBack)))));
    assert!(story.expect_agent().answered, "the user is there already");
    story.agent_says(call, AgentEvent::Ready);
    assert_eq!(story.gateway.view_calls()[0].state, "talking");
    story.agent_says(call, AgentEvent::HungUp("done".into()));
    story.graph_agrees("terminate");
    story.line_closes(call);
    story.over(Why::FarHungUp);
}

/// The record of a call whose agent has failed and whose user talked to somebody else then.
const WENT_ON: &str = "the agent: HTTP 502; the call went on to sip:300@pbx; then: ";

impl Story {
    /// As [`Story::with_agent`], and calls go on to an extension of the PBX if the agent fails.
    fn with_fallback() -> Story {
        let mut story = Story::with_trunk_up();
        let text = CONFIG.replace("sip:200@pbx", BOT);
        let (mut config, _) = Config::parse(&text, &SystemSecrets::beside("/tmp")).unwrap();
        config.numbers[0].fallback_to = Some(Destination::parse("sip:300@pbx").unwrap());
        config.agent.retry_seconds = 3;
        story.tell(Input::Reload(Box::new(Settings::from_config(&config))));
        story
    }

    fn agent_is_let_go(&mut self) {
        assert!(matches!(self.lines.pop_front(), Some((_, LineOrder::AgentEnd(Why::AgentFailed)))));
        assert!(matches!(self.lines.pop_front(), Some((_, LineOrder::Alone(Alone::RingBack)))));
    }
}

#[test]
fn a_call_whose_agent_never_came_is_forwarded_to_the_pbx_before_it_is_answered() {
    let mut story = Story::with_fallback();
    story.connect("wacid.1");
    let call = story.line_opens();
    story.graph_agrees("pre_accept");
    assert_eq!(story.expect_agent().retry, Duration::from_secs(3));
    story.agent_says(call, AgentEvent::Failed("HTTP 502".into()));
    story.agent_is_let_go();
    let invite = story.expect_sip("INVITE sip:300@192.0.2.10");
    assert!(story.graph.is_empty(), "nobody has answered yet");
    story.pbx_says(&invite, "180 Ringing", "");
    story.pbx_says(&invite, "200 OK", PBX_SDP);
    story.expect_sip("ACK");
    story.graph_agrees("accept");
    story.lines.clear();
    // What the dead agent says late is nobody's.
    story.agent_says(call, AgentEvent::HungUp("bye".into()));
    assert_eq!(story.gateway.view_calls()[0].state, "talking");
    story.pbx_hangs_up(&invite);
    story.graph_agrees("terminate");
    story.line_closes(call);
    let record = story.over(Why::FarHungUp);
    assert_eq!(record.destination, "sip:300@pbx");
    assert!(record.detail.starts_with(WENT_ON), "{}", record.detail);
    assert_eq!(record.transferred_at, None, "it was never with the agent");
    assert_eq!(record.agent.unwrap().failure.as_deref(), Some("HTTP 502"));
}

#[test]
fn a_call_whose_agent_breaks_off_goes_on_at_the_pbx_while_the_user_hears_ringing() {
    let mut story = Story::with_fallback();
    story.connect("wacid.1");
    let call = story.line_opens();
    story.graph_agrees("pre_accept");
    story.expect_agent();
    story.agent_says(call, AgentEvent::Ready);
    story.graph_agrees("accept");
    story.lines.clear();
    story.agent_says(call, AgentEvent::Failed("HTTP 502".into()));
    story.agent_is_let_go();
    assert_eq!(story.gateway.view_calls()[0].state, "transferring");
    let invite = story.expect_sip("INVITE sip:300@192.0.2.10");
    story.pbx_says(&invite, "200 OK", PBX_SDP);
    story.expect_sip("ACK");
    assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::Far { .. }))));
    assert_eq!(story.gateway.view_calls()[0].state, "talking");
    story.terminate("wacid.1", true);
    let bye = story.expect_sip("BYE");
    story.pbx_says(&bye, "200 OK", "");
    story.line_closes(call);
    let record = story.over(Why::UserHungUp);
    assert!(record.detail.starts_with(WENT_ON), "{}", record.detail);
    assert!(record.transferred_at.is_some());
}

#[test]
fn a_fallback_that_can_not_be_had_ends_the_call_and_both_failures_are_told() {
    let mut story = Story::with_fallback();
    story.connect("wacid.1");
    let call = story.line_opens();
    story.graph_agrees("pre_accept");
    story.expect_agent();
    story.agent_says(call, AgentEvent::Failed("HTTP 502".into()));
    story.agent_is_let_go();
    let invite = story.expect_sip("INVITE sip:300@192.0.2.10");
    story.pbx_says(&invite, "486 Busy Here", "");
    story.expect_sip("ACK");
    story.graph_agrees("terminate");
    story.line_closes(call);
    let record = story.over(Why::FarBusy);
    assert!(record.detail.starts_with(WENT_ON) && record.detail.contains("486"), "{}", record.detail);
}

#[test]
fn an_agent_that_breaks_off_without_a_fallback_is_recorded_as_such() {
    let (mut story, call) = Story::talking_to_agent();
    story.agent_says(call, AgentEvent::Transcript { agent: true, text: "Hello".into() });
    assert_eq!(story.spoken, [(Speaker::Agent, "Hello".to_owned())]);
    story.agent_says(call, AgentEvent::Failed("it broke off".into()));
    story.graph_agrees("terminate");
    let summary = crate::agent::Summary {
        attempts: 2,
        barge_ins: 3,
        first_audio: Some(Duration::from_millis(700)),
        ..crate::agent::Summary::default()
    };
    story.tell(Input::Line { call, event: LineEvent::AgentOver(Box::new(summary)) });
    story.line_closes(call);
    let record = story.over(Why::AgentFailed);
    assert_eq!(record.detail, "the agent: it broke off");
    let agent = record.agent.unwrap();
    assert_eq!((agent.name.as_str(), agent.dialect.as_str()), ("bot.example.com", "pcm16-24000"));
    assert_eq!((agent.attempts, agent.barge_ins, agent.first_audio_ms), (2, 3, Some(700)));
    assert_eq!(agent.failure.as_deref(), Some("it broke off"));
}

#[test]
fn an_agent_hangs_up_by_the_id_that_it_was_told() {
    let (mut story, call) = Story::talking_to_agent();
    let id = crate::agent::call_sid(&story.gateway.view_calls()[0].id);
    assert!(id.starts_with("CA") && id.len() == 34);
    story.tell(Input::Asked { ticket: Ticket(1), command: Command::HangUp { id } });
    assert!(story.told.pop_front().unwrap().1.is_ok());
    story.graph_agrees("terminate");
    story.line_closes(call);
    assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::AgentEnd(Why::Operator)))));
    story.over(Why::Operator);
}

impl Story {
    /// A call to a service that has been asked for the user part.
    fn minting() -> (Story, CallKey) {
        let mut story = Story::with_trunk_up();
        let (mut config, _) = Config::parse(CONFIG, &SystemSecrets::beside("/tmp")).unwrap();
        let number = &mut config.numbers[0];
        number.forward_to = Some(Destination::Sip { user: "{minted}".into(), host: "pbx".into() });
        let headers = [("X-Caller".to_owned(), "{caller}".to_owned())];
        number.sip_headers = std::collections::BTreeMap::from(headers).into();
        number.mint = Some(crate::config::MintConfig {
            url: "https://api.example.com/v2/register-phone-call".into(),
            body: r#"{"agent_id":"a","from_number":"{caller}"}"#.into(),
            key: crate::config::Secret::new("k"),
            field: "/call_id".into(),
        });
        story.tell(Input::Reload(Box::new(Settings::from_config(&config))));
        story.connect("wacid.1");
        let call = story.line_opens();
        story.graph_agrees("pre_accept");
        let (asked, mint) = story.mints.pop().unwrap();
        assert_eq!((asked, mint.body.as_str()), (call, r#"{"agent_id":"a","from_number":"+4915112345678"}"#));
        assert!(story.sip.is_empty(), "there is nobody to be called yet");
        (story, call)
    }
}

#[test]
fn a_service_that_is_called_by_sip_makes_the_user_part_first() {
    let (mut story, call) = Story::minting();
    story.tell(Input::Minted { call, result: Ok("119c3f8e".into()) });
    let invite = story.expect_sip("INVITE sip:119c3f8e@192.0.2.10");
    assert!(invite.contains("X-Caller: +4915112345678\r\n"), "{invite}");
    story.pbx_says(&invite, "603 Decline", "");
    story.expect_sip("ACK");
    story.graph_agrees("terminate");
    story.line_closes(call);
    story.over(Why::FarDeclined);
}

#[test]
fn a_service_that_makes_nothing_ends_the_call_and_says_why() {
    let (mut story, call) = Story::minting();
    story.tell(Input::Minted { call, result: Err("the minting was refused: HTTP 401".into()) });
    story.graph_agrees("terminate");
    story.line_closes(call);
    let record = story.over(Why::FarUnreachable);
    assert_eq!(record.detail, "the minting was refused: HTTP 401");
}
