"""``--method``, ``--threads``, ``--memory`` and ``--scheduler``: they change where and how, never what comes out."""

import json

import numpy as np
import pytest
from distributed import LocalCluster
from PIL import Image

from gascnn.exporters.netx import write_netx
from gascnn.hardware.backends import open_netx, run_batches, run_images
from gascnn.hardware.result import population_rates
from gascnn.hardware.simulator import METHODS
from gascnn.hardware.summary import join, summarise
from gascnn.toolkit.cli import options
from gascnn.toolkit.cli.run import command as run_command
from gascnn.toolkit.errors import UsageError
from gascnn.toolkit.lowering.deployment import Deployment
from gascnn.toolkit.lowering.network import ConvLayer, CubaNeuron, DenseLayer, InputLayer, NetxNetwork

IMAGES = 11


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network with random spikes as its input, and images for it."""
    rng = np.random.default_rng(11)
    place = tmp_path_factory.mktemp("simulator")
    conv = ConvLayer(
        (3, 6, 6), rng.integers(-20, 40, (3, 1, 3, 3)) * 2, (1, 1), (1, 1), (1, 1), 1, CubaNeuron(np.array(120))
    )
    dense = DenseLayer((4,), rng.integers(-30, 50, (4, 108)) * 2, CubaNeuron(np.array(500)), flatten=True)
    deployment = Deployment((1, 6, 6), tuple("abcd"), 10, coding="bernoulli", seed=4)
    write_netx(NetxNetwork(InputLayer((1, 6, 6)), (conv, dense), deployment=deployment), place / "small.net")
    images = rng.integers(0, 256, (IMAGES, 1, 6, 6)).astype(np.uint8)
    np.savez(place / "in.npz", images=images)
    (place / "pictures").mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image[0]).save(place / "pictures" / f"{index:02d}.png")
    return place


@pytest.fixture(scope="module")
def scheduler():
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=True, dashboard_address=":0") as cluster:
        yield cluster.scheduler_address


def ran(gascnn, folder, *more):
    path = folder / "result.json"
    outcome = gascnn("run", folder / "small.net", "--input", folder / "in.npz", "--json", path, *more)
    assert outcome.status == 0, outcome.err
    return json.loads(path.read_text()), outcome


def test_the_result_says_how_it_was_run(gascnn, folder):
    usual, _ = ran(gascnn, folder)
    assert usual["method"] == "auto"
    assert usual["threads"] >= 1
    assert usual["memory_limit_bytes"] is None
    assert usual["peak_memory_bytes"] > 20 << 20
    assert "scheduler" not in usual
    expected = run_images(open_netx(folder / "small.net"), np.load(folder / "in.npz")["images"])
    assert usual["predictions"] == expected.predictions().tolist()
    rates = population_rates(open_netx(folder / "small.net").network, expected.counts, 10)
    assert list(usual["firing_rates"].values()) == rates
    assert min(rates) > 0
    more = ("--method", "plain", "--threads", 1, "--memory", "4G", "--batch-size", 3)
    given, outcome = ran(gascnn, folder, *more)
    assert (given["method"], given["threads"], given["memory_limit_bytes"]) == ("plain", 1, 4 << 30)
    assert "memory limit  4.00 GiB" in outcome.out
    assert "peak memory" in outcome.out
    for name in ("predictions", "firing_rates", "wraps", "steps"):
        assert given[name] == usual[name]


def test_a_run_on_a_cluster_gives_the_same_result(gascnn, folder, scheduler):
    usual, _ = ran(gascnn, folder)
    given, outcome = ran(gascnn, folder, "--scheduler", scheduler)
    assert (given["scheduler"], given["workers"], given["threads"]) == (scheduler, 1, 2)
    assert given["worker_peak_memory_bytes"] > 20 << 20
    assert scheduler in outcome.out
    for name in ("predictions", "firing_rates", "wraps", "steps", "network_digest"):
        assert given[name] == usual[name]
    spikes = [folder / name for name in ("here.npz", "there.npz")]
    ran(gascnn, folder, "--save-spikes", spikes[0])
    ran(gascnn, folder, "--save-spikes", spikes[1], "--scheduler", scheduler, "--threads", 1)
    here, there = (np.load(path) for path in spikes)
    assert here.files == there.files == ["layer_00", "layer_01"]
    for name in here.files:
        np.testing.assert_array_equal(here[name], there[name])


def test_predictions_of_a_folder_over_a_cluster(gascnn, folder, scheduler):
    tables = []
    for name, more in (("here.csv", ()), ("there.csv", ("--scheduler", scheduler))):
        outcome = gascnn("predict", folder / "small.net", folder / "pictures", "-o", folder / name, *more)
        assert outcome.status == 0, outcome.err
        tables.append((folder / name).read_text())
    assert tables[0] == tables[1]
    assert len(tables[0].splitlines()) == IMAGES + 1


def assert_refused(outcome, message):
    assert outcome.status == 2
    assert message in outcome.error
    assert len(outcome.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--threads", 0), "--threads is 0; it must be at least 1"),
        (("--memory", "much"), "--memory is 'much'; give a size such as 512M or 2G"),
        (("--method", "magic"), "'magic' is not one of"),
        (("--scheduler", "here"), "scheduler is 'here'; give tcp://HOST:PORT"),
        (("--backend", "lava", "--threads", 2), "--threads are for backend sim, not for lava"),
        (
            ("--backend", "lava-stock", "--scheduler", "tcp://h:1", "--memory", "1G"),
            "--memory and --scheduler are for backend sim, not for lava-stock",
        ),
    ],
)
def test_options_that_cannot_be(gascnn, folder, given, message):
    assert_refused(gascnn("run", folder / "small.net", "--input", folder / "in.npz", *given), message)
    target = folder / "none.csv"
    assert_refused(gascnn("predict", folder / "small.net", folder / "pictures", "-o", target, *given), message)
    assert not target.exists()


def test_models_that_are_no_netx_files(gascnn, models):
    for model in (models.ann, models.snn, models.nir):
        outcome = gascnn("run", model, "--data", "digits", "--scheduler", "tcp://127.0.0.1:1")
        assert_refused(outcome, "is not a NetX file; --scheduler need one, for the simulator; export it first")


@pytest.mark.parametrize(
    ("text", "size"),
    [("2G", 2 << 30), ("512M", 512 << 20), ("1.5g", 3 << 29), ("64 KiB", 65536), ("2GB", 2 << 30), ("4096", 4096)],
)
def test_sizes(text, size):
    assert options.memory_size(text) == size
    assert options.memory_size(None) is None


@pytest.mark.parametrize("text", ["", "0", "-1G", "G", "1e9", "2 GG", "1,5G", "0.1"])
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match="give a size such as 512M or 2G"):
        options.memory_size(text)


def test_every_method_of_the_simulator_can_be_chosen():
    (option,) = (parameter for parameter in run_command.params if parameter.name == "method")
    assert tuple(option.type.choices) == tuple(METHODS)


def test_batches_within_a_memory_limit(folder):
    file = open_netx(folder / "small.net")
    images = np.load(folder / "in.npz")["images"]
    # By hand: an image takes 2 * 10 * 36 bytes of spikes and 4 * (108 + 4) of counts, 1168 in all; a quarter is theirs.
    limit = 4 << 30
    batches = list(run_batches(file, images=images, memory_bytes=limit, batch_size=4))
    assert [batch.images for batch in batches] == [4, 4, 3]
    joined, whole = join(summarise(batch) for batch in batches), run_images(file, images)
    np.testing.assert_array_equal(joined.output_counts, whole.output_counts)
    np.testing.assert_array_equal(joined.totals[0], whole.counts[0].sum(axis=0))
    assert joined.wraps == whole.wraps
    with pytest.raises(UsageError, match="give either images or spikes"):
        list(run_batches(file))
    with pytest.raises(UsageError, match="memory can be set for backend sim only, not for lava"):
        list(run_batches(file, images=images, backend="lava", memory_bytes=limit))
    with pytest.raises(ValueError, match="no summaries"):
        join([])
