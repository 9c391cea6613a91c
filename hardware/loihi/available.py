"""Intel's chip Loihi 2: whether it can be reached from here."""

from __future__ import annotations

from gascnn.hardware.lava.environment import LavaEnvironment, probe, require_lava
from gascnn.toolkit.errors import BackendError


def require_loihi(environment: LavaEnvironment | None = None) -> LavaEnvironment:
    """The interpreter that can run networks on Loihi 2.

    Args:
        environment: where Lava is; default :func:`gascnn.hardware.lava.find_lava`.

    Raises:
        BackendError: Lava is not installed, or lacks the extension for the chip, which Intel gives to members of its
            research community (what ``lava.utils.loihi.is_installed()`` checks).
    """
    environment = environment or require_lava()
    if not probe(environment.python)["loihi"]:
        raise BackendError(
            f"no Loihi: Lava in {environment.python} has no lava-loihi extension, which Intel gives to members of its "
            "neuromorphic research community; use backend lava or sim"
        )
    return environment
