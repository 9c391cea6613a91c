"""How long PGSL's client takes for one image on one thread: onnxruntime in float32 and int8, and PyTorch beside it.

Each contender is a process from beginning to end, and gets the image as a board has it, uint8 in numpy, and gives the
activations in numpy. First all compute the same images: onnxruntime in float32 and both clients in PyTorch must agree,
for int8 the difference is reported. Then they take turns: in each round every contender computes some single images,
each timed, and the order moves on by one. What slows the machine for a while then slows all of them, and a ratio is the
median of the rounds' ratios.

Weights are random, batch-norm statistics those of the images: the time does not depend on them, accuracy is no matter
here. The contenders are ``onnxruntime-fp32`` and ``onnxruntime-int8`` (files of ``exporters/onnx/pgsl.py``),
``torch-autograd`` (eager, with the gradient by autograd, as one writes it) and ``torch-forward`` (eager, with our
gradient from forward operators).
"""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gascnn.benchmarks import machine
from gascnn.benchmarks.child import Child
from gascnn.benchmarks.contenders import Contender
from gascnn.benchmarks.pgsl import edge_contender
from gascnn.benchmarks.ratios import Goal, paired
from gascnn.exporters.onnx.check import AGREEING_IMAGES, TOLERANCE, probe_images
from gascnn.exporters.onnx.pgsl import export_pgsl_client
from gascnn.models.pgsl import WIDTH, PgslClient
from gascnn.models.saliency import LocalClassifier, SaliencyAttack
from gascnn.toolkit.errors import CheckFailed, DataError, UsageError
from gascnn.toolkit.training.checkpoint import module_tensors, save_checkpoint

FORMAT = 1
"""Of the JSON; counts up when a key changes its meaning."""

FP32, INT8, AUTOGRAD, FORWARD = "onnxruntime-fp32", "onnxruntime-int8", "torch-autograd", "torch-forward"
CONTENDERS = (
    Contender(FP32, "onnxruntime, float32", "ours", one_thread=True),
    Contender(INT8, "onnxruntime, int8", "ours", one_thread=True),
    Contender(AUTOGRAD, "torch, gradient by autograd", "ours", one_thread=True),
    Contender(FORWARD, "torch, gradient by forward operators", "ours", one_thread=True),
)
NOISE = "noise"
RESAMPLES = 1000

Images = npt.NDArray[np.uint8]
Say = Callable[[str], None]


@dataclass(frozen=True)
class EdgeNetwork:
    """A client that is timed.

    Attributes:
        size: pixels a side.
        channels: 1 or 3.
        classes: of its local classifier.
        pixels: that the attack moves by ``amount``; 10 of 28x28 is the default of the options, and the same share of
            256x256 is 836.
        amount: of a range of 1 from black to white.
        width: channels of both convolutions.
        local_width: of the local classifier.
        calls: single images a round.
        most_s: median that is aimed at on onnxruntime; None for none.
        times_torch: how many times as fast as ``torch-autograd`` is aimed at; None for none.
    """

    size: int
    channels: int = 1
    classes: int = 10
    pixels: int = 10
    amount: float = 1.0
    width: int = WIDTH
    local_width: int = 8
    calls: int = 100
    most_s: float | None = None
    times_torch: float | None = None

    @property
    def name(self) -> str:
        """Such as 28x28x1."""
        return f"{self.size}x{self.size}x{self.channels}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.size, self.size


NETWORKS = (
    EdgeNetwork(28, most_s=0.005, times_torch=2.0),
    EdgeNetwork(256, classes=2, pixels=836, calls=20, most_s=0.060),
)


def race_clients(
    networks: Sequence[EdgeNetwork] = NETWORKS,
    *,
    rounds: int = 25,
    images: Mapping[str, Images] | None = None,
    images_are: str = NOISE,
    seed: int = 0,
    time_limit_s: float = 600.0,
    progress: Say | None = None,
) -> dict[str, Any]:
    """Time the clients.

    Args:
        networks: one race each.
        rounds: of each race, at least 2.
        images: by :attr:`EdgeNetwork.name`, (n, C, H, W) uint8: int8 is calibrated on them, and they are what is
            computed. A network without gets 33 images of noise.
        images_are: what they are, for the report.
        seed: of the weights.
        time_limit_s: for one answer of a contender.
        progress: told in a line what is being done.

    Returns:
        ``machine``, ``rounds``, ``seed``, and under ``networks`` for each: its numbers, ``files`` (bytes, SHA-256),
        ``contenders`` (``median_s`` with its 95 % interval over the rounds, ``p95_s``, ``p99_s``, ``agreement``),
        ``ratios`` and ``goals``.

    Raises:
        BackendError: a contender failed.
        CheckFailed: contenders that must agree do not.
        DataError: images of another shape.
        UsageError: too few rounds or calls, or a network that cannot be.
    """
    if rounds < 2 or any(network.calls < 1 for network in networks):
        raise UsageError(f"{rounds} rounds are too few, or calls are below 1; give 2 rounds and 1 call or more")
    tell = progress or _silent
    described = machine.describe()
    results = []
    for network in networks:
        given = (images or {}).get(network.name)
        chosen = probe_images(network.shape) if given is None else given
        results.append(_race(network, chosen, NOISE if given is None else images_are, rounds, seed, time_limit_s, tell))
    return {
        "format": FORMAT,
        "machine": described,
        "rounds": rounds,
        "threads": 1,
        "seed": seed,
        "weights": "random; time does not depend on them",
        "networks": results,
    }


