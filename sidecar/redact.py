"""Stub for the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.options import option


@dataclass(frozen=True, kw_only=True)
class Config:
    """The section `normalize.redact`."""

    enabled: bool = option(True, "Hide secrets before a record leaves the pod.")
    keys: list[str] = option(
        [
            "authorization",
            "proxy_authorization",
            "cookie",
            "set_cookie",
            "password",
            "passwd",
            "pwd",
            "passphrase",
            "secret",
            "token",
            "api_key",
            "apikey",
            "access_key",
            "private_key",
            "credential",
            "credentials",
            "session_id",
            "sessionid",
        ],
        "Names whose values are hidden, in fields, query strings, headers and `name=value` text. "
        "A name matches whole or as the last words of a longer one (`token` hides `access_token`, not `token_count`); "
        "case, `-`, `_` and `.` do not matter.",
    )
    patterns: list[str] = option([], "Regular expressions; what they match in values and messages is hidden.")
