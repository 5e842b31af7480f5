"""How options are written: durations, sizes, and secrets that do not show."""

import pytest

from sidecar import options
from sidecar.options import Secret


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("5s", 5),
        ("10m", 600),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1.5s", 1.5),
        ("0s", 0),
        ("0.001ms", 1e-6),
    ],
)
def test_a_duration_is_a_number_with_its_unit(text, seconds):
    assert options.duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "s",
        "-5s",
        "5 s",
        "1e3s",
        "5m1h",
        "5s5s",
        "٥s",
        "5s\n",
        "9999999s",
        "1.2345s",
        "999999h1s",
        "inf",
        "nans",
    ],
)
def test_anything_else_is_no_duration(text):
    with pytest.raises(ValueError, match="expected a duration such as"):
        options.duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.5, "500ms"), (90, "90s"), (600, "10m"), (7200, "2h"), (3601.5, "1h1s500ms"), (1e-6, "0.001ms")],
)
def test_seconds_are_shown_as_the_shortest_duration(seconds, text):
    assert options.show_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("512", 512), ("512B", 512), ("256KiB", 262144), ("1 MiB", 1 << 20), ("2GiB", 2 << 30)],
)
def test_a_size_is_bytes_or_has_a_binary_unit(text, count):
    assert options.size(text) == count


@pytest.mark.parametrize("text", ["", "KiB", "1KB", "1k", "1.5MiB", "-1", "1  MiB", "999999999999999GiB", "1MiB\n"])
def test_anything_else_is_no_size(text):
    with pytest.raises(ValueError, match="expected a size such as"):
        options.size(text)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (1000, "1000"), (1024, "1KiB"), (3 << 20, "3MiB"), (1 << 40, "1024GiB")]
)
def test_bytes_are_shown_with_the_largest_unit_that_fits(count, text):
    assert options.show_size(count) == text


def test_a_secret_shows_itself_only_when_asked():
    secret = Secret("hunter2")

    assert "hunter2" not in f"{secret} {secret!r} {[secret]}"
    assert secret.get() == "hunter2"


def test_no_secret_is_false_and_shows_as_nothing():
    assert not Secret()
    assert str(Secret()) == ""
    assert Secret().get() == ""


def test_secrets_are_equal_by_text_or_by_file():
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret(path="/a") == Secret(path="/a") != Secret("/a")
    assert hash(Secret("a")) == hash(Secret("a"))
