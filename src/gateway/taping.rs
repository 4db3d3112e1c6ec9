//! Recording a call: who may be recorded, and what a key or a program does to it.

use std::time::Duration;

use super::desk::{Answer, Refusal};
use super::line::{TapeNews, TapeTerms};
use super::live::Live;
use super::port::{LineOrder, Output, TapeEvent, TapeSetup};
use super::{CallKey, Gateway};
use crate::call::consent::Terms;
use crate::call::recording::{Outcome, RecordingPart};
use crate::clock::{Now, Tick};
use crate::config::{AnnounceTo, ConsentPrompt, NumberConfig};
use crate::media::prompt;
use crate::media::tape::Form;

/// The recorder finishes a file within this time, or the record is written without its last facts.
const FINISHING: Duration = Duration::from_secs(5);

/// Where the recording of a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TapeState {
    /// Not asked for, or not yet.
    #[default]
    None,
    /// The user is being told or asked.
    Asking,
    /// What is said is taken down, or silence instead.
    Running {
        /// Silence.
        paused: bool,
    },
    /// The file is finished, or there is none.
    Over,
}

impl TapeState {
    /// The word in the API, as long as there is something to tell: stable.
    pub const fn word(self) -> Option<&'static str> {
        match self {
            TapeState::Asking => Some("asking"),
            TapeState::Running { paused: false } => Some("running"),
            TapeState::Running { paused: true } => Some("paused"),
            TapeState::None | TapeState::Over => None,
        }
    }
}

impl Live {
    /// When the record is written even if the recorder has said nothing: only once the sound is gone.
    pub fn tape_deadline(&self) -> Option<Tick> {
        self.tape_until.filter(|_| matches!(self.taping, TapeState::Running { .. }))
    }

    /// The recorder still has something to say.
    pub fn tape_pending(&self) -> bool {
        matches!(self.taping, TapeState::Running { .. })
    }

    /// The sound is gone: the recorder finishes, and is not waited for too long.
    pub fn tape_ends(&mut self, now: Now) {
        if self.tape_pending() && self.tape_until.is_none() {
            self.tape_until = Some(now.tick + FINISHING);
        }
    }

    /// A recorder that takes too long is not waited for: it tells the history itself.
    pub fn tape_overdue(&mut self, now: Now) {
        if self.tape_deadline().is_some_and(|until| until <= now.tick) {
            tracing::info!(call = %self.id, "the recording is not finished yet, the record is written without");
            self.taping = TapeState::Over;
        }
    }
}

impl Gateway {
    /// Both ends have just begun to talk: a call that is to be recorded is told so, once.
    pub(super) fn ask_to_record(&mut self, key: CallKey) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        if !live.recording || live.tape.is_some() || !live.call.talking() {
            return;
        }
        let Some(number) = self.settings.number(&live.phone_number_id) else {
            tracing::warn!(call = %live.id, "a call is not recorded: its number is no longer configured");
            live.tape = Some(Box::default());
            return self.tape_event(key, TapeEvent::Failed("its number is no longer configured".to_owned()));
        };
        let config = self.settings.recording.for_number(&number.recording_as);
        let setup = TapeSetup {
            terms: TapeTerms {
                ask: Terms {
                    mode: config.consent,
                    key: config.consent_key,
                    patience: Duration::from_secs(config.consent_seconds),
                },
                both: config.announce_to == AnnounceTo::Both,
                beep: config.beep_seconds.map(|seconds| Duration::from_secs(seconds.into())),
                pause_key: config.pause_key,
            },
            language: language(live, number, config.consent_language.as_deref()),
            number: number.id.clone(),
            account: number.account_id.clone(),
            config: Box::new(config),
        };
        live.tape = Some(Box::new(RecordingPart {
            prompt: match &setup.config.consent_prompt {
                ConsentPrompt::Builtin => format!("builtin:{}", setup.language),
                ConsentPrompt::File(path) => {
                    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
                }
            },
            announced_to_both: setup.terms.both,
            ..RecordingPart::default()
        }));
        live.taping = TapeState::Asking;
        live.tape_file = (Form::of(&setup.config).extension(), !setup.config.encrypt_to.is_empty());
        let order = LineOrder::Record(Box::new(setup));
        self.outputs.push_back(Output::Line { call: key, order });
    }

    /// The line tells how the asking goes.
    pub(super) fn tape_said(&mut self, key: CallKey, news: TapeNews, now: Now) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        let Some(part) = &mut live.tape else { return };
        match news {
            TapeNews::Prompted => part.prompted_at = Some(now.wall),
            TapeNews::Answered(consent) => {
                part.consent = consent;
                tracing::info!(call = %live.id, answer = consent.as_str(), "asked whether to record");
                if consent.given() {
                    part.began_at = Some(now.wall);
                    (part.format, part.encrypted) = live.tape_file;
                    part.file.outcome = Outcome::Running;
                    live.taping = TapeState::Running { paused: false };
                    self.outputs.push_back(Output::Agreed { id: live.id.clone(), part: part.clone() });
                } else {
                    live.taping = TapeState::Over;
                }
            }
            TapeNews::Paused(paused) => {
                tracing::info!(call = %live.id, paused, "the recording");
                if live.tape_pending() {
                    live.taping = TapeState::Running { paused };
                }
            }
        }
    }

    /// The recorder tells what becomes of the file.
    pub(super) fn tape_event(&mut self, key: CallKey, event: TapeEvent) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        let Some(part) = &mut live.tape else { return };
        match event {
            TapeEvent::Begun => {}
            TapeEvent::Failed(why) => {
                part.file.outcome = Outcome::Failed;
                part.file.error = Some(why.clone());
                live.taping = TapeState::Over;
                // Not the call's fault, but the one who looks for its recording must find out why there is none.
                live.went_wrong(0, &format!("not recorded: {why}"));
            }
            TapeEvent::Finished(finished) => {
                part.file = *finished;
                live.taping = TapeState::Over;
            }
        }
    }

    /// A program pauses a recording, or goes on with it.
    pub(super) fn pause_tape(&mut self, id: &str, on: bool) -> Result<Answer, Refusal> {
        let (key, live) = self.find(id)?;
        let id = live.id.clone();
        match live.taping {
            TapeState::Running { .. } if !live.call.ending() => {
                self.outputs.push_back(Output::Line { call: key, order: LineOrder::PauseTape(!on) });
                Ok(Answer::Recording { id, paused: !on })
            }
            TapeState::Asking => Err(Refusal::NotNow { state: "asking for consent" }),
            TapeState::None | TapeState::Running { .. } | TapeState::Over => {
                Err(Refusal::NotNow { state: "not recording" })
            }
        }
    }

    /// Whoever talks at the PBX has pressed a key, and the PBX has told it by INFO.
    pub(super) fn far_digit(&mut self, key: CallKey, digit: char, _now: Now) {
        let Some(live) = self.calls.get(&key) else { return };
        // Which key it was may be part of a PIN.
        tracing::debug!(call = %live.id, "a key was pressed at the PBX");
        if live.tape_pending() {
            self.outputs.push_back(Output::Line { call: key, order: LineOrder::FarDigit(digit) });
        }
    }
}

/// In what language the user is spoken to: as configured, or that of the user's number, or of our own if WhatsApp hides
/// the user's.
fn language(live: &Live, number: &NumberConfig, configured: Option<&str>) -> String {
    let phone = live.user.phone.as_deref().unwrap_or(&number.phone_number);
    configured.unwrap_or_else(|| prompt::language_of(phone)).to_owned()
}
