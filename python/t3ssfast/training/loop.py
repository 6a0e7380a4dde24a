"""The optimisation itself: schedule, validation, early stopping, checkpoints, and the curves beside them.

Every step draws its batch from a generator seeded with the step's number, and the learning rate follows from
the step alone. A checkpoint is therefore the weights, the optimiser's state and a number, and a run resumed
from it is the run that was not interrupted.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from t3ssfast.errors import ConfigError, ModelError
from t3ssfast.io import atomic_path
from t3ssfast.models import LoadedModel
from t3ssfast.runtime.buffer_pool import retain_freed_memory
from t3ssfast.training.distributed import World
from t3ssfast.training.options import TrainOptions

__all__ = ["Run", "learning_rate", "optimise", "take_weights"]

Batch = tuple[Tensor, Tensor]
FINAL_LEARNING_RATE = 0.01
# Longest gradient that is followed in full; a batch with an outlier does not throw the weights away.
MAX_GRADIENT_NORM = 1.0


def learning_rate(step: int, options: TrainOptions) -> float:
    """Rate of a step: a linear rise over the warm-up, then a cosine down to 1% of the peak."""
    rise = max(1, round(options.warmup * options.steps))
    if step < rise:
        return options.learning_rate * (step + 1) / rise
    done = (step - rise) / max(1, options.steps - rise)
    low = FINAL_LEARNING_RATE
    return options.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done)))


class Run:
    """State of one training, kept in a file beside the model so that it can go on after an interruption.

    Parameters
    ----------
    out
        The model file to be. The checkpoint is ``<out>.checkpoint``, the figures ``<stem>.training.csv`` and
        ``.png`` in the same folder.
    options, data
        What the run depends on; a checkpoint of other options or data is refused.
    resume
        Whether to go on from a checkpoint that is there; without it a new run begins.
    world
        The processes that train together; the first of them writes the files.
    """

    def __init__(self, out: Path, options: TrainOptions, data: Any, *, resume: bool, world: World) -> None:
        self.out = out
        self.options = options
        self.world = world
        self.path = out.with_name(out.name + ".checkpoint")
        depends = [type(options).__name__, options.to_dict(), data, world.size]
        recipe = json.dumps(depends, sort_keys=True, default=str)
        self.fingerprint = hashlib.sha256(recipe.encode()).hexdigest()
        self.state: dict[str, Any] = {"phase": 0, "step": 0, "history": [], "extra": {}}
        if resume and self.path.is_file():
            try:
                self.state = torch.load(self.path, map_location="cpu", weights_only=True)
                saved = self.state["fingerprint"]
            except Exception as error:
                raise ModelError(
                    f"The checkpoint {self.path} cannot be read; remove it or train without resuming."
                ) from error
            if saved != self.fingerprint:
                raise ConfigError(
                    f"The checkpoint {self.path} belongs to other options or tomograms; give the same ones, "
                    "or train without resuming."
                )

    @property
    def history(self) -> list[dict[str, float]]:
        """Figures of every epoch so far."""
        history: list[dict[str, float]] = self.state["history"]
        return history

    def save(self, **state: Any) -> None:
        """Write the checkpoint and the table of figures; atomic."""
        self.state.update(state, fingerprint=self.fingerprint)
        if not self.world.leads:
            return
        with atomic_path(self.path) as temporary:
            torch.save(self.state, temporary)
        if self.history:
            with (
                atomic_path(self.out.with_name(self.out.stem + ".training.csv")) as temporary,
                open(temporary, "w", newline="", encoding="utf-8") as file,
            ):
                writer = csv.DictWriter(file, list(self.history[0]))
                writer.writeheader()
                writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in self.history)

    def begin_phase(self, phase: int, module: nn.Module, **extra: Any) -> None:
        """Start from a module's weights, with nothing else of the last phase; `extra` is kept with them."""
        for name in ("optimiser", "best", "best_figure", "stale"):
            self.state.pop(name, None)
        self.save(phase=phase, step=0, model=_weights(module), extra=extra)

    def finish(self) -> None:
        """Draw the curves and remove the checkpoint, once the model is written."""
        if not self.world.leads:
            return
        _draw(self.history, self.out)
        self.path.unlink(missing_ok=True)


