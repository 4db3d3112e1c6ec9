//! Every operation there is: its path, its name in the description, and who may use it.
//!
//! The router is built from this table, and a test holds the description against it.

use axum::routing::MethodFilter;

use super::auth::Need;

/// One thing that can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    GetCallingByAccount,
    GetCalling,
    EnableCalling,
    UpdateCalling,
    DisableCalling,
    StartCallerId,
    VerifyCallerId,
    GetPermissions,
    PlaceCall,
    ListWhatsAppCalls,
    Estimate,
    GetWhatsAppCall,
    GetWhatsAppRecording,
    PauseWhatsAppRecording,
    DeleteWhatsAppRecording,
    ListCalls,
    GetCall,
    GetRecording,
    PauseRecording,
    DeleteRecording,
    FetchRecording,
    Audit,
    Usage,
    EndCall,
    TransferCall,
    ListWebhooks,
    CreateWebhook,
    UpdateWebhook,
    DeleteWebhook,
    TestWebhook,
    WebhookLogs,
    Redeliver,
    Status,
    Trunks,
    TraceState,
    TraceSwitch,
    TraceCall,
    Numbers,
    Events,
    Description,
    Twilio,
}

/// A method of HTTP that is used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Verb {
    /// The word in the description.
    #[cfg(test)]
    pub const fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::Post => "post",
            Verb::Put => "put",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
        }
    }

    /// What the router knows it by.
    pub const fn filter(self) -> MethodFilter {
        match self {
            Verb::Get => MethodFilter::GET,
            Verb::Post => MethodFilter::POST,
            Verb::Put => MethodFilter::PUT,
            Verb::Patch => MethodFilter::PATCH,
            Verb::Delete => MethodFilter::DELETE,
        }
    }
}

/// How the caller says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// Not at all.
    None,
    /// By a link that was made for it.
    Link,
    /// `Authorization: Bearer`
    Bearer,
    /// `Authorization: Basic`, the key as password.
    Basic,
}

/// What the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// There is none.
    None,
    /// A JSON object.
    Json,
    /// `application/x-www-form-urlencoded`
    Url,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// What.
    pub op: Op,
    /// How.
    pub verb: Verb,
    /// Where, as the description writes it.
    pub path: &'static str,
    /// `operationId` in the description. An alias has one of its own.
    pub id: &'static str,
    /// Who may.
    pub need: Need,
    /// How the caller says who it is.
    pub credentials: Credentials,
    /// What is sent along.
    pub form: Form,
}

impl Operation {
    /// The path as the router wants it: a parameter is a whole segment there.
    pub fn route(&self) -> String {
        self.path.replace("}.json", "}")
    }
}

const fn row(op: Op, verb: Verb, path: &'static str, id: &'static str, need: Need) -> Operation {
    let form = match verb {
        Verb::Post | Verb::Put | Verb::Patch => Form::Json,
        Verb::Get | Verb::Delete => Form::None,
    };
    Operation { op, verb, path, id, need, credentials: Credentials::Bearer, form }
}

const CALLING: &str = "/v1/phone-numbers/{id}/whatsapp/calling";
const LEGACY: &str = "/v1/whatsapp/phone-numbers/{id}/calling";
const CALLER_ID: &str = "/v1/phone-numbers/{id}/whatsapp/caller-id-verification";
const VERIFY: &str = "/v1/phone-numbers/{id}/whatsapp/caller-id-verification/verify";
const OF_ACCOUNT: &str = "/v1/whatsapp/calls/{id}/recording";
const RECORDING: &str = "/v1/calls/{id}/recording";
const SETTINGS: &str = "/v1/webhooks/settings";
const TWILIO: &str = "/2010-04-01/Accounts/{AccountSid}/Calls/{CallSid}.json";

