//! Where a caller of the API may make us connect to.

use super::fault::Fault;
use crate::config::{Config, HostPort, is_private_host};

/// The host in an absolute address, and its port.
fn host_of(url: &str) -> Option<HostPort> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    HostPort::parse(authority).ok()
}

/// Refuses an address of this machine or a private network, unless the file allows it. What a DNS name leads to
/// is looked at again by the shell when it connects.
///
/// # Errors
/// 400.
pub fn checked(config: &Config, param: &str, url: &str) -> Result<(), Fault> {
    let host = host_of(url).ok_or_else(|| Fault::invalid(param, "has no valid host"))?;
    if is_private_host(&host.host) && !config.http.allow_private {
        let what = "leads to this machine or a private network: http.allow_private in the file permits that";
        return Err(Fault::invalid(param, what));
    }
    Ok(())
}

/// The host of `http.public_url`; empty if there is none.
pub fn public_host(config: &Config) -> String {
    config.http.public_url.as_deref().and_then(host_of).map(|host| host.host).unwrap_or_default()
}
