"""Libraries that not every installation has, imported where they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from gascnn.toolkit.errors import DataError


def require(module: str, package: str, extra: str) -> Any:
    """Import ``module``, or say in one line what to install.

    Args:
        module: dotted name, such as ``PIL.Image``.
        package: its name in the package index, such as ``Pillow``.
        extra: the extra of this project that brings it.

    Raises:
        DataError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise DataError(f"{package} is not installed and is needed here; run: pip install 'gascnn[{extra}]'") from None
