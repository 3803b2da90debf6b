"""Cores: how many this process may use, and how jobs use theirs without disturbing each other."""

import os


def available() -> int:
    """CPU cores that this process may use, as its affinity and its container's quota grant them."""
    import joblib

    return joblib.cpu_count()


def environment(threads: int) -> dict[str, str]:
    """Variables of a job, which its libraries read when they are loaded.

    Threads that wait for each other sleep. By default they spin, and a step takes hundreds of times
    as long as soon as one of them finds its core taken (`benchmarks/cores.py`).

    Args:
        threads: of a job.
    """
    numbers = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "RAYON")}
    policy = os.environ.get("OMP_WAIT_POLICY", "passive")
    return {**numbers, "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": policy}
