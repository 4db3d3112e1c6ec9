//! Ogg Opus (RFC 7845) as others write it, read into mono sound at 8 kHz.

use super::{LONGEST, RATE};
use crate::media::opus::{Decoder, LONGEST as LONGEST_PACKET, Rate, duration};
use crate::media::playout::Voice as _;
use crate::media::tape::page::{CONTINUED, LAST, NO_PACKET_ENDS, Page};

/// Samples at 48 kHz in one at 8 kHz.
const UNITS: u64 = 6;

/// What the first packet says.
struct Head {
    /// Samples at 48 kHz to leave out at the beginning.
    pre_skip: u16,
    /// What the sound is multiplied with.
    gain: f32,
}

fn opus_head(packet: &[u8]) -> Result<Head, String> {
    if !packet.starts_with(b"OpusHead") {
        return Err("it is an Ogg file, but not of Opus".to_owned());
    }
    let &[version, channels, skip_low, skip_high, _, _, _, _, gain_low, gain_high, family, ..] =
        packet.get(8..).unwrap_or_default()
    else {
        return Err("its Opus head is cut off".to_owned());
    };
    if version >= 16 {
        return Err(format!("its Opus head is of version {version}"));
    }
    if family != 0 || !(1..=2).contains(&channels) {
        return Err(format!(
            "it must be plain mono or stereo Opus, and has {channels} channels of mapping family {family}"
        ));
    }
    // Decibels in 1/256.
    let decibels = f32::from(i16::from_le_bytes([gain_low, gain_high])) / 256.0;
    let pre_skip = u16::from_le_bytes([skip_low, skip_high]);
    Ok(Head { pre_skip, gain: 10f32.powf(decibels / 20.0) })
}

/// Mono samples at 8 kHz.
pub(super) fn read(mut bytes: &[u8]) -> Result<Vec<i16>, String> {
    // One rate for whatever it was made at: Opus decodes to it by itself, and to mono.
    let mut decoder = Decoder::new(Rate::Narrow).map_err(|error| error.to_string())?;
    let mut head: Option<Head> = None;
    let mut serial = None;
    let (mut packet, mut count) = (Vec::new(), 0u32);
    let mut samples: Vec<i16> = Vec::new();
    let mut end = None;
    while let Some(page) = Page::read(&mut bytes).map_err(|error| error.to_string())? {
        // Other streams in the same file are left out.
        if *serial.get_or_insert(page.serial) != page.serial {
            continue;
        }
        if page.flags & CONTINUED == 0 {
            packet.clear();
        }
        for (part, ends) in page.parts() {
            packet.extend_from_slice(part);
            if !ends {
                continue;
            }
            match (&head, count) {
                (None, _) => head = Some(opus_head(&packet)?),
                // The second has the tags.
                (Some(_), 1) => {}
                (Some(_), _) => decode(&mut decoder, &packet, count, &mut samples)?,
            }
            count += 1;
            packet.clear();
            if samples.len() > (LONGEST + 1) * RATE as usize {
                return Err(format!("it must be at most {LONGEST} s long"));
            }
        }
        if page.flags & LAST != 0 {
            end = (page.granule != NO_PACKET_ENDS).then_some(page.granule);
            break;
        }
    }
    let Some(head) = head else { return Err("its first Ogg page is damaged".to_owned()) };
    if let Some(end) = end {
        samples.truncate(usize::try_from(end / UNITS).unwrap_or(usize::MAX));
    }
    let skipped = usize::from(head.pre_skip / UNITS as u16).min(samples.len());
    samples.drain(..skipped);
    if head.gain != 1.0 {
        for sample in &mut samples {
            *sample = (f32::from(*sample) * head.gain) as i16;
        }
    }
    Ok(samples)
}

fn decode(decoder: &mut Decoder, packet: &[u8], count: u32, samples: &mut Vec<i16>) -> Result<(), String> {
    let mut sound = [0i16; LONGEST_PACKET];
    let made = duration(packet).and_then(|_| decoder.decode(0, packet, &mut sound));
    let Some(made) = made else { return Err(format!("its packet {count} is not Opus")) };
    samples.extend(sound.iter().take(made));
    Ok(())
}
