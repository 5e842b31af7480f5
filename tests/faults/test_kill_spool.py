"""
Property: what was acknowledged reaches Loki, once, in order, whatever happens to the process.
Fault:    SIGKILL at arbitrary moments, while Loki takes, refuses, resets and hangs.
Expect:   loss not; repetition only of what was in flight, which Loki drops; the next process goes on where it was.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

from tests.support import fake_loki, records
from tests.support.fake_loki import FakeLoki, status

LIVES = 2  # each costs a second to start
ROOT = Path(__file__).parents[2]


async def start(url, directory):
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.spooling",
        url,
        str(directory),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


async def feed(process, first, count):
    """Write numbers until all are written or the process has gone."""
    for number in range(first, first + count):
        process.stdin.write(b"%d\n" % number)
        if number % 10 == 9:
            try:
                await process.stdin.drain()
            except (BrokenPipeError, ConnectionResetError):
                return
            await asyncio.sleep(0.002)


async def test_what_was_acknowledged_survives_being_killed(tmp_path):
    chance = random.Random(20261125)
    troubles = [None, status(503), fake_loki.lost_answer(), fake_loki.Fault("reset"), fake_loki.Fault("reset_mid_body")]
    acknowledged = {}  # life → highest number
    offered = 0
    async with FakeLoki() as loki:
        loki.fault = lambda request: chance.choice(troubles)
        for life in range(LIVES):
            process = await start(loki.url, tmp_path)
            feeding = asyncio.create_task(feed(process, offered, 400))
            heard = [int(await process.stdout.readline()) for _ in range(chance.randrange(3, 20))]
            process.send_signal(signal.SIGKILL)
            heard += map(int, (await process.stdout.read()).split())
            acknowledged[life] = max(heard)
            await process.wait()
            feeding.cancel()
            offered += 1000  # numbers of another life, so that none is confused with what was never read
        loki.fault = None
        last = await start(loki.url, tmp_path)
        rest, _ = await last.communicate(b"%d\n" % offered)
        assert last.returncode == 0
        assert str(offered).encode() in rest

        stored = [int(message) for message in records.messages(loki.lines())]

    for life in range(LIVES):
        mine = [number for number in stored if life * 1000 <= number < life * 1000 + 1000]
        assert mine == list(range(life * 1000, life * 1000 + len(mine))), "a hole or a wrong order"
        assert mine[-1] >= acknowledged[life]
    assert len(stored) == len(set(stored))
    assert stored[-1] == offered
