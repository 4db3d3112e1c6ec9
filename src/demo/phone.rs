//! The stand-in for a WhatsApp user and Meta's media relay: a WebRTC telephone, ICE-lite, as offerer.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use audiopus::coder::{Decoder, Encoder};
use audiopus::packet::Packet;
use audiopus::{Application, Bitrate, Channels, MutSignals, SampleRate};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};

use super::ladder::{Ladder, Lane};
use super::measure::{Ear, RATE, Track};
use super::tone::{Bursts, Mouth};
use super::{Event, Events, FRAME, FRAME_TIME, tell};
use crate::clock::Tick;
use crate::io::mux::Port;
use crate::io::peer::{self, Dtls, Peer, PeerEvent, PeerSettings};
use crate::io::{clock, random};

/// Payload types, as Meta offers them.
const OPUS: u8 = 111;
const DTMF: u8 = 126;
/// Opus' RTP clock (RFC 7587), and what a frame takes of it.
const OPUS_CLOCK: u32 = 48_000;
const STEP: u32 = 960;

/// WhatsApp speaks wide-band.
const WIDE: usize = 320;

/// What the user says.
pub(super) const VOICE: Bursts =
    Bursts { hz: 440.0, dbfs: -15.0, lead_ms: 300, on_ms: 560, off_ms: 340, count: 3 };
/// What the user presses at the end: codes of RFC 4733, and how they are read.
const PRESSED: [(u8, char); 3] = [(4, '4'), (2, '2'), (11, '#')];
pub(super) const DIGITS: &str = "42#";
/// Frames of one press, of its repeated end and of the pause behind it.
const PRESS: u32 = 5;
const ENDS: u32 = 3;
const PAUSE: u32 = 4;
const KEY: u32 = PRESS + ENDS + PAUSE;
/// After the last digit the user waits for as many frames.
const REST: u32 = 15;

/// The telephone.
pub(super) struct Phone {
    peer: Peer,
    pump: tokio::task::JoinHandle<()>,
    mid: String,
    offer: String,
    ladder: Ladder,
    events: Events,
    heard: Heard,
}

impl Drop for Phone {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// What is left of the call.
pub(super) struct Heard {
    /// The sound that was said, at 8 kHz.
    pub said: Track,
    /// The sound that was heard.
    pub ear: Ear,
    /// Packets that came before the call was accepted: they would start the caller's timer.
    pub early: u64,
}

/// What the telephone is told.
pub(super) enum Order {
    /// The business' answer to our offer.
    Answer(String),
    /// The call is accepted: both may speak.
    Talk,
    /// The call is over: no more sound.
    HangUp,
}

/// Sound towards the gateway.
struct Voice {
    mouth: peer::Mouth,
    wide: Mouth,
    narrow: Mouth,
    encoder: Encoder,
    sequence: u16,
    timestamp: u32,
    /// Frames since the digits began.
    keys: u32,
}

/// What 20 ms were.
enum Spoke {
    /// Voice, silence, or a key that is still down.
    Sound,
    /// A key goes down.
    Pressed(char),
    /// Nothing more is to come. Told once.
    Everything,
}

/// One packet of telephone-event.
struct Key {
    digit: char,
    down: bool,
    timestamp: u32,
    payload: [u8; 4],
}

impl Phone {
    /// Binds on the loopback and makes the offer. `origin`: when its sound begins to count.
    ///
    /// # Errors
    /// What the stack says.
    pub async fn new(ladder: Ladder, origin: Tick, events: Events) -> Result<Phone, String> {
        let local = std::net::Ipv4Addr::LOCALHOST;
        let port = Port::bind((local, 0).into(), 0).map_err(|error| error.to_string())?;
        let pump = tokio::spawn(Arc::clone(&port).pump());
        let (ufrag, password, ssrc) = (random::token(16), random::token(24), random::word());
        let settings = PeerSettings {
            ufrag: ufrag.clone(),
            password: password.clone(),
            ssrc,
            opus_pt: OPUS,
            dtmf_pt: Some(DTMF),
            local: local.into(),
            lite: true,
            dtls: Dtls::Auto,
        };
        let mut peer = Peer::new(port.seat(&ufrag, &[]), settings).await?;
        let stack = peer.offer().await?;
        let value = |begin: &str| stack.lines().find_map(|line| line.strip_prefix(begin));
        let (Some(mid), Some(fingerprint)) = (value("a=mid:"), value("a=fingerprint:sha-256 ")) else {
            return Err("the WebRTC stack's offer has no mid or no fingerprint".to_owned());
        };
        let mid = mid.to_owned();
        let offer = Offer { ufrag, password, ssrc, fingerprint, port: port.number() }.write();
        let heard = Heard { said: Track::new(origin), ear: Ear::new(origin), early: 0 };
        Ok(Phone { peer, pump, mid, offer, ladder, events, heard })
    }

