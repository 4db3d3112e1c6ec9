//! Reads `[recording]`, `[recording.upload]` and the `recording_…` keys of a number.

use super::age::recipient;
use super::{
    AnnounceTo, ConsentMode, ConsentPrompt, LANGUAGES, NumberRecording, RecordingConfig, TapeFormat,
    UploadConfig, UploadTo,
};
use crate::config::fault::{Fault, nearest};
use crate::config::known;
use crate::config::pem;
use crate::config::reader::{Found, Reader, Section};
use crate::config::secret::Secret;
use crate::config::sections::Config;
use crate::config::{hooks, units};

/// Keys that a recording may be encrypted for: each makes every second of it larger.
const RECIPIENTS: usize = 10;

/// Longest prefix of an object's name, in bytes: S3 takes 1024 for the whole name.
const PREFIX: usize = 512;

/// What is wrong with the key of a built-in prompt, and what to do about it.
const SAYS_ONE: (&str, &str) = (
    "is another key than the one that the built-in prompt asks for (\"press one\")",
    "leave consent_key out, or set consent_prompt to a file of yours that names the key",
);

const CONSENT: &[(&str, ConsentMode)] = &[("announce", ConsentMode::Announce), ("ask", ConsentMode::Ask)];

const ANNOUNCE_TO: &[(&str, AnnounceTo)] = &[("caller", AnnounceTo::Caller), ("both", AnnounceTo::Both)];

/// Reads `[recording]`.
pub(in crate::config) fn recording(r: &mut Reader<'_>, s: &Section<'_>) -> RecordingConfig {
    let default = RecordingConfig::default();
    let format = format(r, s);
    let encrypt_to = recipients(r, s);
    RecordingConfig {
        format,
        sample_rate: sample_rate(r, s, format),
        bitrate: r.whole(s, "bitrate", 6_000..=64_000, "bit/s and channel").unwrap_or(default.bitrate),
        consent: r.word(s, "consent", CONSENT).unwrap_or(default.consent),
        consent_prompt: prompt(r, s, "consent_prompt").unwrap_or(default.consent_prompt),
        consent_language: language(r, s, "consent_language"),
        consent_key: r.parsed(s, "consent_key", key).unwrap_or(default.consent_key),
        consent_seconds: r.whole(s, "consent_seconds", 1..=60, "seconds").unwrap_or(default.consent_seconds),
        announce_to: r.word(s, "announce_to", ANNOUNCE_TO).unwrap_or(default.announce_to),
        pause_key: r.parsed(s, "pause_key", key),
        beep_seconds: beep_seconds(r, s, "beep_seconds").filter(|seconds| *seconds > 0),
        keep_days: keep_days(r, s, "keep_days").unwrap_or(default.keep_days),
        max_mib: r.whole(s, "max_mib", 0..=100_000_000, "MiB; 0 is no limit").unwrap_or(default.max_mib),
        min_free_mib: r
            .whole(s, "min_free_mib", 0..=100_000_000, "MiB; 0 is no limit")
            .unwrap_or(default.min_free_mib),
        upload: upload(r, s, !encrypt_to.is_empty()),
        encrypt_to,
        per_minute_usd: r.amount(s, "per_minute_usd").unwrap_or_default(),
    }
}

/// Reads the `recording_…` keys of a number.
pub(in crate::config) fn of_number(r: &mut Reader<'_>, s: &Section<'_>) -> NumberRecording {
    NumberRecording {
        consent: r.word(s, "recording_consent", CONSENT),
        prompt: prompt(r, s, "recording_prompt"),
        language: language(r, s, "recording_language"),
        announce_to: r.word(s, "recording_announce_to", ANNOUNCE_TO),
        beep_seconds: beep_seconds(r, s, "recording_beep_seconds"),
        keep_days: keep_days(r, s, "recording_keep_days"),
    }
}

