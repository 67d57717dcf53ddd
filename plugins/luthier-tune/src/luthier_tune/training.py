"""The training loop: batches of an objective, steps of the optimizer, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from luthier import InputError
from luthier_tune.budget import learning_rate
from luthier_tune.checkpoint import Progress, gathered, load_checkpoint, relevant, save_checkpoint
from luthier_tune.course import Course
from luthier_tune.distributed import Finished, Group, whole
from luthier_tune.examples import batch_of_step, random_for
from luthier_tune.memory import explained
from luthier_tune.options import ParallelTraining
from luthier_tune.validation import Losses

if TYPE_CHECKING:
    from torch.nn import Parameter

    from luthier import Context
    from luthier_tune.objective import Objective
    from luthier_tune.options import Training

Example = TypeVar("Example")


class Trainer(Generic[Example]):
    """Trains parameters until an objective's budget is used up; the same seed gives the same bytes.

    Args:
        objective: what is minimised.
        parameters: what is trained, by name.
        train: the training examples.
        valid: the validation examples; may be empty.
        settings: the configuration.
        ctx: seed, checkpoints and progress.
        rate_of: how many times the learning rate the parameter of a name learns at; once, if not given.
        aside: seconds that the caller measured for before, and will again afterwards; a budget in minutes has them.
        whole: where the values go in the end, if the parameters are parts of a model that is cut; see `Student`.
    """

    def __init__(
        self,
        objective: Objective[Example, Any],
        parameters: Mapping[str, Parameter],
        train: Sequence[Example],
        valid: Sequence[Example],
        *,
        settings: Training,
        ctx: Context,
        rate_of: Callable[[str], float] | None = None,
        aside: float = 0.0,
        whole: Mapping[str, Parameter] | None = None,
    ) -> None:
        self.objective = objective
        self.parameters = dict(parameters)
        self.train = train
        self.valid = valid
        self.settings = settings
        self.ctx = ctx
        self.optimizer = torch.optim.AdamW(
            _groups(self.parameters, rate_of),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=objective.device.type in ("cpu", "cuda"),
        )
        self._whole = whole
        self._group = Group.current()
        processes = settings.processes if isinstance(settings, ParallelTraining) else 1
        if processes not in (1, self._group.size):
            raise InputError(
                f"`processes` is {processes}, and {self._group.size} are there",
                "Leave it out, or run the step from a recipe, which starts them.",
            )
        self.course = Course(
            settings,
            ctx,
            self.parameters,
            train=len(train),
            valid=len(valid),
            measure=lambda: self.losses(self.valid),
            kind=Losses,
            tokens_per_step=sum(map(objective.tokens, train)) / max(1, math.ceil(len(train) / settings.batch_size)),
            aside=aside,
            group=self._group,
            device=objective.device,
        )

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self.course.progress

    def run(self) -> Progress:
        """Train until the budget or the patience is used up, from the last checkpoint if there is one.

        Afterwards the parameters, and the course's last measurement, are those that `keep` asks for.

        Raises:
            InputError: if training diverges.
            LuthierError: if the memory or the disk does not suffice.
            Finished: in the processes but the first, when training is done.
        """
        # What is gathered of a cut model, and when, no first pass can tell.
        self.course.check_resources(None if self._is_cut else self.objective, self.train)
        self._begin()
        saved = time.monotonic()
        while not self.course.is_finished:
            settled = self._advance()
            if settled or time.monotonic() - saved >= 60 * self.settings.checkpoint_minutes:
                self._checkpoint()
                saved = time.monotonic()
        self.course.finish()
        self._put_together()
        if not self._group.leads:
            raise Finished
        self._group = Group()
        self.course.choose_weights(self._whole)
        return self.progress

    def train_on(self, examples: Sequence[Example]) -> tuple[float, float]:
        """One optimizer step: the mean loss per term, and the norm of the gradient."""
        terms = sum(map(self.objective.terms, examples))
        total = 0.0
        self.optimizer.zero_grad(set_to_none=True)
        for members, batch in self._batches(self._group.share(examples)):
            loss = self.objective.loss(batch) / terms
            # Gradients of a cut model are averaged over the processes, and what only fills up is of no account.
            (loss * self._gradient_factor * bool(members)).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach()) if members else 0.0
        if not self._is_cut:
            self._add_up_gradients()
        (total,) = self._group.sums([total], self.objective.device)
        norm = whole(torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.max_gradient_norm))
        if math.isfinite(total) and math.isfinite(float(norm)):
            self.optimizer.step()
        return total, float(norm)

    def losses(self, examples: Sequence[Example]) -> Losses:
        """The losses of examples, in their order, without training."""
        self.objective.module.train(False)
        means, sizes = [0.0] * len(examples), [0.0] * len(examples)
        numbers = self._group.share(range(len(examples)))
        for members, batch in self._batches([examples[number] for number in numbers]):
            found = self.objective.losses(batch)
            for member, values in zip(members, found, strict=bool(members)):
                means[numbers[member]], sizes[numbers[member]] = float(values.double().mean()), len(values)
        together = self._group.sums([*means, *sizes], self.objective.device)
        return Losses(together[: len(examples)], [int(size) for size in together[len(examples) :]])

    @property
    def _is_cut(self) -> bool:
        """Whether each process has a part of every weight only, so that all must compute together."""
        return self._whole is not None

    @property
    def _gradient_factor(self) -> float:
        return float(self._group.size) if self._is_cut else 1.0

    def _batches(self, own: Sequence[Example]) -> Iterator[tuple[list[int], Any]]:
        """Batches of this process's examples; of a cut model as many as any process has, the last without members."""
        batches = self.objective.batches(own) if own else iter(())
        if not self._is_cut:
            yield from batches
            return
        ready = list(batches)
        missing = self._group.most(len(ready), self.objective.device) - len(ready)  # before anybody computes
        yield from ready
        for _ in range(missing):
            yield from (([], batch) for _, batch in self.objective.batches(self.train[:1]))

    def _put_together(self) -> None:
        """Give the whole model, which the first process has, the values of a cut one."""
        if self._whole is None:
            return
        values = gathered(self.parameters, keep=self._group.leads)
        self.parameters = dict(self._whole)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(values[name])

    def _add_up_gradients(self) -> None:
        """Let each process have the gradients of all; one without examples has none of its own."""
        if self._group.size == 1:
            return
        for parameter in self.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._group.add_up(parameter.grad for parameter in self.parameters.values() if parameter.grad is not None)

    def _begin(self) -> None:
        """Go on from the last checkpoint, or start."""
        resumed = load_checkpoint(self.ctx.checkpoint, self.parameters, self.optimizer, self._configuration())
        self._check_same_place(resumed.step if resumed else 0)
        self.course.begin(resumed)

    def _check_same_place(self, step: int) -> None:
        """See that all processes go on from the same checkpoint.

        Raises:
            InputError: if not all of them found the same one.
        """
        (steps,) = self._group.sums([step], self.objective.device)
        if self._group.first(step, self.objective.device) * self._group.size != steps:
            raise InputError(
                "the processes of the training go on from different checkpoints",
                "Give all of them the same checkpoint directory.",
            )

    def _configuration(self) -> dict[str, Any]:
        """What a checkpoint is of: all that the weights depend on, but the model and the content of the examples."""
        examples = {
            "seed": self.ctx.seed,
            "examples": len(self.train),
            "tokens": sum(map(self.objective.tokens, self.train)),
            "measured examples": len(self.valid),
        }
        return relevant(self.settings) | examples

    def _advance(self) -> bool:
        """Do one step and note it; says whether a checkpoint is due at once."""
        progress, settings = self.progress, self.settings
        self.course.starts_step()
        step = progress.step
        started = time.monotonic()
        rate = learning_rate(step, progress.total, peak=settings.learning_rate, warmup_steps=settings.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate_factor"]
        batch = [self.train[i] for i in batch_of_step(step, len(self.train), settings.batch_size, self.ctx.seed)]
        tokens = sum(map(self.objective.tokens, batch))
        self.objective.module.train()
        # Dropout's randomness comes from the seed and the step, whatever ran before in this process.
        with (
            torch.random.fork_rng(devices=[self.objective.device] if self.objective.device.type == "cuda" else []),
            explained(f"at step {step + 1}, of {len(batch)} examples with {tokens} tokens", settings),
        ):
            torch.manual_seed(random_for(self.ctx.seed, self._purpose(step)).getrandbits(63))
            loss, norm = self.train_on(batch)
        seconds = time.monotonic() - started
        settled = self.course.note(
            {
                "step": step + 1,
                "loss": loss,
                "learning_rate": rate,
                "seconds": seconds,
                "tokens": tokens,
                "examples": len(batch),
                "gradient_norm": norm,
            }
        )
        self.ctx.progress(
            progress.step,
            progress.total or self.course.expected_total,
            loss=loss,
            learning_rate=rate,
            tokens_per_second=tokens / max(seconds, 1e-9),
        )
        return settled

    def _purpose(self, step: int) -> str:
        """What the randomness of a step is named by: each process drops other things."""
        return f"step {step}" if self._group.leads else f"step {step}, process {self._group.rank}"

    def _checkpoint(self) -> None:
        self.course.count_seconds()
        leads = self._group.leads
        save_checkpoint(
            self.ctx.checkpoint, self.parameters, self.optimizer, self.progress, self._configuration(), leads=leads
        )
        if leads:
            self.course.checkpointed()


def _groups(parameters: Mapping[str, Parameter], rate_of: Callable[[str], float] | None) -> list[dict[str, Any]]:
    """The optimizer's groups: parameters that learn at the same rate, in their order."""
    groups: dict[float, list[Parameter]] = {}
    for name, parameter in parameters.items():
        groups.setdefault(rate_of(name) if rate_of else 1.0, []).append(parameter)
    return [{"params": members, "rate_factor": factor} for factor, members in groups.items()]