    /// The SDP that Meta's webhook carries.
    pub fn offer(&self) -> &str {
        &self.offer
    }

    /// Until `orders` ends.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>) -> Result<Heard, String> {
        let said = |error: audiopus::Error| format!("Opus: {error}");
        let mut decoder = Decoder::new(SampleRate::Hz8000, Channels::Mono).map_err(said)?;
        let mut voice: Option<Voice> = None;
        let mut accepted = false;
        let mut track: Option<Arc<dyn TrackRemote>> = None;
        let mut stack_lives = true;
        let mut ticker = interval(FRAME_TIME);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Answer(sdp)) => {
                        if let Err(error) = self.peer.accept(self.for_stack(&sdp)).await {
                            tell(&self.events, Event::Fault(format!("the phone can't use the answer: {error}")));
                        }
                    }
                    Some(Order::Talk) => {
                        accepted = true;
                        voice = Some(Voice::new(self.peer.mouth())?);
                    }
                    Some(Order::HangUp) => voice = None,
                    None => break,
                },
                event = self.peer.events.recv(), if stack_lives => match event {
                    Some(PeerEvent::Connected) => {
                        self.ladder.arrow(Lane::User, Lane::Watrunk, "ICE and DTLS are up");
                        tell(&self.events, Event::Connected);
                    }
                    Some(PeerEvent::Track(heard)) => track = Some(heard),
                    Some(PeerEvent::Gathered | PeerEvent::Lost(_)) => {}
                    None => stack_lives = false,
                },
                event = next(track.as_ref()) => match event {
                    Some(TrackRemoteEvent::OnRtpPacket(packet)) if accepted => {
                        let header = &packet.header;
                        self.heard.ear.count(header.sequence_number);
                        let mut pcm = [0; FRAME * 6];
                        if header.payload_type == OPUS
                            && let Some(length) = decode(&mut decoder, &packet.payload, &mut pcm)
                        {
                            self.heard.ear.hear(clock::tick(), header.timestamp, OPUS_CLOCK, &pcm[..length]);
                        }
                    }
                    Some(TrackRemoteEvent::OnRtpPacket(_)) => self.heard.early += 1,
                    Some(_) => {}
                    None => track = None,
                },
                _ = ticker.tick() => if let Some(voice) = &mut voice {
                    match voice.speak(&mut self.heard.said) {
                        Spoke::Sound => {}
                        Spoke::Pressed(digit) => {
                            let label = format!("the user presses {digit}");
                            self.ladder.arrow(Lane::User, Lane::Watrunk, &label);
                        }
                        Spoke::Everything => tell(&self.events, Event::Said),
                    }
                },
            }
        }
        let origin = Tick::ZERO;
        let nothing = Heard { said: Track::new(origin), ear: Ear::new(origin), early: 0 };
        Ok(std::mem::replace(&mut self.heard, nothing))
    }

    /// The answer, with the stack's own name for the medium.
    fn for_stack(&self, answer: &str) -> String {
        answer
            .replace("a=mid:audio\r\n", &format!("a=mid:{}\r\n", self.mid))
            .replace("a=group:BUNDLE audio\r\n", &format!("a=group:BUNDLE {}\r\n", self.mid))
    }
}

async fn next(track: Option<&Arc<dyn TrackRemote>>) -> Option<TrackRemoteEvent> {
    match track {
        Some(track) => track.poll().await,
        None => std::future::pending().await,
    }
}

fn decode(decoder: &mut Decoder, payload: &[u8], pcm: &mut [i16]) -> Option<usize> {
    let packet = Packet::try_from(payload).ok()?;
    decoder.decode(Some(packet), MutSignals::try_from(pcm).ok()?, false).ok()
}

impl Voice {
    fn new(mouth: peer::Mouth) -> Result<Voice, String> {
        let build = || -> audiopus::Result<Encoder> {
            let mut encoder = Encoder::new(SampleRate::Hz16000, Channels::Mono, Application::Voip)?;
            encoder.set_bitrate(Bitrate::BitsPerSecond(20_000))?;
            encoder.set_inband_fec(true)?;
            encoder.set_packet_loss_perc(5)?;
            Ok(encoder)
        };
        Ok(Voice {
            mouth,
            wide: Mouth::new(VOICE, 16_000),
            narrow: Mouth::new(VOICE, RATE),
            encoder: build().map_err(|error| format!("Opus: {error}"))?,
            sequence: random::word() as u16,
            timestamp: random::word(),
            keys: 0,
        })
    }

