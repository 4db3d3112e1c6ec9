//! Uploads against a server made by hand on loopback: what it is sent, and what becomes of the recording when it does
//! not take it.

use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::call::recording::{Finished, Outcome};
use crate::config::{Config, Secret};
use crate::io::disk::Threads;
use crate::ledger::{Ledger, TapeState, UploadState};

const PATIENCE: Duration = Duration::from_secs(20);
/// SHA-256 of "abc", which is what most recordings here hold.
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const TAKEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// A state directory, with the folder of recordings.
struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Home {
        let home = std::env::temp_dir().join(format!("watrunk-upload-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(home.join(RECORDINGS)).unwrap();
        Home(home)
    }

    fn with(name: &str, bytes: &[u8]) -> Home {
        let home = Home::new(name);
        std::fs::write(home.file(), bytes).unwrap();
        home
    }

    fn folder(&self) -> PathBuf {
        self.0.join(RECORDINGS)
    }

    fn file(&self) -> PathBuf {
        self.folder().join("call_1.wav")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn row() -> TapeRow {
    TapeRow {
        number: "support".to_owned(),
        account: "acme".to_owned(),
        finished: Finished {
            outcome: Outcome::Complete,
            millis: 20,
            bytes: 3,
            sha256: ABC.to_owned(),
            ..Finished::default()
        },
        ..TapeRow::begun(
            "call_1",
            "call_1.wav".to_owned(),
            "wav-pcm-8000".to_owned(),
            Wall(1_700_000_000_000),
        )
    }
}

fn upload(to: UploadTo) -> UploadConfig {
    UploadConfig { to, keep_local: false, timeout_seconds: PATIENCE.as_secs(), max_tries: 5, ca_file: None }
}

fn http(port: u16) -> UploadConfig {
    let url = format!("http://127.0.0.1:{port}/in/calls");
    upload(UploadTo::Http { url, token: Some(Secret::new("s3cret")) })
}

fn s3(port: u16) -> UploadConfig {
    upload(UploadTo::S3 {
        endpoint: format!("http://127.0.0.1:{port}"),
        region: "eu-central-1".to_owned(),
        bucket: "calls".to_owned(),
        prefix: "box 1/".to_owned(),
        access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
        secret_key: Secret::new("s3cret"),
    })
}

/// What the server does with one request.
enum Act {
    /// Reads all of it and answers.
    Answer(String),
    /// Reads its head and a little more, and closes.
    BreakOff,
    /// Reads all of it, says so, and answers nothing.
    Silence(oneshot::Sender<()>),
}

fn says(answer: &str) -> Act {
    Act::Answer(answer.to_owned())
}

/// What the server was sent.
struct Asked {
    head: String,
    body: Vec<u8>,
}

impl Asked {
    fn has(&self, line: &str) -> bool {
        self.head.lines().any(|known| known == line)
    }
}

/// A server that takes one request a connection, as many as there are acts.
async fn store(acts: Vec<Act>) -> (u16, JoinHandle<Vec<Asked>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let (mut all, mut held) = (Vec::new(), Vec::new());
        for act in acts {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            match act {
                Act::Answer(answer) => {
                    stream.read_exact(&mut body).await.unwrap();
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
                Act::BreakOff => {
                    body.truncate(10);
                    stream.read_exact(&mut body).await.unwrap();
                }
                Act::Silence(told) => {
                    stream.read_exact(&mut body).await.unwrap();
                    told.send(()).unwrap();
                    held.push(stream);
                }
            }
            all.push(Asked { head, body });
        }
        if !held.is_empty() {
            // The connections stay open as long as the test runs.
            std::future::pending::<()>().await;
        }
        all
    });
    (port, serving)
}

/// What comes of one recording and such a server.
async fn tried(home: &Home, upload: fn(u16) -> UploadConfig, acts: Vec<Act>) -> Result<String, Failure> {
    let (port, _serving) = store(acts).await;
    send(&row(), &upload(port), &home.folder()).await
}

#[tokio::test]
async fn a_recording_goes_to_an_http_store_with_its_calls_id_and_its_hash() {
    let home = Home::with("http", b"abc");
    let (port, serving) = store(vec![says(TAKEN)]).await;
    let place = send(&row(), &http(port), &home.folder()).await.unwrap();
    assert_eq!(place, format!("http://127.0.0.1:{port}/in/calls/call_1.wav"));
    let asked = serving.await.unwrap().remove(0);
    assert_eq!(asked.body, b"abc");
    for line in [
        "PUT /in/calls/call_1.wav HTTP/1.1",
        "content-length: 3",
        "content-type: audio/wav",
        "authorization: Bearer s3cret",
        "x-watrunk-call-id: call_1",
        &format!("x-watrunk-sha256: {ABC}"),
        &format!("host: 127.0.0.1:{port}"),
    ] {
        assert!(asked.has(line), "{line} is not in {}", asked.head);
    }
}

#[tokio::test]
async fn an_s3_store_gets_the_object_signed_and_is_asked_how_much_it_has() {
    let home = Home::with("s3", b"abc");
    let there = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
    let (port, serving) = store(vec![says(TAKEN), says(there)]).await;
    let place = send(&row(), &s3(port), &home.folder()).await.unwrap();
    assert_eq!(place, "s3://calls/box 1/call_1.wav");
    let asked = serving.await.unwrap();
    assert_eq!(asked[0].body, b"abc");
    for line in [
        "PUT /calls/box%201/call_1.wav HTTP/1.1",
        "content-length: 3",
        "x-amz-checksum-sha256: ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
        &format!("x-amz-content-sha256: {ABC}"),
    ] {
        assert!(asked[0].has(line), "{line} is not in {}", asked[0].head);
    }
    assert!(asked[1].has("HEAD /calls/box%201/call_1.wav HTTP/1.1"), "{}", asked[1].head);
    for asked in &asked {
        assert!(asked.head.contains("/eu-central-1/s3/aws4_request, SignedHeaders="), "{}", asked.head);
        assert!(!asked.head.contains("s3cret"), "{}", asked.head);
    }
}

#[tokio::test]
async fn a_long_recording_arrives_whole_and_encrypted_ones_are_called_bytes() {
    let long: Vec<u8> =
        (0..3_000_000_u32).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let home = Home::with("long", &long);
    let (port, serving) = store(vec![says(TAKEN)]).await;
    let row = TapeRow { encrypted: true, ..row() };
    send(&row, &http(port), &home.folder()).await.unwrap();
    let asked = serving.await.unwrap().remove(0);
    assert!(asked.body == long);
    assert!(asked.has("content-type: application/octet-stream"), "{}", asked.head);
}

#[tokio::test]
async fn a_store_that_has_less_or_other_bytes_has_confirmed_nothing() {
    let home = Home::with("less", b"abc");
    for (there, why) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "the store has 2 of 3 bytes"),
        ("HTTP/1.1 200 OK\r\n\r\n", "the store does not say how much it has"),
        ("HTTP/1.1 404 Not Found\r\n\r\n", "after the upload: HTTP 404"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nx-amz-checksum-sha256: AAAA\r\n\r\n",
            "the store has other bytes",
        ),
    ] {
        let said = tried(&home, s3, vec![says(TAKEN), says(there)]).await;
        assert_eq!(said, Err(Failure::Later(why.to_owned())));
    }
}

