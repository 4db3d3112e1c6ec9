//! The board file under the config file: what it may say, who wins, and what is told about it.

use std::ffi::OsStr;

use super::*;

const BOARD: &str = r#"name = "pi9"
description = "A board of tomorrow"
target = "aarch64-unknown-linux-musl"
watchdog_seconds = 15
led = "ACT"

[gateway]
max_calls = 12

[media]
opus_complexity = 2
threads = 3
"#;

/// The three settings a board can make, under this text.
fn in_force(text: &str, board: &Board) -> Vec<(String, Origin)> {
    let outcome = parse(text, &Vault::default(), board);
    outcome.value.unwrap();
    outcome.in_force.into_iter().map(|it| (format!("{} = {}", it.key, it.value), it.origin)).collect()
}

fn told(text: &str) -> Vec<String> {
    let faults = Board::parse(text).unwrap_err();
    faults.iter().map(|fault| fault.in_file(Path::new("board.toml")).to_string()).collect()
}

#[test]
fn the_config_file_wins_over_the_board_and_the_board_over_what_is_built_in() {
    let board = Board::parse(BOARD).unwrap();
    let text = plus("[gateway]\nmax_calls = 20\n");
    let config = parse(&text, &Vault::default(), &board).value.unwrap();
    assert_eq!(config.gateway.max_calls, 20);
    assert_eq!((config.media.opus_complexity, config.media.threads), (2, Some(3)));
    assert_eq!(config.media.jitter_ms, 60);
    assert_eq!(
        in_force(&text, &board),
        [
            ("gateway.max_calls = 20".to_owned(), Origin::File(22)),
            ("media.opus_complexity = 2".to_owned(), Origin::Board(11)),
            ("media.threads = 3".to_owned(), Origin::Board(12)),
        ]
    );
}

#[test]
fn without_a_board_what_is_built_in_is_in_force() {
    assert_eq!(
        in_force(GOOD, &Board::default()),
        [
            ("gateway.max_calls = 50".to_owned(), Origin::BuiltIn),
            ("media.opus_complexity = 5".to_owned(), Origin::BuiltIn),
            ("media.threads = one per core".to_owned(), Origin::BuiltIn),
        ]
    );
}

#[test]
fn a_key_that_a_board_can_not_set_is_one_fault_with_its_line() {
    assert_eq!(
        told(&BOARD.replace("threads", "thraeds")),
        ["board.toml:12: media.thraeds: unknown key; did you mean `threads`?"]
    );
    assert_eq!(told(&format!("{BOARD}dscp = 46\n")), ["board.toml:13: media.dscp: unknown key"]);
    assert_eq!(
        told("name = \"x\"\nthreads = 3\n"),
        ["board.toml:2: threads: unknown key; it belongs in [media]"]
    );
    assert_eq!(told("name = \"x\"\n[sip]\n"), ["board.toml:2: sip: unknown key"]);
}

#[test]
fn values_out_of_bounds_are_refused_as_in_the_config_file() {
    assert_eq!(
        told(&BOARD.replace("max_calls = 12", "max_calls = 0").replace("\"ACT\"", "\"../ACT\"")),
        [
            "board.toml:5: led: must be a name in /sys/class/leds, is \"../ACT\"",
            "board.toml:8: gateway.max_calls: must be between 1 and 10000 (calls), is 0",
        ]
    );
    assert_eq!(told(""), ["board.toml: name: is missing"]);
}

#[test]
fn more_calls_than_the_ports_carry_is_a_fault_whoever_said_it() {
    let board = Board::parse(&BOARD.replace("12", "101")).unwrap();
    let faults = parse(GOOD, &Vault::default(), &board).value.unwrap_err();
    assert!(faults[0].what.ends_with("but gateway.max_calls is 101"), "{faults:?}");
}

#[test]
fn a_board_file_that_is_named_must_be_there_and_its_faults_bear_its_name() {
    let folder = std::env::temp_dir().join(format!("watrunk-board-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("board.toml");
    let missing = Board::of_machine(Some(path.as_os_str())).unwrap_err();
    let line = missing[0].in_file(Path::new("watrunk.toml")).to_string();
    assert!(line.starts_with(&format!("{}: can't be read: ", path.display())), "{line}");

    std::fs::write(&path, "name = \"x\"\nled = 1\n").unwrap();
    let wrong = Board::of_machine(Some(path.as_os_str())).unwrap_err();
    assert_eq!(
        wrong[0].to_string(),
        format!("{}:2: led: must be a string, is a whole number", path.display())
    );

    std::fs::write(&path, BOARD).unwrap();
    let board = Board::of_machine(Some(path.as_os_str())).unwrap();
    assert_eq!((board.path.as_deref(), board.name.as_str()), (Some(path.as_path()), "pi9"));
    assert_eq!((board.watchdog_seconds, board.led.as_deref()), (Some(15), Some("ACT")));
    std::fs::remove_dir_all(&folder).unwrap();

    assert_eq!(Board::of_machine(Some(OsStr::new(""))), Ok(Board::default()), "an empty name is no board");
}

#[test]
fn every_board_that_is_shipped_loads_and_fits_the_usual_ports() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("board");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension() != Some(OsStr::new("toml")) {
            continue;
        }
        let board = Board::of_machine(Some(path.as_os_str())).unwrap();
        assert_eq!(path.file_stem(), Some(OsStr::new(&board.name)), "the file has another name");
        assert!(board.target.as_ref().is_some_and(|t| t.contains("-linux-musl")), "{}", board.name);
        parse(GOOD, &Vault::default(), &board).value.unwrap();
        names.push(board.name);
    }
    names.sort();
    let expected = [
        "cm4",
        "generic-aarch64",
        "generic-armv7",
        "generic-x86_64",
        "pi3",
        "pi4",
        "pi5",
        "qemu",
        "zero",
        "zero2",
    ];
    assert_eq!(names, expected);
}
