"""A user's own network: ``--model package:function --weights FILE``."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gascnn.toolkit.errors import FormatError, UsageError
from gascnn.toolkit.files import sha256_file


def load_own_model(name: str, weights: Path | None) -> tuple[nn.Module, dict[str, Any]]:
    """Import and call ``package:function``, load its weights.

    Args:
        name: a module on the Python path or in the current folder, a colon, a function of no arguments (or a class)
            that gives an ``nn.Module``. The user asked for this code to be run.
        weights: safetensors, or a PyTorch state dict (read without unpickling objects); None keeps what the function
            loaded itself.

    Returns:
        The network in evaluation mode and where it came from.

    Raises:
        UsageError: no such module or function, or it gives something else.
        FormatError: weights that cannot be read or do not fit.
    """
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise UsageError(f"--model is {name!r}; give PACKAGE:FUNCTION, such as my_package.models:my_net")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except ImportError as error:
        raise UsageError(
            f"--model {name}: cannot import {module_name} ({error}); run where it can be imported"
        ) from error
    except AttributeError as error:
        raise UsageError(f"--model {name}: {module_name} has no {function_name}") from error
    model = function()
    if not isinstance(model, nn.Module):
        raise UsageError(f"--model {name} gives a {type(model).__name__}; it must give a torch.nn.Module")
    source: dict[str, Any] = {"model": name}
    if weights is not None:
        _load(model, weights)
        source["weights_sha256"] = sha256_file(weights)
    return model.eval(), source


def _load(model: nn.Module, path: Path) -> None:
    try:
        model.load_state_dict(_read_state(path))
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise FormatError(f"{path}: the weights do not fit the model ({reason[:300]})") from error
    bad = [n for n, v in model.state_dict().items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
    if bad:
        raise FormatError(f"{path}: {bad[0]} holds NaN or infinity; train again")


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FormatError(f"{path}: no such file; give the weights as safetensors or a PyTorch state dict")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except (SafetensorError, ValueError) as error:
            raise FormatError(f"{path}: not a safetensors file ({error})") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise FormatError(
            f"{path}: not a state dict that can be read safely ({' '.join(str(error).split())[:200]}); "
            "save it with torch.save(model.state_dict()) or as safetensors"
        ) from error
    if isinstance(state, dict) and "state_dict" in state:
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise FormatError(f"{path}: holds something else than named tensors; save model.state_dict()")
    return state
