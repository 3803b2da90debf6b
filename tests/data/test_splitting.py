"""What a division into splits promises, for any data."""

from collections import Counter, defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.data.splitting import divide

RANKS = {"test": 0, "validation": 1, "train": 2}
examples = st.lists(
    st.tuples(
        st.binary(min_size=1, max_size=1),
        st.integers(0, 3),
        st.sampled_from([None, None, "train", "validation", "test"]),
    ),
    max_size=60,
)
shares = st.dictionaries(st.sampled_from(["validation", "test"]), st.floats(0.01, 0.45))


def divided(rows: list, shares: dict[str, float]) -> list[str | None]:
    keys, labels, given_splits = zip(*rows, strict=True) if rows else ((), (), ())
    return divide(keys, labels, given_splits, shares)


@settings(deadline=None)
@given(rows=examples, shares=shares)
def test_equal_examples_never_come_into_two_splits(rows: list, shares: dict) -> None:
    where = defaultdict(set)
    for (key, _, _), split in zip(rows, divided(rows, shares), strict=True):
        where[key].add(split)
    assert all(len(splits - {None}) <= 1 for splits in where.values())


@settings(deadline=None)
@given(rows=examples, shares=shares, random=st.randoms(use_true_random=False))
def test_the_order_of_examples_does_not_matter(rows: list, shares: dict, random) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)
    before = divided(rows, shares)
    assert divided([rows[place] for place in order], shares) == [before[place] for place in order]


@settings(deadline=None)
@given(rows=examples, shares=shares)
def test_a_given_split_is_kept_or_left_out_for_an_equal_example(rows: list, shares: dict) -> None:
    for (key, _, fixed), split in zip(rows, divided(rows, shares), strict=True):
        above = [other for other_key, _, other in rows if other_key == key and other]
        if fixed and split is None:
            assert any(RANKS[other] < RANKS[fixed] for other in above)
        elif fixed:
            assert split == fixed
        else:
            assert (split is None) == bool(above)


@settings(deadline=None)
@given(counts=st.lists(st.integers(3, 80), min_size=1, max_size=4), shares=shares)
def test_each_class_is_divided_by_the_shares(counts: list[int], shares: dict) -> None:
    labels = np.repeat(np.arange(len(counts)), counts).tolist()
    keys = [number.to_bytes(2, "big") for number in range(len(labels))]
    found = Counter(zip(labels, divide(keys, labels, [None] * len(keys), shares), strict=True))
    for label, count in enumerate(counts):
        for split, share in shares.items():
            assert found[label, split] >= 1
            assert abs(found[label, split] - share * count) <= 1
        assert found[label, "train"] >= 1


def test_a_new_example_leaves_all_but_one_of_a_split_where_they_are() -> None:
    keys = [bytes([number]) for number in range(100)]
    labels, fixed, shares = [0] * 100, [None] * 100, {"test": 0.2}
    before = divide(keys, labels, fixed, shares)
    after = divide([*keys, b"\x00new"], [*labels, 0], [*fixed, None], shares)
    assert sum(old != new for old, new in zip(before, after, strict=False)) == 1
