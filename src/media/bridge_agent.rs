//! An agent on the far side of the bridge: linear sound at its own rate instead of G.711 in RTP.

use super::{Bridge, Far, MediaError, Outgoing, WIDEST};
use crate::media::opus::{self, Rate};

/// A pair of Opus coders of one rate.
pub(super) struct Coders {
    pub(super) decoder: opus::Decoder,
    pub(super) encoder: opus::Encoder,
}

/// What the agent says, one frame ahead, and how much of it there was.
pub(super) struct Speech {
    frame: [i16; WIDEST],
    length: usize,
    /// The agent said something in the tick before this one.
    speaking: bool,
    /// Frames that it said and heard, over the whole call.
    said: u64,
    heard: u64,
}

impl Speech {
    pub(super) fn new() -> Speech {
        Speech { frame: [0; WIDEST], length: 0, speaking: false, said: 0, heard: 0 }
    }

    /// Another agent, or none.
    fn forget(&mut self) {
        self.length = 0;
        self.speaking = false;
    }

    /// Frames of 20 ms that agents said.
    pub(super) fn said(&self) -> u64 {
        self.said
    }

    /// Frames of 20 ms that agents heard.
    pub(super) fn heard(&self) -> u64 {
        self.heard
    }
}

impl Bridge {
    /// The far end is an agent from now on, which speaks linear sound at 8,000, 16,000 or 24,000 Hz: Opus is
    /// decoded and encoded at that rate. It is given what the user says and presses from here on in
    /// [`Outgoing::to_agent`] and [`Outgoing::digit`], and heard by [`Bridge::agent_says`]; nothing is sent to a
    /// PBX, by RTP or RTCP. The numbers of the stream to WhatsApp run on.
    ///
    /// A pair of coders is allocated here for another rate than 8 kHz; the 8 kHz pair is kept, so that
    /// [`Bridge::set_far`] and [`Bridge::alone`] can't fail.
    ///
    /// # Errors
    /// Opus is not spoken at this rate, or libopus could not make a coder: the far end is as it was.
    pub fn set_agent(&mut self, rate: u32) -> Result<(), MediaError> {
        let wanted = Rate::of(rate).ok_or(MediaError::Rate { rate })?;
        let coders = self.coders(wanted)?;
        self.leave();
        self.speak_at(wanted, coders);
        self.far = Far::Agent;
        self.speech.forget();
        self.seam.cut();
        Ok(())
    }

    /// What the agent says in the next tick: exactly 20 ms at its rate. Without it the user hears comfort noise;
    /// said twice, the later one is heard. False if it was not taken: there is no agent, the gate is shut, or the
    /// frame is of another length.
    pub fn agent_says(&mut self, frame: &[i16]) -> bool {
        let fits = self.far == Far::Agent && self.open && frame.len() == self.from_user.voice.rate().frame();
        if fits {
            self.speech.frame[..frame.len()].copy_from_slice(frame);
            self.speech.length = frame.len();
        }
        fits
    }

    /// A pair of coders for this rate, if another one is needed than there is.
    pub(super) fn coders(&self, wanted: Rate) -> Result<Option<Coders>, MediaError> {
        match wanted {
            Rate::Narrow => Ok(None),
            same if same == self.from_user.voice.rate() => Ok(None),
            Rate::Wide | Rate::SuperWide => Ok(Some(Coders {
                decoder: opus::Decoder::new(wanted)?,
                encoder: opus::Encoder::new(wanted, self.settings.complexity, self.settings.bitrate)?,
            })),
        }
    }

    /// From here on everything is spoken at this rate, by the coders that were made for it if need be.
    pub(super) fn speak_at(&mut self, wanted: Rate, coders: Option<Coders>) {
        if wanted == Rate::Narrow {
            self.speak_narrow();
        } else if let Some(coders) = coders {
            let before = self.speak(coders);
            // Between two wider ones the narrow pair is aside already.
            self.narrow.get_or_insert(before);
        }
    }

    /// Back to 8 kHz, for a PBX or nobody.
    pub(super) fn speak_narrow(&mut self) {
        if let Some(mut narrow) = self.narrow.take() {
            narrow.decoder.reset();
            self.speak(narrow);
        }
    }

    /// Other coders from here on; those so far are handed back.
    fn speak(&mut self, mut coders: Coders) -> Coders {
        coders.encoder.succeed(&self.encoder);
        Coders {
            decoder: self.from_user.change(coders.decoder),
            encoder: std::mem::replace(&mut self.encoder, coders.encoder),
        }
    }

    /// The agent's half of a tick that goes out to it.
    pub(super) fn say_to_agent(&mut self, frame: &[i16], out: &mut Outgoing) {
        // A frame is never longer than the buffer.
        let _ = out.to_agent.extend_from_slice(frame);
        out.digit = self.digits.released(1);
        self.speech.heard += 1;
    }

    /// The agent's half of a tick that comes from it; false if it says nothing.
    pub(super) fn hear_agent(&mut self, frame: &mut [i16]) -> bool {
        let speaks = std::mem::take(&mut self.speech.length) == frame.len();
        if speaks {
            frame.copy_from_slice(&self.speech.frame[..frame.len()]);
            self.speech.said += 1;
        } else if self.speech.speaking {
            // It was interrupted, or is late: what it said decays.
            self.seam.cut();
        }
        self.speech.speaking = speaks;
        speaks
    }
}
