"""Which seeds a primary can choose among: all that it and those it colludes with can do is tried out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, product

import pytest

from potd.ledger.apply import execute
from potd.ledger.chains import named_links
from potd.ledger.working import Working
from potd.wire.blocks import Batch
from potd.wire.codec import decode
from potd.wire.envelope import Signed
from potd.wire.ids import NOTHING, AccountId, digest
from potd.wire.rounds import Named, Report, Step
from tests.ledger import world as small
from tests.ledger.world import World


def subsets(among: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return (each for size in range(len(among) + 1) for each in combinations(among, size))


class Game:
    """A round that is sealed, by `size` validators with chains, of whom the last ones collude and one is primary."""

    def __init__(self, size: int, colluders: int, chained: bool = True) -> None:
        self.everybody = range(size)
        self.honest, self.colluders = self.everybody[: size - colluders], self.everybody[size - colluders :]
        self.world = World()
        self._links: dict[tuple[int, int], Named] = {}  # by validator and round
        self.task = self.world.opened(0, 1, 2, rounds=100)
        if chained:
            chains = [self.world.chain(who, self.task) for who in self.everybody]
            assert self.world.reasons(*chains) == [""] * size
        nothing: tuple[Named, ...] = ()
        for _ in range(2):
            self.world.sealed(self.task, 0, 1, 2)
            reports = tuple(self.report(who, nothing) for who in self.everybody)
            assert self.world.reasons(self.world.update(self.task, reports=reports)) == [""]

    def named(self, *whose: int) -> tuple[Named, ...]:
        number = self.world.task(self.task).round
        for who in whose:
            if (who, number) not in self._links:
                link = self.world.link(who, self.task, number, "seeds")
                self._links[who, number] = Named(self.world.ids[who], link)
        return tuple(sorted(self._links[who, number] for who in whose))

    def report(self, who: int, links: tuple[Named, ...]) -> Signed:
        number = self.world.task(self.task).round
        return self.world.people[who].sign(Report(self.task, number, Step.UPDATE.value, (), links, ()))

    def seed(self, reports: Sequence[Signed]) -> bytes:
        """That which follows an update with these reports."""
        record = self.world.update(self.task, reports=tuple(sorted(reports, key=lambda one: one.key)))
        done = execute(self.world.ledger, Batch((record,)))
        assert [one.reason for one in done.receipts] == [""]
        after = done.ledger.task(self.task)
        assert after is not None
        return after.seed

    def expected(self, *whose: int) -> bytes:
        """The seed with the links of these."""
        state = self.world.task(self.task)
        return digest("seed", state.seed, state.seal, *(one.subject + one.digest for one in self.named(*whose)))

    def taken(self, reports: Sequence[Signed]) -> frozenset[AccountId]:
        """Whose links go into the seed."""
        work = Working(self.world.ledger, self.world.ledger.height + 1, NOTHING)
        said = [decode(one.payload, Report) for one in reports]
        return frozenset(named_links(work, self.world.task(self.task), said))


def test_one_of_four_that_is_primary_chooses_between_two_seeds_by_giving_its_link_or_not() -> None:
    """It gives its link to any of the others in time, names what it likes, and takes any quorum of the reports."""
    game = Game(4, 1)
    game.world.sealed(game.task, 0, 1, 2)
    (liar,) = game.colluders
    with_it, without = game.named(*game.everybody), game.named(*game.honest)
    said = {(who, had): game.report(who, with_it if had else without) for who in game.honest for had in (True, False)}
    reached: set[bytes] = set()
    for had, named in product(subsets(game.honest), subsets(game.everybody)):
        reports = [said[who, who in had] for who in game.honest] + [game.report(liar, game.named(*named))]
        for quorum in (*combinations(reports, 3), tuple(reports)):
            reached.add(game.seed(quorum))
    assert reached == {game.expected(*game.everybody), game.expected(*game.honest)}


def test_two_of_seven_choose_among_four_and_no_honest_link_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small, "VALIDATORS", 7)
    game = Game(7, 2)
    game.world.sealed(game.task, 0, 1, 2)
    honest = {game.world.ids[who] for who in game.honest}
    one, other = game.colluders
    reached: set[frozenset[AccountId]] = set()
    # Which of the honest had a link in time matters by their number, and by whether they are in the quorum.
    for had_one, had_other in product(range(6), repeat=2):
        reports = [
            game.report(who, game.named(*game.honest, *([one] * (who < had_one)), *([other] * (who < had_other))))
            for who in game.honest
        ]
        for theirs in product(((), tuple(game.everybody)), repeat=2):
            lied = [game.report(who, game.named(*named)) for who, named in zip((one, other), theirs, strict=True)]
            for quorum in combinations(reports + lied, 5):
                reached.add(game.taken(quorum))
    assert all(each >= honest for each in reached)
    assert len(reached) == 2**2


def test_an_honest_link_that_comes_in_time_to_too_few_is_one_more_choice() -> None:
    """What a primary gains where the network is slower than patience: what f + 1 honest ones do not name is its to take
    or to leave, as its own is."""
    game = Game(4, 1)
    game.world.sealed(game.task, 0, 1, 2)
    late, (liar,) = game.honest[0], game.colluders
    reached: set[bytes] = set()
    for had, named in product(subsets(game.honest), subsets(game.everybody)):
        reports = [game.report(liar, game.named(*named))]
        for who in game.honest:
            known = {*game.honest, *([liar] if who in had else [])} - ({late} if who != late else set())
            reports.append(game.report(who, game.named(*known)))
        for quorum in (*combinations(reports, 3), tuple(reports)):
            reached.add(game.seed(quorum))
    assert len(reached) == 2**2


def test_a_false_link_changes_no_seed_though_all_name_it() -> None:
    game = Game(4, 1)
    game.world.sealed(game.task, 0, 1, 2)
    (liar,) = game.colluders
    false = tuple(sorted((*game.named(*game.honest), Named(game.world.ids[liar], digest("chosen")))))
    assert game.seed([game.report(who, false) for who in game.everybody]) == game.expected(*game.honest)


def test_without_links_every_seal_that_a_primary_can_write_is_a_draw_that_it_sees_beforehand() -> None:
    """Its own report may say any number of ticks, so there is no end of seals. With links it chooses the seal before
    any honest link is known, and each seed that may follow hangs on all of them."""
    plain, linked = Game(4, 1, chained=False), Game(4, 1)
    for game in (plain, linked):
        before = game.world.ledger
        foreseen: set[bytes] = set()
        came: set[bytes] = set()
        for ticks in range(64):
            game.world.ledger = before
            miners = sorted((0, 1, 2), key=lambda who: game.world.ids[who])
            commitments = [game.world.commitment(who, game.task) for who in miners]
            game.world.execute(game.world.seal(game.task, commitments, [0, 0, 0, ticks]))
            foreseen.add(game.expected())
            known = game.named(*game.everybody) if game is linked else ()
            came.add(game.seed([game.report(who, known) for who in game.everybody]))
        assert len(foreseen) == len(came) == 64
        assert (foreseen == came) is (game is plain)
