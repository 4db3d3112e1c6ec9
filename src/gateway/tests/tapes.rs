//! Stories of calls that are to be recorded: who is asked, what pauses it, and what the record says.

use super::*;
use crate::call::record::PlacedBy;
use crate::call::recording::{Consent, Finished, Outcome};
use crate::config::{AnnounceTo, ConsentMode, ConsentPrompt, TapeFormat};
use crate::gateway::desk::{Command, Place as PlaceCall};
use crate::gateway::line::TapeNews;
use crate::gateway::{TapeEvent, TapeSetup};
use crate::whatsapp::callee::Callee;

impl Story {
    /// From here on the number's calls are recorded.
    fn recorded(&mut self, change: impl FnOnce(&mut Config)) {
        let (mut config, _) = Config::parse(CONFIG, &SystemSecrets::beside("/tmp")).unwrap();
        config.numbers[0].recording = true;
        change(&mut config);
        self.tell(Input::Reload(Box::new(Settings::from_config(&config))));
    }

    fn expect_record(&mut self) -> TapeSetup {
        match self.lines.pop_front() {
            Some((_, LineOrder::Record(setup))) => *setup,
            other => panic!("it was to be recorded: {other:?}"),
        }
    }

    fn tape_says(&mut self, call: CallKey, news: TapeNews) {
        self.tell(Input::Line { call, event: LineEvent::Tape(news) });
    }

    /// A user's call that is recorded, up to where only Meta's answer is missing.
    fn answered_recorded(change: impl FnOnce(&mut Config)) -> (Story, CallKey, String) {
        let mut story = Story::with_trunk_up();
        story.recorded(change);
        story.connect("wacid.1");
        let call = story.line_opens();
        story.graph_agrees("pre_accept");
        let invite = story.expect_sip("INVITE");
        story.pbx_says(&invite, "200 OK", PBX_SDP);
        story.expect_sip("ACK");
        assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::Far(_)))));
        assert!(story.lines.is_empty(), "nobody is asked before both ends are there");
        (story, call, invite)
    }

    /// Now both talk.
    fn accepted(&mut self) {
        self.graph_agrees("accept");
        assert!(matches!(self.lines.pop_front(), Some((_, LineOrder::OpenGate { early: false }))));
    }

    /// A user's call that is recorded, up to both talking.
    fn talking_recorded(change: impl FnOnce(&mut Config)) -> (Story, CallKey, String, TapeSetup) {
        let (mut story, call, invite) = Story::answered_recorded(change);
        story.accepted();
        let setup = story.expect_record();
        (story, call, invite, setup)
    }

    /// The user hangs up.
    fn hung_up(&mut self, call: CallKey) {
        self.terminate("wacid.1", true);
        let bye = self.expect_sip("BYE");
        self.pbx_says(&bye, "200 OK", "");
        self.line_closes(call);
    }
}

fn whole() -> Finished {
    Finished {
        outcome: Outcome::Complete,
        millis: 26_000,
        bytes: 832_000,
        sha256: "ab".repeat(32),
        ..Finished::default()
    }
}

