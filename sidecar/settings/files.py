"""What the files that options name must hold, found out before a component opens them.

Problem: a certificate that is not there shows up as a sink that retries for ever.
Promise: each finding names the option and what is wrong with its file. Refused: schemas, which `validation` judges, and
secrets, which are read where they are loaded.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from sidecar.settings.checks import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sidecar.settings.checks import Values

_CA, _CERT, _KEY = (f"sinks.loki.{name}_file" for name in ("ca", "cert", "key"))


def findings(value: Values, cwd: Path) -> Iterator[Finding]:
    """Return what is wrong with the certificates of these option values."""
    paths = {name: cwd / value(name) for name in (_CA, _CERT, _KEY) if value(name)}
    flaws = {name: flaw for name, path in paths.items() if (flaw := _unreadable(path))}
    yield from (Finding((name,), flaw) for name, flaw in flaws.items())
    good = paths.keys() - flaws.keys()
    named: tuple[str, ...] = (_CA,)
    try:
        what = "a PEM file of certificates"
        if _CA in good:
            _context().load_verify_locations(cafile=paths[_CA])
        named, what = (_CERT, _KEY), "PEM files of a certificate and its key"
        if {_CERT, _KEY} <= good:
            # A key with a password would make OpenSSL ask the terminal.
            _context().load_cert_chain(paths[_CERT], paths[_KEY], password=lambda: "")
    except ssl.SSLError as error:
        reason = f": {error.reason.replace('_', ' ').lower()}" if error.reason else ""
        yield Finding(named, f"expected {what}{reason}")


def _context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _unreadable(path: Path) -> str:
    try:
        if not path.is_file():  # a FIFO would wait for its writer
            return "cannot read: not a regular file" if path.exists() else "cannot read: No such file or directory"
        with path.open("rb"):
            return ""
    except OSError as error:
        return f"cannot read: {error.strerror}"
    except ValueError as error:  # a path that no system takes
        return f"cannot read: {error}"
