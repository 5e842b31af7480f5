"""A disk that does not answer, for a while: system calls on what is in one directory wait until it does again.

Run as a program: `python -m tests.support.hung DIRECTORY FLAG ARGUMENT…` is `sidecar ARGUMENT…` on a disk that does not
answer while the file FLAG exists; the first call that waits gives FLAG the suffix `.felt`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = ("open", "stat", "lstat", "fstat", "pread", "scandir", "listdir", "readlink")


def watched(directory: Path, ask: Callable[[str], None]) -> dict[str, Callable[..., Any]]:
    """Return the calls of `os` that ask before they touch anything in the directory."""
    prefix = str(directory)
    readlink = os.readlink

    def named(what: object) -> str:
        if isinstance(what, int):
            return readlink(f"/proc/self/fd/{what}")
        return os.fsdecode(what)  # type: ignore[arg-type]

    def around(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def asking(what: Any = ".", *arguments: Any, **more: Any) -> Any:
            try:
                concerned = named(what).startswith(prefix)
            except OSError:
                concerned = False  # closed
            if concerned:
                ask(name)
            return call(what, *arguments, **more)

        return asking

    return {name: around(name, getattr(os, name)) for name in CALLS}


def main() -> int:
    directory, flag, *arguments = sys.argv[1:]
    stat = os.stat

    def hangs() -> bool:
        try:
            stat(flag)
        except FileNotFoundError:
            return False
        return True

    def wait(_name: str) -> None:
        if hangs():
            Path(f"{flag}.felt").touch()
        while hangs():
            time.sleep(0.01)

    for name, call in watched(Path(directory), wait).items():
        setattr(os, name, call)

    from sidecar import cli  # noqa: PLC0415

    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
