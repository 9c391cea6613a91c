"""The two texts of a folder: the script that is run, and what to do with it."""

from __future__ import annotations

from typing import Any

_SCRIPT = '''"""Measure the networks of this folder on this machine: python run.py -o result.json"""

import sys
from pathlib import Path

try:
    from gascnn.benchmarks.board.script import main
except ModuleNotFoundError as error:
    sys.exit(f"{error.name} is not installed here; see README.md: pip install 'gascnn[edge]'")

if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent))
'''

_README = """# Measure on this board

A spiking network and its ANN{precisions}, {images} images{data}. Measuring needs neither torch nor a connection.

```
python3 -m venv ~/gascnn-board && . ~/gascnn-board/bin/activate
pip install 'gascnn[edge]=={version}'        # or its wheel: pip install 'gascnn-{version}-py3-none-any.whl[edge]'
python run.py -o result.json
```

Python 3.10 to 3.13 on 64-bit Linux, arm64 or x86. `result.json` is all that goes back; it holds no image and no path:
the processor, versions and what was measured.

`--snn-images N` simulates N images instead of as many as fit `--time-limit`; `--threads N`; `--meter NAME` or `none`;
`--name` is what the board is called in tables. `python run.py --help` lists them.

Do nothing else on the board meanwhile, and let it cool down before a second run.
{note}"""


def script() -> str:
    """``run.py``."""
    return _SCRIPT


def readme(record: dict[str, Any]) -> str:
    """``README.md`` of the folder whose manifest holds ``record``."""
    name = record["data"]["name"]
    return _README.format(
        precisions=" in float32 and 8 bits" if "ann-int8" in record["contenders"] else " in float32",
        images=record["images"],
        data=f" of {name}" if name else "",
        version=record["gascnn"],
        note=f"\n{record['note']}\n" if record["note"] else "",
    )
