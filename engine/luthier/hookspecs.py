"""The contract between Luthier and its plugins: every hook, with its arguments and its promise.

Registration hooks (plural nouns) are called once, while plugins are loaded, in every process that
needs components. Plugins load in two phases: first `luthier_stages` of all of them, then the hooks of
all stages, the core's and the plugins' alike, which return plain functions. Each plugin's
implementation is called and exhausted by itself: one that raises loses only its own components and is
reported. The order of plugins never matters.

Lifecycle hooks (`luthier_run_finished`, `luthier_promoted`) are called in the parent process only,
observe what happens, and cannot change it: an error in one is recorded and stops nothing. A lifecycle hook
is named after its event in `luthier.events` and gets it as `event`; each lands with its first plugin.

Every hook here has been in the contract since version 0.1 of the core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from luthier.core_stages import Stage
    from luthier.events import GateDecided, Promoted, RunFinished, RunStarted, StepFailed, StepFinished, StepStarted
    from luthier.runs import Run

PROJECT = "luthier"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

ComponentFunction = Callable[..., Any]


@hookspec
def luthier_stages() -> Iterable[Stage]:
    """Give the stages that the plugin adds to the core's.

    Called in the first phase, before any plugin is asked for components. For each `luthier.Stage` the
    plugin has the specification of the stage's hook: a function of the hook's name without parameters,
    marked with `luthier.hookspec`, whose docstring is its reference. The plugin's own implementation of
    that hook has another name, and says so: `@hookimpl(specname="luthier_synthesizers")`. Any plugin may
    give components for the stage. A stage's name or hook that another one has is an error.
    """
    raise NotImplementedError


@hookspec
def luthier_sources() -> Iterable[ComponentFunction]:
    """Give the sources: functions that yield frames of raw documents.

    A source may ask for `ctx`. Each frame has a `text` column (strings) and may have `id`, `source`,
    `group` and further columns; the engine fills in what is missing (`id` from source and content,
    `group` from `id`) and writes the shards.
    """
    raise NotImplementedError


@hookspec
def luthier_cleaners() -> Iterable[ComponentFunction]:
    """Give the cleaners: documents in, documents out.

    A cleaner asks for `frame` (one shard; it returns a frame) or, where it must see everything, for
    `data` (it returns or yields frames); and for `ctx` if it wants. `id` is kept; a row that is left
    out counts as dropped. One that draws on a second dataset asks for `data` and `other`, and its step must name
    the step that gives it; rows of `other` that it gives count as added.
    """
    raise NotImplementedError


@hookspec
def luthier_bias_filters() -> Iterable[ComponentFunction]:
    """Give the bias filters and audits: documents in, documents out.

    As cleaners. What was found goes to `ctx.table` and `ctx.figure`, from where the report takes it.
    """
    raise NotImplementedError


@hookspec
def luthier_formatters() -> Iterable[ComponentFunction]:
    """Give the formatters: documents in, training examples out.

    A formatter asks for `frame` or `data`, declares the form that it gives
    (`@component(gives="prompt-completion")`) and writes the columns of that form, `id`, `group` and
    `split` among them.
    """
    raise NotImplementedError


@hookspec
def luthier_architectures() -> Iterable[ComponentFunction]:
    """Give the architectures: functions that make a model, pretrained or fresh, with its tokenizer.

    An architecture may ask for `data` and `ctx`, and writes a safetensors directory in Hugging Face
    form into `ctx.output`. What it returns is ignored.
    """
    raise NotImplementedError


@hookspec
def luthier_tuners() -> Iterable[ComponentFunction]:
    """Give the tuners: a model and examples in, a tuned model out.

    A tuner asks for `model`, and for `data` and `ctx` if it wants; one that learns from a second model asks for
    `teacher`, and its step must name the step that gives it. It writes the whole tuned model
    (the form is the architecture's) into `ctx.output` and its checkpoints into `ctx.checkpoint`.
    """
    raise NotImplementedError


@hookspec
def luthier_pruners() -> Iterable[ComponentFunction]:
    """Give the pruners: a model in, a smaller or sparser model of the same kind out.

    A pruner asks for `model`, and for `data` (calibration) and `ctx` if it wants. It writes the whole pruned model
    into `ctx.output`, with a tokenizer, chat template and settings that fit it, and measures what the model lost:
    `ctx.metric("mean_kl", …)`, in nats a token, where it can.
    """
    raise NotImplementedError


@hookspec
def luthier_exporters() -> Iterable[ComponentFunction]:
    """Give the exporters: a model in, an ONNX model directory out.

    An exporter asks for `model`, and for `data` (calibration) and `ctx` if it wants, and writes into
    `ctx.output`.
    """
    raise NotImplementedError


@hookspec
def luthier_quantizers() -> Iterable[ComponentFunction]:
    """Give the quantizers: a model or an ONNX model in, the same with fewer bits a weight out.

    A quantizer asks for `model` or for `onnx` and gives the same kind, in the same form; it asks for `data`
    (calibration) and `ctx` if it wants, and writes the whole result into `ctx.output`. What the first one that a model
    came through was given is the `reference` that validators compare it with. One that takes a `model` writes the
    weights as they are after quantization, in floating point, so that every runtime shows what was lost; how an
    exporter learns of their integers is between the two.
    """
    raise NotImplementedError


@hookspec
def luthier_runtimes() -> Iterable[ComponentFunction]:
    """Give the runtimes: functions that load a model and return a `luthier.Generator`.

    A runtime asks for `model` or for `onnx`, and for `ctx` if it wants. Validators and
    `luthier generate` reach models only through it.
    """
    raise NotImplementedError


@hookspec
def luthier_validators() -> Iterable[ComponentFunction]:
    """Give the validators: functions that measure one subject.

    A validator asks for `subject` (a Generator), and for `reference` (the Generator of the model
    before export), `data` and `ctx` if it wants. Its findings go to `ctx.metric`, `ctx.table` and
    `ctx.figure`. It is called once for each subject that a gate or the report needs.
    """
    raise NotImplementedError


@hookspec
def luthier_executors() -> Iterable[ComponentFunction]:
    """Give the executors: generator functions that start the processes of a step.

    A component that declares `@component(processes=True)` (a tuner, say) has its work done by so many processes as
    its parameter `processes` says. The executor is given the `job`, a `luthier.Job`; it starts that many processes
    anywhere, lets each make torch's process group, has each call `job.do(rank, send)`, and yields whatever they
    send, in the order in which each sends it, until all have ended. A process that dies is a
    `luthier.LuthierError`. Where the generator is closed before it has ended, since one process told of an error,
    it ends the others. So must the death of the process that it is called in.

    A recipe chooses by the reserved key `executor`: a name, or a mapping of `name` and parameters. Without it, the
    executor called `local` starts them where there are more than one. What is chosen is not in the step's key: it
    says where the work is done, not what is done.
    """
    raise NotImplementedError


@hookspec
def luthier_run_started(run: Run, event: RunStarted) -> None:
    """Called once, before any step; `event.steps` are the ids of all of them, in order."""


@hookspec
def luthier_step_started(run: Run, event: StepStarted) -> None:
    """Called before a step that is not cached is worked on; `event.why` says why it runs."""


@hookspec
def luthier_step_finished(run: Run, event: StepFinished) -> None:
    """Called after each step, cached ones too, with its metrics, counts and the hash of what it gave."""


@hookspec
def luthier_step_failed(run: Run, event: StepFailed) -> None:
    """Called when a step ended in an error; `luthier_run_finished` follows."""


@hookspec
def luthier_gate_decided(run: Run, event: GateDecided) -> None:
    """Called for each bound of a gate that was held against what was measured."""


@hookspec
def luthier_run_finished(run: Run, event: RunFinished) -> None:
    """Called once, last, whatever the outcome: `event.state` says which."""


@hookspec
def luthier_promoted(run: Run, event: Promoted) -> None:
    """Called when a run's model became champion: it was promoted, or a rollback restored it (`event.restored`).

    `run` is the run that made the model, which ended long before; `event.name` is what it is champion of, and
    `event.replaced` the run of the one before. The pointer is changed by then, and the hook cannot undo it. It is not
    called where somebody removed that run's directory.
    """
