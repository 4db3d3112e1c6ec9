//! How good a leg sounds: what was received, lost and invented, its jitter, and a score for it.

use crate::clock::Tick;

/// The sound of one leg as it was received, in plain numbers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Quality {
    /// RTP packets that arrived.
    pub received: u64,
    /// RTP packets that were sent.
    pub sent: u64,
    /// RTP packets that never arrived (RFC 3550 §A.3).
    pub lost: u64,
    /// RTP packets that arrived and were not played: too late, twice, or not understood.
    pub discarded: u64,
    /// 20 ms frames that had to be invented, FEC repairs not counted.
    pub concealed: u64,
    /// 20 ms frames repaired from in-band FEC.
    pub repaired: u64,
    /// Interarrival jitter in milliseconds (RFC 3550 §6.4.1).
    pub jitter_ms: f64,
    /// RTP packets sent to this side that it reports as lost (RFC 3550 §6.4.1); of the PBX only.
    pub reported_lost: u64,
    /// Estimated mean opinion score, 1.0 to 4.5 (ITU-T G.107 simplified); 0.0 when nothing was heard.
    pub mos: f64,
}

/// The bookkeeping of a receiver (RFC 3550 §A.1, §A.3, §A.8), over all SSRCs of a leg.
#[derive(Debug, Clone)]
pub struct Reception {
    /// Hertz of the RTP clock.
    clock: u32,
    source: Option<Source>,
    /// Packets received, and lost, of sources before the present one.
    received: u64,
    lost_before: u64,
    /// Jitter of the source that left, for as long as there is no other; times 16.
    jitter_before: u64,
}

#[derive(Debug, Clone)]
struct Source {
    ssrc: u32,
    first: u64,
    /// The highest sequence number, extended by the cycles.
    highest: u64,
    received: u64,
    /// Expected and received when the last report was made.
    reported: (u64, u64),
    transit: Option<i64>,
    /// Jitter in units of the RTP clock, times 16.
    jitter: u64,
}

/// The numbers of an RTCP report block about what we received (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Whom it is about.
    pub ssrc: u32,
    /// Lost since the last report, in 1/256.
    pub fraction: u8,
    /// Lost in all, 24 bits, signed.
    pub lost: i32,
    /// Highest sequence number with its cycles.
    pub highest: u32,
    /// Jitter in units of the RTP clock.
    pub jitter: u32,
}

impl Source {
    fn expected(&self) -> u64 {
        self.highest - self.first + 1
    }

    fn lost(&self) -> u64 {
        self.expected().saturating_sub(self.received)
    }
}

impl Reception {
    /// Nothing received yet, on a clock of so many hertz.
    pub fn new(clock: u32) -> Reception {
        Reception { clock, source: None, received: 0, lost_before: 0, jitter_before: 0 }
    }

    /// Takes one packet in. `timed` is false for packets whose timestamp is not the time they were
    /// sampled at (digits).
    pub fn heard(&mut self, ssrc: u32, sequence: u16, timestamp: u32, timed: bool, now: Tick) {
        self.received += 1;
        if !timed && self.source.as_ref().is_some_and(|source| source.ssrc != ssrc) {
            // Digits on an SSRC of their own: the sound's books stay open.
            return;
        }
        let begins = |received| Source {
            ssrc,
            // One cycle up, so that a packet before the first one has room.
            first: 0x1_0000 + u64::from(sequence),
            highest: 0x1_0000 + u64::from(sequence),
            received,
            reported: (0, 0),
            transit: None,
            jitter: 0,
        };
        let source = match &mut self.source {
            Some(source) if source.ssrc == ssrc => {
                let step = sequence.wrapping_sub(source.highest as u16) as i16;
                if (-100..=3_000).contains(&step) {
                    source.received += 1;
                    if step > 0 {
                        source.highest += step as u64;
                    }
                    source
                } else {
                    self.lost_before += source.lost();
                    source.clone_from(&begins(1));
                    source
                }
            }
            Some(source) => {
                self.lost_before += source.lost();
                source.clone_from(&begins(1));
                source
            }
            None => self.source.insert(begins(1)),
        };
        if !timed {
            return;
        }
        let arrival = (u128::from(now.0) * u128::from(self.clock) / 1_000_000) as u32;
        let transit = i64::from(arrival.wrapping_sub(timestamp) as i32);
        if let Some(before) = source.transit {
            let difference = (transit - before).unsigned_abs();
            // A jump in timestamps or a pause of the sender is not jitter.
            if difference < u64::from(self.clock) {
                source.jitter = source.jitter + difference - ((source.jitter + 8) >> 4);
            }
        }
        source.transit = Some(transit);
    }

    /// Whom is heard next counts on a clock of so many hertz.
    pub fn retime(&mut self, clock: u32) {
        if clock != self.clock {
            self.leave();
            self.jitter_before = self.jitter_before * u64::from(clock) / u64::from(self.clock);
            self.clock = clock;
        }
    }

    /// Whom we heard is gone: what was counted stays, and reports begin anew with whom is heard next.
    pub fn leave(&mut self) {
        if let Some(source) = self.source.take() {
            self.lost_before += source.lost();
            self.jitter_before = source.jitter;
        }
    }

    /// Packets that arrived.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Packets that never arrived.
    pub fn lost(&self) -> u64 {
        self.lost_before + self.source.as_ref().map_or(0, Source::lost)
    }

    /// Interarrival jitter of the last source, in milliseconds.
    pub fn jitter_ms(&self) -> f64 {
        let units = self.source.as_ref().map_or(self.jitter_before, |source| source.jitter) >> 4;
        units as f64 * 1_000.0 / f64::from(self.clock)
    }

