//! Stories of a line that is recorded: prompt, key, pause.

use super::*;
use crate::call::recording::Consent;
use crate::config::ConsentMode;
use crate::media::tap::Said;

const PATIENCE: Duration = Duration::from_secs(3);

fn terms(mode: ConsentMode) -> TapeTerms {
    let ask = crate::call::consent::Terms { mode, key: '1', patience: PATIENCE };
    TapeTerms { ask, both: false, beep: None, pause_key: Some('*') }
}

/// A second of sound.
fn prompt() -> Arc<Clip> {
    Arc::new(Clip::new(vec![3_000; 8_000]).unwrap())
}

/// The line, its clock, and what it has told and given so far.
struct Taped {
    line: Line,
    now: Tick,
    out: Outgoing,
    news: Vec<(u64, TapeNews)>,
    slices: Vec<crate::media::tap::Slice>,
    digits: String,
}

impl Taped {
    fn new(mode: ConsentMode) -> Taped {
        Taped::with(line(true, true), terms(mode))
    }

    fn with(mut line: Line, terms: TapeTerms) -> Taped {
        line.record(terms, prompt());
        let (now, out) = (Tick::ZERO, Outgoing::default());
        Taped { line, now, out, news: Vec::new(), slices: Vec::new(), digits: String::new() }
    }

    fn run(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.line.tick(self.now, &mut self.out);
            self.slices.extend(self.out.tapped.take());
            self.digits.extend(self.out.digit.map(|(key, _)| key));
            let millis = (self.now - Tick::ZERO).as_millis() as u64;
            while let Some(news) = self.line.tape_news() {
                self.news.push((millis, news));
            }
            self.now += Duration::from_millis(20);
        }
    }

    /// The user presses a key for 100 ms.
    fn user_presses(&mut self, key: u8, sequence: u16) {
        for n in 1..=5_u16 {
            let duration = (n * 160).to_be_bytes();
            let end = if n == 5 { 0x80 } else { 0 };
            let payload = [key, end | 7, duration[0], duration[1]];
            let packet = UserPacket {
                ssrc: 9,
                payload_type: 126,
                marker: n == 1,
                sequence: sequence + n,
                timestamp: u32::from(sequence) * 960,
                payload: &payload,
            };
            self.line.from_user(&packet, self.now);
            self.run(1);
        }
    }

    /// The destination presses a key for 100 ms.
    fn far_presses(&mut self, key: u8, sequence: u16) {
        for n in 1..=5_u16 {
            let mut packet = sound(sequence + n);
            packet.truncate(12);
            packet[1] = 101 | if n == 1 { 0x80 } else { 0 };
            packet[4..8].copy_from_slice(&(u32::from(sequence) * 160).to_be_bytes());
            let duration = (n * 160).to_be_bytes();
            packet.extend([key, if n == 5 { 0x87 } else { 7 }, duration[0], duration[1]]);
            self.line.from_far(&packet, address(PBX), self.now);
            self.run(1);
        }
    }

    fn answers(&self) -> Vec<TapeNews> {
        self.news.iter().map(|(_, news)| *news).collect()
    }
}

#[test]
fn who_is_told_is_recorded_from_the_end_of_the_prompt_on() {
    let mut taped = Taped::new(ConsentMode::Announce);
    taped.run(200);
    assert_eq!(taped.news, [(0, TapeNews::Prompted), (1_240, TapeNews::Answered(Consent::Announced))]);
    assert_eq!(taped.slices.len(), 137, "from the tick after the answer on");
    assert_eq!(taped.slices[0].at, 0);
}

#[test]
fn what_was_said_before_the_prompts_end_could_be_heard_is_not_kept() {
    let mut taped = Taped::new(ConsentMode::Announce);
    for n in 0..100_u16 {
        // The destination talks until 200 ms after the prompt's last sound has left: that is loud, and 0xff is silence.
        let mut packet = sound(n);
        if n < 60 {
            packet[12..]
                .iter_mut()
                .enumerate()
                .for_each(|(at, code)| *code = if at % 16 < 8 { 0x20 } else { 0xa0 });
        }
        taped.line.from_far(&packet, address(PBX), taped.now);
        taped.run(1);
    }
    assert!(taped.slices.len() > 30 && !taped.line.is_apart());
    for slice in &taped.slices {
        let Said::Linear(frame) = &slice.far else { continue };
        let loudest = frame.iter().map(|sample| sample.unsigned_abs()).max();
        assert!(loudest < Some(100), "{loudest:?} in slice {}", slice.at);
    }
}

