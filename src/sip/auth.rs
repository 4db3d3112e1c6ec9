//! Digest authentication, our side of it (RFC 3261 §22, RFC 7616, RFC 8760).

use std::fmt;

use md5::Md5;
use sha2::{Digest as _, Sha256, Sha512_256};

use super::chance::hex;
use super::header::{parameter, split_outside_quotes};

/// Who we are.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub username: String,
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// The hash, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hash {
    Md5,
    Sha256,
    Sha512_256,
}

impl Hash {
    fn of(self, text: &[u8]) -> String {
        match self {
            Hash::Md5 => hex(&Md5::digest(text)),
            Hash::Sha256 => hex(&Sha256::digest(text)),
            Hash::Sha512_256 => hex(&Sha512_256::digest(text)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Qop {
    /// As in RFC 2069: no client nonce, no count.
    None,
    Auth,
    /// The body is hashed too.
    AuthInt,
}

/// The parameters of a challenge, or of an answer to one (RFC 7616 §3.3, §3.4).
pub(super) struct Parameters(Vec<(String, Option<String>)>);

impl Parameters {
    /// `None`: of another scheme than Digest, or a quote without its end.
    pub(super) fn read(value: &str) -> Option<Parameters> {
        let (scheme, rest) = value.trim().split_once(|c: char| c.is_whitespace())?;
        if !scheme.eq_ignore_ascii_case("Digest") {
            return None;
        }
        Some(Parameters(split_outside_quotes(rest, ',')?.into_iter().map(parameter).collect()))
    }

    /// The value of the first of that name, which is given in lower case.
    pub(super) fn get(&self, wanted: &str) -> Option<String> {
        self.0.iter().find(|(name, _)| name == wanted).and_then(|(_, value)| value.clone())
    }
}

/// One challenge that we can meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    /// As it was written, to be written back.
    algorithm: Option<String>,
    hash: Hash,
    session: bool,
    qop: Qop,
    stale: bool,
}

impl Challenge {
    /// Reads the value of WWW-Authenticate or Proxy-Authenticate; `None` if we cannot meet it.
    fn read(value: &str) -> Option<Challenge> {
        let params = Parameters::read(value)?;
        let get = |wanted: &str| params.get(wanted);
        let algorithm = get("algorithm");
        let (hash, session) = match algorithm.as_deref().unwrap_or("MD5").to_ascii_uppercase().as_str() {
            "MD5" => (Hash::Md5, false),
            "MD5-SESS" => (Hash::Md5, true),
            "SHA-256" | "SHA256" => (Hash::Sha256, false),
            "SHA-256-SESS" | "SHA256-SESS" => (Hash::Sha256, true),
            "SHA-512-256" => (Hash::Sha512_256, false),
            "SHA-512-256-SESS" => (Hash::Sha512_256, true),
            _ => return None,
        };
        let qop = match get("qop") {
            None => Qop::None,
            Some(list) => {
                let offers =
                    |wanted: &str| list.split(',').any(|qop| qop.trim().eq_ignore_ascii_case(wanted));
                match (offers("auth"), offers("auth-int")) {
                    (true, _) => Qop::Auth,
                    (false, true) => Qop::AuthInt,
                    (false, false) if list.trim().is_empty() => Qop::None,
                    (false, false) => return None,
                }
            }
        };
        Some(Challenge {
            realm: get("realm")?,
            nonce: get("nonce")?,
            opaque: get("opaque"),
            algorithm,
            hash,
            session,
            qop,
            stale: get("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
        })
    }

    /// One of our own, as it is met.
    pub(super) fn asked(realm: &str, nonce: &str, hash: Hash, qop: Qop) -> Challenge {
        let (realm, nonce) = (realm.to_owned(), nonce.to_owned());
        Challenge { realm, nonce, opaque: None, algorithm: None, hash, session: false, qop, stale: false }
    }

    /// The response of RFC 7616 §3.4.1.
    pub(super) fn response(&self, who: &Credentials, ask: &Ask<'_>, cnonce: &str, nc: u32) -> String {
        let Challenge { realm, nonce, hash, .. } = self;
        let mut a1 = hash.of(format!("{}:{realm}:{}", who.username, who.password).as_bytes());
        if self.session {
            a1 = hash.of(format!("{a1}:{nonce}:{cnonce}").as_bytes());
        }
        let a2 = match self.qop {
            Qop::None | Qop::Auth => format!("{}:{}", ask.method, ask.uri),
            Qop::AuthInt => format!("{}:{}:{}", ask.method, ask.uri, hash.of(ask.body)),
        };
        let a2 = hash.of(a2.as_bytes());
        let text = match self.qop {
            Qop::None => format!("{a1}:{nonce}:{a2}"),
            Qop::Auth => format!("{a1}:{nonce}:{nc:08x}:{cnonce}:auth:{a2}"),
            Qop::AuthInt => format!("{a1}:{nonce}:{nc:08x}:{cnonce}:auth-int:{a2}"),
        };
        hash.of(text.as_bytes())
    }

    /// The value of Authorization or Proxy-Authorization.
    fn authorization(&self, who: &Credentials, ask: &Ask<'_>, cnonce: &str, nc: u32) -> String {
        let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let mut value = format!(
            "Digest username=\"{}\", realm=\"{}\", nonce=\"{}\", uri=\"{}\", response=\"{}\"",
            escape(&who.username),
            escape(&self.realm),
            escape(&self.nonce),
            ask.uri,
            self.response(who, ask, cnonce, nc),
        );
        if let Some(algorithm) = &self.algorithm {
            value.push_str(&format!(", algorithm={algorithm}"));
        }
        match self.qop {
            Qop::None if self.session => value.push_str(&format!(", cnonce=\"{cnonce}\"")),
            Qop::None => {}
            Qop::Auth => value.push_str(&format!(", qop=auth, nc={nc:08x}, cnonce=\"{cnonce}\"")),
            Qop::AuthInt => value.push_str(&format!(", qop=auth-int, nc={nc:08x}, cnonce=\"{cnonce}\"")),
        }
        if let Some(opaque) = &self.opaque {
            value.push_str(&format!(", opaque=\"{}\"", escape(opaque)));
        }
        value
    }
}

/// The request that is to be authorised.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub method: &'a str,
    pub uri: &'a str,
    pub body: &'a [u8],
}

/// Why we do not try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GivenUp {
    /// No password is configured.
    NoPassword,
    /// Nothing in the challenges that we understand.
    Unknown,
    /// What we answered was refused: the user name or the password is wrong.
    WrongPassword,
}

impl GivenUp {
    pub fn text(self) -> &'static str {
        match self {
            GivenUp::NoPassword => "a password is asked for and none is configured",
            GivenUp::Unknown => "no digest algorithm in common",
            GivenUp::WrongPassword => "wrong user name or password",
        }
    }
}

/// Who challenged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// 401: WWW-Authenticate, answered by Authorization.
    Server,
    /// 407: Proxy-Authenticate, answered by Proxy-Authorization.
    Proxy,
}

