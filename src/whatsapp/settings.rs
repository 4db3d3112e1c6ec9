//! The number's calling settings at Meta: read, judged, changed; and what Meta tells of them unasked.
//!
//! Meta's reference: "Call settings". Everything is optional: accounts differ, and fields come monthly.

use std::fmt;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::macros::format_description;

use super::notice::{self, Notice, Skipped};

/// What `GET /<PHONE_NUMBER_ID>/settings` says about calls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// `ENABLED` or `DISABLED`.
    pub status: Option<String>,
    /// `DEFAULT` or `DISABLE_ALL`.
    pub icon_visibility: Option<String>,
    /// Countries (ISO 3166 alpha-2) whose users see the call button; empty: all.
    pub icon_countries: Vec<String>,
    /// `ENABLED`: a user's own call gives us permission to call back.
    pub callback_permission: Option<String>,
    /// `DTLS` or `SDES`; missing if it was never set, which means DTLS.
    pub srtp_key_exchange: Option<String>,
    /// Codecs beside Opus, such as `PCMA`.
    pub additional_codecs: Vec<String>,
    /// `ENABLED`: calls go to SIP servers, and Graph takes none.
    pub sip: Option<String>,
    /// Where SIP calls would go.
    pub sip_servers: Vec<SipServer>,
    /// When users may call.
    pub hours: Option<CallHours>,
    /// What Meta has taken away for a time.
    pub restrictions: Vec<Restriction>,
}

/// A SIP server of the number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipServer {
    /// Its name.
    pub hostname: String,
    /// Its port.
    pub port: Option<i64>,
}

/// When users may call: outside of it they are offered a chat or a call back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallHours {
    /// Whether they count at all.
    pub enabled: bool,
    /// IANA time zone, such as `America/Manaus`.
    pub timezone: Option<String>,
    /// At most two a day.
    pub weekly: Vec<OpenHours>,
    /// Days with hours of their own. Whoever writes the hours without them erases them.
    pub holidays: Vec<Holiday>,
}

/// Hours of a weekday.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenHours {
    /// `MONDAY`, …
    pub day: String,
    /// `HHMM`.
    pub open: String,
    /// `HHMM`.
    pub close: String,
}

/// Hours of a date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holiday {
    /// `YYYY-MM-DD`.
    pub date: String,
    /// `HHMM`.
    pub start: String,
    /// `HHMM`.
    pub end: String,
}

/// Something that Meta has taken away for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restriction {
    /// Such as `RESTRICTED_BUSINESS_INITIATED_CALLING`.
    pub kind: String,
    /// Meta's reason.
    pub reason: Option<String>,
    /// When it ends, in seconds since the Unix epoch.
    pub expires_at: Option<i64>,
}

/// Why calls won't work with these settings, or not all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingsFault {
    /// Calling is off.
    Disabled,
    /// The number is in SIP mode.
    SipMode,
    /// The media keys are not exchanged by DTLS.
    NotDtls {
        /// By what they are.
        exchange: String,
    },
    /// Meta restricts the number.
    Restricted(Restriction),
    /// No user sees a call button.
    IconsHidden,
}

impl SettingsFault {
    /// Whether no call at all can work before it is cured.
    pub fn stops_calls(&self) -> bool {
        match self {
            SettingsFault::Disabled | SettingsFault::SipMode | SettingsFault::NotDtls { .. } => true,
            SettingsFault::Restricted(_) | SettingsFault::IconsHidden => false,
        }
    }
}

impl fmt::Display for SettingsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingsFault::Disabled => f.write_str(
                "calling is not enabled on the number: set calling.status to ENABLED",
            ),
            SettingsFault::SipMode => f.write_str(
                "the number is in SIP mode, so Meta sends no call webhooks and Graph refuses calls with 131055: \
                 set calling.sip.status to DISABLED",
            ),
            SettingsFault::NotDtls { exchange } => write!(
                f,
                "srtp_key_exchange_protocol is {exchange}: offers come without a fingerprint and can't be answered; \
                 set it to DTLS"
            ),
            SettingsFault::Restricted(restriction) => restriction.fmt(f),
            SettingsFault::IconsHidden => f.write_str(
                "call_icon_visibility is DISABLE_ALL: users see no call button in their chat with the number",
            ),
        }
    }
}

