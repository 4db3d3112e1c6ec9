//! Finished recordings to the operator's own store, from the ledger's queue: one at a time, until the store confirms it
//! has all of it, or it is given up.
//!
//! Confirmed is: 2xx to the `PUT`, and from an S3 store then the same length to a `HEAD` (and the same checksum, if it
//! tells one). A key that may put objects need not be one that may look at them: where the store refuses the `HEAD`, its
//! answer to the `PUT` counts, for it has compared the file's SHA-256 then. The file is read as it is sent, so a long call
//! costs no memory. Addresses may be private, it is the operator's own store; redirects are not followed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Frame, SizeHint};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::fs::File;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::client::escaped;
use super::disk::Disk;
use super::live::Newsroom;
use super::wss::{reach, trust};
use super::{clock, graph, random, s3};
use crate::clock::Wall;
use crate::config::{Config, UploadConfig, UploadTo};
use crate::ledger::{RECORDINGS, TapeRow};

/// What is due is looked for this often, whether or not somebody rings.
const LOOK: Duration = Duration::from_secs(10);
/// Recordings that are taken from the queue at once.
const TAKEN: usize = 16;
/// The first pause after a failure, and the longest.
const SHORTEST: u64 = 10;
const LONGEST: u64 = 3_600;
/// What is read of the file at once, in bytes.
const PIECE: usize = 32 * 1024;
/// As much of an answer as is read, in bytes: only its error code is of interest.
const ANSWER: usize = 64 * 1024;

/// Sends what is to be uploaded for as long as the process lives. `woken` rings when a recording is finished.
pub async fn deliver(disk: Disk, news: Arc<Newsroom>, state_dir: PathBuf, woken: Arc<Notify>) {
    let folder = state_dir.join(RECORDINGS);
    let mut tried_by: Option<Arc<Config>> = None;
    loop {
        let mut again = false;
        let config = news.config();
        // Each try by the configuration of its time.
        if config.recording.upload.is_some() {
            // At the start and after a reload: somebody may have mended what was wrong.
            if tried_by.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &config)) && revive(&disk).await {
                tried_by = Some(config);
            }
            for row in due(&disk).await {
                let Some(upload) = news.config().recording.upload.clone() else { break };
                let outcome = send(&row, &upload, &folder).await;
                // A ledger that can't be written to would give the same recording again at once.
                again = settle(&disk, &folder, &row, &upload, outcome).await;
            }
        }
        if !again {
            tokio::select! {
                () = woken.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

/// What was given up waits again; whether that could be written.
async fn revive(disk: &Disk) -> bool {
    let now = clock::now().wall;
    match disk.write(move |ledger| ledger.uploads_again(now)).await {
        Ok(0) => true,
        Ok(recordings) => {
            tracing::info!(recordings, "uploads that were given up are tried again");
            true
        }
        Err(error) => {
            tracing::warn!(%error, "uploads that were given up are not tried again yet");
            false
        }
    }
}

async fn due(disk: &Disk) -> Vec<TapeRow> {
    let now = clock::now().wall;
    disk.read(move |ledger| ledger.uploads_due(now, TAKEN)).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the recordings to be uploaded can't be read");
        Vec::new()
    })
}

/// Why a recording is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Failure {
    /// The next try may do better.
    Later(String),
    /// No try will: there is no file.
    Never(String),
}

impl From<String> for Failure {
    fn from(why: String) -> Failure {
        Failure::Later(why)
    }
}