/// `format` and `encoding`.
fn format(r: &mut Reader<'_>, s: &Section<'_>) -> TapeFormat {
    let ogg = r.word(s, "format", &[("wav", false), ("ogg", true)]).unwrap_or(false);
    let encodings =
        [("pcm", TapeFormat::WavPcm), ("alaw", TapeFormat::WavAlaw), ("ulaw", TapeFormat::WavUlaw)];
    let encoding = r.word(s, "encoding", &encodings);
    let (format_at, encoding_at, bitrate_at) = (r.at(s, "format"), r.at(s, "encoding"), r.at(s, "bitrate"));
    if ogg && encoding.is_some() {
        let fault = Fault::at(&encoding_at, "is for wav, but `format` is \"ogg\", which is always Opus");
        r.fault(fault.hint("leave it out, or set format = \"wav\""));
    }
    if !ogg && s.has("bitrate") && r.sound(&format_at) && r.sound(&bitrate_at) {
        r.note(&bitrate_at, "of no use: it is for format = \"ogg\"");
    }
    if ogg { TapeFormat::Ogg } else { encoding.unwrap_or_default() }
}

fn sample_rate(r: &mut Reader<'_>, s: &Section<'_>, format: TapeFormat) -> u32 {
    const KEY: &str = "sample_rate";
    let g711 = matches!(format, TapeFormat::WavAlaw | TapeFormat::WavUlaw);
    let default = if format == TapeFormat::Ogg { 16_000 } else { 8_000 };
    let Some(rate) = r.whole(s, KEY, 0..=1_000_000, "8000 or 16000") else { return default };
    let at = r.at(s, KEY);
    match rate {
        16_000 if g711 => {
            let fault = Fault::at(&at, "must be 8000 with alaw and ulaw, is 16000");
            r.fault(fault.hint("leave it out, or set encoding = \"pcm\""));
        }
        8_000 | 16_000 => {}
        _ => r.fault(Fault::at(&at, format!("must be 8000 or 16000 (samples per second), is {rate}"))),
    }
    rate
}

/// `"builtin"`, or a file that is there and begins as WAV and Ogg files do.
fn prompt(r: &mut Reader<'_>, s: &Section<'_>, key: &str) -> Option<ConsentPrompt> {
    let Found { value, .. } = r.text(s, key)?;
    if value == "builtin" {
        return Some(ConsentPrompt::Builtin);
    }
    pem::clip(r, s, key, &["wav", "ogg", "opus"]).map(ConsentPrompt::File)
}

fn language(r: &mut Reader<'_>, s: &Section<'_>, key: &str) -> Option<String> {
    let Found { value, at } = r.text(s, key)?;
    if LANGUAGES.contains(&value.as_str()) {
        return Some(value);
    }
    let what = format!("must be one of {}, is \"{value}\"", LANGUAGES.join(", "));
    let fault = Fault::at(&at, what);
    // As in "pt-BR" and "EN".
    let head = value.split(['-', '_']).next().unwrap_or("").to_ascii_lowercase();
    let near = nearest(&head, LANGUAGES.iter().copied()).filter(|near| *near == head);
    r.fault(match near {
        Some(near) => fault.hint(format!("did you mean \"{near}\"?")),
        None => fault.hint("for another language set the prompt to a file of yours"),
    });
    None
}

/// A key of a telephone.
fn key(text: &str) -> Result<char, String> {
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(key), None) if key.is_ascii_digit() || key == '*' || key == '#' => Ok(key),
        (Some(_) | None, _) => Err(format!("must be one key of 0 to 9, * and #, is \"{text}\"")),
    }
}

/// 0 is no beep.
fn beep_seconds(r: &mut Reader<'_>, s: &Section<'_>, key: &str) -> Option<u32> {
    let seconds = r.whole(s, key, 0..=300, "seconds; 0 is no beep")?;
    if (1..5).contains(&seconds) {
        let at = r.at(s, key);
        r.fault(Fault::at(&at, format!("must be at least 5 seconds, or 0 for no beep, is {seconds}")));
    }
    Some(seconds)
}