impl By {
    /// Who speaks with that status.
    pub fn status(code: u16) -> Option<By> {
        match code {
            401 => Some(By::Server),
            407 => Some(By::Proxy),
            _ => None,
        }
    }

    /// The header the challenges are in.
    pub fn challenge_header(self) -> &'static str {
        match self {
            By::Server => "WWW-Authenticate",
            By::Proxy => "Proxy-Authenticate",
        }
    }

    fn answer_header(self) -> &'static str {
        match self {
            By::Server => "Authorization",
            By::Proxy => "Proxy-Authorization",
        }
    }
}

#[derive(Debug, Clone)]
struct Met {
    by: By,
    challenge: Challenge,
    /// How often the nonce has been used.
    nc: u32,
    /// Came during the present attempt, so a refusal means more than an aged nonce.
    fresh: bool,
}

/// More realms than these are not answered in one request.
const MOST_REALMS: usize = 4;

/// The challenges of one dialog or registration, and how they were met.
#[derive(Debug, Clone, Default)]
pub(crate) struct Digest {
    met: Vec<Met>,
    /// A nonce called stale has been replaced during the present attempt.
    stale_once: bool,
    /// The last attempt was given up: what was learnt is of no use to the next.
    spoiled: bool,
}

impl Digest {
    /// A new request begins: a nonce from before may have aged without anybody's fault.
    pub fn begin(&mut self) {
        if std::mem::take(&mut self.spoiled) {
            self.met.clear();
        }
        self.stale_once = false;
        for met in &mut self.met {
            met.fresh = false;
        }
    }

