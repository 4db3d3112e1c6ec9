//! The stand-in for a WhatsApp user and Meta's media relay: a WebRTC telephone, ICE-lite, that calls or is
//! called.

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
use super::measure::{Ear, RATE, Track, dbfs, rms};
use super::tone::{Bursts, Mouth};
use super::{Event, Events, FRAME, FRAME_TIME, tell};
use crate::clock::Tick;
use crate::io::mux::Port;
use crate::io::peer::{self, Dtls, Peer, PeerEvent, PeerSettings};
use crate::io::{clock, random};

/// Payload types, as Meta offers them; where it answers, it takes those of the offer.
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
    sdp: String,
    codecs: Codecs,
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
    /// Packets that came before the call was accepted. Of a call that the user has placed they would start
    /// the timer; of one that rings at the user's they keep the line open, and must say nothing.
    pub early: u64,
    /// The loudest of them, in dBFS.
    pub early_dbfs: Option<f64>,
}

impl Heard {
    fn nothing(origin: Tick) -> Heard {
        Heard { said: Track::new(origin), ear: Ear::new(origin), early: 0, early_dbfs: None }
    }
}

/// What the telephone is told.
pub(super) enum Order {
    /// The business' offer: it calls.
    Offer(String),
    /// The business' answer to our offer.
    Answer(String),
    /// The call is accepted: both may speak.
    Talk,
    /// The call is over: no more sound.
    HangUp,
}

/// The payload types of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Codecs {
    opus: u8,
    dtmf: u8,
}

/// Sound towards the gateway.
struct Voice {
    mouth: peer::Mouth,
    codecs: Codecs,
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

/// The place on the network that a phone begins with.
struct Relay {
    port: Arc<Port>,
    pump: tokio::task::JoinHandle<()>,
    ufrag: String,
    password: String,
    ssrc: u32,
}

impl Relay {
    fn bind() -> Result<Relay, String> {
        let local = std::net::Ipv4Addr::LOCALHOST;
        let port = Port::bind((local, 0).into(), 0).map_err(|error| error.to_string())?;
        let pump = tokio::spawn(Arc::clone(&port).pump());
        let (ufrag, password, ssrc) = (random::token(16), random::token(24), random::word());
        Ok(Relay { port, pump, ufrag, password, ssrc })
    }

    async fn peer(&self, codecs: Codecs, dtls: Dtls) -> Result<Peer, String> {
        let settings = PeerSettings {
            ufrag: self.ufrag.clone(),
            password: self.password.clone(),
            ssrc: self.ssrc,
            opus_pt: codecs.opus,
            dtmf_pt: Some(codecs.dtmf),
            local: std::net::Ipv4Addr::LOCALHOST.into(),
            lite: true,
            dtls,
        };
        Peer::new(self.port.seat(&self.ufrag, &[]), settings).await
    }

    /// In Meta's words, with the fingerprint that the stack has told.
    fn describe(&self, stack: &str, codecs: Codecs, mid: &str, setup: &str) -> Result<String, String> {
        let fingerprint = value(stack, "a=fingerprint:sha-256 ")
            .ok_or_else(|| "the WebRTC stack's SDP has no fingerprint".to_owned())?;
        Ok(Description {
            ufrag: &self.ufrag,
            password: &self.password,
            ssrc: self.ssrc,
            fingerprint,
            port: self.port.number(),
            codecs,
            mid,
            setup,
        }
        .write())
    }
}

/// What follows on the first line that begins so.
fn value<'a>(sdp: &'a str, begin: &str) -> Option<&'a str> {
    sdp.lines().find_map(|line| line.strip_prefix(begin))
}

impl Codecs {
    /// The offer's own numbers, which Meta keeps.
    fn read(offer: &str) -> Option<Codecs> {
        let number = |name: &str| {
            offer.lines().find_map(|line| {
                let (number, codec) = line.strip_prefix("a=rtpmap:")?.split_once(' ')?;
                if codec.eq_ignore_ascii_case(name) { number.parse().ok() } else { None }
            })
        };
        Some(Codecs { opus: number("opus/48000/2")?, dtmf: number("telephone-event/8000")? })
    }
}