impl fmt::Display for Restriction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind.as_str() {
            "RESTRICTED_BUSINESS_INITIATED_CALLING" => "Meta has paused calls to users",
            "RESTRICTED_USER_INITIATED_CALLING" => "Meta has paused calls from users",
            "RESTRICTED_USER_INITIATED_CALLING_CALL_BUTTON_HIDDEN" => {
                "Meta hides the call button, because too few calls were picked up"
            }
            other => other,
        })?;
        if let Some(moment) = self.expires_at.and_then(moment) {
            write!(f, " until {moment}")?;
        }
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

impl Settings {
    /// Reads the answer of Graph. None: it is not JSON, or says nothing about calls.
    pub fn parse(body: &[u8]) -> Option<Settings> {
        let json: Value = serde_json::from_slice(body).ok()?;
        json.get("calling")?.as_object().map(Settings::read)
    }

    /// What an operator should be told, the worst first.
    pub fn faults(&self) -> Vec<SettingsFault> {
        let mut faults = Vec::new();
        if self.status.as_deref() != Some("ENABLED") {
            faults.push(SettingsFault::Disabled);
        }
        if self.sip.as_deref() == Some("ENABLED") {
            faults.push(SettingsFault::SipMode);
        }
        if let Some(exchange) = self.srtp_key_exchange.as_deref().filter(|exchange| *exchange != "DTLS") {
            faults.push(SettingsFault::NotDtls { exchange: exchange.to_owned() });
        }
        faults.extend(self.restrictions.iter().cloned().map(SettingsFault::Restricted));
        if self.icon_visibility.as_deref() == Some("DISABLE_ALL") {
            faults.push(SettingsFault::IconsHidden);
        }
        faults
    }

    fn read(calling: &Map<String, Value>) -> Settings {
        let inner = |name: &str| calling.get(name).and_then(Value::as_object);
        let sip = inner("sip");
        let restrictions = inner("restrictions").and_then(|list| list.get("restrictions_list"));
        Settings {
            status: upper(calling.get("status")),
            icon_visibility: upper(calling.get("call_icon_visibility")),
            icon_countries: words(
                inner("call_icons").and_then(|icons| icons.get("restrict_to_user_countries")),
            ),
            callback_permission: upper(calling.get("callback_permission_status")),
            srtp_key_exchange: upper(calling.get("srtp_key_exchange_protocol")),
            additional_codecs: words(inner("audio").and_then(|audio| audio.get("additional_codecs"))),
            sip: upper(sip.and_then(|sip| sip.get("status"))),
            sip_servers: notice::objects(sip.and_then(|sip| sip.get("servers")))
                .filter_map(|server| {
                    let hostname = notice::text(server.get("hostname"))?;
                    Some(SipServer { hostname, port: notice::whole(server.get("port")) })
                })
                .collect(),
            hours: inner("call_hours").map(CallHours::read),
            restrictions: notice::objects(restrictions)
                .filter_map(|entry| restriction(entry, "type"))
                .collect(),
        }
    }
}

impl CallHours {
    fn read(hours: &Map<String, Value>) -> CallHours {
        let text = |entry: &Map<String, Value>, name: &str| notice::text(entry.get(name));
        CallHours {
            enabled: upper(hours.get("status")).as_deref() == Some("ENABLED"),
            timezone: notice::text(hours.get("timezone_id")),
            weekly: notice::objects(hours.get("weekly_operating_hours"))
                .filter_map(|entry| {
                    Some(OpenHours {
                        day: upper(entry.get("day_of_week"))?,
                        open: text(entry, "open_time")?,
                        close: text(entry, "close_time")?,
                    })
                })
                .collect(),
            holidays: notice::objects(hours.get("holiday_schedule"))
                .filter_map(|entry| {
                    Some(Holiday {
                        date: text(entry, "date")?,
                        start: text(entry, "start_time")?,
                        end: text(entry, "end_time")?,
                    })
                })
                .collect(),
        }
    }

