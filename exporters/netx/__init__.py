"""NetX HDF5, the file format of Intel's lava-dl (0.6.0): written and read with h5py alone.

Layout of a file (axes in PyTorch's order)::

    /layer/0 ...                  hard reset: where stock NetX looks for layers
    /gascnn/format                "gascnn-netx-1"
    /gascnn/digest                SHA-256 over every integer that decides a spike, as exported
    /gascnn/deployment            JSON: how to feed and read the network (:class:`Deployment`)
    /gascnn/segments              JSON: what the channels of each synaptic layer are for
    /gascnn/input_bits            0 for spikes, 8 for graded pixels
    /gascnn/constant_channels     how many always-on planes the host adds to the input
    /gascnn/layer/0 ...           subtract reset only: layers with a ``self_weight``, which stock NetX cannot run;
                                  it finds no /layer there and stops

Stock NetX ignores the ``gascnn`` group.
"""

from gascnn.exporters.netx.read import read_netx, recorded_digest
from gascnn.exporters.netx.write import write_netx

__all__ = ["read_netx", "recorded_digest", "write_netx"]
