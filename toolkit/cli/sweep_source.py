"""What a sweep takes its networks from: an ANN converted anew for each T, a spiking graph, or a deployed file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gascnn.toolkit.errors import UsageError

if TYPE_CHECKING:
    import nir
    from torch import nn

    from gascnn.benchmarks.sweep_settings import Skip
    from gascnn.toolkit.cli.material import Material
    from gascnn.toolkit.cli.models import Model
    from gascnn.toolkit.conversion import ConversionOptions
    from gascnn.toolkit.data import Dataset
    from gascnn.toolkit.lowering.network import NetxNetwork


@dataclass(eq=False)
class AnnSource:
    """Converts an ANN for each T; factors share a conversion.

    Attributes:
        model: the ANN.
        material: what it is fitted with.
        options: of the conversion; ``steps`` and ``skip_steps`` are set for each T.
        skip: read-out steps left out.
    """

    model: nn.Module
    material: Material
    options: ConversionOptions
    skip: Skip
    _converted: tuple[int, nir.NIRGraph] | None = field(default=None, repr=False)

    def network(self, steps: int, factor: float) -> NetxNetwork:
        """See :class:`gascnn.benchmarks.sweep_point.Source`."""
        from gascnn.benchmarks.threshold_factor import scale_graph
        from gascnn.toolkit.conversion import convert
        from gascnn.toolkit.lowering import lower

        if self._converted is None or self._converted[0] != steps:
            converted = convert(
                self.model,
                self.material.images,
                replace(self.options, steps=steps, skip_steps=self.skip.of(steps)),
                classes=self.material.classes,
                framing=self.material.framing,
                activations=self.material.activations,
            )
            self._converted = steps, converted.graph
        return lower(scale_graph(self._converted[1], factor))


@dataclass(frozen=True, eq=False)
class GraphSource:
    """Lowers a spiking graph for each T.

    Attributes:
        graph: as converted or read.
        reset: for graphs that do not say theirs.
    """

    graph: nir.NIRGraph
    reset: str | None

    def network(self, steps: int, factor: float) -> NetxNetwork:
        """See :class:`gascnn.benchmarks.sweep_point.Source`."""
        from gascnn.benchmarks.threshold_factor import scale_graph
        from gascnn.toolkit.lowering import lower

        return lower(scale_graph(self.graph, factor), reset=self.reset, steps=steps)


@dataclass(frozen=True, eq=False)
class FileSource:
    """A deployed network, whose T is set when it runs.

    Attributes:
        deployed: its integers.
    """

    deployed: NetxNetwork

    def network(self, steps: int, factor: float) -> NetxNetwork:
        """See :class:`gascnn.benchmarks.sweep_point.Source`; T changes nothing in it."""
        from gascnn.benchmarks.threshold_factor import scale_network

        return scale_network(self.deployed, factor)


ANN_ONLY = ("readout", "coding", "data_free", "fit_data")


def source_of(
    opened: Model, dataset: Dataset, data_dir: Any, skip: Skip | None, given: dict[str, Any]
) -> tuple[AnnSource | GraphSource | FileSource, dict[str, Any]]:
    """The source for a model, and the options its networks depend on, as plain values.

    Args:
        opened: the model.
        dataset: what it is measured on; its training images fit the conversion unless other images are named.
        data_dir: of named data sets.
        skip: read-out steps left out, if the user said.
        given: ``reset``, ``readout``, ``coding``, ``data_free``, ``fit_data`` and ``seed`` as the user gave them.

    Raises:
        UsageError: options that only an ANN's conversion takes, or a reset for a deployed network.
    """
    if opened.kind == "ann":
        return _converting(opened, dataset, data_dir, skip, given)
    for name in (*ANN_ONLY, *(("reset",) if opened.kind == "netx" else ())):
        if given[name]:
            raise UsageError(
                f"--{name.replace('_', '-')} is decided when a network is converted; {opened.path} is already "
                f"{'deployed' if opened.kind == 'netx' else 'spiking'}; leave it out, or sweep the ANN"
            )
    options = {"reset": given["reset"], "seed": given["seed"]}
    if opened.netx is not None:
        return FileSource(opened.netx.network), options
    assert opened.graph is not None
    return GraphSource(opened.graph, given["reset"]), options


def _converting(
    opened: Model, dataset: Dataset, data_dir: Any, skip: Skip | None, given: dict[str, Any]
) -> tuple[AnnSource, dict[str, Any]]:
    from gascnn.benchmarks.sweep_settings import Skip
    from gascnn.toolkit.cli.material import gather
    from gascnn.toolkit.cli.models import load_data
    from gascnn.toolkit.conversion import ConversionOptions
    from gascnn.toolkit.training.bundles import build_model
    from gascnn.toolkit.training.inputs import fingerprint

    assert opened.bundle is not None
    model = build_model(opened.bundle)
    options = ConversionOptions(
        reset=given["reset"] or "zero",
        readout=given["readout"] or "count",
        coding=given["coding"] or "regular",
        seed=given["seed"] or 0,
    ).checked()
    fitted_on: Dataset | None = dataset
    if given["fit_data"] is not None:
        fitted_on = load_data(given["fit_data"], opened, data_dir)
    elif given["data_free"]:
        fitted_on = None
    material = gather(model, opened, fitted_on, options, given["data_free"])
    plain = {name: getattr(options, name) for name in ("reset", "readout", "coding", "seed")}
    plain |= {"fit_images": fingerprint(material.images), "activations": material.origin.get("activations", "measured")}
    return AnnSource(model, material, options, skip or Skip()), plain