/// Writes down what came of a try; whether that could be written.
async fn settle(
    disk: &Disk,
    folder: &Path,
    row: &TapeRow,
    upload: &UploadConfig,
    outcome: Result<String, Failure>,
) -> bool {
    let (call, now) = (row.call.clone(), clock::now().wall);
    let (error, never) = match outcome {
        Ok(to) => {
            let (keep_local, place) = (upload.keep_local, to.clone());
            let gone = is_gone(&folder.join(&row.file)).await;
            let written = disk.write(move |ledger| ledger.upload_done(&call, &place, keep_local, now)).await;
            match written {
                Ok(true) => {
                    tracing::info!(call = %row.call, bytes = row.finished.bytes, "a recording was uploaded");
                    if gone {
                        tracing::warn!(call = %row.call, "a recording was deleted here while it was sent: the copy there stays");
                    } else if !keep_local && let Err(error) = remove(folder, &row.file).await {
                        tracing::warn!(call = %row.call, %error, "an uploaded recording can't be deleted here yet");
                    }
                }
                Ok(false) => tracing::debug!(call = %row.call, %to, "an upload was confirmed before"),
                Err(error) => {
                    // It is uploaded again then, to the same place.
                    tracing::warn!(call = %row.call, %error, "an upload can't be written down");
                    return false;
                }
            }
            return true;
        }
        Err(Failure::Later(error)) => (error, false),
        Err(Failure::Never(error)) => (error, true),
    };
    let tries = row.upload_tries.saturating_add(1);
    let next = (!never && tries < upload.max_tries).then(|| after(now, pause(tries, random::word())));
    let (last, said) = (next.is_none(), error.clone());
    let written = disk.write(move |ledger| ledger.upload_failed(&call, &said, next, now)).await;
    match written {
        // Whoever is to mend it hears of it once, and again when it is too late.
        Ok(true) if last => {
            tracing::warn!(call = %row.call, tries, %error, "a recording is not uploaded: given up, the file stays here");
        }
        Ok(true) if row.upload_tries == 0 => {
            tracing::warn!(call = %row.call, %error, "a recording is not uploaded yet: it is tried again");
        }
        Ok(_) => tracing::debug!(call = %row.call, tries, %error, "a recording is not uploaded"),
        Err(error) => {
            tracing::warn!(call = %row.call, %error, "a failed upload can't be written down");
            return false;
        }
    }
    true
}

/// Whether there is no such file, as far as can be told.
async fn is_gone(path: &Path) -> bool {
    matches!(tokio::fs::try_exists(path).await, Ok(false))
}

async fn remove(folder: &Path, file: &str) -> std::io::Result<()> {
    match tokio::fs::remove_file(folder.join(file)).await {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // After a power cut it is not there again.
    File::open(folder).await?.sync_all().await
}

/// How long to wait after so many tries: 10 s, doubled up to an hour, and a fifth more or less by chance.
fn pause(tries: u32, chance: u32) -> Duration {
    let doubled = SHORTEST.saturating_mul(1_u64.checked_shl(tries.saturating_sub(1)).unwrap_or(u64::MAX));
    let millis = doubled.min(LONGEST) * 1_000;
    Duration::from_millis(millis * 4 / 5 + millis * 2 / 5 * u64::from(chance) / u64::from(u32::MAX))
}

fn after(now: Wall, pause: Duration) -> Wall {
    Wall(now.0.saturating_add(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX)))
}

/// Sends one recording and has it confirmed; says where it is.
async fn send(row: &TapeRow, upload: &UploadConfig, folder: &Path) -> Result<String, Failure> {
    // The name is ours. Should the ledger's file ever be another's work, nothing else is sent out.
    if Path::new(&row.file).file_name().is_none_or(|name| name != row.file.as_str()) {
        return Err(Failure::Never("the file has a name that no recording has".to_owned()));
    }
    let unread = |error: std::io::Error| {
        let why = format!("the file can't be read: {error}");
        if error.kind() == ErrorKind::NotFound { Failure::Never(why) } else { Failure::Later(why) }
    };
    let path = folder.join(&row.file);
    let file = File::open(&path).await.map_err(unread)?;
    let left = file.metadata().await.map_err(unread)?.len();
    let taken = Arc::new(Notify::new());
    let body = Sending { file: Some(file), left, taken: Arc::clone(&taken) };
    let sent = async {
        match &upload.to {
            UploadTo::S3 { .. } => to_s3(row, upload, body).await,
            UploadTo::Http { .. } => to_http(row, upload, body).await,
        }
    };
    watched(sent, &taken, &path, Duration::from_secs(upload.timeout_seconds)).await
}

