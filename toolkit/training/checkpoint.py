"""Checkpoints: one safetensors file each, tensors under dotted names, everything else as JSON in its header.

One file, written beside and renamed, is whole or not there whenever the process is killed. Nothing is pickled: the
optimiser's state is flattened to ``optimizer.<parameter>.<quantity>`` tensors and a JSON table of its plain numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gascnn.toolkit.errors import FormatError
from gascnn.toolkit.files import atomic_path

SCHEMA = 1
LAST_FILE, BEST_FILE = "last.safetensors", "best.safetensors"


def save_checkpoint(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write tensors and plain values to one file, atomically.

    Args:
        path: the file.
        tensors: copied in row-major order, whatever their layout in memory.
        values: anything JSON can hold, without NaN.

    Raises:
        DataError: the disk is full or the place cannot be written; an older file there is kept.
    """
    from safetensors.torch import save

    header = json.dumps({"schema": SCHEMA, **values}, allow_nan=False)
    stored = {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    content = save(stored, metadata={"gascnn": header})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_checkpoint` wrote.

    Raises:
        FormatError: missing, truncated, or not a checkpoint of this version.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            header = (file.metadata() or {}).get("gascnn", "null")
            # Copies: the file's own memory need not be aligned as torch's is, and vector code may differ by that.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
        values = json.loads(header)
    except (OSError, SafetensorError, ValueError) as error:
        raise FormatError(f"{path}: not a readable checkpoint ({error}); start again in a new folder") from error
    if not isinstance(values, dict) or values.pop("schema", None) != SCHEMA:
        raise FormatError(f"{path}: not a checkpoint of this version (schema {SCHEMA}); start again in a new folder")
    return tensors, values


def load_of_run(path: Path, run: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint whose values name its ``run``.

    Raises:
        FormatError: as :func:`load_checkpoint`, or it belongs to another run.
    """
    tensors, values = load_checkpoint(path)
    if values.get("run") != run:
        raise FormatError(f"{path} belongs to another run than run.json beside it; start again in a new folder")
    return tensors, values


def random_tensors(generator: torch.Generator) -> dict[str, Tensor]:
    """State of a generator of one's own and of torch's."""
    return {"random.generator": generator.get_state(), "random.torch": torch.get_rng_state()}


def restore_random(generator: torch.Generator, tensors: Mapping[str, Tensor]) -> None:
    """Put back what :func:`random_tensors` gave."""
    generator.set_state(tensors["random.generator"])
    torch.set_rng_state(tensors["random.torch"])


def module_tensors(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers under ``prefix.``."""
    return {f"{prefix}.{name}": value for name, value in module.state_dict().items()}


def restore_module(prefix: str, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy what :func:`module_tensors` gave back into ``module``, which keeps its layout in memory.

    Raises:
        FormatError: a tensor that is missing or has another shape.
    """
    with torch.no_grad():
        for name, own in module.state_dict().items():
            value = tensors.get(f"{prefix}.{name}")
            if value is None or value.shape != own.shape:
                found = "missing" if value is None else f"of shape {tuple(value.shape)}"
                raise FormatError(
                    f"tensor {prefix}.{name} is {found} in the checkpoint; expected shape {tuple(own.shape)}"
                )
            own.copy_(value)


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 over names and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """The state of an optimiser as named tensors and as plain values (by parameter number and quantity)."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
            else:
                plain.setdefault(str(index), {})[key] = value
    return tensors, plain


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], plain: Mapping[str, Mapping[str, Any]]
) -> None:
    """Put back what :func:`optimizer_state` gave; groups and their settings are the optimiser's own.

    The tensors are copied: the optimiser counts its steps in place, and what was given may be gone back to again.

    Raises:
        FormatError: state of a parameter that the optimiser does not have, or of another shape.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in plain.items()}
    for name, value in tensors.items():
        if not name.startswith("optimizer."):
            continue
        _, index, key = name.split(".", 2)
        if int(index) >= len(parameters):
            raise FormatError(f"tensor {name} of the checkpoint belongs to no parameter; the model is another one")
        parameter = parameters[int(index)]
        if value.ndim > 0 and value.shape != parameter.shape:
            raise FormatError(
                f"tensor {name} of the checkpoint has shape {tuple(value.shape)}; expected {tuple(parameter.shape)}"
            )
        # The same layout in memory as the parameter: the arithmetic then takes the same path to the last bit.
        kept = torch.empty_like(parameter, requires_grad=False).copy_(value) if value.ndim > 0 else value.clone()
        state.setdefault(int(index), {})[key] = kept
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def remove_leftovers(folder: Path) -> None:
    """Delete half-written files that a killed process left in a run's folder."""
    for name in (LAST_FILE, BEST_FILE, "run.json", "history.json"):
        for path in folder.glob(f".{name}.*"):
            shutil.rmtree(path, ignore_errors=True)
