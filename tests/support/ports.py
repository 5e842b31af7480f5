"""A port of loopback that is ours from beginning to end, whether anybody listens at it or not.

A port that was picked and let go is anybody's: the next server's, or the near end of any connection of the machine.
Held, it is given to nobody else, who connects is refused, and who asks for it by its number (with SO_REUSEADDR, as
servers do) may listen at it.
"""

from __future__ import annotations

import socket
from typing import Self


class Port:
    """Holds a free port while entered, or until `release`."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, 0))
        self.number: int = self._socket.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.number}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        self._socket.close()
