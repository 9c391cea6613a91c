"""What of the Dask cluster needs none: addresses that cannot be, a missing library, spikes as bits."""

import sys

import numpy as np
import pytest

from gascnn.hardware.cluster import Cluster
from gascnn.hardware.cluster.worker import Packed
from gascnn.toolkit.errors import UsageError


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nonsense", "give tcp://HOST:PORT or tls://HOST:PORT"),
        ("tcp://host", "give tcp://HOST:PORT or tls://HOST:PORT"),
        ("inproc://x:1", "give tcp://HOST:PORT or tls://HOST:PORT"),
        ("tls://127.0.0.1:8786", "needs certificates; name them in Dask's configuration"),
    ],
)
def test_addresses_that_cannot_be(where, message):
    with pytest.raises(UsageError, match=message):
        Cluster(where)


def test_without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"pip install 'gascnn\[cluster\]'"):
        Cluster("tcp://127.0.0.1:8786")


@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 8), (2, 1, 3, 3)])
def test_packed_bits(shape):
    values = np.random.default_rng(0).random(shape) < 0.3
    packed = Packed.of(values.astype(np.uint8))
    assert packed.bits.nbytes == -(-values.size // 8)
    np.testing.assert_array_equal(packed.unpacked(), values)
    assert packed.unpacked().dtype == bool
