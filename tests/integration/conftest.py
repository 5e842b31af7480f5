"""What the tests of the sources of files share."""

from __future__ import annotations

import pytest

from tests.support.following import Follower


@pytest.fixture(params=["inotify", "polling"])
def woken(request, monkeypatch):
    """Run a test twice: what is read must be the same whether the kernel says when to look or nobody does (B04)."""
    monkeypatch.setattr(Follower, "inotify", request.param == "inotify")
