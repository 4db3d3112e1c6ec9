//! The error envelope: what went wrong, where, and what the caller can do, in one flat object.
//!
//! Shape and words are those of the Zernio API: `error`, `type`, `code`, `param`, `platform`, `platformError`,
//! `details`.

use axum::body::Body;
use std::ops::{Deref, DerefMut};

use axum::http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use axum::http::{Response, StatusCode};
use serde_json::{Map, Value, json};

/// The `type` of an error: which part of a program should care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong, or comes at the wrong time: change it.
    InvalidRequest,
    /// Who is asking? Give a key that is valid.
    Authentication,
    /// The key, or the WhatsApp user, does not allow it.
    Permission,
    /// There is no such thing.
    NotFound,
    /// Too much at the moment: wait.
    RateLimit,
    /// Meta or the PBX said no.
    Platform,
    /// Our own trouble.
    Api,
}

impl Kind {
    /// The word in the envelope.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::InvalidRequest => "invalid_request_error",
            Kind::Authentication => "authentication_error",
            Kind::Permission => "permission_error",
            Kind::NotFound => "not_found",
            Kind::RateLimit => "rate_limit_error",
            Kind::Platform => "platform_error",
            Kind::Api => "api_error",
        }
    }
}

/// An answer that is a no.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault(Box<Parts>);

/// What it is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// The HTTP status.
    pub status: StatusCode,
    /// The `type`.
    pub kind: Kind,
    /// The `code`: stable, for programs.
    pub code: &'static str,
    /// The `error`: one sentence for people.
    pub error: String,
    /// The field of the request that is meant.
    pub param: Option<String>,
    /// Who said no, if it was not us: `meta` or `sip`.
    pub platform: Option<&'static str>,
    /// What they said.
    pub platform_error: Option<Value>,
    /// More, for people and programs.
    pub details: Option<Value>,
    /// Seconds after which it may be tried again.
    pub retry_after: Option<u64>,
    /// The methods that the path knows, of a 405.
    pub allow: Option<String>,
    /// It may have been done all the same: an `Idempotency-Key` must not do it again.
    pub done: bool,
    /// Twilio's code: the envelope is Twilio's then.
    pub twilio: Option<u32>,
}

impl Deref for Fault {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl DerefMut for Fault {
    fn deref_mut(&mut self) -> &mut Parts {
        &mut self.0
    }
}

impl Fault {
    /// A fault with the four parts that every one has.
    pub fn new(status: StatusCode, kind: Kind, code: &'static str, error: impl Into<String>) -> Fault {
        Fault(Box::new(Parts {
            status,
            kind,
            code,
            error: error.into(),
            param: None,
            platform: None,
            platform_error: None,
            details: None,
            retry_after: None,
            allow: None,
            done: false,
            twilio: None,
        }))
    }

    /// 400: a field that must be there is not.
    pub fn missing(param: &str) -> Fault {
        let error = format!("{param} is missing");
        Fault::new(StatusCode::BAD_REQUEST, Kind::InvalidRequest, "missing_required_field", error).at(param)
    }

    /// 400: a field has a value that can't be. `what` completes the sentence that begins with the field's name.
    pub fn invalid(param: &str, what: impl std::fmt::Display) -> Fault {
        let error = format!("{param} {what}");
        Fault::new(StatusCode::BAD_REQUEST, Kind::InvalidRequest, "invalid_field_value", error).at(param)
    }

    /// 422: a field has a value that could be, but not here. `what` as in [`Fault::invalid`].
    pub fn unfit(param: &str, what: impl std::fmt::Display) -> Fault {
        let mut fault = Fault::invalid(param, what);
        fault.status = StatusCode::UNPROCESSABLE_ENTITY;
        fault
    }

    /// 404: there is no such thing.
    pub fn not_found(what: impl Into<String>) -> Fault {
        Fault::new(StatusCode::NOT_FOUND, Kind::NotFound, "not_found", what)
    }

    /// 409 or 422: right, but not now.
    pub fn state(status: StatusCode, what: impl Into<String>) -> Fault {
        Fault::new(status, Kind::InvalidRequest, "invalid_resource_state", what)
    }

    /// 422: not in this version.
    pub fn not_available(param: &str, what: impl Into<String>) -> Fault {
        Fault::new(StatusCode::UNPROCESSABLE_ENTITY, Kind::InvalidRequest, "feature_not_available", what)
            .at(param)
    }

    /// 500: our own trouble. The sentence may be read by an operator: no secret in it.
    pub fn internal(what: impl Into<String>) -> Fault {
        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, Kind::Api, "internal_error", what)
    }

    /// 503: not now, but soon.
    pub fn unavailable(code: &'static str, what: impl Into<String>, retry_after: u64) -> Fault {
        let mut fault = Fault::new(StatusCode::SERVICE_UNAVAILABLE, Kind::Api, code, what);
        fault.retry_after = Some(retry_after);
        fault
    }

    /// Names the field.
    pub fn at(mut self, param: &str) -> Fault {
        self.param = Some(param.to_owned());
        self
    }

    /// Adds details.
    pub fn with(mut self, details: Value) -> Fault {
        self.details = Some(details);
        self
    }

    /// Says who said no, and what.
    pub fn said_by(mut self, platform: &'static str, said: Option<Value>) -> Fault {
        self.platform = Some(platform);
        self.platform_error = said;
        self
    }

    /// The envelope.
    pub fn body(&self) -> Value {
        if let Some(code) = self.twilio {
            let status = self.status.as_u16();
            return json!({ "code": code, "message": self.error, "more_info": "", "status": status });
        }
        let mut body = Map::new();
        body.insert("error".to_owned(), json!(self.error));
        body.insert("type".to_owned(), json!(self.kind.as_str()));
        body.insert("code".to_owned(), json!(self.code));
        let param = self.param.as_ref().map(|param| json!(param));
        let platform = self.platform.map(|platform| json!(platform));
        let more = [
            ("param", param),
            ("platform", platform),
            ("platformError", self.platform_error.clone()),
            ("details", self.details.clone()),
        ];
        for (name, value) in more {
            if let Some(value) = value {
                body.insert(name.to_owned(), value);
            }
        }
        Value::Object(body)
    }

    /// The answer.
    pub fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow.as_deref().and_then(|allow| HeaderValue::from_str(allow).ok()) {
            headers.insert(ALLOW, allow);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_flat_object_and_leaves_out_what_it_does_not_know() {
        assert_eq!(
            Fault::invalid("forwardTo", "must be tel:+number").body(),
            json!({
                "error": "forwardTo must be tel:+number",
                "type": "invalid_request_error",
                "code": "invalid_field_value",
                "param": "forwardTo",
            })
        );
        let fault = Fault::new(StatusCode::BAD_GATEWAY, Kind::Platform, "platform_api_error", "no")
            .said_by("meta", Some(json!({"code": 138_015})))
            .with(json!({"cure": "grow"}));
        assert_eq!(fault.body()["platformError"]["code"], 138_015);
        assert_eq!(fault.body()["platform"], "meta");
        assert_eq!(fault.body()["details"]["cure"], "grow");
    }
}
