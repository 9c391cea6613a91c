"""Keeping what is inside image files out of messages and logs.

Decoders warn and log with the values they stumble over, and in medical files those values are names, numbers and
dates. While images are read their warnings and logs are therefore switched off; what goes wrong is reported by our
own errors, which name the file and nothing from inside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import warnings
from collections.abc import Iterator

_LOGGERS = ("PIL", "pydicom", "nibabel", "nibabel.global")
_SILENT = logging.CRITICAL + 1


@contextlib.contextmanager
def quiet_decoders() -> Iterator[None]:
    """Silence Pillow, pydicom and nibabel; Pillow's warning of a decompression bomb becomes an error."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(ImportError):
            from PIL.Image import DecompressionBombWarning

            warnings.simplefilter("error", DecompressionBombWarning)
        try:
            for logger in loggers:
                logger.setLevel(_SILENT)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def hidden(identifier: str) -> str:
    """SHA-256 of an identifier, to compare patients by; it is kept in memory and never written."""
    return hashlib.sha256(identifier.strip().encode("utf-8", "surrogateescape")).hexdigest()


def shown(path: str | os.PathLike[str]) -> str:
    """A path fit for a one-line message: unprintable characters become question marks."""
    return "".join(character if character.isprintable() else "?" for character in os.fspath(path))
