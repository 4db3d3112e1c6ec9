//! Digits: RFC 4733 telephone-events in from WhatsApp and out to the PBX; and in from the PBX.
//!
//! WhatsApp stamps its events on the audio's 48 kHz clock and counts their duration at 8 kHz. They
//! are not passed on but made anew, on the PBX's clock and in the place of audio packets:
//!
//! ```text
//!  in    ts=T (48 kHz)                                     E   E   E
//!        M 160  320  480  640 ...                 D-160    D   D   D     durations in 1/8000 s
//!        │                                                 │
//!  tick  0    20   40   60   80                           n    n+1  n+2  n+3
//!  out   M160 320  480  640  800 ...                      E D  E D  E D  audio
//!        └──── ts = t (8 kHz) in all of them ───────────────────────┘    ts = t + 160·(n+3)
//!        seq s  s+1  s+2 ...                                             one line, no hole
//! ```
//!
//! The duration that is sent never runs ahead of the one that was heard, so the PBX hears exactly
//! the length that was pressed. Duplicates, a lost start and lost ends change nothing: every packet
//! of an event names it by its timestamp, and silence of 200 ms ends it. A press longer than 0xFFFF
//! (8.19 s) is cut into segments (RFC 4733 §2.5.1.3), in and out. A sender that lets the duration wrap instead is
//! understood too. Where the PBX counts events at 48 kHz, stamps and durations are six times these.

use crate::clock::Tick;
use heapless::Deque;
use std::time::Duration;

/// Digits 0 to 9, star, hash, A to D, and flash (RFC 4733 §3.2).
const LAST_EVENT: u8 = 16;
/// An event of which nothing was heard for so long is over: its end was lost.
const OVER_AFTER: Duration = Duration::from_millis(200);
/// Presses that may wait to be said; more than anyone types in the time of one digit.
const WAITING: usize = 16;
/// One tick in units of 1/8000 s.
const TICK: u32 = 160;
/// The longest duration of one segment.
const SEGMENT: u32 = 0xFFFF;
/// 48 kHz units in one of 8 kHz.
const RATIO: u32 = 6;
/// The fastest clock of events, in multiples of 8 kHz.
pub const MOST_RATIO: u32 = RATIO;
/// A duration that falls back by more than this has wrapped.
const WRAPPED: u32 = 0x8000;
/// The last packet of an event is sent three times (RFC 4733 §2.5.1.4).
const ENDS: u8 = 3;

/// The four bytes of a telephone-event (RFC 4733 §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Which key: 0 to 9 are the digits, 10 star, 11 hash, 12 to 15 A to D, 16 flash.
    pub code: u8,
    /// The E bit.
    pub end: bool,
    /// Level below 0 dBm0, 0 to 63.
    pub volume: u8,
    /// In units of 1/8000 s.
    pub duration: u16,
}

impl Event {
    /// Reads a payload; `None` if it is too short. What follows the first event is left alone.
    pub fn read(payload: &[u8]) -> Option<Event> {
        let [code, flags, high, low, ..] = *payload else { return None };
        Some(Event {
            code,
            end: flags & 0x80 != 0,
            volume: flags & 0x3F,
            duration: u16::from_be_bytes([high, low]),
        })
    }

    /// The payload of this event.
    pub fn write(self) -> [u8; 4] {
        let [high, low] = self.duration.to_be_bytes();
        [self.code, (u8::from(self.end) << 7) | (self.volume & 0x3F), high, low]
    }
}

/// One press of a key, as far as it was heard. Durations on the clock on which they are heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Press {
    code: u8,
    volume: u8,
    heard: u32,
    over: bool,
}

/// What is being heard.
#[derive(Debug, Clone, Copy)]
struct Hearing {
    code: u8,
    /// Timestamp of the present segment.
    timestamp: u32,
    /// Durations of the segments before it.
    before: u32,
    /// Longest duration heard in the present segment.
    longest: u32,
    at: Tick,
    over: bool,
    /// It is over because its sender said so, and not for want of packets.
    ended: bool,
}

/// What is being said.
#[derive(Debug, Clone, Copy)]
struct Saying {
    timestamp: u32,
    /// Durations of the segments before the present one.
    before: u32,
    said: u32,
    ends: u8,
}

/// An event packet to send in the place of audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// Set on the first packet of a press.
    pub marker: bool,
    /// When the press (or its segment) began, on the PBX's 8 kHz clock.
    pub timestamp: u32,
    /// The payload.
    pub event: Event,
}

/// Digits on their way through.
#[derive(Debug)]
pub struct Digits {
    hearing: Option<Hearing>,
    presses: Deque<Press, WAITING>,
    saying: Option<Saying>,
    heard: u32,
    /// Presses thrown away because too many were waiting.
    overflow: u32,
}

impl Digits {
    /// None heard yet.
    pub fn new() -> Digits {
        Digits { hearing: None, presses: Deque::new(), saying: None, heard: 0, overflow: 0 }
    }

    /// Keys pressed since the beginning, flash not counted.
    pub fn heard(&self) -> u32 {
        self.heard
    }

    /// Presses thrown away because too many were waiting.
    pub fn overflow(&self) -> u32 {
        self.overflow
    }

