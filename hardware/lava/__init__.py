"""The real Lava (Intel's neuromorphic framework), in its own Python 3.10, as a supervised child process.

Lava's last releases need old versions of Python, torch and numpy: they live in an environment of their own, which
``gascnn lava install`` builds. Networks and spikes reach it as files; see ``docs/lava.md``.
"""

from gascnn.hardware.lava.environment import LavaEnvironment, find_lava, lava_info
from gascnn.hardware.lava.install import install_lava
from gascnn.hardware.lava.jobs import Task
from gascnn.hardware.lava.outcome import LavaResult
from gascnn.hardware.lava.run import run, run_many

__all__ = ["LavaEnvironment", "LavaResult", "Task", "find_lava", "install_lava", "lava_info", "run", "run_many"]
