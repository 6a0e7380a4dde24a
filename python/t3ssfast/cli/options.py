"""Option types that several commands share, each defined once, and what the commands do with them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_type_hints

import typer

if TYPE_CHECKING:
    from t3ssfast.detection.config import DetectConfig

# Inputs. Files that cannot be read are reported by the reader (readable=False), in the same words as every
# other problem with a file and with the same exit code.
Tomograms = Annotated[
    list[Path],
    typer.Argument(
        help="Tomograms (.mrc, .rec, .map, also .gz and .bz2; OME-Zarr, TIFF, EM, HDF5), folders of "
        "them, or patterns.",
        show_default=False,
        readable=False,
    ),
]
Membranes = Annotated[
    list[Path] | None,
    typer.Option(
        "--membrane",
        help="Membrane mask to use instead of segmenting; repeat it, once per tomogram, or give a folder of "
        "masks named after the tomograms.",
        metavar="FILE",
    ),
]
TomogramFile = Annotated[
    Path | None,
    typer.Option(help="Tomogram (or a mask of it) that gives the size and voxel size.", metavar="FILE"),
]
RelionTomograms = Annotated[
    Path | None, typer.Option(help="RELION tomograms.star with sizes and pixel sizes.", metavar="FILE")
]
# Messages of the readers call it --tomograms; the longer name is clearer where tomograms are the arguments.
TomogramsOfParticles = Annotated[
    Path | None,
    typer.Option(
        "--relion-tomograms",
        "--tomograms",
        help="RELION tomograms.star with sizes and pixel sizes.",
        metavar="FILE",
    ),
]
VoxelSize = Annotated[
    float | None, typer.Option(help="Voxel size in Angstrom; replaces the one in the header.")
]
CandidateVoxelSize = Annotated[
    float | None, typer.Option(help="Voxel size of the tomogram in Angstrom, if the files do not state it.")
]
# How the particle files are read. `--format` is the format of the output in some commands.
_PARTICLE_FORMAT_HELP = (
    "Format of the particle files: relion5, dynamo, stopgap, imod, copick, csv, coords, cbox, em, eman2, "
    "data-portal, xml or curation."
)
ParticleFormat = Annotated[
    str | None,
    typer.Option("--format", "--input-format", help=_PARTICLE_FORMAT_HELP, show_default="by the suffix"),
]
InputFormat = Annotated[
    str | None, typer.Option("--input-format", help=_PARTICLE_FORMAT_HELP, show_default="by the suffix")
]
Angstrom = Annotated[
    bool | None,
    typer.Option(
        "--angstrom/--voxels",
        help="Whether positions in the particle files are in Angstrom from the first voxel, or in voxels.",
        show_default="as the format says",
    ),
]
ColumnNames = Annotated[
    str | None,
    typer.Option(
        "--columns",
        help='Columns of csv and text files: in order ("class,x,y,z"; "-" skips one), or by name or number '
        '("x=Xpos,y=Ypos,z=Zpos", "x=2,y=3,z=4").',
        metavar="NAMES",
    ),
]
# "auto" is the default of DetectConfig, so a command takes None and passes nothing on.
AutoContrast = Annotated[
    str | None,
    typer.Option(help='Contrast of protein in the tomogram: "dark", "light" or "auto".', show_default="auto"),
]
Contrast = Annotated[str, typer.Option(help='Contrast of protein in the tomogram: "dark" or "light".')]
MinScore = Annotated[
    float | None,
    typer.Option(
        help="Minimum score; candidates with a lower one are left out.", show_default="all candidates"
    ),
]
Kind = Annotated[
    str | None,
    typer.Option(
        "--kind",
        help='Kind of particles: "t3ss", "flagellar_motor" or "all".',
        metavar="KIND",
        show_default="t3ss",
    ),
]
TomogramNames = Annotated[
    list[str] | None,
    typer.Option(
        "--tomogram-name",
        help="Name of a tomogram in the particle files: NAME=OTHER if the tomogram NAME is called OTHER "
        "there, or OTHER alone for a single tomogram; repeatable.",
        metavar="[NAME=]OTHER",
    ),
]

# Models.
SegmenterFile = Annotated[
    Path | None,
    typer.Option(
        help="Model file of a segmenter (U-Net): .safetensors of t3ssfast, or TorchScript.",
        show_default="bundled",
        metavar="FILE",
    ),
]
ClassifierFile = Annotated[
    Path | None,
    typer.Option(
        help="Model file of a classifier (LeNet): .safetensors of t3ssfast, or TorchScript.",
        show_default="bundled",
        metavar="FILE",
    ),
]
VerifierFile = Annotated[
    Path | None, typer.Option(help="Model file of a verifier.", show_default="bundled", metavar="FILE")
]
Window = Annotated[
    int | None,
    typer.Option(help="Side of the classifier's windows, pixels.", show_default="as its file says, else 50"),
]
ClassifierOutput = Annotated[
    str, typer.Option(help='What the classifier answers: "logits", "probabilities" or "auto" (found out).')
]
SegmenterOutput = Annotated[
    str, typer.Option(help='What the segmenter answers: "logits", "probabilities" or "auto" (found out).')
]
TargetClass = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|INDEX", help="Class of T3SS of the classifier.", show_default="t3ss, else the last"
    ),
]
TrustModel = Annotated[
    bool,
    typer.Option("--trust-model", help="Run the code of model files as it is; they can then do anything."),
]

# Computation.
Device = Annotated[str, typer.Option(help='Device: "auto", "cpu", "cuda", "cuda:1" ...')]
Threads = Annotated[
    int | None, typer.Option(help="Number of CPU threads.", show_default="as many as the job may use")
]
MemoryBudget = Annotated[float | None, typer.Option(help="Memory budget in GiB.", show_default="2")]
Retries = Annotated[
    int,
    typer.Option(
        min=0, help="Number of further attempts at a tomogram whose process was killed, with --cluster."
    ),
]
Sbatch = Annotated[
    list[str] | None,
    typer.Option(
        help="Option of sbatch for Slurm, such as partition=gpu, account=lab or time=2:00:00; repeatable.",
        metavar="KEY=VALUE",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Random seed.")]

# Output.
OptimisationSet = Annotated[
    float | None,
    typer.Option(
        "--tilt-series-pixel-size",
        help="Pixel size of the unbinned tilt series in Angstrom; RELION's optimisation_set.star is then "
        "written over all tomograms.",
        show_default=False,
        metavar="A",
    ),
]
OutFolder = Annotated[Path, typer.Option("--out", "-o", help="Output folder; created if missing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


class ParticleReading(NamedTuple):
    """How particle files of other programs are read; see `t3ssfast.io.particles.load_candidates`."""

    format: str | None = None
    angstrom: bool | None = None
    columns: str | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of `load_candidates`."""
        return self._asdict()


