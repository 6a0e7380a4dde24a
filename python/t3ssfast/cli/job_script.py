"""A script for the job arrays of schedulers that t3ssfast does not submit to itself."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Container, Sequence
from pathlib import Path

import typer

__all__ = ["given_arguments", "write_script"]

PROGRAM = "from t3ssfast.cli import main; main()"
SCRIPT = """#!/bin/bash
# Searches {count} shards of a list of tomograms, one in each job of an array. Submit it with one of
#   PBS Pro       qsub -J 1-{count} {name}
#   Torque        qsub -t 1-{count} {name}
#   Grid Engine   qsub -cwd -t 1-{count} {name}
#   LSF           bsub -J "t3ssfast[1-{count}]" < {name}
#   Slurm         sbatch --array=1-{count} {name}
#   HTCondor      executable = {name}, arguments = $(Process), queue {count}
# and with what your site needs: queue, account, time limit, memory, cores, GPUs.
# Submit it again if jobs were killed: finished tomograms are skipped, interrupted ones resume.
# `t3ssfast status {out}` tells what has become of the tomograms.

# HTCondor passes the number of the job, from 0, as an argument.
if [ -n "$1" ]; then
  shard=$(($1 + 1))
else
  for shard in "$PBS_ARRAY_INDEX" "$PBS_ARRAYID" "$SGE_TASK_ID" "$LSB_JOBINDEX" "$SLURM_ARRAY_TASK_ID"; do
    [ -n "$shard" ] && [ "$shard" != undefined ] && [ "$shard" != 0 ] && break
  done
fi
if [ -z "$shard" ]; then
  echo "{name}: this is no job of an array; submit it as its first lines say." >&2
  exit 2
fi
cd {folder} || exit 1
{environment}exec {command}
"""


def write_script(path: Path, arguments: Sequence[str], out: Path, count: int) -> None:
    """Write a script that runs `t3ssfast detect` with these arguments in `count` jobs."""
    from t3ssfast.io import atomic_path

    program = Path(sys.executable).with_name("t3ssfast")
    own = [str(program)] if program.is_file() else [sys.executable, "-P", "-c", PROGRAM]
    search_path = os.environ.get("PYTHONPATH")
    with atomic_path(path) as temporary:
        text = SCRIPT.format(
            count=count,
            name=shlex.quote(path.name),
            out=shlex.quote(str(out)),
            environment=f"export PYTHONPATH={shlex.quote(search_path)}\n" if search_path else "",
            folder=shlex.quote(str(Path.cwd())),
            command=shlex.join([*own, "detect", "--cluster=local:1"])
            + f' --shard="$shard/{count}" '
            + shlex.join(arguments),
        )
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o755)


def given_arguments(context: typer.Context, *, without: Container[str]) -> list[str]:
    """Return the arguments that a command was given, without those of some parameters."""
    arguments: list[str] = []
    positional: list[str] = []
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name in without or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        values = [str(one) for one in value] if isinstance(value, list | tuple) else [str(value)]
        if parameter.param_type_name == "argument":
            positional += values
        elif getattr(parameter, "is_flag", False):
            arguments.append(parameter.opts[0] if value else parameter.secondary_opts[0])
        else:
            # With an equals sign, so that a value may begin with a dash.
            long = max(parameter.opts, key=len)
            arguments += [f"{long}={one}" for one in values]
    return [*arguments, "--", *positional] if positional else arguments
