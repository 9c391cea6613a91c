"""``make fidelity-speed``: is ``auto`` slower than the simple version on any network of the suite?

Each network runs alternately in both; shown is the median over the rounds of auto's time as a part of the simple one's,
apart for networks that auto gives to the kernels and those that it runs in the simple version, which show the noise.
"""

from __future__ import annotations

import argparse
import sys
import time
from statistics import median
from unittest import mock

import numpy as np
from fidelity.networks import LONG, seeded_case
from fidelity.ways import Way, simulated

from gascnn.hardware.simulator import Simulator

AUTO, PLAIN = Way({"method": "auto", "threads": 1}), Way({"method": "plain", "threads": 1})


def main() -> int:
    parser = argparse.ArgumentParser(prog="fidelity.speed", description=__doc__)
    parser.add_argument("--networks", type=int, default=300, metavar="N", help="how many (default 300)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first one's seed (default 0)")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="runs of each (default 15)")
    options = parser.parse_args()
    found: dict[bool, list[tuple[float, int, float]]] = {True: [], False: []}
    for seed in range(options.first, options.first + options.networks):
        case = seeded_case(seed, LONG)
        kernels = takes_kernels(case)
        simulated(case, PLAIN)
        times = [pair(case, swap=bool(number % 2)) for number in range(options.rounds)]
        ratio = median(auto / plain for auto, plain in times)
        found[kernels].append((ratio, seed, median(plain for _, plain in times)))
    for kernels, rows in found.items():
        show("kernels" if kernels else "simple version", sorted(rows))
    return 0


def takes_kernels(case) -> bool:
    """Run ``auto`` once; whether it laid the network out for the kernels."""
    with mock.patch.object(Simulator, "_fast", autospec=True, side_effect=Simulator._fast) as fast:
        simulated(case, AUTO)
    return fast.called


def pair(case, swap: bool) -> tuple[float, float]:
    """Seconds of ``auto`` and of the simple version, run one after the other."""
    seconds = {}
    for way in (PLAIN, AUTO) if swap else (AUTO, PLAIN):
        started = time.perf_counter()
        simulated(case, way)
        seconds[way is AUTO] = time.perf_counter() - started
    return seconds[True], seconds[False]


def show(road: str, rows: list[tuple[float, int, float]]) -> None:
    if not rows:
        return
    ratios = [ratio for ratio, *_ in rows]
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    sys.stdout.write(
        f"{road}: {len(rows)} networks, median {middle:.2f} (quartiles {low:.2f} {high:.2f}), {ratios[0]:.2f} to "
        f"{ratios[-1]:.2f}; slowest "
        + ", ".join(f"seed {seed} {ratio:.2f} of {1e3 * plain:.1f} ms" for ratio, seed, plain in rows[:-4:-1])
        + "\n"
    )


if __name__ == "__main__":
    sys.exit(main())
