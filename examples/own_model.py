"""The whole main job on a network of your own: train, convert, lower, write NetX, simulate, run in the real Lava."""

import torch
from torch import nn

from gascnn.exporters.netx import write_netx
from gascnn.hardware import lava
from gascnn.hardware.simulator import simulate
from gascnn.toolkit.coding import encode_for
from gascnn.toolkit.conversion import convert
from gascnn.toolkit.data import load_dataset
from gascnn.toolkit.lowering import lower

data = load_dataset("digits")
torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.AvgPool2d(2), nn.ReLU(),
    nn.Conv2d(12, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
)  # fmt: skip
pixels, labels = torch.from_numpy(data.train.images) / 255, torch.from_numpy(data.train.labels)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
for _ in range(20):
    for batch in torch.randperm(len(pixels)).split(32):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(pixels[batch]), labels[batch]).backward()
        optimizer.step()

spiking = convert(model, data.train.images, reset="subtract", steps=32, classes=data.class_names)
network = lower(spiking.graph)
write_netx(network, "own_model.net")
test = data.test.take(100)
spikes = encode_for(network, test.images)
with torch.no_grad():
    print("ANN      ", (model.eval()(torch.from_numpy(test.images) / 255).argmax(1).numpy() == test.labels).mean())
print("simulator", (simulate(network, spikes).predictions() == test.labels).mean())
print("Lava     ", (lava.run("own_model.net", spikes[:5]).predictions() == test.labels[:5]).mean(), "(5 images)")
