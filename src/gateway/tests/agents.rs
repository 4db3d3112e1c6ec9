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
