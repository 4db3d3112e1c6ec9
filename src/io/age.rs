//! Messages of age (C2SP's age specification, version 1): sealed for X25519 recipients, opened with their identities.
//!
//! The stock tools `age` and `rage` read what is written here. Of what they write, messages for X25519 recipients
//! are read here; passphrases, SSH keys, plug-ins, the post-quantum keys and the armour are not.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use bech32::Bech32;
use bech32::primitives::decode::CheckedHrpstring;
use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{aead, hkdf, hmac};

/// The first line of every message.
pub const VERSION: &str = "age-encryption.org/v1\n";
/// What the key of a file key is derived for.
const WRAPS: &[u8] = b"age-encryption.org/v1/X25519";
/// The payload is sealed in chunks of this many bytes.
const CHUNK: usize = 64 * 1024;
/// The tag behind each chunk, and behind the file key.
const TAG: usize = 16;
/// The longest header that is read: a few hundred recipients.
const HEADER: usize = 64 * 1024;
/// The longest line of a stanza's body.
const COLUMNS: usize = 64;

/// Whom a message is sealed for: `age1…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient([u8; 32]);

/// Who opens it: `AGE-SECRET-KEY-1…`.
#[derive(Clone)]
pub struct Identity {
    secret: [u8; 32],
    public: [u8; 32],
}

/// A message that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// What it said.
    pub plain: Vec<u8>,
    /// The arguments of stanzas that are for nobody: the header's seal covers them.
    pub notes: Vec<String>,
}

/// Why a message does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unopened {
    /// It is no message of this format, or it was cut off.
    Malformed(&'static str),
    /// It is for somebody else.
    NotForUs,
    /// It was changed after it was sealed.
    Changed,
}

impl fmt::Display for Unopened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unopened::Malformed(what) => write!(f, "it is no age message: {what}"),
            Unopened::NotForUs => f.write_str("the key does not fit: it was encrypted for another one"),
            Unopened::Changed => f.write_str("it was damaged or changed after it was encrypted"),
        }
    }
}

impl Recipient {
    /// Reads a public key.
    ///
    /// # Errors
    /// What is wrong with it, without its text.
    pub fn parse(text: &str) -> Result<Recipient, String> {
        if text.starts_with("age1pq1") || text.starts_with("age1tag") {
            return Err(
                "post-quantum and hardware keys are not supported: take one of age-keygen's X25519 keys"
                    .to_owned(),
            );
        }
        match bech32(text.trim()) {
            Some((kind, key)) if kind == "age" => Ok(Recipient(key)),
            Some(_) => Err("it is no public key (age1…)".to_owned()),
            None => Err("it is no public key (age1…, 62 characters), or a character is wrong".to_owned()),
        }
    }
}

impl Identity {
    /// Reads the private keys of an identity file, as age-keygen writes it.
    ///
    /// # Errors
    /// What is wrong, without the text.
    pub fn parse_all(text: &str) -> Result<Vec<Identity>, String> {
        if text.starts_with(VERSION.trim_end()) || text.starts_with("-----BEGIN AGE") {
            return Err("the key file is encrypted itself: open it first (age -d)".to_owned());
        }
        let mut identities = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match bech32(line) {
                Some((kind, secret)) if kind == "age-secret-key-" => {
                    let public = x25519(secret, BASE_POINT);
                    identities.push(Identity { secret, public });
                }
                Some(_) | None => {
                    let at = at + 1;
                    return Err(format!(
                        "line {at} of the key file is no private key of age (AGE-SECRET-KEY-1…)"
                    ));
                }
            }
        }
        match identities.is_empty() {
            true => Err("the key file holds no private key (AGE-SECRET-KEY-1…)".to_owned()),
            false => Ok(identities),
        }
    }
}

