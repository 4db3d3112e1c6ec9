//! The verbs as they are typed: what is understood, what is printed where, and the exit.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::call::leg::{Direction, Why};
use crate::call::record::{PlacedBy, Quality, Record};
use crate::clock::Wall;
use crate::ledger::Ledger;

mod gateway;
mod recording;

/// Runs a command line: its outcome, stdout and stderr.
fn watrunk(line: &[&str]) -> (Result<(), Failed>, String, String) {
    let cli = Cli::try_parse_from(std::iter::once(&"watrunk").chain(line)).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let outcome = carry_out(cli.verb, &mut out, &mut err);
    (outcome, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

/// The exit code of a command line that is not carried out, and what is printed.
fn refused(line: &[&str]) -> (i32, String) {
    let error = Cli::try_parse_from(std::iter::once(&"watrunk").chain(line)).unwrap_err();
    (error.exit_code(), error.render().to_string())
}

/// A folder with a config file of its own that goes when the test ends.
struct Box1(PathBuf);

impl Box1 {
    fn new(config: &str) -> Box1 {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("watrunk-cli-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let here = Box1(folder);
        std::fs::write(here.0.join("w.toml"), config.replace("STATE", here.state().to_str().unwrap()))
            .unwrap();
        here
    }

    fn config(&self) -> String {
        self.0.join("w.toml").to_str().unwrap().to_owned()
    }

    fn state(&self) -> PathBuf {
        self.0.join("state")
    }
}

impl Drop for Box1 {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A file without faults.
const GOOD: &str = r#"[whatsapp]
app_secret = "a"
access_token = "b"
verify_token = "c"
"#;

/// Its secrets are in files that nobody here can read.
const SEALED: &str = r#"
[gateway]
state_dir = "STATE"
[whatsapp]
app_secret_file = "/nonexistent/app"
access_token_file = "/nonexistent/token"
verify_token_env = "WATRUNK_TEST_UNSET"
"#;

fn call(id: &str) -> Record {
    Record {
        id: id.into(),
        wacid: "wacid.1".into(),
        number: "support".into(),
        account: "acme".into(),
        phone_number_id: "106540352242922".into(),
        direction: Direction::Inbound,
        from: "+15550100200".into(),
        profile_name: Some("Zoë".into()),
        user_id: None,
        to: "+15550100100".into(),
        destination: "sip:200@pbx".into(),
        offered_at: Wall(1_700_000_000_123),
        answered_at: Some(Wall(1_700_000_004_000)),
        connected_at: Some(Wall(1_700_000_004_000)),
        transferred_at: None,
        ended_at: Wall(1_700_000_064_250),
        talk_seconds: 60.25,
        billed_seconds: 60.25,
        recording: false,
        placed_by: PlacedBy::User,
        why: Why::UserHungUp,
        detail: "terminate".into(),
        sip_code: Some(200),
        meta_code: None,
        errors: Vec::new(),
        whatsapp: Quality { received: 3_000, mos: 4.1, ..Quality::default() },
        far: Quality::default(),
        agent: None,
        trunk: None,
        tape: None,
    }
}

fn missed(id: &str) -> Record {
    Record {
        direction: Direction::Outbound,
        answered_at: None,
        connected_at: None,
        talk_seconds: 0.0,
        billed_seconds: 0.0,
        placed_by: PlacedBy::Pbx,
        why: Why::FarBusy,
        sip_code: Some(486),
        from: "a\u{1b}[31mb\nc".into(),
        ..call(id)
    }
}

#[test]
fn the_list_of_verbs_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn run_and_check_take_the_usual_file_unless_told_otherwise() {
    for verb in ["run", "check"] {
        let path = |line: &[&str]| match Cli::try_parse_from(line).unwrap().verb {
            Verb::Run(args) | Verb::Check(args) => args.config,
            other => panic!("{other:?}"),
        };
        assert_eq!(path(&["watrunk", verb]), Path::new("/etc/watrunk/watrunk.toml"));
        assert_eq!(path(&["watrunk", verb, "--config", "a.toml"]), Path::new("a.toml"));
    }
}

#[test]
fn wrong_usage_exits_with_2_and_help_and_version_with_0() {
    let wrong: [&[&str]; 14] = [
        &[],
        &["rnu"],
        &["run", "--confg", "x"],
        &["run", "extra"],
        &["config"],
        &["completions", "tcsh"],
        &["calls", "--direction", "sideways"],
        &["calls", "--status", "odd"],
        &["calls", "--limit", "0"],
        &["calls", "--since", "yesterday"],
        &["call"],
        &["call", "+4915112345678", "--forward-to"],
        &["hangup"],
        &["status", "more"],
    ];
    for line in wrong {
        assert_eq!(refused(line).0, 2, "{line:?}");
    }
    let (code, text) = refused(&["--version"]);
    assert_eq!((code, text.as_str()), (0, concat!("watrunk ", env!("CARGO_PKG_VERSION"), "\n")));
    assert_eq!(refused(&["--help"]).0, 0);
    assert!(refused(&["chek"]).1.contains("'check'"), "the nearest verb is suggested");
}

#[cfg(all(feature = "demo", not(target_env = "musl")))]
#[test]
fn demo_understands_its_options() {
    let cli = Cli::try_parse_from(["watrunk", "demo", "--record", "a.wav", "--json"]).unwrap();
    let Verb::Demo(args) = cli.verb else { panic!("not demo") };
    assert_eq!((args.record, args.json, args.outbound), (Some(PathBuf::from("a.wav")), true, false));
    let cli = Cli::try_parse_from(["watrunk", "demo", "--outbound"]).unwrap();
    assert!(matches!(cli.verb, Verb::Demo(args) if args.outbound));
    let cli = Cli::try_parse_from(["watrunk", "demo", "--agent"]).unwrap();
    assert!(matches!(cli.verb, Verb::Demo(args) if args.agent));
    assert!(Cli::try_parse_from(["watrunk", "demo", "--agent", "--outbound"]).is_err(), "no agent calls");
}

#[test]
fn check_says_ok_and_what_is_worth_knowing() {
    let here = Box1::new(&format!("[http]\nlisten = \"0.0.0.0:8080\"\n{GOOD}[media]\nthreads = 2\n"));
    let (outcome, out, err) = watrunk(&["check", "--config", &here.config()]);
    assert_eq!((outcome, err.as_str()), (Ok(()), ""));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], format!("{}: ok", here.config()));
    let (notes, rest): (Vec<&str>, Vec<&str>) =
        lines[1..].iter().partition(|line| line.starts_with("note: "));
    assert!(notes.iter().any(|note| note.contains(":2: http.listen: can be reached")), "{out}");
    assert!(rest[0].starts_with("board: ") && rest[1].starts_with("in force: gateway.max_calls = "), "{out}");
    assert_eq!(*lines.last().unwrap(), format!("in force: media.threads = 2 ({}:8)", here.config()));
}

#[test]
fn the_example_is_not_run_with_its_placeholders() {
    let here = Box1::new(EXAMPLE);
    for verb in ["check", "run"] {
        let (outcome, out, err) = watrunk(&[verb, "--config", &here.config()]);
        assert_eq!(outcome, Err(Failed), "{verb}");
        assert!(!out.contains(": ok"), "{out}");
        let lines: Vec<&str> = err.lines().collect();
        assert_eq!(lines.len(), 5, "{err}");
        assert!(
            lines.iter().all(|line| line.ends_with(": is still the placeholder of the example")),
            "{err}"
        );
        assert!(lines[1].contains(": whatsapp.app_secret: "), "{err}");
    }
}

#[test]
fn a_clock_that_was_never_set_is_told_and_one_that_was_is_not() {
    assert!(clock_line(Wall(0)).unwrap().starts_with("the clock says it is 1970: "));
    assert!(clock_line(Wall(1_700_000_000_000)).unwrap().contains("2023"));
    assert_eq!(clock_line(Wall(1_767_225_600_000)), None);
}

#[test]
fn check_says_every_fault_on_stderr_and_fails() {
    let here = Box1::new("[gateway]\nmax_calls = 0\n[whatsapp]\napp_secret = \"a\"\nacces_token = \"b\"\n");
    let (outcome, out, err) = watrunk(&["check", "--config", &here.config()]);
    assert_eq!((outcome, out.as_str()), (Err(Failed), ""));
    let file = here.config();
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines.len(), 4, "{err}");
    assert_eq!(lines[0], format!("{file}:2: gateway.max_calls: must be between 1 and 10000 (calls), is 0"));
    assert!(lines[3].starts_with(&format!("{file}:5: whatsapp.acces_token: unknown key")), "{err}");
}

#[test]
fn a_prompt_that_is_no_sound_is_a_fault_before_the_first_call_needs_it() {
    let here = Box1::new("");
    let prompt = Path::new(&here.config()).with_file_name("prompt.wav");
    std::fs::write(&prompt, b"RIFF----WAVEfmt ").unwrap();
    let text = format!("{GOOD}[recording]\nconsent_prompt = {:?}\n", prompt.display().to_string());
    std::fs::write(here.config(), text).unwrap();
    let (outcome, out, err) = watrunk(&["check", "--config", &here.config()]);
    assert_eq!(outcome, Err(Failed), "{out}{err}");
    let line = GOOD.lines().count() + 2;
    let begin = format!(
        "{}:{line}: recording.consent_prompt: \"{}\" can't be played: ",
        here.config(),
        prompt.display()
    );
    assert!(err.starts_with(&begin) && !out.contains(": ok"), "{out}{err}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let (outcome, out, err) = watrunk(&["check", "--config", "/nonexistent/w.toml"]);
    assert_eq!((outcome, out.as_str()), (Err(Failed), ""));
    assert!(err.starts_with("/nonexistent/w.toml: can't be read: "), "{err}");
    assert_eq!(watrunk(&["run", "--config", "/nonexistent/w.toml"]).0, Err(Failed));
}

#[test]
fn the_example_is_printed_as_it_is() {
    assert_eq!(watrunk(&["config", "example"]), (Ok(()), EXAMPLE.to_owned(), String::new()));
}

#[test]
fn calls_lists_a_table_without_reading_any_secret() {
    let here = Box1::new(SEALED);
    let mut ledger = Ledger::open(&here.state(), Wall(0)).unwrap();
    ledger.insert(&call("call_1")).unwrap();
    ledger.insert(&missed("call_2")).unwrap();
    // The gateway goes on running: `ledger` stays open.
    let (outcome, out, err) = watrunk(&["calls", "--offline", "--config", &here.config()]);
    assert_eq!((outcome, err.as_str()), (Ok(()), ""));
    assert_eq!(
        out,
        "TIME (UTC)           DIRECTION  FROM          TO            DESTINATION  ANSWERED  TALK  WHY\n\
         2023-11-14 22:13:20  outbound   a?[31mb?c     +15550100100  sip:200@pbx  no        -     far_busy (SIP 486)\n\
         2023-11-14 22:13:20  inbound    +15550100200  +15550100100  sip:200@pbx  yes       1:00  user_hung_up\n"
    );
    drop(ledger);
    assert_eq!(
        watrunk(&["check", "--config", &here.config()]).0,
        Err(Failed),
        "the secrets are out of reach"
    );
}

#[test]
fn calls_leaves_out_what_was_not_asked_for() {
    let here = Box1::new(SEALED);
    let mut ledger = Ledger::open(&here.state(), Wall(0)).unwrap();
    for n in 0..4 {
        let id = format!("call_{n}");
        ledger.insert(&if n % 2 == 0 { call(&id) } else { missed(&id) }).unwrap();
    }
    let ids = |more: &[&str]| -> Vec<String> {
        let config = here.config();
        let line = [&["calls", "--offline", "--json", "--config", &config], more].concat();
        let (outcome, out, err) = watrunk(&line);
        assert_eq!((outcome, err.as_str()), (Ok(()), ""));
        let read: serde_json::Value = serde_json::from_str(&out).unwrap();
        read["calls"].as_array().unwrap().iter().map(|call| call["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&[]), ["call_3", "call_2", "call_1", "call_0"]);
    assert_eq!(ids(&["--limit", "1"]), ["call_3"]);
    assert_eq!(ids(&["--direction", "inbound"]), ["call_2", "call_0"]);
    assert_eq!(ids(&["--status", "answered"]), ["call_2", "call_0"]);
    assert_eq!(ids(&["--status", "unanswered", "--limit", "1"]), ["call_3"]);
    assert_eq!(ids(&["--status", "far_busy"]), ["call_3", "call_1"]);
    assert_eq!(ids(&["--status", "fault"]), Vec::<String>::new());
    assert_eq!(ids(&["--status", "ended", "--limit", "3"]), ["call_3", "call_2", "call_1"]);
    assert_eq!(ids(&["--status", "failed"]), Vec::<String>::new());
    assert_eq!(ids(&["--status", "ringing"]), Vec::<String>::new());
    assert_eq!(ids(&["--number", "support", "--limit", "2"]), ["call_3", "call_2"]);
    assert_eq!(ids(&["--number", "+15550100200"]), ["call_2", "call_0"]);
    assert_eq!(ids(&["--number", "sales"]), Vec::<String>::new());
    assert_eq!(ids(&["--since", "2023-11-14T22:13:20.123Z"]).len(), 4);
    assert_eq!(ids(&["--since", "2023-11-14T22:13:20.124Z"]).len(), 0);
    assert_eq!(ids(&["--until", "2023-11-15", "--since", "2023-11-14"]).len(), 4);
    assert_eq!(ids(&["--until", "2023-11-14"]).len(), 0);
}

#[test]
fn calls_as_json_holds_every_field() {
    let here = Box1::new(SEALED);
    Ledger::open(&here.state(), Wall(0)).unwrap().insert(&call("call_1")).unwrap();
    let (_, out, _) = watrunk(&["calls", "--offline", "--json", "--config", &here.config()]);
    let read: serde_json::Value = serde_json::from_str(&out).unwrap();
    let nothing = serde_json::json!({ "received": 0, "sent": 0, "lost": 0, "discarded": 0, "concealed": 0,
        "repaired": 0, "jitter_ms": 0.0, "mos": 0.0 });
    let mut heard = nothing.clone();
    heard["received"] = 3_000.into();
    heard["mos"] = 4.1.into();
    assert_eq!(
        read,
        serde_json::json!({ "calls": [{
            "id": "call_1", "wacid": "wacid.1", "number": "support", "direction": "inbound",
            "from": "+15550100200", "profile_name": "Zoë", "user_id": null, "to": "+15550100100",
            "destination": "sip:200@pbx", "offered_at": "2023-11-14T22:13:20.123Z", "answered": true,
            "answered_at": "2023-11-14T22:13:24.000Z", "transferred_at": null, "ended_at": "2023-11-14T22:14:24.250Z",
            "talk_seconds": 60.25, "why": "user_hung_up", "detail": "terminate", "sip_code": 200,
            "meta_code": null, "whatsapp": heard, "far": nothing, "trunk": null, "agent": null,
        }] })
    );
}

#[test]
fn before_the_first_call_there_is_an_empty_list_and_no_failure() {
    let here = Box1::new(SEALED);
    let (outcome, out, err) = watrunk(&["calls", "--offline", "--config", &here.config()]);
    assert_eq!((outcome, out.as_str(), err.as_str()), (Ok(()), "no calls\n", ""));
    let (outcome, out, _) = watrunk(&["calls", "--offline", "--json", "--config", &here.config()]);
    assert_eq!(outcome, Ok(()));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap(), serde_json::json!({ "calls": [] }));
    assert!(!here.state().exists(), "looking makes nothing");
}

#[test]
fn a_damaged_history_is_told_on_stderr() {
    let here = Box1::new(SEALED);
    std::fs::create_dir_all(here.state()).unwrap();
    std::fs::write(here.state().join("calls.db"), "not a database, whatever else it may be ".repeat(50))
        .unwrap();
    let (outcome, out, err) = watrunk(&["calls", "--offline", "--config", &here.config()]);
    assert_eq!((outcome, out.as_str()), (Err(Failed), ""));
    assert!(err.starts_with("watrunk: the call history is damaged: "), "{err}");
}

#[test]
fn talk_time_reads_like_a_clock() {
    let mut record = call("call_1");
    for (seconds, told) in [(0.4, "0:00"), (59.6, "1:00"), (750.0, "12:30"), (3_723.0, "1:02:03")] {
        record.talk_seconds = seconds;
        assert!(calls::records_table(&[record.clone()]).contains(&format!("  {told} ")), "{seconds}");
    }
    // A stamp beyond the calendar is shown as the number it is.
    record.offered_at = Wall(i64::MAX);
    assert!(calls::records_table(&[record]).contains("9223372036854775807"));
}

#[test]
fn the_man_page_has_every_verb_and_option_and_completions_too() {
    let (outcome, page, _) = watrunk(&["man"]);
    assert_eq!(outcome, Ok(()));
    for part in [
        "watrunk run",
        "watrunk check",
        "watrunk config example",
        "watrunk calls",
        "watrunk call",
        "watrunk hangup",
        "watrunk permissions",
        "watrunk numbers",
        "watrunk trunks",
        "watrunk trace",
        "watrunk recording",
        "watrunk recordings",
        "watrunk audit",
        "watrunk status",
        "WATRUNK_KEY",
        "EXIT STATUS",
        "\\-\\-status",
    ] {
        assert!(page.contains(part), "{part} is not in the man page:\n{page}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let (outcome, script, _) = watrunk(&["completions", shell]);
        assert_eq!(outcome, Ok(()));
        for word in ["calls", "far_busy", "hangup", "permissions", "forward-to"] {
            assert!(script.contains(word), "{word} for {shell}");
        }
    }
}

/// A stdout whose reader has gone, or whose disk is full.
struct Gone(ErrorKind);

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure_but_a_full_disk_is() {
    let to = |kind| {
        let mut err = Vec::new();
        let verb = Cli::try_parse_from(["watrunk", "config", "example"]).unwrap().verb;
        (carry_out(verb, &mut Gone(kind), &mut err), err.is_empty())
    };
    assert_eq!(to(ErrorKind::BrokenPipe), (Ok(()), true));
    assert_eq!(to(ErrorKind::StorageFull), (Err(Failed), false));
}