    /// 401 or 407 came. `Ok`: ask again, with [`authorize`](Self::authorize).
    pub fn challenged<'a>(
        &mut self,
        by: By,
        values: impl Iterator<Item = &'a str>,
        credentials: Option<&Credentials>,
    ) -> Result<(), GivenUp> {
        if credentials.is_none() {
            return Err(GivenUp::NoPassword);
        }
        let mut best: Option<Challenge> = None;
        for challenge in values.take(16).filter_map(Challenge::read) {
            if best.as_ref().is_none_or(|best| challenge.hash > best.hash) {
                best = Some(challenge);
            }
        }
        let challenge = best.ok_or(GivenUp::Unknown)?;
        // Proxies behind one another have realms of their own (RFC 3261 §22.3).
        let of = |met: &Met| met.by == by && met.challenge.realm == challenge.realm;
        if let Some(known) = self.met.iter().find(|met| of(met)) {
            let same = known.challenge.nonce == challenge.nonce;
            let once_more = challenge.stale && !same && !self.stale_once;
            if (known.fresh || same) && !once_more {
                self.spoiled = true;
                return Err(GivenUp::WrongPassword);
            }
            self.stale_once |= known.fresh;
        }
        // Of those of earlier requests only the same realm's may still be of use.
        self.met.retain(|met| met.by != by || (met.fresh && !of(met)));
        if self.met.len() >= MOST_REALMS {
            self.spoiled = true;
            return Err(GivenUp::WrongPassword);
        }
        self.met.push(Met { by, challenge, nc: 0, fresh: true });
        Ok(())
    }

    /// The headers that go into the next request.
    pub fn authorize(
        &mut self,
        ask: &Ask<'_>,
        credentials: Option<&Credentials>,
        cnonce: &str,
    ) -> Vec<(&'static str, String)> {
        let Some(who) = credentials else { return Vec::new() };
        self.met
            .iter_mut()
            .map(|met| {
                met.nc = met.nc.saturating_add(1);
                (met.by.answer_header(), met.challenge.authorization(who, ask, cnonce, met.nc))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mufasa(password: &str) -> Credentials {
        Credentials { username: "Mufasa".into(), password: password.into() }
    }

    fn response(value: &str, password: &str, cnonce: &str) -> String {
        let ask = Ask { method: "GET", uri: "/dir/index.html", body: b"" };
        Challenge::read(value).unwrap().response(&mufasa(password), &ask, cnonce, 1)
    }

    #[test]
    fn the_example_of_rfc_2617_comes_out_right() {
        let value = r#"Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41""#;
        assert_eq!(response(value, "Circle Of Life", "0a4f113b"), "6629fae49393a05397450978507c4ef1");
    }

    #[test]
    fn the_two_examples_of_rfc_7616_come_out_right() {
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        let value = |algorithm: &str| {
            format!(
                r#"Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={algorithm}, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#
            )
        };
        assert_eq!(response(&value("MD5"), "Circle of Life", cnonce), "8ca523f5e9506fed4657c9700eebdbec");
        assert_eq!(
            response(&value("SHA-256"), "Circle of Life", cnonce),
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"
        );
    }

    #[test]
    fn without_qop_the_old_formula_is_used() {
        // RFC 2617 §3.5 with the formula of RFC 2069; checked by hand with md5sum.
        let value = r#"Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093""#;
        assert_eq!(response(value, "Circle Of Life", "unused"), "670fd8c2df070c60b045671b8b24ff02");
    }

    #[test]
    fn the_strongest_hash_is_chosen_and_unknown_ones_are_passed_over() {
        let challenges = [
            r#"Digest realm="r", nonce="m", algorithm=MD5"#,
            r#"Basic realm="r""#,
            r#"Digest realm="r", nonce="x", algorithm=AKAv1-MD5"#,
            r#"Digest realm="r", nonce="s", algorithm=SHA-256, qop="auth""#,
        ];
        let mut digest = Digest::default();
        let who = mufasa("x");
        digest.challenged(By::Server, challenges.into_iter(), Some(&who)).unwrap();
        let ask = Ask { method: "REGISTER", uri: "sip:h", body: b"" };
        let lines = digest.authorize(&ask, Some(&who), "c");
        assert_eq!(lines[0].0, "Authorization");
        assert!(lines[0].1.contains("nonce=\"s\"") && lines[0].1.contains("algorithm=SHA-256"), "{lines:?}");
        assert!(lines[0].1.contains("nc=00000001"));
        assert!(digest.authorize(&ask, Some(&who), "c")[0].1.contains("nc=00000002"), "the nonce is counted");
    }

    #[test]
    fn auth_int_hashes_the_body_where_nothing_else_is_offered() {
        let challenge = Challenge::read(r#"Digest realm="r", nonce="n", qop="auth-int""#).unwrap();
        let ask = |body: &'static [u8]| Ask { method: "INVITE", uri: "sip:h", body };
        let value = challenge.authorization(&mufasa("x"), &ask(b"a"), "c", 1);
        assert!(value.contains("qop=auth-int"), "{value}");
        assert_ne!(
            challenge.response(&mufasa("x"), &ask(b"a"), "c", 1),
            challenge.response(&mufasa("x"), &ask(b"b"), "c", 1)
        );
    }

    #[test]
    fn session_variants_mix_the_nonces_into_the_key() {
        let plain = r#"Digest realm="r", nonce="n", qop="auth", algorithm=MD5"#;
        let session = plain.replace("MD5", "MD5-sess");
        assert_ne!(response(plain, "x", "c"), response(&session, "x", "c"));
        assert!(Challenge::read(&session.replace("MD5", "SHA-512-256")).is_some());
    }

    #[test]
    fn the_same_nonce_refused_twice_means_a_wrong_password() {
        let who = mufasa("x");
        let mut digest = Digest::default();
        let value = |nonce: &str, more: &str| format!(r#"Digest realm="r", nonce="{nonce}"{more}"#);
        let mut ask = |nonce: &str, more: &str| {
            digest.challenged(By::Server, [value(nonce, more).as_str()].into_iter(), Some(&who))
        };
        assert_eq!(ask("1", ""), Ok(()));
        assert_eq!(ask("1", ""), Err(GivenUp::WrongPassword));
        assert_eq!(ask("2", ""), Err(GivenUp::WrongPassword), "a new nonce that is not called stale");
        assert_eq!(ask("3", ", stale=true"), Ok(()), "stale with a new nonce is tried once");
        assert_eq!(ask("4", ", stale=true"), Err(GivenUp::WrongPassword), "and only once");
        digest.begin();
        let again = [value("5", "")];
        assert_eq!(digest.challenged(By::Server, again.iter().map(String::as_str), Some(&who)), Ok(()));
    }

    #[test]
    fn proxies_behind_one_another_each_get_an_answer_of_their_own() {
        let who = mufasa("x");
        let mut digest = Digest::default();
        let ask = Ask { method: "INVITE", uri: "sip:h", body: b"" };
        let challenged = |digest: &mut Digest, realm: &str, nonce: &str| {
            let value = format!(r#"Digest realm="{realm}", nonce="{nonce}""#);
            digest.challenged(By::Proxy, [value.as_str()].into_iter(), Some(&who))
        };
        assert_eq!(challenged(&mut digest, "outer", "1"), Ok(()));
        assert_eq!(challenged(&mut digest, "inner", "2"), Ok(()));
        let lines = digest.authorize(&ask, Some(&who), "c");
        assert!(lines.iter().all(|(name, _)| *name == "Proxy-Authorization"), "{lines:?}");
        assert!(
            lines[0].1.contains("realm=\"outer\"") && lines[1].1.contains("realm=\"inner\""),
            "{lines:?}"
        );
        assert_eq!(challenged(&mut digest, "inner", "3"), Err(GivenUp::WrongPassword));
        // Not for ever.
        let mut digest = Digest::default();
        let taken = (0..9).take_while(|nth| challenged(&mut digest, &format!("r{nth}"), "1").is_ok()).count();
        assert_eq!(taken, MOST_REALMS);
        // In the next request, an old realm is of no use if another one asks.
        let mut digest = Digest::default();
        challenged(&mut digest, "old", "1").unwrap();
        digest.begin();
        challenged(&mut digest, "new", "2").unwrap();
        assert_eq!(digest.authorize(&ask, Some(&who), "c").len(), 1);
    }

    #[test]
    fn a_password_is_never_printed() {
        assert!(!format!("{:?}", mufasa("Circle Of Life")).contains("Circle"));
    }
}
