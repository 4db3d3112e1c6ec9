//! The verbs and their options: the one list that help, man page and completions are made from.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, value_parser};

use crate::call::leg::{Direction, Why};
use crate::config::DEFAULT_PATH;
use crate::ledger::MAX_LIST;

/// WhatsApp Business calls on your own PBX
#[derive(Debug, Parser)]
#[command(name = "watrunk", version, about, disable_help_subcommand = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run the gateway in the foreground
    ///
    /// Prints one line with every bound address when it is ready. SIGTERM lets running calls finish first, SIGHUP
    /// reads the file again. WATRUNK_LOG sets what is logged to stderr, as in "info" or "watrunk=debug".
    Run(ConfigFile),
    /// Make one whole call on this machine, without an account and a PBX, and measure it
    #[cfg(all(feature = "demo", not(target_env = "musl")))]
    Demo(DemoArgs),
    /// Say everything that is wrong with the config file
    Check(ConfigFile),
    /// Work with the config file
    Config {
        #[command(subcommand)]
        what: ConfigVerb,
    },
    /// List finished calls, the latest first
    Calls(CallsArgs),
    /// Print the man page (roff)
    Man,
    /// Print the completions for a shell
    Completions {
        /// Which shell
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Print a config file with every key, explained
    Example,
}

#[derive(Debug, Args)]
pub(super) struct ConfigFile {
    /// The config file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,
}

#[cfg(all(feature = "demo", not(target_env = "musl")))]
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Keep the sound of the call in this file
    #[arg(long, value_name = "FILE.wav")]
    pub record: Option<PathBuf>,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CallsArgs {
    /// Only calls of this direction
    #[arg(long, value_name = "DIRECTION", value_parser = directions())]
    pub direction: Option<Direction>,
    /// Only calls that were answered, that were not, or that ended for one reason
    #[arg(long, value_name = "STATUS", value_parser = statuses(), hide_possible_values = true,
        long_help = status_help())]
    pub status: Option<Status>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = value_parser!(u32).range(1..=MAX_LIST as i64))]
    pub limit: u32,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    /// The config file: it says where the history is
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,
}

/// What `--status` may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Answered,
    Unanswered,
    Ended(Why),
}

impl Status {
    fn all() -> impl Iterator<Item = (&'static str, Status)> {
        let ended = Why::ALL.into_iter().map(|why| (why.as_str(), Status::Ended(why)));
        [("answered", Status::Answered), ("unanswered", Status::Unanswered)].into_iter().chain(ended)
    }
}

fn status_help() -> String {
    let words: Vec<&str> = Status::all().map(|(word, _)| word).collect();
    format!(
        "Only calls that were answered, that were not, or that ended for one reason\n\nOne of {}",
        words.join(", ")
    )
}

fn statuses() -> impl TypedValueParser<Value = Status> {
    PossibleValuesParser::new(Status::all().map(|(word, _)| PossibleValue::new(word))).try_map(|given| {
        Status::all().find(|(word, _)| *word == given).map(|(_, status)| status).ok_or("unknown")
    })
}

fn directions() -> impl TypedValueParser<Value = Direction> {
    const ALL: [Direction; 2] = [Direction::Inbound, Direction::Outbound];
    PossibleValuesParser::new(ALL.map(|direction| PossibleValue::new(direction.as_str())))
        .try_map(|given| ALL.into_iter().find(|direction| direction.as_str() == given).ok_or("unknown"))
}
