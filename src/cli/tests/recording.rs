//! The verbs of recordings, against the server that plays a gateway.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::gateway::{Played, no};
use super::*;
use crate::io::seal::{MAGIC, Seal};

/// A key that everybody knows, and its public half.
const IDENTITY: &str =
    "# of nobody\nAGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX\n";
const PUBLIC: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";

/// A link, and the way in it that the gateway is asked by.
const WAY: &str = "/v1/recordings/call_1?expires=1795342200&for=ops&signature=00";

fn link() -> Value {
    json!({ "url": format!("https://calls.example.com{WAY}"), "expiresAt": "2026-11-22T10:10:00.000Z" })
}

/// A file as the gateway sends it; without `tag`, with that of its own checksum.
fn file(bytes: &[u8], tag: Option<&str>) -> Value {
    let sum: String =
        sha2::Digest::finalize(sha2::Digest::chain_update(<sha2::Sha256 as sha2::Digest>::new(), bytes))
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
    json!({ "raw": STANDARD.encode(bytes), "tag": tag.unwrap_or(&sum) })
}

/// What `watrunk recording` writes to stdout, which is no terminal.
fn recording(gateway: &Played, line: &[&str]) -> (Result<(), Failed>, Vec<u8>, String) {
    let line = [line, &["--api", &gateway.base, "--key", "sk_test"]].concat();
    let cli = Cli::try_parse_from(std::iter::once(&"watrunk").chain(&line)).unwrap();
    let Verb::Recording(args) = cli.verb else { panic!("not recording") };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let outcome = super::super::recording::recording(&args, false, &mut out, &mut err);
    (outcome, out, String::from_utf8(err).unwrap())
}

/// Larger than any piece.
fn sound() -> Vec<u8> {
    (0..300_000_u32).map(|n| (n % 251) as u8).collect()
}

fn sealed() -> Vec<u8> {
    let seal = Seal::new(&[PUBLIC.to_owned()], "call_1").unwrap();
    let blocks = [seal.head(b"RIFF", 1).unwrap(), seal.block(1, b"sound", 50).unwrap()];
    [MAGIC.to_vec(), blocks.concat()].concat()
}

#[test]
fn a_recording_is_written_to_stdout_or_to_a_file_that_only_its_owner_reads() {
    use std::os::unix::fs::PermissionsExt as _;
    let script = || vec![(200, link()), (200, file(&sound(), None))];
    let gateway = Played::new(script());
    let (outcome, out, err) = recording(&gateway, &["recording", "call_1"]);
    assert_eq!((outcome, out == sound(), err.as_str()), (Ok(()), true, ""));
    assert_eq!(
        gateway.lines(),
        ["GET /v1/calls/call_1/recording?as=json".to_owned(), format!("GET {WAY}")],
        "the gateway itself is asked, not the address that the outside uses"
    );

    let here = Box1::new(GOOD);
    let path = here.0.join("call.wav");
    let (outcome, out, err) =
        recording(&Played::new(script()), &["recording", "call_1", "-o", path.to_str().unwrap()]);
    assert_eq!((outcome, out.len(), err.as_str()), (Ok(()), 0, ""));
    assert_eq!(std::fs::read(&path).unwrap(), sound());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(&here.0).unwrap().count(), 2, "nothing else is left behind");
}

#[test]
fn a_recording_is_not_poured_into_a_terminal() {
    let gateway = Played::new(vec![(200, link())]);
    let cli =
        Cli::try_parse_from(["watrunk", "recording", "c", "--api", &gateway.base, "--key", "k"]).unwrap();
    let Verb::Recording(args) = cli.verb else { panic!("not recording") };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let outcome = super::super::recording::recording(&args, true, &mut out, &mut err);
    assert_eq!((outcome, out.len(), gateway.asked().len()), (Err(Failed), 0, 0));
    assert!(String::from_utf8(err).unwrap().contains("say where to with -o FILE"));
}

#[test]
fn a_recording_that_is_not_as_it_was_is_written_and_told() {
    for (tag, told) in [("00", "another checksum"), ("", "there is no telling")] {
        let gateway = Played::new(vec![(200, link()), (200, file(b"touched", Some(tag)))]);
        let (outcome, out, err) = recording(&gateway, &["recording", "call_1"]);
        assert_eq!((outcome, out.as_slice()), (Err(Failed), b"touched".as_slice()));
        assert!(err.contains(told), "{err}");
    }
}

