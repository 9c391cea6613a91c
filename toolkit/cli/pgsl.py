"""``gascnn pgsl``: split learning in one process and over a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gascnn.toolkit.cli import options, pgsl_local
from gascnn.toolkit.cli.output import note, save_json, say
from gascnn.toolkit.cli.pgsl_local import split_options
from gascnn.toolkit.errors import DataError, UsageError

if TYPE_CHECKING:
    from gascnn.toolkit.data import Dataset
    from gascnn.toolkit.pgsl.wire.serve import Address
    from gascnn.toolkit.pgsl.wire.served import Served

PORT = 8443
MOST_RATE = 1e6

_PLAIN = click.option(
    "--plain-http-anywhere", is_flag=True, help="Allow plain HTTP beyond this machine: tokens and activations show."
)
_SERVER = click.option("--server", metavar="URL", required=True, help="Such as https://host:8443.")
_KEY = click.option(
    "--key", type=options.PATH, required=True, metavar="FOLDER", help="Token and certificates: clients/NAME of 'keys'."
)
_PATIENCE = click.option(
    "--patience", type=float, default=120.0, show_default=True, help="Seconds to ask again while the server is silent."
)
_TIMEOUT = click.option(
    "--timeout", type=float, default=60.0, show_default=True, help="Seconds to wait for one answer before asking again."
)


@click.group("pgsl")
def command() -> None:
    """Split learning: in one process, or over a network with keys, a server and its clients (docs/pgsl.md)."""


command.add_command(pgsl_local.train)
command.add_command(pgsl_local.evaluate)


@command.command("keys")
@click.argument("folder", type=options.PATH)
@click.option("--train", multiple=True, metavar="NAME", help="A client that trains; in the order of their turns.")
@click.option("--infer", multiple=True, metavar="NAME", help="A client that only classifies.")
@click.option("--metrics", multiple=True, metavar="NAME", help="Who may only read the metrics.")
@click.option(
    "--host", multiple=True, default=("localhost", "127.0.0.1", "::1"), show_default=True,
    help="Names and addresses of the server, for its certificate.",
)  # fmt: skip
@click.option("--no-certificates", is_flag=True, help="Make tokens alone.")
def keys(
    folder: Path,
    train: Sequence[str],
    infer: Sequence[str],
    metrics: Sequence[str],
    host: Sequence[str],
    no_certificates: bool,
) -> None:
    """Make tokens and development certificates: FOLDER/server, and FOLDER/clients/NAME to give to each client."""
    from gascnn.toolkit.pgsl.wire.tls import VALID_DAYS, make_keys

    roles = (("train", train), ("infer", infer), ("metrics", metrics))
    clients = [(name, role) for role, names in roles for name in names]
    make_keys(folder, clients, host, certificates=not no_certificates)
    what = "tokens" if no_certificates else f"tokens, and certificates of {VALID_DAYS} days for development,"
    say(f"{folder}: {what} of {len(clients)} clients")


@command.command("serve")
@click.option("--keys", "keys_folder", type=options.PATH, required=True, metavar="FOLDER",
              help="The server's part of 'keys': tokens, and certificates if there are some.")  # fmt: skip
@click.option("--run", "run_folder", type=options.PATH, required=True, metavar="FOLDER",
              help="For the checkpoint; a run that is there goes on.")  # fmt: skip
@click.option("--model", type=options.PATH, metavar="BUNDLE",
              help="A trained network, of 'gascnn pgsl train'; it says its classes, images, options.")  # fmt: skip
@click.option("--classes", type=int, metavar="N", help="Of the images; with --image-shape, for a new network.")
@click.option("--image-shape", metavar="C,H,W", help="Of the images.")
@click.option("--options", "options_file", type=options.PATH, metavar="FILE", help="JSON of split-learning options.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="One of them, such as epochs=3.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=int, default=PORT, show_default=True, help="0 takes a free one.")
@click.option("--certificate", type=options.PATH, metavar="FILE", help="PEM. Default: the one in --keys.")
@click.option("--private-key", type=options.PATH, metavar="FILE", help="PEM. Default: the one in --keys.")
@click.option("--client-certificates", is_flag=True, help="Let in only clients whose certificate the authority signed.")
@click.option("--client-ca", type=options.PATH, metavar="FILE", help="PEM of that authority. Default: that in --keys.")
@click.option("--plain-http", is_flag=True, help="No TLS, on this machine alone, though there is a certificate.")
@_PLAIN
@click.option("--turn-batches", type=int, metavar="N", default=20, show_default=True, help="Batches of a turn.")
@click.option("--lease", type=float, default=60.0, show_default=True, help="Seconds of silence that end a turn.")
@click.option("--max-body", metavar="SIZE", help="Of a request, such as 8M. Default: what the network needs.")
@click.option("--rate", type=float, default=100.0, show_default=True, help="Requests a second of one client.")
@click.option("--threads", type=int, default=0, help="Of torch; 0 takes its default.")
def serve(**arguments: Any) -> None:
    """Serve the network's larger part: train with the clients in turn, and classify what they send.

    A new network takes --classes and --image-shape; a trained one is a bundle's (--model), and its clients are what
    'gascnn export BUNDLE --target onnx' writes. Stopped or killed, it goes on from the last whole turn when it is
    started again with the same options.
    """
    _serve(**arguments)


@command.group("client")
def client() -> None:
    """The other end: 'train' needs torch, 'infer' onnxruntime alone."""


@client.command("train")
@_SERVER
@_KEY
@options.data(required=True)
@click.option("--shard", metavar="I/N", help="Train on the I-th of N equal parts of the training images, from 1.")
@options.limit()
@click.option("--local-epochs", type=int, metavar="N", default=5, show_default=True, help="Of the local classifier.")
@click.option("--local-width", type=int, metavar="N", default=8, show_default=True, help="Its first channels.")
@options.seed()
@click.option("--pixels", "least_pixels", type=int, metavar="K", help="Refuse an attack on fewer pixels.")
@click.option("--amount", "least_amount", type=float, metavar="A",
              help="With --pixels: refuse one that moves them by less, of 0 to 1.  [default: 1]")  # fmt: skip
@click.option("--threads", type=int, default=0, help="Of torch; 0 takes its default.")
@options.output("ONNX file of the trained client to write, for 'client infer'.")
@_PATIENCE
@_TIMEOUT
@_PLAIN
@options.json_file
def train(**arguments: Any) -> None:
    """Train with the server, in turn with its other clients, and write this client as an ONNX file."""
    save_json(arguments["json_path"], _train(**arguments))


@client.command("infer")
@click.argument("images", type=options.PATH, required=False)
@_SERVER
@_KEY
@click.option("--model", type=options.PATH, required=True, metavar="FILE", help="ONNX file of 'client train'.")
@options.data(help_text="Instead of IMAGES: a data set, whose labels give the accuracy.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True,
              help="Of the data set.")  # fmt: skip
@options.limit()
@click.option("--threads", type=int, default=1, show_default=True, help="Of onnxruntime.")
@options.output("CSV to write: file, class, score of each class.", required=False)
@_PATIENCE
@_TIMEOUT
@_PLAIN
@options.json_file
def infer(**arguments: Any) -> None:
    """Classify IMAGES: their activations go to the server, its scores come back. Needs no torch.

    IMAGES is a folder of pictures, or an .npz with uint8 images (n, C, H, W) and, if known, labels.
    """
    from gascnn.toolkit.cli.pgsl_infer import classify

    json_path = arguments.pop("json_path")
    save_json(json_path, classify(**arguments))


def _serve(
    *,
    keys_folder: Path,
    run_folder: Path,
    model: Path | None,
    classes: int | None,
    image_shape: str | None,
    options_file: Path | None,
    settings: Sequence[str],
    turn_batches: int,
    lease: float,
    max_body: str | None,
    rate: float,
    threads: int,
    **address: Any,
) -> None:
    options.positive("--turn-batches", turn_batches)
    options.torch_threads(threads)
    if not (0 < lease < math.inf and 0 < rate <= MOST_RATE):
        raise UsageError(
            f"--lease is {lease:g} and --rate {rate:g}; allowed: seconds above 0, up to {MOST_RATE:g} a second"
        )
    where = _address(keys_folder, **address)
    network = _served(model, classes, image_shape, options_file, settings)

    from gascnn.toolkit.pgsl.wire import serve as serving
    from gascnn.toolkit.pgsl.wire.app import default_limits, make_app
    from gascnn.toolkit.pgsl.wire.coordinator import Coordinator
    from gascnn.toolkit.pgsl.wire.limits import Callers
    from gascnn.toolkit.pgsl.wire.store import RunStore
    from gascnn.toolkit.pgsl.wire.tls import TOKENS_FILE

    callers = Callers.read(keys_folder / TOKENS_FILE)
    _set_threads(threads)
    agreed = {"order": list(callers.trainers), "turn_batches": turn_batches}
    store = RunStore(run_folder, network.server.options.to_dict(), network.described, agreed)
    network.begin(store)
    coordinator = Coordinator(
        network.server, network.channels, callers.trainers, store, turn_batches=turn_batches, lease_s=lease
    )  # fmt: skip
    limits = replace(default_limits(coordinator), requests_per_s=rate, burst=max(1, int(2 * rate)))
    size = options.memory_size(max_body, "--max-body")
    if size is not None:
        limits = replace(limits, body_bytes=size, pending_bytes=max(limits.pending_bytes, size))
    made = serving.make_server(make_app(coordinator, callers, limits), where)
    if where.certificate is None:
        note(f"plain HTTP on {where.host}: tokens and activations are not encrypted")
    progress = coordinator.progress
    say(f"step {progress.steps}, turn {progress.turns}; bodies up to {limits.body_bytes} bytes")
    serving.run(made)


def _served(
    model: Path | None,
    classes: int | None,
    image_shape: str | None,
    options_file: Path | None,
    settings: Sequence[str],
) -> Served:
    """What is served: a bundle's network, or a new one."""
    if model is not None:
        if classes is not None or image_shape is not None or options_file is not None or settings:
            raise UsageError(
                "--model says classes, images and options; leave --classes, --image-shape, --options and --set out"
            )
        from gascnn.toolkit.pgsl.wire.served import of_bundle

        return of_bundle(model)
    shape = options.shape(image_shape)
    if classes is None or shape is None:
        raise UsageError("a new network needs --classes and --image-shape; a trained one is named with --model")
    if len(shape) != 3 or shape[1] != shape[2]:
        raise UsageError(f"--image-shape is {image_shape!r}; give channels and two equal sides, such as 1,28,28")
    chosen = split_options(options_file, settings)
    from gascnn.toolkit.pgsl.wire.served import new_network

    return new_network(classes, (shape[0], shape[1], shape[2]), chosen)