fn keep_days(r: &mut Reader<'_>, s: &Section<'_>, key: &str) -> Option<u32> {
    r.whole(s, key, 0..=3_650, "days; 0 is for ever")
}

fn recipients(r: &mut Reader<'_>, s: &Section<'_>) -> Vec<String> {
    const KEY: &str = "encrypt_to";
    let mut keys: Vec<String> = Vec::new();
    for found in r.texts(s, KEY).unwrap_or_default() {
        match recipient(&found.value) {
            Ok(()) if keys.contains(&found.value) => {
                r.fault(Fault::at(&found.at, "is in the list twice"));
            }
            Ok(()) => keys.push(found.value),
            Err((what, hint)) => r.fault(Fault::at(&found.at, what).hint(hint)),
        }
    }
    if keys.len() > RECIPIENTS {
        let at = r.at(s, KEY);
        r.fault(Fault::at(&at, format!("must hold at most {RECIPIENTS} keys, holds {}", keys.len())));
    }
    keys
}

/// What `url` says.
enum Url {
    S3 { bucket: String, prefix: String },
    Http(String),
}

/// The keys of a secret.
fn ways(key: &str) -> [String; 3] {
    [key.to_owned(), format!("{key}_file"), format!("{key}_env")]
}

/// Reads `[recording.upload]`.
fn upload(r: &mut Reader<'_>, recording: &Section<'_>, sealed: bool) -> Option<UploadConfig> {
    let s = &r.section(recording, "upload", known::RECORDING_UPLOAD);
    if !recording.has("upload") {
        return None;
    }
    r.need(s, "url");
    let url = r.parsed(s, "url", url);
    let endpoint = r.parsed(s, "endpoint", endpoint);
    let region = r.parsed(s, "region", region).unwrap_or_else(|| "us-east-1".to_owned());
    let access_key = visible(r, s, "access_key");
    let secret_key = r.secret(s, "secret_key");
    let token = visible(r, s, "token");
    let keep_local = r.flag(s, "keep_local").unwrap_or(true);
    let timeout_seconds = r.whole(s, "timeout_seconds", 5..=3_600, "seconds").unwrap_or(60);
    let max_tries = r.whole(s, "max_tries", 1..=1_000, "tries").unwrap_or(50);
    let ca_file = pem::certificates(r, s, "ca_file");

    if let Some(url) = &url {
        suits(r, s, url);
        let (key, goes_to) = match url {
            Url::S3 { .. } => ("endpoint", endpoint.as_deref()),
            Url::Http(url) => ("url", Some(url.as_str())),
        };
        if goes_to.is_some_and(|address| !address.to_ascii_lowercase().starts_with("https:")) {
            let at = r.at(s, key);
            if token.is_some() {
                r.note(&at, "is not encrypted: the token can be read on the way");
            }
            if !sealed {
                r.note(&at, "is not encrypted: recordings can be heard on the way, unless encrypt_to is set");
            }
            if s.has("ca_file") {
                let at = r.at(s, "ca_file");
                r.note(&at, format!("of no use: `{key}` is not https://"));
            }
        }
    }
    let to = match url? {
        Url::S3 { bucket, prefix } => UploadTo::S3 {
            endpoint: endpoint?,
            region,
            bucket,
            prefix,
            access_key: access_key?.expose().to_owned(),
            secret_key: secret_key?,
        },
        Url::Http(url) => UploadTo::Http { url, token },
    };
    Some(UploadConfig { to, keep_local, timeout_seconds, max_tries, ca_file })
}

