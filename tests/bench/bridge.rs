//! What a bridged call costs beside the codec that it cannot do without.
//!
//! One frame of 20 ms both ways through the bridge (`from_user`, `from_far`, `tick`) against libopus
//! alone (decode to 8 kHz, encode from 8 kHz) with the same settings on the same frames. Default
//! mode: CPU time of the process, medians of interleaved rounds, a table, a few seconds.
//!
//! ```text
//! cargo bench --bench bridge
//! ```
//!
//! Time is noisy where the machine is shared. Instructions are not: `--count bridge N` and
//! `--count opus N` do nothing but N frames, after the same preparation, so the difference of two N
//! is the cost of the frames alone:
//!
//! ```text
//! cargo bench --no-run --bench bridge          # prints the path of the program
//! for what in bridge opus; do for n in 500 1500; do
//!   valgrind --tool=callgrind --callgrind-out-file=/dev/null <program> --count $what $n 2>&1 |
//!     grep Collected
//! done; done                                   # (1500 - 500) / 1000 = instructions per frame
//! ```

use audiopus::coder::{Decoder, Encoder};
use audiopus::packet::Packet;
use audiopus::{Application, Bandwidth, Bitrate, Channels, MutSignals, SampleRate, Signal};
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;
use watrunk::clock::Tick;
use watrunk::media::{
    Bridge, BridgeSettings, Codec, DtmfFormat, FarMedia, Outgoing, Seeds, UserPacket, g711,
};

/// Frames of speech that are played over and over: ten seconds.
const FRAMES: usize = 500;
const ROUNDS: usize = 15;
const COMPLEXITY: u8 = 5;
const BITRATE: u32 = 20_000;
/// Per cent of loss that the encoder expects from the start, as the bridge sets it.
const LOSS: u8 = 5;

/// What both contestants are given.
struct Speech {
    /// Opus as WhatsApp sends it.
    opus: Vec<Vec<u8>>,
    /// RTP datagrams of µ-law as a PBX sends them, sequence and timestamp to be filled in.
    far: Vec<Vec<u8>>,
    /// The same frames as linear sound.
    linear: Vec<[i16; 160]>,
}

/// Syllables of a gliding voice over a little noise.
fn voice(at: usize, dice: &mut u32) -> i16 {
    let time = at as f64 / 48_000.0;
    let syllable = (time * 3.0 * std::f64::consts::PI).sin().powi(2);
    let phase = time * 140.0 + 3.0 * (time * 1.3 * std::f64::consts::TAU).sin();
    let voice: f64 =
        (1..12).map(|n| (phase * f64::from(n) * std::f64::consts::TAU).sin() / f64::from(n)).sum();
    *dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    (voice * syllable * 7_000.0) as i16 + ((*dice >> 16) % 128) as i16 - 64
}

