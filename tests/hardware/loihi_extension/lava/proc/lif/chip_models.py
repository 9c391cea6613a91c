"""The chip's neurons: Lava's own bit-accurate ones."""

from lava.magma.core.decorator import implements, requires
from lava.magma.core.model.c.model import CLoihiProcessModel
from lava.magma.core.resources import Loihi2NeuroCore
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.lif.models import PyLifModelBitAcc, PyLifResetModelBitAcc
from lava.proc.lif.process import LIF, LIFReset


@implements(proc=LIF, protocol=LoihiProtocol)
@requires(Loihi2NeuroCore)
class ChipLif(PyLifModelBitAcc, CLoihiProcessModel):
    """Neurons without a periodic reset."""


@implements(proc=LIFReset, protocol=LoihiProtocol)
@requires(Loihi2NeuroCore)
class ChipLifReset(PyLifResetModelBitAcc, CLoihiProcessModel):
    """Neurons with a periodic reset."""
