"""Short vectors for numba kernels: 32 lanes, which LLVM cuts to whatever the processor has (AVX-512, AVX2, NEON).

Numba vectorises loops, but cannot keep a vector in a register from one loop to the next, and so stores and loads a
neuron's state at every time step; nor does it know compress-store. Both are what a spiking layer consists of. The
types and functions here are written through numba's documented extension interface (``numba.extending``).

Loads and stores take an array and the index of their first element and check nothing. Numba's cache on disk watches
the file of the kernel alone: after a change here, touch ``kernels.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 32
_WIDTH = 16
"""Lanes of one LLVM vector; a :class:`Vector` is several of them, so that masks need not be cut."""

_PARTS = LANES // _WIDTH
_I32, _I64 = ir.IntType(32), ir.IntType(64)
_ZEROS = ir.Constant(ir.VectorType(_I32, _WIDTH), [0] * _WIDTH)


class Vector(types.Type):
    """``LANES`` integers of so many bits; one bit makes a mask."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        super().__init__(name=f"Vector({LANES} x int{bits})")

    @property
    def part(self) -> ir.VectorType:
        """An LLVM vector."""
        return ir.VectorType(ir.IntType(self.bits), _WIDTH)

    @property
    def llvm(self) -> ir.ArrayType:
        """As LLVM knows it."""
        return ir.ArrayType(self.part, _PARTS)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.llvm)


MASK, INT16, INT32, INT64 = Vector(1), Vector(16), Vector(32), Vector(64)


def _joined(builder: Any, parts: Iterable[Any], vector: Vector) -> Any:
    result: Any = ir.Constant(vector.llvm, ir.Undefined)
    for number, part in enumerate(parts):
        result = builder.insert_value(result, part, number)
    return result


def _partwise(result: Vector, operation: Callable[..., Any]) -> Callable[..., Any]:
    """Code that applies ``operation(builder, *parts)`` to each part of the arguments."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        parts = ([builder.extract_value(a, number) for a in arguments] for number in range(_PARTS))
        return _joined(builder, (operation(builder, *part) for part in parts), result)

    return generate


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any, part: int, target: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [builder.add(index, _I64(part * _WIDTH))]), target.as_pointer())


def _splat(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(ir.VectorType(value.type, _WIDTH), ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(undefined, value, _I32(0)), undefined, _ZEROS)


def _constant(vector: Vector, value: int) -> ir.Constant:
    return ir.Constant(vector.part, [value] * _WIDTH)


@intrinsic
def load(typing_context: Any, array: Any, index: Any) -> Any:
    """``array[index : index + LANES]`` as 32-bit lanes, whatever the array's type (int16 or int32)."""
    kept = Vector(array.dtype.bitwidth)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def one(part: int) -> Any:
            array, index = arguments
            value = builder.load(_address(context, builder, signature.args[0], array, index, part, kept.part))
            value.align = kept.bits // 8
            return value if kept.bits == 32 else builder.sext(value, INT32.part)

        return _joined(builder, map(one, range(_PARTS)), INT32)

    return INT32(array, types.intp), generate


@intrinsic
def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """``array[index : index + LANES] = value``, for lanes as wide as the array's."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index, value = arguments
        kept = signature.args[2]
        for part in range(_PARTS):
            pointer = _address(context, builder, signature.args[0], array, index, part, kept.part)
            builder.store(builder.extract_value(value, part), pointer).align = kept.bits // 8
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def add_row(typing_context: Any, sums: Any, where: Any, weights: Any, index: Any) -> Any:
    """``sums[where : where + LANES] += weights[index : index + LANES]``, both int16 or both int32."""
    bits = sums.dtype.bitwidth
    row = ir.VectorType(ir.IntType(bits), LANES)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, where, weights, index = arguments
        target = _address(context, builder, signature.args[0], sums, where, 0, row)
        source = _address(context, builder, signature.args[2], weights, index, 0, row)
        left, right = builder.load(target), builder.load(source)
        left.align = right.align = bits // 8
        builder.store(builder.add(left, right), target).align = bits // 8
        return context.get_dummy_value()

    return types.void(sums, types.intp, weights, types.intp), generate


@intrinsic
def splat(typing_context: Any, value: Any) -> Any:
    """An int32 in every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _joined(builder, [_splat(builder, arguments[0])] * _PARTS, INT32)

    return INT32(types.int32), generate


