//! The WhatsApp leg's WebRTC: the one door to the `webrtc` crate. Offer in, answer out, or the other way
//! round; RTP in and out.
//!
//! Full ICE and controlling, whoever offers (Meta's description as handed in always says `a=ice-lite`), ECDSA
//! P-256, Opus and telephone-event only, RTCP reports and nothing else. As the answerer we are the DTLS
//! client; as the offerer we are what [`Dtls`] says. What Meta gets to see of our descriptions is written by
//! [`crate::whatsapp::sdp`], not here.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_OPUS, MIME_TYPE_TELEPHONE_EVENT};
use rtc::peer_connection::transport::RTCDtlsRole;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use tokio::sync::mpsc;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::TrackRemote;
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCConfigurationBuilder,
    RTCIceGatheringState, RTCPeerConnectionState, RTCSessionDescription, RTCStatsReportEntry, Registry,
    SettingEngineBuilder, StatsSelector, configure_rtcp_reports,
};

use super::mux::{Seat, SeatRuntime};

/// ICE checks go on this long: Meta answers them only once it has our SDP, after `pre_accept`.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
const CHECKS: u16 = 300;

/// What the stack tells about one call.
pub enum PeerEvent {
    /// ICE candidates are complete: the local description can be read.
    Gathered,
    /// ICE and DTLS are up: sound may pass.
    Connected,
    /// The path is gone and won't come back.
    Lost(&'static str),
    /// WhatsApp's sound.
    Track(Arc<dyn TrackRemote>),
}

/// Who begins the DTLS handshake, as far as we have a say (RFC 5763 §5, RFC 8842 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtls {
    /// Offer `actpass` and do what the answer leaves to us; answer `active`. An answer that does not say
    /// (`actpass` is illegal there, and has been seen) is taken for `active`: we wait as the server.
    Auto,
    /// Offer or answer `active`: we are the client.
    Client,
    /// Offer or answer `passive`: we are the server.
    Server,
}

impl Dtls {
    /// What our offer says in `a=setup`.
    fn offered(self) -> &'static str {
        match self {
            Dtls::Auto => "actpass",
            Dtls::Client => "active",
            Dtls::Server => "passive",
        }
    }

    /// What an answer means that does not decide.
    fn presumed_of_answerer(self) -> &'static str {
        match self {
            Dtls::Auto | Dtls::Server => "active",
            Dtls::Client => "passive",
        }
    }

    fn answering(self) -> RTCDtlsRole {
        match self {
            Dtls::Auto | Dtls::Client => RTCDtlsRole::Client,
            Dtls::Server => RTCDtlsRole::Server,
        }
    }
}

/// The description with another `a=setup`; where it has none, one is added to its (only) media section.
fn with_setup(sdp: &str, role: &str) -> String {
    let others = sdp.lines().filter(|line| !line.starts_with("a=setup:") && !line.is_empty());
    let mut written: String = others.map(|line| format!("{line}\r\n")).collect();
    written.push_str(&format!("a=setup:{role}\r\n"));
    written
}

/// Whether the description says who is the DTLS client.
fn decides(sdp: &str) -> bool {
    sdp.lines().any(|line| matches!(line.trim_end(), "a=setup:active" | "a=setup:passive"))
}

/// How to build a peer.
pub struct PeerSettings {
    /// Our ICE user fragment: also what the shared port recognises this call by.
    pub ufrag: String,
    /// Our ICE password.
    pub password: String,
    /// The one SSRC that we send with, for the whole call.
    pub ssrc: u32,
    /// Opus' payload type, as offered.
    pub opus_pt: u8,
    /// telephone-event/8000's payload type, if offered.
    pub dtmf_pt: Option<u8>,
    /// The local address that ICE starts from.
    pub local: IpAddr,
    /// ICE-lite, as Meta's relay is: only the stand-in for it is ever that.
    pub lite: bool,
    /// Our part in the DTLS handshake.
    pub dtls: Dtls,
}

/// One WebRTC connection.
pub struct Peer {
    connection: Arc<dyn PeerConnection>,
    track: Arc<TrackLocalStaticRTP>,
    ssrc: u32,
    dtls: Dtls,
    /// What happens, in order.
    pub events: mpsc::Receiver<PeerEvent>,
}

