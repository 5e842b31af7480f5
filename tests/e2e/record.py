"""Record what each logger of ginapp prints: `python -m tests.e2e.record [LOGGER…]`, from the root of the repository.

One request of each kind, one after the other, with standard output and error in one pipe: the order a container
runtime would see at best. The bytes are what the service printed; nothing is rewritten. The recordings are the truth
for formats as today's library versions print them (those of ginapp/go.mod), and are made again when these change.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.e2e import conftest
from tests.support import drive

RECORDINGS = Path(__file__).parent.parent / "golden" / "gin-current"

# recording → how ginapp is started; those without a name of their own are called like their logger
VARIANTS = {
    "gin-color": ("-logger", "gin", "-color"),
    "gin-recovery-first": ("-logger", "gin", "-recovery-first"),
    "gin-panic-at-exit": ("-logger", "gin-release", "-panic-at-exit"),
    "ginzap-debug-mode": ("-logger", "ginzap"),
}
LOGGERS = (
    "gin",
    "gin-release",
    "gin-formatter",
    "ginzap",
    "ginzap-sampled",
    "ginzap-dev",
    "zap-millis",
    "logger-console",
    "logger-json",
    "gin-slog-json",
    "gin-slog-text",
    "slog-gin-json",
    "slog-gin-text",
    "logrus-json",
    "logrus-text",
    "zerolog",
    "canonical",
    "double",
    "otel",
)

_HEADERS = (
    ("User-Agent", 'curl/8.5.0 (x86; "q")'),
    ("X-Forwarded-For", "10.42.0.17"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
)


async def record(binary: Path, arguments: tuple[str, ...], extra: dict[str, str], path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "TZ": "UTC", "HOSTNAME": "orders-7c9f", **extra}
    with tempfile.TemporaryDirectory() as directory, path.open("wb") as output:
        told = Path(directory) / "address"
        os.mkfifo(told)
        process = await asyncio.create_subprocess_exec(
            binary, *arguments, "-addr-file", told, stdout=output, stderr=output, env=environment
        )
        address = await drive.listening(told)
        for request in drive.KINDS:
            await drive.drive(address, [replace(request, headers=(*request.headers, *_HEADERS))])
            if request.disconnects:
                # Its line is written when nobody waits for an answer; the next request must come after it.
                await asyncio.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def main(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        binary = Path(directory) / "ginapp"
        conftest.build(binary)
        RECORDINGS.mkdir(exist_ok=True)
        for name in names or [*LOGGERS, *VARIANTS]:
            extra = {"GIN_MODE": "debug"} if name == "ginzap-debug-mode" else {}
            await record(binary, VARIANTS.get(name, ("-logger", name)), extra, RECORDINGS / f"{name}.txt")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