/// Seals `plain` for all of `to`. `note` becomes a stanza for nobody, which other tools ignore: printable ASCII, its
/// words separated by single spaces. It can be read by all, and changed by none.
///
/// # Errors
/// In words: no recipient, a recipient that is no point to agree with, or no random numbers.
pub fn seal(to: &[Recipient], note: &str, plain: &[u8]) -> Result<Vec<u8>, String> {
    let random = SystemRandom::new();
    let failed = |_| "the operating system gives no random numbers".to_owned();
    let (mut file_key, mut nonce) = ([0; 16], [0; 16]);
    random.fill(&mut file_key).map_err(failed)?;
    random.fill(&mut nonce).map_err(failed)?;
    if to.is_empty() {
        return Err("there is no public key to encrypt for".to_owned());
    }
    let mut header = VERSION.to_owned();
    for recipient in to {
        let secret = EphemeralPrivateKey::generate(&X25519, &random).map_err(failed)?;
        let share = secret.compute_public_key().map_err(failed)?;
        let salt = [share.as_ref(), &recipient.0].concat();
        let peer = UnparsedPublicKey::new(&X25519, recipient.0);
        let wrap = agree_ephemeral(secret, &peer, |shared| derive(shared, &salt, WRAPS))
            .map_err(|_| "a public key is none that can be encrypted for".to_owned())?;
        let mut body = file_key.to_vec();
        let key = chacha(&wrap.ok_or("a key can't be derived")?).ok_or("a key can't be used")?;
        key.seal_in_place_append_tag(nonce_of(0, false), aead::Aad::empty(), &mut body)
            .map_err(|_| "a file key can't be sealed")?;
        header.push_str("-> X25519 ");
        BASE64.encode_string(share, &mut header);
        header.push('\n');
        BASE64.encode_string(&body, &mut header);
        header.push('\n');
    }
    if !note.is_empty() {
        header.push_str("-> ");
        header.push_str(note);
        header.push_str("\n\n");
    }
    header.push_str("---");
    let mac = derive(&file_key, &[], b"header").ok_or("a key can't be derived")?;
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &mac), header.as_bytes());
    header.push(' ');
    BASE64.encode_string(mac, &mut header);
    header.push('\n');

    let key =
        derive(&file_key, &nonce, b"payload").and_then(|key| chacha(&key)).ok_or("a key can't be used")?;
    let mut message =
        Vec::with_capacity(header.len() + nonce.len() + plain.len() + TAG * (1 + plain.len() / CHUNK));
    message.extend(header.as_bytes());
    message.extend(nonce);
    let mut rest = plain;
    for counter in 0.. {
        let (chunk, after) = rest.split_at(rest.len().min(CHUNK));
        let begins = message.len();
        message.extend(chunk);
        let tag = key
            .seal_in_place_separate_tag(
                nonce_of(counter, after.is_empty()),
                aead::Aad::empty(),
                &mut message[begins..],
            )
            .map_err(|_| "a chunk can't be sealed")?;
        message.extend(tag.as_ref());
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    Ok(message)
}

/// Opens a whole message with the first of the identities that fits.
///
/// # Errors
/// When it does not open.
pub fn open(identities: &[Identity], message: &[u8]) -> Result<Opened, Unopened> {
    let header = Header::read(message)?;
    let file_key = identities
        .iter()
        .find_map(|identity| header.shares.iter().find_map(|(share, body)| identity.unwrap(share, body)))
        .ok_or(Unopened::NotForUs)?;
    let mac = derive(&file_key, &[], b"header").ok_or(Unopened::Changed)?;
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &mac), header.sealed, &header.mac)
        .map_err(|_| Unopened::Changed)?;
    let (nonce, payload) = header.payload.split_at_checked(16).ok_or(Unopened::Malformed("it is cut off"))?;
    let key = derive(&file_key, nonce, b"payload").and_then(|key| chacha(&key)).ok_or(Unopened::Changed)?;
    let mut plain = Vec::with_capacity(payload.len());
    let mut rest = payload;
    for counter in 0.. {
        let (chunk, after) = rest.split_at(rest.len().min(CHUNK + TAG));
        let mut chunk = chunk.to_vec();
        let last = after.is_empty();
        let opened = key
            .open_in_place(nonce_of(counter, last), aead::Aad::empty(), &mut chunk)
            .map_err(|_| Unopened::Changed)?;
        if opened.is_empty() && counter > 0 {
            return Err(Unopened::Malformed("its last chunk is empty"));
        }
        plain.extend_from_slice(opened);
        rest = after;
        if last {
            break;
        }
    }
    Ok(Opened { plain, notes: header.notes })
}

