//! The verbs and their options: the one list that help, man page and completions are made from.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, value_parser};

use crate::call::leg::{Direction, Why};
use crate::call::record::ApiStatus;
use crate::clock::Wall;
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
    /// Call a WhatsApp user and connect the call to the number's destination
    ///
    /// Shows how far the call has come until the user answers; it goes on then. Exits with 1 and the reason if nobody
    /// answers.
    Call(CallArgs),
    /// List calls, the latest first
    ///
    /// The running gateway is asked. If there is none, finished calls are read from the history file.
    Calls(CallsArgs),
    /// End a running call
    Hangup(HangupArgs),
    /// Say whether a WhatsApp user may be called, or ask the user for permission
    Permissions(PermissionsArgs),
    /// List the WhatsApp business numbers
    Numbers(LookArgs),
    /// List the trunks and whether they are up
    Trunks(LookArgs),
    /// Show what SIP said in a call, or switch the keeping of it on and off
    ///
    /// Messages are kept in memory while tracing is on, 4 MiB at most. Credentials are masked unless --mask none is
    /// given, which needs an admin key.
    Trace(TraceArgs),
    /// Fetch the recording of a call, or delete it, pause it, go on with it
    ///
    /// Written to stdout, or with -o to a file. The checksum is compared with the one of the time when the recording was
    /// finished. Deleting needs an admin key, pausing an operator key.
    Recording(RecordingArgs),
    /// List the calls that were recorded, the latest first
    Recordings(RecordingsArgs),
    /// List who has heard or deleted recordings, the latest first; needs an admin key
    Audit(AuditArgs),
    /// Say how the running gateway is
    Status(LookArgs),
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
    /// The PBX calls the WhatsApp user, instead of the other way round
    #[arg(long)]
    pub outbound: bool,
    /// A voice agent that echoes answers over a WebSocket, instead of the PBX
    #[arg(long, conflicts_with = "outbound")]
    pub agent: bool,
}

/// Which gateway is asked, and how its answer is shown.
#[derive(Debug, Args)]
pub(super) struct ApiArgs {
    /// Where the gateway's API is, as in https://calls.example.com; if not given, the config file says it
    #[arg(long, value_name = "URL", env = "WATRUNK_API", hide_env_values = true)]
    pub api: Option<String>,
    /// A key of the API; if neither this nor --api is given, the best one in the config file
    #[arg(long, value_name = "KEY", env = "WATRUNK_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// The config file: it says where the gateway is
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,
    /// Print the API's answer (JSON) instead of words for people
    #[arg(long)]
    pub json: bool,
}

impl ApiArgs {
    /// The address that was given. An empty one, as of a variable that was emptied, is none.
    pub fn base(&self) -> Option<&str> {
        self.api.as_deref().filter(|base| !base.is_empty())
    }
}

#[derive(Debug, Args)]
pub(super) struct LookArgs {
    #[command(flatten)]
    pub api: ApiArgs,
}

#[derive(Debug, Args)]
pub(super) struct TraceArgs {
    /// The call's id; or "on", "off" or "state": whether messages are kept
    #[arg(value_name = "ID")]
    pub what: String,
    /// Write a capture file for Wireshark instead of the ladder
    #[arg(long, value_name = "FILE.pcap", conflicts_with = "json")]
    pub pcap: Option<PathBuf>,
    /// With "on": keep the sound of the PBX's side too, for --pcap
    #[arg(long)]
    pub sound: bool,
    /// What is made unreadable
    #[arg(long, value_name = "WHAT", default_value = "credentials",
          value_parser = PossibleValuesParser::new(["none", "credentials", "all"]))]
    pub mask: String,
    #[command(flatten)]
    pub api: ApiArgs,
}

#[derive(Debug, Args)]
pub(super) struct CallArgs {
    /// Whom to call: a number like +491512345678, or a user id
    #[arg(value_name = "+E164")]
    pub to: String,
    /// The number that calls, by its id; may be left out if only one is enabled
    #[arg(long, value_name = "ID")]
    pub number: Option<String>,
    /// Connect the user to this destination instead of the number's: tel:+E164, sip:user@trunk or wss://…
    #[arg(long, value_name = "URI")]
    pub forward_to: Option<String>,
    /// Record this call, whatever the number's setting
    #[arg(long)]
    pub record: bool,
    /// Don't record this call, whatever the number's setting
    #[arg(long, conflicts_with = "record")]
    pub no_record: bool,
    /// Don't wait until the user answers
    #[arg(long)]
    pub no_wait: bool,
    #[command(flatten)]
    pub api: ApiArgs,
}

