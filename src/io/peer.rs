//! The WhatsApp leg's WebRTC: the one door to the `webrtc` crate. Offer in, answer out, RTP in and out.
//!
//! Full ICE and controlling (the offer handed in always says `a=ice-lite`), DTLS client, ECDSA P-256,
//! Opus and telephone-event only, RTCP reports and nothing else. What Meta gets to see of the answer is
//! written by [`crate::whatsapp::sdp`], not here.

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
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
const CHECKS: u16 = 150;

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
}

/// One WebRTC connection.
pub struct Peer {
    connection: Arc<dyn PeerConnection>,
    track: Arc<TrackLocalStaticRTP>,
    ssrc: u32,
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
        let mut engine = MediaEngine::default();
        let codec = |rtp_codec: RTCRtpCodec, payload_type: u8| RTCRtpCodecParameters {
            rtp_codec,
            payload_type,
            ..Default::default()
        };
        engine
            .register_codec(codec(opus(), settings.opus_pt), RtpCodecKind::Audio)
            .map_err(said("registering Opus"))?;
        if let Some(pt) = settings.dtmf_pt {
            let event = RTCRtpCodec {
                mime_type: MIME_TYPE_TELEPHONE_EVENT.to_owned(),
                clock_rate: 8_000,
                channels: 0,
                sdp_fmtp_line: "0-16".to_owned(),
                rtcp_feedback: Vec::new(),
            };
            engine
                .register_codec(codec(event, pt), RtpCodecKind::Audio)
                .map_err(said("registering telephone-event"))?;
        }
        let setting = SettingEngineBuilder::new()
            .with_answering_dtls_role(RTCDtlsRole::Client)
            .with_ice_credentials(settings.ufrag, settings.password)
            .with_ice_connection_attempts(Some(CHECK_INTERVAL), Some(CHECKS))
            .with_ice_timeouts(
                Some(Duration::from_secs(15)),
                Some(Duration::from_secs(30)),
                Some(Duration::from_secs(2)),
            )
            .with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled)
            .with_include_loopback_candidate(true)
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
        Ok(Peer { connection, track, ssrc: settings.ssrc, events })
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

    /// Makes an offer, complete with candidates.
    ///
    /// # Errors
    /// What the stack says, in words.
    pub async fn offer(&mut self) -> Result<String, String> {
        let said = |error: webrtc::error::Error| error.to_string();
        let offer = self.connection.create_offer(None).await.map_err(said)?;
        self.connection.set_local_description(offer).await.map_err(said)?;
        self.described().await
    }

    /// Takes the answer to our offer.
    ///
    /// # Errors
    /// What the stack says, in words.
    pub async fn accept(&self, answer: String) -> Result<(), String> {
        let said = |error: webrtc::error::Error| error.to_string();
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