#[test]
fn a_recorded_call_is_closed_when_its_file_is_finished_and_its_record_says_all_of_it() {
    let (mut story, call, _, setup) = Story::talking_recorded(|config| {
        config.recording.announce_to = AnnounceTo::Both;
        config.numbers[0].recording_as.keep_days = Some(7);
    });
    assert_eq!(setup.terms.ask.mode, ConsentMode::Announce);
    assert_eq!((setup.language.as_str(), setup.config.keep_days, setup.terms.both), ("de", 7, true));
    assert_eq!((setup.number.as_str(), setup.account.as_str()), ("support", "acme"));
    let prompted = story.now.wall;
    story.tape_says(call, TapeNews::Prompted);
    story.wait(Duration::from_secs(4));
    let began = story.now.wall;
    story.tape_says(call, TapeNews::Shared);
    story.tape_says(call, TapeNews::Answered(Consent::Announced));
    let kept: Vec<_> =
        story.asked.iter().map(|part| (part.prompted_at, part.consent, part.announced_to_both)).collect();
    let (first, last) = (kept.first().copied(), kept.last().copied());
    assert_eq!(
        first,
        Some((Some(prompted), Consent::Unfinished, false)),
        "kept before a power cut can take it"
    );
    assert_eq!(last, Some((Some(prompted), Consent::Announced, true)), "so is the answer");
    assert_eq!(story.asked.last().and_then(|part| part.began_at), Some(began));
    story.tell(Input::Tape { call, event: TapeEvent::Begun });
    story.wait(Duration::from_secs(26));
    story.hung_up(call);
    assert!(story.records.is_empty(), "the recorder is still writing");
    story.wait(Duration::from_secs(1));
    story.tell(Input::Tape { call, event: TapeEvent::Finished(Box::new(whole())) });
    let record = story.over(Why::UserHungUp);
    assert!(record.recording);
    let part = record.tape.expect("its recording's part");
    assert_eq!((part.prompt.as_str(), part.announced_to_both), ("builtin:de", true));
    assert_eq!(
        (part.prompted_at, part.consent, part.began_at),
        (Some(prompted), Consent::Announced, Some(began))
    );
    assert_eq!((part.format, part.encrypted), ("wav", false));
    assert_eq!(part.file, whole());
}

#[test]
fn a_record_says_what_its_file_is_although_the_settings_change_between_the_question_and_the_answer() {
    let (mut story, call, _, setup) = Story::talking_recorded(|_| {});
    story.tape_says(call, TapeNews::Prompted);
    story.recorded(|config| {
        config.recording.format = TapeFormat::Ogg;
        config.recording.encrypt_to = vec!["age1".into()];
    });
    story.tape_says(call, TapeNews::Answered(Consent::Announced));
    assert_eq!((setup.config.format, setup.config.encrypt_to.len()), (TapeFormat::WavPcm, 0));
    story.hung_up(call);
    story.tell(Input::Tape { call, event: TapeEvent::Finished(Box::new(whole())) });
    let part = story.over(Why::UserHungUp).tape.expect("its recording's part");
    assert_eq!((part.format, part.encrypted), ("wav", false));
}

#[test]
fn a_number_may_ask_in_its_own_words_and_a_no_leaves_nothing_to_wait_for() {
    let (mut story, call, _, setup) = Story::talking_recorded(|config| {
        config.recording.consent_language = Some("pt".into());
        config.numbers[0].recording_as.consent = Some(ConsentMode::Ask);
        config.numbers[0].recording_as.prompt = Some(ConsentPrompt::File("/etc/watrunk/ask.wav".into()));
        config.numbers[0].recording_as.beep_seconds = Some(15);
    });
    assert_eq!(setup.terms.ask.mode, ConsentMode::Ask);
    assert_eq!((setup.terms.ask.key, setup.terms.beep), ('1', Some(Duration::from_secs(15))));
    assert_eq!(setup.language, "pt");
    story.tape_says(call, TapeNews::Prompted);
    story.tape_says(call, TapeNews::Answered(Consent::Declined));
    assert_eq!(
        story.asked.last().map(|part| part.consent),
        Some(Consent::Declined),
        "a no is kept at once too"
    );
    story.wait(Duration::from_secs(30));
    story.hung_up(call);
    let part = story.over(Why::UserHungUp).tape.expect("what was asked and answered");
    assert_eq!((part.prompt.as_str(), part.consent, part.began_at), ("ask.wav", Consent::Declined, None));
    assert_eq!(part.file, Finished::default());
}

