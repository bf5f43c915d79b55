"""A throw-away authority, and one certificate under Azure's own names, for as long as a rehearsal lasts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LIFE = dt.timedelta(days=2)
_SKEW = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files, PEM. Only who is given `authority` trusts the other, which holds its key too."""

    authority: Path
    certificate: Path


def make(folder: Path, names: Sequence[str]) -> Certificates:
    """New ones below `folder`, for these host names."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _signed(
        _builder("modelserve rehearsal", "modelserve rehearsal", authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_may_sign(), critical=True),
        authority_key,
        authority_key,
    )
    certificate = _signed(
        _builder("Azure, rehearsed", "modelserve rehearsal", key)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True),
        key,
        authority_key,
    )
    pem = serialization.Encoding.PEM
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    found = Certificates(folder / "authority.pem", folder / "certificate.pem")
    found.authority.write_bytes(authority.public_bytes(pem))
    found.certificate.touch(mode=0o600)
    found.certificate.write_bytes(certificate.public_bytes(pem) + key.private_bytes(pem, *plain))
    return found


def _builder(subject: str, issuer: str, key: Any) -> Any:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _signed(builder: Any, key: Any, authority_key: Any) -> Any:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    by = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    return builder.add_extension(by, critical=False).sign(authority_key, hashes.SHA256())


def _may_sign() -> Any:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