impl Phone {
    /// A phone that calls: binds on the loopback and makes the offer. `origin`: when its sound begins to count.
    ///
    /// # Errors
    /// What the stack says.
    pub async fn calling(ladder: Ladder, origin: Tick, events: Events) -> Result<Phone, String> {
        let relay = Relay::bind()?;
        let codecs = Codecs { opus: OPUS, dtmf: DTMF };
        let mut peer = relay.peer(codecs, Dtls::Auto).await?;
        let stack = peer.offer().await?;
        let mid = value(&stack, "a=mid:").ok_or("the WebRTC stack's offer has no mid")?.to_owned();
        let sdp = relay.describe(&stack, codecs, "audio", "actpass")?;
        Ok(Phone::new(relay, peer, mid, sdp, codecs, ladder, origin, events))
    }

    /// A phone that is called: waits for the offer, tells its answer, and goes on as any phone.
    ///
    /// # Errors
    /// What the stack says.
    pub async fn called(
        ladder: Ladder,
        origin: Tick,
        events: Events,
        mut orders: mpsc::Receiver<Order>,
    ) -> Result<Heard, String> {
        let offer = loop {
            match orders.recv().await {
                Some(Order::Offer(offer)) => break offer,
                Some(Order::Answer(_) | Order::Talk | Order::HangUp) => {}
                None => return Ok(Heard::nothing(origin)),
            }
        };
        let phone = Phone::answering(&offer, ladder, origin, events.clone()).await?;
        tell(&events, Event::Described(phone.sdp().to_owned()));
        phone.run(orders).await
    }

    /// Binds on the loopback and answers the offer, as Meta's relay does: as the DTLS client, if it may choose.
    async fn answering(offer: &str, ladder: Ladder, origin: Tick, events: Events) -> Result<Phone, String> {
        let relay = Relay::bind()?;
        let codecs = Codecs::read(offer).ok_or("the offer has no Opus or no telephone-event")?;
        let mid = value(offer, "a=mid:").ok_or("the offer has no mid")?.to_owned();
        let (dtls, setup) = match value(offer, "a=setup:") {
            Some("active") => (Dtls::Server, "passive"),
            Some(_) | None => (Dtls::Client, "active"),
        };
        let mut peer = relay.peer(codecs, dtls).await?;
        let stack = peer.answer(offer.to_owned()).await?;
        let sdp = relay.describe(&stack, codecs, &mid, setup)?;
        Ok(Phone::new(relay, peer, mid, sdp, codecs, ladder, origin, events))
    }

    #[allow(clippy::too_many_arguments, reason = "a constructor: each is a field")]
    fn new(
        relay: Relay,
        peer: Peer,
        mid: String,
        sdp: String,
        codecs: Codecs,
        ladder: Ladder,
        origin: Tick,
        events: Events,
    ) -> Phone {
        Phone { peer, pump: relay.pump, mid, sdp, codecs, ladder, events, heard: Heard::nothing(origin) }
    }

