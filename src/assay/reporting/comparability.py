"""Which runs' times can be compared, and which interference a run saw."""

from collections.abc import Iterable
from typing import Any

SHORTEST_SECONDS = 0.5  # shorter runs are too short to measure interference
FOREIGN_CORES = 0.5  # mean number of cores that other processes kept busy
STEAL_FRACTION = 0.05  # of the cores' time, taken by other virtual machines
WAITING_FRACTION = 0.1  # of the threads' time, spent waiting for a core
CONTENDED = "runs were contended"


def conditions(record: dict[str, Any]) -> dict[str, str]:
    """Return what the time of a run depends on besides its own work, by name."""
    device = record["device"]
    return {
        "device": device["name"],
        "driver": device.get("driver") or "none",
        "precision": record["precision"],
        "devices": str(device["devices"]),
        "threads": str(device["threads"]),
        "torch": record["environment"]["packages"]["torch"],
        "timing": record["timing"],
        "interference": CONTENDED if contended(record) else "",
    }


def obstacles(rows: Iterable[dict[str, str]]) -> list[str]:
    """Return why times under these conditions are not comparable: `torch 2.11.0 / 2.13.0`."""
    rows = list(rows)
    values = {name: sorted({row[name] for row in rows}) for name in rows[0]}
    interference = values.pop("interference")
    differing = [f"{name} {' / '.join(each)}" for name, each in values.items() if len(each) > 1]
    return differing + [CONTENDED] * (CONTENDED in interference)


def contended(record: dict[str, Any]) -> list[str]:
    """Return the interference of other processes with a run while it was timed."""
    counts, seen = record["measured"]["counts"], list(record["measured"]["seen"])
    seconds = counts.get("seconds", 0.0)
    if seconds < SHORTEST_SECONDS or "busy_seconds" not in counts:
        return seen
    foreign = max(0.0, counts["busy_seconds"] - counts["workflow_seconds"]) / seconds
    steal = counts["stolen_seconds"] / max(counts["core_seconds"], seconds)
    if foreign > FOREIGN_CORES:
        seen.append(f"other processes used {foreign:.1f} cores")
    if steal > STEAL_FRACTION:
        seen.append(f"{100 * steal:.0f}% of the cores' time went to other virtual machines")
    return seen


def oversubscribed(record: dict[str, Any]) -> list[str]:
    """Return how long the threads of a run waited for a core, if it was long enough to matter.

    The cores may have been busy with other jobs of the same workflow.
    """
    counts = record["measured"]["counts"]
    seconds = counts.get("seconds", 0.0)
    total = seconds * record["device"]["threads"]
    waiting = counts.get("waited_seconds", 0.0) / total if total else 0.0
    if seconds < SHORTEST_SECONDS or waiting < WAITING_FRACTION:
        return []
    return [f"waited for a core {100 * waiting:.0f}% of the time"]
