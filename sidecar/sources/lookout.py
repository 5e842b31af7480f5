"""The thread that looks at files for a source: until one is due, or the kernel says that something stirs, it sleeps.

The problem: any system call that names a file waits for as long as its disk, or the machine that has it, does not
answer: `stat`, `open` and `inotify_add_watch` as well as `read`.
The promise: all of them happen here, one after the other. A chunk is read when it is asked for; while nobody asks, the
files that appear are held all the same. What there is to tell, and the state that goes with it, leaves as a report,
and only where it is news: an idle log wakes nobody else. Refused: to know what is looked at (`tail`), and to be waited
for at the exit.
"""

from __future__ import annotations

import os
import select
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from sidecar.sources import wake

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.model import Chunk, Position
    from sidecar.sources.tail import Saved, Tail
    from sidecar.telemetry import Telemetry

_HUNG_SECONDS = 5.0

Note = tuple[str, tuple[Any, ...], dict[str, Any]]


@dataclass(slots=True)
class Report:
    """What looking has come to."""

    attached: bool = False
    unread: int = 0
    saved: Saved | None = None  # None until it has begun
    described: dict[str, object] = field(default_factory=dict)
    chunk: Chunk | None = None
    at_end: bool = False
    notes: list[Note] = field(default_factory=list)  # for the telemetry, which is the loop's
    failure: BaseException | None = None


class _Notes:
    """Stands for the telemetry: keeps what it is told for the next report."""

    def __init__(self) -> None:
        self._kept: list[Note] = []

    def __getattr__(self, event: str) -> Callable[..., None]:
        return lambda *what, **more: self._kept.append((event, what, more))

    def take(self) -> list[Note]:
        kept, self._kept = self._kept, []
        return kept


class Lookout:
    """One thread and what it looks at. Public names are for others; all else is the thread's own."""

    def __init__(
        self,
        make: Callable[[Telemetry, wake.Wake], Tail],
        report: Callable[[Report | None], None],
        *,
        inotify: bool,
        kernel: Callable[[], wake.Kernel],
    ) -> None:
        """Take `make`, which makes what looks, and `report`, which is called by the thread; with None when it ends."""
        self.delivered: Mapping[str, Position] | None = None  # as it was last saved
        self._report = report
        self._notes = _Notes()
        told = cast("Telemetry", self._notes)
        self._wake = wake.Wake(told, enabled=inotify, kernel=kernel)
        self._tail = make(told, self._wake)
        self._thread = threading.Thread(target=self._run, name="lookout", daemon=True)
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._asked = False  # for a chunk
        self._asked_who = False  # for a description
        self._stopping = False
        self._closing = False
        self._stopped = False
        self._released = False
        self._known = Report()
        self._deaf_until = 0.0  # to the kernel
        self._awake_since: float | None = None
        self.looks = 0  # how many were finished

    # for others

    @property
    def hangs(self) -> bool:
        """Whether a look does not come back."""
        since = self._awake_since
        return since is not None and time.monotonic() - since > _HUNG_SECONDS

    def start(self) -> None:
        self._thread.start()

    def ask(self) -> None:
        """Have one chunk reported, as soon as there is one, or the end."""
        self._asked = True
        self._ring()

    def stop(self) -> None:
        """Let the end come behind what is there now."""
        self._stopping = True
        self._ring()

    def describe(self) -> dict[str, object]:
        """Say what is followed. Once it runs, only what was known when somebody last asked."""
        if not self._thread.ident:
            return self._tail.describe()
        self._asked_who = True
        self._ring()
        return self._known.described

    def close(self) -> None:
        """Let the thread end: what it holds it gives back itself, whenever that can be. To be called again then."""
        self._closing = True
        if not self._thread.ident:
            self._release()
        self._ring()
        if self._released and self._bell >= 0:
            os.close(self._bell)
            self._bell = -1

    def _ring(self) -> None:
        if self._bell >= 0:
            os.eventfd_write(self._bell, 1)

    # the thread

    def _run(self) -> None:
        try:
            self._tail.begin(self._awaken())
            self._tell(described=self._tail.describe())
            while not self._closing:
                self._turn(self._awaken())
        except BaseException as error:  # noqa: BLE001  the reader's to raise
            self._report(replace(self._known, notes=self._notes.take(), failure=error))
        finally:
            self._release()
            self._report(None)

    def _release(self) -> None:
        self._tail.close()
        self._wake.close()
        self._released = True

    def _awaken(self) -> float:
        self._awake_since = now = time.monotonic()
        return now

    def _turn(self, now: float) -> None:
        """Do what is due, or sleep until something is."""
        asked = self._asked  # first of all: what is asked for after a stop comes after it
        if self._asked_who:
            self._asked_who = False
            self._tell(described=self._tail.describe())
        if self._stopping and not self._stopped:
            self._stopped = True
            self._tail.stop(now)
            self._tell()
        if self._stopped:
            if asked:
                chunk = self._tail.look(now)
                self._tell(chunk, at_end=chunk is None)
            else:
                self._sleep(None)
            return
        due = asked and now >= self._tail.look_at
        heard = (due or now >= self._deaf_until) and self._wake.heard()
        if heard:
            self._deaf_until = now + self._tail.timing.rest
            self._tail.stir(now)
            due = asked and now >= self._tail.look_at
        keep_at = self._tail.discovered_at + self._tail.timing.discovery
        if due:
            chunk = self._tail.look(now)
            self._wake.account(surprised=self._tail.surprised)
            self._tell(chunk, at_end=chunk is None and self._tail.at_end)
        elif not asked and (heard or now >= keep_at):
            self._tail.keep(now)
            self._tell()
        else:
            self._sleep(self._tail.look_at if asked else keep_at)

    def _tell(
        self, chunk: Chunk | None = None, *, at_end: bool = False, described: dict[str, object] | None = None
    ) -> None:
        """Report what has changed."""
        self.looks += 1
        if self.delivered is not None:
            delivered, self.delivered = self.delivered, None
            self._tail.settle(delivered)
        if chunk is not None or at_end:
            self._asked = False
        before, self._known = (
            self._known,
            Report(
                attached=self._tail.attached,
                unread=self._tail.unread(),
                saved=self._tail.saved(),
                described=described or self._known.described,
            ),
        )
        notes = self._notes.take()
        if chunk is not None or at_end or notes or self._known != before:
            self._report(replace(self._known, chunk=chunk, at_end=at_end, notes=notes))

    def _sleep(self, until: float | None) -> None:
        poller = select.poll()
        poller.register(self._bell, select.POLLIN)
        if self._wake.descriptor >= 0 and not self._stopped:
            if time.monotonic() >= self._deaf_until:
                poller.register(self._wake.descriptor, select.POLLIN)
            elif until is None or self._deaf_until < until:
                until = self._deaf_until
        seconds = None if until is None else max(0.0, until - time.monotonic())
        self._awake_since = None
        woken = poller.poll(None if seconds is None else seconds * 1000)
        if any(descriptor == self._bell for descriptor, _ in woken):
            os.eventfd_read(self._bell)