#[test]
fn who_hangs_up_during_the_prompt_has_agreed_to_nothing() {
    let (mut story, call, _, _) =
        Story::talking_recorded(|config| config.recording.announce_to = AnnounceTo::Both);
    story.tape_says(call, TapeNews::Prompted);
    story.wait(Duration::from_secs(1));
    story.hung_up(call);
    let part = story.over(Why::UserHungUp).tape.expect("that it was begun to be asked");
    assert_eq!((part.consent, part.file.outcome), (Consent::Unfinished, Outcome::Nothing));
    assert!(!part.announced_to_both, "the destination has not heard it either");
}

#[test]
fn a_recorder_that_fails_is_told_to_the_line_whether_its_word_or_the_answer_comes_first() {
    for answered_first in [true, false] {
        let (mut story, call, _, _) = Story::talking_recorded(|_| {});
        let answer = |story: &mut Story| story.tape_says(call, TapeNews::Answered(Consent::Agreed));
        story.tape_says(call, TapeNews::Prompted);
        if answered_first {
            answer(&mut story);
        }
        story.tell(Input::Tape { call, event: TapeEvent::Failed("too many at once".into()) });
        if !answered_first {
            answer(&mut story);
        }
        assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::StopTape))), "{answered_first}");
        assert!(story.lines.is_empty());
        story.hung_up(call);
        // It is closed at once: nothing is waited for.
        let part = story.over(Why::UserHungUp).tape.expect("that it was asked");
        assert_eq!((part.consent, part.file.outcome), (Consent::Agreed, Outcome::Failed));
        assert_eq!(part.file.error.as_deref(), Some("too many at once"));
    }
}

#[test]
fn a_recorder_that_hangs_does_not_keep_a_call_from_being_closed() {
    let (mut story, call, _, _) = Story::talking_recorded(|_| {});
    story.tape_says(call, TapeNews::Answered(Consent::Announced));
    story.wait(Duration::from_secs(10));
    story.hung_up(call);
    story.wait(Duration::from_secs(4));
    assert!(story.records.is_empty());
    story.wait(Duration::from_secs(2));
    let part = story.records[0].tape.clone().expect("as far as it is known");
    assert_eq!(part.file.outcome, Outcome::Running);
    story.over(Why::UserHungUp);
}

#[test]
fn a_call_that_the_disk_does_not_take_goes_on_and_its_record_says_why_there_is_no_file() {
    let (mut story, call, _, _) = Story::talking_recorded(|_| {});
    story.tape_says(call, TapeNews::Answered(Consent::Announced));
    story.tell(Input::Tape { call, event: TapeEvent::Failed("the disk is full".into()) });
    assert_eq!(story.gateway.view_calls()[0].state, "talking");
    assert!(
        matches!(story.lines.pop_front(), Some((_, LineOrder::StopTape))),
        "nobody hears a beep any more"
    );
    story.wait(Duration::from_secs(10));
    story.hung_up(call);
    let record = story.over(Why::UserHungUp);
    let part = record.tape.expect("that it was asked");
    assert_eq!((part.file.outcome, part.file.error.as_deref()), (Outcome::Failed, Some("the disk is full")));
    assert!(record.errors.iter().any(|(_, what)| what.contains("the disk is full")), "{:?}", record.errors);
}

#[test]
fn a_number_that_was_taken_out_before_anybody_was_asked_leaves_a_record_that_says_so() {
    let (mut story, call, invite) = Story::answered_recorded(|_| {});
    story.recorded(|config| config.numbers.clear());
    story.accepted();
    assert!(story.lines.is_empty(), "nobody is asked");
    story.wait(Duration::from_secs(10));
    story.pbx_hangs_up(&invite);
    story.graph_agrees("terminate");
    story.line_closes(call);
    let record = story.over(Why::FarHungUp);
    let file = record.tape.expect("why there is no recording").file;
    assert_eq!(file.outcome, Outcome::Failed);
    assert_eq!(file.error.as_deref(), Some("its number is no longer configured"));
    assert!(record.errors.iter().any(|(_, what)| what.starts_with("not recorded: ")), "{:?}", record.errors);
}

