"""From a NIR graph to the integers that run: :class:`NetxNetwork`, the chip's limits, :func:`lower`. No torch here.

``lower`` needs the package ``nir``; reading, checking and simulating a deployed network does not, so it is imported
when first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gascnn.toolkit.lowering.to_netx import Lowered, LoweringOptions, lower, lower_with_report

__all__ = ["Lowered", "LoweringOptions", "lower", "lower_with_report"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from gascnn.toolkit.lowering import to_netx

        return getattr(to_netx, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
