"""Intel's chip Loihi 2, through Lava's extension for it; see ``docs/loihi.md``: it was never run on a chip here."""

from gascnn.hardware.loihi.available import require_loihi
from gascnn.hardware.loihi.profile import PROBES, ChipProfile, CoreActivity
from gascnn.hardware.loihi.run import run
from gascnn.hardware.loihi.task import STEP_LIMIT, LoihiResult

__all__ = ["PROBES", "STEP_LIMIT", "ChipProfile", "CoreActivity", "LoihiResult", "require_loihi", "run"]
