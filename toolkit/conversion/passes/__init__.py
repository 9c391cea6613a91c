"""Rewrites of the traced network, one a file, in the order of :data:`PASSES`."""

from collections.abc import Callable

from gascnn.toolkit.conversion.ir import OpGraph
from gascnn.toolkit.conversion.passes.drop_identities import drop_identities
from gascnn.toolkit.conversion.passes.drop_unused import drop_unused
from gascnn.toolkit.conversion.passes.fold_batchnorm import fold_batchnorm
from gascnn.toolkit.conversion.passes.mark_neurons import mark_neurons
from gascnn.toolkit.conversion.passes.order_in_place import order_in_place
from gascnn.toolkit.conversion.passes.place_pooling import place_pooling

PASSES: tuple[Callable[[OpGraph], None], ...] = (
    order_in_place,
    drop_unused,
    drop_identities,
    fold_batchnorm,
    mark_neurons,
    place_pooling,
)


def run_passes(graph: OpGraph) -> None:
    """All rewrites, in place: afterwards neurons are marked where spikes will be made."""
    for rewrite in PASSES:
        rewrite(graph)


__all__ = ["PASSES", "run_passes"]
