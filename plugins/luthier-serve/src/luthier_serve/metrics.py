"""What the server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """The counters of one server; each metric's help says what it counts."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "luthier_requests", "Requests answered, by route and status", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "luthier_request_seconds", "From a request to its end", ["route"], buckets=SECONDS, registry=registry
        )
        self.first_token = Histogram(
            "luthier_first_token_seconds",
            "From a request to the first token of its completion",
            ["model"],
            buckets=SECONDS,
            registry=registry,
        )
        self.tokens = Counter(
            "luthier_tokens", "Tokens of prompts and of completions", ["model", "kind"], registry=registry
        )
        self.active = Gauge("luthier_active_completions", "Completions being written", ["model"], registry=registry)
        self.waiting = Gauge("luthier_waiting_completions", "Completions in the queue", ["model"], registry=registry)
        self.restarts = Counter(
            "luthier_model_restarts", "Starts of a model's process after it died", ["model"], registry=registry
        )
        self.switches = Counter("luthier_champion_switches", "Changes to a new champion", ["model"], registry=registry)
        self.refusals = Counter(
            "luthier_champion_refusals", "New champions that could not be loaded", ["model"], registry=registry
        )
        self.model = Gauge(
            "luthier_model_info", "1 for the model that is served under a name", ["model", "hash"], registry=registry
        )

    def page(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)

    def serves(self, name: str, hash: str) -> None:
        """A name stands for another model from now on."""
        for labels in [each.labels for family in self.model.collect() for each in family.samples]:
            if labels["model"] == name:
                self.model.remove(name, labels["hash"])
        self.model.labels(name, hash).set(1)
