//! TLS of SIP: whom we believe when we connect, and the certificate that we show when others do.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// Where distributions keep the authorities that their programs believe; the first that is there counts.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How often the files of our certificate are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Whom to believe at the other end of a connection that we open.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TlsTrust {
    /// The host of the trunk's URI: what is asked for (SNI), and what the certificate must be for.
    pub name: String,
    /// Certificates (PEM) to believe beside the system's and the browsers' authorities; a server's own one too.
    pub ca: Option<PathBuf>,
    /// The SHA-256 of the server's certificate (DER): that one and no other, whatever its name, age and issuer.
    pub pin: Option<[u8; 32]>,
}

/// What a handshake as client needs; reads files, so not for the signalling thread.
///
/// # Errors
/// A name that is none, or a file of authorities that can't be used.
pub(super) fn client(
    trust: &TlsTrust,
) -> Result<(Arc<ClientConfig>, ServerName<'static>, Arc<Judge>), String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let name = match ServerName::try_from(trust.name.clone()) {
        Ok(name) => name,
        // With a pin the name decides nothing, but one has to be given.
        Err(_) if trust.pin.is_some() => ServerName::from(std::net::Ipv4Addr::UNSPECIFIED),
        Err(_) => return Err(format!("\"{}\" is no name that a certificate could be for", trust.name)),
    };
    let said = |error: &dyn fmt::Display| format!("TLS can't be set up: {error}");
    let mut given = Vec::new();
    let mut chains = None;
    if trust.pin.is_none() {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = SYSTEM.iter().map(Path::new).find(|path| path.exists()) {
            // What others trust there may hold what we can't read; that takes nothing away.
            let store = CertificateDer::pem_file_iter(path).into_iter().flatten().flatten();
            roots.add_parsable_certificates(store);
        }
        if let Some(path) = &trust.ca {
            given = certificates(path).map_err(|error| format!("tls_ca {error}"))?;
            roots.add_parsable_certificates(given.iter().cloned());
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        chains = Some(verifier.build().map_err(|error| said(&error))?);
    }
    let judge = Arc::new(Judge {
        provider: Arc::clone(&provider),
        pin: trust.pin,
        chains,
        given,
        seen: Mutex::new(None),
    });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| said(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&judge) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    config.enable_sni = true;
    Ok((Arc::new(config), name, judge))
}

/// All certificates of a PEM file; at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let said = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| said(&error))?.collect();
    let found = found.map_err(|error| said(&error))?;
    if found.is_empty() { Err(said(&"there is no certificate in it")) } else { Ok(found) }
}

