"""Makes the suite's helpers importable as ``fidelity`` however pytest was started."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
