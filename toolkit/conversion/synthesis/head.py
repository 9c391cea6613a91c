"""The last linear layer of any classifier that can be traced."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from gascnn.toolkit.conversion.passes.drop_identities import drop_identities
from gascnn.toolkit.conversion.passes.drop_unused import drop_unused
from gascnn.toolkit.conversion.passes.fold_batchnorm import fold_batchnorm
from gascnn.toolkit.conversion.passes.order_in_place import order_in_place
from gascnn.toolkit.conversion.trace import trace
from gascnn.toolkit.errors import ConversionError


@dataclass(frozen=True, eq=False)
class Head:
    """What a classifier ends in.

    Attributes:
        origin: what the user wrote there: module path and type.
        weight: (class, feature) float64; a batch norm behind it is folded in.
    """

    origin: str
    weight: npt.NDArray[np.float64]

    @property
    def classes(self) -> int:
        """How many."""
        return len(self.weight)


def find_head(model: nn.Module, image_shape: tuple[int, int, int]) -> Head:
    """Find the linear layer a classifier ends in; what does nothing behind it (dropout, softmax) is passed over.

    Args:
        model: takes (image, C, H, W) and returns (image, class); it is put into evaluation mode.
        image_shape: (C, H, W).

    Raises:
        ConversionError: a network that cannot be traced, whose last layer is not linear (the message names it), with
            a single class, or with weights that are NaN or infinite.
    """
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ConversionError(f"{name} holds NaN or infinity; train again")
    graph = trace(model, image_shape)
    for rewrite in (order_in_place, drop_unused, drop_identities, fold_batchnorm):
        rewrite(graph)
    last = graph.ops[graph.output.inputs[0]]
    if last.kind != "linear" or last.weight is None:
        raise ConversionError(
            f"{type(model).__name__} ends in {last.name} ({last.origin}), which is not a linear layer; class "
            "similarity is read from its weights: end the network in nn.Linear, or give images of your own"
        )
    if len(last.weight) < 2:
        raise ConversionError(
            f"{last.name} ({last.origin}) has one output; soft labels need at least two classes: give each class one"
        )
    return Head(last.origin, last.weight.numpy().copy())