/// Waits for a try as long as the other end takes or answers something every so often, however long that takes in all,
/// and as long as the file is there: what was deleted is sent no further.
async fn watched(
    sent: impl Future<Output = Result<String, String>>,
    taken: &Notify,
    path: &Path,
    patience: Duration,
) -> Result<String, Failure> {
    let mut sent = pin!(sent);
    loop {
        tokio::select! {
            biased;
            outcome = &mut sent => return outcome.map_err(Failure::Later),
            () = taken.notified() => {
                if is_gone(path).await {
                    return Err(Failure::Later("the file was deleted meanwhile".to_owned()));
                }
            }
            () = tokio::time::sleep(patience) => {
                let why = format!("nothing was taken or answered for {} s", patience.as_secs());
                return Err(Failure::Later(why));
            }
        }
    }
}

fn mime(row: &TapeRow) -> &'static str {
    match row.format() {
        _ if row.encrypted => "application/octet-stream",
        "ogg" => "audio/ogg",
        _ => "audio/wav",
    }
}

async fn to_http(row: &TapeRow, upload: &UploadConfig, body: Sending) -> Result<String, String> {
    let UploadTo::Http { url, token } = &upload.to else { return Err("it is no HTTP address".to_owned()) };
    let place = format!("{}/{}", url.trim_end_matches('/'), escaped(&row.file));
    let mut headers = vec![
        ("content-type", mime(row).to_owned()),
        ("x-watrunk-call-id", row.call.clone()),
        ("x-watrunk-sha256", row.finished.sha256.clone()),
    ];
    if let Some(token) = token {
        headers.push(("authorization", format!("Bearer {}", token.expose())));
    }
    let place_uri: Uri = place.parse().map_err(|_| "recording.upload.url is not a URL".to_owned())?;
    exchange("PUT", &place_uri, headers, body, upload).await?.taken()?;
    Ok(place)
}

async fn to_s3(row: &TapeRow, upload: &UploadConfig, body: Sending) -> Result<String, String> {
    let UploadTo::S3 { endpoint, region, bucket, prefix, access_key, secret_key } = &upload.to else {
        return Err("it is no S3 store".to_owned());
    };
    let key = format!("{prefix}{}", row.file);
    let place = format!("{}{}", endpoint.trim_end_matches('/'), s3::path(bucket, &key));
    let uri: Uri = place.parse().map_err(|_| "recording.upload.endpoint is not a URL".to_owned())?;
    let access = s3::Access { region, access_key, secret_key: secret_key.expose() };
    let checksum = s3::checksum(&row.finished.sha256);
    let host = ("host", uri.authority().map(|authority| authority.as_str()).unwrap_or_default().to_owned());

    let mut headers = vec![host.clone(), ("content-type", mime(row).to_owned())];
    headers.extend(checksum.clone().map(|checksum| ("x-amz-checksum-sha256", checksum)));
    let payload = if checksum.is_some() { row.finished.sha256.as_str() } else { s3::UNSIGNED };
    let headers = s3::signed(access, "PUT", uri.path(), headers, payload, clock::now().wall);
    let length = body.left;
    exchange("PUT", &uri, headers, body, upload).await?.taken()?;

    let headers = vec![host, ("x-amz-checksum-mode", "ENABLED".to_owned())];
    let headers = s3::signed(access, "HEAD", uri.path(), headers, s3::NOTHING, clock::now().wall);
    let nothing = Sending { file: None, left: 0, taken: Arc::default() };
    let there = exchange("HEAD", &uri, headers, nothing, upload).await?;
    let to = format!("s3://{bucket}/{key}");
    // This key may not look, or nobody may: the store has compared the checksum before it said yes.
    if checksum.is_some() && matches!(there.status, 403 | 405 | 501) {
        return Ok(to);
    }
    let there = there.taken().map_err(|why| format!("after the upload: {why}"))?;
    match there.length {
        Some(has) if has == length => {}
        Some(has) => return Err(format!("the store has {has} of {length} bytes")),
        None => return Err("the store does not say how much it has".to_owned()),
    }
    match (there.checksum, checksum) {
        (Some(theirs), Some(ours)) if theirs != ours => Err("the store has other bytes".to_owned()),
        _ => Ok(to),
    }
}