/// Keys that this kind of address needs, and those that it can't have.
fn suits(r: &mut Reader<'_>, s: &Section<'_>, url: &Url) {
    let (needed, wrong, other): (&[&str], &[&str], _) = match url {
        Url::S3 { .. } => (&["endpoint", "access_key", "secret_key"], &["token"], "https:// and http://"),
        Url::Http(_) => (&[], &["endpoint", "region", "access_key", "secret_key"], "s3://"),
    };
    for key in needed {
        let given = if *key == "endpoint" { s.has(key) } else { ways(key).iter().any(|way| s.has(way)) };
        if !given {
            let at = r.at(s, key);
            let hint = match *key {
                "endpoint" => {
                    "set it to the store's address, as in \"https://s3.eu-central-1.amazonaws.com\""
                        .to_owned()
                }
                _ => format!("give it as `{key}`, `{key}_file` or `{key}_env`"),
            };
            r.fault(Fault::at(&at, "is missing, but `url` begins with s3://").hint(hint));
        }
    }
    for key in wrong {
        for way in ways(key).iter().filter(|way| s.has(way)) {
            let at = r.at(s, way);
            let what = format!("is for addresses that begin with {other}, and `url` is none");
            r.fault(Fault::at(&at, what).hint("leave it out"));
        }
    }
}

/// A secret that is put into a header: printable, without blanks.
fn visible(r: &mut Reader<'_>, s: &Section<'_>, key: &str) -> Option<Secret> {
    let secret = r.secret(s, key)?;
    if secret.is_stand_in() || secret.expose().bytes().all(|b| b.is_ascii_graphic()) {
        return Some(secret);
    }
    let way = ways(key).into_iter().find(|way| s.has(way));
    let at = r.at(s, way.as_deref().unwrap_or(key));
    r.fault(Fault::at(&at, "the secret must hold neither blanks nor letters outside ASCII"));
    None
}

/// Where recordings go. What an address holds may be a secret: faults don't tell it.
fn url(text: &str) -> Result<Url, String> {
    const SHAPE: &str = "must be an address that begins with s3://, https:// or http://";
    let (scheme, rest) = text.split_once("://").ok_or(SHAPE)?;
    if scheme.eq_ignore_ascii_case("s3") {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        return Ok(Url::S3 { bucket: self::bucket(bucket)?, prefix: self::prefix(prefix)? });
    }
    if !["https", "http"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(SHAPE.to_owned());
    }
    if rest.split('/').next().is_some_and(|authority| authority.contains('@')) {
        return Err("must not hold a user or a password: set `token`".to_owned());
    }
    if rest.contains('?') {
        return Err("must not hold a query: the file's name is put behind it".to_owned());
    }
    let address = hooks::address(text)?;
    Ok(Url::Http(address.trim_end_matches('/').to_owned()))
}

/// What S3 and its kin take for a bucket's name.
fn bucket(text: &str) -> Result<String, String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let ends = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    let fits = (3..=63).contains(&bytes.len())
        && bytes.iter().all(|b| inner(*b))
        && ends(bytes.first())
        && ends(bytes.last())
        && !text.contains("..");
    if fits {
        return Ok(text.to_owned());
    }
    Err(format!(
        "must name a bucket as in s3://bucket/prefix (3 to 63 lower-case letters, digits, \"-\" and \".\"), \
         the bucket is \"{text}\""
    ))
}

/// Folders, with one slash behind each.
fn prefix(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    if text.is_empty() {
        return Ok(String::new());
    }
    let plain = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~=".contains(&b))
    };
    if text.len() < PREFIX && text.split('/').all(plain) {
        return Ok(format!("{text}/"));
    }
    Err(format!(
        "must have a prefix of letters, digits, \"-\", \"_\", \".\", \"~\", \"=\" and single slashes, at most \
         {PREFIX} bytes, is \"{text}\""
    ))
}

/// Scheme, host and port: the bucket goes into the path.
fn endpoint(text: &str) -> Result<String, String> {
    let address = units::url(text, &["https", "http"])?;
    let authority = address.split_once("://").map_or("", |(_, rest)| rest);
    if authority.contains('/') {
        return Err(format!("must be an address without a path: the bucket belongs in `url`, is \"{text}\""));
    }
    Ok(address)
}