#[test]
fn why_there_is_no_recording_is_told_and_no_file_is_left() {
    let here = Box1::new(GOOD);
    let path = here.0.join("call.wav").to_str().unwrap().to_owned();
    let gone = no("not_found", "the recording was deleted at 2026-11-22T10:00:00.000Z by ops");
    for script in [vec![(404, gone.clone())], vec![(200, link()), (404, gone)]] {
        let (outcome, out, err) = recording(&Played::new(script), &["recording", "call_1", "-o", &path]);
        assert_eq!((outcome, out.len()), (Err(Failed), 0));
        assert!(err.contains("deleted at 2026-11-22T10:00:00.000Z by ops (not_found)"), "{err}");
        assert_eq!(std::fs::read_dir(&here.0).unwrap().count(), 1);
    }
}

#[test]
fn an_encrypted_recording_opens_with_the_identity_and_a_plain_one_does_not_mind() {
    let here = Box1::new(GOOD);
    let key = here.0.join("key.txt");
    std::fs::write(&key, IDENTITY).unwrap();
    let key = key.to_str().unwrap();
    for (bytes, plain) in [(sealed(), b"RIFFsound".to_vec()), (b"RIFFplain".to_vec(), b"RIFFplain".to_vec())]
    {
        let gateway = Played::new(vec![(200, link()), (200, file(&bytes, None))]);
        let (outcome, out, err) = recording(&gateway, &["recording", "call_1", "--identity", key]);
        assert_eq!((outcome, out, err.as_str()), (Ok(()), plain, ""));
    }
    let sealed = sealed();
    let gateway = Played::new(vec![(200, link()), (200, file(&sealed, None))]);
    assert_eq!(recording(&gateway, &["recording", "call_1"]).1, sealed, "as it is, without one");
    std::fs::write(key, "no identity").unwrap();
    let gateway = Played::new(vec![(200, link()), (200, file(&sealed, None))]);
    assert_eq!(recording(&gateway, &["recording", "call_1", "--identity", key]).0, Err(Failed));
}

#[test]
fn an_encrypted_recording_that_a_power_cut_has_ended_is_mended_when_it_is_opened() {
    let here = Box1::new(GOOD);
    let key = here.0.join("key.txt");
    std::fs::write(&key, IDENTITY).unwrap();
    let endless = u32::MAX.to_le_bytes();
    let head = [&b"RIFF"[..], &endless, b"WAVEdata", &endless].concat();
    let seal = Seal::new(&[PUBLIC.to_owned()], "call_1").unwrap();
    let blocks = [seal.head(&head, 0).unwrap(), seal.block(1, b"sound!", 50).unwrap()];
    let cut = [MAGIC.to_vec(), blocks.concat()].concat();
    let gateway = Played::new(vec![(200, link()), (200, file(&cut, None))]);
    let (_, out, _) = recording(&gateway, &["recording", "call_1", "--identity", key.to_str().unwrap()]);
    let sizes = [18_u32.to_le_bytes(), 6_u32.to_le_bytes()];
    assert_eq!(out, [&b"RIFF"[..], &sizes[0], b"WAVEdata", &sizes[1], b"sound!"].concat());
}

#[test]
fn a_recording_is_deleted_paused_and_goes_on() {
    let line = ["recording", "call_1"];
    for (more, answer, asked, told) in [
        (
            "--delete",
            json!({ "id": "call_1", "deleted": true, "uploadedTo": null }),
            "DELETE",
            "call_1: deleted\n",
        ),
        (
            "--delete",
            json!({ "id": "call_1", "deleted": true, "uploadedTo": "s3://calls/1" }),
            "DELETE",
            "call_1: deleted here; a copy is at s3://calls/1\n",
        ),
        (
            "--pause",
            json!({ "id": "call_1", "paused": true }),
            "PATCH",
            "call_1: paused, what is said now is silence in the recording\n",
        ),
        ("--resume", json!({ "id": "call_1", "paused": false }), "PATCH", "call_1: goes on\n"),
    ] {
        let gateway = Played::new(vec![(200, answer.clone())]);
        let (outcome, out, err) = recording(&gateway, &[&line[..], &[more]].concat());
        assert_eq!((outcome, String::from_utf8(out).unwrap().as_str(), err.as_str()), (Ok(()), told, ""));
        let first = gateway.asked()[0].clone();
        assert_eq!(first.line, format!("{asked} /v1/calls/call_1/recording"));
        let wanted = if asked == "PATCH" { json!({ "paused": more == "--pause" }) } else { json!(null) };
        assert_eq!(first.body, wanted);
        let gateway = Played::new(vec![(200, answer.clone())]);
        let (_, out, _) = recording(&gateway, &[&line[..], &[more, "--json"]].concat());
        assert_eq!(String::from_utf8(out).unwrap(), format!("{answer}\n"));
    }
    for more in [["--pause", "--resume"], ["--pause", "--delete"], ["--delete", "-ox"], ["--json", "-ox"]] {
        assert_eq!(refused(&[&line[..], &more].concat()).0, 2, "{more:?}");
    }
}

