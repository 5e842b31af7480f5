"""A sidecar that can be killed 200 times a minute: everything is imported once, each life is a fork.

Run as a program: `python -m tests.support.lives SETTING…`. Each line on stdin is a directory; it starts a life, whose
process id is answered on stdout. The life writes its port to `<directory>/port`, records to `<directory>/records`, and
its log to `<directory>/log`. When stdin ends, so does the program.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from sidecar import app, config


def live(directory: Path, settings: list[str]) -> int:
    records = os.open(directory / "records", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    size = os.fstat(records).st_size
    if size and os.pread(records, 1, size - 1) != b"\n":
        os.write(records, b"\n")  # the last life was cut off in the middle of a line
    log = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(records, 1)
    os.dup2(log, 2)
    made = config.load(sets=settings, environ={"OTEL_SERVICE_NAME": "shop"}, cwd=directory).config

    def listening(_host: str, port: int) -> None:
        (directory / "port.new").write_text(str(port))
        (directory / "port.new").rename(directory / "port")

    return asyncio.run(app.App(made, on_listening=listening).run())


def main() -> None:
    settings = sys.argv[1:]
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            code = 1
            try:
                code = live(Path(line.strip()), settings)
            finally:
                sys.stderr.flush()
                os._exit(code)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(status, flush=True)


if __name__ == "__main__":
    main()
