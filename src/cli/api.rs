//! The running gateway as the verbs see it: where it is, who asks, and what a no means.

use std::io::Write;
use std::net::IpAddr;
use std::path::Path;

use serde_json::Value;

use crate::config::{Config, HttpKey, KeySecret, Role};
use crate::io::client::{Answer, Client, Silence, escaped};

use super::args::ApiArgs;
use super::{Failed, fail, read};

/// A running gateway.
pub(super) struct Api {
    client: Client,
}

/// An answer that was a yes.
pub(super) struct Said {
    /// As it came.
    pub text: String,
    /// As it was meant; `Null` if it is no JSON.
    pub value: Value,
}

/// Why there is no answer that was a yes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum No {
    /// Nobody listens there.
    Absent(String),
    /// Something else went wrong. Holds the reason, and the API's answer if it gave one.
    Told(String, Option<String>),
}

impl No {
    /// Tells it: the reason on stderr, and to programs the API's own answer on stdout.
    pub fn tell(self, json: bool, out: &mut dyn Write, err: &mut dyn Write) -> Failed {
        match self {
            No::Absent(why) => fail(&why, err),
            No::Told(why, body) => {
                if let Some(body) = body.filter(|_| json) {
                    let _ = super::say(&format!("{}\n", body.trim_end()), out, err);
                }
                fail(&why, err)
            }
        }
    }
}

/// Where the gateway of this config is asked, and with which key.
#[derive(Debug, PartialEq, Eq)]
struct Where {
    base: String,
    key: String,
}

impl Api {
    /// The gateway that is meant: `--api` and `--key`, or that of the config file.
    ///
    /// # Errors
    /// There is no telling where it is or what key to show; the reason is given, not told yet.
    pub fn of(args: &ApiArgs, err: &mut dyn Write) -> Result<Result<Api, String>, Failed> {
        let key = args.key.clone().filter(|key| !key.is_empty());
        let place = match (args.base(), key) {
            (Some(base), Some(key)) => Ok(Where { base: base.to_owned(), key }),
            // A key out of the file is for that gateway: it must not reach whatever host was typed.
            (Some(_), None) => Err("--api needs --key (or WATRUNK_KEY) too".to_owned()),
            (None, key) => {
                // Those who may ask need not be allowed to read every secret.
                let config = read(Config::read_what_may_be_read(&args.config), &args.config, err)?;
                of_config(&config, &args.config, key)
            }
        };
        Ok(place.and_then(|place| Ok(Api { client: Client::new(&place.base, &place.key)? })))
    }

    /// As [`Api::of`], for those who can't go on without.
    pub fn needed(args: &ApiArgs, err: &mut dyn Write) -> Result<Api, Failed> {
        Api::of(args, err)?.map_err(|why| fail(&why, err))
    }

    /// Asks for something to look at. The query's values are escaped here.
    pub fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Said, No> {
        said(self, self.heard(self.client.get(&with(path, query)))?)
    }

    /// Asks for something that is no JSON.
    pub fn fetch(&self, path: &str, query: &[(&str, &str)]) -> Result<Vec<u8>, No> {
        Ok(self.heard(self.client.get(&with(path, query)))?.bytes)
    }

    /// Asks for something large, and gives it away piece by piece until it is over or `take` says false. The entity tag,
    /// if it has one.
    pub fn pour(&self, path: &str, take: &mut dyn FnMut(&[u8]) -> bool) -> Result<Option<String>, No> {
        let mut tag = None;
        self.heard(self.client.pour(path, &mut tag, take))?;
        Ok(tag)
    }

    /// Asks for something to be changed.
    pub fn patch(&self, path: &str, body: &Value) -> Result<Said, No> {
        said(self, self.heard(self.client.patch(path, &body.to_string()))?)
    }

    /// Asks for something to be deleted.
    pub fn delete(&self, path: &str) -> Result<Said, No> {
        said(self, self.heard(self.client.delete(path))?)
    }

