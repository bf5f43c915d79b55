"""TLS, with or without certificates of clients."""

from __future__ import annotations

import ssl
from pathlib import Path

from modelserve.errors import ConfigError


def context(certificate: Path | None, key: Path | None, client_ca: Path | None) -> ssl.SSLContext | None:
    """What the listening socket is to speak; None for plain text.

    Args:
        client_ca: The authority by which a client has to be certified.

    Raises:
        ConfigError: one without the other, or files that cannot be used.
    """
    if certificate is None:
        if key is not None or client_ca is not None:
            raise ConfigError("TLS needs a certificate: give --tls-certificate beside the key or the authority.")
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    renew(made, certificate, key)
    if client_ca is not None:
        try:
            made.load_verify_locations(client_ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"The authority {str(client_ca)!r} cannot be read ({error}). Give a PEM file.") from error
        made.verify_mode = ssl.CERT_REQUIRED
    return made


def renew(made: ssl.SSLContext, certificate: Path | None, key: Path | None) -> None:
    """Use the certificate as it lies on disk now, for connections from now on.

    Raises:
        ConfigError: it cannot be read, or does not belong to its key.
    """
    assert certificate is not None
    try:
        # An empty password instead of a prompt that nobody would see.
        made.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"The certificate {str(certificate)!r} cannot be used ({error}). Give it and its key as PEM files."
        ) from error
