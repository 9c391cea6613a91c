"""What the server tells Prometheus. No label comes from a request: their number is bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from gascnn.toolkit.pgsl.wire.coordinator import Coordinator

_BUCKETS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """Of one server.

    Args:
        coordinator: whose counts are shown.

    Attributes:
        requests: by kind and status.
        received: bytes of bodies, also of refused ones.
        latency: seconds from a request's headers to its answer, by kind.
        pending: bytes of requests that are being read or answered.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "gascnn_pgsl_requests", "Requests answered.", ["kind", "status"], registry=self._registry
        )
        self.received = Counter("gascnn_pgsl_received_bytes", "Bytes of bodies.", registry=self._registry)
        self.latency = Histogram(
            "gascnn_pgsl_request_seconds",
            "From a request's headers to its answer.",
            ["kind"],
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self.pending = Gauge("gascnn_pgsl_pending_bytes", "Bytes being read or answered.", registry=self._registry)
        self._registry.register(_Counts(coordinator))

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)


class _Counts(Collector):
    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    def collect(self) -> Iterator[Metric]:
        counts, progress = self._coordinator.counts, self._coordinator.progress
        for name, text, value in (
            ("batches", "Batches trained since the start, those taken back included.", counts.batches),
            ("repeated", "Requests sent again and answered again.", counts.repeated),
            ("turns", "Turns ended since the start.", counts.turns),
            ("turns_taken_back", "Turns begun and taken back.", counts.taken_back),
            ("turns_skipped", "Turns passed on because of silence.", counts.skipped),
            ("images", "Images classified since the start.", counts.images),
        ):
            yield CounterMetricFamily(f"gascnn_pgsl_{name}", text, value=value)
        yield GaugeMetricFamily("gascnn_pgsl_saved_steps", "Batches that count, of all runs.", value=progress.steps)
        yield GaugeMetricFamily("gascnn_pgsl_saved_turns", "Turns that count, of all runs.", value=progress.turns)
        yield GaugeMetricFamily("gascnn_pgsl_clients_done", "Clients that are done.", value=len(progress.done))
        batches = CounterMetricFamily(
            "gascnn_pgsl_client_batches", "Batches of a client that count.", labels=["client"]
        )
        for client in self._coordinator.clients:
            batches.add_metric([client], progress.own_batches.get(client, 0))
        yield batches