#[test]
fn recordings_are_a_table_and_calls_without_one_are_not_in_it() {
    let call = |id: &str, recording: Value| json!({ "_id": id, "startedAt": "2026-11-22T10:00:00.000Z", "from": "+49151", "to": "+4930", "recording": recording });
    let part = |state: &str, outcome: &str| {
        json!({ "state": state, "outcome": outcome, "consent": "declined", "seconds": 62.4, "bytes": 1_996_844,
            "expiresAt": "2026-12-22T10:01:02.000Z" })
    };
    let mut none = part("none", "nothing");
    none["bytes"] = json!(0);
    none["expiresAt"] = json!(null);
    let first = json!({ "calls": [call("call_3", part("kept", "gaps")), call("call_2", json!(null))], "nextCursor": "x y" });
    let second = json!({ "calls": [call("call_1", none)], "nextCursor": null });
    let gateway = Played::new(vec![(200, first.clone()), (200, second)]);
    assert_eq!(
        gateway.watrunk(&["recordings"]).1,
        "TIME (UTC)           ID      FROM    TO     PLAYS  SIZE    STATE        UNTIL\n\
         2026-11-22 10:00:00  call_3  +49151  +4930  1:02   2.0 MB  kept (gaps)  2026-12-22\n\
         2026-11-22 10:00:00  call_1  +49151  +4930  -      -       declined     -\n"
    );
    assert_eq!(gateway.lines(), ["GET /v1/calls?limit=200", "GET /v1/calls?limit=200&before=x%20y"]);
    let gateway = Played::new(vec![(200, first)]);
    let (_, out, _) = gateway.watrunk(&["recordings", "--limit", "1", "--json"]);
    let read: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((read["calls"].as_array().unwrap().len(), gateway.asked().len()), (1, 1));
}

#[test]
fn the_audit_log_is_a_table() {
    let entry = json!({ "id": 7, "at": "2026-11-22T10:00:00.000Z", "who": "ops", "action": "recording.deleted",
        "subject": "call_1", "detail": "by the API" });
    let gateway = Played::new(vec![(200, json!({ "entries": [entry], "nextCursor": null }))]);
    assert_eq!(
        gateway.watrunk(&["audit"]).1,
        "TIME (UTC)           WHO  ACTION             CALL    DETAIL\n\
         2026-11-22 10:00:00  ops  recording.deleted  call_1  by the API\n"
    );
    let gateway = Played::new(vec![(200, json!({ "entries": [], "nextCursor": null }))]);
    assert_eq!(gateway.watrunk(&["audit"]).1, "nothing\n");
    assert_eq!(gateway.lines(), ["GET /v1/audit?limit=200"]);
}

#[test]
fn a_call_is_recorded_or_not_whatever_its_number_says() {
    for (more, wanted) in
        [(vec!["--no-record"], json!(false)), (vec!["--record"], json!(true)), (vec![], json!(null))]
    {
        let placed = json!({ "success": true, "callId": "call_1" });
        let gateway = Played::new(vec![(200, super::gateway::numbers()), (200, placed)]);
        assert_eq!(gateway.watrunk(&[vec!["call", "+49151", "--no-wait"], more].concat()).0, Ok(()));
        assert_eq!(gateway.asked()[1].body["recordOverride"], wanted);
    }
    assert_eq!(refused(&["call", "+49151", "--record", "--no-record"]).0, 2);
}
