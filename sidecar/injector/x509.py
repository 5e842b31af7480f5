"""A certificate authority of one use: it signs one server certificate, and its key is forgotten.

Problem: a webhook needs a certificate, our image has no openssl and no compiler, and the standard library makes none.
Promise: `issue` returns a P-256 pair whose chain verifies strictly: names as subject alternative names, key usages, key
identifiers, a validity of so many days. Arithmetic on the curve is plain Python: 20 ms for one certificate,
and not in constant time, which nobody can measure of a job that signs once.
Refused: every other algorithm, revocation, requests, and keeping the authority's key.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import textwrap
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

Point: TypeAlias = tuple[int, int] | None  # None: the point at infinity

# P-256 (SEC 2, section 2.4.2)
_P: Final = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
_N: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_G: Final = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
_BYTES: Final = 32
_BACKDATED: Final = timedelta(minutes=10)  # clocks of a cluster differ


@dataclass(frozen=True, slots=True)
class Issued:
    """PEM texts: the server's certificate, its key, and the authority to trust."""

    certificate: str
    key: str
    authority: str
    not_after: datetime

    def __repr__(self) -> str:
        return f"Issued(not_after={self.not_after})"


def issue(names: tuple[str, ...], days: int, now: datetime) -> Issued:
    """Make an authority and let it sign one server certificate for these DNS names."""
    validity = (now - _BACKDATED, now + timedelta(days=days))
    ours, its = _key(), _key()
    # A name of its own: while two authorities are trusted, the right one must be found by name.
    issuer = f"gin-sidecar {secrets.token_hex(4)}"
    authority = _certificate(
        subject=issuer,
        issuer=issuer,
        validity=validity,
        key=ours,
        signer=ours,
        extensions=[
            _extension("2.5.29.19", _sequence(b"\x01\x01\xff" + _integer(0)), critical=True),  # a CA, of no further one
            _extension("2.5.29.15", b"\x03\x02\x01\x06", critical=True),  # signs certificates and lists
        ],
    )
    certificate = _certificate(
        subject="gin-sidecar injector",
        issuer=issuer,
        validity=validity,
        key=its,
        signer=ours,
        extensions=[
            _extension("2.5.29.19", _sequence(), critical=True),  # no CA
            _extension("2.5.29.15", b"\x03\x02\x07\x80", critical=True),  # digitalSignature
            _extension("2.5.29.37", _sequence(_oid("1.3.6.1.5.5.7.3.1"))),  # serverAuth
            _extension("2.5.29.17", _sequence(*(_tlv(0x82, name.encode("ascii")) for name in names))),
        ],
    )
    return Issued(
        certificate=_pem("CERTIFICATE", certificate),
        key=_pem("EC PRIVATE KEY", _private(its)),
        authority=_pem("CERTIFICATE", authority),
        not_after=validity[1],
    )


# the curve


def _add(one: Point, two: Point) -> Point:
    if one is None or two is None:
        return one or two
    if one[0] == two[0] and (one[1] + two[1]) % _P == 0:
        return None
    if one == two:
        slope = (3 * one[0] * one[0] - 3) * pow(2 * one[1], -1, _P) % _P
    else:
        slope = (two[1] - one[1]) * pow(two[0] - one[0], -1, _P) % _P
    x = (slope * slope - one[0] - two[0]) % _P
    return x, (slope * (one[0] - x) - one[1]) % _P


def _times(scalar: int) -> tuple[int, int]:
    """Return the base point taken so many times, of 1 to N - 1."""
    total: Point = None
    power: Point = _G
    while scalar:
        if scalar & 1:
            total = _add(total, power)
        power = _add(power, power)
        scalar >>= 1
    if total is None:
        raise ValueError("expected a scalar from 1 to N - 1")
    return total


def _key() -> int:
    return secrets.randbelow(_N - 1) + 1


def _sign(message: bytes, key: int) -> bytes:
    """Return an ECDSA signature with SHA-256, as DER."""
    digest = int.from_bytes(hashlib.sha256(message).digest())
    while True:
        nonce = _key()
        r = _times(nonce)[0] % _N
        s = pow(nonce, -1, _N) * (digest + r * key) % _N
        if r and s:
            return _sequence(_integer(r), _integer(s))


# certificates


def _certificate(
    *,
    subject: str,
    issuer: str,
    validity: tuple[datetime, datetime],
    key: int,
    signer: int,
    extensions: list[bytes],
) -> bytes:
    algorithm = _sequence(_oid("1.2.840.10045.4.3.2"))  # ecdsa-with-SHA256
    identifiers = [
        _extension("2.5.29.14", _tlv(0x04, _identifier(key))),
        _extension("2.5.29.35", _sequence(_tlv(0x80, _identifier(signer)))),
    ]
    signed = _sequence(
        _tlv(0xA0, _integer(2)),  # version 3
        _integer(int.from_bytes(secrets.token_bytes(16)) >> 1),  # a serial number is positive
        algorithm,
        _name(issuer),
        _sequence(*map(_time, validity)),
        _name(subject),
        _sequence(_curve(), _bits(_public(key))),
        _tlv(0xA3, _sequence(*extensions, *identifiers)),
    )
    return _sequence(signed, algorithm, _bits(_sign(signed, signer)))


def _public(key: int) -> bytes:
    return b"\x04" + b"".join(number.to_bytes(_BYTES) for number in _times(key))


def _identifier(key: int) -> bytes:
    return hashlib.sha256(_public(key)).digest()[:20]


def _private(key: int) -> bytes:
    curve = _oid("1.2.840.10045.3.1.7")
    parts = (_integer(1), _tlv(0x04, key.to_bytes(_BYTES)), _tlv(0xA0, curve), _tlv(0xA1, _bits(_public(key))))
    return _sequence(*parts)


def _curve() -> bytes:
    return _sequence(_oid("1.2.840.10045.2.1"), _oid("1.2.840.10045.3.1.7"))


def _name(text: str) -> bytes:
    return _sequence(_tlv(0x31, _sequence(_oid("2.5.4.3"), _tlv(0x0C, text.encode()))))


def _time(at: datetime) -> bytes:
    at = at.astimezone(UTC)
    if at.year < 2050:  # RFC 5280: UTCTime until then
        return _tlv(0x17, at.strftime("%y%m%d%H%M%SZ").encode())
    return _tlv(0x18, at.strftime("%Y%m%d%H%M%SZ").encode())


def _extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    return _sequence(_oid(oid), *([b"\x01\x01\xff"] if critical else []), _tlv(0x04, value))


# DER


def _tlv(tag: int, value: bytes) -> bytes:
    size = len(value)
    if size < 0x80:
        return bytes([tag, size]) + value
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(length)]) + length + value


def _sequence(*parts: bytes) -> bytes:
    return _tlv(0x30, b"".join(parts))


def _integer(number: int) -> bytes:
    return _tlv(0x02, number.to_bytes(number.bit_length() // 8 + 1))


def _bits(value: bytes) -> bytes:
    return _tlv(0x03, b"\x00" + value)


def _oid(text: str) -> bytes:
    first, second, *rest = map(int, text.split("."))
    encoded = bytearray([first * 40 + second])
    for number in rest:
        digits = [number & 0x7F]
        while number := number >> 7:
            digits.append(0x80 | number & 0x7F)
        encoded += bytes(reversed(digits))
    return _tlv(0x06, bytes(encoded))


def _pem(kind: str, der: bytes) -> str:
    body = "\n".join(textwrap.wrap(base64.b64encode(der).decode(), 64))
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n"