    /// What a report says now; the next one counts its fraction from here.
    pub fn report(&mut self) -> Option<Receipt> {
        let source = self.source.as_mut()?;
        let expected = source.expected();
        let since = expected.saturating_sub(source.reported.0);
        let got = source.received.saturating_sub(source.reported.1);
        source.reported = (expected, source.received);
        let missing = since.saturating_sub(got);
        let fraction = (missing * 256).checked_div(since).unwrap_or(0).min(255) as u8;
        let lost = (expected as i64 - source.received as i64).clamp(-0x80_0000, 0x7F_FFFF) as i32;
        Some(Receipt {
            ssrc: source.ssrc,
            fraction,
            lost,
            highest: (source.highest - 0x1_0000) as u32,
            jitter: (source.jitter >> 4) as u32,
        })
    }
}

/// How a codec stands loss (ITU-T G.113 Appendix I): its impairment without loss, and its
/// robustness. For narrowband Opus no values are standardised; these are cautious.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Robustness {
    /// Equipment impairment `Ie`.
    pub impairment: f64,
    /// Packet-loss robustness `Bpl`.
    pub robustness: f64,
}

/// G.711 with concealment (G.113 table I.4).
pub const G711: Robustness = Robustness { impairment: 0.0, robustness: 25.1 };
/// G.722 at 64 kbit/s (G.113 table I.1 of its wideband part, on the narrowband scale; with concealment like ours).
pub const G722: Robustness = Robustness { impairment: 0.0, robustness: 20.0 };
/// Opus at 8 kHz with concealment; what FEC repaired is not counted as loss.
pub const OPUS: Robustness = Robustness { impairment: 5.0, robustness: 20.0 };

/// Mean opinion score by the E-model with its defaults (ITU-T G.107 §B.4), from the share of
/// frames that had to be invented (0 to 1) and the one-way delay that is known.
pub fn mos(codec: Robustness, invented: f64, delay_ms: f64) -> f64 {
    let percent = invented.clamp(0.0, 1.0) * 100.0;
    let equipment = codec.impairment + (95.0 - codec.impairment) * percent / (percent + codec.robustness);
    let delay = 0.024 * delay_ms + 0.11 * (delay_ms - 177.3).max(0.0);
    let rating = 93.2 - delay - equipment;
    if rating <= 0.0 {
        return 1.0;
    }
    let rating = rating.min(100.0);
    (1.0 + 0.035 * rating + rating * (rating - 60.0) * (100.0 - rating) * 7e-6).clamp(1.0, 4.5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_clean_line_scores_toll_quality_and_a_broken_one_does_not() {
        let clean = mos(G711, 0.0, 60.0);
        assert!((4.3..4.5).contains(&clean), "{clean}");
        let poor = mos(G711, 0.1, 60.0);
        assert!((2.5..3.9).contains(&poor), "{poor}");
        assert!(mos(OPUS, 0.6, 400.0) < 1.6);
    }

    #[test]
    fn lost_packets_are_counted_across_a_wrap_and_a_new_source() {
        let mut reception = Reception::new(8_000);
        for (at, sequence) in [65_533u16, 65_534, 0, 1].into_iter().enumerate() {
            reception.heard(1, sequence, 160 * at as u32, true, Tick::from_millis(20 * at as u64));
        }
        assert_eq!((reception.received(), reception.lost()), (4, 1));
        reception.heard(2, 500, 0, true, Tick::from_millis(100));
        reception.heard(2, 503, 480, true, Tick::from_millis(160));
        assert_eq!((reception.received(), reception.lost()), (6, 3));
    }

    #[test]
    fn a_report_tells_the_fraction_since_the_report_before() {
        let mut reception = Reception::new(8_000);
        let hear = |range: std::ops::Range<u16>, reception: &mut Reception| {
            for sequence in range {
                let at = u64::from(sequence) * 20;
                reception.heard(9, sequence, u32::from(sequence) * 160, true, Tick::from_millis(at));
            }
        };
        hear(0..10, &mut reception);
        assert_eq!(reception.report().map(|report| report.fraction), Some(0));
        hear(15..20, &mut reception);
        let report = reception.report().unwrap();
        assert_eq!((report.fraction, report.lost, report.highest), (128, 5, 19));
        assert_eq!(reception.report().map(|report| report.fraction), Some(0));
    }

    #[test]
    fn jitter_settles_at_the_mean_deviation() {
        let mut reception = Reception::new(8_000);
        for n in 0..2_000u64 {
            let late = if n % 2 == 0 { 0 } else { 10 };
            reception.heard(1, n as u16, n as u32 * 160, true, Tick::from_millis(n * 20 + late));
        }
        let jitter = reception.jitter_ms();
        assert!((9.0..=11.0).contains(&jitter), "{jitter}");
    }

    proptest! {
        #[test]
        fn a_score_is_always_between_one_and_four_and_a_half(invented in -1.0f64..2.0, delay in 0.0f64..5_000.0) {
            for codec in [G711, OPUS] {
                let score = mos(codec, invented, delay);
                prop_assert!((1.0..=4.5).contains(&score), "{}", score);
            }
        }

        #[test]
        fn no_stream_makes_the_books_overflow(packets in proptest::collection::vec(
            (0u32..3, any::<u16>(), any::<u32>(), any::<bool>(), any::<u32>()), 0..200)
        ) {
            let mut reception = Reception::new(48_000);
            for (ssrc, sequence, timestamp, timed, at) in packets {
                reception.heard(ssrc, sequence, timestamp, timed, Tick(u64::from(at)));
                let _ = reception.report();
            }
            prop_assert!(reception.jitter_ms().is_finite());
        }
    }
}
