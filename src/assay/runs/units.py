"""Quantities as text for people."""


def duration(seconds: float) -> str:
    """Return seconds in at most two units: `75.2` -> `1 min 15 s`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {name}"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def size(count: float) -> str:
    """Return a number of bytes with three digits, such as `1.23 MB`."""
    return _scaled(count, "B")


def joules(energy: float) -> str:
    """Return an energy in joules with three digits, such as `1.23 kJ`."""
    return _scaled(energy, "J")


def _scaled(value: float, unit: str) -> str:
    for prefix in ("", "k", "M", "G"):
        if value < 999.5:
            return f"{value:.3g} {prefix}{unit}"
        value /= 1000
    return f"{value:.3g} T{unit}"
