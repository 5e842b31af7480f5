"""What Gin services and the Go runtime write on several lines: how each kind of block begins, goes on and ends.

The problem: nothing in a log says that a line belongs to the one before it; only the habits of the program that wrote
it do. The promise: each kind stands here once, as a rule, taken from the source of the library and real output of it;
rules look at undecoded bytes and never raise. Refused: keeping lines (that is multiline), saying what they mean.

A rule knows the block's first line (`OPENS`), may ask for a certain `second`, and judges every further one.
A line that begins a known kind of record (`begins`) is never the continuation of an error text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.model import Lines, Mark


class Kind(StrEnum):
    """What a text of several lines is. A closed set; a single line has none."""

    GIN_RECOVERY = "gin_recovery"
    GIN_ERRORS = "gin_errors"  # an access line and the errors of its request
    GIN_DEBUG = "gin_debug"
    GO_PANIC = "go_panic"
    GO_FATAL = "go_fatal"
    GO_SIGQUIT = "go_sigquit"  # or another signal at which the runtime dumps all goroutines
    GO_RACE = "go_race"
    GO_TRACE = "go_trace"  # goroutines without a headline, as debug.PrintStack writes them
    HTTP_PANIC = "http_panic"
    ZAP_STACK = "zap_stack"
    ZEROLOG_ERRORS = "zerolog_errors"
    LOGRUS_ERRORS = "logrus_errors"
    COMBINED_ERROR = "combined_error"
    GORM = "gorm"


class Verdict(Enum):
    """What a line is to the open block."""

    TAKE = auto()  # part of it
    LAST = auto()  # part of it, and its end
    HOLD = auto()  # part of it if the next line says so; else a line of its own
    PASS = auto()  # a line of its own, in front; the block stays open
    END = auto()  # not part of it, and it is over


@dataclass(frozen=True, slots=True)
class Rule:
    """How one kind of block goes on. Without the `second` line it asks for, the first line stands for itself."""

    kind: Kind
    judge: Callable[[Block, bytes], Verdict]
    second: Callable[[bytes], object] | None = None


class Block:
    """An open block. The place of its first line is kept, not its columns: they may be filled in later."""

    __slots__ = ("held", "mark", "origin", "phase", "places", "rule", "size", "split", "texts", "touched")

    def __init__(self, rule: Rule, text: bytes, origin: tuple[Lines, int], mark: Mark | None, now: float) -> None:
        self.rule = rule
        self.texts = [text]
        self.size = len(text)  # of the texts joined
        self.origin = origin
        self.mark = mark
        self.touched = now  # when a line was last taken
        self.phase = 0  # what it means is the rule's affair
        self.split = False  # an earlier part has been handed over
        self.places: list[tuple[str, int]] = []  # log and start of each further line, where that is known
        self.held: tuple[bytes, tuple[Lines, int], Mark | None] | None = None

    @property
    def lone(self) -> bool:
        """Whether there is only the first line yet."""
        return len(self.texts) == 1 and self.held is None and not self.split


# Colour sequences, wherever a terminal writer may put some: as many as anybody writes, or hostile lines would cost.
_C = rb"(?:\x1b\[[0-9;]*m){0,8}"
_STD = rb"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d(?:\.\d+)?"  # the head of package log
_PREFIXED = rb"(?:[\w.\-/\[\]]{1,30}:? )?" + _STD
_ZAP = rb"[^\t]{4,40}\t" + _C + rb"(?i:debug|info|warn|error|dpanic|panic|fatal|level\(-?\d+\))" + _C + rb"\t"
_ZEROLOG = rb"\S+ " + _C + rb"(?:TRC|DBG|INF|WRN|ERR|FTL|PNC|\?\?\?)" + _C + rb" "
_LOGRUS = _C + rb"(?:TRAC|DEBU|INFO|WARN|ERRO|FATA|PANI)" + _C + rb"\[[^\]]*\] "
_COMBINED = rb'\S* - \[[^\]]+\] "'
_GO = rb"panic: |fatal error: |unexpected fault address |SIG[A-Z]+: |runtime: "

_BEGINS = re.compile(
    rb"|".join(
        (
            rb"\[GIN(?:-debug)?\] ",
            _C + rb"\[?\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d",
            _PREFIXED,
            rb"(?:time|ts|level|lvl)=|t=\d{4}-",
            _ZAP,
            _ZEROLOG,
            _LOGRUS,
            _COMBINED,
            _GO,
            rb"={18}$",
            rb"[IWEF]\d{4} \d\d:\d\d:\d\d",  # klog
        )
    )
).match


def begins(text: bytes) -> bool:
    """Say whether a line begins a record of a known kind, so that it cannot continue what another line began."""
    if text.startswith(b"{"):
        return text.rstrip().endswith(b"}")
    return _BEGINS(text) is not None


# Gin

_ERROR = re.compile(rb"Error #\d\d").match
_RESET = b"\x1b[0m"
_RED_STD = re.compile(rb"\x1b\[31m\d{4}/").match
_RECOVERED = re.compile(rb"(?:\x1b\[31m)?" + _STD + rb" \[Recovery\] ").match
_REQUEST = re.compile(rb"\S+ .*\bHTTP/\d").match
_GIN_FRAME = re.compile(rb"\S.*:\d+ \(0x[0-9a-f]+\)$").match
_DEBUG_MORE = (b" - using ", b"Please check https://", b"at initialization. ie. ", b"\trouter", b"\t- ")


def _errors(_block: Block, text: bytes) -> Verdict:
    return Verdict.END if begins(text) else Verdict.TAKE


def _recovery(_block: Block, text: bytes) -> Verdict:
    if text.rstrip() == _RESET:
        return Verdict.LAST
    # Nothing of these is ever inside: the end was lost.
    return Verdict.END if text.startswith((b"[GIN] ", b"[GIN-debug] ")) or _RED_STD(text) else Verdict.TAKE


def _colourless_recovery(block: Block, text: bytes) -> Verdict:
    """Somebody removed the colours, and with them the end: it is where the stack ends."""
    if text.rstrip() == _RESET:
        return Verdict.LAST
    if _GIN_FRAME(text):
        block.phase = 1
        return Verdict.TAKE
    if block.phase:
        return Verdict.TAKE if text.startswith(b"\t") else Verdict.END
    return Verdict.END if begins(text) else Verdict.TAKE


def _debug_more(text: bytes) -> bool:
    return text.startswith(_DEBUG_MORE)


def _debug(_block: Block, text: bytes) -> Verdict:
    return Verdict.TAKE if _debug_more(text) or not text.strip() else Verdict.END


# The Go runtime

_GOROUTINE = re.compile(rb"goroutine \d+ [^\[]*\[.*\]:$").match
_EXIT_STATUS = re.compile(rb"exit status \d+$").match
_STACK_OF = re.compile(rb"\S.*\)$|created by \S").match  # a frame, if a file follows
_FILE = re.compile(rb"\t.+:\d+").match
_ELIDED = re.compile(rb"\.\.\.(?:additional|\d+) .*\.\.\.$|\[originating from ").match
_HTTP_PANIC = re.compile(_PREFIXED + rb" .{0,80}?http: panic serving ").match
_RUNTIME_MORE = (b"runtime: ", b"fatal error: ", b"[signal ", b"\t")
_RACE_EDGE = b"=" * 18


def _other_record(text: bytes) -> Verdict:
    """Judge a line that begins a record inside a block that has no end of its own, where streams are merged."""
    opens_block = text == _RACE_EDGE or _RED_STD(text) or _RECOVERED(text) or _HTTP_PANIC(text) or _is_go(text)
    return Verdict.END if opens_block else Verdict.PASS


def _dying(block: Block, text: bytes) -> Verdict:
    """Judge what follows a panic, fatal error or signal: all of this stream is its last."""
    if _EXIT_STATUS(text):
        return Verdict.LAST  # of `go run`, which speaks when it is over
    if text.startswith(b"goroutine "):
        block.phase = 1
        return Verdict.TAKE
    if not begins(text):
        return Verdict.TAKE
    if _is_go(text):  # one failure leads to another, but behind the goroutines a headline is a new one
        return Verdict.END if block.phase and not text.startswith(b"runtime: ") else Verdict.TAKE
    return _other_record(text)


def _runtime(block: Block, text: bytes) -> Verdict:
    """Judge what follows `runtime: `, which is only serious when a fatal error follows."""
    if text.startswith(b"fatal error: "):
        block.rule = _FATAL
    elif not text.startswith(_RUNTIME_MORE):
        return Verdict.END
    return Verdict.TAKE


def _runtime_more(text: bytes) -> bool:
    return text.startswith(_RUNTIME_MORE)


def _program_counter(text: bytes) -> bool:
    return text.startswith(b"PC=")


def _race(_block: Block, text: bytes) -> Verdict:
    if text == _RACE_EDGE:
        return Verdict.LAST
    return _other_record(text) if begins(text) else Verdict.TAKE


def _race_headline(text: bytes) -> bool:
    return text == b"WARNING: DATA RACE"


def _frame(block: Block, text: bytes) -> Verdict:
    if block.held is not None:
        return Verdict.TAKE if _FILE(text) else Verdict.END
    if _GOROUTINE(text) or text.startswith(b"\t") or _ELIDED(text) or not text.strip():
        return Verdict.TAKE
    return Verdict.HOLD if _STACK_OF(text) else Verdict.END


def _http_panic(block: Block, text: bytes) -> Verdict:
    if block.phase:
        return _frame(block, text)
    if _GOROUTINE(text):
        block.phase = 1
        return Verdict.TAKE
    return Verdict.END if begins(text) else Verdict.TAKE  # the panic's value has several lines


# Loggers

_ANSI = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
_ZAP_LINE = re.compile(_ZAP).match
_ZAP_FRAME = re.compile(rb"\S+\.\S+$").match
_ZEROLOG_ERRORS = re.compile(_ZEROLOG + rb".*with errors: Error #\d\d").match
_ZEROLOG_FIELDS = re.compile(rb" [\w.\-]+=").match
_LOGRUS_ERRORS = re.compile(_LOGRUS + rb"Error #\d\d").match
_LOGRUS_FIELDS = re.compile(rb"\x1b\[\d+m[^\x1b=]+\x1b\[0m=|  [\w.\-]+=").search  # padding puts two spaces in front
_COMBINED_LINE = re.compile(_COMBINED).match
_COMBINED_MORE = re.compile(rb'"\s*$|Error #\d\d|     Meta: ').match
_GORM = re.compile(_STD + rb" " + _C + rb"\S+\.go:\d+(?=[\s\x1b]|$)").match
_GORM_SECOND = re.compile(_C + rb"\[(?:[\d.]+ms\] " + _C + rb"\[rows:|(?:info|warn|error)\] )").match


def _zap(block: Block, text: bytes) -> Verdict:
    if block.held is not None:
        return Verdict.TAKE if _FILE(text) else Verdict.END
    return Verdict.HOLD if _ZAP_FRAME(text) else Verdict.END


def _zerolog(_block: Block, text: bytes) -> Verdict:
    if _ZEROLOG_FIELDS(_ANSI.sub(b"", text[:256])):
        return Verdict.LAST
    return Verdict.END if begins(text) else Verdict.TAKE


def _logrus(_block: Block, text: bytes) -> Verdict:
    if begins(text):
        return Verdict.END
    return Verdict.LAST if _LOGRUS_FIELDS(text) else Verdict.TAKE


def _combined(_block: Block, text: bytes) -> Verdict:
    if text.rstrip() == b'"':
        return Verdict.LAST
    return Verdict.END if begins(text) else Verdict.TAKE


def _gorm(block: Block, text: bytes) -> Verdict:
    if block.lone:
        return Verdict.TAKE
    indented = text.startswith((b"\t", b" ")) and text.strip()  # a statement written over several lines
    return Verdict.TAKE if indented else Verdict.END


ACCESS = Rule(Kind.GIN_ERRORS, _errors, _ERROR)
_RECOVERY = Rule(Kind.GIN_RECOVERY, _recovery)
_BROKEN_PIPE = Rule(Kind.GIN_RECOVERY, _recovery, _REQUEST)  # Recovery without its name: the request tells
_COLOURLESS_RECOVERY = Rule(Kind.GIN_RECOVERY, _colourless_recovery)
_DEBUG = Rule(Kind.GIN_DEBUG, _debug, _debug_more)
_PANIC = Rule(Kind.GO_PANIC, _dying)
_FATAL = Rule(Kind.GO_FATAL, _dying)
_RUNTIME = Rule(Kind.GO_FATAL, _runtime, _runtime_more)
_SIGNAL = Rule(Kind.GO_SIGQUIT, _dying, _program_counter)
_RACE = Rule(Kind.GO_RACE, _race, _race_headline)
_TRACE = Rule(Kind.GO_TRACE, _frame)
_SERVING = Rule(Kind.HTTP_PANIC, _http_panic)
_ZAP_STACK = Rule(Kind.ZAP_STACK, _zap, _ZAP_FRAME)
_ZEROLOG_BLOCK = Rule(Kind.ZEROLOG_ERRORS, _zerolog)
_LOGRUS_BLOCK = Rule(Kind.LOGRUS_ERRORS, _logrus)
_COMBINED_BLOCK = Rule(Kind.COMBINED_ERROR, _combined)
_COMBINED_QUOTE = Rule(Kind.COMBINED_ERROR, _combined, _COMBINED_MORE)  # the quote at its end may be the closing one
_GORM_BLOCK = Rule(Kind.GORM, _gorm, _GORM_SECOND)


# Names under which an open block outlives the process.
RULES = {
    "access": ACCESS,
    "recovery": _RECOVERY,
    "broken_pipe": _BROKEN_PIPE,
    "colourless_recovery": _COLOURLESS_RECOVERY,
    "debug": _DEBUG,
    "panic": _PANIC,
    "fatal": _FATAL,
    "runtime": _RUNTIME,
    "signal": _SIGNAL,
    "race": _RACE,
    "trace": _TRACE,
    "serving": _SERVING,
    "zap_stack": _ZAP_STACK,
    "zerolog": _ZEROLOG_BLOCK,
    "logrus": _LOGRUS_BLOCK,
    "combined": _COMBINED_BLOCK,
    "combined_quote": _COMBINED_QUOTE,
    "gorm": _GORM_BLOCK,
}

# How blocks begin, by first byte: most lines are told by it alone.

_HASH, _TAB = b"#\t"


def open_any(text: bytes) -> Rule | None:
    """Return the rule of the block that a line opens, whatever its first byte is.

    One byte is looked for first, and `find` stands where `in` reads better, which tries bytes as a number first: 0.1 µs
    """
    if _HASH in text and text.find(b"Error #") >= 0:
        if _ZEROLOG_ERRORS(text):
            return _ZEROLOG_BLOCK
        if _LOGRUS_ERRORS(text):
            return None if _LOGRUS_FIELDS(text) else _LOGRUS_BLOCK
        if b'" Error #' in text and _COMBINED_LINE(text):
            return _COMBINED_QUOTE if text.endswith(b'"') else _COMBINED_BLOCK
    return _SERVING if text.find(b"http: panic serving ") >= 0 and _HTTP_PANIC(text) else None


def _open_bracket(text: bytes) -> Rule | None:
    if text.startswith(b"[GIN] "):
        return ACCESS
    if text.startswith((b"[GIN-debug] [WARNING] ", b"[GIN-debug] Loaded HTML ")):
        return _DEBUG
    return open_any(text)


def _open_escape(text: bytes) -> Rule | None:
    if _RED_STD(text):
        if _RECOVERED(text):
            return _RECOVERY
        return None if text.rstrip().endswith(_RESET) else _BROKEN_PIPE
    return open_any(text)


def _open_digit(text: bytes) -> Rule | None:
    if _TAB in text and _ZAP_LINE(text):
        return _ZAP_STACK
    if text[4:5] == b"/":  # package log
        if text.find(b".go:") >= 0 and _GORM(text):
            return _GORM_BLOCK
        if text.rstrip().endswith(b"panic recovered:") and _RECOVERED(text):
            return _COLOURLESS_RECOVERY
    return open_any(text)


def _open_equals(text: bytes) -> Rule | None:
    return _RACE if text == _RACE_EDGE else open_any(text)


def _open_go(text: bytes) -> Rule | None:
    if text.startswith(b"panic: "):
        return _PANIC
    if text.startswith(b"fatal error: "):
        return _FATAL
    if text.startswith((b"runtime: ", b"unexpected fault address ")):
        return _RUNTIME
    if _is_go(text):
        return _SIGNAL
    return _TRACE if _GOROUTINE(text) else open_any(text)


def open_space(text: bytes) -> Rule | None:
    """Open what a line that begins with white space opens; the caller has seen that it is not blank."""
    return open_any(text)


_is_go = re.compile(_GO).match

# A first byte that is not here: `open_any`. None: such a line opens nothing.
OPENS: dict[bytes, Callable[[bytes], Rule | None] | None] = {
    b"{": None,
    b"[": _open_bracket,
    b"\x1b": _open_escape,
    b"=": _open_equals,
    **{bytes([byte]): _open_digit for byte in b"0123456789"},
    **{bytes([byte]): _open_go for byte in b"pfSrug"},
    **dict.fromkeys((b"", b" ", b"\t", b"\r", b"\n", b"\x0b", b"\x0c"), open_space),
}
