"""The training loop of the three models: schedule, validation, early stopping and checkpoints.

Each step draws its batch from a generator seeded with the step number, and the learning rate depends on the
step alone. A run that resumes from a checkpoint therefore gives the same result as an uninterrupted one.
"""

from __future__ import annotations

import io
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress, TextColumn
from torch import Tensor, nn

from t3ssfast.errors import ModelError
from t3ssfast.models import LoadedModel, ModelMetadata, check_format, code_version, load_model, save_trained
from t3ssfast.runtime.buffer_pool import retain_freed_memory
from t3ssfast.runtime.checkpoint import Arrays, CheckpointStore, key_of
from t3ssfast.runtime.figures import pictures_of
from t3ssfast.tomogram import StrPath
from t3ssfast.training.data import TrainingTomogram
from t3ssfast.training.distributed import World
from t3ssfast.training.metrics import figure_file, write_table
from t3ssfast.training.options import Options, TrainOptions

__all__ = ["Batch", "Task", "Trainer", "learning_rate", "load_start"]

# Inputs and targets.
Batch = tuple[Tensor, Tensor]
Weights = dict[str, Tensor]

# The last learning rate, relative to the peak.
FINAL_LEARNING_RATE = 0.01
# Gradients are clipped to this norm, so that a batch with an outlier does not destroy the weights.
MAX_GRADIENT_NORM = 1.0


class Task(ABC, Generic[Options]):
    """What is particular to the training of one kind of model; the first attributes are in its metadata."""

    model_kind: ClassVar[str]
    classes: tuple[str, ...]
    window_px: int | None = None
    metric: ClassVar[str]  # validation metric to maximise
    validation_batch: int  # inputs per forward pass of the validation
    phases: int = 1  # number of times that the schedule runs, each from the best weights of the one before
    options: Options
    start: LoadedModel | None = None  # trained model to start from
    new_layers: tuple[str, ...] = ()  # layers that it may lack
    tomograms: Sequence[TrainingTomogram]  # of training and validation
    inputs: Sequence[Any] = ()  # further data that the result depends on, as plain values

    @abstractmethod
    def build_module(self) -> nn.Module:
        """Make the network, with random weights from PyTorch's global generator."""

    @abstractmethod
    def draw_batch(self, phase: int, step: int, world: World) -> Batch:
        """Draw this process's part of the batch of a step."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch."""

    @abstractmethod
    def validation_set(self) -> Batch:
        """Return the held-out inputs and targets, the same after every epoch of a phase."""

    @abstractmethod
    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Return validation metrics, "validation_loss" first."""

    def mine(self, phase: int, module: nn.Module) -> dict[str, Any]:
        """Collect more data before a phase after the first; the checkpoint keeps them."""
        return {}

    def add_mined(self, mined: dict[str, Any]) -> None:
        """Add the mined data to the training and validation data."""

    def set_training_mode(self, module: nn.Module) -> None:
        """Put a module into training mode."""
        module.train()

    def metadata(self) -> ModelMetadata:
        """Return the model's metadata, without recipe and metrics."""
        voxel_size, window_px = self.options.voxel_size_angstrom, self.window_px
        window_nm = None if window_px is None else window_px * voxel_size / 10.0
        normalisation, classes = self.options.normalisation, self.classes
        return ModelMetadata(
            self.model_kind, voxel_size, window_px, window_nm, normalisation=normalisation, classes=classes
        )


@dataclass
class TrainingState:
    """Progress of a training, as a checkpoint stores it; the history has a row per epoch of any phase."""

    phase: int = 0
    step: int = 0
    weights: Weights | None = None
    optimiser: dict[str, Any] | None = None
    random_state: Tensor | None = None
    best: Weights | None = None
    best_metrics: dict[str, float] = field(default_factory=dict)
    stale_epochs: int = 0
    mined: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def load(cls, store: CheckpointStore) -> TrainingState:
        """Read the state from a store; the initial state where it has none."""

        def parse(piece: Arrays) -> TrainingState:
            content = io.BytesIO(piece["state"].tobytes())
            return cls(**torch.load(content, map_location="cpu", weights_only=True))

        state: TrainingState | None = store.load("state", parse)
        return state or cls()

    def save(self, store: CheckpointStore) -> None:
        """Write the state to a store."""
        content = io.BytesIO()
        torch.save(vars(self), content)
        store.save("state", state=np.frombuffer(content.getbuffer(), np.uint8))


