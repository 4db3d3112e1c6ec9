"""Certificates for TLS on the trunk: an authority of our own, and what it signs."""

import datetime
import hashlib
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PEM = serialization.Encoding.PEM


class Papers:
    """The files of one certificate: `cert`, `key`, and the SHA-256 of the certificate as `pin`."""

    def __init__(self, folder, name, cert, key):
        self.cert, self.key = folder / f"{name}.pem", folder / f"{name}.key"
        self.cert.write_bytes(cert.public_bytes(PEM))
        self.key.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        self.key.chmod(0o600)
        self.serial = cert.serial_number
        self.pin = hashlib.sha256(cert.public_bytes(serialization.Encoding.DER)).hexdigest()

    @property
    def files(self):
        """What ssl.SSLContext.load_cert_chain takes."""
        return str(self.cert), str(self.key)


class Authority:
    """A CA; its certificate is `file`."""

    def __init__(self, folder, name="lab trunk CA"):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = folder / "ca.pem"
        usage = x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
                              data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False)
        self.file.write_bytes(self._made(self._name, self._key, [
            (x509.BasicConstraints(ca=True, path_length=0), True), (usage, True)]).public_bytes(PEM))

    def issue(self, name, *addresses, hosts=(), days=2):
        """A certificate for some addresses and host names; its `Papers`."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.IPAddress(ipaddress.ip_address(a)) for a in addresses] + [x509.DNSName(h) for h in hosts]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        cert = self._made(subject, key, [(x509.SubjectAlternativeName(names), False),
                                         (x509.BasicConstraints(ca=False, path_length=None), True)], days)
        return Papers(self.folder, name, cert, key)

    def _made(self, subject, key, extensions, days=2):
        now = datetime.datetime.now(datetime.timezone.utc)
        it = (x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
              .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=3))
              .not_valid_after(now + datetime.timedelta(days=days)))
        for extension, critical in extensions:
            it = it.add_extension(extension, critical=critical)
        return it.sign(self._key, hashes.SHA256())