/// What came back.
struct Answer {
    status: u16,
    length: Option<u64>,
    checksum: Option<String>,
    /// A store's own word for what is wrong.
    code: Option<String>,
}

impl Answer {
    /// # Errors
    /// When it is no 2xx: in words.
    fn taken(self) -> Result<Answer, String> {
        match (self.status, &self.code) {
            (200..300, _) => Ok(self),
            (status @ 300..400, _) => {
                Err(format!("HTTP {status}: it is elsewhere, and redirects are not followed"))
            }
            (status, Some(code)) => Err(format!("HTTP {status} ({code})")),
            (status, None) => Err(format!("HTTP {status}")),
        }
    }
}

/// One request on a connection of its own.
///
/// # Errors
/// What is wrong, and where, in words without the URL's path and without a header.
async fn exchange(
    method: &str,
    uri: &Uri,
    headers: Vec<(&'static str, String)>,
    body: Sending,
    upload: &UploadConfig,
) -> Result<Answer, String> {
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        Some(_) | None => return Err("the address must begin with https:// or http://".to_owned()),
    };
    let mut request = Request::builder()
        .method(method)
        .uri(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header("user-agent", concat!("watrunk/", env!("CARGO_PKG_VERSION")));
    if headers.iter().all(|(name, _)| *name != "host") {
        request = request.header("host", uri.authority().map_or("", |authority| authority.as_str()));
    }
    if body.file.is_some() {
        request = request.header("content-length", body.left);
    }
    for (name, value) in headers {
        let mut value = hyper::header::HeaderValue::try_from(value)
            .map_err(|_| format!("the header {name} has a value that none can have"))?;
        value.set_sensitive(name == "authorization");
        request = request.header(name, value);
    }
    let request = request.body(body).map_err(|error| format!("it can't be asked for: {error}"))?;
    let until = Instant::now() + Duration::from_secs(upload.timeout_seconds);
    let (name, wire) = reach(uri, secure, true, trust(upload.ca_file.as_deref()).await?, until)
        .await
        .map_err(|unconnected| unconnected.why)?;
    let broken = |error: &dyn std::error::Error| format!("{name}: {}", graph::root(error));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(wire)).await.map_err(|error| broken(&error))?;
    let mut connection = pin!(connection);
    let mut answered = pin!(async {
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let (parts, body) = response.into_parts();
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let length = header("content-length").and_then(|length| length.parse().ok());
        let checksum = header("x-amz-checksum-sha256").map(str::to_owned);
        // The status says it all; a document that breaks off only has no code.
        let document = Limited::new(body, ANSWER).collect().await.map(|body| body.to_bytes());
        let code =
            document.ok().and_then(|text| s3::code(&String::from_utf8_lossy(&text)).map(str::to_owned));
        Ok(Answer { status: parts.status.as_u16(), length, checksum, code })
    });
    tokio::select! {
        biased;
        answer = &mut answered => answer,
        // It is closed: what there is of an answer is there.
        _ = &mut connection => answered.await,
    }
}

/// A file as the body of a request; or nothing.
struct Sending {
    file: Option<File>,
    /// Bytes of it that are still to be sent.
    left: u64,
    /// Rung for each piece that is taken.
    taken: Arc<Notify>,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let this = self.get_mut();
        let Some(file) = this.file.as_mut().filter(|_| this.left > 0) else { return Poll::Ready(None) };
        let mut piece = vec![0; usize::try_from(this.left).unwrap_or(PIECE).min(PIECE)];
        let mut buffer = ReadBuf::new(&mut piece);
        ready!(Pin::new(file).poll_read(context, &mut buffer))?;
        let read = buffer.filled().len();
        if read == 0 {
            let shorter = std::io::Error::new(ErrorKind::UnexpectedEof, "the file is shorter than it was");
            return Poll::Ready(Some(Err(shorter)));
        }
        this.left = this.left.saturating_sub(read as u64);
        this.taken.notify_one();
        piece.truncate(read);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;