fn speech() -> audiopus::Result<Speech> {
    let mut encode = Encoder::new(SampleRate::Hz48000, Channels::Mono, Application::Voip)?;
    encode.set_bitrate(Bitrate::BitsPerSecond(BITRATE as i32))?;
    encode.set_max_bandwidth(Bandwidth::Wideband)?;
    encode.set_inband_fec(true)?;
    encode.set_packet_loss_perc(LOSS)?;
    let mut dice = 1;
    let mut speech = Speech { opus: Vec::new(), far: Vec::new(), linear: Vec::new() };
    for frame in 0..FRAMES {
        let wide: Vec<i16> = (frame * 960..(frame + 1) * 960).map(|at| voice(at, &mut dice)).collect();
        let mut packet = [0u8; 400];
        let length = encode.encode(&wide, &mut packet)?;
        speech.opus.push(packet[..length].to_vec());
        let mut datagram = vec![0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        datagram.extend(wide.iter().step_by(6).map(|sample| g711::to_pcmu(*sample)));
        let mut linear = [0i16; 160];
        for (sample, code) in linear.iter_mut().zip(&datagram[12..]) {
            *sample = g711::from_pcmu(*code);
        }
        speech.far.push(datagram);
        speech.linear.push(linear);
    }
    Ok(speech)
}

/// libopus and nothing else.
struct Alone {
    decode: Decoder,
    encode: Encoder,
    at: usize,
}

impl Alone {
    fn new() -> audiopus::Result<Alone> {
        let mut encode = Encoder::new(SampleRate::Hz8000, Channels::Mono, Application::Voip)?;
        encode.set_signal(Signal::Voice)?;
        encode.set_complexity(COMPLEXITY)?;
        encode.set_bitrate(Bitrate::BitsPerSecond(BITRATE as i32))?;
        encode.set_inband_fec(true)?;
        encode.set_packet_loss_perc(LOSS)?;
        encode.set_dtx(false)?;
        Ok(Alone { decode: Decoder::new(SampleRate::Hz8000, Channels::Mono)?, encode, at: 0 })
    }

    /// One frame both ways; how many bytes it made.
    fn frame(&mut self, speech: &Speech) -> audiopus::Result<usize> {
        let n = self.at % FRAMES;
        self.at += 1;
        let mut heard = [0i16; 160];
        let packet = Packet::try_from(speech.opus[n].as_slice())?;
        let samples = self.decode.decode(Some(packet), MutSignals::try_from(&mut heard[..])?, false)?;
        let mut said = [0u8; 400];
        let bytes = self.encode.encode(&speech.linear[n], &mut said)?;
        Ok(samples + bytes)
    }
}

/// What is agreed on with the PBX.
fn media(codec: Codec, pt: u8, events: bool) -> FarMedia {
    FarMedia {
        codec,
        pt,
        dtmf: events.then_some(DtmfFormat { pt: 101, clock: 8_000 }),
        comfort_noise: None,
        sends: true,
        speaks: true,
        digits_told: false,
    }
}

/// The bridge, fed as the network would.
struct Bridged {
    bridge: Box<Bridge>,
    out: Outgoing,
    at: usize,
    now: Tick,
}

impl Bridged {
    fn new() -> Result<Bridged, watrunk::media::MediaError> {
        let mut bridge = Box::new(Bridge::new(BridgeSettings {
            opus_pt: 111,
            user_dtmf_pt: Some(126),
            jitter_ms: 60,
            complexity: COMPLEXITY,
            bitrate: BITRATE,
            seeds: Seeds {
                user_ssrc: 1,
                user_seq: 2,
                user_timestamp: 3,
                far_ssrc: 4,
                far_seq: 5,
                far_timestamp: 6,
            },
        })?);
        bridge.set_far(media(Codec::Pcmu, 0, true))?;
        bridge.open_gate();
        Ok(Bridged { bridge, out: Outgoing::default(), at: 0, now: Tick::from_millis(1_000) })
    }

    /// One frame both ways; how many bytes it made.
    fn frame(&mut self, speech: &mut Speech) -> usize {
        let n = self.at % FRAMES;
        let sequence = self.at as u16;
        let packet = UserPacket {
            ssrc: 9,
            payload_type: 111,
            marker: false,
            sequence,
            timestamp: (self.at as u32).wrapping_mul(960),
            payload: &speech.opus[n],
        };
        self.bridge.from_user(&packet, self.now);
        let datagram = &mut speech.far[n];
        datagram[2..4].copy_from_slice(&sequence.to_be_bytes());
        datagram[4..8].copy_from_slice(&(self.at as u32).wrapping_mul(160).to_be_bytes());
        let taken = self.bridge.from_far(datagram, self.now).is_ok();
        self.bridge.tick(self.now, &mut self.out);
        self.now += Duration::from_millis(20);
        self.at += 1;
        let said = self.out.to_user.as_ref().map_or(0, |frame| frame.payload.len());
        usize::from(taken) + said + self.out.to_far.len()
    }
}

/// CPU time of this process in microseconds.
fn cpu() -> nix::Result<f64> {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
    Ok(time.tv_sec() as f64 * 1e6 + time.tv_nsec() as f64 / 1e3)
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut speech = speech()?;
    let (mut alone, mut bridged) = (Alone::new()?, Bridged::new()?);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--count") {
        let what = arguments.get(at + 1).map(String::as_str);
        let frames: usize = arguments.get(at + 2).ok_or("--count bridge|opus N")?.parse()?;
        let mut made = 0;
        for _ in 0..frames {
            made += match what {
                Some("bridge") => bridged.frame(&mut speech),
                Some("opus") => alone.frame(&speech)?,
                _ => return Err("--count bridge|opus N".into()),
            };
        }
        println!("{frames} frames, {made} made");
        return Ok(());
    }
    let (mut opus, mut bridge) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let begun = cpu()?;
        for _ in 0..FRAMES {
            std::hint::black_box(alone.frame(&speech)?);
        }
        let between = cpu()?;
        for _ in 0..FRAMES {
            std::hint::black_box(bridged.frame(&mut speech));
        }
        let ended = cpu()?;
        // The first round warms the caches and fills the jitter buffers.
        if round > 0 {
            opus.push((between - begun) / FRAMES as f64);
            bridge.push((ended - between) / FRAMES as f64);
        }
    }
    let ratio = median(bridge.iter().zip(&opus).map(|(bridge, opus)| bridge / opus).collect());
    let (opus, bridge) = (median(opus), median(bridge));
    println!(
        "20 ms both ways, complexity {COMPLEXITY}, {BITRATE} bit/s, median of {ROUNDS} rounds of {FRAMES} frames"
    );
    println!("  libopus alone    {opus:8.1} us CPU");
    println!("  bridge           {bridge:8.1} us CPU");
    println!("  bridge / libopus {ratio:8.3}    (aim: at most 1.25)");
    println!("  calls per core   {:8.0}    (sound only, no sockets, no SRTP)", 20_000.0 / bridge);
    Ok(())
}