#[test]
fn a_program_pauses_a_recording_that_runs_and_no_other() {
    let (mut story, call, _, _) = Story::talking_recorded(|_| {});
    let id = story.gateway.view_calls()[0].id.clone();
    let record = |on| Command::Record { id: id.clone(), on };
    let asked = |story: &mut Story, on| {
        story.tell(Input::Asked { ticket: Ticket(1), command: record(on) });
        story.told.pop_front().expect("an answer").1
    };
    let shown = |story: &Story| story.gateway.view_calls()[0].recording;
    story.tape_says(call, TapeNews::Prompted);
    assert_eq!(shown(&story), Some("asking"));
    assert_eq!(asked(&mut story, false), Err(Refusal::NotNow { state: "asking for consent" }));
    story.tape_says(call, TapeNews::Answered(Consent::Agreed));
    assert_eq!(asked(&mut story, false), Ok(Answer::Recording { id: id.clone(), paused: true }));
    assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::PauseTape(true)))));
    assert_eq!(shown(&story), Some("running"), "until the line says that it has paused");
    story.tape_says(call, TapeNews::Paused(true));
    assert_eq!(shown(&story), Some("paused"));
    assert_eq!(asked(&mut story, true), Ok(Answer::Recording { id: id.clone(), paused: false }));
    assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::PauseTape(false)))));
    story.tell(Input::Tape { call, event: TapeEvent::Failed("the disk is full".into()) });
    assert_eq!(asked(&mut story, false), Err(Refusal::NotNow { state: "not recording" }));
    assert_eq!(shown(&story), None);
}

#[test]
fn a_key_that_the_pbx_tells_by_info_reaches_the_recording() {
    let (mut story, call, invite, _) =
        Story::talking_recorded(|config| config.recording.pause_key = Some('*'));
    let info = |story: &mut Story, cseq| {
        let find = |name: &str| {
            let prefix = format!("{name}: ");
            invite.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default().to_owned()
        };
        let body = "Signal=*\r\nDuration=160\r\n";
        let info = format!(
            "INFO sip:gw@192.0.2.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKi{cseq}\r\n\
             From: {};tag=pbx1\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} INFO\r\nMax-Forwards: 70\r\n\
             Content-Type: application/dtmf-relay\r\nContent-Length: {}\r\n\r\n{body}",
            find("To"),
            find("From"),
            find("Call-ID"),
            body.len()
        );
        story.tell(Input::Sip { from: Way::udp(story.pbx), bytes: info.into_bytes() });
        story.expect_sip("SIP/2.0 200");
    };
    info(&mut story, 20);
    assert!(story.lines.is_empty(), "nothing is recorded yet");
    story.tape_says(call, TapeNews::Answered(Consent::Announced));
    info(&mut story, 21);
    assert!(matches!(story.lines.pop_front(), Some((_, LineOrder::FarDigit('*')))));
}

#[test]
fn who_places_a_call_may_have_it_recorded_or_not_whatever_the_number_says() {
    for (number, record, expected) in
        [(false, None, false), (true, None, true), (false, Some(true), true), (true, Some(false), false)]
    {
        let mut story = Story::with_trunk_up();
        story.recorded(|config| config.numbers[0].recording = number);
        let to = Callee::parse("+4915112345678").unwrap();
        let place = PlaceCall { number: "support".into(), to, destination: None, record };
        story.tell(Input::Asked { ticket: Ticket(1), command: Command::Call(Box::new(place)) });
        story.wait(Duration::from_millis(1));
        let noted = story.noted.last().expect("a running call");
        assert_eq!((noted.recording, noted.placed_by), (expected, PlacedBy::Api), "{number}, {record:?}");
    }
}

#[test]
fn a_call_that_is_not_to_be_recorded_asks_nobody() {
    let (mut story, call, _) = Story::talking("wacid.1");
    assert!(story.lines.is_empty());
    story.hung_up(call);
    let record = story.over(Why::UserHungUp);
    assert_eq!((record.recording, record.tape), (false, None));
}
