"""Every log dialect we know: one file each, one line each in the tables below. The first that fits is the format.

To add one: declare it in a file of its own, name it here, and give it a golden file (CONTRIBUTING.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.formats import audit, cloud, gin, golang, logrus, otel, plain, slog, zap, zerolog

if TYPE_CHECKING:
    from sidecar.formats.format import Dialect, Format

# JSON objects, told by their keys; from the most particular to the most general.
OBJECTS: tuple[Format, ...] = (
    otel.STDOUT_LOG,
    otel.STDOUT_TRACE,
    cloud.ECS,
    cloud.GCP,
    slog.SLOG_GIN,
    slog.GIN_SLOG,
    zap.GINZAP,
    gin.FORMATTER,
    zerolog.GIN_LOGGER,
    logrus.GIN_LOGRUS,
    audit.AUDIT,
    plain.CANONICAL,
    zap.ZAP,
    zap.ZAP_BARE,
    logrus.LOGRUS,
    slog.SLOG,
    zerolog.ZEROLOG,
    gin.ACCESS_JSON,
    plain.JSON,
)

# Text lines, told by their first bytes and their parser; from the cheapest test to the dearest.
TEXTS: tuple[Dialect, ...] = (
    gin.ACCESS,
    gin.DEBUG,
    slog.TEXT,
    zap.CONSOLE,
    golang.PANIC,
    golang.RACE,
    golang.GORM,
    gin.RECOVERY,
    logrus.TERMINAL,
    zerolog.CONSOLE,
    gin.COMBINED,
    golang.STANDARD,
    plain.TEXT,
)

NAMES: tuple[str, ...] = tuple(
    dict.fromkeys([*(each.name for each in OBJECTS), *(each.name for dialect in TEXTS for each in dialect.formats)])
)
