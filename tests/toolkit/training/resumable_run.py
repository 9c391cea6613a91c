"""A training run that kills its own process (SIGKILL) where it is told to: ``resumable_run.py FOLDER OPTIONS WHERE``.

WHERE is ``never``, ``EPOCH:STEP`` (after that step) or ``EPOCH:before-last`` (the epoch's last.safetensors is written
beside but not yet in place).
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


if __name__ == "__main__":
    options = TrainingOptions.from_dict(json.loads(sys.argv[2]))
    train(MODEL, digits(200, 100), options, sys.argv[1], resume=True, progress=Killer(sys.argv[3]))
