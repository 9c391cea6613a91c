"""A NetX file over a Dask cluster of processes: the bits of a local run, whatever happens to the workers."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from distributed import LocalCluster

from gascnn.exporters.netx import write_netx
from gascnn.hardware.backends import open_netx, run_images, run_spikes
from gascnn.hardware.cluster import Cluster, run_on_cluster, session
from gascnn.hardware.cluster.worker import run_piece, software
from gascnn.hardware.result import population_rates
from gascnn.toolkit.errors import BackendError, DataError, FormatError, LimitError, UsageError
from gascnn.toolkit.lowering.deployment import Deployment
from gascnn.toolkit.lowering.network import ConvLayer, CubaNeuron, DenseLayer, InputLayer, NetxNetwork

STEPS, IMAGES = 12, 45


def small_network(coding="bernoulli", input_bits=0, **record):
    rng = np.random.default_rng(3)
    scale = 255 if input_bits else 1
    kernel = rng.integers(-20, 45, (4, 1, 3, 3)) * 2
    conv = ConvLayer((4, 8, 8), kernel, (1, 1), (1, 1), (1, 1), 1, CubaNeuron(np.array(150 * scale), np.array(300)))
    dense = DenseLayer((5,), rng.integers(-30, 50, (5, 256)) * 2, CubaNeuron(np.array(900)), flatten=True)
    deployment = Deployment((1, 8, 8), tuple("abcde"), STEPS, coding=coding, seed=7, **record)
    return NetxNetwork(InputLayer((1, 8, 8)), (conv, dense), input_bits=input_bits, deployment=deployment)


def written(network, path):
    write_netx(network, path)
    return open_netx(path)


@pytest.fixture
def file(tmp_path):
    return written(small_network(), tmp_path / "small.net")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(5).integers(0, 256, (IMAGES, 1, 8, 8)).astype(np.uint8)


@pytest.fixture(scope="module")
def dask():
    """Two worker processes, for the tests that leave them alive."""
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster:
        yield cluster


@pytest.fixture
def address(dask):
    return dask.scheduler_address


@pytest.fixture
def start():
    """Start what ``dask scheduler`` and ``dask worker`` start; everything is ended in the end."""
    started = []

    def begin(command, *arguments, before=""):
        script = f"{before}\nfrom distributed.cli.dask_{command} import main\nmain()"
        call = [sys.executable, "-c", script, *arguments, "--no-dashboard"]
        started.append(subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return started[-1]

    yield begin
    for process in reversed(started):
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


def scheduler(start, before=""):
    """Address and process of a scheduler without workers."""
    port = free_port()
    process = start("scheduler", "--host", f"tcp://127.0.0.1:{port}", before=before)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            break
        time.sleep(0.05)
    return f"tcp://127.0.0.1:{port}", process


def worker(start, address, before=""):
    """A worker that nobody starts anew."""
    return start("worker", address, "--no-nanny", "--nthreads", "1", before=before)


def assert_same(found, expected):
    assert found.steps == expected.steps
    assert found.wraps == expected.wraps
    pairs = [(found.output_counts, expected.output_counts), (found.output_membrane, expected.output_membrane)]
    pairs += list(zip(found.counts, expected.counts, strict=True))
    pairs += list(zip(found.spikes or [], expected.spikes or [], strict=True))
    for one, other in pairs:
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert all(count.sum() for count in expected.counts)


# Kernels are compiled in each process at their first use: one test has them, the others do without.


def test_images_give_the_bits_of_a_local_run(file, images, address):
    seen = []
    found = run_on_cluster(
        file, scheduler=address, images=images, record="spikes", batch_size=4, seed=2, progress=seen.append
    )
    assert_same(found, run_images(file, images, record="spikes", seed=2))
    assert [layer.shape[:2] for layer in found.spikes] == [(IMAGES, STEPS + 2)] * 2
    assert len(seen) == 12
    assert seen == sorted(seen)
    assert seen[-1] == IMAGES


def test_spikes_and_pixels_give_the_bits_of_a_local_run(file, address, tmp_path):
    rng = np.random.default_rng(1)
    spikes = rng.random((9, 20, 1, 8, 8)) < 0.4
    with Cluster(address) as cluster:
        found = cluster.run(file, spikes=spikes, steps=15, record="spikes", method="plain")
        assert_same(found, run_spikes(file, spikes, steps=15, record="spikes", method="plain"))
        graded = written(small_network("constant", input_bits=8), tmp_path / "graded.net")
        pixels = rng.integers(0, 256, (5, 6, 1, 8, 8))
        assert_same(cluster.run(graded, spikes=pixels, method="plain"), run_spikes(graded, pixels, method="plain"))


def test_a_summary_is_the_sum_of_a_local_run(file, images, address):
    with Cluster(address) as cluster:
        found = cluster.summarise(file, images=images, batch_size=7, method="plain")
        assert cluster.workers == 2
        assert cluster.peak_memory_bytes > 20 << 20
    expected = run_images(file, images, method="plain")
    np.testing.assert_array_equal(found.predictions(), expected.predictions())
    np.testing.assert_array_equal(found.scores(), expected.scores())
    np.testing.assert_array_equal(found.output_membrane, expected.output_membrane)
    for total, count in zip(found.totals, expected.counts, strict=True):
        np.testing.assert_array_equal(total, count.sum(axis=0))
    assert found.rates(file.network) == population_rates(file.network, expected.counts, STEPS)
    assert found.wraps == expected.wraps


def logged(folder):
    """A task that notes which worker began which piece, and takes its time, so that a signal finds it at work."""
    log = str(folder / "begun")

    def task(job, data, piece):
        import os
        import time

        with open(log, "a") as handle:
            handle.write(f"{piece.first} {os.getpid()}\n")
        time.sleep(0.1)
        return run_piece(job, data, piece)

    return task


def begun(folder):
    """(number of the first image, process) of every piece a worker began."""
    return [tuple(map(int, line.split())) for line in (folder / "begun").read_text().splitlines()]


@pytest.mark.slow
def test_killed_workers_cost_nothing_but_time(file, images, start, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "run_piece", logged(tmp_path))
    where, _ = scheduler(start)
    start("worker", where, "--nworkers", "2", "--nthreads", "1")  # nannies start them anew
    expected = run_images(file, images, record="spikes", method="plain")
    with Cluster(where) as cluster:
        cluster._client.wait_for_workers(2, timeout=60)
        for killed in (1, 2):  # with all of them goes the file, too
            victims = []

            def kill(done, victims=victims, killed=killed):
                if not victims:
                    victims.extend(sorted({process for _, process in begun(tmp_path)})[:killed])
                    for process in victims:
                        os.kill(process, signal.SIGKILL)

            cluster._client.wait_for_workers(2, timeout=60)
            (tmp_path / "begun").write_text("")
            found = cluster.run(file, images=images, batch_size=4, record="spikes", progress=kill, method="plain")
            assert_same(found, expected)
            times = Counter(first for first, _ in begun(tmp_path))
            assert any(times[first] > 1 for first, process in begun(tmp_path) if process in victims)


def test_a_piece_that_ends_every_worker_is_named(file, images, start, monkeypatch):
    where, _ = scheduler(start, 'import dask; dask.config.set({"distributed.scheduler.allowed-failures": 0})')
    worker(start, where)

    def deadly(job, data, piece):
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(session, "run_piece", deadly)
    with pytest.raises(
        BackendError, match=r"1 workers died one after the other with the images from number 0 on.*lower"
    ):
        run_on_cluster(file, scheduler=where, images=images[:1], method="plain")


def test_what_is_unforeseen_is_tried_again_and_then_said(file, images, address, tmp_path, monkeypatch):
    log = str(tmp_path / "begun")

    def failing(times):
        def task(job, data, piece):

            with open(log, "a") as handle:
                handle.write("x")
            with open(log) as handle:
                if len(handle.read()) <= times:
                    raise MemoryError("no room\nat all")
            return run_piece(job, data, piece)

        return task

    with Cluster(address) as cluster:
        monkeypatch.setattr(session, "run_piece", failing(2))
        found = cluster.run(file, images=images[:1], method="plain")
        assert_same(found, run_images(file, images[:1], method="plain"))
        monkeypatch.setattr(session, "run_piece", failing(99))
        with pytest.raises(BackendError, match=r"failed on the images from number 0 on \(MemoryError: no room\)$"):
            cluster.run(file, images=images[:1], method="plain")


TIGHT = {"memory_bytes": 1000, "method": "plain"}
"""A limit that nothing fits, and one way to say so: pieces of other sizes may go other ways."""


def test_errors_of_the_data_are_those_of_a_local_run(file, images, address, tmp_path):
    dim = written(small_network("regular", pixel_max=100), tmp_path / "dim.net")
    cases = [
        (DataError, "this network takes", run_images, file, {"images": images[:, :, :7]}),
        (DataError, "spikes must be integers 0..1; found 2..2", run_spikes, file, {"spikes": images[:2, None] * 0 + 2}),
        (DataError, "spikes of one step have shape", run_spikes, file, {"spikes": np.ones((2, 3, 1, 8, 7))}),
        (DataError, "this network takes 0..100", run_images, dim, {"images": images[:1]}),
        (UsageError, "steps is 0", run_images, file, {"images": images, "steps": 0}),
        (UsageError, "batch size is 0", run_images, file, {"images": images, "batch_size": 0}),
        (LimitError, "allow more memory", run_images, file, {"images": images, **TIGHT}),
        (UsageError, "method is 'magic'", run_images, file, {"images": images, "method": "magic"}),
    ]
    with Cluster(address) as cluster:
        for kind, message, local, network, given in cases:
            with pytest.raises(kind, match=message) as here:
                local(network, **given)
            with pytest.raises(kind) as there:
                cluster.run(network, **given)
            assert type(there.value) is type(here.value)
            assert str(there.value) == str(here.value)
        with pytest.raises(UsageError, match="give either images or spikes"):
            cluster.run(file)
        with pytest.raises(DataError, match="no images to run"):
            cluster.run(file, images=images[:0])


def test_an_interrupted_run_leaves_nothing_behind(file, images, dask, address):
    def interrupt(done):
        raise KeyboardInterrupt

    with Cluster(address) as cluster:
        with pytest.raises(KeyboardInterrupt):
            cluster.run(file, images=images, batch_size=1, progress=interrupt, method="plain")
        deadline = time.monotonic() + 10
        while dask.scheduler.tasks and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not dask.scheduler.tasks
        assert_same(cluster.run(file, images=images, method="plain"), run_images(file, images, method="plain"))


def test_few_pieces_are_under_way_at_a_time(file, images, dask, address, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "run_piece", logged(tmp_path))
    most = []
    with Cluster(address) as cluster:
        cluster.run(
            file,
            images=images,
            batch_size=2,
            progress=lambda done: most.append(len(dask.scheduler.tasks)),
            method="plain",
        )
    assert len(most) == 23
    assert max(most) <= 2 * 2 * 2 + 1  # two a thread, as many again that are being forgotten, and the network


def test_nobody_there(dask, address):
    nobody = f"tcp://127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(BackendError, match=f"no scheduler answers at {nobody} .*; start one: dask scheduler"):
        Cluster(nobody, connect_timeout_s=1)
    assert time.monotonic() - started < 5
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        silent = f"tcp://127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(BackendError, match="no scheduler answers"):
            Cluster(silent, connect_timeout_s=1)
    with pytest.raises(BackendError, match="is a Dask worker, not a scheduler"):
        Cluster(next(iter(dask.scheduler.workers)))


def test_no_workers(start):
    where, _ = scheduler(start)
    with pytest.raises(BackendError, match=r"has no workers after 0.5 s; start some: dask worker tcp://"):
        Cluster(where, connect_timeout_s=0.5)


OTHER = "from gascnn.hardware.cluster import worker; worker.software = lambda: worker.Software('0.0.1', 'f' * 64)"


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (
            "import sys; sys.modules['gascnn'] = None",
            r"cannot run gascnn \(.*ModuleNotFound.* install gascnn\[cluster\]",
        ),
        (OTHER, rf"has gascnn 0.0.1, simulator f{{12}}, this side {software()}; install the same gascnn on all"),
    ],
)
def test_workers_without_this_gascnn(start, before, message):
    where, _ = scheduler(start)
    other = worker(start, where, before)
    with pytest.raises(BackendError, match=message):
        Cluster(where)
    assert other.poll() is None, "the question alone must not end a worker"


def test_the_last_worker_goes(start, file, images, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "run_piece", logged(tmp_path))
    monkeypatch.setattr(session, "_LOOK_S", 0.2)
    where, _ = scheduler(start)
    last = worker(start, where)
    with Cluster(where) as cluster:
        cluster._timeout_s = 0.5
        with pytest.raises(BackendError, match=r"no worker is left at tcp://.* since 0.5 s; start some"):
            cluster.run(file, images=images, batch_size=4, progress=lambda done: last.kill(), method="plain")


def test_the_scheduler_goes(start, file, images, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "run_piece", logged(tmp_path))
    where, process = scheduler(start)
    worker(start, where)
    with Cluster(where) as cluster, pytest.raises(BackendError, match=f"lost the scheduler at {where}"):
        cluster.run(file, images=images, batch_size=4, progress=lambda done: process.kill(), method="plain")


def test_a_file_that_changed_is_not_sent(file, images, address):
    with open(file.path, "ab") as handle:
        handle.write(b"0")
    with Cluster(address) as cluster:
        with pytest.raises(FormatError, match="changed since it was opened"):
            cluster.run(file, images=images, method="plain")
        file.path.unlink()
        with pytest.raises(FormatError, match=r"cannot be read \(No such file"):
            cluster.run(file, images=images, method="plain")