struct Listener(mpsc::Sender<PeerEvent>);

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Listener {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            let _ = self.0.try_send(PeerEvent::Gathered);
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        let event = match state {
            RTCPeerConnectionState::Connected => PeerEvent::Connected,
            RTCPeerConnectionState::Failed => PeerEvent::Lost("ICE or DTLS failed"),
            RTCPeerConnectionState::Closed => PeerEvent::Lost("the peer closed the connection"),
            _ => return,
        };
        let _ = self.0.try_send(event);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let _ = self.0.try_send(PeerEvent::Track(track));
    }
}

fn opus() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: MIME_TYPE_OPUS.to_owned(),
        clock_rate: 48_000,
        channels: 2,
        sdp_fmtp_line: String::new(),
        rtcp_feedback: Vec::new(),
    }
}

fn codecs(opus_pt: u8, dtmf_pt: Option<u8>) -> Vec<RTCRtpCodecParameters> {
    let with = |rtp_codec: RTCRtpCodec, payload_type: u8| RTCRtpCodecParameters { rtp_codec, payload_type };
    let event = RTCRtpCodec {
        mime_type: MIME_TYPE_TELEPHONE_EVENT.to_owned(),
        clock_rate: 8_000,
        channels: 0,
        sdp_fmtp_line: "0-16".to_owned(),
        rtcp_feedback: Vec::new(),
    };
    let mut codecs = vec![with(opus(), opus_pt)];
    codecs.extend(dtmf_pt.map(|pt| with(event, pt)));
    codecs
}

