"""A plan: the nodes of a checked recipe, and what each takes of which.

A node is what is cached: one step, a run of neighbouring frame components fused into one pass, or one
validator on one subject. Its key is a hash of everything its result depends on; see `luthier.keys`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from luthier.artifacts import Artifact, Kind
from luthier.core_stages import CHAMPION
from luthier.declaration import Known
from luthier.gates import Bound, parse_gate
from luthier.locations import identity, pinned
from luthier.plugins import Registry
from luthier.recipe import RecipeSpec
from luthier.search import Candidate, Rung
from luthier.steps import ComponentSpec, StepSpec

Task = Literal["dataset", "shards", "directory", "validate"]
Subject = Literal["candidate", "base", "reference", "champion"]
CHAMPIONS_NODE = "@champion"
"""The id of the node that stands for the champion; no step can have it."""


@dataclass(frozen=True)
class Node:
    """One unit of work and of caching.

    Attributes:
        parts: the recipe's steps that it does: several where frame components are fused.
        inputs: for each input that is an artifact, the node that makes it.
        traits: what is known of its result besides the form.
        runtimes: for the inputs that are loaded models (`subject`, `reference`), the runtime and its configuration.
        subject: for a validator, what it looks at.
        environment: the distribution in whose environment it runs; empty for the main one.
        given: the hash of its result, of a node without parts that stands for a model which the recipe does not make.
        trial: of a step that is searched, which of its trials it is: `trial-RUNG-CANDIDATE`; empty for a step.
    """

    parts: tuple[StepSpec, ...]
    task: Task
    kind: Kind
    form: str
    inputs: Mapping[str, Node] = field(default_factory=dict)
    traits: Mapping[str, Any] = field(default_factory=dict)
    runtimes: Mapping[str, ComponentSpec] = field(default_factory=dict)
    subject: Subject | None = None
    environment: str = ""
    trial: str = ""
    given: str = ""

    @classmethod
    def of_champion(cls, model: Artifact) -> Node:
        """The node that stands for the champion's model."""
        return cls((), "directory", model.kind, model.form, given=model.hash)

    @property
    def step(self) -> StepSpec:
        """The (last) step of the recipe that it does."""
        return self.parts[-1]

    @property
    def id(self) -> str:
        """The step's id; for a validator on another subject than the candidate `rouge@base`, for a trial `lora@…`."""
        if self.given:
            return CHAMPIONS_NODE
        subject = "" if self.subject in (None, "candidate") else self.subject
        return "@".join(filter(None, [self.step.id, subject, self.trial]))

    @property
    def lossy(self) -> bool:
        """Whether it gives a model whose numbers need not be those of the model that it was given."""
        return self.kind == "onnx" or any(step.stage.lossy for step in self.parts)

    def lineage(self) -> Iterator[Node]:
        """A model's node, that of the model which it was made of, and so on to one that was made of none."""
        node: Node | None = self
        while node:
            yield node
            node = node.inputs.get("model") or node.inputs.get("onnx")

    @property
    def known(self) -> Known:
        """What is known of its result."""
        return Known(self.form, self.traits)

    def trial_of(self, rung: Rung, candidate: Candidate) -> Node:
        """The step without its lists: one candidate at the budget of one rung."""
        space = self.step.space
        assert space is not None
        step = replace(self.step, config=space.config(candidate, rung), space=None)
        return replace(self, parts=(step,), trial=f"trial-{rung.number}-{candidate.number}")

    @property
    def part_forms(self) -> list[str]:
        """The form of the rows after each part of a fused pass."""
        form, forms = self.inputs["data"].form, []
        for step in self.parts:
            form = step.component.form(step.config) or form
            forms.append(form)
        return forms


@dataclass(frozen=True)
class Force:
    """What the user asked to do again although it is cached: single steps, and all from one step on."""

    steps: frozenset[str] = frozenset()
    start: str | None = None

    @property
    def mentioned(self) -> frozenset[str]:
        """Every step id that is named, which ends fusion there."""
        return self.steps | ({self.start} if self.start else frozenset())


@dataclass(frozen=True)
class Plan:
    """A checked recipe: its nodes in order.

    Attributes:
        pins: for each location that names a branch of the hub, the commit it had when it was first asked
            for, so that a key and the step's work speak of the same files.
        champion: stands for the model that was champion of the recipe's name when the plan was made.
        evaluates: of one that only measures the champion again, the run that made that model; empty for a recipe's.
    """

    recipe: RecipeSpec
    nodes: tuple[Node, ...]
    registry: Registry
    force: Force = field(default_factory=Force)
    pins: dict[str, str] = field(default_factory=dict)
    champion: Node | None = None
    evaluates: str = ""

    @property
    def given(self) -> dict[str, str]:
        """The hashes of the results that no step of the recipe makes, by node id."""
        return {self.champion.id: self.champion.given} if self.champion else {}

    @property
    def unjudged(self) -> list[str]:
        """The steps with a gate that the plan stops before."""
        if self.evaluates:
            return []
        planned = {step.id for node in self.nodes for step in node.parts}
        return [step.id for step in self.recipe.steps if step.gate and step.id not in planned]

    @property
    def skipped(self) -> list[tuple[StepSpec, Bound]]:
        """The bounds that there is nothing to compare with, as long as there is no champion."""
        steps = {step.id: step for node in self.nodes for step in node.parts}.values()
        found = [(step, bound) for step in steps for bound in bounds(step) if bound.subject == CHAMPION]
        return [] if self.champion else found

    def identity(self, location: str, only: Sequence[str] = ()) -> str:
        """What stands for a location in a key; see `luthier.locations.identity`."""
        found = self.pins.get(location) or pinned(location)
        if found != location:
            self.pins[location] = found
        return identity(found, only)

    def forced(self, node: Node) -> bool:
        """Whether the user asked for this node to be done again."""
        ids = [step.id for step in self.recipe.steps]
        if any(step.id in self.force.steps for step in node.parts):
            return True
        start = self.force.start
        return start is not None and ids.index(node.step.id) >= ids.index(start)


def bounds(step: StepSpec) -> list[Bound]:
    """The bounds of a step's gate; none without one."""
    return parse_gate(step.gate) if step.gate else []
