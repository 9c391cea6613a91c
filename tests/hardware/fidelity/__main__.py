"""``make fidelity``: many random networks in the real Lava, in the simulator and in the reference.

Ends with status 1 at the first batch in which one differs, and names its seed; run that one again with
``make fidelity FIDELITY_FIRST=SEED FIDELITY_NETWORKS=1``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time

from fidelity.comparison import Summary
from fidelity.networks import LONG, seeded_case
from fidelity.parity import LavaRun
from fidelity.ways import WAYS

from gascnn.hardware import lava
from gascnn.toolkit.errors import GascnnError

_ENOUGH = 300
"""So many networks have something of everything; fewer need not."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="fidelity", description=__doc__)
    parser.add_argument("--networks", type=int, default=300, metavar="N", help="how many (default 300)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first one's seed (default 0)")
    parser.add_argument("--batch", type=int, default=50, metavar="N", help="networks in one start of Lava (default 50)")
    parser.add_argument("--models", choices=("stock", "fast"), default="stock", help="Lava's own, or this package's")
    options = parser.parse_args()
    if options.networks < 1 or options.batch < 1 or options.first < 0:
        parser.error("give at least one network, and a seed of 0 or more")
    if lava.find_lava() is None:
        sys.stderr.write("Lava is missing; run make setup\n")
        return 1
    say(f"Lava's {options.models} models; the simulator's ways: {'; '.join(map(str, WAYS))}")
    summary, started = Summary(), time.monotonic()
    last = options.first + options.networks
    for first in range(options.first, last, options.batch):
        if not batch(range(first, min(first + options.batch, last)), options.models, summary):
            return 1
        say(f"{summary.networks} of {options.networks} networks equal after {time.monotonic() - started:.0f} s")
    for line in summary.lines():
        say(line)
    hollow = list(summary.hollow(least=options.networks // 100))
    for line in hollow:
        say(line)
    return 1 if hollow and options.networks >= _ENOUGH else 0


def batch(seeds: range, models: str, summary: Summary) -> bool:
    """Run some seeds in one start of Lava; False where anything differs."""
    cases = [(f"seed {seed}", seeded_case(seed, LONG)) for seed in seeds]
    with tempfile.TemporaryDirectory() as folder:
        try:
            differences = LavaRun(cases, folder, models).differences()
        except GascnnError as error:
            say(f"seeds {seeds[0]} to {seeds[-1]}: {error}")
            return False
    for name, difference in differences:
        say(f"{name}: {difference}")
    for _, case in cases:
        summary.add(case)
    return not differences


def say(line: str) -> None:
    """One line, at once, for whoever follows a log."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
