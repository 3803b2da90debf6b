"""CPU cores: how many this process may use, and how many threads a job's libraries start."""

import os


def available() -> int:
    """Return the number of cores that the affinity and the container's quota allow."""
    import joblib

    return joblib.cpu_count()


def environment(threads: int) -> dict[str, str]:
    """Return the environment variables that set the number of threads of a job's libraries.

    Threads that wait for each other sleep. By default they spin, and a step takes hundreds of times
    as long as soon as another process runs on the core of one of them (`benchmarks/cores.py`).

    Args:
        threads: of a job.
    """
    numbers = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "RAYON")}
    policy = os.environ.get("OMP_WAIT_POLICY", "passive")
    return {**numbers, "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": policy}