def learning_rate(step: int, options: TrainOptions) -> float:
    """Return the learning rate of a step: a linear warm-up, then a cosine down to 1% of the peak."""
    warmup = max(1, round(options.warmup * options.steps))
    if step < warmup:
        return options.learning_rate * (step + 1) / warmup
    done, low = (step - warmup) / max(1, options.steps - warmup), FINAL_LEARNING_RATE
    return options.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done)))


def load_start(
    start: StrPath | LoadedModel | None, model_kind: str, window_option: str
) -> tuple[LoadedModel | None, dict[str, Any]]:
    """Load the model to start from, and return it with the options that it determines."""
    if start is None:
        return None, {}
    model = load_model(start, model_kind=model_kind)
    metadata = model.metadata
    fixed = {name: getattr(metadata, name) for name in ("voxel_size_angstrom", "normalisation")}
    widths = {name: metadata.recipe[name] for name in ("channels", "hidden") if name in metadata.recipe}
    fixed |= {name: tuple(width) if isinstance(width, list) else width for name, width in widths.items()}
    return model, {window_option: metadata.window_px, **fixed}


class Trainer:
    """Trains the model of a task; the checkpoint lies beside the model file until that is written."""

    def __init__(self, task: Task[Any], out: StrPath, world: World, *, resume: bool, progress: bool) -> None:
        # Before the work, not after it.
        check_format(out)
        self.task, self.path, self.world = task, Path(out), world
        self.progress = progress and sys.stderr.isatty() and world.is_leader
        key = key_of(
            {
                "model_kind": task.model_kind,
                "options": asdict(task.options),
                "tomograms": [tomogram.fingerprint() for tomogram in task.tomograms],
                "inputs": task.inputs,
                "start": None if task.start is None else task.start.sha256,
                "processes": world.size,
                "version": code_version(),
            }
        )
        self.store = CheckpointStore(self.path.parent, key, name=self.path.name)
        self.state = TrainingState.load(self.store) if resume else TrainingState()

    def train(self) -> Path:
        """Train all phases, and return the path of the model file."""
        task, state = self.task, self.state
        torch.manual_seed(task.options.seed)
        module = task.build_module().to(self.world.device)
        if task.start is not None:
            _copy_weights(task.start, module, task.new_layers)
        if state.weights is not None:
            module.load_state_dict(state.weights)
        if state.random_state is not None:
            torch.set_rng_state(state.random_state)
        for phase in range(state.phase, task.phases):
            if phase > self.state.phase:
                mined, weights = task.mine(phase, module), _weights(module)
                self.state = TrainingState(phase, weights=weights, mined=mined, history=state.history)
                self._save()
            task.add_mined(self.state.mined)
            self.train_phase(module)
        if self.world.is_leader:
            recipe = {**asdict(task.options), "tomograms": len(task.tomograms)}
            metadata = replace(task.metadata(), recipe=recipe, metrics=self.state.best_metrics)
            save_trained(module, self.path, metadata)
            with pictures_of(str(self.path)):
                _draw_curves(self.state.history, self.path.with_name(self.path.stem + ".training.png"))
            self.store.remove()
        return self.path

    def train_phase(self, module: nn.Module) -> None:
        """Run the schedule from the current step, and leave the best weights in the module."""
        task, state, options = self.task, self.state, self.task.options
        parallel = self.world.wrap(module)
        optimiser = torch.optim.AdamW(
            module.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        if state.optimiser is not None:
            optimiser.load_state_dict(state.optimiser)
        validation = task.validation_set()
        if task.start is not None and state.best is None:
            # The weights at the start stay where no epoch is better.
            state.best, state.best_metrics = _weights(module), self._validate(module, validation)
        columns = (*Progress.get_default_columns(), TextColumn("{task.fields[metrics]}"))
        title = task.model_kind if task.phases == 1 else f"{task.model_kind}, round {state.phase}"
        bar = Progress(*columns, console=Console(stderr=True), disable=not self.progress)
        # Older releases of rich end bars that are disabled with an empty line.
        with bar if self.progress else nullcontext(), retain_freed_memory():
            row = bar.add_task(title, total=options.steps, completed=state.step, metrics="")
            while state.step < options.steps and not 0 < options.patience <= state.stale_epochs:
                epoch = self._train_epoch(parallel, optimiser, partial(bar.advance, row))
                metrics = self._validate(module, validation)
                state.history.append({**epoch, **metrics})
                state.weights, state.optimiser = _weights(module), optimiser.state_dict()
                state.stale_epochs += 1
                if state.best is None or metrics[task.metric] >= state.best_metrics[task.metric]:
                    state.best, state.best_metrics, state.stale_epochs = state.weights, metrics, 0
                self._save()
                bar.update(row, metrics=" ".join(f"{k} {v:.3f}" for k, v in metrics.items()))
        assert state.best is not None, "there is at least one epoch"
        module.load_state_dict(state.best)
        module.eval()

    def _train_epoch(
        self, parallel: nn.Module, optimiser: torch.optim.Optimizer, advance: Callable[[], None]
    ) -> dict[str, float]:
        """Take the steps up to the next validation, and return the first columns of the table of metrics."""
        options, state, device = self.task.options, self.state, self.world.device
        epoch_end = (state.step // options.steps_per_epoch + 1) * options.steps_per_epoch
        losses = []
        self.task.set_training_mode(parallel)
        for step in range(state.step, min(epoch_end, options.steps)):
            rate = learning_rate(step, options)
            for group in optimiser.param_groups:
                group["lr"] = rate
            inputs, targets = (t.to(device) for t in self.task.draw_batch(state.phase, step, self.world))
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                outputs = parallel(inputs)
            loss = self.task.loss(outputs.float(), targets)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parallel.parameters(), MAX_GRADIENT_NORM)
            optimiser.step()
            losses.append(loss.item())
            advance()
        state.step += len(losses)
        if not math.isfinite(sum(losses)):
            raise ModelError(
                f"Training diverged: the loss is not finite at step {state.step} or before; lower "
                f"learning_rate (it is {options.learning_rate:g})."
            )
        progress = {"phase": float(state.phase), "step": float(state.step), "learning_rate": rate}
        return {**progress, "training_loss": sum(losses) / len(losses)}

    @torch.inference_mode()
    def _validate(self, module: nn.Module, validation: Batch) -> dict[str, float]:
        """Return the metrics of a module on held-out data; it is left in evaluation mode."""
        module.eval()
        inputs, targets = validation
        parts = torch.split(inputs, self.task.validation_batch)
        outputs = [module(part.float().to(self.world.device)).float().cpu() for part in parts]
        return self.task.metrics(torch.cat(outputs), targets)

    def _save(self) -> None:
        """Write the checkpoint and the table of metrics."""
        if self.world.is_leader:
            self.state.random_state = torch.get_rng_state()
            self.state.save(self.store)
            if self.state.history:
                write_table(self.state.history, self.path.with_name(self.path.stem + ".training.csv"))


def _weights(module: nn.Module) -> Weights:
    """Copy a module's weights to the CPU."""
    return {k: v.detach().cpu().clone() for k, v in module.state_dict().items()}


def _copy_weights(start: LoadedModel, module: nn.Module, new_layers: tuple[str, ...]) -> None:
    """Copy the weights of a trained model into a module; the model may lack new layers of the module."""
    state = start.module.state_dict()
    fresh = {name: w for name, w in module.state_dict().items() if name.partition(".")[0] in new_layers}
    try:
        module.load_state_dict({**fresh, **state})
    except RuntimeError as error:
        raise ModelError(
            f"{start.path}: its layers differ from those of a {type(module).__name__} of the given widths, "
            "so it cannot be trained further; give its own channels and hidden, or train without it."
        ) from error


def _draw_curves(history: list[dict[str, float]], path: Path) -> None:
    """Draw the losses and the other metrics of every epoch."""
    names = [name for name in history[0] if name not in ("phase", "step", "learning_rate")]
    with figure_file(path, (10, 4), dpi=110) as figure:
        for axes, losses in zip(figure.subplots(1, 2), (True, False), strict=True):
            for name in names:
                if ("loss" in name) == losses:
                    values = [row[name] for row in history]
                    axes.plot(range(1, len(history) + 1), values, label=name.replace("_", " "))
            axes.set_xlabel("epoch")
            axes.grid(alpha=0.3)
            axes.legend()