#[tokio::test]
async fn a_store_that_refuses_breaks_off_or_is_not_there_is_tried_later() {
    let home = Home::with("refuses", &[7; 1 << 20]);
    let document = "<Error><Code>AccessDenied</Code></Error>";
    let denied = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{document}", document.len());
    for (act, says) in [
        (says("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"), "HTTP 503"),
        (Act::Answer(denied), "HTTP 403 (AccessDenied)"),
        (says("HTTP/1.1 307 There\r\nLocation: http://127.0.0.1:1/\r\n\r\n"), "redirects are not followed"),
        (Act::BreakOff, "127.0.0.1: "),
        (says("no HTTP\r\n\r\n"), "127.0.0.1: "),
    ] {
        match tried(&home, s3, vec![act]).await {
            Err(Failure::Later(why)) => assert!(why.contains(says), "{why}"),
            other => panic!("{says}: {other:?}"),
        }
    }
    let (port, serving) = store(Vec::new()).await;
    serving.await.unwrap();
    match send(&row(), &http(port), &home.folder()).await {
        Err(Failure::Later(why)) => assert!(why.contains("can't be reached"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_store_that_never_answers_is_waited_for_no_longer_than_it_may() {
    let home = Home::with("silence", b"abc");
    let (tell, told) = oneshot::channel();
    let (port, _serving) = store(vec![Act::Silence(tell)]).await;
    let (row, upload, folder) = (row(), http(port), home.folder());
    let mut sending = pin!(send(&row, &upload, &folder));
    tokio::select! {
        outcome = &mut sending => panic!("{outcome:?}"),
        read = told => read.unwrap(),
    }
    // From here on nothing but time can pass.
    tokio::time::pause();
    assert_eq!(sending.await, Err(Failure::Later("nothing was taken or answered for 20 s".to_owned())));
}

#[tokio::test]
async fn a_key_that_may_put_but_not_look_has_its_uploads_confirmed() {
    let home = Home::with("put", b"abc");
    for refused in ["403 Forbidden", "405 Method Not Allowed", "501 Not Implemented"] {
        let refused = format!("HTTP/1.1 {refused}\r\nContent-Length: 0\r\n\r\n");
        let acts = vec![says(TAKEN), says(&refused)];
        assert_eq!(tried(&home, s3, acts).await, Ok("s3://calls/box 1/call_1.wav".to_owned()), "{refused}");
        // Without a hash the store has compared nothing.
        let (port, _serving) = store(vec![says(TAKEN), says(&refused)]).await;
        let unread = TapeRow { finished: Finished { sha256: String::new(), ..row().finished }, ..row() };
        match send(&unread, &s3(port), &home.folder()).await {
            Err(Failure::Later(why)) => assert!(why.starts_with("after the upload: HTTP "), "{why}"),
            other => panic!("{refused}: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_is_waited_for_as_long_as_it_takes_something() {
    let home = Home::with("slow", b"abc");
    let taken = Notify::new();
    let slow = async {
        for _ in 0..400 {
            tokio::time::sleep(PATIENCE - Duration::from_secs(1)).await;
            taken.notify_one();
        }
        Ok("there".to_owned())
    };
    assert_eq!(watched(slow, &taken, &home.file(), PATIENCE).await, Ok("there".to_owned()));
    let stuck = async {
        tokio::time::sleep(PATIENCE + Duration::from_secs(1)).await;
        Ok("there".to_owned())
    };
    let why = "nothing was taken or answered for 20 s".to_owned();
    assert_eq!(watched(stuck, &taken, &home.file(), PATIENCE).await, Err(Failure::Later(why)));
}

#[tokio::test]
async fn what_is_deleted_while_it_is_sent_is_sent_no_further() {
    let home = Home::with("deleted", b"abc");
    let taken = Notify::new();
    let sent = async {
        taken.notify_one();
        tokio::task::yield_now().await;
        std::fs::remove_file(home.file()).unwrap();
        taken.notify_one();
        std::future::pending().await
    };
    let why = "the file was deleted meanwhile".to_owned();
    assert_eq!(watched(sent, &taken, &home.file(), PATIENCE).await, Err(Failure::Later(why)));
}

#[tokio::test]
async fn a_file_that_is_not_there_is_not_tried_for_ever() {
    let home = Home::new("gone");
    let nobody = http(1);
    assert!(matches!(send(&row(), &nobody, &home.folder()).await, Err(Failure::Never(_))));
    std::fs::write(home.0.join("watrunk.db"), b"secret").unwrap();
    for file in ["../watrunk.db", "..", "", "/etc/passwd", "a/b"] {
        let row = TapeRow { file: file.to_owned(), ..row() };
        assert!(matches!(send(&row, &nobody, &home.folder()).await, Err(Failure::Never(_))), "{file}");
    }
}

#[test]
fn pauses_double_up_to_an_hour_and_no_two_boxes_have_the_same() {
    let seconds = |tries, chance| pause(tries, chance).as_millis();
    for (tries, least, most) in [
        (0, 8_000, 12_000),
        (1, 8_000, 12_000),
        (2, 16_000, 24_000),
        (5, 128_000, 192_000),
        (99, 2_880_000, 4_320_000),
    ] {
        assert_eq!((seconds(tries, 0), seconds(tries, u32::MAX)), (least, most), "after {tries}");
    }
}

/// A box with a ledger, a recording that waits to be uploaded, and the task that does it.
struct Station {
    home: Home,
    disk: Disk,
    bell: Arc<Notify>,
    task: JoinHandle<()>,
    news: Arc<Newsroom>,
    threads: Threads,
    _told: mpsc::Receiver<crate::gateway::Input>,
}

impl Station {
    async fn new(name: &str, upload: UploadConfig) -> Station {
        let home = Home::with(name, b"abc");
        let mut config = Config::parse_as(crate::config::EXAMPLE, Path::new("watrunk.toml")).unwrap();
        config.recording.upload = Some(upload);
        let news = Arc::new(Newsroom::new(config));
        let writer = Ledger::open(&home.0, Wall(0)).unwrap();
        let reader = Ledger::open_read_only(&home.0).unwrap();
        let (to_gateway, _told) = mpsc::channel(4_096);
        let (disk, threads) = Disk::start(writer, reader, Arc::clone(&news), to_gateway).unwrap();
        let now = clock::now().wall;
        let finished = disk.write(move |ledger| {
            ledger.tape_begun(&row())?;
            ledger.tape_finished("call_1", &row().finished, TapeState::Kept, None, true, now)
        });
        assert!(finished.await.unwrap());
        let bell = Arc::new(Notify::new());
        let task = tokio::spawn(deliver(disk.clone(), Arc::clone(&news), home.0.clone(), Arc::clone(&bell)));
        Station { home, disk, bell, task, news, threads, _told }
    }

    /// The recording's row, as soon as it is so.
    async fn once(&self, so: impl Fn(&TapeRow) -> bool) -> TapeRow {
        let looking = async {
            loop {
                let row = self.disk.read(|ledger| ledger.tape("call_1")).await.unwrap().unwrap();
                if so(&row) {
                    return row;
                }
            }
        };
        timeout(PATIENCE, looking).await.expect("it never was so")
    }

    async fn close(self) {
        self.task.abort();
        let _ = self.task.await;
        drop(self.disk);
        tokio::task::spawn_blocking(move || self.threads.close()).await.unwrap();
    }
}

#[tokio::test]
async fn a_failed_upload_is_tried_again_when_it_is_due_and_only_then_the_local_copy_goes() {
    let (port, serving) =
        store(vec![says("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"), says(TAKEN)]).await;
    let station = Station::new("again", http(port)).await;
    let failed = station.once(|row| row.upload_tries == 1).await;
    assert_eq!(failed.upload_error.as_deref(), Some("HTTP 503"));
    let wait = failed.upload_next.unwrap().0 - clock::now().wall.0;
    assert!((1_000..=12_000).contains(&wait), "{wait} ms");
    assert!(station.home.file().exists());

    // Its time has come.
    let due = station.disk.write(|ledger| ledger.upload_failed("call_1", "", Some(Wall(0)), Wall(0)));
    assert!(due.await.unwrap());
    station.bell.notify_one();
    let done = station.once(|row| row.upload == UploadState::Done).await;
    assert_eq!(done.uploaded_to, Some(format!("http://127.0.0.1:{port}/in/calls/call_1.wav")));
    assert!(!done.local);
    timeout(PATIENCE, async {
        while station.home.file().exists() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the local copy stays");
    let audits = station.disk.read(|ledger| ledger.audits(10, None)).await.unwrap();
    assert!(audits.iter().any(|entry| entry.action == "recording.uploaded" && entry.subject == "call_1"));
    assert_eq!(serving.await.unwrap().len(), 2);
    station.close().await;
}

#[tokio::test]
async fn after_the_last_try_it_is_given_up_and_the_file_stays() {
    let (port, _serving) = store(vec![says("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")]).await;
    let station = Station::new("last", UploadConfig { max_tries: 1, ..http(port) }).await;
    let row = station.once(|row| row.upload == UploadState::GaveUp).await;
    assert_eq!(row.upload_error.as_deref(), Some("HTTP 500"));
    assert!(row.local && station.home.file().exists());
    station.close().await;
}

#[tokio::test]
async fn what_was_given_up_is_tried_again_after_a_reload() {
    let acts = vec![says("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"), says(TAKEN)];
    let (port, _serving) = store(acts).await;
    let station = Station::new("reload", UploadConfig { max_tries: 1, ..http(port) }).await;
    station.once(|row| row.upload == UploadState::GaveUp).await;
    station.news.replace(station.news.config().as_ref().clone());
    station.bell.notify_one();
    let done = station.once(|row| row.upload == UploadState::Done).await;
    assert_eq!((done.upload_tries, done.upload_error), (1, None), "the tries are counted anew");
    station.close().await;
}

#[tokio::test]
async fn a_copy_that_is_to_stay_stays_when_the_store_has_it_too() {
    let (port, _serving) = store(vec![says(TAKEN)]).await;
    let station = Station::new("stays", UploadConfig { keep_local: true, ..http(port) }).await;
    let row = station.once(|row| row.upload == UploadState::Done).await;
    assert!(row.local && station.home.file().exists());
    station.close().await;
}
