"""Contenders of the race, each made from a file; where one cannot run here, why and what to do."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from gascnn.benchmarks.latency.contender import Classes, Contender, Images, Timed, Unavailable
from gascnn.hardware.backends import NetxFile, check_image_shape
from gascnn.hardware.simulator import Simulator
from gascnn.toolkit.bundle import Bundle, load_bundle
from gascnn.toolkit.coding import encode_for
from gascnn.toolkit.errors import BackendError, LimitError, UsageError

TORCH, SIMULATOR, LAVA, LOIHI = "torch", "simulator", "lava", "loihi"

_IMAGES_AT_ONCE = 64
_EXPORTS = {
    "fp32": "write one with: gascnn export BUNDLE --target onnx -o fp32.onnx",
    "int8": "write one with: gascnn export BUNDLE --target onnx --int8 --data NAME -o int8.onnx",
}


def ann_in_torch(
    bundle: Bundle | str | os.PathLike[str] | None, *, threads: int = 1, allow_import: bool = False
) -> Contender | Unavailable:
    """The ANN in PyTorch: eager, in inference mode, float32.

    Args:
        bundle: of ``gascnn train``, or its folder; None where there is none.
        threads: of torch, for the whole process.
        allow_import: see :func:`gascnn.toolkit.training.bundles.build_model`.

    Raises:
        FormatError: not a bundle of an ANN.
        UsageError: fewer threads than one, or a network that would have to be imported.
    """
    title = "ANN in PyTorch, float32"
    if bundle is None:
        return Unavailable(TORCH, title, "no bundle of the ANN; name one that 'gascnn train' wrote")
    try:
        from gascnn.benchmarks.latency.torch_ann import TorchAnn

        loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    except ModuleNotFoundError as error:
        return Unavailable(TORCH, title, _missing(error, "train"))
    return Contender(
        TORCH,
        title,
        TorchAnn(loaded, threads, allow_import=allow_import).predict,
        includes="pixels to float32 and scaled, the network eager in inference mode, argmax",
        threads=threads,
        classes=loaded.classes,
        versions=_versions("torch"),
    )


def ann_in_onnxruntime(
    path: str | os.PathLike[str] | None, precision: str = "fp32", *, threads: int = 1
) -> Contender | Unavailable:
    """The ANN in onnxruntime, on the processor.

    Args:
        path: a file of ``gascnn export --target onnx``, part ``resnet``; None where there is none.
        precision: ``fp32`` or ``int8``, which the file must be.
        threads: of one call.

    Raises:
        FormatError: not a file of ours, cut short or changed.
        UsageError: another part or precision, or fewer threads than one.
    """
    if precision not in _EXPORTS:
        raise UsageError(f"precision is {precision!r}; it must be fp32 or int8")
    name, title = f"onnxruntime-{precision}", f"ANN in onnxruntime, {precision}"
    if path is None:
        return Unavailable(name, title, f"no {precision} file of the ANN; {_EXPORTS[precision]}")
    try:
        from gascnn.hardware.edge import EdgeModel

        model = EdgeModel(path, threads=threads)
    except ModuleNotFoundError as error:
        return Unavailable(name, title, _missing(error, "edge"))
    found = model.metadata
    if (found.part, found.precision) != ("resnet", precision):
        raise UsageError(
            f"{os.fspath(path)} holds part {found.part} in {found.precision}; needed is resnet in {precision}; "
            f"{_EXPORTS[precision]}"
        )

    def run(images: Images) -> Classes:
        return model.predict(images, batch_size=max(1, min(len(images), 4 * _IMAGES_AT_ONCE)))

    return Contender(
        name,
        title,
        run,
        includes="pixels as they are, scaling and the network in onnxruntime, argmax",
        threads=threads,
        classes=found.classes,
        versions=_versions("onnxruntime"),
    )


def snn_in_simulator(
    file: NetxFile, *, steps: int | None = None, threads: int = 1, method: str = "auto"
) -> Contender | Unavailable:
    """The spiking network in the bit-exact simulator.

    Args:
        file: the deployed network.
        steps: T; default what it was fitted for.
        threads, method: see :func:`gascnn.hardware.simulator.simulate`.

    Raises:
        UsageError: no steps for a foreign file, steps that leave nothing to read, or settings the simulator refuses.
    """
    total = _steps(file, steps)
    simulator = Simulator(file.network, threads=threads, method=method)
    coding = "evenly spaced" if file.network.deployment is None else file.network.deployment.coding

    def run(images: Images) -> Classes:
        check_image_shape(file.network, images)
        parts = [
            simulator.run(
                encode_for(file.network, images[start : start + _IMAGES_AT_ONCE], steps=total, first=start)
            ).predictions()
            for start in range(0, len(images), _IMAGES_AT_ONCE)
        ]
        return np.concatenate(parts)

    return Contender(
        SIMULATOR,
        f"SNN in the simulator, T = {total}",
        run,
        kind="snn",
        includes=f"input coding on the host ({coding}), T + K = {total} + {file.network.depth} steps, read-out",
        threads=threads,
        classes=_classes(file),
        steps=total,
        versions=_versions("numpy", "numba"),
    )


def snn_in_lava(
    file: NetxFile, *, steps: int | None = None, images: int = 2, time_limit_s: float | None = None
) -> Contender | Unavailable:
    """The spiking network in the real Lava, on the processor: one start for a few images.

    Args:
        file: the deployed network; its very bytes are run.
        steps: T; default what it was fitted for.
        images: how many of the race's images it is given.
        time_limit_s: for the run; None for no limit but that on inactivity.

    Raises:
        UsageError: no steps for a foreign file, or fewer images than one.
    """
    total = _steps(file, steps)
    title = f"SNN in Lava on the processor, T = {total}"
    from gascnn.hardware import lava
    from gascnn.hardware.lava.environment import require_lava

    try:
        environment = require_lava()
    except BackendError as error:
        return Unavailable(LAVA, title, str(error))

    def told(result: Any) -> str:
        return f"process models: {result.models}" + (f" ({result.why_stock})" if result.why_stock else "")

    settings = {"time_limit_s": time_limit_s, "environment": environment}
    return _clocked(
        file,
        _one_start(file, total, lava.run, told, settings),
        images,
        name=LAVA,
        title=title,
        steps=total,
        includes="T + K steps of an image, Lava's graph started already; the host's coding is in the cold start",
        versions={"lava-nc": environment.lava_nc, "lava-dl": environment.lava_dl, "python": environment.python_version},
    )


def snn_on_loihi(file: NetxFile, *, steps: int | None = None, images: int = 2) -> Contender | Unavailable:
    """The spiking network on Intel's chip, where Lava has the extension for it (``docs/loihi.md``: never run here).

    Args:
        file, steps, images: see :func:`snn_in_lava`.

    Raises:
        UsageError: no steps for a foreign file, or fewer images than one.
    """
    total = _steps(file, steps)
    title = f"SNN on Loihi 2, T = {total}"
    from gascnn.hardware import loihi
    from gascnn.hardware.loihi.task import check_runnable

    try:
        environment = loihi.require_loihi()
        check_runnable(file.network)
    except (BackendError, UsageError, LimitError) as error:
        return Unavailable(LOIHI, title, str(error))

    def told(result: Any) -> str | None:
        return None if result.deviation is None else f"the chip's answer is not the network's: {result.deviation}"

    return _clocked(
        file,
        _one_start(file, total, loihi.run, told, {"check": False, "environment": environment}),
        images,
        name=LOIHI,
        title=title,
        steps=total,
        includes="T + K steps of an image by the host's clock, input and output included, graph loaded already",
        versions={"lava-nc": environment.lava_nc, "lava-dl": environment.lava_dl, "python": environment.python_version},
    )


def _one_start(
    file: NetxFile,
    steps: int,
    run: Callable[..., Any],
    told: Callable[[Any], str | None],
    settings: Mapping[str, Any],
) -> Callable[[Images], Timed]:
    """Images through a backend in one start, by its own clock; ``told`` says of its result what a reader must know."""

    def timed(chosen: Images) -> Timed:
        check_image_shape(file.network, chosen)
        begin = time.perf_counter()
        result = run(
            file.path,
            encode_for(file.network, chosen, steps=steps),
            record="counts",
            input_shape=file.network.input_shape,
            input_bits=file.network.input_bits,
            **settings,
        )
        return Timed(result.predictions(), result.image_s, time.perf_counter() - begin, told(result))

    return timed


def _clocked(file: NetxFile, timed: Callable[[Images], Timed], images: int, **fields: Any) -> Contender:
    """A contender with a clock of its own."""
    if images < 1:
        raise UsageError(f"{fields['name']} is given {images} images; it must be at least 1")
    return Contender(
        run=lambda chosen: timed(chosen).classes,
        kind="snn",
        classes=_classes(file),
        own_clock=timed,
        most_images=images,
        **fields,
    )


def _steps(file: NetxFile, steps: int | None) -> int:
    """T.

    Raises:
        UsageError: nobody says it, or it leaves nothing to read.
    """
    deployment = file.network.deployment
    if steps is None:
        if deployment is None:
            raise UsageError(f"{file.path} does not say how many steps an image takes; give --steps")
        return deployment.steps
    least = 1 + (deployment.skip_steps if deployment is not None else 0)
    if steps < least:
        raise UsageError(f"steps is {steps}; it must be at least {least} for {file.path}")
    return steps


def _classes(file: NetxFile) -> tuple[str, ...] | None:
    return None if file.network.deployment is None else file.network.deployment.classes


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _missing(error: ModuleNotFoundError, extra: str) -> str:
    return f"{error.name} is not installed here; run: pip install 'gascnn[{extra}]', or leave this contender out"
