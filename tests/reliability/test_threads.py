"""Kernels called from many threads at once, and in forked children of a process that has used them."""

from __future__ import annotations

import threading

import numpy as np
from test_layouts import KERNELS

from processes import python


def test_eight_concurrent_threads_get_the_same_results_as_one():
    images = [np.random.default_rng(k).normal(size=(2, 60, 70)).astype(np.float32) for k in range(8)]
    want = [[np.asarray(run(image)) for run in KERNELS.values()] for image in images]
    got: list[list[np.ndarray] | None] = [None] * 8
    barrier = threading.Barrier(8)

    def work(k: int) -> None:
        barrier.wait()
        got[k] = [np.asarray(run(images[k])) for run in KERNELS.values()]

    workers = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for one, other in zip(want, got, strict=True):
        assert other is not None
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_forks_after_openmp_do_not_hang(soak):
    count = 50 if soak else 5
    script = f"""
        import os, sys, warnings
        warnings.simplefilter("ignore")
        import numpy as np, torch
        import test_layouts as t
        from t3ssfast.kernels.window_statistics import window_statistics
        from t3ssfast.kernels.unfold import unfold
        torch.set_num_threads(2)
        image = np.random.default_rng(0).normal(size=(2, 60, 60))
        for number in range({count}):
            for run in t.KERNELS.values():
                run(image)
            child = os.fork()
            if child == 0:
                # A forked child may call these kernels; PyTorch's own would hang.
                a = window_statistics(image, 9)
                b = unfold(image, 9)
                os._exit(0 if np.isfinite(a).all() and np.isfinite(b).all() else 3)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if code:
                sys.exit(code)
        """
    assert python(script).returncode == 0