def random_client(network: EdgeNetwork, images: Images, seed: int = 0) -> PgslClient:
    """A client in evaluation mode with random weights and the batch-norm statistics of ``images``.

    Raises:
        UsageError: numbers that no client takes.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        try:
            classifier = LocalClassifier(network.channels, network.classes, network.size, network.local_width)
            attack = SaliencyAttack(classifier, pixels=network.pixels, amount=network.amount)
            client = PgslClient(attack, width=network.width)
        except ValueError as error:
            raise UsageError(str(error)) from error
        for layer in client.layers:
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None  # plain averages over the batches
        for batch in torch.from_numpy(images).split(8):
            client.train()(batch.float() / 255)
    return client.eval()


def export_files(
    network: EdgeNetwork, folder: Path, images: Images | None = None, images_are: str = NOISE, seed: int = 0
) -> tuple[PgslClient, dict[str, dict[str, Any]]]:
    """Write ``fp32.onnx`` and ``int8.onnx`` of a random client.

    Returns:
        The client, and for each file its name, ``bytes`` and ``sha256``.

    Raises:
        DataError: images of another shape.
        UsageError: numbers that no client takes.
    """
    images = probe_images(network.shape) if images is None else images
    if images.dtype != np.uint8 or images.shape[1:] != network.shape or not len(images):
        raise DataError(f"images are {images.dtype} {images.shape}; {network.name} takes uint8 (n, {network.shape})")
    client = random_client(network, images, seed)
    files = {}
    for precision in ("fp32", "int8"):
        written = export_pgsl_client(
            client,
            folder / f"{precision}.onnx",
            classes=[str(i) for i in range(network.classes)],
            calibration=images if precision == "int8" else None,
            calibrated_on=images_are if precision == "int8" else "",
            check=images,
        )
        files[precision] = {"name": f"{precision}.onnx", "bytes": written.bytes, "sha256": written.sha256}
    return client, files


def _race(
    network: EdgeNetwork, images: Images, images_are: str, rounds: int, seed: int, limit_s: float, tell: Say
) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gascnn-edge-")))
        tell(f"{network.name}: exporting")
        client, files = export_files(network, folder, images, images_are, seed)
        plan = _write_plan(client, images, files, folder)
        script = Path(edge_contender.__file__)
        children: list[Child] = []
        for contender in CONTENDERS:
            tell(f"{network.name}: {contender.title} gets ready")
            child = Child(contender, plan, 1, None, time_limit_s=limit_s, script=script)
            children.append(stack.enter_context(child))
        for child in children:
            child.ask("check")
        agreement = compare_activations({one.name: np.load(folder / f"{one.name}.npy") for one in CONTENDERS})
        times: dict[str, list[list[float]]] = {one.name: [] for one in CONTENDERS}
        for number in range(rounds):
            tell(f"{network.name}: round {number + 1} of {rounds}")
            turn = number % len(children)
            for child in [*children[turn:], *children[:turn]]:
                times[child.contender.name].append(child.ask("time", calls=network.calls)["seconds"])
        versions: dict[str, str] = {}
        for child in children:
            versions |= child.versions
    return {
        **asdict(network),
        "name": network.name,
        "images": len(images),
        "images_are": images_are,
        "files": files,
        "versions": versions,
        **summary(network, times),
        "agreement": agreement,
    }


def _write_plan(client: PgslClient, images: Images, files: dict[str, dict[str, Any]], folder: Path) -> Path:
    np.save(folder / "images.npy", images, allow_pickle=False)
    save_checkpoint(folder / "client.safetensors", module_tensors("client", client), {})
    plan = {
        **{precision: entry["name"] for precision, entry in files.items()},
        "weights": "client.safetensors",
        "images": "images.npy",
        "classifier": client.attack.classifier.arguments,
        "attack": client.attack.arguments,
        "width": client.width,
    }
    path = folder / "plan.json"
    path.write_text(json.dumps(plan), encoding="utf-8")
    return path


def compare_activations(found: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, dict[str, float]]:
    """How far each contender's activations (n, ...) are from those of ``torch-forward``.

    In float32 all must agree within :data:`gascnn.exporters.onnx.check.TOLERANCE` of the largest activation on
    :data:`gascnn.exporters.onnx.check.AGREEING_IMAGES` of the images: they add up in another order, and the attack has
    steps where two pixels rank equal, which one image may take the other way now and then.

    Returns:
        For each: ``largest_difference`` and ``mean_difference``, as shares of the largest activation, and
        ``agreeing_images``, the share of images within the tolerance.

    Raises:
        CheckFailed: float32 that disagrees.
    """
    expected = found[FORWARD]
    largest = float(np.abs(expected).max()) or 1.0
    result = {}
    for name, values in found.items():
        difference = np.abs(values - expected).reshape(len(expected), -1) / largest
        agreeing = float((difference.max(axis=1) <= TOLERANCE).mean())  # NaN does not agree
        if name != INT8 and not agreeing >= AGREEING_IMAGES:
            raise CheckFailed(
                f"{name} and {FORWARD} agree on {agreeing:.0%} of {len(expected)} images; {AGREEING_IMAGES:.0%} are "
                "needed, so there is nothing to compare the times of"
            )
        result[name] = {
            "largest_difference": float(difference.max()),
            "mean_difference": float(difference.mean()),
            "agreeing_images": agreeing,
        }
    return result


def summary(network: EdgeNetwork, times: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Any]:
    """Quantiles, ratios and goals.

    Args:
        network: whose goals are asked for.
        times: of each contender, seconds of each call of each round.
    """
    medians = {name: [statistics.median(calls) for calls in rounds] for name, rounds in times.items()}
    contenders: list[dict[str, Any]] = []
    for one in CONTENDERS:
        seconds = np.array(times[one.name])
        draws = np.random.default_rng(0).integers(0, len(seconds), (RESAMPLES, len(seconds)))
        resampled = np.median(seconds[draws].reshape(RESAMPLES, -1), axis=1)
        p50, p95, p99 = (float(value) for value in np.quantile(seconds, [0.5, 0.95, 0.99]))
        contenders.append(
            {
                "name": one.name,
                "title": one.title,
                "calls": seconds.size,
                "median_s": p50,
                "median_interval_s": [float(value) for value in np.quantile(resampled, [0.025, 0.975])],
                "p95_s": p95,
                "p99_s": p99,
                "median_s_rounds": medians[one.name],
            }
        )
    pairs = ((FP32, AUTOGRAD), (FP32, FORWARD), (INT8, AUTOGRAD), (INT8, FP32), (FORWARD, AUTOGRAD))
    ratios = [
        {"what": f"{fast}, times the speed of {slow}", "found": paired(medians[slow], medians[fast])}
        for fast, slow in pairs
    ]
    p50s = {entry["name"]: entry["median_s"] for entry in contenders}
    goals = []
    if network.most_s is not None:
        goals = [Goal(f"median of {name}, s", p50s[name], network.most_s, "at most") for name in (FP32, INT8)]
    if network.times_torch is not None:
        found = paired(medians[AUTOGRAD], medians[FP32])
        goals.append(
            Goal(f"{FP32}, times the speed of {AUTOGRAD}", found, network.times_torch, "at least", AUTOGRAD),
        )
    return {
        "contenders": contenders,
        "ratios": ratios,
        "goals": [{**vars(goal), "reached": goal.reached} for goal in goals],
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The report of :func:`race_clients` as Markdown."""
    where = report["machine"]
    lines = [
        f"One image, one thread, weights {report['weights']}. {where['processor']}, {where['cores_used']} cores, "
        f"Python {where['python']}, load {where['load']}; {report['rounds']} rounds in turns."
    ]
    for network in report["networks"]:
        size = ", ".join(f"{precision} {entry['bytes']:,} bytes" for precision, entry in network["files"].items())
        lines += [
            "",
            f"**{network['name']}**, attack on {network['pixels']} pixels by {network['amount']:g}; int8 calibrated on "
            f"{network['images']} images ({network['images_are']}); {size}.",
            "",
            "| client | median ms (95 %) | p95 ms | p99 ms | off by, of the largest |",
            "| --- | --- | --- | --- | --- |",
        ]
        for one in network["contenders"]:
            low, high = (_ms(value) for value in one["median_interval_s"])
            off = network["agreement"][one["name"]]["largest_difference"]
            lines.append(
                f"| {one['title']} | {_ms(one['median_s'])} ({low} to {high}) | {_ms(one['p95_s'])} "
                f"| {_ms(one['p99_s'])} | {'reference' if one['name'] == FORWARD else f'{off:.1g}'} |"
            )
        lines += ["", *(f"- {one['what']}: {one['found']:.2f}" for one in network["ratios"])]
        lines += [f"- {goal_line(goal)}" for goal in network["goals"]]
    return "\n".join(lines) + "\n"


def goal_line(goal: Mapping[str, Any]) -> str:
    """A goal of a report in words."""
    said = {True: "reached", False: "**not reached**", None: "not measured"}[goal["reached"]]
    found = "nothing" if goal["found"] is None else f"{goal['found']:.4g}"
    return f"aim: {goal['what']}: {found}, {goal['kind']} {goal['bound']:g}: {said}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g}"


def _silent(line: str) -> None:
    del line
