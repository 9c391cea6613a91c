"""Run a hard-reset NetX file in stock lava-dl, without this project; start it with Lava's own Python.

    python stock_lava.py MODEL.net SPIKES.npz OUT.npz

SPIKES.npz holds ``spikes``, (image, step, C, H, W) or (image, step, N) with all channels of the input, 0 or 1, or
integers to 255 where the first layer takes graded input. OUT.npz gets ``spikes``, (image, step, classes): what the
last layer answers, shifted back by its delay of one step a layer, and ``counts``, (image, classes).
"""

import sys

import numpy as np
from lava.lib.dl.netx.hdf5 import Network
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.io import sink, source

model, spikes_file, out_file = sys.argv[1:]
spikes = np.load(spikes_file)["spikes"].astype(int)
graded = 8 if spikes.max() > 1 else 0
answers = []
for image in spikes:
    network = Network(net_config=model, input_message_bits=graded)
    delay, steps = len(network), len(image) + len(network)
    silence = np.zeros((delay, *image.shape[1:]), dtype=int)  # or the source starts over
    feed = source.RingBuffer(data=np.concatenate([image, silence]).T)  # Lava's axes: W, H, C, time
    read = sink.RingBuffer(shape=network.out.shape, buffer=steps)
    feed.s_out.connect(network.inp)
    network.out.connect(read.a_in)
    network.run(condition=RunSteps(num_steps=steps), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    answers.append(read.data.get().T[delay:].astype(bool))
    network.stop()
np.savez_compressed(out_file, spikes=np.array(answers), counts=np.sum(answers, axis=1))
