"""What a piece of Python costs, as a number that no machine changes: the bytecode instructions it runs.

Work done in C is one instruction, however long it takes: this judges what our own code does, `make bench` how long it is.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


class Effort:
    """Counts the instructions that this thread runs within it, everything called included."""

    def __init__(self) -> None:
        self.instructions = 0
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, _: object) -> Callable[..., Any]:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.instructions += event == "opcode"
        return self._trace


def instructions(function: Callable[[], object]) -> int:
    """Return how many instructions a call runs."""
    with Effort() as effort:
        function()
    return effort.instructions
