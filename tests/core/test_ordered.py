"""Work ahead keeps the order, and keeps within bounds."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geounet.core.ordered import in_order


@given(st.lists(st.integers(), max_size=40), st.integers(1, 5), st.integers(1, 7))
def test_results_come_in_the_order_of_the_items(items, threads, ahead):
    with ThreadPoolExecutor(threads) as pool:
        assert list(in_order(pool, lambda x: x * 2, items, ahead)) == [x * 2 for x in items]


def test_no_more_than_ahead_items_are_taken_beyond_those_handed_out():
    taken = []

    def items():
        for item in range(100):
            taken.append(item)
            yield item

    with ThreadPoolExecutor(2) as pool:
        for place, _ in enumerate(in_order(pool, lambda x: x, items(), ahead=3)):
            assert len(taken) <= place + 4


def test_calls_overlap_in_time():
    together = threading.Barrier(2, timeout=20)
    with ThreadPoolExecutor(2) as pool:
        assert sorted(in_order(pool, lambda _: together.wait(), range(2), ahead=2)) == [0, 1]


def test_the_first_error_surfaces_in_its_turn_and_what_waits_is_dropped():
    done = []

    def work(item):
        if item == 2:
            raise KeyError(item)
        done.append(item)
        return item

    with ThreadPoolExecutor(1) as pool:
        results = in_order(pool, work, range(100), ahead=2)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(KeyError):
            next(results)
    assert max(done) <= 5