/// Judges a server's certificate: by its pin, or by its chain and name. Every signature is verified either way.
#[derive(Debug)]
pub(super) struct Judge {
    provider: Arc<CryptoProvider>,
    pin: Option<[u8; 32]>,
    /// `None` with a pin.
    chains: Option<Arc<WebPkiServerVerifier>>,
    /// The certificates of the operator's own file.
    given: Vec<CertificateDer<'static>>,
    /// The fingerprint of what was shown last, for the log.
    seen: Mutex<Option<[u8; 32]>>,
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let fingerprint: [u8; 32] = Sha256::digest(leaf).into();
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(fingerprint);
        let refused = || CertificateError::ApplicationVerificationFailure.into();
        let Some(chains) = &self.chains else {
            let pinned = self.pin == Some(fingerprint);
            return if pinned { Ok(ServerCertVerified::assertion()) } else { Err(refused()) };
        };
        // A certificate that the operator has handed us himself needs no issuer, only to be that server's: many
        // PBXs make themselves one that signs itself, and is marked as an authority.
        if self.given.iter().any(|given| given.as_ref() == leaf.as_ref()) {
            rustls::client::verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        chains.verify_server_cert(leaf, intermediates, name, stapled, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl Judge {
    /// Why a handshake failed, in one sentence that says what to do.
    pub(super) fn why(&self, error: &std::io::Error, trust: &TlsTrust) -> String {
        let name = &trust.name;
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let Some(tls) = tls else {
            return match error.kind() {
                std::io::ErrorKind::UnexpectedEof => "the server closed the TLS handshake".to_owned(),
                _ => format!("the TLS handshake failed: {error}"),
            };
        };
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let pin: String = seen.iter().flatten().map(|byte| format!("{byte:02x}")).collect();
        match tls {
            rustls::Error::InvalidCertificate(fault) => match fault {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    format!("the certificate of {name} has expired (or this host's clock is wrong)")
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    format!("the certificate of {name} is not valid yet (or this host's clock is wrong)")
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    let names = match fault {
                        CertificateError::NotValidForNameContext { presented, .. }
                            if !presented.is_empty() =>
                        {
                            let names: Vec<&str> = presented.iter().take(4).map(|each| bare(each)).collect();
                            format!(", but for {}", names.join(", "))
                        }
                        _ => String::new(),
                    };
                    format!("the certificate is not for {name}{names}")
                }
                CertificateError::ApplicationVerificationFailure => {
                    format!("the certificate of {name} is not the pinned one: its tls_pin would be \"{pin}\"")
                }
                CertificateError::Revoked => format!("the certificate of {name} is revoked"),
                // An authority's certificate as the server's own comes here too: it has signed itself. So does one of
                // another authority that has the name of one we know.
                CertificateError::UnknownIssuer
                | CertificateError::BadSignature
                | CertificateError::Other(_) => format!(
                    "the certificate of {name} is self-signed or of an unknown issuer: set tls_ca to the file of \
                     its authority, or tls_pin = \"{pin}\" if that is its SHA-256"
                ),
                other => format!("the certificate of {name} is refused: {other:?}"),
            },
            rustls::Error::InvalidMessage(_) => "the server does not speak TLS on that port".to_owned(),
            rustls::Error::AlertReceived(alert) => format!("the server refused the TLS handshake: {alert:?}"),
            other => format!("the TLS handshake failed: {other}"),
        }
    }
}

/// A name out of `DnsName("pbx.example.com")`, as rustls lists those of a certificate.
fn bare(listed: &str) -> &str {
    listed.split_once('(').map_or(listed, |(_, inner)| inner.trim_end_matches(')')).trim_matches('"')
}

/// When a file was written, and how long it is: another stamp is another file.
type Stamp = Option<(SystemTime, u64)>;

fn stamp(path: &Path) -> Stamp {
    let about = std::fs::metadata(path).ok()?;
    Some((about.modified().ok()?, about.len()))
}

/// Our own certificate, as its files are.
pub(super) struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    config: Arc<ServerConfig>,
    stamps: (Stamp, Stamp),
    looked: Instant,
}

impl Identity {
    /// Reads both files.
    ///
    /// # Errors
    /// What is wrong with them, in words, with the path.
    pub fn read(certificate: &Path, key: &Path) -> Result<Identity, String> {
        let stamps = (stamp(certificate), stamp(key));
        Ok(Identity {
            config: server(certificate, key)?,
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            stamps,
            looked: Instant::now(),
        })
    }

    /// What a handshake as server needs. The files are looked at once a second at most; a new pair that can't be
    /// used leaves the old one where it is, and is said once.
    pub fn current(&mut self) -> Arc<ServerConfig> {
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            let stamps = (stamp(&self.certificate), stamp(&self.key));
            if stamps != self.stamps {
                self.stamps = stamps;
                match server(&self.certificate, &self.key) {
                    Ok(config) => {
                        self.config = config;
                        tracing::info!(file = %self.certificate.display(), "the certificate was read again");
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the new certificate can't be used, the old one stays");
                    }
                }
            }
        }
        Arc::clone(&self.config)
    }
}

/// Certificate and key, and whether they belong together.
fn server(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let chain = certificates(certificate).map_err(|error| format!("sip.tls_cert {error}"))?;
    let said = |error: &dyn fmt::Display| format!("sip.tls_key {}: {error}", key.display());
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| said(&error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS can't be set up: {error}"))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                said(&format!("is not the key of {}", certificate.display()))
            }
            other => said(&other),
        })?;
    Ok(Arc::new(config))
}
