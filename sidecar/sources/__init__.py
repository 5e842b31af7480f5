"""Where bytes come from: one module per input, one line each in the table below.

A module is loaded when its kind is asked for: a pod follows one input, and all of them together take 1 MiB.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sidecar.errors import ConfigError, Problem
from sidecar.options import Duration, Size, option

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sidecar.model import Chunk, Position
    from sidecar.sources.tail import Tail
    from sidecar.telemetry import Telemetry


OWN_CONTAINER = "gin-sidecar"  # what the injector and the chart call ours: it would read what it writes


@dataclass(frozen=True, kw_only=True)
class Config:
    """The section `source`."""

    kind: str = option(
        "stdin",
        "Where lines come from.",
        choices=("stdin", "file", "cri", "fifo", "kubernetes", "command"),
    )
    path: str = option("", "`file`: a path or glob; `cri`: the pod's log directory; `fifo`: its path.")
    container: str = option("", "`cri`, `kubernetes`: which container of the pod.")
    start_at: str = option(
        "beginning",
        "Where to start in what exists at the first start; what appears later is read from its start.",
        choices=("beginning", "end"),
    )
    max_line_bytes: Size = option(Size(1 << 20), "Longer lines are cut there; what is cut is counted.", minimum=1024)
    idle_flush: Duration = option(
        Duration(1.0),
        "After this much silence an unfinished multi-line record, or the unterminated last line of a pipe, is emitted.",
        minimum=0.01,
    )
    inotify: bool = option(
        True,
        "`file`, `cri`: let the kernel say when there is something to read. Files are polled all the same, and what is "
        "read is the same without it; lines are found some 100 ms later.",
    )
    wait_for_quiet: Duration = option(
        Duration(0.0),
        "After SIGTERM go on reading until nothing has come for so long, or `drain_seconds` is over but for its last "
        "second; `0s`: end with what is there. For a sidecar that is an ordinary container, which is told to end while "
        "the application still writes (`2s`); a native sidecar is told when the application is gone.",
        minimum=0.0,
    )
    at_end: str = option(
        "exit", "What to do when stdin or COMMAND has ended: exit, or keep serving.", choices=("exit", "serve")
    )


class Source(Protocol):
    """Reads bytes from one input. Created by app, read by one task only.

    `start` is awaited once, before everything else but `describe` and `close`.
    """

    resumable: bool  # False for pipes: no position to come back to, and must never block the writer

    @property
    def attached(self) -> bool:
        """Whether the input is followed, or waited for where it does not exist yet; for readiness."""

    async def start(self) -> None:
        """Open the input, from the saved position where there is one. Raises SourceError where that cannot be."""

    async def read(self, wait: float) -> Chunk | None:
        """Return the next chunk (at most 256 KiB), an empty one after `wait` seconds of silence, None at the end.

        Raises SourceError when the input cannot be read and never will be.
        """

    def stop(self) -> None:
        """Make `read` return what is already there, then None."""

    def unread(self) -> int:
        """Return how many bytes wait to be read, as far as the source can tell; 0 where it cannot."""

    def snapshot(self, delivered: Mapping[str, Position]) -> dict[str, object]:
        """Return what a checkpoint keeps to start again behind `delivered`, the highest position of each log.

        JSON-able. Empty where the source is not resumable.
        """

    def describe(self) -> dict[str, object]:
        """Say at start-up what this source follows and what it can promise (kind, path, lossless or not and why)."""

    async def close(self) -> None:
        """Release everything. Idempotent."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a source is made from."""

    config: Config
    telemetry: Telemetry
    saved: Mapping[str, Any] | None  # what `snapshot` returned in an earlier life
    argv: Sequence[str]  # COMMAND and its arguments
    environ: Mapping[str, str]  # where the pod's identity and the API server's address are


def _file(asked: Request) -> Source:
    path = asked.config.path
    if not path:
        raise _problem("source.path", "expected the path of a file: source.kind is file")
    if glob.has_magic(path) and not Path(path).exists():
        from sidecar.sources import globbed  # noqa: PLC0415

        return _polling(asked, partial(globbed.Globbed, path))
    from sidecar.sources import file  # noqa: PLC0415

    return _polling(asked, partial(file.File, path))


def _cri(asked: Request) -> Source:
    path, container = asked.config.path, asked.config.container
    problems = []
    if not path:
        problems.append(Problem("source.path", "expected the pod's log directory: source.kind is cri"))
    if not container or "/" in container or container in {".", ".."}:
        problems.append(Problem("source.container", f'expected the name of a container of the pod, got "{container}"'))
    if container == OWN_CONTAINER:
        problems.append(Problem("source.container", f"expected another container: {container} is the sidecar's own"))
    if problems:
        raise ConfigError(problems)
    from sidecar.sources import cri  # noqa: PLC0415

    return _polling(asked, partial(cri.Cri, path, container))


def _polling(asked: Request, make: Callable[..., Tail]) -> Source:
    from sidecar.sources import polling  # noqa: PLC0415

    return polling.Polling(
        partial(make, start_at=asked.config.start_at, saved=asked.saved),
        asked.telemetry,
        inotify=asked.config.inotify,
    )


def _fifo(asked: Request) -> Source:
    if not asked.config.path:
        raise _problem("source.path", "expected the path of the named pipe: source.kind is fifo")
    from sidecar.sources import fifo  # noqa: PLC0415

    return fifo.Fifo(asked.config.path, asked.telemetry)


def _kubernetes(asked: Request) -> Source:
    container = asked.config.container
    problems = [
        Problem(name, "expected the name that the downward API gives: source.kind is kubernetes")
        for name in ("POD_NAME", "POD_NAMESPACE")
        if not asked.environ.get(name)
    ]
    if not container:
        problems.append(Problem("source.container", "expected the name of a container of the pod"))
    if container == OWN_CONTAINER:
        problems.append(Problem("source.container", f"expected another container: {container} is the sidecar's own"))
    if problems:
        raise ConfigError(problems)
    from sidecar.sources import kubernetes  # noqa: PLC0415

    return kubernetes.create(
        asked.environ,
        container,
        asked.telemetry,
        max_line_bytes=asked.config.max_line_bytes,
        start_at=asked.config.start_at,
        saved=asked.saved,
    )


def _command(asked: Request) -> Source:
    if not asked.argv:
        raise _problem("source.kind", "command needs a COMMAND behind --")
    from sidecar.sources import command  # noqa: PLC0415

    return command.Command(asked.argv)


def _stdin(asked: Request) -> Source:
    from sidecar.sources import stdin  # noqa: PLC0415

    return stdin.create(asked.telemetry, saved=asked.saved)


SOURCES: dict[str, Callable[[Request], Source]] = {
    "stdin": _stdin,
    "file": _file,
    "cri": _cri,
    "fifo": _fifo,
    "kubernetes": _kubernetes,
    "command": _command,
}


def create(
    config: Config,
    telemetry: Telemetry,
    *,
    saved: Mapping[str, Any] | None = None,
    argv: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Source:
    """Return the source of `config.kind`, not yet started. `environ`: the process's own unless given.

    Raises ConfigError where the configuration does not suffice, SourceError where the input can never be read.
    """
    make = SOURCES.get(config.kind)
    if make is None:
        raise _problem(
            "source.kind", f'"{config.kind}" is not in this version: expected one of {", ".join(sorted(SOURCES))}'
        )
    return make(Request(config, telemetry, saved, argv, os.environ if environ is None else environ))


def _problem(origin: str, text: str) -> ConfigError:
    return ConfigError([Problem(origin, text)])
