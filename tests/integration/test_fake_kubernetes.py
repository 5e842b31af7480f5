"""The fake API is only worth its tests if it behaves as the real one does."""

from __future__ import annotations

import ssl

import aiohttp
import pytest

from tests.support.fake_kubernetes import CERTIFICATES, SECOND, FakeKubernetes, Fault

POD = "/api/v1/namespaces/shop/pods/web-0"
NS = 1_700_000_000 * SECOND
STAMP = b"2023-11-14T22:13:2%d.000000000Z "


@pytest.fixture
async def fake(tmp_path):
    async with FakeKubernetes(tmp_path) as made:
        yield made


async def get(fake, path="/log", token="first", **query):
    context = ssl.create_default_context(cafile=str(CERTIFICATES / "authority.pem"))
    address = f"https://127.0.0.1:{fake.environ['KUBERNETES_SERVICE_PORT']}{POD}{path}"
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
        session.get(address, params=query, headers=headers) as response,
    ):
        return response.status, await response.read()


def log(fake, **query):
    return get(fake, container="app", timestamps="true", **query)


async def test_a_time_stands_before_each_logical_line_and_not_before_the_rest_of_a_partial(fake):
    fake.write(b"one\ntwo is ", ns=NS)
    fake.write(b"long\n\n", ns=NS + SECOND)

    first, second = STAMP % 0, STAMP % 1
    assert await log(fake) == (200, first + b"one\n" + first + b"two is long\n" + second + b"\n")


async def test_since_is_a_whole_second_and_includes_it(fake):
    for number in range(3):
        fake.write(b"%d\n" % number, ns=NS + number * SECOND)

    assert await log(fake, sinceTime="2023-11-14T22:13:21Z") == (200, STAMP % 1 + b"1\n" + STAMP % 2 + b"2\n")
    assert await log(fake, tailLines="1") == (200, STAMP % 2 + b"2\n")


async def test_a_rotated_file_is_never_served(fake):
    fake.write(b"old\n", ns=NS)
    fake.rotate()
    fake.write(b"new\n", ns=NS)

    assert await log(fake) == (200, STAMP % 0 + b"new\n")


async def test_previous_is_one_instance_back_and_no_further(fake):
    status, body = await log(fake, previous="true")
    assert status == 400
    assert b"not found" in body
    for number in range(3):
        fake.write(b"%d\n" % number, ns=NS)
        fake.restart()

    assert await log(fake, previous="true") == (200, STAMP % 0 + b"2\n")
    assert await log(fake) == (200, b"")


async def test_a_dead_instance_is_served_again_during_back_off(fake):
    fake.write(b"one\n", ns=NS)
    fake.back_off()

    assert await log(fake) == (200, STAMP % 0 + b"one\n")
    assert await log(fake, follow="true") == (200, STAMP % 0 + b"one\n")
    status, body = await get(fake, "")
    assert status == 200
    assert b"CrashLoopBackOff" in body


async def test_it_refuses_as_the_api_does(fake):
    assert (await get(fake, token="stale", container="app"))[0] == 401
    assert (await get(fake, container="other"))[0] == 400
    fake.faults = [Fault(429)]
    assert (await log(fake))[0] == 429
    fake.logs_forbidden = fake.pods_forbidden = True
    assert (await log(fake))[0] == 403
    assert (await get(fake, ""))[0] == 403
    fake.logs_forbidden, fake.creating = False, True
    status, body = await log(fake)
    assert status == 400
    assert b"waiting to start: ContainerCreating" in body
