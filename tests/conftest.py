"""Fixtures and settings shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

# Before anything imports torch: one thread each, for the tests' networks are small and results must not depend on the
# machine's cores, and no spinning where a test asks for more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout the tests run in."""
    return ROOT


_WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError("No module named " + name, name=name)

sys.meta_path.insert(0, Missing())
"""


@pytest.fixture(scope="session")
def without() -> Callable[..., str]:
    """Code that runs ahead of another and makes it meet no package of these names, as if none were installed."""
    return lambda *names: _WITHOUT.format(names=names)


@pytest.fixture(autouse=True)
def _no_data_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests never read a user's own data sets: they must pass, and mean the same, on every machine."""
    monkeypatch.delenv("GASCNN_DATA", raising=False)
