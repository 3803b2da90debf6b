"""Which runs' times can be compared, and what disturbed a run."""

from collections.abc import Iterable
from typing import Any

SHORTEST_SECONDS = 0.5  # what ran for less cannot tell whether others worked beside it
FOREIGN_CORES = 0.5  # busy with work of others, on average
STOLEN_SHARE = 0.05  # of the cores' time, taken by other virtual machines
DISTURBED = "runs were disturbed"
WAITED_SHARE = 0.1  # of a run's time, in which its threads waited for a core


def conditions(record: dict[str, Any]) -> dict[str, str]:
    """What times depend on besides the work itself, in words by name."""
    device = record["device"]
    return {
        "device": device["name"],
        "driver": device.get("driver") or "none",
        "precision": record["precision"],
        "devices": str(device["devices"]),
        "threads": str(device["threads"]),
        "torch": record["environment"]["packages"]["torch"],
        "timing": record["timing"],
        "interference": DISTURBED if contended(record) else "",
    }


def obstacles(found: Iterable[dict[str, str]]) -> list[str]:
    """Why times under these conditions cannot be compared, such as `torch 2.11.0 / 2.13.0`."""
    rows = list(found)
    values = {name: sorted({row[name] for row in rows}) for name in rows[0]}
    company = values.pop("interference")
    apart = [f"{name} {' / '.join(seen)}" for name, seen in values.items() if len(seen) > 1]
    return apart + [DISTURBED] * (DISTURBED in company)


def contended(record: dict[str, Any]) -> list[str]:
    """What others did to a run while it was timed, in words."""
    counts, found = record["measured"]["counts"], list(record["measured"]["seen"])
    seconds = counts.get("seconds", 0.0)
    if seconds < SHORTEST_SECONDS or "busy_seconds" not in counts:
        return found
    foreign = max(0.0, counts["busy_seconds"] - counts["workflow_seconds"]) / seconds
    stolen = counts["stolen_seconds"] / max(counts["core_seconds"], seconds)
    if foreign > FOREIGN_CORES:
        found.append(f"other work on {foreign:.1f} cores")
    if stolen > STOLEN_SHARE:
        found.append(f"{100 * stolen:.0f}% of the cores' time went to other machines")
    return found


def oversubscribed(record: dict[str, Any]) -> list[str]:
    """How much a run waited for cores, perhaps for those that its own workflow's jobs had."""
    counts = record["measured"]["counts"]
    seconds = counts.get("seconds", 0.0)
    spent = seconds * record["device"]["threads"]
    waited = counts.get("waited_seconds", 0.0) / spent if spent else 0.0
    if seconds < SHORTEST_SECONDS or waited < WAITED_SHARE:
        return []
    return [f"waited for a core in {100 * waited:.0f}% of the time"]
