"""What clients counted under load beside what the server counted, and both as a table."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gascnn.benchmarks.pgsl.load_clients import Load, LoadClient, Queries, Reference, Trainer
from gascnn.benchmarks.pgsl.server_process import Scrape, ServerProcess
from gascnn.toolkit.pgsl.wire.store import Checkpoint
from gascnn.toolkit.pgsl.wire.training import Report

_SLICES, _RESAMPLES = 20, 500
_BUSY = 0.85


class Watch:
    """Processor time of the server and of this process over a while."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.started, self._own, self._theirs = time.perf_counter(), time.process_time(), server.processor_s()

    def shares(self) -> dict[str, float]:
        """Of one core, and the seconds that passed."""
        passed = time.perf_counter() - self.started
        return {
            "seconds": passed,
            "server": (self._server.processor_s() - self._theirs) / passed,
            "clients": (time.process_time() - self._own) / passed,
        }


def limited_by(shares: Mapping[str, float], cores: int | None = None) -> str:
    """What kept the throughput from being higher, by the shares of a core that server and clients took."""
    cores = len(os.sched_getaffinity(0)) if cores is None else cores
    if shares["clients"] >= _BUSY:
        return "the clients: they are one interpreter, which was busy; these are not the server's figures"
    if shares["server"] >= _BUSY:
        return "the server's one thread for the network, which was busy"
    if shares["server"] + shares["clients"] >= _BUSY * cores:
        return "the cores, which server and clients share"
    return "neither server nor clients: something else used the cores, or the disk"


