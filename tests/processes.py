"""Processes of their own for tests: scripts, and children that are forked ready to run and killed."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

TESTS = Path(__file__).parent


def search_path() -> str:
    """PYTHONPATH with the tests to import from."""
    own = [str(TESTS), *(str(folder) for folder in TESTS.iterdir() if folder.is_dir())]
    return os.pathsep.join([*own, *filter(None, [os.environ.get("PYTHONPATH")])])


def python(script: str, **options: object) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own, with the tests to import from."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=os.environ | {"PYTHONPATH": search_path()},
        timeout=250,
        check=False,
        **options,  # type: ignore[call-overload]
    )


class Forks:
    """A process that has imported everything, and forks children that run a piece of Python and are killed.

    Parameters
    ----------
    setup
        Run once, before the first fork. It must not start threads.
    folder
        Where what the children print is kept, in files named after their numbers.
    """

    def __init__(self, setup: str, folder: Path) -> None:
        self._folder = folder
        script = """
            import os, sys, traceback
            names = {}
            exec(sys.stdin.readline().encode().decode("unicode_escape"), names)
            print("ready", flush=True)
            for line in sys.stdin:
                what, _, rest = line.rstrip("\\n").partition(" ")
                if what == "wait":
                    status = os.waitpid(int(rest), 0)[1]
                    print(os.waitstatus_to_exitcode(status), flush=True)
                    continue
                child = os.fork()
                if child:
                    print(child, flush=True)
                    continue
                log = os.open(what, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(log, 1), os.dup2(log, 2)
                code = 1
                try:
                    exec(rest.encode().decode("unicode_escape"), names)
                    code = 0
                except SystemExit as end:
                    code = int(end.code or 0)
                except BaseException:
                    traceback.print_exc()
                sys.stdout.flush(), sys.stderr.flush()
                os._exit(code)
            """
        self._parent = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)],
            env=os.environ | {"PYTHONPATH": search_path()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._count = 0
        assert self._ask(_one_line(setup)) == "ready"

    def _ask(self, line: str) -> str:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(line + "\n")
        self._parent.stdin.flush()
        return self._parent.stdout.readline().strip()

    def start(self, script: str) -> tuple[int, Path]:
        """Fork a child that runs a script; its process number, and the file that it prints to."""
        self._count += 1
        log = self._folder / f"child-{self._count}.txt"
        return int(self._ask(f"{log} {_one_line(script)}")), log

    def wait(self, child: int) -> int:
        """Exit code of a child, once it has ended; negative is the signal that ended it."""
        return int(self._ask(f"wait {child}"))

    def close(self) -> None:
        """End the process."""
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.close()
        assert self._parent.wait(timeout=100) == 0
        self._parent.stdout.close()


def _one_line(script: str) -> str:
    return textwrap.dedent(script).encode("unicode_escape").decode()
