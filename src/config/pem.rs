//! Files that the config names and others open: certificates and keys (PEM, RFC 7468), and clips.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::fault::Fault;
use super::reader::{Found, Reader, Section};

/// The largest PEM file, in bytes: the bundle of a whole system is a quarter of that.
const MOST: u64 = 1024 * 1024;

/// A file with at least one certificate.
pub(super) fn certificates(r: &mut Reader<'_>, s: &Section<'_>, key: &str) -> Option<PathBuf> {
    checked(r, s, key, |text| {
        const LABELS: &[&str] = &["CERTIFICATE"];
        match count(text, LABELS) {
            Err(Broken) => Err(("holds a broken certificate".to_owned(), None)),
            Ok(0) => Err((
                "holds no certificate (PEM: it begins with \"-----BEGIN CERTIFICATE-----\")".to_owned(),
                text.contains("PRIVATE KEY-----").then_some("it holds a key instead"),
            )),
            Ok(_) => Ok(()),
        }
    })
}

/// A file with a private key that is not locked.
pub(super) fn private_key(r: &mut Reader<'_>, s: &Section<'_>, key: &str) -> Option<PathBuf> {
    checked(r, s, key, |text| {
        const LABELS: &[&str] = &["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];
        let locked =
            text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED");
        match count(text, LABELS) {
            _ if locked => Err((
                "is locked with a passphrase".to_owned(),
                Some("unlock it: openssl pkey -in LOCKED -out KEY"),
            )),
            Err(Broken) => Err(("holds a broken key".to_owned(), None)),
            Ok(0) => Err((
                "holds no private key (PEM: it begins with \"-----BEGIN PRIVATE KEY-----\")".to_owned(),
                text.contains("BEGIN CERTIFICATE-----").then_some("it holds a certificate instead"),
            )),
            Ok(_) => Ok(()),
        }
    })
}

/// What is wrong with a file, and what to do about it. Neither may tell what is in it.
type Wrong = (String, Option<&'static str>);

fn checked(
    r: &mut Reader<'_>,
    s: &Section<'_>,
    key: &str,
    check: impl FnOnce(&str) -> Result<(), Wrong>,
) -> Option<PathBuf> {
    let Found { value: file, at } = r.file_beside(s, key, MOST + 1)?;
    let right = match &file.begins {
        None => Ok(()),
        Some(bytes) if bytes.len() as u64 > MOST => Err((format!("is larger than {MOST} bytes"), None)),
        Some(bytes) if bytes.first() == Some(&0x30) => Err((
            "is DER, not PEM".to_owned(),
            Some("turn it into PEM with openssl: -inform der -in FILE -out FILE.pem"),
        )),
        Some(bytes) => check(&String::from_utf8_lossy(bytes)),
    };
    match right {
        Ok(()) => Some(file.path),
        Err((what, hint)) => {
            let fault = Fault::at(&at, format!("\"{}\" {what}", file.path.display()));
            r.fault(match hint {
                Some(hint) => fault.hint(hint),
                None => fault,
            });
            None
        }
    }
}

/// A block that doesn't end, or holds something else than DER.
struct Broken;

/// How many blocks with one of these labels there are.
fn count(text: &str, labels: &[&str]) -> Result<usize, Broken> {
    let mut found = 0;
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let label = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
        let Some(label) = label.filter(|label| labels.contains(label)) else { continue };
        let end = format!("-----END {label}-----");
        let mut body = String::new();
        loop {
            match lines.next() {
                Some(line) if line == end => break,
                Some(line) => body.push_str(line),
                None => return Err(Broken),
            }
        }
        // Both are SEQUENCEs.
        match STANDARD.decode(body) {
            Ok(der) if der.first() == Some(&0x30) => found += 1,
            Ok(_) | Err(_) => return Err(Broken),
        }
    }
    Ok(found)
}

/// A clip to be played, whose name ends in one of these ways: only that is looked at, and that it can be read and
/// begins as WAV and Ogg files do.
pub(super) fn clip(r: &mut Reader<'_>, s: &Section<'_>, key: &str, ends: &[&str]) -> Option<PathBuf> {
    let Found { value: file, at } = r.file_beside(s, key, 4)?;
    let shown = file.path.display();
    let fault =
        if !file.path.extension().is_some_and(|is| ends.iter().any(|end| is.eq_ignore_ascii_case(end))) {
            let ends: Vec<String> = ends.iter().map(|end| format!(".{end}")).collect();
            Fault::at(&at, format!("must be a file whose name ends in {}, is \"{shown}\"", ends.join(" or ")))
        } else if file.begins.is_some_and(|begins| begins != b"RIFF" && begins != b"OggS") {
            Fault::at(&at, format!("\"{shown}\" is no sound file of this kind, whatever its name says"))
                .hint("make one with: ffmpeg -i IN -ac 1 -ar 8000 OUT.wav")
        } else {
            r.sound_file(&file.path, at);
            return Some(file.path);
        };
    r.fault(fault);
    None
}