def _draw(history: list[dict[str, float]], out: Path) -> None:
    """The figures of every epoch as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in history[0] if name not in ("phase", "step", "learning_rate")]
    panels = [[n for n in names if "loss" in n], [n for n in names if "loss" not in n]]
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, shown in zip(figure.subplots(1, 2), panels, strict=True):
        for name in shown:
            axes.plot(
                range(1, len(history) + 1), [row[name] for row in history], label=name.replace("_", " ")
            )
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if shown:
            axes.legend()
    with atomic_path(out.with_name(out.stem + ".training.png")) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def optimise(
    module: nn.Module,
    run: Run,
    *,
    batch: Callable[[int], Batch],
    loss: Callable[[Tensor, Tensor], Tensor],
    validate: Callable[[nn.Module], dict[str, float]],
    figure: str,
    device: torch.device,
    progress: bool,
    title: str,
    keep_start: bool = False,
) -> dict[str, float]:
    """Train for one phase and leave the best weights in the module.

    Parameters
    ----------
    module
        On the device; its weights are changed.
    run
        Carries options and state; a phase that was interrupted goes on.
    batch
        Input and target of a step, on any device.
    loss
        Of the module's answer and the target.
    validate
        Figures on held-out data, of a module in evaluation mode.
    figure
        The one to maximise.
    progress
        Whether to show a bar, on a terminal.
    keep_start
        Whether the weights at the start of the phase count as an epoch: they stay where nothing is better.

    Returns
    -------
    The figures of the best epoch.
    """
    options, state = run.options, run.state
    if "model" in state:
        module.load_state_dict(state["model"])
    parallel = run.world.wrap(module)
    optimiser = torch.optim.AdamW(
        module.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    if "optimiser" in state:
        optimiser.load_state_dict(state["optimiser"])
    step: int = state["step"]
    if keep_start and "best" not in state:
        module.eval()
        with torch.inference_mode():
            figures = validate(module)
        state.update(best=_weights(module), best_figure=figures[figure], best_figures=figures, stale=0)
    shown = progress and sys.stderr.isatty() and run.world.leads
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar, retain_freed_memory():
        task = bar.add_task(title, total=options.steps, completed=step, figures="")
        total, count = 0.0, 0
        while step < options.steps and not _stale(run):
            module.train()
            rate = learning_rate(step, options)
            for group in optimiser.param_groups:
                group["lr"] = rate
            images, target = (t.to(device) for t in batch(step))
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                answer = parallel(images)
            error = loss(answer.float(), target)
            optimiser.zero_grad(set_to_none=True)
            error.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(module.parameters(), MAX_GRADIENT_NORM)
            optimiser.step()
            step += 1
            total, count = total + error.item(), count + 1
            bar.update(task, completed=step)
            if step % options.steps_per_epoch == 0 or step == options.steps:
                module.eval()
                with torch.inference_mode():
                    figures = validate(module)
                if not math.isfinite(total):
                    raise ModelError(
                        f"Training diverged: the loss of step {step} or before is not finite; lower "
                        f"learning_rate (it is {options.learning_rate:g})."
                    )
                row = {"phase": float(state["phase"]), "step": float(step), "learning_rate": rate}
                row |= {"training_loss": total / count, **figures}
                run.history.append(row)
                total, count = 0.0, 0
                weights = _weights(module)
                if figures[figure] >= state.get("best_figure", -math.inf):
                    state.update(best=weights, best_figure=figures[figure], best_figures=figures, stale=0)
                else:
                    state["stale"] = state.get("stale", 0) + 1
                run.save(step=step, model=weights, optimiser=optimiser.state_dict())
                bar.update(task, figures=" ".join(f"{k} {v:.3f}" for k, v in figures.items()))
    module.load_state_dict(state["best"])
    module.eval()
    best: dict[str, float] = state["best_figures"]
    return best


def take_weights(module: nn.Module, begun: LoadedModel) -> None:
    """Begin with the weights of another model of the same kind.

    Raises
    ------
    ModelError
        Its layers are others.
    """
    try:
        module.load_state_dict(begun.module.state_dict())
    except RuntimeError as error:
        raise ModelError(
            f"{begun.path} cannot be trained further, because its layers are not those of a "
            f"{type(module).__name__} of these widths; give channels and hidden as it has them, or train "
            "without it."
        ) from error


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's weights, on the CPU."""
    return {k: v.detach().cpu().clone() for k, v in module.state_dict().items()}


def _stale(run: Run) -> bool:
    return run.options.patience > 0 and run.state.get("stale", 0) >= run.options.patience
