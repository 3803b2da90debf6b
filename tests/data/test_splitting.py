"""Properties of the splits, for any data."""

from collections import Counter, defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.data.splitting import split_examples

RANKS = {"test": 0, "validation": 1, "train": 2}
examples = st.lists(
    st.tuples(
        st.binary(min_size=1, max_size=1),
        st.integers(0, 3),
        st.sampled_from([None, None, "train", "validation", "test"]),
    ),
    max_size=60,
)
fractions = st.dictionaries(st.sampled_from(["validation", "test"]), st.floats(0.01, 0.45))


def assigned(rows: list, fractions: dict[str, float]) -> list[str | None]:
    keys, labels, fixed = zip(*rows, strict=True) if rows else ((), (), ())
    return split_examples(keys, labels, fixed, fractions)


@settings(deadline=None)
@given(rows=examples, fractions=fractions)
def test_equal_examples_never_come_into_two_splits(rows: list, fractions: dict) -> None:
    where = defaultdict(set)
    for (key, _, _), split in zip(rows, assigned(rows, fractions), strict=True):
        where[key].add(split)
    assert all(len(splits - {None}) <= 1 for splits in where.values())


@settings(deadline=None)
@given(rows=examples, fractions=fractions, random=st.randoms(use_true_random=False))
def test_the_order_of_examples_does_not_matter(rows: list, fractions: dict, random) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)
    before = assigned(rows, fractions)
    assert assigned([rows[index] for index in order], fractions) == [
        before[index] for index in order
    ]


@settings(deadline=None)
@given(rows=examples, fractions=fractions)
def test_a_fixed_split_is_kept_or_left_out_for_an_equal_example(
    rows: list, fractions: dict
) -> None:
    for (key, _, fixed), split in zip(rows, assigned(rows, fractions), strict=True):
        above = [other for other_key, _, other in rows if other_key == key and other]
        if fixed and split is None:
            assert any(RANKS[other] < RANKS[fixed] for other in above)
        elif fixed:
            assert split == fixed
        else:
            assert (split is None) == bool(above)


@settings(deadline=None)
@given(counts=st.lists(st.integers(3, 80), min_size=1, max_size=4), fractions=fractions)
def test_each_class_is_split_by_the_fractions(counts: list[int], fractions: dict) -> None:
    labels = np.repeat(np.arange(len(counts)), counts).tolist()
    keys = [number.to_bytes(2, "big") for number in range(len(labels))]
    found = Counter(
        zip(labels, split_examples(keys, labels, [None] * len(keys), fractions), strict=True)
    )
    for label, count in enumerate(counts):
        for split, fraction in fractions.items():
            assert found[label, split] >= 1
            assert abs(found[label, split] - fraction * count) <= 1
        if count > 8:  # rounding the other splits up can leave nothing of fewer examples
            assert found[label, "train"] >= 1


def test_a_new_example_moves_at_most_one_other_example() -> None:
    keys = [bytes([number]) for number in range(100)]
    labels, fixed, fractions = [0] * 100, [None] * 100, {"test": 0.2}
    before = split_examples(keys, labels, fixed, fractions)
    after = split_examples([*keys, b"\x00new"], [*labels, 0], [*fixed, None], fractions)
    assert sum(old != new for old, new in zip(before, after, strict=False)) == 1
