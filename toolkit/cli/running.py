"""Run a model of any kind on images: what ``run``, ``predict`` and ``demo`` share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gascnn.hardware.backends import Record, joined, run_batches
from gascnn.hardware.process import peak_memory_bytes, processors
from gascnn.hardware.result import RunResult
from gascnn.hardware.summary import RunSummary, join, summarise
from gascnn.toolkit.cli.models import Model
from gascnn.toolkit.errors import DataError, UsageError

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Simulation:
    """How the simulator is to run; None where the user did not say.

    Attributes:
        method, threads, memory_bytes: see :func:`gascnn.hardware.simulator.simulate`.
        scheduler: address of a Dask scheduler.
    """

    method: str | None = None
    threads: int | None = None
    memory_bytes: int | None = None
    scheduler: str | None = None

    def settings(self) -> dict[str, Any]:
        """The simulator's own keywords."""
        return {"method": self.method, "threads": self.threads, "memory_bytes": self.memory_bytes}

    def check(self, model: Model, backend: str) -> None:
        """Refuse what cannot be: before anything is loaded or connected.

        Raises:
            UsageError: settings of the simulator for a model or a backend that does not go through it.
        """
        given = [f"--{name.removesuffix('_bytes')}" for name, value in asdict(self).items() if value is not None]
        if given and model.kind != "netx":
            raise UsageError(
                f"{model.path} is not a NetX file; {' and '.join(given)} need one, for the simulator; export it first"
            )
        if given and backend != "sim":
            raise UsageError(f"{' and '.join(given)} are for backend sim, not for {backend}; leave one of them out")


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model says about images.

    Attributes:
        predictions: (image,) class numbers.
        scores: (image, class); logits for an ANN, firing rates of the read-out for a spiking network.
        details: JSON-able facts of the run: steps, firing rates, wraps.
        result: of a NetX file, with spikes if they were recorded.
    """

    predictions: npt.NDArray[np.int64]
    scores: npt.NDArray[np.floating]
    details: dict[str, Any]
    result: RunResult | None = None


def answer(
    model: Model,
    images: npt.NDArray[np.uint8],
    *,
    backend: str = "sim",
    steps: int | None = None,
    seed: int | None = None,
    record: Record = "counts",
    batch_size: int = 64,
    progress: Progress | None = None,
    reset: str | None = None,
    simulation: Simulation | None = None,
) -> Answers:
    """Run images through a model.

    Args:
        model: of any kind.
        images: (image, C, H, W) uint8.
        backend: for NetX files only.
        steps: T for spiking models; default what they were fitted for.
        seed: of the coding; default the model's.
        record: for NetX files.
        batch_size: images at once.
        progress: called with the number of images done.
        reset: for NIR graphs that do not say theirs.
        simulation: for NetX files in the simulator.

    Raises:
        UsageError: options that do not fit the kind of model.
        DataError: images it does not take.
    """
    simulation = simulation or Simulation()
    simulation.check(model, backend)
    if model.kind == "netx":
        return answer_netx(
            model,
            images=images,
            backend=backend,
            simulation=simulation,
            record=record,
            steps=steps,
            seed=seed,
            batch_size=batch_size,
            progress=progress,
        )
    if backend != "sim":
        raise UsageError(f"{model.path} is not a NetX file; only those run on backend {backend}; export it first")
    if model.image_shape is not None and images.shape[1:] != tuple(model.image_shape):
        raise DataError(f"images have shape {images.shape[1:]}; {model.path} takes {tuple(model.image_shape)}")
    if model.kind == "ann":
        return _ann(model, images, batch_size)
    return _spiking(model, images, steps, seed, batch_size, progress, reset)


def answer_netx(
    model: Model,
    *,
    images: npt.NDArray[np.uint8] | None = None,
    spikes: npt.NDArray[np.generic] | None = None,
    backend: str,
    simulation: Simulation,
    record: Record,
    **settings: Any,
) -> Answers:
    """Run images or spikes through a NetX file, here or on a cluster; without ``record="spikes"`` in bounded memory.

    Args:
        model: a NetX file.
        images: (image, C, H, W) uint8; or
        spikes: (image, step, ...).
        backend, simulation, record: where, how, and whether every spike is kept.
        settings: ``steps``, ``seed``, ``batch_size`` and ``progress`` of :func:`gascnn.hardware.backends.run_images`.

    Raises:
        As :func:`answer`.
    """
    assert model.netx is not None
    arguments: dict[str, Any] = {"images": images, "spikes": spikes, **simulation.settings(), **settings}
    facts: dict[str, Any] = {"backend": backend}
    result: RunResult | None = None
    if simulation.scheduler is not None:
        from gascnn.hardware.cluster import Cluster

        with Cluster(simulation.scheduler) as cluster:
            if record == "spikes":
                result = cluster.run(model.netx, record="spikes", **arguments)
            summary = summarise(result) if result is not None else cluster.summarise(model.netx, **arguments)
            facts |= {"scheduler": cluster.address, "workers": cluster.workers}
            facts |= {"worker_peak_memory_bytes": cluster.peak_memory_bytes}
            threads = simulation.threads * cluster.workers if simulation.threads else cluster.threads
    else:
        threads = simulation.threads or processors()
        batches = run_batches(model.netx, backend=backend, record=record, **arguments)
        if record == "spikes":
            result = joined(list(batches))
        summary = summarise(result) if result is not None else join(summarise(batch) for batch in batches)
    if backend == "sim":
        facts |= _simulator_facts(simulation, threads)
    return Answers(summary.predictions(), summary.scores(), facts | _network_facts(summary, model), result)


def _simulator_facts(simulation: Simulation, threads: int) -> dict[str, Any]:
    """How the simulator ran, for JSON: threads of all workers together; the peak is this process's own."""
    return {
        "method": simulation.method or "auto",
        "threads": threads,
        "memory_limit_bytes": simulation.memory_bytes,
        "peak_memory_bytes": peak_memory_bytes(),
    }


