//! What the stand-ins say: a tone that is switched on and off at known moments.

/// Ramp of every switching, in milliseconds: a step would click, and a click is no tone.
const RAMP_MS: u32 = 4;

/// A tone in bursts. Silence comes before, between and after them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bursts {
    /// In hertz.
    pub hz: f64,
    /// Level in dBFS; a full-scale sine is 0.
    pub dbfs: f64,
    /// Silence before the first burst, in milliseconds.
    pub lead_ms: u32,
    /// Length of a burst, in milliseconds.
    pub on_ms: u32,
    /// Silence after each burst, in milliseconds.
    pub off_ms: u32,
    /// How many there are.
    pub count: u32,
}

impl Bursts {
    /// When the last burst and its silence are over, in milliseconds from the beginning.
    pub fn end_ms(&self) -> u32 {
        self.lead_ms + self.count * (self.on_ms + self.off_ms)
    }

    /// How open the mouth is at this sample, 0 to 1.
    fn gate(&self, sample: u64, rate: u32) -> f64 {
        let at = |ms: u32| u64::from(ms) * u64::from(rate) / 1_000;
        let Some(since) = sample.checked_sub(at(self.lead_ms)) else { return 0.0 };
        let period = at(self.on_ms + self.off_ms).max(1);
        if since / period >= u64::from(self.count) {
            return 0.0;
        }
        let (inside, on, ramp) = (since % period, at(self.on_ms), at(RAMP_MS).max(1));
        if inside >= on {
            return 0.0;
        }
        (inside.min(on - inside) as f64 / ramp as f64).min(1.0)
    }
}

/// [`Bursts`] as samples.
#[derive(Debug, Clone)]
pub(super) struct Mouth {
    bursts: Bursts,
    rate: u32,
    sample: u64,
}

impl Mouth {
    /// From the beginning, at this many samples a second.
    pub fn new(bursts: Bursts, rate: u32) -> Mouth {
        Mouth { bursts, rate, sample: 0 }
    }

    /// The next samples.
    pub fn say(&mut self, frame: &mut [i16]) {
        let amplitude = 32_767.0 * 10_f64.powf(self.bursts.dbfs / 20.0);
        for out in frame {
            let turns = self.bursts.hz * self.sample as f64 / f64::from(self.rate);
            let value = (turns.fract() * std::f64::consts::TAU).sin() * amplitude;
            *out = (value * self.bursts.gate(self.sample, self.rate)) as i16;
            self.sample += 1;
        }
    }

    /// Whether nothing has been said yet.
    pub fn fresh(&self) -> bool {
        self.sample == 0
    }

    /// Whether everything has been said.
    pub fn done(&self) -> bool {
        self.sample * 1_000 >= u64::from(self.bursts.end_ms()) * u64::from(self.rate)
    }
}