    /// The SDP that Meta's webhook carries.
    pub fn sdp(&self) -> &str {
        &self.sdp
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
                        voice = Some(Voice::new(self.peer.mouth(), self.codecs)?);
                    }
                    Some(Order::HangUp) => voice = None,
                    // One call is enough.
                    Some(Order::Offer(_)) => {}
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
                        if header.payload_type == self.codecs.opus
                            && let Some(length) = decode(&mut decoder, &packet.payload, &mut pcm)
                        {
                            self.heard.ear.hear(clock::tick(), header.timestamp, OPUS_CLOCK, &pcm[..length]);
                        }
                    }
                    Some(TrackRemoteEvent::OnRtpPacket(packet)) => {
                        self.heard.early += 1;
                        let mut pcm = [0; FRAME * 6];
                        if let Some(length) = decode(&mut decoder, &packet.payload, &mut pcm) {
                            let level = dbfs(rms(&pcm[..length]));
                            self.heard.early_dbfs = Some(self.heard.early_dbfs.map_or(level, |l| l.max(level)));
                        }
                    }
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
        Ok(std::mem::replace(&mut self.heard, Heard::nothing(Tick::ZERO)))
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
    fn new(mouth: peer::Mouth, codecs: Codecs) -> Result<Voice, String> {
        let build = || -> audiopus::Result<Encoder> {
            let mut encoder = Encoder::new(SampleRate::Hz16000, Channels::Mono, Application::Voip)?;
            encoder.set_bitrate(Bitrate::BitsPerSecond(20_000))?;
            encoder.set_inband_fec(true)?;
            encoder.set_packet_loss_perc(5)?;
            Ok(encoder)
        };
        Ok(Voice {
            mouth,
            codecs,
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
                self.mouth.send(self.codecs.dtmf, key.down, self.sequence, key.timestamp, &key.payload);
                if key.down {
                    spoke = Spoke::Pressed(key.digit);
                }
            }
            None => {
                let mut packet = [0; 400];
                if let Ok(length) = self.encoder.encode(&wide, &mut packet) {
                    self.mouth.send(
                        self.codecs.opus,
                        first,
                        self.sequence,
                        self.timestamp,
                        &packet[..length],
                    );
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
struct Description<'a> {
    ufrag: &'a str,
    password: &'a str,
    ssrc: u32,
    fingerprint: &'a str,
    port: u16,
    codecs: Codecs,
    mid: &'a str,
    setup: &'a str,
}

impl Description<'_> {
    /// In the order and with the parameters that Meta's relays have today.
    fn write(&self) -> String {
        let Description { ufrag, password, ssrc, fingerprint, port, codecs, mid, setup } = self;
        let Codecs { opus, dtmf } = codecs;
        let stream = "632a909f-1060-4369-96a4-7bd03e291ee7";
        let mut sdp = String::new();
        let mut line = |text: std::fmt::Arguments<'_>| {
            let _ = write!(sdp, "{text}\r\n");
        };
        line(format_args!("v=0"));
        line(format_args!("o=- {} 2 IN IP4 127.0.0.1", clock::now().wall.0));
        line(format_args!("s=-"));
        line(format_args!("t=0 0"));
        line(format_args!("a=group:BUNDLE {mid}"));
        line(format_args!("a=msid-semantic: WMS {stream}"));
        line(format_args!("a=ice-lite"));
        line(format_args!("m=audio {port} UDP/TLS/RTP/SAVPF {opus} {dtmf}"));
        line(format_args!("c=IN IP4 127.0.0.1"));
        line(format_args!("a=rtcp:9 IN IP4 0.0.0.0"));
        // Meta's relays have both, and the one that many can't reach has the higher priority.
        let tail = "typ host generation 0 network-cost 50";
        line(format_args!("a=candidate:1775469887 1 udp 2122260223 127.0.0.1 {port} {tail}"));
        line(format_args!("a=candidate:3355715111 1 udp 2122262783 ::1 {port} {tail}"));
        line(format_args!("a=ice-ufrag:{ufrag}"));
        line(format_args!("a=ice-pwd:{password}"));
        line(format_args!("a=fingerprint:sha-256 {fingerprint}"));
        line(format_args!("a=setup:{setup}"));
        line(format_args!("a=mid:{mid}"));
        line(format_args!("a=sendrecv"));
        line(format_args!("a=msid:{stream} WhatsAppTrack1"));
        line(format_args!("a=rtcp-mux"));
        line(format_args!("a=rtpmap:{opus} opus/48000/2"));
        line(format_args!("a=rtcp-fb:{opus} transport-cc"));
        line(format_args!(
            "a=fmtp:{opus} maxaveragebitrate=20000;maxplaybackrate=16000;minptime=20;\
             sprop-maxcapturerate=16000;useinbandfec=1"
        ));
        line(format_args!("a=rtpmap:{dtmf} telephone-event/8000"));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::mux::Seat;

    fn events() -> (Events, mpsc::Receiver<(Tick, Event)>) {
        mpsc::channel(16)
    }

    /// An offer of the business: other payload types than Meta's own.
    async fn offer(dtls: Dtls) -> (Relay, Arc<Seat>, Peer, String) {
        let relay = Relay::bind().unwrap();
        let settings = PeerSettings {
            ufrag: relay.ufrag.clone(),
            password: relay.password.clone(),
            ssrc: relay.ssrc,
            opus_pt: 96,
            dtmf_pt: Some(97),
            local: std::net::Ipv4Addr::LOCALHOST.into(),
            lite: false,
            dtls,
        };
        let seat = relay.port.seat(&relay.ufrag, &[]);
        let mut peer = Peer::new(Arc::clone(&seat), settings).await.unwrap();
        let offer = peer.offer().await.unwrap();
        (relay, seat, peer, offer)
    }

    #[tokio::test]
    async fn a_phone_that_is_called_keeps_the_offers_numbers_and_takes_the_part_in_dtls_that_is_left() {
        for (dtls, setup) in [(Dtls::Auto, "active"), (Dtls::Client, "passive"), (Dtls::Server, "active")] {
            let (_relay, _seat, _peer, offer) = offer(dtls).await;
            let (said, _heard) = events();
            let phone = Phone::answering(&offer, Ladder::new(true), clock::tick(), said).await.unwrap();
            let answer = phone.sdp();
            assert_eq!(value(answer, "a=setup:"), Some(setup), "{answer}");
            assert_eq!(value(answer, "a=mid:"), value(&offer, "a=mid:"));
            assert_eq!(Codecs::read(answer), Some(Codecs { opus: 96, dtmf: 97 }));
            assert!(answer.contains("a=ice-lite\r\n") && answer.contains("UDP/TLS/RTP/SAVPF 96 97\r\n"));
        }
    }

    #[tokio::test]
    async fn a_phone_that_is_called_counts_what_comes_before_it_answers_and_how_loud_that_is() {
        let (relay, seat, peer, offer) = offer(Dtls::Auto).await;
        let (said, mut told) = events();
        let (orders, given) = mpsc::channel(4);
        let phone = tokio::spawn(Phone::called(Ladder::new(true), clock::tick(), said, given));
        orders.send(Order::Offer(offer)).await.unwrap();
        let Some((_, Event::Described(answer))) = told.recv().await else { panic!("no answer") };
        // Its IPv6 candidate is of no use here.
        let answer: Vec<&str> = answer.lines().filter(|line| !line.contains(" ::1 ")).collect();
        let port: u16 =
            value(&answer.join("\n"), "m=audio ").unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(seat.add_remotes(&[([127, 0, 0, 1], port).into()]));
        peer.accept(answer.join("\r\n") + "\r\n").await.unwrap();
        let mut business = Voice::new(peer.mouth(), Codecs { opus: 96, dtmf: 97 }).unwrap();
        // Silence at first, then the tone: what comes in time is told by its level.
        let mut track = Track::new(clock::tick());
        let connected = tokio::time::timeout(Duration::from_secs(10), async {
            while !matches!(told.recv().await, Some((_, Event::Connected))) {}
        });
        connected.await.unwrap();
        let mut ticker = interval(Duration::from_millis(5));
        for _ in 0..40 {
            ticker.tick().await;
            business.speak(&mut track);
        }
        drop(orders);
        let heard = phone.await.unwrap().unwrap();
        assert!(heard.early > 10, "{}", heard.early);
        assert!(heard.early_dbfs.unwrap() > -30.0, "the tone was there: {:?}", heard.early_dbfs);
        assert_eq!(heard.ear.packets(), 0, "nothing of it counts as heard");
        drop(relay);
    }
}
