//! May this user be called? Meta's answer, passed through.

use super::Backend;
use super::ask::Query;
use super::fault::Fault;
use super::numbers::{self, pick};
use super::refusal::{refused, strange};
use super::serve::{Ask, Outcome, Reply};
use crate::config::NumberConfig;
use crate::gateway::desk::{Answer, Command};
use crate::whatsapp::callee::Callee;
use crate::whatsapp::permit::Permission;

/// `GET /v1/whatsapp/call-permissions`
pub async fn get<B: Backend>(backend: &B, ask: &Ask) -> Outcome {
    let number = numbers::of_account(&ask.config, ask.query.required("accountId")?, pick(&ask.query))?;
    let user = callee_of(&ask.query)?;
    Ok(Reply::ok(asked(backend, number, user).await?.to_json()))
}

/// The `to` of a query.
///
/// # Errors
/// 400 if it is missing or names no WhatsApp user.
pub fn callee_of(query: &Query) -> Result<Callee, Fault> {
    callee("to", query.required("to")?)
}

/// A WhatsApp user: a number, `+` or not, or a BSUID.
///
/// # Errors
/// 400 if it names none.
pub fn callee(param: &str, text: &str) -> Result<Callee, Fault> {
    Callee::parse(text).map_err(|why| Fault::invalid(param, format!("names no WhatsApp user: {why}")))
}

/// What Meta says about calling this user.
///
/// # Errors
/// Whatever the hall refuses.
pub async fn asked<B: Backend>(
    backend: &B,
    number: &NumberConfig,
    user: Callee,
) -> Result<Permission, Fault> {
    match backend.command(Command::Permission { number: number.id.clone(), user }).await {
        Ok(Answer::Permission(permission)) => Ok(permission),
        Ok(other) => Err(strange(&other)),
        Err(refusal) => Err(refused(&refusal)),
    }
}
