//! Arguments in, exit code out. Exit codes: 0 done, 1 failed (the reason on stderr), 2 wrong usage.

mod api;
mod args;
mod board;
mod call;
mod calls;
mod look;
mod man;
mod recording;
mod table;
#[cfg(test)]
mod tests;
mod trace;

use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::clock::Wall;
use crate::config::{Config, EXAMPLE, Fault, Note};
use crate::io::clip::Clips;

use args::{Cli, ConfigVerb, Verb};

/// A record as `watrunk calls --json` shows it.
#[cfg(all(feature = "demo", not(target_env = "musl")))]
pub(crate) fn record_object(record: &crate::call::record::Record) -> serde_json::Value {
    calls::call(record)
}

/// The whole program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Also the way of --help and --version, whose code is 0.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match carry_out(cli.verb, &mut io::stdout(), &mut io::stderr()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed) => ExitCode::FAILURE,
    }
}

/// It went wrong, and the reason has been told.
#[derive(Debug, PartialEq, Eq)]
struct Failed;

fn carry_out(verb: Verb, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failed> {
    match verb {
        Verb::Run(args) => {
            let found = read(Config::inspect(&args.config), &args.config, err)?;
            changed(&found.notes, &args.config, err)?;
            tell_notes(&found.notes, &args.config, err);
            if let Some(line) = clock_line(crate::io::clock::now().wall) {
                let _ = writeln!(err, "watrunk: {line}");
            }
            log_to_stderr();
            crate::io::run(found.config, found.board.led.as_deref(), args.config)
                .map_err(|reason| fail(&reason, err))
        }
        #[cfg(all(feature = "demo", not(target_env = "musl")))]
        Verb::Demo(args) => {
            let args::DemoArgs { record, json, outbound, agent } = args;
            let options = crate::demo::DemoOptions { record, json, outbound, agent };
            match crate::demo::run(options) {
                Ok(true) => Ok(()),
                Ok(false) => Err(fail("the call was not as it should be, see above", err)),
                Err(reason) => Err(fail(&reason, err)),
            }
        }
        Verb::Check(args) => {
            let found = read(Config::inspect(&args.config), &args.config, err)?;
            let mut outcome = changed(&found.notes, &args.config, err);
            for fault in Clips::default().load(&found.config) {
                let _ = writeln!(err, "{}", fault.in_file(&args.config));
                outcome = Err(Failed);
            }
            let mut text = String::new();
            if outcome.is_ok() {
                text.push_str(&format!("{}: ok\n", args.config.display()));
            }
            for note in found.notes.iter().filter(|note| !note.is_placeholder()) {
                text.push_str(&format!("note: {}\n", note.in_file(&args.config)));
            }
            text.push_str(&board::in_force(&found, &args.config));
            say(&text, out, err)?;
            outcome
        }
        Verb::Config { what: ConfigVerb::Example } => say(EXAMPLE, out, err),
        Verb::Call(args) => call::place(&args, call::PACE, out, err),
        Verb::Calls(args) => calls::list(&args, out, err),
        Verb::Hangup(args) => call::hang_up(&args, out, err),
        Verb::Permissions(args) => call::permissions(&args, out, err),
        Verb::Numbers(args) => look::numbers(&args, out, err),
        Verb::Trunks(args) => look::trunks(&args, out, err),
        Verb::Trace(args) => trace::trace(&args, out, err),
        Verb::Recording(args) => recording::recording(&args, io::stdout().is_terminal(), out, err),
        Verb::Recordings(args) => recording::recordings(&args, out, err),
        Verb::Audit(args) => recording::audit(&args, out, err),
        Verb::Status(args) => look::status(&args, out, err),
        Verb::Man => {
            let mut page = Vec::new();
            man::render(Cli::command(), &mut page).map_err(|error| fail(&error.to_string(), err))?;
            say(&String::from_utf8_lossy(&page), out, err)
        }
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "watrunk", &mut script);
            say(&String::from_utf8_lossy(&script), out, err)
        }
    }
}

/// A config that could be read, or else all its faults on stderr.
fn read<T>(config: Result<T, Vec<Fault>>, path: &Path, err: &mut dyn Write) -> Result<T, Failed> {
    config.map_err(|faults| {
        for fault in faults {
            let _ = writeln!(err, "{}", fault.in_file(path));
        }
        Failed
    })
}

/// Nothing can run with the secrets of the example: each that was never changed is told.
fn changed(notes: &[Note], path: &Path, err: &mut dyn Write) -> Result<(), Failed> {
    let mut unchanged = notes.iter().filter(|note| note.is_placeholder()).peekable();
    if unchanged.peek().is_none() {
        return Ok(());
    }
    for note in unchanged {
        let _ = writeln!(err, "{}", note.in_file(path));
    }
    Err(Failed)
}

/// A time that has certainly passed: 2025-01-01. A clock before it was never set.
const LONG_AGO: Wall = Wall(1_735_689_600_000);

/// What to say about a clock that was never set. It is no reason not to start: the time server may answer yet.
fn clock_line(wall: Wall) -> Option<String> {
    if wall >= LONG_AGO {
        return None;
    }
    let at = time::OffsetDateTime::from_unix_timestamp(wall.unix_seconds());
    let year = at.map_or(1970, |at| at.year());
    Some(format!(
        "the clock says it is {year}: Meta's certificates are refused until a time server has answered; see timedatectl"
    ))
}

fn tell_notes(notes: &[Note], path: &Path, err: &mut dyn Write) {
    for note in notes {
        let _ = writeln!(err, "note: {}", note.in_file(path));
    }
}

fn fail(reason: &str, err: &mut dyn Write) -> Failed {
    let _ = writeln!(err, "watrunk: {reason}");
    Failed
}

/// Writes to stdout. A reader that has seen enough (`| head`) is no failure.
fn say(text: &str, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failed> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(fail(&error.to_string(), err)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What is written if nobody asks for anything else.
const LOG_LEVELS: &str = "warn,watrunk=info";

/// What the gateway says goes to stderr, as `WATRUNK_LOG` asks. The journal has clocks of its own.
pub(crate) fn log_to_stderr() {
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::prelude::*;

    let asked = std::env::var("WATRUNK_LOG").unwrap_or_default();
    // `Targets` reads the same words as an `EnvFilter` but for spans, and brings no regular expressions along.
    let levels = if asked.is_empty() { LOG_LEVELS } else { &asked };
    let levels: Targets = levels.parse().or_else(|_| LOG_LEVELS.parse()).unwrap_or_default();
    let registry = tracing_subscriber::registry();
    let to_stderr = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    // A second subscriber in the same process is no reason not to start.
    let _ = if std::env::var_os("JOURNAL_STREAM").is_some() {
        registry.with(to_stderr.without_time().with_ansi(false).with_filter(levels)).try_init()
    } else {
        let colours = io::stderr().is_terminal();
        registry.with(to_stderr.with_ansi(colours).with_filter(levels)).try_init()
    };
}
