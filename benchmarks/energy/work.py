"""What an ANN does for one image, as far as cost tables ask."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gascnn.benchmarks.counts import channel_kinds, fan_out, input_kinds, own_synapses
from gascnn.toolkit.errors import FormatError, UsageError
from gascnn.toolkit.lowering.network import NetxNetwork


@dataclass(frozen=True)
class AnnLayer:
    """A convolution or linear layer.

    Attributes:
        kind: ``conv`` or ``dense``.
        macs: products with weights, the padding left out.
        inputs, outputs: elements of its activations.
        weights, biases: parameters.
    """

    kind: str
    macs: int
    inputs: int
    outputs: int
    weights: int
    biases: int


@dataclass(frozen=True)
class AnnWork:
    """The ANN's work for one image.

    Attributes:
        macs: multiply-accumulates, the padding left out (:func:`gascnn.benchmarks.ann_macs.ann_macs`): what is billed.
        framework_macs: by the framework's own counter, padding included; None where it was not asked.
        layers: for memory traffic; their ``macs`` add up to ``macs``.
        macs_of: ``ann``, or ``network``: estimated from the deployed network's synapses.
    """

    macs: int
    framework_macs: int | None = None
    layers: tuple[AnnLayer, ...] = ()
    macs_of: str = "ann"

    def __post_init__(self) -> None:
        if self.macs < 1:
            raise UsageError(f"the ANN has {self.macs} multiply-accumulates; an ANN has at least one")
        if self.layers and (found := sum(layer.macs for layer in self.layers)) != self.macs:
            raise UsageError(f"the ANN's layers have {found} multiply-accumulates; together they must have {self.macs}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, which :meth:`from_dict` reads."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AnnWork:
        """Read what :meth:`to_dict` gave.

        Raises:
            FormatError: something else.
        """
        try:
            layers = tuple(AnnLayer(**layer) for layer in values["layers"])
            return cls(**{**values, "layers": layers})
        except (TypeError, KeyError, ValueError) as error:
            raise FormatError(f"not the work of an ANN ({error}); take what AnnWork.to_dict gave") from error


def work_of_network(network: NetxNetwork) -> AnnWork:
    """An estimate where the ANN is not there: the deployed network's synapses into populations.

    Weights that rounding made zero are missing, and poolings that were folded into a kernel are in it; see
    :func:`gascnn.benchmarks.counts.own_synapses`. Layers are those of the deployed network, relays left out.

    Raises:
        UsageError: a network without such synapses.
    """
    layers = []
    for k, layer in enumerate(network.layers):
        rows = channel_kinds(layer.segments, layer.shape[0]).get("population")
        if rows is None:
            continue
        before = network.layers[k - 1] if k else None
        sources = input_kinds(network) if before is None else channel_kinds(before.segments, before.shape[0])
        reach = fan_out(layer, network.input_of(k), rows)
        macs = sum(int(reach[mask].sum()) for kind, mask in sources.items() if kind != "always-on")
        if macs:
            outputs = int(rows.sum()) * math.prod(layer.shape[1:])
            weights = int(np.count_nonzero(layer.weight[rows]))
            layers.append(AnnLayer(layer.kind, macs, reach.size, outputs, weights, int(rows.sum())))
    return AnnWork(own_synapses(network), None, tuple(layers), "network")
