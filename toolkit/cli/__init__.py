"""The command line ``gascnn``: one click group; each command lives in a module that is imported when it is called."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from gascnn.toolkit.cli.lazy import LazyGroup
from gascnn.toolkit.errors import GascnnError

COMMANDS = {
    "train": "train a classifier and write a bundle",
    "calibrate": "save activation statistics with a bundle, to convert it without data",
    "synthesise": "make images from a trained classifier alone",
    "gan": "train a GAN on real images, make labelled images with it",
    "convert": "turn a trained classifier into a spiking network",
    "export": "write a NetX file for Lava, a NIR file, or an ONNX file",
    "spike-learn": "retrain a NetX file with spikes to answer as its ANN",
    "run": "run a network on images or spikes",
    "verify": "compare the simulator with Lava, spike for spike",
    "predict": "classify the images of a folder",
    "pgsl": "split learning: in one process, or over a network with keys, server, clients",
    "data": "list and download data sets",
    "lava": "install Lava in an interpreter of its own, or show it",
    "doctor": "show versions, interpreters and backends",
    "bench": "measure deployed networks, side by side with their peers",
    "chain": "from images to a verified spike-encoded network, with a manifest of hashes",
    "demo": "train, convert, export, run in Lava, verify and report",
}
"""Commands in the order of the help; the module of the same name holds each."""

_MODULES = {name: (name.replace("-", "_"), line) for name, line in COMMANDS.items()}

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def _version() -> str:
    try:
        return version("gascnn")
    except PackageNotFoundError:
        return "unknown (not installed)"


@click.group(cls=LazyGroup, modules=_MODULES, context_settings=CONTEXT)
@click.version_option(_version(), prog_name="gascnn")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Privacy-preserving medical-image classifiers on neuromorphic chips.

    Train a classifier, turn it into a spiking network, export it as NetX for Intel's Lava, run and verify it. Exit
    status: 0 done, 1 a check failed or a backend broke, 2 wrong use or bad input.
    """


def main(arguments: list[str] | None = None) -> None:
    """Entry point of ``gascnn``."""
    dispatch(cli, sys.argv[1:] if arguments is None else arguments, "gascnn")


def export_main(arguments: list[str] | None = None) -> None:
    """Entry point of ``gascnn-export``, an alias of ``gascnn export``."""
    command = import_module("gascnn.toolkit.cli.export").command
    dispatch(command, sys.argv[1:] if arguments is None else arguments, "gascnn-export")


def dispatch(command: click.Command, arguments: list[str], name: str) -> None:
    """Run a click command; errors become one line on standard error and an exit status."""
    debug = "--debug" in arguments
    # Threads that wait by spinning starve whatever else runs on a shared machine; read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        # --debug may stand before or behind the command's name.
        left = [a for a in arguments if a != "--debug"]
        status: Any = command.main(left, prog_name=name, standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(2)
    except click.Abort:
        _fail("interrupted", 130)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except click.ClickException as error:
        hint = f" (see '{error.ctx.command_path} --help')" if isinstance(error, click.UsageError) and error.ctx else ""
        _fail(_one_line(error.format_message()) + hint, error.exit_code, debug)
    except GascnnError as error:
        _fail(_one_line(str(error)), error.exit_status, debug)
    except ModuleNotFoundError as error:
        _fail(_missing(error), 2, debug)
    except MemoryError:
        _fail("out of memory; use fewer images at once (--batch-size, --limit) or fewer steps", 1, debug)
    except Exception as error:
        _fail(
            f"unexpected {type(error).__name__}: {_one_line(str(error))}; run again with --debug to see where", 1, debug
        )


def _fail(message: str, status: int, debug: bool = False) -> None:
    if debug:
        traceback.print_exc()
    click.echo(f"error: {message}", err=True)
    sys.exit(status)


def _one_line(text: str) -> str:
    return " ".join(text.split())


_EXTRAS = {
    "nibabel": "medical",
    "pydicom": "medical",
    "onnxruntime": "edge",
    "httpx": "edge",
    "numba": "fast",
    "distributed": "cluster",
    "cryptography": "server",
    "fastapi": "server",
    "prometheus_client": "server",
    "uvicorn": "server",
    "matplotlib": "bench",
}
"""Which extra brings a package; all others come with ``train``."""


def _missing(error: ModuleNotFoundError) -> str:
    top = (error.name or "").split(".")[0]
    extra = _EXTRAS.get(top, "train")
    return f"this needs the package {top}; install it with: pip install 'gascnn[{extra}]'"