impl Peer {
    /// Builds a connection on `seat`; nothing is sent before a description is set.
    ///
    /// # Errors
    /// What the stack says, in words.
    pub async fn new(seat: Arc<Seat>, settings: PeerSettings) -> Result<Peer, String> {
        let said = |what: &str| {
            let what = what.to_owned();
            move |error: webrtc::error::Error| format!("{what}: {error}")
        };
        let codecs = codecs(settings.opus_pt, settings.dtmf_pt);
        let mut engine = MediaEngine::default();
        for codec in &codecs {
            engine.register_codec(codec.clone(), RtpCodecKind::Audio).map_err(said("registering a codec"))?;
        }
        let setting = SettingEngineBuilder::new()
            .with_answering_dtls_role(settings.dtls.answering())
            .with_ice_credentials(settings.ufrag, settings.password)
            .with_ice_connection_attempts(Some(CHECK_INTERVAL), Some(CHECKS))
            .with_ice_timeouts(
                Some(Duration::from_secs(15)),
                Some(Duration::from_secs(30)),
                Some(Duration::from_secs(2)),
            )
            .with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled)
            .with_include_loopback_candidate(true)
            .with_lite(settings.lite)
            .build();
        let (events_in, events) = mpsc::channel(32);
        let connection = PeerConnectionBuilder::new()
            .with_configuration(RTCConfigurationBuilder::new().build())
            .with_media_engine(engine)
            .with_setting_engine(setting)
            .with_interceptor_registry(configure_rtcp_reports(Registry::new()))
            .with_runtime(Arc::new(SeatRuntime::new(seat)))
            .with_handler(Arc::new(Listener(events_in)))
            .with_udp_addrs(vec![(settings.local, 0)])
            .build()
            .await
            .map_err(said("building the connection"))?;
        let connection: Arc<dyn PeerConnection> = Arc::new(connection);
        let track = Arc::new(TrackLocalStaticRTP::new(MediaStreamTrack::new(
            "watrunk".to_owned(),
            "audio".to_owned(),
            "audio".to_owned(),
            RtpCodecKind::Audio,
            vec![RTCRtpEncodingParameters {
                rtp_coding_parameters: RTCRtpCodingParameters {
                    ssrc: Some(settings.ssrc),
                    ..Default::default()
                },
                codec: opus(),
                ..Default::default()
            }],
        )));
        connection
            .add_track(Arc::clone(&track) as Arc<dyn TrackLocal>)
            .await
            .map_err(said("adding our track"))?;
        // Left alone, a track allows its own codec only and telephone-event would be struck out.
        for transceiver in connection.get_transceivers().await {
            transceiver.set_codec_preferences(codecs.clone()).await.map_err(said("choosing codecs"))?;
        }
        Ok(Peer { connection, track, ssrc: settings.ssrc, dtls: settings.dtls, events })
    }

    /// Answers `offer`; the result is the stack's own answer, complete with candidates.
    ///
    /// # Errors
    /// What the stack says, in words.
    pub async fn answer(&mut self, offer: String) -> Result<String, String> {
        let said = |error: webrtc::error::Error| error.to_string();
        let offer = RTCSessionDescription::offer(offer).map_err(said)?;
        self.connection.set_remote_description(offer).await.map_err(said)?;
        let answer = self.connection.create_answer(None).await.map_err(said)?;
        self.connection.set_local_description(answer).await.map_err(said)?;
        self.described().await
    }

    /// Makes an offer, complete with candidates and our `a=setup`. Nothing is sent before [`Peer::accept`]:
    /// there is nobody yet to send it to.
    ///
    /// # Errors
    /// What the stack says, in words.
    pub async fn offer(&mut self) -> Result<String, String> {
        let said = |error: webrtc::error::Error| error.to_string();
        let offer = self.connection.create_offer(None).await.map_err(said)?;
        self.connection.set_local_description(offer).await.map_err(said)?;
        Ok(with_setup(&self.described().await?, self.dtls.offered()))
    }

    /// Takes the answer to our offer: ICE checks begin, as the controlling side, and then DTLS in the role
    /// that the answer leaves to us. The seat has to be told the answer's candidates before
    /// ([`Seat::add_remotes`]), or what comes from there is not heard.
    ///
    /// # Errors
    /// What the stack says, in words.
    pub async fn accept(&self, answer: String) -> Result<(), String> {
        let said = |error: webrtc::error::Error| error.to_string();
        let answer =
            if decides(&answer) { answer } else { with_setup(&answer, self.dtls.presumed_of_answerer()) };
        let answer = RTCSessionDescription::answer(answer).map_err(said)?;
        self.connection.set_remote_description(answer).await.map_err(said)
    }

    async fn described(&mut self) -> Result<String, String> {
        // Host candidates only: gathering is done at once, but says so through the event queue.
        let gathered = async {
            while let Some(event) = self.events.recv().await {
                if matches!(event, PeerEvent::Gathered) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), gathered).await;
        let description = self.connection.local_description().await;
        description
            .map(|described| described.sdp)
            .ok_or_else(|| "the stack has no local description".to_owned())
    }

    /// The sending half, to be kept apart from the events.
    pub fn mouth(&self) -> Mouth {
        Mouth { track: Arc::clone(&self.track), ssrc: self.ssrc }
    }

    /// The loss that WhatsApp reports of what we send, in 1/256, by its last receiver report.
    pub async fn reported_loss(&self) -> Option<u8> {
        let report = self.connection.get_stats(Instant::now(), StatsSelector::None).await;
        report.iter().find_map(|entry| match entry {
            RTCStatsReportEntry::RemoteInboundRtp(stats) => {
                Some((stats.fraction_lost * 256.0).clamp(0.0, 255.0) as u8)
            }
            _ => None,
        })
    }

    /// Closes the connection and gives its port back.
    pub async fn close(self) {
        let _ = tokio::time::timeout(Duration::from_secs(2), self.connection.close()).await;
    }
}

/// The sending half of a [`Peer`].
pub struct Mouth {
    track: Arc<TrackLocalStaticRTP>,
    ssrc: u32,
}

impl Mouth {
    /// Sends one RTP packet, or drops it if the stack is not keeping up: sound never waits.
    pub fn send(
        &self,
        payload_type: u8,
        marker: bool,
        sequence: u16,
        timestamp: u32,
        payload: &[u8],
    ) -> bool {
        let packet = rtc::rtp::Packet {
            header: rtc::rtp::Header {
                version: 2,
                marker,
                payload_type,
                sequence_number: sequence,
                timestamp,
                ssrc: self.ssrc,
                ..Default::default()
            },
            // The stack owns its packets: one copy of some sixty bytes.
            payload: Bytes::copy_from_slice(payload),
        };
        matches!(self.track.write_rtp(packet).now_or_never(), Some(Ok(())))
    }
}

#[cfg(test)]
#[path = "peer_tests.rs"]
mod tests;