#[derive(Debug, Args)]
pub(super) struct RecordingArgs {
    /// Which call: its id, as `watrunk calls` shows it
    #[arg(value_name = "ID")]
    pub id: String,
    /// Write the recording to this file
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["delete", "pause", "resume", "json"])]
    pub output: Option<PathBuf>,
    /// Decrypt it with the age identity (AGE-SECRET-KEY-1…) in this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["delete", "pause", "resume", "json"])]
    pub identity: Option<PathBuf>,
    /// Delete it from the gateway, for good
    #[arg(long, conflicts_with_all = ["pause", "resume"])]
    pub delete: bool,
    /// Pause it while the call goes on
    #[arg(long, conflicts_with = "resume")]
    pub pause: bool,
    /// Go on with it
    #[arg(long)]
    pub resume: bool,
    #[command(flatten)]
    pub api: ApiArgs,
}

#[derive(Debug, Args)]
pub(super) struct RecordingsArgs {
    /// How many at most, among the latest 10,000 calls
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = value_parser!(u32).range(1..=MAX_LIST as i64))]
    pub limit: u32,
    #[command(flatten)]
    pub api: ApiArgs,
}

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = value_parser!(u32).range(1..=MAX_LIST as i64))]
    pub limit: u32,
    #[command(flatten)]
    pub api: ApiArgs,
}

#[derive(Debug, Args)]
pub(super) struct HangupArgs {
    /// Which call: its id, as `watrunk calls` shows it
    #[arg(value_name = "ID")]
    pub id: String,
    #[command(flatten)]
    pub api: ApiArgs,
}

#[derive(Debug, Args)]
pub(super) struct PermissionsArgs {
    /// Whom: a number like +491512345678, or a user id
    #[arg(value_name = "+E164")]
    pub to: String,
    /// The number that would call, by its id; may be left out if only one is enabled
    #[arg(long, value_name = "ID")]
    pub number: Option<String>,
    /// Send the user a message that asks for permission, with these words
    #[arg(long, value_name = "TEXT", num_args = 0..=1, default_missing_value = "")]
    pub request: Option<String>,
    #[command(flatten)]
    pub api: ApiArgs,
}

#[derive(Debug, Args)]
pub(super) struct CallsArgs {
    /// Only calls of this direction
    #[arg(long, value_name = "DIRECTION", value_parser = directions())]
    pub direction: Option<Direction>,
    /// Only calls that have come so far, or that ended for one reason
    #[arg(long, value_name = "STATUS", value_parser = statuses(), hide_possible_values = true,
        long_help = status_help())]
    pub status: Option<Status>,
    /// Only calls of this number, by its id or as +E164
    #[arg(long, value_name = "ID")]
    pub number: Option<String>,
    /// Only calls that began then or later, as in 2026-11-22 or 2026-11-22T10:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<Wall>,
    /// Only calls that began then or earlier
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<Wall>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = value_parser!(u32).range(1..=MAX_LIST as i64))]
    pub limit: u32,
    /// Read finished calls from the history file of this machine, without asking any gateway
    #[arg(long)]
    pub offline: bool,
    #[command(flatten)]
    pub api: ApiArgs,
}

/// A date-time (RFC 3339), or a date: its first moment in UTC.
fn moment(text: &str) -> Result<Wall, String> {
    use time::format_description::well_known::Rfc3339;
    use time::macros::format_description;
    use time::{Date, OffsetDateTime};

    let date =
        || Date::parse(text, format_description!("[year]-[month]-[day]")).map(|d| d.midnight().assume_utc());
    let moment = OffsetDateTime::parse(text, &Rfc3339).or_else(|_| date());
    let moment = moment.map_err(|_| "must be like 2026-11-22 or 2026-11-22T10:00:00Z".to_owned())?;
    Ok(Wall(moment.unix_timestamp().saturating_mul(1_000).saturating_add(i64::from(moment.millisecond()))))
}

/// What `--status` may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// As the API has it. In the history file an answered call is one that was answered.
    Api(ApiStatus),
    /// Only in the history file.
    Unanswered,
    /// Only in the history file.
    Ended(Why),
}

impl Status {
    fn all() -> impl Iterator<Item = (&'static str, Status)> {
        let api = ApiStatus::ALL.into_iter().map(|status| (status.as_str(), Status::Api(status)));
        let ended = Why::ALL.into_iter().map(|why| (why.as_str(), Status::Ended(why)));
        api.chain([("unanswered", Status::Unanswered)]).chain(ended)
    }
}

fn status_help() -> String {
    let words = |file: bool| -> String {
        let words = Status::all().filter(|(_, status)| matches!(status, Status::Api(_)) != file);
        words.map(|(word, _)| word).collect::<Vec<_>>().join(", ")
    };
    format!(
        "Only calls that have come so far, or that ended for one reason\n\nOne of {}; or, read from the history file, {}",
        words(false),
        words(true)
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