    /// Takes in one event packet, with its timestamp on whatever clock the sender counts.
    pub fn hear(&mut self, event: Event, marker: bool, timestamp: u32, now: Tick) {
        if event.code > LAST_EVENT {
            return;
        }
        let duration = u32::from(event.duration);
        let Some(hearing) = &mut self.hearing else {
            self.press(event, timestamp, now);
            return;
        };
        let later = timestamp.wrapping_sub(hearing.timestamp) as i32;
        if later == 0 && event.code == hearing.code {
            // The same press. After its end this is a duplicate of the end, or an update overtaken by it.
            if !hearing.over {
                hearing.at = now;
                if duration + WRAPPED < hearing.longest {
                    hearing.before += SEGMENT + 1;
                    hearing.longest = 0;
                }
                hearing.longest = hearing.longest.max(duration);
                hearing.over = event.end;
                hearing.ended = event.end;
                self.tell();
            }
            return;
        }
        // An older press, come late: it was said already. A stream that begins anew is not older
        // than a minute.
        if later <= 0 && later > -(60 * 48_000) {
            return;
        }
        let continues = !hearing.ended
            && !marker
            && event.code == hearing.code
            && hearing.longest + 2 * TICK * RATIO >= SEGMENT
            && [SEGMENT, SEGMENT * RATIO]
                .iter()
                .any(|segment| later.abs_diff(*segment as i32) <= 2 * TICK * RATIO);
        if continues {
            hearing.before += SEGMENT;
            hearing.timestamp = timestamp;
            hearing.longest = duration;
            hearing.at = now;
            hearing.ended = event.end;
            // Where the seam was lost, the press has been given up: what is left of it is no new one.
            if !hearing.over {
                hearing.over = event.end;
                self.tell();
            }
            return;
        }
        // A new key: the one before is over, even if its end was lost.
        if !hearing.over {
            hearing.over = true;
            self.tell();
        }
        self.press(event, timestamp, now);
    }

    fn press(&mut self, event: Event, timestamp: u32, now: Tick) {
        let duration = u32::from(event.duration);
        self.hearing = Some(Hearing {
            code: event.code,
            timestamp,
            before: 0,
            longest: duration,
            at: now,
            over: event.end,
            ended: event.end,
        });
        if event.code < LAST_EVENT {
            self.heard = self.heard.saturating_add(1);
        }
        let press = Press { code: event.code, volume: event.volume, heard: duration.max(1), over: event.end };
        if self.presses.push_back(press).is_err() {
            self.overflow = self.overflow.saturating_add(1);
            // Nothing more of this press is to reach the one that waits before it.
            if let Some(hearing) = &mut self.hearing {
                hearing.over = true;
            }
        }
    }

    /// Hands what is being heard on to the press that will be, or is being, said.
    fn tell(&mut self) {
        if let (Some(hearing), Some(press)) = (&self.hearing, self.presses.back_mut())
            && !press.over
        {
            press.heard = press.heard.max(hearing.before + hearing.longest);
            press.over = hearing.over;
        }
    }

    /// Called on every tick: ends a press whose end was lost.
    pub fn pass_time(&mut self, now: Tick) {
        if let Some(hearing) = &mut self.hearing
            && !hearing.over
            && now - hearing.at >= OVER_AFTER
        {
            hearing.over = true;
            self.tell();
        }
    }

    /// What to send to the PBX on this tick instead of audio; `timestamp` is what the audio would
    /// have borne on the clock of its events, which is `ratio` times as fast as the one they were heard on.
    pub fn say(&mut self, timestamp: u32, ratio: u32) -> Option<Said> {
        let press = *self.presses.front()?;
        let (tick, pressed) = (TICK * ratio, press.heard.saturating_mul(ratio));
        let marker = self.saying.is_none();
        let saying = self.saying.get_or_insert(Saying { timestamp, before: 0, said: 0, ends: 0 });
        let event = |end: bool, duration: u32| Event {
            code: press.code,
            end,
            volume: press.volume,
            duration: duration.min(SEGMENT) as u16,
        };
        let reached = (saying.said + tick).min(pressed.max(tick)).max(saying.said);
        let limit = saying.before + SEGMENT;
        if saying.said == limit && reached > limit {
            // The segment is full and was said to be: the next one begins where it ended.
            saying.before += SEGMENT;
            saying.timestamp = saying.timestamp.wrapping_add(SEGMENT);
        }
        saying.said = reached.min(saying.before + SEGMENT);
        let duration = saying.said - saying.before;
        let ending = press.over && saying.said >= pressed;
        let said = Said { marker, timestamp: saying.timestamp, event: event(ending, duration) };
        if ending {
            saying.ends += 1;
            if saying.ends >= ENDS {
                self.saying = None;
                self.presses.pop_front();
            }
        }
        Some(said)
    }

    /// The next key that was released, and for how many ms it was pressed, for one who is told of presses instead of
    /// hearing them. Durations were heard on a clock of `ratio` times 8 kHz. Flash is no key.
    pub fn released(&mut self, ratio: u32) -> Option<(char, u32)> {
        while self.presses.front().is_some_and(|press| press.over) {
            let press = self.presses.pop_front()?;
            let key = match press.code {
                code @ 0..=9 => char::from(b'0' + code),
                10 => '*',
                11 => '#',
                code @ 12..=15 => char::from(b'A' + code - 12),
                _ => continue,
            };
            return Some((key, press.heard / (8 * ratio)));
        }
        None
    }

    /// Forgets what waits to be said: the far side cannot hear it.
    pub fn forget(&mut self) {
        self.presses.clear();
        self.saying = None;
        if let Some(hearing) = &mut self.hearing {
            hearing.over = true;
        }
    }
}

#[cfg(test)]
#[path = "dtmf_tests.rs"]
mod tests;
