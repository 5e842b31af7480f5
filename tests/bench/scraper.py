"""Scrapes without a pause, in a process of its own: `python -m tests.bench.scraper PORT ACCEPT`, until its input ends.

Writes the number of lines of its first page.
"""

from __future__ import annotations

import http.client
import select
import sys


def main(port: int, accept: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics")
    print(connection.getresponse().read().count(b"\n"), flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        connection.request("GET", "/metrics", headers={"Accept": accept, "Accept-Encoding": "gzip"})
        connection.getresponse().read()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
