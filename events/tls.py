"""TLS as all our clients speak it: contexts from files of certificates, and what a handshake that failed means."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from layerscope.schemas.errors import LayerscopeError

EXPIRED: Final = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
OTHER_NAME: Final = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
MEANINGS: Final = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS at this address",
    "RECORD_LAYER_FAILURE": "it does not speak TLS at this address",
    "CERTIFICATE_REQUIRED": "it asks for a client's certificate",
    "ALERT_UNKNOWN_CA": "it does not trust the authority that signed the client's certificate",
    "ALERT_BAD_CERTIFICATE": "it asks for a client's certificate, or does not take the one that it was shown",
    "EOF": "it ended the connection during the TLS handshake",
}


class CertificateUnusable(LayerscopeError):
    """A file does not hold the certificate or key that it should; the message names the file."""


@dataclass(frozen=True, slots=True)
class HandshakeFault:
    """What is wrong with a peer, as the rest of a sentence about it, and what to do, where that is known."""

    found: str
    advice: str = ""

    def __str__(self) -> str:
        """Return both."""
        return f"{self.found}; {self.advice}" if self.advice else self.found


def client_context(
    cafile: Path | None = None, certfile: Path | None = None, keyfile: Path | None = None
) -> ssl.SSLContext:
    """Return a context that asks for a certificate of the host that is called.

    Args:
        cafile: authorities to trust, in PEM; None: those of the system, or of SSL_CERT_FILE.
        certfile: the client's own certificate, in PEM, with those that lead to its authority.
        keyfile: its key, in PEM, without a password.

    Raises:
        CertificateUnusable: a file cannot be read, or holds something else.
    """
    try:
        context = ssl.create_default_context(cafile=cafile)
    except (OSError, ssl.SSLError) as error:
        raise CertificateUnusable(f"{cafile} holds no certificate of an authority: {_reason(error)}") from error
    if certfile is not None:
        try:
            context.load_cert_chain(certfile, keyfile, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            files = f"{certfile} and {keyfile} are no client's certificate and its key"
            raise CertificateUnusable(f"{files}: {_reason(error)}") from error
    return context


def handshake_fault(error: BaseException, cafile: str) -> HandshakeFault | None:
    """Return what is wrong with a peer whose TLS handshake failed; None: it was not TLS that failed.

    Args:
        error: what a client raised.
        cafile: the setting that names the authorities to trust.
    """
    for one in _causes(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            return _verification(one, cafile)
        if isinstance(one, ssl.SSLError):
            reason = one.reason or str(one)
            known = (meaning for sign, meaning in MEANINGS.items() if sign in reason)
            return HandshakeFault(next(known, f"the TLS handshake failed: {reason.replace('_', ' ').lower()}"))
    return None


def _verification(error: ssl.SSLCertVerificationError, cafile: str) -> HandshakeFault:
    if error.verify_code in EXPIRED:
        return HandshakeFault(f"its certificate is not valid now: {error.verify_message}")
    if error.verify_code in OTHER_NAME:
        return HandshakeFault(f"its certificate is for another name: {error.verify_message}")
    return HandshakeFault(
        f"its certificate is signed by an authority that is not trusted here ({error.verify_message})",
        f"{cafile} has to name a file that holds the authority's own",
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those it came from: libraries keep them in several places."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            kept = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
            waiting += [inner for inner in kept if isinstance(inner, BaseException)]


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _no_password() -> str:
    raise ssl.SSLError(0, "the key has a password")