    /// The next 20 ms: first the voice, then the keys.
    fn speak(&mut self, said: &mut Track) -> Spoke {
        let (mut wide, mut narrow) = ([0; WIDE], [0; FRAME]);
        let (first, talking) = (self.wide.fresh(), !self.wide.done());
        self.wide.say(&mut wide);
        self.narrow.say(&mut narrow);
        said.append(clock::tick(), &narrow);
        let mut spoke = Spoke::Sound;
        match if talking { None } else { self.key() } {
            Some(key) => {
                self.mouth.send(DTMF, key.down, self.sequence, key.timestamp, &key.payload);
                if key.down {
                    spoke = Spoke::Pressed(key.digit);
                }
            }
            None => {
                let mut packet = [0; 400];
                if let Ok(length) = self.encoder.encode(&wide, &mut packet) {
                    self.mouth.send(OPUS, first, self.sequence, self.timestamp, &packet[..length]);
                }
            }
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(STEP);
        if !talking {
            self.keys += 1;
        }
        if self.keys == PRESSED.len() as u32 * KEY + REST { Spoke::Everything } else { spoke }
    }

    /// RFC 4733 as WhatsApp sends it: timestamps of the audio's 48 kHz, durations of 8 kHz.
    fn key(&self) -> Option<Key> {
        let (nth, frame) = (self.keys / KEY, self.keys % KEY);
        let (code, digit) = *PRESSED.get(usize::try_from(nth).ok()?)?;
        if frame >= PRESS + ENDS {
            return None;
        }
        let flags = if frame >= PRESS { 0x8a } else { 0x0a };
        let [high, low] = (((frame + 1).min(PRESS) * FRAME as u32) as u16).to_be_bytes();
        let timestamp = self.timestamp.wrapping_sub(frame * STEP);
        Some(Key { digit, down: frame == 0, timestamp, payload: [code, flags, high, low] })
    }
}

/// What changes from call to call in Meta's SDP.
struct Offer<'a> {
    ufrag: String,
    password: String,
    ssrc: u32,
    fingerprint: &'a str,
    port: u16,
}

impl Offer<'_> {
    /// In the order and with the parameters that Meta's relays have today.
    fn write(&self) -> String {
        let Offer { ufrag, password, ssrc, fingerprint, port } = self;
        let stream = "632a909f-1060-4369-96a4-7bd03e291ee7";
        let mut sdp = String::new();
        let mut line = |text: std::fmt::Arguments<'_>| {
            let _ = write!(sdp, "{text}\r\n");
        };
        line(format_args!("v=0"));
        line(format_args!("o=- {} 2 IN IP4 127.0.0.1", clock::now().wall.0));
        line(format_args!("s=-"));
        line(format_args!("t=0 0"));
        line(format_args!("a=group:BUNDLE audio"));
        line(format_args!("a=msid-semantic: WMS {stream}"));
        line(format_args!("a=ice-lite"));
        line(format_args!("m=audio {port} UDP/TLS/RTP/SAVPF {OPUS} {DTMF}"));
        line(format_args!("c=IN IP4 127.0.0.1"));
        line(format_args!("a=rtcp:9 IN IP4 0.0.0.0"));
        // Meta's relays have both, and the one that many can't reach has the higher priority.
        let tail = "typ host generation 0 network-cost 50";
        line(format_args!("a=candidate:1775469887 1 udp 2122260223 127.0.0.1 {port} {tail}"));
        line(format_args!("a=candidate:3355715111 1 udp 2122262783 ::1 {port} {tail}"));
        line(format_args!("a=ice-ufrag:{ufrag}"));
        line(format_args!("a=ice-pwd:{password}"));
        line(format_args!("a=fingerprint:sha-256 {fingerprint}"));
        line(format_args!("a=setup:actpass"));
        line(format_args!("a=mid:audio"));
        line(format_args!("a=sendrecv"));
        line(format_args!("a=msid:{stream} WhatsAppTrack1"));
        line(format_args!("a=rtcp-mux"));
        line(format_args!("a=rtpmap:{OPUS} opus/48000/2"));
        line(format_args!("a=rtcp-fb:{OPUS} transport-cc"));
        line(format_args!(
            "a=fmtp:{OPUS} maxaveragebitrate=20000;maxplaybackrate=16000;minptime=20;\
             sprop-maxcapturerate=16000;useinbandfec=1"
        ));
        line(format_args!("a=rtpmap:{DTMF} telephone-event/8000"));
        line(format_args!("a=maxptime:20"));
        line(format_args!("a=ptime:20"));
        line(format_args!("a=ssrc:{ssrc} cname:WhatsAppAudioStream1"));
        sdp
    }
}

/// How long until all is said and pressed, with room for a slow machine.
pub(super) fn patience() -> Duration {
    Duration::from_millis(u64::from(VOICE.end_ms())) + Duration::from_secs(6)
}
