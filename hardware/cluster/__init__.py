"""Run a NetX file over a Dask cluster: the same bits as here, from as many machines as there are.

The images are cut into pieces; each piece is encoded by the number of its first image, so that random codings draw
what they would have drawn here, and simulated by :func:`gascnn.hardware.simulator.simulate` on whichever worker is
free. The file's bytes leave this machine once; workers hand them on to each other and check their SHA-256. A worker
that dies costs its piece a second run, nothing else. A bounded number of pieces is under way at any time.

A Dask scheduler is trusted infrastructure: its protocol is built on pickle, and whoever reaches it can run code on
every worker and on this machine. See ``docs/cluster.md``.
"""

from gascnn.hardware.cluster.session import Cluster, run_on_cluster

__all__ = ["Cluster", "run_on_cluster"]
