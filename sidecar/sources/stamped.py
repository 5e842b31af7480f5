"""The API's log stream becomes whole lines in CRI form.

The problem: with `timestamps=true` the API puts a time and a space before each line, and says nothing of stdout and
stderr; a connection breaks anywhere. The promise: only whole lines come out, `<time> stdout F <content>`, each with its
time and a digest of what the API sent, by which it is known again; half a line is held, in bounded memory, until its
end comes or the connection is gone. The kubelet's own complaints, which it writes into the stream without a time, are
told apart; any other line without a time gets its predecessor's. Pure: no I/O, no clock.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from sidecar import times

_CONTENT_AFTER = b" stdout F "
_STAMP = re.compile(rb"([0-9]{4}-[0-9T:.-]{14,27}(?:Z|[+-][0-9]{2}:[0-9]{2})) ")
_STAMP_BYTES = 64  # what may stand before the content, and a carriage return behind it
_COMPLAINTS = (b"unable to retrieve container logs", b"failed to ", b"rpc error: ", b"error reading from ")
_EPOCH = b"1970-01-01T00:00:00Z"


@dataclass(slots=True)
class Line:
    """One line of the stream."""

    ns: int  # its time since the epoch
    key: int  # 64 bits: of its time and content
    text: bytes  # in CRI form, newline included; "" for what is none of the application's
    lost: int = 0  # bytes of content that are not in `text`, because the line is longer than can be kept
    complaint: str = ""  # the kubelet's own words


class Splitter:
    """Finds the lines of one connection."""

    def __init__(self, max_line_bytes: int, stamp: bytes = _EPOCH) -> None:
        """`stamp` is the time of a first line without one."""
        # One byte more than framing keeps, so that framing sees that the line is too long.
        self._cap = max_line_bytes + _STAMP_BYTES
        self._held = bytearray()
        self._beyond = 0  # bytes of the held line that are not in `_held`
        self._last = 0  # its last byte, if it is not in `_held`
        self._stamp = stamp
        self._second = b""  # of the newest line, its dot included
        self._second_ns = 0

    def feed(self, data: bytes) -> list[Line]:
        """Return the lines that end in `data`."""
        newline = data.find(b"\n")
        if newline < 0:
            self._hold(data)
            return []
        lines = []
        if self._held:
            self._hold(data[:newline])
            lines.append(self._line(bytes(self._held), self._beyond, self._last))
            self._held.clear()
            self._beyond = 0
            data = data[newline + 1 :]
        *texts, rest = data.split(b"\n")
        for text in texts:
            beyond = max(0, len(text) - self._cap)
            lines.append(self._line(text[: self._cap] if beyond else text, beyond, text[-1] if beyond else 0))
        self._hold(rest)
        return lines

    def rest(self) -> Line | None:
        """Return the line that has no end, without newline; None where there is none. Forgets it."""
        if not self._held:
            return None
        line = self._line(bytes(self._held), self._beyond, self._last)
        self._held.clear()
        self._beyond = 0
        line.text = line.text[:-1]
        return line

    def _hold(self, part: bytes) -> None:
        room = self._cap - len(self._held)
        self._held += part[:room]
        if len(part) > room:
            self._beyond += len(part) - room
            self._last = part[-1]

    def _line(self, text: bytes, beyond: int, last: int) -> Line:
        key = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
        # The kubelet's own form, in the second of the line before: 4.7 µs a line in all, 10.2 without this.
        if text[:20] == self._second and text[29:31] == b"Z " and text[20:29].isdigit() and not beyond:
            self._stamp = text[:30]
            return Line(self._second_ns + int(text[20:29]), key, text[:30] + _CONTENT_AFTER + text[31:] + b"\n")
        match = _STAMP.match(text)
        stamp = times.rfc3339(match[1].decode()) if match else None
        if match is not None and stamp is not None:
            self._stamp = match[1]
            if len(self._stamp) == 30 and self._stamp.endswith(b"Z"):
                self._second, self._second_ns = text[:20], stamp.ns - stamp.ns % times.SECOND
            content = text[match.end() :]
        elif text.startswith(_COMPLAINTS):
            return Line(0, key, b"", complaint=text[:300].decode(errors="replace"))
        else:
            content = text
            stamp = times.rfc3339(self._stamp.decode())
            assert stamp is not None
        if beyond and last == 0x0D:  # it belongs to the newline
            beyond -= 1
        return Line(stamp.ns, key, self._stamp + _CONTENT_AFTER + content + b"\n", beyond)
