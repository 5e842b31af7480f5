"""One request, several lines, one count."""

from __future__ import annotations

from sidecar.normalize.duplicates import ErrorLines, Twins

KEY = ("GET", "/orders/42", 500)
MS = 1_000_000


def test_each_error_of_a_request_has_a_line_and_only_the_first_counts():
    lines = ErrorLines()

    seen = [lines.repeats(KEY, message, 0, exact=True) for message in ("db", "second", "second")]

    assert seen == [False, True, True]


def test_the_same_latency_a_second_later_is_another_request():
    lines = ErrorLines()

    assert not lines.repeats(KEY, "db", 0, exact=True)
    assert not lines.repeats(KEY, "db", 1000 * MS, exact=True)


def test_with_whole_milliseconds_the_same_error_again_is_another_request():
    lines = ErrorLines()

    seen = [lines.repeats(KEY, message, 0, exact=False) for message in ("db", "second", "db", "second")]

    assert seen == [False, True, False, True]


def test_a_service_with_one_format_has_no_twins():
    twins = Twins()

    assert [twins.counted("gin", KEY, 1.0, 0) for _ in range(5)] == [False] * 5
    assert not twins.several


def test_the_second_format_of_each_request_is_not_counted():
    twins = Twins()

    seen = [twins.counted(form, KEY, ms, 0) for form, ms in [("ginzap", 2.27), ("gin", 2.3)] * 30]

    assert seen == [False, True] * 30


def test_lines_of_concurrent_requests_pair_up_in_any_order():
    twins = Twins()

    seen = [twins.counted(form, KEY, 1.0, 0) for form in ("ginzap", "ginzap", "gin", "ginzap", "gin", "gin")]

    assert seen.count(False) == 3


def test_a_panic_that_only_one_logger_sees_is_counted():
    twins = Twins()
    for _ in range(40):
        twins.counted("ginzap", KEY, 1.0, 0)
        twins.counted("gin", KEY, 1.0, 0)

    assert not twins.counted("gin", ("GET", "/panic", 500), 3.0, 0)


def test_on_a_busy_machine_the_outer_logger_may_read_much_more():
    twins = Twins()
    for _ in range(20):
        twins.counted("ginzap", KEY, 0.06, 0)
        twins.counted("gin", KEY, 0.07, 0)
    twins.counted("ginzap", KEY, 0.06, 0)

    assert twins.counted("gin", KEY, 80.0, 0)


def test_of_several_waiting_lines_the_nearest_is_the_twin():
    twins = Twins()
    for ms in (1.0, 100.0):
        twins.counted("ginzap", KEY, ms, 0)

    assert twins.counted("gin", KEY, 103.0, 0)
    assert twins.counted("gin", KEY, 1.1, 0)


def test_seconds_later_it_is_another_request():
    twins = Twins()
    twins.counted("ginzap", KEY, 1.0, 0)

    assert not twins.counted("gin", KEY, 1.0, 3000 * MS)


def test_two_servers_of_one_process_do_not_swallow_each_others_requests():
    twins = Twins()
    for number in range(200):
        twins.counted("ginzap", KEY, 1.0, number * MS)
        twins.counted("gin", KEY, 500.0, number * MS)
    twins.counted("ginzap", KEY, 1.0, 300 * MS)

    assert not twins.counted("gin", KEY, 500.0, 300 * MS)


def test_memory_is_bounded():
    twins, lines = Twins(), ErrorLines()

    for number in range(20_000):
        twins.counted("gin", ("GET", f"/{number}", 200), 1.0, 0)
        lines.repeats(number, "x", 0, exact=True)

    assert len(twins._recent) <= 2048
    assert len(lines._requests) <= 2048
