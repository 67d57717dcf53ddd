"""trl's training loop under the course that all tuners keep: the budget, validation, checkpoints, the end."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from luthier_preference.checkpoints import room_needed, seal
from luthier_tune.budget import learning_rate

if TYPE_CHECKING:
    from luthier import Context
    from luthier_preference.rewards import Rewards
    from luthier_tune.course import Course
    from luthier_tune.options import Training


class CourseCallback(TrainerCallback):
    """Tells the course of each step, and trl what to do next.

    Args:
        course: how far it is; has begun.
        settings: the configuration.
        ctx: progress.
        configuration: what the checkpoints are made with.
        examples: how many there are to train on.
    """

    def __init__(
        self,
        course: Course[Rewards],
        settings: Training,
        ctx: Context,
        configuration: Mapping[str, Any],
        *,
        examples: int,
    ) -> None:
        self._course = course
        self._settings = settings
        self._ctx = ctx
        self._configuration = configuration
        self._examples = examples
        self._saved = self._step_began = time.monotonic()
        self._tokens = 0.0

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0, as a share of the peak."""
        total, warmup_steps = self._course.progress.total, self._settings.warmup_steps
        return learning_rate(step, total, peak=1.0, warmup_steps=warmup_steps)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Trl counts tokens from here on, also where training goes on."""
        self._saved = time.monotonic()
        self._tokens = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note when."""
        self._course.starts_step()
        self._step_began = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """After each step: note it, and decide what comes next.

        Raises:
            InputError: if training diverges.
        """
        if "loss" not in logs:
            return  # The summary at the end.
        settled = self._note(state.global_step, logs)
        due = time.monotonic() - self._saved >= 60 * self._settings.checkpoint_minutes
        control.should_training_stop |= self._course.is_finished
        # After the last step there is nothing to go on with.
        control.should_save = (settled or due) and not self._course.is_finished

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seal the checkpoint, with what is known of its step.

        Raises:
            LuthierError: if the disk is full.
        """
        course, directory = self._course, Path(args.output_dir)
        course.count_seconds()
        with room_needed(directory):
            seal(directory, course.progress, self._configuration)
        course.checkpointed()
        self._saved = time.monotonic()

    def _note(self, step: int, logs: Mapping[str, float]) -> bool:
        """Note a step; says whether a checkpoint is due at once."""
        seconds, tokens = time.monotonic() - self._step_began, logs["num_tokens"] - self._tokens
        self._tokens = logs["num_tokens"]
        rate = self._settings.learning_rate * self.rate(step - 1)
        record = {
            "step": step,
            "loss": logs["loss"],
            "learning_rate": rate,
            "seconds": seconds,
            "tokens": tokens,
            "examples": self._batch_size(step),
            "gradient_norm": float(logs.get("grad_norm", math.nan)),
            # Of a batch of one kind there is none.
            "reward_margin": logs.get("rewards/margins", math.nan),
        }
        settled = self._course.note(record)
        shown = {name: record[name] for name in ("loss", "learning_rate", "reward_margin")}
        shown = {name: value for name, value in shown.items() if math.isfinite(value)}
        self._ctx.progress(step, self._course.progress.total or self._course.expected_total, **shown)
        return settled

    def _batch_size(self, step: int) -> int:
        """Of a step, counted from 1: the last of an epoch may have fewer examples."""
        size = self._settings.batch_size
        place = (step - 1) % math.ceil(self._examples / size)
        return min(size, self._examples - place * size)
