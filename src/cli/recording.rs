//! `watrunk recording`, `recordings` and `audit`: a call's recording fetched, deleted, paused; what there is of them;
//! and who has heard them.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Read, Seek as _, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::api::{Api, No, Said};
use super::args::{AuditArgs, RecordingArgs, RecordingsArgs};
use super::table::{plain, table, talk};
use super::{Failed, fail, say};
use crate::io::client::escaped;
use crate::io::seal::{self, MAGIC};

/// Calls and entries that the API puts on a page.
const PAGE: u32 = 200;

/// Calls that are looked through for recordings.
const LOOKED_THROUGH: u32 = 10_000;

/// `watrunk recording`. `terminal`: whether `out` is one.
pub(super) fn recording(
    args: &RecordingArgs,
    terminal: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failed> {
    let fetched = !(args.delete || args.pause || args.resume || args.api.json);
    if fetched && terminal && args.output.is_none() {
        return Err(fail("a recording is nothing for a terminal: say where to with -o FILE or > FILE", err));
    }
    let api = Api::needed(&args.api, err)?;
    let path = format!("/v1/calls/{}/recording", escaped(&args.id));
    let said = if args.delete {
        api.delete(&path)
    } else if args.pause || args.resume {
        api.patch(&path, &json!({ "paused": args.pause }))
    } else {
        api.get(&path, &[("as", "json")])
    };
    let Said { text, value } = match said {
        Ok(said) => said,
        Err(no) => return Err(no.tell(args.api.json, out, err)),
    };
    if args.api.json {
        return say(&format!("{}\n", text.trim_end()), out, err);
    }
    if fetched {
        return fetch(&api, &value, args, out, err);
    }
    let id = plain(&args.id);
    let told = match (args.delete, value["paused"] == true) {
        (true, _) => match value["uploadedTo"].as_str() {
            Some(to) => format!("{id}: deleted here; a copy is at {}\n", plain(to)),
            None => format!("{id}: deleted\n"),
        },
        (false, true) => format!("{id}: paused, what is said now is silence in the recording\n"),
        (false, false) => format!("{id}: goes on\n"),
    };
    say(&told, out, err)
}

/// Gets the file by its link, from the gateway that gave it.
fn fetch(
    api: &Api,
    link: &Value,
    args: &RecordingArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failed> {
    // The link names the way from outside; this one has been found already.
    let link = link["url"].as_str().and_then(|url| url.find("/v1/recordings/").and_then(|at| url.get(at..)));
    let Some(link) = link else { return Err(fail("the API's answer has no link to the recording", err)) };
    let identity = match &args.identity {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            Some(text.map_err(|error| fail(&format!("{}: {error}", path.display()), err))?)
        }
        None => None,
    };
    let got = match &args.output {
        Some(path) => to_file(api, link, identity.as_deref(), path),
        None => to(api, link, identity.as_deref(), &std::env::temp_dir(), out),
    };
    match got {
        Ok(End::Whole) => Ok(()),
        Ok(End::Short(why)) => {
            let _ = writeln!(err, "watrunk: {why}");
            Ok(())
        }
        // Whoever has it may want to hear it all the same.
        Ok(End::Doubtful(why)) => Err(fail(why, err)),
        Err(Trouble::Api(no)) => Err(no.tell(false, out, err)),
        Err(Trouble::Said(why)) => Err(fail(&why, err)),
    }
}

/// How a recording has come.
enum End {
    /// As it was kept.
    Whole,
    /// As it was kept; an encrypted one that was never finished.
    Short(String),
    /// Not as it was kept, or nobody knows.
    Doubtful(&'static str),
}

/// What goes wrong on the way.
enum Trouble {
    Api(No),
    Said(String),
}

impl Trouble {
    fn at(path: &Path, error: &io::Error) -> Trouble {
        Trouble::Said(format!("{}: {error}", path.display()))
    }
}

/// Into a file, which gets its name once all has come.
fn to_file(api: &Api, link: &str, identity: Option<&str>, path: &Path) -> Result<End, Trouble> {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let at = |error: io::Error| Trouble::at(&part, &error);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part).map_err(at)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let got = to(api, link, identity, folder, &mut file).and_then(|end| {
        file.sync_all().map_err(at)?;
        std::fs::rename(&part, path).map_err(|error| Trouble::at(path, &error))?;
        Ok(end)
    });
    if got.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    got
}

/// As it is, or decrypted: then the encrypted file waits in `folder` until all has come, and has no name there.
fn to(
    api: &Api,
    link: &str,
    identity: Option<&str>,
    folder: &Path,
    out: &mut dyn Write,
) -> Result<End, Trouble> {
    let Some(identity) = identity else { return pour(api, link, out) };
    let at = |error: io::Error| Trouble::at(folder, &error);
    let mut waiting = nameless(folder).map_err(at)?;
    let end = pour(api, link, &mut waiting)?;
    let mut begin = Vec::new();
    waiting.seek(SeekFrom::Start(0)).map_err(at)?;
    Read::by_ref(&mut waiting).take(MAGIC.len() as u64).read_to_end(&mut begin).map_err(at)?;
    waiting.seek(SeekFrom::Start(0)).map_err(at)?;
    if begin != MAGIC {
        // It was recorded before encrypting was asked for.
        io::copy(&mut waiting, out).map_err(at)?;
        return Ok(end);
    }
    let mut plain = nameless(folder).map_err(at)?;
    let opened = seal::open(identity, &mut BufReader::new(waiting), &mut plain).map_err(Trouble::Said)?;
    // What a power cut has ended could not be finished without the key.
    seal::mend(&mut plain).and_then(|_| plain.seek(SeekFrom::Start(0))).map_err(at)?;
    io::copy(&mut plain, out).map_err(at)?;
    Ok(match (end, opened.missing) {
        (End::Whole, Some(why)) => End::Short(why),
        (end, _) => end,
    })
}

/// A file that is gone when it is closed.
fn nameless(folder: &Path) -> io::Result<File> {
    let path = folder.join(format!(".watrunk-{}.part", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Writes what comes, and looks whether it is what was kept.
fn pour(api: &Api, link: &str, out: &mut dyn Write) -> Result<End, Trouble> {
    let mut sum = Sha256::new();
    let mut broken = None;
    let tag = api.pour(link, &mut |piece| {
        sum.update(piece);
        broken = out.write_all(piece).err();
        broken.is_none()
    });
    let tag = tag.map_err(Trouble::Api)?;
    match broken.or_else(|| out.flush().err()) {
        // A reader that has heard enough is no failure.
        Some(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(End::Whole),
        Some(error) => return Err(Trouble::Said(error.to_string())),
        None => {}
    }
    let sum: String = sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(match tag {
        Some(tag) if tag.trim_matches('"') == sum => End::Whole,
        Some(_) => End::Doubtful("the recording has another checksum than when it was finished"),
        None => End::Doubtful("there is no telling whether the recording is as it was when it was finished"),
    })
}

/// `watrunk recordings`
pub(super) fn recordings(
    args: &RecordingsArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failed> {
    const HEAD: [&str; 8] = ["TIME (UTC)", "ID", "FROM", "TO", "PLAYS", "SIZE", "STATE", "UNTIL"];
    let api = Api::needed(&args.api, err)?;
    let calls = match pages(&api, "/v1/calls", "calls", |call| !call["recording"].is_null(), args.limit) {
        Ok(calls) => calls,
        Err(no) => return Err(no.tell(args.api.json, out, err)),
    };
    if args.api.json {
        return say(&format!("{:#}\n", json!({ "calls": calls })), out, err);
    }
    let row = |call: &Value| {
        let text = |key: &str| call[key].as_str().unwrap_or("").to_owned();
        let part = &call["recording"];
        let kept = part["bytes"].as_u64().filter(|bytes| *bytes > 0);
        let state = match (part["state"].as_str().unwrap_or(""), part["outcome"].as_str().unwrap_or("")) {
            ("kept", outcome @ ("gaps" | "interrupted")) => format!("kept ({outcome})"),
            ("none", _) => part["consent"].as_str().unwrap_or("none").to_owned(),
            (state, _) => state.to_owned(),
        };
        [
            second(&call["startedAt"]),
            text("_id"),
            text("from"),
            text("to"),
            kept.map(|_| talk(part["seconds"].as_f64().unwrap_or(0.0))).unwrap_or_default(),
            kept.map(size).unwrap_or_default(),
            state,
            part["expiresAt"].as_str().map(|at| at.chars().take(10).collect()).unwrap_or_default(),
        ]
    };
    say(&table(HEAD, &calls.iter().map(row).collect::<Vec<_>>(), "no recordings"), out, err)
}

/// `watrunk audit`
pub(super) fn audit(args: &AuditArgs, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failed> {
    const HEAD: [&str; 5] = ["TIME (UTC)", "WHO", "ACTION", "CALL", "DETAIL"];
    let api = Api::needed(&args.api, err)?;
    let entries = match pages(&api, "/v1/audit", "entries", |_| true, args.limit) {
        Ok(entries) => entries,
        Err(no) => return Err(no.tell(args.api.json, out, err)),
    };
    if args.api.json {
        return say(&format!("{:#}\n", json!({ "entries": entries })), out, err);
    }
    let row = |entry: &Value| {
        let text = |key: &str| entry[key].as_str().unwrap_or("").to_owned();
        [second(&entry["at"]), text("who"), text("action"), text("subject"), text("detail")]
    };
    say(&table(HEAD, &entries.iter().map(row).collect::<Vec<_>>(), "nothing"), out, err)
}

/// The first of a list that fit, page by page.
fn pages(
    api: &Api,
    path: &str,
    list: &str,
    fits: impl Fn(&Value) -> bool,
    most: u32,
) -> Result<Vec<Value>, No> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let limit = PAGE.to_string();
    let (mut found, mut before): (Vec<Value>, Option<String>) = (Vec::new(), None);
    for _ in 0..LOOKED_THROUGH / PAGE {
        let mut query = vec![("limit", limit.as_str())];
        if let Some(before) = &before {
            query.push(("before", before));
        }
        let said = api.get(path, &query)?;
        let page = said.value[list].as_array().cloned().unwrap_or_default();
        found.extend(page.into_iter().filter(&fits));
        before = said.value["nextCursor"].as_str().map(str::to_owned);
        if found.len() >= most || before.is_none() {
            break;
        }
    }
    found.truncate(most);
    Ok(found)
}

/// A date-time as a table has it.
fn second(value: &Value) -> String {
    value.as_str().unwrap_or("").chars().take(19).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

/// `17 kB`, `3.4 MB`
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{} kB", bytes / 1_000),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}