/// The table.
pub const ALL: &[Operation] = &{
    use Need::{Administer, Look, Operate};
    use Op as O;
    use Verb::{Delete, Get, Patch, Post, Put};
    [
        row(O::GetCallingByAccount, Get, "/v1/whatsapp/calling", "getWhatsAppCallingConfig", Look),
        row(O::GetCalling, Get, CALLING, "getWhatsAppCalling", Look),
        row(O::EnableCalling, Post, CALLING, "enableWhatsAppCalling", Administer),
        row(O::UpdateCalling, Patch, CALLING, "updateWhatsAppCalling", Administer),
        row(O::DisableCalling, Delete, CALLING, "disableWhatsAppCalling", Administer),
        row(O::EnableCalling, Post, LEGACY, "enableWhatsAppCallingLegacy", Administer),
        row(O::UpdateCalling, Patch, LEGACY, "updateWhatsAppCallingLegacy", Administer),
        row(O::DisableCalling, Delete, LEGACY, "disableWhatsAppCallingLegacy", Administer),
        row(O::StartCallerId, Post, CALLER_ID, "startWhatsAppCallerIdVerification", Administer),
        row(O::VerifyCallerId, Post, VERIFY, "verifyWhatsAppCallerId", Administer),
        row(O::GetPermissions, Get, "/v1/whatsapp/call-permissions", "getWhatsAppCallPermissions", Look),
        row(O::PlaceCall, Post, "/v1/whatsapp/calls", "initiateWhatsAppCall", Operate),
        row(O::ListWhatsAppCalls, Get, "/v1/whatsapp/calls", "listWhatsAppCalls", Look),
        row(O::Estimate, Get, "/v1/whatsapp/calls/estimate", "getWhatsAppCallEstimate", Look),
        row(O::GetWhatsAppCall, Get, "/v1/whatsapp/calls/{id}", "getWhatsAppCall", Look),
        row(O::GetWhatsAppRecording, Get, OF_ACCOUNT, "getWhatsAppCallRecording", Look),
        row(O::PauseWhatsAppRecording, Patch, OF_ACCOUNT, "pauseWhatsAppCallRecording", Operate),
        row(O::DeleteWhatsAppRecording, Delete, OF_ACCOUNT, "deleteWhatsAppCallRecording", Administer),
        row(O::ListCalls, Get, "/v1/calls", "listCalls", Look),
        row(O::GetCall, Get, "/v1/calls/{id}", "getCall", Look),
        row(O::GetRecording, Get, RECORDING, "getCallRecording", Look),
        row(O::PauseRecording, Patch, RECORDING, "pauseCallRecording", Operate),
        row(O::DeleteRecording, Delete, RECORDING, "deleteCallRecording", Administer),
        Operation {
            credentials: Credentials::Link,
            ..row(O::FetchRecording, Get, "/v1/recordings/{id}", "fetchRecording", Look)
        },
        row(O::Audit, Get, "/v1/audit", "getAuditLog", Administer),
        row(O::Usage, Get, "/v1/usage/calls", "getCallsUsage", Look),
        row(O::EndCall, Post, "/v1/voice/calls/{id}/end", "endVoiceCall", Operate),
        row(O::TransferCall, Post, "/v1/voice/calls/{id}/transfer", "transferVoiceCall", Operate),
        row(O::ListWebhooks, Get, SETTINGS, "getWebhookSettings", Look),
        row(O::CreateWebhook, Post, SETTINGS, "createWebhookSettings", Administer),
        row(O::UpdateWebhook, Put, SETTINGS, "updateWebhookSettings", Administer),
        row(O::DeleteWebhook, Delete, SETTINGS, "deleteWebhookSettings", Administer),
        row(O::TestWebhook, Post, "/v1/webhooks/test", "testWebhook", Administer),
        row(O::WebhookLogs, Get, "/v1/webhooks/logs", "getWebhookLogs", Look),
        row(O::Redeliver, Post, "/v1/webhooks/logs/redeliver", "redeliverWebhookEvent", Administer),
        row(O::Status, Get, "/v1/status", "getStatus", Look),
        row(O::Trunks, Get, "/v1/trunks", "listTrunks", Look),
        row(O::TraceState, Get, "/v1/trace", "getTracing", Look),
        row(O::TraceSwitch, Put, "/v1/trace", "setTracing", Operate),
        row(O::TraceCall, Get, "/v1/calls/{id}/trace", "getCallTrace", Operate),
        row(O::Numbers, Get, "/v1/phone-numbers", "listPhoneNumbers", Look),
        row(O::Events, Get, "/v1/events", "streamEvents", Look),
        Operation {
            credentials: Credentials::None,
            ..row(O::Description, Get, "/openapi.json", "getDescription", Look)
        },
        Operation {
            credentials: Credentials::Basic,
            form: Form::Url,
            ..row(O::Twilio, Post, TWILIO, "updateTwilioCall", Operate)
        },
    ]
};
