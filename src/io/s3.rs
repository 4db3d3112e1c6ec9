//! Requests to an S3-compatible store: the object's address, and the signature (AWS Signature Version 4).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::client::escaped;
use crate::clock::Wall;

/// The SHA-256 of nothing.
pub const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// In place of the SHA-256 of a body that is not known.
pub const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Who asks, and where.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    /// The region that is signed for.
    pub region: &'a str,
    /// The access key's id.
    pub access_key: &'a str,
    /// The secret key.
    pub secret_key: &'a str,
}

/// The path of an object below the endpoint's address: `/bucket/key`, escaped but for the slashes.
pub fn path(bucket: &str, key: &str) -> String {
    let mut path = format!("/{}", escaped(bucket));
    for part in key.split('/') {
        path.push('/');
        path.push_str(&escaped(part));
    }
    path
}

/// A SHA-256 in hexadecimal, as the header `x-amz-checksum-sha256` wants it; `None` if it is none.
pub fn checksum(hex: &str) -> Option<String> {
    let digits = hex.as_bytes().chunks_exact(2).map(|pair| {
        let pair = std::str::from_utf8(pair)
            .ok()
            .filter(|pair| pair.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        u8::from_str_radix(pair, 16).ok()
    });
    let bytes: Vec<u8> = digits.collect::<Option<_>>()?;
    (hex.len() == 64 && bytes.len() == 32).then(|| BASE64.encode(bytes))
}

/// Adds what signs a request without a query. `path` is escaped; `headers` are what is sent and signed, names in lower
/// case, `host` among them; `payload` is the body's SHA-256 in hexadecimal, or [`UNSIGNED`].
///
/// Returns the headers with those of the signature.
pub fn signed(
    access: Access<'_>,
    method: &str,
    path: &str,
    mut headers: Vec<(&'static str, String)>,
    payload: &str,
    now: Wall,
) -> Vec<(&'static str, String)> {
    let (date, moment) = stamps(now);
    headers.push(("x-amz-content-sha256", payload.to_owned()));
    headers.push(("x-amz-date", moment.clone()));
    headers.sort_unstable();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let mut request = format!("{method}\n{path}\n\n");
    for (name, value) in &headers {
        let value: Vec<&str> = value.split_ascii_whitespace().collect();
        let _ = writeln!(request, "{name}:{}", value.join(" "));
    }
    let _ = write!(request, "\n{names}\n{payload}");

    let scope = format!("{date}/{}/s3/aws4_request", access.region);
    let text = format!("{ALGORITHM}\n{moment}\n{scope}\n{}", hex(&Sha256::digest(request)));
    let mut key = format!("AWS4{}", access.secret_key).into_bytes();
    for word in [date.as_str(), access.region, "s3", "aws4_request"] {
        key = keyed(&key, word);
    }
    let signature = hex(&keyed(&key, &text));
    let credential = format!("{}/{scope}", access.access_key);
    let authorization =
        format!("{ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}");
    headers.push(("authorization", authorization));
    headers
}

/// `20261123`, `20261123T063015Z`.
fn stamps(now: Wall) -> (String, String) {
    let at = OffsetDateTime::from_unix_timestamp(now.unix_seconds()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let date = format!("{:04}{:02}{:02}", at.year(), u8::from(at.month()), at.day());
    let moment = format!("{date}T{:02}{:02}{:02}Z", at.hour(), at.minute(), at.second());
    (date, moment)
}

fn keyed(key: &[u8], text: &str) -> Vec<u8> {
    // A key of any length will do: this never fails.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The code in a store's error document: `SignatureDoesNotMatch`. Only letters, digits and dots.
pub fn code(document: &str) -> Option<&str> {
    let (_, rest) = document.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let plain = code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
    (plain && !code.is_empty() && code.len() <= 64).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn access(region: &str) -> Access<'_> {
        Access {
            region,
            access_key: "AKIAIOSFODNN7EXAMPLE",
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        }
    }

    fn authorization<'a>(headers: &'a [(&'static str, String)]) -> &'a str {
        &headers.iter().find(|(name, _)| *name == "authorization").unwrap().1
    }

    #[test]
    fn a_request_is_signed_as_the_example_in_awss_manual() {
        // Amazon S3, API reference, "Signature calculations in the authorization header", example: GET object.
        let headers =
            vec![("host", "examplebucket.s3.amazonaws.com".to_owned()), ("range", "bytes=0-9".to_owned())];
        let signed =
            signed(access("us-east-1"), "GET", "/test.txt", headers, NOTHING, Wall(1_369_353_600_000));
        assert_eq!(
            authorization(&signed),
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, \
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
    }

    #[test]
    fn an_upload_and_its_check_are_signed_as_botocore_signs_them() {
        // botocore 1.44.5, S3SigV4Auth, on 2026-11-23 at 06:30:15 UTC.
        let path = path("calls", "2026 \u{fc}/wacid.A+B=.wav");
        assert_eq!(path, "/calls/2026%20%C3%BC/wacid.A%2BB%3D.wav");
        let (access, now) = (access("eu-central-1"), Wall(1_795_415_415_999));
        let host = ("host", "minio.example:9000".to_owned());
        let put = vec![
            host.clone(),
            ("content-type", "audio/wav".to_owned()),
            ("content-length", "3".to_owned()),
            ("x-amz-checksum-sha256", checksum(ABC).unwrap()),
        ];
        let put = signed(access, "PUT", &path, put, ABC, now);
        assert!(
            authorization(&put)
                .ends_with("Signature=245fa38061edbdfa4ec49dbd5f29ba5cd150d0a14ceef971807028342be9d5b8"),
            "{put:?}"
        );
        let head = vec![host, ("x-amz-checksum-mode", "ENABLED".to_owned())];
        let head = signed(access, "HEAD", &path, head, NOTHING, now);
        assert!(
            authorization(&head)
                .ends_with("Signature=4d77912b9097e143e984c36f12e478ae361d04bc838dfc517d1a4c7fa76514d8"),
            "{head:?}"
        );
    }

    #[test]
    fn a_hash_becomes_the_checksum_that_the_store_compares() {
        assert_eq!(checksum(ABC).unwrap(), "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
        for none in ["", &ABC[1..], &ABC.replace('b', "+"), &format!("{ABC}00"), &"\u{e9}".repeat(32)] {
            assert_eq!(checksum(none), None, "{none}");
        }
    }

    #[test]
    fn only_the_code_of_an_error_document_is_repeated() {
        let document = "<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>no</Message></Error>";
        assert_eq!(code(document), Some("NoSuchBucket"));
        for none in [
            "",
            "<Code></Code>",
            "<Code>a b</Code>",
            "<Code>endless",
            &format!("<Code>{}</Code>", "x".repeat(65)),
        ] {
            assert_eq!(code(none), None, "{none}");
        }
    }
}