    fn to_json(&self) -> Value {
        let weekly = self.weekly.iter().map(
            |hours| json!({ "day_of_week": hours.day, "open_time": hours.open, "close_time": hours.close }),
        );
        let holidays = self
            .holidays
            .iter()
            .map(|day| json!({ "date": day.date, "start_time": day.start, "end_time": day.end }));
        let mut json = json!({
            "status": switch(self.enabled),
            "weekly_operating_hours": weekly.collect::<Vec<_>>(),
            "holiday_schedule": holidays.collect::<Vec<_>>(),
        });
        if let Some(timezone) = &self.timezone {
            json["timezone_id"] = json!(timezone);
        }
        json
    }
}

/// What is to change in a number's settings; what is `None` stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SettingsChange {
    /// Calling on or off.
    pub enabled: Option<bool>,
    /// The call button in chats: shown, or hidden from everybody.
    pub icons: Option<bool>,
    /// Countries (ISO 3166 alpha-2) whose users see the call button; an empty list: all.
    pub icon_countries: Option<Vec<String>>,
    /// Whether a user's own call gives us permission to call back.
    pub callback_permission: Option<bool>,
    /// SIP mode: has to be off for Graph calls.
    pub sip: Option<bool>,
    /// Media keys by DTLS, as this gateway needs it; false: SDES.
    pub dtls: Option<bool>,
    /// When users may call. Holidays that are left out are erased.
    pub hours: Option<CallHours>,
}

impl SettingsChange {
    /// Nothing would change.
    pub fn is_empty(&self) -> bool {
        *self == SettingsChange::default()
    }

    /// The body of the POST.
    pub fn to_json(&self) -> Value {
        let mut calling = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                calling.insert(name.to_owned(), value);
            }
        };
        put("status", self.enabled.map(|on| json!(switch(on))));
        put(
            "call_icon_visibility",
            self.icons.map(|shown| json!(if shown { "DEFAULT" } else { "DISABLE_ALL" })),
        );
        let countries = self.icon_countries.as_ref();
        put("call_icons", countries.map(|list| json!({ "restrict_to_user_countries": list })));
        put("callback_permission_status", self.callback_permission.map(|on| json!(switch(on))));
        put("sip", self.sip.map(|on| json!({ "status": switch(on) })));
        put("srtp_key_exchange_protocol", self.dtls.map(|dtls| json!(if dtls { "DTLS" } else { "SDES" })));
        put("call_hours", self.hours.as_ref().map(CallHours::to_json));
        json!({ "calling": calling })
    }
}

/// What Meta tells of a number or its account unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsNotice {
    /// The business number's id; empty where the whole account is meant.
    pub phone_number_id: String,
    /// When it happened, in seconds since the Unix epoch.
    pub timestamp: Option<i64>,
    /// What.
    pub change: AccountChange,
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountChange {
    /// The calling settings, by whomever.
    Settings(Box<Settings>),
    /// Meta warns: what it is not pleased with, such as `USER_INITIATED_CALLS_LOW_PICKUP_RATE`.
    Warned(String),
    /// Meta restricts.
    Restricted(Vec<Restriction>),
}

impl AccountChange {
    /// Tells one change from another.
    pub(super) fn digest(&self) -> u64 {
        let hash = Sha256::digest(format!("{self:?}"));
        hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

/// What an operator should read.
impl fmt::Display for AccountChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccountChange::Settings(settings) => {
                f.write_str("the number's calling settings have changed")?;
                settings.faults().iter().try_for_each(|fault| write!(f, "; {fault}"))
            }
            AccountChange::Warned(violation) => match violation.as_str() {
                "LOW_BUSINESS_INITIATED_CALLING_QUALITY" => {
                    f.write_str("Meta warns: users give bad feedback on calls from the business")
                }
                "LOW_USER_INITIATED_CALLING_QUALITY" => {
                    f.write_str("Meta warns: users give bad feedback on their calls to the business")
                }
                "USER_INITIATED_CALLS_LOW_PICKUP_RATE" => f.write_str(
                    "Meta warns: too few calls of users are picked up, the call button may be hidden",
                ),
                other => write!(f, "Meta warns: {other}"),
            },
            AccountChange::Restricted(restrictions) => {
                restrictions.iter().enumerate().try_for_each(|(index, restriction)| {
                    if index > 0 {
                        f.write_str("; ")?;
                    }
                    restriction.fmt(f)
                })
            }
        }
    }
}

