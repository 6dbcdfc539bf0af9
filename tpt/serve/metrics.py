"""The counts and times of a service, in Prometheus' format."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)


class Metrics:
    """The figures of one service, in a registry of their own."""

    def __init__(self, queue_depth: Callable[[], float]) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "tpt_requests", "Requests answered.", ("route", "code"), registry=self._registry
        )
        self.duration = Histogram(
            "tpt_request_duration_seconds",
            "From a request's head to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        about = "Pictures accepted and not answered yet."
        depth = Gauge("tpt_queue_depth", about, registry=self._registry)
        depth.set_function(queue_depth)
        self.batch = Histogram(
            "tpt_batch_size",
            "Pictures computed together.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self._registry,
        )
        self.images = Counter(
            "tpt_images",
            "Pictures by what came of them: ok, error, or dropped unanswered.",
            ("outcome",),
            registry=self._registry,
        )
        self._stages = Histogram(
            "tpt_stage_seconds",
            "Time in a stage: read (a request's body), classes (its list made ready), decode, wait "
            "(for a batch), adapt (a batch).",
            ("stage",),
            buckets=_SECONDS,
            registry=self._registry,
        )

    def observe(self, stage: str, seconds: float) -> None:
        self._stages.labels(stage).observe(seconds)

    def render(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)
