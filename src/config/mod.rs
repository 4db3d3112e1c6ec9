//! The TOML file: read whole, every fault reported at once, each with its line and key.

mod fault;
mod secret;
mod sections;
mod units;

use std::path::Path;

pub use fault::{Fault, Note};
pub use secret::{Secret, SecretSource, SystemSecrets};
pub use sections::{
    Config, GatewayConfig, HttpConfig, HttpKey, MediaConfig, NumberConfig, SipConfig, TrunkConfig,
    WhatsAppConfig,
};
pub use units::{CallerId, Cidr, Codec, Destination, DtlsRole, Dtmf, HostPort, PortRange, Role, Srtp};
