"""Adapters between processes of the host and of the chip: they pass on what comes, in the step in which it comes."""

import numpy as np
from lava.magma.core.decorator import implements, requires
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


class _Adapter(AbstractProcess):
    def __init__(self, *, shape, num_message_bits=0):
        super().__init__(shape=shape, num_message_bits=num_message_bits)
        self.inp = InPort(shape=shape)
        self.out = OutPort(shape=shape)


class PyToNxAdapter(_Adapter):
    """From the host to dense synapses."""

    def __init__(self, *, shape, num_message_bits=0):
        assert len(shape) == 1, "convolutions need PyToN3ConvAdapter"
        super().__init__(shape=shape, num_message_bits=num_message_bits)


class PyToN3ConvAdapter(_Adapter):
    """From the host to a convolution."""

    def __init__(self, *, shape, num_message_bits=0):
        assert len(shape) == 3, "dense synapses need PyToNxAdapter"
        super().__init__(shape=shape, num_message_bits=num_message_bits)


class NxToPyAdapter(_Adapter):
    """From the chip to the host."""


class _Passing(PyLoihiProcessModel):
    inp: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, parameters):
        super().__init__(parameters)
        self.graded = parameters["num_message_bits"] > 0

    def run_spk(self):
        came = self.inp.recv()
        assert self.graded or np.all((came == 0) | (came == 1)), "a graded message through an adapter of spikes"
        self.out.send(came)


@implements(proc=PyToNxAdapter, protocol=LoihiProtocol)
@requires(CPU)
class PyPyToNx(_Passing):
    """To dense synapses."""


@implements(proc=PyToN3ConvAdapter, protocol=LoihiProtocol)
@requires(CPU)
class PyPyToN3Conv(_Passing):
    """To a convolution."""


@implements(proc=NxToPyAdapter, protocol=LoihiProtocol)
@requires(CPU)
class PyNxToPy(_Passing):
    """To the host."""
