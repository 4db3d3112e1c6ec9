//! The real gateway, on a thread of its own as `watrunk run` has it, with a configuration for the loopback.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::cloud::{BUSINESS, PHONE_NUMBER_ID, Secrets};
use super::pbx;
use crate::config::{Config, SystemSecrets};
use crate::gateway::Input;
use crate::io::{Running, install_tls, random};

/// Ports that are looked for between these two: below the ones that the kernel gives away by itself.
const LOWEST: u32 = 16_384;
const HIGHEST: u32 = 32_000;
const SEARCHES: usize = 200;

/// A folder that goes with its owner.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// A new empty folder among the temporary files.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn new() -> Result<Folder, String> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = std::env::temp_dir().join(format!("watrunk-demo-{}", random::token(12)));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Folder(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the configuration says besides the ports.
pub(super) struct Setting<'a> {
    pub state_dir: &'a Path,
    pub graph_url: String,
    pub secrets: &'a Secrets,
    pub far: FarEnd<'a>,
}

/// Where the calls go.
pub(super) enum FarEnd<'a> {
    /// To a PBX at this address, with this password.
    Pbx(SocketAddr, &'a str),
    /// To a voice agent at this URL.
    Agent(String),
}

/// The configuration, by the same way as an operator's file.
///
/// # Errors
/// When there are no free ports; or faults in the text, which would be a bug.
pub(super) fn config(setting: &Setting<'_>) -> Result<Config, String> {
    // The first are still held when the second are looked for, so no port is in both.
    let (webrtc, _held) = free_ports(2)?;
    let (rtp, _held_too) = free_ports(8)?;
    let Setting { state_dir, graph_url, secrets, far } = setting;
    let (forward_to, trunk) = match far {
        FarEnd::Pbx(pbx, password) => {
            let trunk = format!(
                r#"trunk = "pbx"
[[trunk]]
name = "pbx"
server = "sip:{pbx};transport=udp"
username = "{user}"
password = "{password}"
codecs = ["pcma", "pcmu"]
"#,
                user = pbx::USER,
            );
            (format!("sip:{}@pbx", pbx::EXTENSION), trunk)
        }
        FarEnd::Agent(url) => (url.clone(), String::new()),
    };
    let text = format!(
        r#"[gateway]
name = "demo"
state_dir = {state_dir:?}
max_calls = 2
drain_seconds = 3
[http]
listen = "127.0.0.1:0"
allow_private = true
[whatsapp]
graph_url = "{graph_url}"
app_secret = "{app_secret}"
access_token = "{access_token}"
verify_token = "unused"
[media]
listen_ip = "127.0.0.1"
webrtc_ports = "{webrtc}"
rtp_ports = "{rtp}"
threads = 1
[sip]
listen = "127.0.0.1:0"
[[number]]
id = "demo"
phone_number_id = "{PHONE_NUMBER_ID}"
phone_number = "+{BUSINESS}"
forward_to = "{forward_to}"
{trunk}"#,
        app_secret = secrets.app_secret,
        access_token = secrets.access_token,
    );
    match Config::parse(&text, &SystemSecrets::beside(state_dir)) {
        Ok((config, _notes)) => Ok(config),
        Err(faults) => {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            Err(format!("the demo's own configuration has faults: {}", faults.join("; ")))
        }
    }
}

/// So many free UDP ports in a row, the first of them even, as `first-last`; held until they are dropped.
fn free_ports(count: u16) -> Result<(String, Vec<UdpSocket>), String> {
    for _ in 0..SEARCHES {
        let first = LOWEST + random::word() % (HIGHEST - LOWEST);
        let first = (first & !1) as u16;
        let bound: Result<Vec<UdpSocket>, _> =
            (first..first + count).map(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port))).collect();
        if let Ok(bound) = bound {
            return Ok((format!("{first}-{}", first + count - 1), bound));
        }
    }
    Err(format!("there are no {count} free UDP ports in a row on 127.0.0.1"))
}

/// The running gateway.
pub(super) struct Gateway {
    /// Where its HTTP port is.
    pub http: SocketAddr,
    input: mpsc::Sender<Input>,
    finished: oneshot::Receiver<()>,
}

impl Gateway {
    /// Starts it.
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn start(config: Config) -> Result<Gateway, String> {
        install_tls();
        let (ready_in, ready) = oneshot::channel();
        let (finished_in, finished) = oneshot::channel();
        std::thread::Builder::new()
            .name("gateway".to_owned())
            .spawn(move || {
                let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        let _ = ready_in.send(Err(error.to_string()));
                        return;
                    }
                };
                runtime.block_on(async {
                    match Running::start(config, None).await {
                        Ok(running) => {
                            let _ = ready_in.send(Ok((running.http(), running.input())));
                            running.until_finished(None).await;
                        }
                        Err(error) => {
                            let _ = ready_in.send(Err(error));
                        }
                    }
                });
                runtime.shutdown_timeout(Duration::from_millis(100));
                let _ = finished_in.send(());
            })
            .map_err(|error| format!("the gateway's thread can't be started: {error}"))?;
        let (http, input) = ready.await.map_err(|_| "the gateway died at its start".to_owned())??;
        Ok(Gateway { http, input, finished })
    }

    /// Lets it drain; false if it did not finish in time.
    pub async fn stop(self) -> bool {
        let _ = self.input.send(Input::Drain).await;
        matches!(tokio::time::timeout(Duration::from_secs(8), self.finished).await, Ok(Ok(())))
    }
}
