"""Certificate of one session, which every process needs to connect to its cluster.

The app, the scheduler and the workers share one self-signed certificate and require it from each
other (mutual TLS, as in `distributed.security.Security.temporary`). It is stored in the session's
folder, which other users cannot enter, and deleted with it.
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from distributed.security import Security

CERTIFICATE, KEY = "certificate.pem", "key.pem"
YEARS = 10  # longer than any session; its folder is deleted earlier


def write_credentials(folder: Path) -> None:
    """Create a P-256 key and its certificate, and write them to files that only this user can
    read.
    """
    from cryptography import x509  # 0.2 s, spent while the host process starts
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "compression-explorer")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # in case the clock is set back
        .not_valid_after(now + timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain, pem = serialization.NoEncryption(), serialization.Encoding.PEM
    write_private(folder / KEY, key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    write_private(folder / CERTIFICATE, certificate.public_bytes(pem))


def write_private(path: Path, content: bytes) -> None:
    with open(path, "xb", opener=private_descriptor) as file:
        file.write(content)


def private_descriptor(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def security(folder: Path) -> Security:
    """Return the configuration with which distributed connects and listens; unencrypted connections
    are refused.
    """
    certificate, key = str(folder / CERTIFICATE), str(folder / KEY)
    files = {"cert": certificate, "key": key}
    roles = {
        f"tls_{role}_{part}": path
        for role in ("client", "scheduler", "worker")
        for part, path in files.items()
    }
    return Security(require_encryption=True, tls_ca_file=certificate, **roles)
