"""The webhook's certificate: read from files that are replaced while connections come in.

Problem: Kubernetes replaces a mounted certificate and its key by one symlink, other tools one file after the other, and
for a moment the two do not fit; loading them into the context in use would break every handshake until they do again.
Promise: a pair that loads is in use for the next connection, one that does not leaves the last good one in force and
says so. TLS 1.2 at least, no resumption (a resumed session would keep showing the old certificate).
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0x17, 0x18
_TIMES = (_UTC_TIME, _GENERALIZED_TIME)
_Seen: TypeAlias = tuple[tuple[int, int, int, int], ...]


class Certificates:
    """The pair of two files as one TLS context that follows them. `refresh` is called again and again."""

    def __init__(self, cert_file: str, key_file: str) -> None:
        self._files = (Path(cert_file), Path(key_file))
        self._seen: _Seen | None = None
        self._current: ssl.SSLContext | None = None
        self.problem = "not read yet"  # "" while what the files hold is in use
        self.loads = 0
        self.not_after = 0.0  # when the certificate in use expires, as Unix time

    @property
    def ready(self) -> bool:
        """Say whether there is a certificate to show."""
        return self._current is not None

    def refresh(self) -> bool:
        """Look at the files; return whether anything changed, for better or worse."""
        before = (self.loads, self.problem)
        try:
            seen = self._stat()
            if seen != self._seen or self.problem:
                self._load()
                self._seen = seen  # older than what was loaded: a change in between is seen next time
        except FileNotFoundError as error:
            self.problem = f"{error.filename}: no such file"
        except (OSError, ValueError) as error:
            # The text of an SSLError names the reason, never the content.
            self.problem = f"{self._files[0]}, {self._files[1]}: {getattr(error, 'reason', '') or error}"
        return (self.loads, self.problem) != before

    def context(self) -> ssl.SSLContext:
        """Return the context to listen with. Every handshake is handed to the newest certificate."""
        listening = _context()
        listening.sni_callback = self._choose
        return listening

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> int | None:
        if self._current is None:
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        connection.context = self._current
        return None

    def _stat(self) -> _Seen:
        found = [path.stat() for path in self._files]
        return tuple((one.st_dev, one.st_ino, one.st_mtime_ns, one.st_size) for one in found)

    def _load(self) -> None:
        fresh = _context()
        certificate, key = self._files
        # A key with a password would make OpenSSL ask the terminal.
        fresh.load_cert_chain(certificate, key, password=lambda: "")
        self.not_after = _expiry(certificate)
        self._current, self.problem = fresh, ""
        self.loads += 1


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    return context


def _expiry(path: Path) -> float:
    """Return when the first certificate of a PEM file expires; 0 where that cannot be told.

    The library decodes certificates of peers only, so the two times are looked for in the DER itself: the only
    SEQUENCE of exactly two times that a certificate has.
    """
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    pem = path.read_text(encoding="ascii", errors="replace")
    start, stop = pem.find(begin), pem.find(end)
    if start < 0 or stop < start:
        return 0.0
    der = ssl.PEM_cert_to_DER_cert(pem[start : stop + len(end)])
    for place in range(len(der) - 4):
        if der[place] == _SEQUENCE and der[place + 2] in _TIMES:
            first = place + 4 + der[place + 3]  # where the first time ends
            whole = place + 2 + der[place + 1]
            if first + 1 < len(der) and der[first] in _TIMES and first + 2 + der[first + 1] == whole:
                return _time(der[first], der[first + 2 : whole])
    return 0.0


def _time(kind: int, value: bytes) -> float:
    """Read UTCTime or GeneralizedTime, both in Z as RFC 5280 wants them."""
    digits = value.decode("ascii", "replace").removesuffix("Z")
    if kind == _UTC_TIME:
        digits = ("19" if digits[:2] >= "50" else "20") + digits
    try:
        return datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0
