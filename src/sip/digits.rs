//! Digits by INFO: read from the PBX's, sent one after the other in ours (application/dtmf-relay).

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::{Now, Tick};

use super::Core;
use super::call::{Asking, Call};
use super::serve::{Asked, warning};
use super::transaction::Owner;
use super::trunk::Trunk;
use super::wire::{Request, Response};
use super::words::Event;

/// How long a digit is taken to be when INFO does not say, in milliseconds.
const USUAL_DIGIT: u32 = 160;
/// More digits than these do not wait.
const MOST_WAITING: usize = 64;
/// The pause between two digits: a PBX that plays them as tones must be able to keep them apart.
const PAUSE: Duration = Duration::from_millis(50);

/// Digits on their way to the PBX.
#[derive(Debug, Default)]
pub(crate) struct Digits {
    waiting: VecDeque<(char, u32)>,
    /// The one whose answer is awaited.
    under_way: Option<(char, u32)>,
    /// When the one before has been pressed long enough.
    free: Tick,
    /// When the next one goes out.
    due: Option<Tick>,
}

impl Digits {
    pub fn next(&self) -> Option<Tick> {
        self.due
    }

    fn drop_all(&mut self) {
        self.waiting.clear();
        self.under_way = None;
        self.due = None;
    }
}

impl Call {
    /// A digit to the PBX.
    pub(crate) fn send_digit(&mut self, digit: char, millis: u32, trunk: &Trunk, core: &mut Core, now: Now) {
        let digit = digit.to_ascii_uppercase();
        if !self.talking() || !is_digit(digit) || self.digits.waiting.len() >= MOST_WAITING {
            tracing::debug!("a digit that cannot be sent is dropped");
            return;
        }
        self.digits.waiting.push_back((digit, millis.clamp(40, 10_000)));
        self.next_digit(trunk, core, now);
    }

    /// The next digit, if its turn has come.
    pub(crate) fn next_digit(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        if !self.talking() {
            return self.digits.drop_all();
        }
        if self.digits.under_way.is_some() || self.digits.waiting.is_empty() {
            self.digits.due = None;
            return;
        }
        if self.digits.free > now.tick {
            self.digits.due = Some(self.digits.free);
            return;
        }
        self.digits.due = None;
        self.digits.under_way = self.digits.waiting.pop_front();
        self.digest.begin();
        self.inform(trunk, core, now);
    }

    fn inform(&mut self, trunk: &Trunk, core: &mut Core, now: Now) {
        let Some((digit, millis)) = self.digits.under_way else { return };
        let body = format!("Signal={digit}\r\nDuration={millis}\r\n").into_bytes();
        let body = Some(("application/dtmf-relay", body));
        self.digits.free = now.tick + Duration::from_millis(u64::from(millis)) + PAUSE;
        let asking =
            Asking { method: "INFO", owner: Owner::Info(self.number), contact: false, headers: vec![], body };
        self.ask(asking, trunk, core, now);
    }

    /// The answer to our INFO; `None`: there was none.
    pub(crate) fn digit_answered(
        &mut self,
        response: Option<&Response>,
        trunk: &Trunk,
        core: &mut Core,
        now: Now,
    ) {
        let code = response.map_or(408, |response| response.code);
        if code < 200 {
            return;
        }
        if response.is_some_and(|response| self.challenged(response, trunk)) {
            return self.inform(trunk, core, now);
        }
        if code >= 300 {
            tracing::warn!(code, "the PBX does not take digits by INFO");
            return self.digits.drop_all();
        }
        self.digits.under_way = None;
        self.next_digit(trunk, core, now);
    }

    /// INFO of the PBX: a digit, or nothing we know (RFC 6086).
    pub(crate) fn informed(&mut self, asked: &Asked<'_>, core: &mut Core, now: Now) {
        let request = asked.request;
        if let Some((digit, millis)) = digit(request) {
            asked.reply(200, core, now, |_| {});
            if self.live() {
                core.tell(Event::Digit { leg: self.leg, digit, millis });
            }
            return;
        }
        if let Some(package) =
            request.headers.get("Info-Package").filter(|package| !package.trim().is_empty())
        {
            tracing::debug!(package, "INFO of a package that nobody asked for");
            return asked.reply(469, core, now, |draft| draft.push("Recv-Info", ""));
        }
        if request.body.is_empty() {
            return asked.reply(200, core, now, |_| {});
        }
        asked.reply(415, core, now, |draft| {
            draft.push("Accept", "application/dtmf-relay, application/dtmf");
            draft.push("Warning", warning("only digits are understood in INFO"));
        });
    }
}

fn is_digit(digit: char) -> bool {
    matches!(digit, '0'..='9' | '*' | '#' | 'A'..='D')
}

/// A digit by INFO: `Signal=5` and `Duration=160` (application/dtmf-relay), or just `5`
/// (application/dtmf).
fn digit(request: &Request) -> Option<(char, u32)> {
    let body = String::from_utf8_lossy(&request.body);
    let value = |wanted: &str| {
        body.lines()
            .filter_map(|line| line.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.trim().to_owned())
    };
    let (signal, millis) = match request.content_type().as_deref() {
        Some("application/dtmf-relay") => {
            (value("Signal")?, value("Duration").and_then(|millis| millis.parse().ok()))
        }
        // Some senders confuse the two.
        Some("application/dtmf") => (value("Signal").unwrap_or_else(|| body.trim().to_owned()), None),
        Some(_) | None => return None,
    };
    // Numbers above 9 are the events of RFC 4733 §3.2.
    let digit = match signal.as_str() {
        "10" => '*',
        "11" => '#',
        "12" => 'A',
        "13" => 'B',
        "14" => 'C',
        "15" => 'D',
        one => {
            let mut chars = one.chars();
            chars.next().filter(|_| chars.next().is_none())?.to_ascii_uppercase()
        }
    };
    is_digit(digit).then_some((digit, millis.unwrap_or(USUAL_DIGIT).clamp(20, 10_000)))
}