/// Reads the `value` of a change of the fields `account_settings_update` and `account_update`. Most
/// account updates are not about calls.
pub(super) fn notice(value: &Value) -> Result<Notice, Skipped> {
    let value = value.as_object().ok_or(Skipped::Bad("an account update is not an object"))?;
    let number = value.get("phone_number_settings").and_then(Value::as_object);
    let calling = number.and_then(|number| number.get("calling")).and_then(Value::as_object);
    let change = match (calling, upper(value.get("event")).as_deref()) {
        (Some(calling), _) => AccountChange::Settings(Box::new(Settings::read(calling))),
        (None, Some("ACCOUNT_VIOLATION")) => {
            let info = value.get("violation_info").and_then(Value::as_object);
            let violation = upper(info.and_then(|info| info.get("violation_type")));
            AccountChange::Warned(violation.filter(|kind| of_calls(kind)).ok_or(Skipped::NotUsed)?)
        }
        (None, Some("ACCOUNT_RESTRICTION")) => {
            let all = notice::objects(value.get("restriction_info"));
            let ours: Vec<Restriction> = all
                .filter_map(|entry| restriction(entry, "restriction_type"))
                .filter(|restriction| of_calls(&restriction.kind))
                .collect();
            if ours.is_empty() {
                return Err(Skipped::NotUsed);
            }
            AccountChange::Restricted(ours)
        }
        (None, _) => return Err(Skipped::NotUsed),
    };
    let id = number.and_then(|number| number.get("phone_number_id"));
    Ok(Notice::Settings(Box::new(SettingsNotice {
        phone_number_id: notice::call_id(id.or_else(|| value.get("phone_number_id"))).unwrap_or_default(),
        timestamp: notice::whole(value.get("timestamp")),
        change,
    })))
}

/// An app that gets an account's webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribedApp {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
}

/// Reads the answer to [`super::graph::Action::SubscribedApps`]. None: it is none. An empty list means
/// that no webhook of this account arrives anywhere.
pub fn subscribed_apps(body: &[u8]) -> Option<Vec<SubscribedApp>> {
    let json: Value = serde_json::from_slice(body).ok()?;
    json.get("data")?.as_array()?;
    let apps = notice::objects(json.get("data")).filter_map(|entry| {
        let app = entry.get("whatsapp_business_api_data").and_then(Value::as_object).unwrap_or(entry);
        Some(SubscribedApp { id: notice::call_id(app.get("id"))?, name: notice::text(app.get("name")) })
    });
    Some(apps.collect())
}

/// A moment for people, in UTC.
pub(super) fn moment(unix_seconds: i64) -> Option<String> {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    OffsetDateTime::from_unix_timestamp(unix_seconds).ok()?.format(format).ok()
}

fn of_calls(kind: &str) -> bool {
    kind.contains("CALL")
}

fn restriction(entry: &Map<String, Value>, kind: &str) -> Option<Restriction> {
    Some(Restriction {
        kind: upper(entry.get(kind))?,
        reason: notice::text(entry.get("reason")),
        expires_at: notice::whole(entry.get("expiration")),
    })
}

fn switch(on: bool) -> &'static str {
    if on { "ENABLED" } else { "DISABLED" }
}

fn upper(value: Option<&Value>) -> Option<String> {
    notice::text(value).map(|word| word.to_ascii_uppercase())
}

fn words(list: Option<&Value>) -> Vec<String> {
    list.and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|word| upper(Some(word)))
        .take(notice::MAX_ITEMS)
        .collect()
}

#[cfg(test)]
mod tests;
