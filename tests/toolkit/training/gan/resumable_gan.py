"""GAN runs that kill their own process (SIGKILL): ``resumable_gan.py FOLDER WHERE [FOLDER WHERE ...]``.

Each pair is a process of its own, one after the other, that begins or resumes the run in FOLDER. WHERE is ``never``,
an iteration, or ``before-N``: the N-th checkpoint is written beside but not yet in place. Prints the exit statuses.
"""

import json
import os
import signal
import sys
from types import SimpleNamespace

import numpy as np
import torch
import torch._dynamo  # what the first optimiser imports: once, ahead of the forks

from gascnn.models.resnet import resnet
from gascnn.toolkit.training.bundles import to_bundle
from gascnn.toolkit.training.gan.options import GanOptions
from gascnn.toolkit.training.gan.progress import Silent
from gascnn.toolkit.training.gan.train import train_gan

CLASSES = ("a", "b", "c")
OPTIONS = GanOptions(
    width=2, residual_blocks=1, critic_width=2, critic_hidden=6, iterations=9, batch_size=6, critic_steps=2,
    ema_decay=0.9, report_every=3, grid_every=3, probe_images=6, least_diversity=0.0, threads=1,
)  # fmt: skip


class Killer(Silent):
    def __init__(self, where):
        self.where = where
        if where.startswith("before-"):
            self.left = int(where.removeprefix("before-"))
            self.rename, os.replace = os.replace, self.replace

    def step(self, iteration):
        if str(iteration) == self.where:
            os.kill(os.getpid(), signal.SIGKILL)

    def replace(self, source, target):
        if os.path.basename(target) == "last.safetensors":
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)
        self.rename(source, target)


def run(folder, where):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (30, 1, 8, 8), dtype=np.uint8)
        part = SimpleNamespace(images=images, labels=np.arange(30) % 3)
        data = SimpleNamespace(
            name="noise", class_names=CLASSES, image_shape=(1, 8, 8), provenance={}, train=part, val=None, test=None
        )
        torch.manual_seed(0)
        network = to_bundle(resnet(classes=3, blocks=(1,), width=4, image_size=8), CLASSES, (1, 8, 8))
        train_gan(network, data, OPTIONS, folder, resume=True, progress=Killer(where))
        status = 0
    finally:
        os._exit(status)


if __name__ == "__main__":
    pairs = zip(sys.argv[1::2], sys.argv[2::2], strict=True)
    sys.stdout.write(json.dumps([run(folder, where) for folder, where in pairs]))
