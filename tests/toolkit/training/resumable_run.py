"""Training runs that kill their own process (SIGKILL): ``resumable_run.py OPTIONS FOLDER WHERE [FOLDER WHERE ...]``.

Each pair is a process of its own, one after the other, that begins or resumes the run in FOLDER. WHERE is ``never``,
``EPOCH:STEP`` (after that step) or ``EPOCH:before-last`` (the epoch's last.safetensors is written beside but not yet in
place). Prints the exit status of each. The processes are forked before torch has computed anything, so that its
libraries are loaded once.
"""

import json
import os
import signal
import sys
from types import SimpleNamespace

import numpy as np
from sklearn.datasets import load_digits

from gascnn.toolkit.training.options import TrainingOptions
from gascnn.toolkit.training.progress import Silent
from gascnn.toolkit.training.train import train

MODEL = {"blocks": (1, 1), "width": 4, "dropout": 0.2}


class Killer(Silent):
    def __init__(self, where):
        self.epoch_to_die, _, self.step_to_die = where.partition(":")

    def step(self, epoch, step, loss):
        if str(epoch) != self.epoch_to_die:
            return
        if str(step) == self.step_to_die:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.step_to_die == "before-last":
            rename = os.replace

            def replace(source, target):
                if os.path.basename(target) == "last.safetensors":
                    os.kill(os.getpid(), signal.SIGKILL)
                rename(source, target)

            os.replace = replace


def digits(train, val):
    data = load_digits()
    images = np.minimum(data.images[:, None] * 16, 255).astype(np.uint8)
    labels = data.target.astype(np.int64)
    return SimpleNamespace(
        name="digits",
        class_names=tuple("0123456789"),
        image_shape=(1, 8, 8),
        provenance={},
        train=SimpleNamespace(images=images[:train], labels=labels[:train]),
        val=SimpleNamespace(images=images[train : train + val], labels=labels[train : train + val]),
        test=None,
    )


def run(folder, options, where):
    """Train in a child process; its exit status as in subprocess, negative for a signal."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        train(MODEL, digits(200, 100), options, folder, resume=True, progress=Killer(where))
        status = 0
    finally:
        os._exit(status)


if __name__ == "__main__":
    chosen = TrainingOptions.from_dict(json.loads(sys.argv[1]))
    pairs = zip(sys.argv[2::2], sys.argv[3::2], strict=True)
    sys.stdout.write(json.dumps([run(folder, chosen, where) for folder, where in pairs]))