def _binary(operation: str) -> Any:
    def typed(typing_context: Any, left: Any, right: Any) -> Any:
        return left(left, right), _partwise(left, lambda builder, *parts: getattr(builder, operation)(*parts))

    return intrinsic(typed)


add, subtract = _binary("add"), _binary("sub")
shift_left, shift_right = _binary("shl"), _binary("ashr")


@intrinsic
def greater(typing_context: Any, left: Any, right: Any) -> Any:
    """Mask of ``left > right``, signed."""
    return MASK(left, right), _partwise(MASK, lambda builder, *parts: builder.icmp_signed(">", *parts))


@intrinsic
def select(typing_context: Any, mask: Any, yes: Any, no: Any) -> Any:
    """``yes`` where the mask is set, else ``no``."""
    return yes(mask, yes, no), _partwise(yes, lambda builder, *parts: builder.select(*parts))


@intrinsic
def maximum(typing_context: Any, left: Any, right: Any) -> Any:
    """The larger of two, lane by lane."""

    def one(builder: Any, *parts: Any) -> Any:
        return builder.select(builder.icmp_signed(">", *parts), *parts)

    return left(left, right), _partwise(left, one)


@intrinsic
def minimum(typing_context: Any, left: Any, right: Any) -> Any:
    """The smaller of two, lane by lane."""

    def one(builder: Any, *parts: Any) -> Any:
        return builder.select(builder.icmp_signed("<", *parts), *parts)

    return left(left, right), _partwise(left, one)


@intrinsic
def decay(typing_context: Any, state: Any, keep: Any) -> Any:
    """``sign(p) (|p| >> 12)`` of ``p = state * keep``, through 64 bits: rounds towards zero."""

    def one(builder: Any, *arguments: Any) -> Any:
        product = builder.mul(*(builder.sext(argument, INT64.part) for argument in arguments))
        upwards = builder.and_(builder.ashr(product, _constant(INT64, 63)), _constant(INT64, 4095))
        return builder.trunc(builder.ashr(builder.add(product, upwards), _constant(INT64, 12)), INT32.part)

    return INT32(INT32, INT32), _partwise(INT32, one)


@intrinsic
def count(typing_context: Any, mask: Any) -> Any:
    """Number of set lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total = _I64(0)
        for part in range(_PARTS):
            total = builder.add(total, _count(builder, builder.extract_value(arguments[0], part)))
        return total

    return types.intp(mask), generate


def _count(builder: Any, mask: Any) -> Any:
    wide = builder.zext(builder.bitcast(mask, ir.IntType(_WIDTH)), _I64)
    kind = ir.FunctionType(_I64, [_I64])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.ctpop.i64"), [wide])


@intrinsic
def lane_codes(typing_context: Any, first: Any) -> Any:
    """``first + (lane << 16)`` in every lane: events of neighbouring channels at one step."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start = _splat(builder, arguments[0])
        lanes = [[lane << 16 for lane in range(part * _WIDTH, (part + 1) * _WIDTH)] for part in range(_PARTS)]
        return _joined(builder, (builder.add(start, ir.Constant(INT32.part, part)) for part in lanes), INT32)

    return INT32(types.int32), generate


@intrinsic
def emit(typing_context: Any, events: Any, end: Any, codes: Any, mask: Any) -> Any:
    """Append the codes of all set lanes to ``events[end:]``; gives the new end."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, end, codes, mask = arguments
        kind = ir.FunctionType(ir.VoidType(), [INT32.part, _I32.as_pointer(), MASK.part])
        compress = cgutils.get_or_insert_function(builder.module, kind, "llvm.masked.compressstore.v16i32")
        for part in range(_PARTS):
            chosen = builder.extract_value(mask, part)
            pointer = _address(context, builder, signature.args[0], array, end, 0, _I32)
            builder.call(compress, [builder.extract_value(codes, part), pointer, chosen])
            end = builder.add(end, _count(builder, chosen))
        return end

    return types.intp(events, types.intp, INT32, mask), generate