def _network_facts(summary: RunSummary, model: Model) -> dict[str, Any]:
    """Steps, firing rates and wraps of a run of a NetX file."""
    assert model.netx is not None
    rates = summary.rates(model.netx.network)
    return {
        "neuron": "sdnn" if model.netx.network.sigma_delta else "cuba",
        "steps": summary.steps,
        "firing_rates": {f"layer_{i:02d}": rate for i, rate in enumerate(rates)},
        "wraps": summary.wraps,
        "network_digest": model.netx.network.digest(),
    }


def _ann(model: Model, images: npt.NDArray[np.uint8], batch_size: int) -> Answers:
    from gascnn.toolkit.training.bundles import build_model
    from gascnn.toolkit.training.evaluate import predict_scores

    assert model.bundle is not None
    scores = predict_scores(build_model(model.bundle), images, batch_size=batch_size)
    return Answers(scores.argmax(axis=1).astype(np.int64), scores, {"backend": "torch"})


def _spiking(
    model: Model,
    images: npt.NDArray[np.uint8],
    steps: int | None,
    seed: int | None,
    batch_size: int,
    progress: Progress | None,
    reset: str | None,
) -> Answers:
    import torch

    from gascnn.models.spiking import SpikingNetwork
    from gascnn.toolkit.coding import encode
    from gascnn.toolkit.lowering.annotations import graph_notes
    from gascnn.toolkit.lowering.graph import topological_order

    assert model.graph is not None
    notes = graph_notes(model.graph)
    chosen = "none" if notes.neuron == "sdnn" else reset or notes.reset
    if chosen is None:
        raise UsageError(f"{model.path} does not say how its neurons reset; give --reset zero or --reset subtract")
    total = steps or notes.steps
    network = SpikingNetwork(model.graph, topological_order(model.graph), chosen, notes.dt or 1.0)
    outputs = []
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        fed = encode(
            part, notes.coding, total, seed=notes.seed if seed is None else seed, first=start, pixel_max=notes.pixel_max
        )
        values = torch.from_numpy(fed).to(torch.float32)
        outputs.append(network(values / 255 if notes.coding == "constant" else values, notes.skip_steps))
        if progress is not None:
            progress(min(start + batch_size, len(images)))
    shares = [len(o.counts) / len(images) for o in outputs]
    rates = {n: sum(o.rates[n] * s for o, s in zip(outputs, shares, strict=True)) for n in outputs[0].rates}
    scores = torch.cat([o.membrane if chosen == "none" else o.counts / total for o in outputs])
    return Answers(
        predictions=torch.cat([o.predictions() for o in outputs]).numpy(),
        scores=scores.numpy(),
        details={"backend": "torch", "steps": total, "firing_rates": rates},
    )
