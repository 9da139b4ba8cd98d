"""Who trains on what: the same everywhere, disjoint while the data suffices, chosen by nobody."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from potd.rounds.plan import Window, arc, assign, below, draw, in_whole, shards_of, stream
from potd.wire.ids import digest

SEEDS = st.binary(min_size=32, max_size=32)
SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=12)


def account(index: int) -> bytes:
    return digest("account", bytes([index]))


@st.composite
def windows(draw: st.DrawFn) -> Window:
    units = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    return Window(draw(SEEDS), tuple(sorted((account(index), each) for index, each in enumerate(units))))


def test_a_stream_is_the_same_on_every_machine() -> None:
    """Golden: a validator of another release must draw the same batch."""
    numbers = stream(bytes(32), b"golden")
    assert [next(numbers) for _ in range(3)] == [10725449162487622448, 2045027124622386922, 14120282412653142666]
    assert draw(stream(bytes(32), b"golden"), 10, 10) == [8, 5, 4, 9, 2, 1, 7, 0, 3, 6]


@given(SEEDS, st.integers(1, 2**64))
def test_a_drawn_integer_is_below_its_bound(seed: bytes, bound: int) -> None:
    assert 0 <= below(stream(seed), bound) < bound


@given(SEEDS, st.integers(0, 50), st.integers(0, 50))
def test_a_draw_takes_different_members_of_its_population(seed: bytes, one: int, other: int) -> None:
    count, population = sorted((one, other))
    drawn = draw(stream(seed), population, count)
    assert len(drawn) == count == len(set(drawn))
    assert set(drawn) <= set(range(population))


@given(windows(), st.integers(1, 500))
def test_arcs_are_disjoint_and_cover_the_ring_when_no_batch_is_too_large(window: Window, samples: int) -> None:
    arcs = [arc(window, one, units, samples, 0) for one, units in window.members]
    arcs.sort(key=lambda one: (one.start, one.length))
    assert sum(one.length for one in arcs) == samples
    assert all(before.start + before.length == after.start for before, after in pairwise(arcs))


@given(windows(), st.integers(1, 500), st.integers(1, 60))
def test_an_arc_is_never_shorter_than_a_batch_or_longer_than_the_ring(window: Window, samples: int, need: int) -> None:
    for one, units in window.members:
        stretch = arc(window, one, units, samples, need)
        assert min(need, samples) <= stretch.length <= samples


@given(windows(), SIZES, SEEDS, st.integers(1, 8))
def test_a_batch_has_the_assigned_size_and_comes_from_shards_that_were_named_before(
    window: Window, sizes: list[int], seed: bytes, unit_batch: int
) -> None:
    for one, units in window.members:
        need = units * unit_batch
        ahead = shards_of(window, sizes, one, units, need)
        given_now = assign(window, sizes, seed, one, units, unit_batch)
        assert given_now.shards == ahead
        assert len(given_now.samples) == need
        assert all(0 <= index < sum(sizes[shard] for shard in ahead) for index in given_now.samples)
        if need <= sum(sizes):
            assert len(set(given_now.samples)) == need, "a sample twice in one batch"


@given(windows(), SEEDS, st.integers(1, 4))
def test_batches_of_one_round_are_disjoint_while_the_data_suffices(
    window: Window, seed: bytes, unit_batch: int
) -> None:
    sizes = [7] * (sum(units for _, units in window.members) * unit_batch)  # seven times what is needed
    taken: list[int] = []
    for one, units in window.members:
        taken += in_whole(assign(window, sizes, seed, one, units, unit_batch), sizes)
    assert len(taken) == len(set(taken))


@given(windows(), SIZES, SEEDS)
def test_the_order_of_members_in_memory_decides_nothing(window: Window, sizes: list[int], seed: bytes) -> None:
    turned = Window(window.seed, window.members[::-1])
    for one, units in window.members:
        assert assign(window, sizes, seed, one, units, 3) == assign(turned, sizes, seed, one, units, 3)


@given(windows(), SIZES, SEEDS, st.integers(1, 9))
def test_a_newcomer_gets_a_batch_that_moves_nobody_elses(
    window: Window, sizes: list[int], seed: bytes, units: int
) -> None:
    given_now = assign(window, sizes, seed, account(99), units, 2)
    assert len(given_now.samples) == 2 * units
    assert given_now.shards == shards_of(window, sizes, account(99), units, 2 * units)


def test_a_data_set_smaller_than_a_batch_is_gone_through_more_than_once() -> None:
    window = Window(bytes(32), ((account(0), 4),))
    samples = assign(window, [2, 1], bytes(32), account(0), 4, 2).samples
    assert len(samples) == 8
    assert {samples.count(index) for index in range(3)} <= {2, 3}


def test_an_arc_may_run_over_the_end_of_the_ring() -> None:
    """Three miners on five samples with batches of four: the last arc begins at the third and ends at the first."""
    window = Window(bytes(32), tuple(sorted((account(index), 1) for index in range(3))))
    for index in range(3):
        given_now = assign(window, [2, 3], bytes(32), account(index), 1, 4)
        assert len(set(in_whole(given_now, [2, 3]))) == 4


def test_another_seed_deals_other_batches_from_the_same_shards() -> None:
    window = Window(bytes(32), ((account(0), 1), (account(1), 1)))
    one, other = (assign(window, [50] * 4, bytes([seed]) * 32, account(0), 1, 10) for seed in range(2))
    assert one.shards == other.shards
    assert one.samples != other.samples


def test_shares_are_in_proportion_to_units() -> None:
    window = Window(bytes(32), tuple(sorted(((account(0), 3), (account(1), 1)))))
    assert (arc(window, account(0), 3, 400, 1).length, arc(window, account(1), 1, 400, 1).length) == (300, 100)


@given(windows(), SIZES, SEEDS)
def test_indices_into_the_whole_lead_to_the_assigned_shards(window: Window, sizes: list[int], seed: bytes) -> None:
    whole = [(shard, index) for shard, size in enumerate(sizes) for index in range(size)]
    for one, units in window.members:
        given_now = assign(window, sizes, seed, one, units, 2)
        laid = [(shard, index) for shard in given_now.shards for index in range(sizes[shard])]
        assert [whole[at] for at in in_whole(given_now, sizes)] == [laid[at] for at in given_now.samples]