    /// Asks for something to be done.
    pub fn post(&self, path: &str, body: &Value) -> Result<Said, No> {
        said(self, self.heard(self.client.post(path, &body.to_string()))?)
    }

    /// Asks for something to be as is said.
    pub fn put(&self, path: &str, body: &Value) -> Result<Said, No> {
        said(self, self.heard(self.client.put(path, &body.to_string()))?)
    }

    /// A yes, or why there is none.
    fn heard(&self, answer: Result<Answer, Silence>) -> Result<Answer, No> {
        match answer {
            Ok(answer) if (200..300).contains(&answer.status) => Ok(answer),
            Ok(answer) => {
                let body = answer.text();
                Err(No::Told(refusal(answer.status, &body), Some(body)))
            }
            Err(Silence::Absent(why)) => {
                Err(No::Absent(format!("no gateway answers at {}: {why}", self.client.base())))
            }
            Err(Silence::Lost(why)) => Err(No::Told(format!("{}: {why}", self.client.base()), None)),
        }
    }
}

fn with(path: &str, query: &[(&str, &str)]) -> String {
    let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{path}{mark}{}", query.join("&"))
}

fn said(api: &Api, answer: Answer) -> Result<Said, No> {
    let text = answer.text();
    let value = serde_json::from_str(&text).unwrap_or(Value::Null);
    if value.is_null() {
        let why = format!("{} does not speak the API: its answer is no JSON", api.client.base());
        return Err(No::Told(why, None));
    }
    Ok(Said { text, value })
}

/// What the error envelope says, as one line.
fn refusal(status: u16, body: &str) -> String {
    let value: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    let said = value["error"].as_str().map_or_else(|| format!("the API answers {status}"), str::to_owned);
    let mut line: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect();
    if let Some(code) = value["code"].as_str() {
        line.push_str(&format!(" ({})", super::table::plain(code)));
    }
    match status {
        401 => line.push_str(": give a key with --key or WATRUNK_KEY, or set an [[http.key]]"),
        403 if value["code"] == "insufficient_permissions" => {
            line.push_str(": the key's role is too low for that")
        }
        _ => {}
    }
    line
}

fn of_config(config: &Config, path: &Path, key: Option<String>) -> Result<Where, String> {
    let listen = config.http.listen;
    if listen.port() == 0 {
        return Err("http.listen has no fixed port: say where the gateway is with --api".to_owned());
    }
    let host = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
    };
    let key = key.or_else(|| best_key(&config.http.keys)).ok_or_else(|| {
        format!(
            "{} has no [[http.key]] that can be shown: give one with --key or WATRUNK_KEY",
            path.display()
        )
    })?;
    Ok(Where { base: format!("http://{}", std::net::SocketAddr::new(host, listen.port())), key })
}

/// The key that may do most. One of which only the hash is known can't be shown.
fn best_key(keys: &[HttpKey]) -> Option<String> {
    let rank = |role: Role| match role {
        Role::Admin => 2,
        Role::Operator => 1,
        Role::Read => 0,
    };
    let usable = keys.iter().filter_map(|key| match &key.key {
        KeySecret::Plain(secret) if !secret.is_stand_in() => Some((rank(key.role), secret)),
        KeySecret::Plain(_) | KeySecret::Sha256(_) => None,
    });
    // The first of those that may do most.
    let best = usable.reduce(|best, next| if next.0 > best.0 { next } else { best });
    best.map(|(_, secret)| secret.expose().to_owned())
}

/// One of the gateway's numbers.
pub(super) struct Number {
    /// Its `id` in the config file.
    pub id: String,
    /// `accountId` in requests.
    pub account: String,
    /// Meta's id of it.
    pub phone_number_id: String,
    /// The number itself.
    pub phone: String,
}