def _address(
    keys: Path,
    *,
    host: str,
    port: int,
    certificate: Path | None,
    private_key: Path | None,
    client_certificates: bool,
    client_ca: Path | None,
    plain_http: bool,
    plain_http_anywhere: bool,
) -> Address:
    from gascnn.toolkit.pgsl.wire.serve import Address
    from gascnn.toolkit.pgsl.wire.tls import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE

    if plain_http and (certificate or private_key or client_certificates):
        raise UsageError("--plain-http excludes certificates; leave it out, or them")
    if certificate is None and private_key is None and not plain_http and (keys / CERTIFICATE_FILE).is_file():
        certificate, private_key = keys / CERTIFICATE_FILE, keys / KEY_FILE
    if client_certificates and client_ca is None:
        client_ca = keys / AUTHORITY_FILE
    return Address(host, port, certificate, private_key, client_ca, plain_http_anywhere)


def _train(
    *,
    server: str,
    key: Path,
    data: str,
    data_dir: Path | None,
    shard: str | None,
    limit: int | None,
    local_epochs: int,
    local_width: int,
    seed: int,
    least_pixels: int | None,
    least_amount: float | None,
    threads: int,
    output: Path,
    patience: float,
    timeout: float,
    plain_http_anywhere: bool,
    json_path: Path | None,
) -> dict[str, Any]:
    from gascnn.toolkit.pgsl.wire.client import Key, WireClient

    options.positive("--limit", limit)
    options.torch_threads(threads)
    if least_amount is not None and least_pixels is None:
        raise UsageError("--amount goes with --pixels; give how many pixels, too")
    part = _shard(shard)
    with WireClient(
        server, Key.read(key), patience_s=patience, timeout_s=timeout, plain_anywhere=plain_http_anywhere
    ) as wire:
        terms = wire.terms()
        # Only now, when there is a server: torch takes seconds to import.
        from gascnn.toolkit.cli.pgsl_client import train_client

        _set_threads(threads)
        return train_client(
            wire,
            agreed_dataset(data, data_dir, terms),
            part=part,
            limit=limit,
            local={"epochs": local_epochs, "width": local_width, "seed": seed},
            least_attack=None
            if least_pixels is None
            else (least_pixels, 1.0 if least_amount is None else least_amount),
            output=output,
        )


def _shard(text: str | None) -> tuple[int, int]:
    if text is None:
        return 1, 1
    first, found, second = text.partition("/")
    if not found or not first.isdecimal() or not second.isdecimal() or not 1 <= int(first) <= int(second):
        raise UsageError(f"--shard is {text!r}; give I/N, such as 1/4")
    return int(first), int(second)


def agreed_dataset(name: str, data_dir: Path | None, terms: dict[str, Any], framing: str = "whole") -> Dataset:
    """A data set in the server's size.

    Raises:
        DataError: it has other classes than the server.
    """
    from gascnn.toolkit.data import load_dataset

    channels, side, _ = terms["image_shape"]
    dataset = load_dataset(name, data_dir=data_dir, image_size=side, channels=channels, framing=framing)
    if len(dataset.class_names) != terms["classes"]:
        raise DataError(f"{name} has {len(dataset.class_names)} classes, the server {terms['classes']}")
    return dataset


def _set_threads(threads: int) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)
