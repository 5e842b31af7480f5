"""The program as it runs, in a process of its own: what it costs is read from the kernel, never from itself."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import orjson
from prometheus_client.parser import text_string_to_metric_families

from tests.bench import receiver, scraper, yardsticks
from tests.bench.report import BrokenError
from tests.support.ports import Port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_ROOT = Path(__file__).parents[2]
_PATIENCE = 60.0  # seconds; a machine that others use too may be slow
_POLL = 0.02


def _environment() -> dict[str, str]:
    """Return an environment without anything that configures a sidecar, a proxy or the interpreter's caches."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ}


def _ask(port: int, method: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10.0)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class Receiver:
    """The receiver's process, seen from here."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.url = f"http://127.0.0.1:{port}"

    def sums(self, *, ages: bool = False) -> dict[str, Any]:
        sums: dict[str, Any] = orjson.loads(_ask(self._port, "GET", receiver.SUMS + ("?ages" if ages else ""))[1])
        return sums

    def reset(self) -> None:
        _ask(self._port, "POST", receiver.RESET)


@contextmanager
def _child(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module of the bench until the end of its standard input."""
    command = [sys.executable, "-m", *words]
    with subprocess.Popen(
        command, cwd=_ROOT, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        try:
            yield child
        finally:
            assert child.stdin is not None
            child.stdin.close()


def _answer(child: subprocess.Popen[bytes]) -> bytes:
    assert child.stdout is not None
    answer = child.stdout.readline()
    if not answer:
        raise BrokenError(f"{child.args!r} ended")
    return answer


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver."""
    with _child(receiver.__name__) as child:
        yield Receiver(int(_answer(child)))


@contextmanager
def prototyping() -> Iterator[Callable[[Path], float]]:
    """Run the prototype with a receiver of its own; yields what has it do a file and returns its CPU seconds."""
    with receiving() as loki, _child(yardsticks.__name__, loki.url) as child:

        def run(path: Path) -> float:
            assert child.stdin is not None
            child.stdin.write(f"{path}\n".encode())
            child.stdin.flush()
            return float(_answer(child))

        yield run


class Sidecar:
    """One `sidecar run` that follows a log and pushes to a receiver. Leaves nothing behind."""

    def __init__(self, log: Path, loki: Receiver, *settings: str) -> None:
        self._held = Port()
        self._port = self._held.number
        self._errors = log.with_name(f"{log.name}.stderr")
        sets = [
            "source.kind=file",
            f"source.path={log}",
            "service_name=orders",
            "http.host=127.0.0.1",
            f"http.port={self._port}",
            f"sinks.loki.url={loki.url}",
            *settings,
        ]
        command = [sys.executable, "-m", "sidecar", "run", *[word for each in sets for word in ("--set", each)]]
        with self._errors.open("wb") as errors:
            self._started = time.perf_counter()
            self._process = subprocess.Popen(command, cwd=_ROOT, env=_environment(), stdout=errors, stderr=errors)
        self.ready_seconds = 0.0

    def __enter__(self) -> Self:
        self._wait_until_ready()
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
        self._held.release()

    def _wait_until_ready(self) -> None:
        deadline = self._started + _PATIENCE
        while True:
            try:
                if _ask(self._port, "GET", "/readyz")[0] == http.client.OK:
                    break
            except OSError:
                pass
            self._check_alive()
            if time.perf_counter() > deadline:
                self.__exit__()
                raise BrokenError(f"the sidecar is not ready after {_PATIENCE:.0f} s")
            time.sleep(0.002)
        self.ready_seconds = time.perf_counter() - self._started

    def _check_alive(self) -> None:
        if self._process.poll() is not None:
            raise BrokenError(f"the sidecar ended with {self._process.returncode}: {self._said()}")

    def _said(self) -> str:
        return self._errors.read_text(errors="replace")[-2000:]

    @contextmanager
    def scraped(self, accept: str) -> Iterator[int]:
        """Have it scraped without a pause; yields the number of lines of a page."""
        with _child(scraper.__name__, str(self._port), accept) as child:
            yield int(_answer(child))

    def health_seconds(self, count: int) -> list[float]:
        """Return how long so many answers of /health take, one after the other, in ascending order."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10.0)
        took = []
        for _ in range(count):
            began = time.perf_counter()
            connection.request("GET", "/health")
            connection.getresponse().read()
            took.append(time.perf_counter() - began)
            time.sleep(_POLL / 4)  # it comes when it comes, not when the last answer did
        connection.close()
        return sorted(took)

    def cpu_now(self) -> float:
        """Return the CPU seconds of all its threads so far."""
        nanoseconds = 0
        for task in Path(f"/proc/{self._process.pid}/task").iterdir():
            nanoseconds += int((task / "schedstat").read_text().split()[0])
        return nanoseconds / 1e9

    def memory(self) -> tuple[float, float]:
        """Return resident memory now and its highest value, in MiB."""
        rows = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        kib = {row.split(":")[0]: int(row.split()[1]) for row in rows if row.startswith(("VmRSS", "VmHWM"))}
        return kib["VmRSS"] / 1024, kib["VmHWM"] / 1024

    def _samples(self) -> dict[str, float]:
        """Return its own metrics, summed over their labels."""
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(_ask(self._port, "GET", "/metrics")[1].decode()):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        return sums

    def wait_for(self, loki: Receiver, records: int) -> float:
        """Wait until so many records have arrived; return the CPU seconds until then."""
        deadline = time.perf_counter() + _PATIENCE
        while (received := loki.sums()["entries"]) < records:
            self._check_alive()
            if time.perf_counter() > deadline:
                raise BrokenError(f"{received} of {records} records arrived within {_PATIENCE:.0f} s")
            time.sleep(_POLL)
        return self.cpu_now()

    def wait_until_read(self, lines: int) -> None:
        """Wait until so many lines have become records, wherever those are."""
        deadline = time.perf_counter() + _PATIENCE
        while (made := self._samples().get("sidecar_records_total", 0)) < lines:
            self._check_alive()
            if time.perf_counter() > deadline:
                raise BrokenError(f"{made:.0f} of {lines} records were made within {_PATIENCE:.0f} s")
            time.sleep(_POLL)

    def reconcile(self, loki: Receiver, lines: int) -> None:
        """Compare what was written, what it says of itself, and what arrived. Raises BrokenError."""
        own = self._samples()
        records = int(own["sidecar_records_total"])
        beside = int(own["sidecar_lines_joined_total"] + own["sidecar_lines_skipped_total"])
        read = {
            "lines written": lines,
            "lines read": int(own["sidecar_lines_read_total"]),
            "records, joined and skipped": records + beside,
        }
        sent = {
            "records": records,
            "records sent": int(own["sidecar_sink_records_total"]),
            "records received": loki.sums()["entries"],
        }
        for accounts in (read, sent):
            if len({*accounts.values()}) != 1:
                raise BrokenError("counts disagree: " + ", ".join(f"{n} {what}" for what, n in accounts.items()))

    def stop(self) -> float:
        """End it as Kubernetes does; return the seconds it takes."""
        began = time.perf_counter()
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(_PATIENCE)
        if code:
            raise BrokenError(f"the sidecar ended with {code} after SIGTERM: {self._said()}")
        return time.perf_counter() - began


def libraries_alone() -> float:
    """Return the resident MiB of an interpreter that has imported what `run` needs from others."""
    names = "asyncio, aiohttp.web, isal.igzip, orjson, prometheus_client, yaml"
    return _resident(f"import {names}; print(open('/proc/self/status').read())")


def _resident(program: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=_ROOT, env=_environment(), capture_output=True, check=True, text=True
    )
    return next(int(row.split()[1]) / 1024 for row in done.stdout.splitlines() if row.startswith("VmRSS"))


def bare_start() -> float:
    """Return the seconds that an interpreter takes to start and to import what `run` needs from others."""
    start = time.perf_counter()
    libraries_alone()
    return time.perf_counter() - start


class Poller:
    """A process that only looks at a file ten times a second: the least that following a file by polling costs."""

    _PROGRAM = "import asyncio, os, sys\nasync def main():\n while True:\n  os.stat(sys.argv[1])\n  await asyncio.sleep(.1)\nasyncio.run(main())"

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", self._PROGRAM, str(path)], env=_environment())

    def cpu_now(self) -> float:
        return int(Path(f"/proc/{self._process.pid}/schedstat").read_text().split()[0]) / 1e9

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