/// The number that is meant: the one with this id or number, or else the only one that is enabled.
pub(super) fn number(api: &Api, wanted: Option<&str>) -> Result<Number, No> {
    let said = api.get("/v1/phone-numbers", &[])?;
    let all: Vec<&Value> =
        said.value["numbers"].as_array().map(|all| all.iter().collect()).unwrap_or_default();
    let told = |why: String| No::Told(why, None);
    let ids = |all: &[&Value]| -> String {
        let ids: Vec<String> =
            all.iter().map(|n| super::table::plain(n["id"].as_str().unwrap_or(""))).collect();
        ids.join(", ")
    };
    let found = match wanted {
        Some(wanted) => {
            let is = |n: &&&Value| ["id", "phoneNumber", "phoneNumberId"].iter().any(|key| n[*key] == wanted);
            all.iter()
                .find(is)
                .copied()
                .ok_or_else(|| told(format!("there is no number \"{wanted}\"; there are: {}", ids(&all))))?
        }
        None => {
            let enabled: Vec<&Value> = all.iter().filter(|n| n["callingEnabled"] == true).copied().collect();
            match enabled.as_slice() {
                [only] => *only,
                [] => return Err(told("no number is enabled".to_owned())),
                several => {
                    let which = ids(several);
                    return Err(told(format!("there are several numbers, say which with --number: {which}")));
                }
            }
        }
    };
    let text = |key: &str| found[key].as_str().unwrap_or("").to_owned();
    Ok(Number {
        id: text("id"),
        account: text("accountId"),
        phone_number_id: text("phoneNumberId"),
        phone: text("phoneNumber"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SystemSecrets;

    fn config(http: &str) -> Config {
        let text = format!(
            "[whatsapp]\napp_secret = \"a\"\naccess_token = \"b\"\nverify_token = \"c\"\n[http]\n{http}"
        );
        Config::parse(&text, &SystemSecrets::beside("/nonexistent")).unwrap().0
    }

    fn asked(http: &str) -> Result<Where, String> {
        of_config(&config(http), Path::new("w.toml"), None)
    }

    const READ: &str = "[[http.key]]\nname = \"a\"\nrole = \"read\"\nkey = \"sk_of_the_reader_1\"\n";

    #[test]
    fn the_gateway_of_a_config_is_asked_on_its_own_address_with_its_best_key() {
        let hashed =
            format!("[[http.key]]\nname = \"h\"\nrole = \"admin\"\nkey_sha256 = \"{}\"\n", "0".repeat(64));
        let admin = |name: &str| {
            format!("[[http.key]]\nname = \"{name}\"\nrole = \"admin\"\nkey = \"sk_of_an_admin_{name}\"\n")
        };
        let http = format!("listen = \"0.0.0.0:8088\"\n{READ}{hashed}{}{}", admin("x"), admin("y"));
        let expected = Where { base: "http://127.0.0.1:8088".into(), key: "sk_of_an_admin_x".into() };
        assert_eq!(asked(&http), Ok(expected));
        assert_eq!(asked(READ).unwrap().key, "sk_of_the_reader_1");
        assert_eq!(asked(&format!("listen = \"[::]:8088\"\n{READ}")).unwrap().base, "http://[::1]:8088");
        assert_eq!(asked(&format!("listen = \"10.0.0.9:1\"\n{READ}")).unwrap().base, "http://10.0.0.9:1");
        assert!(asked(&hashed).unwrap_err().starts_with("w.toml has no [[http.key]] that can be shown"));
        assert!(asked(&format!("listen = \"127.0.0.1:0\"\n{READ}")).unwrap_err().contains("--api"));
    }

    #[test]
    fn a_no_is_one_line_with_its_code_and_a_cure() {
        let body =
            r#"{"error":"no\u001b[2J way","code":"call_permission_required","type":"permission_error"}"#;
        assert_eq!(refusal(409, body), "no [2J way (call_permission_required)");
        assert!(
            refusal(401, r#"{"error":"Unauthorized"}"#).starts_with("Unauthorized: give a key with --key")
        );
        assert_eq!(refusal(502, "<html>"), "the API answers 502");
    }
}
