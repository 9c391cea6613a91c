"""A contender that measures nothing: its times are written beside the plan, in ``times.json``."""

import json
import sys
from pathlib import Path

NAME, PLAN, THREADS = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
known = json.loads(Path(__file__).with_name("times.json").read_text())[NAME]
orders = []


def answer(**values):
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if known.get("fails") == "start":
    answer(ok=False, error="ImportError: no such module")
    sys.exit(1)
answer(ok=True, versions={NAME: "1.2"}, options=known.get("options", ["plain"]))
for line in sys.stdin:
    order = json.loads(line)
    orders.append(order)
    if order["do"] == "check":
        answer(ok=True, layers=known["layers"])
    elif known.get("fails") == "time":
        sys.stderr.write("Traceback\nMemoryError: too much\n")
        sys.exit(3)
    else:
        # One number for an option and a number of images, or one a timed round.
        seconds = known["seconds"][f"{order['option']} x {order['images']}"]
        if isinstance(seconds, list):
            seconds = seconds[sum(o.get("keep", False) for o in orders) - 1 if order["keep"] else 0]
        answer(ok=True, per_image_s=seconds, runs=1, peak_bytes=int(THREADS) << 20)