impl Identity {
    fn unwrap(&self, share: &[u8; 32], body: &[u8; 32]) -> Option<[u8; 16]> {
        let shared = x25519(self.secret, *share);
        if shared == [0; 32] {
            return None;
        }
        let wrap = derive(&shared, &[*share, self.public].concat(), WRAPS)?;
        let mut body = *body;
        let opened = chacha(&wrap)?.open_in_place(nonce_of(0, false), aead::Aad::empty(), &mut body).ok()?;
        (&*opened).try_into().ok()
    }
}

/// What a message begins with.
struct Header<'a> {
    /// Shares and wrapped file keys of the X25519 stanzas.
    shares: Vec<([u8; 32], [u8; 32])>,
    /// The arguments of the other stanzas.
    notes: Vec<String>,
    /// What the header's seal covers.
    sealed: &'a [u8],
    mac: [u8; 32],
    payload: &'a [u8],
}

impl Header<'_> {
    fn read(message: &[u8]) -> Result<Header<'_>, Unopened> {
        let wrong = Unopened::Malformed;
        let mut at = 0;
        let mut next = || {
            let rest = &message[at..];
            let searched = &rest[..rest.len().min(HEADER)];
            let end =
                searched.iter().position(|byte| *byte == b'\n').ok_or(wrong("its header does not end"))?;
            let begins = at;
            at += end + 1;
            match at > HEADER {
                true => Err(wrong("its header is too long")),
                false => Ok((
                    begins,
                    std::str::from_utf8(&rest[..end]).map_err(|_| wrong("its header is no text"))?,
                )),
            }
        };
        if next()?.1 != VERSION.trim_end() {
            return Err(wrong("it does not begin as one"));
        }
        let (mut shares, mut notes) = (Vec::new(), Vec::new());
        let (mac, sealed) = loop {
            let (begins, line) = next()?;
            if let Some(mac) = line.strip_prefix("--- ") {
                let mac =
                    decode(mac).and_then(|mac| mac.try_into().ok()).ok_or(wrong("its header has no seal"))?;
                break (mac, begins + 3);
            }
            let arguments = line.strip_prefix("-> ").ok_or(wrong("a line of its header is none"))?;
            if arguments
                .split(' ')
                .any(|word| word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_graphic()))
            {
                return Err(wrong("a line of its header is none"));
            }
            let mut body = Vec::new();
            loop {
                let (_, line) = next()?;
                if line.len() > COLUMNS {
                    return Err(wrong("a line of its header is too long"));
                }
                body.extend(decode(line).ok_or(wrong("a line of its header is no base64"))?);
                if line.len() < COLUMNS {
                    break;
                }
            }
            let words: Vec<&str> = arguments.split(' ').collect();
            match words.as_slice() {
                ["X25519", share] => {
                    let share = decode(share).and_then(|share| share.try_into().ok());
                    let body = body.try_into().ok();
                    shares.push(share.zip(body).ok_or(wrong("a share has not 32 bytes"))?);
                }
                ["X25519", ..] => return Err(wrong("a share has too many words")),
                _ => notes.push(arguments.to_owned()),
            }
        };
        if shares.is_empty() && notes.is_empty() {
            return Err(wrong("it is for nobody"));
        }
        Ok(Header { shares, notes, sealed: &message[..sealed], mac, payload: &message[at..] })
    }
}

/// Without padding, and only as an encoder writes it.
fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

/// HKDF-SHA-256 (RFC 5869), 32 bytes.
fn derive(secret: &[u8], salt: &[u8], purpose: &[u8]) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, salt);
    salt.extract(secret).expand(&[purpose], hkdf::HKDF_SHA256).ok()?.fill(&mut key).ok()?;
    Some(key)
}

fn chacha(key: &[u8; 32]) -> Option<aead::LessSafeKey> {
    aead::UnboundKey::new(&aead::CHACHA20_POLY1305, key).ok().map(aead::LessSafeKey::new)
}

/// The nonce of a chunk: its number, and whether it is the last.
fn nonce_of(counter: u64, last: bool) -> aead::Nonce {
    let mut nonce = [0; aead::NONCE_LEN];
    nonce[3..11].copy_from_slice(&counter.to_be_bytes());
    nonce[11] = u8::from(last);
    aead::Nonce::assume_unique_for_key(nonce)
}