fn region(text: &str) -> Result<String, String> {
    let fits = text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    if fits {
        return Ok(text.to_owned());
    }
    Err(format!("must be a region like \"eu-central-1\", is \"{text}\""))
}

/// What single keys can't tell: whether prompt and key fit together, and what is of no use.
pub(in crate::config) fn check(
    r: &mut Reader<'_>,
    config: &Config,
    recording: &Section<'_>,
    numbers: &[Section<'_>],
) {
    let own = &config.recording;
    let key_at = r.at(recording, "consent_key");
    if says_another_key(own) && r.sound(&key_at) && r.sound(&r.at(recording, "consent_prompt")) {
        let (what, hint) = SAYS_ONE;
        r.fault(Fault::at(&key_at, what).hint(hint));
    }
    let mut asked = own.consent == ConsentMode::Ask;
    let mut built_in = own.consent_prompt == ConsentPrompt::Builtin;
    for (number, section) in config.numbers.iter().zip(numbers) {
        let it = own.for_number(&number.recording_as);
        asked |= it.consent == ConsentMode::Ask;
        built_in |= it.consent_prompt == ConsentPrompt::Builtin;
        let says = ["recording_consent", "recording_prompt"].into_iter().find(|key| section.has(key));
        if let Some(key) = says.filter(|_| says_another_key(&it) && r.sound(&key_at)) {
            let at = r.at(section, key);
            let prompt_at = r.at(section, "recording_prompt");
            if r.sound(&at) && r.sound(&prompt_at) {
                let what = format!(
                    "means the built-in prompt, which says \"press one\", but recording.consent_key is \"{}\"",
                    own.consent_key
                );
                let hint =
                    "set recording_prompt to a file of yours that names the key, or leave consent_key out";
                r.fault(Fault::at(&at, what).hint(hint));
            }
        }
        let at = r.at(section, "recording_language");
        if number.recording_as.language.is_some() && it.consent_prompt != ConsentPrompt::Builtin {
            r.note(&at, "of no use: the file of the prompt is played in any case");
        }
    }
    for key in ["consent_key", "consent_seconds"] {
        let at = r.at(recording, key);
        if recording.has(key) && !asked && r.sound(&at) && r.sound(&r.at(recording, "consent")) {
            r.note(&at, "of no use: nobody is asked (consent = \"ask\")");
        }
    }
    let language_at = r.at(recording, "consent_language");
    if own.consent_language.is_some() && !built_in && r.sound(&r.at(recording, "consent_prompt")) {
        r.note(&language_at, "of no use: the file of the prompt is played in any case");
    }
    if own.max_mib == 0 && own.keep_days == 0 {
        let at = r.at(recording, "max_mib");
        r.note(&at, "nothing is ever deleted (keep_days is 0 too): recordings fill the disk");
    }
    let hour = mib_an_hour(own);
    if (1..hour).contains(&own.max_mib) {
        let at = r.at(recording, "max_mib");
        r.note(
            &at,
            format!(
                "an hour takes {hour} MiB: what is larger than max_mib is deleted as soon as it is finished"
            ),
        );
    }
}

/// What an hour of a recording takes, in MiB.
fn mib_an_hour(config: &RecordingConfig) -> u64 {
    let a_second = match config.format {
        TapeFormat::WavPcm => 4 * config.sample_rate,
        TapeFormat::WavAlaw | TapeFormat::WavUlaw => 2 * config.sample_rate,
        TapeFormat::Ogg => config.bitrate / 4,
    };
    (u64::from(a_second) * 3_600).div_ceil(1 << 20)
}

/// Whether the user would be told one key, and another one counted.
fn says_another_key(config: &RecordingConfig) -> bool {
    config.consent == ConsentMode::Ask
        && config.consent_prompt == ConsentPrompt::Builtin
        && config.consent_key != '1'
}
