//! The clip that WhatsApp hears while the PBX holds a call: a WAV file, read once at start.

use std::path::Path;

use crate::media::Clip;

/// The one rate that is taken, in Hz.
const RATE: u32 = 8_000;

/// The sound of this file: mono, 8 kHz, 16-bit PCM.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read(path: &Path) -> Result<Clip, String> {
    let said = |what: String| format!("media.hold_clip {}: {what}", path.display());
    let mut file = hound::WavReader::open(path).map_err(|error| said(error.to_string()))?;
    let spec = file.spec();
    if (spec.channels, spec.sample_rate, spec.bits_per_sample) != (1, RATE, 16) {
        let hint = "make one with: sox IN.wav -r 8000 -c 1 -b 16 OUT.wav";
        return Err(said(format!(
            "it must be mono, {RATE} Hz and 16-bit, and has {} channels, {} Hz and {} bits ({hint})",
            spec.channels, spec.sample_rate, spec.bits_per_sample
        )));
    }
    let samples: Result<Vec<i16>, _> = file.samples::<i16>().collect();
    Clip::new(samples.map_err(|error| said(error.to_string()))?).map_err(|error| said(error.to_string()))
}