def with_options_of(
    command: Callable[..., Any], *, without: Container[str]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a function that takes `**others` the parameters of a command, as typer sees them.

    Its own come first; those of the command are passed on by name.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        parameters: dict[str, inspect.Parameter] = {}
        for source, left_out in ((function, ()), (command, without)):
            hints = get_type_hints(source, include_extras=True)
            for name, parameter in inspect.signature(source).parameters.items():
                if parameter.kind is not parameter.VAR_KEYWORD and name not in left_out:
                    kind = parameter.KEYWORD_ONLY
                    parameters[name] = parameter.replace(annotation=hints[name], kind=kind)
        signature = inspect.Signature(list(parameters.values()), return_annotation=None)
        function.__signature__ = signature  # type: ignore[attr-defined]
        function.__annotations__ = {name: one.annotation for name, one in parameters.items()}
        return function

    return decorate


def model_readings(
    window: int | None, classifier_output: str, target_class: str | None, segmenter_output: str
) -> dict[str, dict[str, Any]]:
    """Return the keyword arguments of `load_model` for each kind of model."""
    classifier = {"window_px": window, "output": classifier_output, "target_class": target_class}
    return {"classifier": classifier, "segmenter": {"output": segmenter_output}, "verifier": {}}


def given_options(**options: Any) -> dict[str, Any]:
    """Return the options that were given, so that the others keep the defaults of what they configure."""
    return {name: value for name, value in options.items() if value is not None}


def detect_config(*, memory_budget: float | None, **options: Any) -> DetectConfig:
    """Make a DetectConfig from its fields (None keeps the default) and a memory budget in GiB."""
    from t3ssfast.detection.config import DetectConfig

    budget = None if memory_budget is None else int(memory_budget * 2**30)
    return DetectConfig(**given_options(memory_budget_bytes=budget, **options))
