"""Which examples train, validate and test, by what they hold and not by their order."""

from collections import Counter
from collections.abc import Mapping, Sequence

PARTS = ("test", "validation", "train")  # what equals a test example must not train


def divide(
    keys: Sequence[bytes],
    labels: Sequence[int],
    given: Sequence[str | None],
    shares: Mapping[str, float],
) -> list[str | None]:
    """Divide examples within each class, by the order of their keys.

    Examples of one key never come into two splits, not even those of different classes.

    Args:
        keys: of the examples: equal for equal examples, and else as good as random, like the
            digest of a file.
        labels: of the examples.
        given: the split of an example where that is fixed; None for one that is to be divided.
        shares: split -> its share of what is divided, for all but `train`. Of each class that is
            divided a split gets one example at least, while there are enough.

    Returns:
        The split of each example; None for one that equals an example in a given split that
        counts for more: test before validation before train.
    """
    owners: dict[bytes, str] = {}
    for part in PARTS:
        for key, split in zip(keys, given, strict=True):
            if split == part:
                owners.setdefault(key, part)
    rest: dict[int, Counter[bytes]] = {}
    for key, label, split in zip(keys, labels, given, strict=True):
        if split is None and key not in owners:
            rest.setdefault(label, Counter())[key] += 1
    divided: dict[bytes, str] = {}
    for label in sorted(rest):
        _divide_class(rest[label], shares, divided)
    return [
        (split if owners[key] == split else None) if split else divided.get(key)
        for key, split in zip(keys, given, strict=True)
    ]


def _divide_class(
    counts: Counter[bytes], shares: Mapping[str, float], divided: dict[bytes, str]
) -> None:
    """Add a class's keys to `divided`, which holds those of the classes before it."""
    wanted = {part: max(1, round(share * counts.total())) for part, share in shares.items()}
    have = Counter({part: 0 for part in wanted})
    for key in counts.keys() & divided.keys():
        have[divided[key]] += counts[key]
    for key in sorted(counts.keys() - divided.keys()):
        part = next((part for part in wanted if have[part] < wanted[part]), "train")
        divided[key] = part
        have[part] += counts[key]