def latency(queries: Sequence[Queries]) -> dict[str, Any] | None:
    """Quantiles in seconds over all requests, with 95 % intervals from resampled twentieths of the time."""
    pairs = sorted((end, spent) for own in queries for end, spent in zip(own.ended, own.seconds, strict=True))
    if not pairs:
        return None
    ends, seconds = np.array(pairs).T
    slices = np.minimum(_SLICES * (ends - ends[0]) / max(float(ends[-1] - ends[0]), 1e-9), _SLICES - 1).astype(int)
    groups = [seconds[slices == i] for i in range(_SLICES) if (slices == i).any()]
    generator = np.random.default_rng(0)
    points = (0.5, 0.95, 0.99)
    drawn = [
        np.quantile(np.concatenate([groups[i] for i in generator.integers(0, len(groups), len(groups))]), points)
        for _ in range(_RESAMPLES)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    found: dict[str, Any] = {"requests": len(pairs), "max_s": float(seconds.max())}
    for place, (name, value) in enumerate(zip(("p50", "p95", "p99"), np.quantile(seconds, points), strict=True)):
        found[f"{name}_s"] = float(value)
        found[f"{name}_interval_s"] = [float(low[place]), float(high[place])]
    return found


def query_report(
    load: Load,
    clients: Sequence[LoadClient],
    queries: Sequence[Queries],
    started: float,
    shares: dict[str, float],
    seen: Scrape,
) -> dict[str, Any]:
    """Of a part in which all query.

    Args:
        load: what was asked.
        clients, queries: all of them, in one order.
        started: on the clock of :func:`time.perf_counter`.
        shares: of :class:`Watch`.
        seen: the server's metrics afterwards.
    """
    sent, answered, attempts = _totals(clients)
    errors = [error for client in clients for error in client.errors]
    wrong = sum(own.wrong for own in queries)
    checks = [
        _check("errors", len(errors), 0),
        _check("wrong answers", wrong, 0),
        _check("queries answered, of those sent", answered["query"], sent["query"]),
        _check("requests for each query", attempts["query"], sent["query"]),
        _check("queries the server answered", seen.total("requests_total", kind="query", status="200"), sent["query"]),
        _check("images the server classified", seen.total("images_total"), sent["query"]),
        _check("requests the server refused", seen.refused(), 0),
        _check("batches the server trained", seen.total("batches_total"), 0),
    ]
    count = seen.total("request_seconds_count", kind="query")
    ends = [end for own in queries for end in own.ended]
    return {
        "clients": load.clients,
        "seconds": shares["seconds"],
        "sent": dict(sent),
        "answered": dict(answered),
        "errors": errors[:5],
        "wrong": wrong,
        "latency": latency(queries),
        "throughput_per_s": len(ends) / (max(ends) - started) if ends else 0.0,
        "first_request_s": float(np.median([own.first_s for own in queries])),
        "server_mean_s": seen.total("request_seconds_sum", kind="query") / count if count else None,
        "processor_shares": shares,
        "limited": limited_by(shares),
        **_verdict(checks),
    }


@dataclass(frozen=True)
class Trained:
    """What came of a part with training."""

    clients: Sequence[LoadClient]
    asking: Sequence[LoadClient]
    trainers: Sequence[Trainer]
    queries: Sequence[Queries]
    reports: Mapping[str, Report]
    found: Checkpoint


def training_report(
    load: Load,
    trained: Trained,
    reference: Reference,
    shares: dict[str, float],
    seen: Scrape,
    outage: Mapping[str, Any],
) -> dict[str, Any]:
    """Of a part with training.

    Args:
        load: what was asked.
        trained: what came of it.
        reference: what should have.
        shares: of :class:`Watch`.
        seen: the server's metrics afterwards.
        outage: of a server that was killed, else empty.
    """
    sent, answered, attempts = _totals([*trained.clients, *trained.asking])
    errors = [error for client in trained.asking for error in client.errors]
    wrong = sum(own.wrong for own in trained.queries)
    checks = [
        _check("errors", len(errors), 0),
        _check("wrong answers", wrong, 0),
        _check("queries answered, of those sent", answered["query"], sent["query"]),
        *_same_training(load, trained, reference),
        *(_after_kill(load, seen, answered, outage) if outage else _undisturbed(load, seen, sent, answered, attempts)),
    ]
    return {
        "clients": load.clients,
        "trainers": load.trainers,
        "seconds": shares["seconds"],
        "sent": dict(sent),
        "answered": dict(answered),
        "sent_again": sum(attempts.values()) - sum(sent.values()),
        "errors": errors[:5],
        "wrong": wrong,
        "batches": trained.found.progress.steps,
        "turns": trained.found.progress.turns,
        "lost_turns": sum(report.lost_turns for report in trained.reports.values()),
        "latency": latency(trained.queries),
        "one_process_s": reference.seconds,
        "processor_shares": shares,
        **outage,
        **_verdict(checks),
    }


def _same_training(load: Load, trained: Trained, reference: Reference) -> list[dict[str, Any]]:
    names, progress = load.names()[0], trained.found.progress
    each = dict.fromkeys(names, load.batches)
    return [
        _check("batches each client counted", {name: trained.reports[name].batches for name in names}, each),
        _check("batches of each client in the checkpoint", progress.own_batches, each),
        _check("batches in the checkpoint", progress.steps, load.trainers * load.batches),
        _check("turns in the checkpoint", progress.turns, _turns(load)),
        _check("clients done", len(progress.done), load.trainers),
        _check("losses as in one process", [trained.reports[name].losses for name in names] == reference.losses, True),
        _check("server's weights and moments as in one process", _equal(trained.found.server, reference.server), True),
        _check("client's weights and moments as in one process", _equal(trained.found.client, reference.client), True),
        _check(
            "each client's end as in one process",
            all(_equal(one.client.state().tensors, reference.client) for one in trained.trainers),
            True,
        ),
    ]


def _undisturbed(
    load: Load, seen: Scrape, sent: Counter[str], answered: Counter[str], attempts: Counter[str]
) -> list[dict[str, Any]]:
    planned = load.trainers * load.batches
    kinds = ("turn", "batch", "hand-over", "query")
    return [
        _check("batches sent", sent["batch"], planned),
        _check("batches the server trained", seen.total("batches_total"), planned),
        _check("turns the server ended", seen.total("turns_total"), _turns(load)),
        _check("images the server classified", seen.total("images_total"), sent["query"]),
        _check(
            "requests the server answered, by kind",
            {kind: seen.total("requests_total", kind=kind, status="200") for kind in kinds},
            {kind: answered[kind] for kind in kinds},
        ),
        _check("requests sent again", sum(attempts.values()) - sum(sent.values()), 0),
        _check("requests the server refused", seen.refused(), 0),
        *_check_counts(load, seen, taken_back=0),
    ]


def _after_kill(load: Load, seen: Scrape, answered: Counter[str], outage: Mapping[str, Any]) -> list[dict[str, Any]]:
    lost = load.turn_batches // 2  # of the turn that was under way
    planned = load.trainers * load.batches
    return [
        _check("batches answered before the kill", outage["batches_before"], load.kill_at),
        _check("batches answered, those of the lost turn twice", answered["batch"], planned + lost),
        _check("batches trained since the restart", seen.total("batches_total"), planned + lost - load.kill_at),
        # The batch that found the server gone belongs to a grant it no longer knows.
        _check("requests refused since the restart", seen.refused(), 1),
        *_check_counts(load, seen, taken_back=0),
    ]


def _check_counts(load: Load, seen: Scrape, *, taken_back: int) -> list[dict[str, Any]]:
    return [
        _check("requests answered again", seen.total("repeated_total"), 0),
        _check("turns taken back", seen.total("turns_taken_back_total"), taken_back),
        _check("turns skipped", seen.total("turns_skipped_total"), 0),
        _check("batches that count, by the metrics", seen.total("client_batches_total"), load.trainers * load.batches),
    ]


def _turns(load: Load) -> int:
    return load.trainers * load.batches // load.turn_batches


def _equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def _totals(clients: Sequence[LoadClient]) -> tuple[Counter[str], Counter[str], Counter[str]]:
    sent, answered, attempts = Counter[str](), Counter[str](), Counter[str]()
    for client in clients:
        sent += client.wire.sent
        answered += client.wire.answered
        attempts += client.wire.attempts
    return sent, answered, attempts


def _check(what: str, found: Any, expected: Any) -> dict[str, Any]:
    return {"what": what, "found": found, "expected": expected, "equal": found == expected}


def _verdict(checks: list[dict[str, Any]]) -> dict[str, Any]:
    return {"checks": checks, "good": all(check["equal"] for check in checks)}


def markdown(report: Mapping[str, Any]) -> str:
    """The report of :func:`measure_load` as Markdown."""
    where, load = report["machine"], report["load"]
    lines = [
        f"{load['clients']} clients at once on loopback, images {load['image_size']}x{load['image_size']}x"
        f"{load['channels']}; the server's network on one thread. {where['processor']}, {where['cores_used']} cores, "
        f"load {where['load']}, torch {report['versions']['torch']}.",
        "",
        "| part | s | queries | errors | p50 ms | p95 ms | p99 ms (95 %) | queries/s | batches | core: server, clients "
        "| counts agree |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for title, part in report["parts"].items():
        shares = part["processor_shares"]
        rate = part.get("throughput_per_s")
        lines.append(
            f"| {title} | {part['seconds']:.1f} | {part['answered'].get('query', 0)} | {_errors(part)} "
            f"| {_quantiles(part['latency'])} | {'' if rate is None else f'{rate:.1f}'} | {part.get('batches', '')} "
            f"| {shares['server']:.2f}, {shares['clients']:.2f} | {'yes' if part['good'] else '**no**'} |"
        )
    lines.append("")
    for title, part in report["parts"].items():
        if "limited" in part:
            lines.append(f"- {title}: limited by {part['limited']}.")
        if "outage_s" in part:
            lines.append(
                f"- {title}: SIGKILL after {part['batches_before']} batches, amid a turn; listening again after "
                f"{part['outage_s']:.1f} s; {part['lost_turns']} turn made again."
            )
        lines += [
            f"- **{title}: {check['what']}: {check['found']}, expected {check['expected']}**"
            for check in part["checks"]
            if not check["equal"]
        ]
    return "\n".join(lines).rstrip() + "\n"


def _errors(part: Mapping[str, Any]) -> int:
    found: int = next(check["found"] for check in part["checks"] if check["what"] == "errors")
    return found


def _quantiles(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return " | | "
    low, high = found["p99_interval_s"]
    return (
        f"{1000 * found['p50_s']:.1f} | {1000 * found['p95_s']:.1f} "
        f"| {1000 * found['p99_s']:.1f} ({1000 * low:.1f} to {1000 * high:.1f})"
    )