/// The base point of Curve25519 (RFC 7748 §4.1).
const BASE_POINT: [u8; 32] = x25519_dalek::X25519_BASEPOINT_BYTES;

/// With a secret that is kept, which ring has no agreement for.
fn x25519(secret: [u8; 32], point: [u8; 32]) -> [u8; 32] {
    x25519_dalek::x25519(secret, point)
}

/// The kind and the 32 bytes of a key in Bech32 (BIP 173).
fn bech32(text: &str) -> Option<(String, [u8; 32])> {
    let checked = CheckedHrpstring::new::<Bech32>(text).ok()?;
    checked.validate_segwit_padding().ok()?;
    let key: Vec<u8> = checked.byte_iter().take(33).collect();
    Some((checked.hrp().as_str().to_ascii_lowercase(), key.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PUBLIC: [&str; 3] = [
        "age1l6vkmp2tarz5nehhhr69kdlcn8r755r4pf62dj7xnr3fhm48g3rs2an8l4",
        "age1f5v8grwyvlmhd8sy3n9er57r4tfmfyzlkjv7ye0egt9afn2xna4qj68c49",
        "age1sh6rh0leghx5036jdpvrvr746shzuv7jat6gh76686jsge09y3lspg9zge",
    ];
    /// As `age-keygen` 1.1.1 wrote it, but for the date.
    const FIRST: &str = "# created: 2026-11-23T06:01:32Z
# public key: age1l6vkmp2tarz5nehhhr69kdlcn8r755r4pf62dj7xnr3fhm48g3rs2an8l4
AGE-SECRET-KEY-1523CDHHE5S6X4L5NEW2PQ0SD3CRL3UQXNQH42A84M72895F3Z28STPEZGK
";
    const SECOND: &str = "AGE-SECRET-KEY-1LK945AR6MDZJ0WJYFVUNLQXYJ34WUU30EZWZQELKUSAK2F000CUQ8EA23P";
    const THIRD: &str = "AGE-SECRET-KEY-1VESSVRDK6UW6NYV7VXY77TPET8PMVTUUW5Z9FCD860AKYEXTZ63SJV8Q4M";
    /// `age -r FIRST -r SECOND`, version 1.1.1 of the tool.
    const STOCK: &str = concat!(
        "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBJLzZJaVFXZU92WTY4Y2pjUC8rc2d3QjdpS1FvaWsxUUpaQktTQXlxVHdr",
        "Cis5OGlQWXNpZjJsZnVwYU5ud0IySXpiZU8xMUs4ZTlKeGpxZkpEazhMMlkKLT4gWDI1NTE5IHVIMmg4V1lsbmhRaWM5b0x6WVQx",
        "cnM3ZFpmaXRVTjNMc3hNN0ZLTWRsVXMKejErYXhqSE9sK2d3dFRUendhWDZsbTRoYmJGVUNLTDNNY2NnNVRsTFlaVQotLS0geUZT",
        "QmtnMmYvZTl3NVRqTGFRazR0cEk1eUo0OWdQcGxLQXJ3aUJ2RkdtYwou/MgA4HcxmdP6vB/v/2ufvfErSCulfRscPKWoTWgCRQA2",
        "AI7tdgmUVNujm5Y4n96NKiuWhm/g9WW7CA==",
    );

    fn to(which: &[usize]) -> Vec<Recipient> {
        which.iter().map(|which| Recipient::parse(PUBLIC[*which]).unwrap()).collect()
    }

    fn identity(text: &str) -> Vec<Identity> {
        Identity::parse_all(text).unwrap()
    }

    #[test]
    fn a_message_of_the_stock_tool_is_opened_by_both_of_its_recipients() {
        let message = base64::engine::general_purpose::STANDARD.decode(STOCK).unwrap();
        for ours in [FIRST, SECOND] {
            let opened = open(&identity(ours), &message).unwrap();
            assert_eq!(String::from_utf8(opened.plain).unwrap(), "Hello from the stock tool.\n");
            assert!(opened.notes.is_empty());
        }
        assert_eq!(open(&identity(THIRD), &message).unwrap_err(), Unopened::NotForUs);
    }

    #[test]
    fn what_is_sealed_opens_with_each_recipients_key_and_with_no_other() {
        let message = seal(&to(&[0, 1]), "some/note one 2", b"what was said").unwrap();
        for ours in [FIRST, SECOND, &format!("{THIRD}\n{SECOND}")] {
            let opened = open(&identity(ours), &message).unwrap();
            assert_eq!(
                opened,
                Opened { plain: b"what was said".to_vec(), notes: vec!["some/note one 2".into()] }
            );
        }
        assert_eq!(open(&identity(THIRD), &message).unwrap_err(), Unopened::NotForUs);
        let again = seal(&to(&[0, 1]), "some/note one 2", b"what was said").unwrap();
        assert_eq!(again.len(), message.len());
        assert_ne!(again, message);
        assert!(seal(&[], "", b"for nobody").is_err());
    }

    #[test]
    fn a_message_of_which_any_bit_was_changed_or_the_end_is_missing_does_not_open() {
        let message = seal(&to(&[0]), "some/note 1", b"sound").unwrap();
        let ours = identity(FIRST);
        for at in 0..message.len() {
            for bit in [1, 2, 0x20, 0x80] {
                let mut changed = message.clone();
                changed[at] ^= bit;
                assert!(open(&ours, &changed).is_err(), "bit {bit} of byte {at}");
            }
            assert!(open(&ours, &message[..at]).is_err(), "cut at {at}");
        }
        assert!(open(&ours, &[message, vec![0]].concat()).is_err());
    }

    #[test]
    fn long_messages_go_in_chunks_of_which_none_can_be_left_out() {
        let ours = identity(FIRST);
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 9] {
            let plain: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let message = seal(&to(&[0]), "", &plain).unwrap();
            assert!(open(&ours, &message).unwrap().plain == plain, "{length} bytes");
            let last = if length == 0 { 0 } else { (length - 1) % CHUNK + 1 };
            assert!(
                open(&ours, &message[..message.len() - last - TAG]).is_err(),
                "without the last chunk of {length}"
            );
        }
    }

    #[test]
    fn keys_that_are_none_are_refused_in_words_that_do_not_repeat_them() {
        let mistyped = PUBLIC[0].replace("mp2t", "mp3t");
        for (text, says) in [
            ("", "no public key"),
            (mistyped.as_str(), "a character is wrong"),
            ("AGE-SECRET-KEY-1523CDHHE5S6X4L5NEW2PQ0SD3CRL3UQXNQH42A84M72895F3Z28STPEZGK", "no public key"),
            ("age1pq1x34nzsvr0rxjsgdn8zgyhfe8j7ceq5r9rdelkjuh3y235jz", "not supported"),
            ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ", "no public key"),
        ] {
            let why = Recipient::parse(text).unwrap_err();
            assert!(why.contains(says), "{text}: {why}");
        }
        for (text, says) in [
            ("", "holds no private key"),
            ("# nothing\n", "holds no private key"),
            (PUBLIC[0], "line 1"),
            ("# a comment\nAGE-SECRET-KEY-1AAAA", "line 2"),
            ("age-encryption.org/v1\n-> scrypt", "encrypted itself"),
        ] {
            let why = Identity::parse_all(text).err().unwrap();
            assert!(why.contains(says), "{text}: {why}");
        }
        assert_eq!(Recipient::parse(&PUBLIC[0].to_uppercase()), Recipient::parse(PUBLIC[0]));
    }

    #[test]
    fn a_public_key_that_nothing_can_be_kept_secret_with_is_refused() {
        // The point of order 2: every agreement with it is zero.
        assert!(seal(&[Recipient([0; 32])], "", b"sound").is_err());
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(
            cut in 0..400usize,
            at in 0..400usize,
            with in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut message = seal(&to(&[0]), "some/note 1", &[7; 100]).unwrap();
            message.truncate(cut.min(message.len()));
            let at = at.min(message.len());
            let end = (at + with.len()).min(message.len());
            message.splice(at..end, with);
            let _ = open(&identity(FIRST), &message);
        }

        #[test]
        fn no_text_makes_it_panic_as_a_key(text in "(age1|AGE-SECRET-KEY-1)?[ -~\u{e9}]{0,80}") {
            let _ = (Recipient::parse(&text), Identity::parse_all(&text));
        }
    }
}