#[test]
fn who_is_asked_is_recorded_from_the_key_on_and_nobody_else_hears_of_the_key() {
    let mut taped = Taped::new(ConsentMode::Ask);
    taped.run(20);
    taped.user_presses(1, 10);
    assert!(taped.line.is_apart(), "a moment of quiet follows, in which keys go nowhere else either");
    taped.user_presses(2, 20);
    taped.run(100);
    assert_eq!(taped.answers(), [TapeNews::Prompted, TapeNews::Answered(Consent::Agreed)]);
    assert_eq!(taped.news[1].0, 480 + 240, "the prompt is cut short when the key is released");
    assert_eq!(taped.slices.len(), 93, "from the tick after the answer on");
    assert!(taped.digits.is_empty() && !taped.line.is_apart());
}

#[test]
fn a_prompt_that_the_pbx_has_heard_too_is_told_and_one_that_it_has_not_is_not() {
    for (both, sends) in [(true, true), (true, false), (false, true)] {
        let mut taped = Taped::with(line(sends, true), TapeTerms { both, ..terms(ConsentMode::Announce) });
        taped.run(100);
        let shared = taped.answers().contains(&TapeNews::Shared);
        assert_eq!(shared, both && sends, "both: {both}, sends: {sends}: {:?}", taped.news);
    }
}

#[test]
fn a_recording_that_is_stopped_takes_nothing_down_and_no_key_pauses_it() {
    let mut taped = Taped::new(ConsentMode::Announce);
    taped.run(100);
    let slices = taped.slices.len();
    assert!(slices > 0);
    taped.line.stop_recording();
    taped.far_presses(10, 10);
    taped.line.pause(true);
    taped.run(50);
    assert_eq!(taped.slices.len(), slices);
    assert_eq!(taped.answers().len(), 2, "there is nothing to pause: {:?}", taped.news);
}

#[test]
fn who_presses_nothing_or_another_key_is_not_recorded_and_talks_all_the_same() {
    for key in [None, Some(2)] {
        let mut taped = Taped::new(ConsentMode::Ask);
        taped.run(60);
        if let Some(key) = key {
            taped.user_presses(key, 10);
        }
        assert_eq!(taped.line.is_apart(), key.is_none());
        taped.run(200);
        assert_eq!(taped.answers(), [TapeNews::Prompted, TapeNews::Answered(Consent::Declined)], "{key:?}");
        if key.is_none() {
            assert_eq!(taped.news[1].0, 4_000, "a second of prompt and three of patience");
        }
        assert!(taped.slices.is_empty() && !taped.line.is_apart());
    }
}

#[test]
fn a_key_on_the_destinations_phone_pauses_the_recording_and_the_next_one_goes_on_with_it() {
    let mut taped = Taped::new(ConsentMode::Announce);
    taped.far_presses(10, 10);
    taped.run(100);
    taped.far_presses(5, 40);
    taped.run(20);
    assert_eq!(
        taped.answers().len(),
        2,
        "neither a key before the recording nor another one pauses: {:?}",
        taped.news
    );
    taped.far_presses(10, 70);
    taped.run(50);
    taped.far_presses(10, 100);
    taped.run(50);
    // Told by INFO, and by a program.
    taped.line.far_pressed('*');
    taped.line.pause(true);
    taped.run(10);
    taped.line.pause(false);
    taped.run(10);
    let paused = [TapeNews::Paused(true), TapeNews::Paused(false)];
    assert_eq!(taped.answers()[2..], [paused, paused].concat());
    let silent = taped.slices.iter().filter(|slice| slice.paused).count();
    assert!((58..=68).contains(&silent), "{silent}");
    assert!(taped.slices.iter().all(|slice| slice.paused == (slice.user == Said::Nothing)));
    assert!((0..).zip(&taped.slices).all(|(at, slice)| slice.at == at), "time goes on");
}

#[test]
fn a_line_is_asked_once_however_often_it_is_told() {
    let mut taped = Taped::new(ConsentMode::Announce);
    taped.run(60);
    taped.line.record(terms(ConsentMode::Ask), prompt());
    taped.run(60);
    assert_eq!(taped.answers().len(), 2);
    assert!(!taped.line.is_apart());
}
