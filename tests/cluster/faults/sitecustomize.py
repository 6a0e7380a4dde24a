"""Faults in isolated workers, by the names of tomograms; Python imports this from its path."""

from __future__ import annotations

import sys

if "t3ssfast.cluster.worker" in sys.orig_argv:
    import ctypes
    import os
    import signal
    import time
    from pathlib import Path
    from typing import Any

    from t3ssfast.cluster import tomogram_detection

    detect = tomogram_detection.run_to_folder

    def faulty(folder: Path, path: Path, **options: Any) -> Any:
        name = Path(path).stem
        mark = Path(path).with_suffix(".mark")
        if name.startswith("segfault"):
            ctypes.string_at(0)
        if name.startswith("bus"):
            os.kill(os.getpid(), signal.SIGBUS)
        if name.startswith("once") and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if name.startswith("memory"):
            # Touched, so that it is taken and not only reserved.
            held = bytearray(int(os.environ["T3SSFAST_TEST_BYTES"]))
            held[::4096] = b"1" * len(held[::4096])
            time.sleep(5)
        if name.startswith("slow") and not mark.exists():
            mark.touch()
            time.sleep(100)
        if name.startswith("error"):
            raise RuntimeError("a fault of a library")
        return detect(folder, path, **options)

    tomogram_detection.run_to_folder = faulty
