"""How far the planner has come: what the steps so far give to those that follow, and what is wrong with them."""

from __future__ import annotations

from luthier import distributions, environments
from luthier.errors import InputError
from luthier.formatting import with_article
from luthier.nodes import RecipeProblem
from luthier.plans import Node
from luthier.plugins import Registry
from luthier.recipe import RecipeSpec
from luthier.steps import StepSpec


class Walk:
    """The steps of a recipe that were planned so far.

    Attributes:
        registry: the plugins.
        nodes: what the steps became.
        problems: everything that is wrong.
        newest: the newest node of each kind, and under `candidate` that of a model of either kind.
        by_id: the node that does each step.
        champion: stands for the champion of the recipe's name; None if it has none, an error where it is damaged.
        unknown: whether a step could not be read at all, so may have been meant to give anything.
    """

    def __init__(self, recipe: RecipeSpec, registry: Registry, champion: Node | InputError | None) -> None:
        self.registry = registry
        self.nodes: list[Node] = []
        self.problems = list(recipe.problems)
        self.newest: dict[str, Node] = {}
        self.by_id: dict[str, Node] = {}
        self.champion = champion
        self.unknown = False

    def append(self, node: Node) -> None:
        """Add a node that gives what later steps may take."""
        self.nodes.append(node)
        self.newest[node.kind] = node
        if node.kind in ("model", "onnx"):
            self.newest["candidate"] = node
        for step in node.parts:
            self.by_id[step.id] = node

    def refuse(self, step: StepSpec, message: str, remedy: str = "") -> None:
        """Note what is wrong with a step."""
        self.problems.append(RecipeProblem(step.position, step.id, message, remedy))

    def refuse_key(self, step: StepSpec, key: str, message: str, remedy: str = "") -> None:
        """Note what is wrong with one key of a step."""
        place = step.positions.get(key, step.position)
        self.problems.append(RecipeProblem(place, f"{step.id}.{key}", message, remedy))

    def refuse_without(self, step: StepSpec, kind: str) -> None:
        """Note that a step needs a kind of artifact that no earlier one gives."""
        # A step of an unknown stage may have been meant to give it.
        if not self.unknown:
            stages = [f"`{stage.name}`" for stage in self.registry.stages if stage.gives == kind and stage.name]
            makers = " or ".join(stages)
            self.refuse(
                step,
                f"{step.component} needs {with_article(kind)}, but no earlier step gives one",
                f"Put {with_article(makers)} step before it.",
            )

    def environment(self, step: StepSpec) -> str:
        """The distribution in whose environment a step runs; empty for the main one."""
        component = step.component
        if step.environment == "main" or not (step.environment or environments.declares(component.distribution)):
            return ""
        if not distributions.is_distribution(component.distribution):
            self.refuse(step, f"{component} is of a local file, which has no environment of its own", "Package it.")
        return component.distribution
