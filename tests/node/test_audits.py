"""Whole networks that audit: the honest are never slashed, noise is, and neither restarts nor liars change that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from potd.ledger.entries import Past, Phase, Row, Standing
from potd.node import events as ev
from potd.simulation.world import World
from potd.wire.audits import Promise, Status, Verdict, drawn
from potd.wire.blobs import read_blob, write_blob
from potd.wire.codec import Malformed, decode
from potd.wire.envelope import Signed
from potd.wire.ids import Key, TaskId, account_id
from potd.wire.jobs import Replay, Trained
from potd.wire.tasks import BINDING_BYTES

EVERYTHING = 1_000_000  # each of the three honest of four draws a third of all
ROUNDS = 24


def shuffled(world: World, done: Trained) -> Trained:
    """A gradient's codes in another order: they decode, and are worth nothing."""
    data = read_blob(world.folder, done.payload)
    codes = BINDING_BYTES + 3  # behind an exponent for each block
    return replace(done, payload=write_blob(world.folder, data[:codes] + data[codes:][::-1]))


def make_noise(world: World, key: Key) -> None:
    world.members[key].noise = lambda done: shuffled(world, done)


def pasts(world: World, task: TaskId, place: Key | None = None) -> list[Past]:
    ledger = world.node(place or world.keys[0]).ledger
    known = ledger.task(task)
    assert known is not None
    return [past for number in range(known.round) if (past := ledger.past(task, number)) is not None]


def rows_of(world: World, task: TaskId, key: Key) -> list[Row]:
    return [row for past in pasts(world, task) for row in past.rows if row.miner == account_id(key)]


def slashed(world: World, task: TaskId) -> set[bytes]:
    return set(world.node(world.keys[0]).ledger.parting(task).slashed)


def done(world: World, task: TaskId) -> None:
    def finished() -> bool:
        known = [world.node(key).ledger.task(task) for key in world.running()]
        return all(one is not None and one.phase == Phase.DONE for one in known)

    world.run(finished, 4_000)


def bodies(effect: ev.Effect, kind: type) -> list[object]:
    """What an effect says of this kind."""
    data = effect.data if isinstance(effect, ev.Send | ev.Publish) else b""
    try:
        return [decode(decode(data, Signed).payload, kind)]
    except Malformed:
        return []


def test_an_honest_network_tells_what_it_promised_and_slashes_nobody(tmp_path: Path) -> None:
    world = World(tmp_path, seed=31, miners=1, audit_ppm=EVERYTHING)
    task = world.submit(rounds=ROUNDS)
    done(world, task)
    told = [past for past in pasts(world, task) if ROUNDS - 9 > past.round > 4]
    assert told
    for past in told:
        assert all(one.kept for one in past.promises)
        voices = [voice for row in past.rows for voice in row.voices]
        assert {voice.status for voice in voices} <= {Status.GOOD.value}
        by_miner = {row.miner: {voice.validator for voice in row.voices} for row in past.rows}
        assert all(miner not in validators for miner, validators in by_miner.items()), "nobody audits itself"
    assert sum(len(row.voices) for past in told for row in past.rows) > len(told)
    assert all(row.standing == Standing.UNCONTESTED for past in pasts(world, task) for row in past.rows)
    assert slashed(world, task) == set()
    assert not any("record" in line for member in world.members.values() for line in member.log), "nothing is refused"
    world.agree()
    world.check()


def test_what_a_link_draws_is_what_is_told(tmp_path: Path) -> None:
    world = World(tmp_path, seed=32, audit_ppm=EVERYTHING // 2)
    verdicts: dict[tuple[bytes, int], Verdict] = {}

    def watch(_: object, effect: ev.Effect) -> None:
        for body in bodies(effect, Verdict):
            assert isinstance(body, Verdict)
            verdicts[body.account, body.round] = body

    world.watchers.append(watch)
    task = world.submit(rounds=ROUNDS)
    done(world, task)
    assert len(verdicts) > 10
    for past in pasts(world, task):
        rows = [(row.miner, row.outcome) for row in past.rows]
        for promise in past.promises:
            if promise.kept:
                one = verdicts[promise.validator, past.round]
                due = drawn(one.link, past.seed, rows, promise.validator, EVERYTHING // 2, 4)
                assert tuple(finding.miner for finding in one.findings) == due


def test_a_miner_that_sends_noise_is_drawn_found_bad_and_slashed_by_a_quorum(tmp_path: Path) -> None:
    world = World(tmp_path, seed=33, miners=2, audit_ppm=EVERYTHING)
    liar = world.keys[-1]
    make_noise(world, liar)
    task = world.submit(rounds=60)
    world.run(lambda: account_id(liar) in slashed(world, task), 4_000)
    assert slashed(world, task) == {account_id(liar)}
    bad = [row for row in rows_of(world, task, liar) if row.standing == Standing.SLASHED and row.voices]
    assert bad
    accusers = {voice.validator for row in bad for voice in row.voices if voice.status == Status.BAD}
    assert len(accusers) >= 3, "a quorum of four"
    assert all(row.pay_micro == 0 for row in rows_of(world, task, liar))
    assert world.task(world.keys[0]).miner(account_id(liar)) is None
    number = world.round(world.keys[0])
    world.reach(number + 3, 1_000)
    for key in world.keys[:-1]:
        assert all(row.standing != Standing.SLASHED for row in rows_of(world, task, key))
    world.agree()
    world.check()


def test_a_validator_that_mines_noise_is_slashed_by_the_others(tmp_path: Path) -> None:
    world = World(tmp_path, seed=34, audit_ppm=EVERYTHING)
    liar = world.keys[2]
    make_noise(world, liar)
    task = world.submit(rounds=60)
    world.run(lambda: account_id(liar) in slashed(world, task), 4_000)
    assert slashed(world, task) == {account_id(liar)}
    world.check()


def test_an_auditor_that_restarts_between_promise_and_verdict_tells_what_it_promised(tmp_path: Path) -> None:
    world = World(tmp_path, seed=35, audit_ppm=EVERYTHING)
    away = world.keys[1]
    task = world.submit(rounds=40)

    def has_promised() -> bool:
        mine = [one for past in pasts(world, task) for one in past.promises if one.validator == account_id(away)]
        return any(not one.kept for one in mine)

    world.run(has_promised, 2_000)
    (number, *_) = [
        past.round
        for past in pasts(world, task)
        if any(one.validator == account_id(away) and not one.kept for one in past.promises)
    ]
    world.stop(away)
    world.start(away)
    again: list[int] = []

    def watch(place: object, effect: ev.Effect) -> None:
        if place == away and isinstance(effect, ev.Run) and isinstance(effect.job, Replay):
            again.append(effect.job.round)

    world.watchers.append(watch)

    def has_told() -> bool:
        promises = next(past.promises for past in pasts(world, task) if past.round == number)
        return any(one.validator == account_id(away) and one.kept for one in promises)

    world.run(has_told, 2_000)
    assert number not in again, "its findings were written down"
    world.check()


def test_an_auditor_killed_at_any_moment_of_its_replays_keeps_every_promise(tmp_path: Path) -> None:
    """Killed as its trainer is given a replay, as it notes its findings, and as it says its promise."""
    moments = (
        lambda effect: isinstance(effect, ev.Run) and isinstance(effect.job, Replay),
        lambda effect: isinstance(effect, ev.Note) and effect.name.startswith("findings/") and bool(effect.data),
        lambda effect: bool(bodies(effect, Promise)),
        lambda effect: bool(bodies(effect, Verdict)),
    )
    world = World(tmp_path, seed=36, audit_ppm=EVERYTHING)
    victim = world.keys[3]
    task = world.submit(rounds=60)
    for moment in moments:
        world.members[victim].assassin = moment
        world.run(lambda: world.members[victim].node is None, 2_000)
        world.pass_time(5)
        world.start(victim)
    number = world.round(world.keys[0])
    world.reach(number + 14, 3_000)
    ours = [
        (past.round, one.kept)
        for past in pasts(world, task)
        for one in past.promises
        if one.validator == account_id(victim)
    ]
    assert len(ours) > 3
    assert all(kept for at, kept in ours if at < number + 4)
    assert slashed(world, task) == set()
    world.check()


def test_a_verdict_that_the_others_contradict_is_cleared_and_its_author_fined(tmp_path: Path) -> None:
    world = World(tmp_path, seed=37, miners=1, audit_ppm=EVERYTHING)
    liar = world.keys[1]
    world.members[liar].slander = lambda answer: replace(answer, distance_nano=10**9)
    world.distrust(liar)
    task = world.submit(rounds=60)

    def cleared() -> list[Row]:
        return [row for past in pasts(world, task) for row in past.rows if row.standing == Standing.CLEARED]

    before = {seat.account: seat.bond_micro for seat in world.node(world.keys[0]).ledger.validators()}
    world.run(lambda: bool(cleared()), 4_000)
    after = {seat.account: seat.bond_micro for seat in world.node(world.keys[0]).ledger.validators()}
    fined = {account for account, bond in before.items() if after[account] < bond}
    assert fined == {account_id(liar)}
    assert slashed(world, task) == set()
    world.check()


def test_replays_wait_while_a_gradient_of_the_same_node_is_due(tmp_path: Path) -> None:
    """Between the opening of a round and its own commitment to it no trainer is given a replay."""
    world = World(tmp_path, seed=38, audit_ppm=EVERYTHING)
    given: list[tuple[str, str]] = []

    def watch(place: object, effect: ev.Effect) -> None:
        if not isinstance(effect, ev.Run) or place not in world.members:
            return
        key = next(key for key in world.keys if key == place)
        node = world.node(key)
        (part,) = node.desks.parts.values()
        if isinstance(effect.job, Replay):
            assert part.miner is not None
            given.append(("replay", part.miner.doing))

    world.watchers.append(watch)
    task = world.submit(rounds=20)
    done(world, task)
    assert len(given) > 20
    assert not any(doing.startswith(("training", "getting")) for _, doing in given)


def test_a_part_of_a_task_that_is_done_stays_until_its_last_audit_is_over(tmp_path: Path) -> None:
    world = World(tmp_path, seed=39, audit_ppm=EVERYTHING, settle_heights=40)
    task = world.submit(rounds=10)
    done(world, task)
    assert all(task in world.node(key).desks.parts for key in world.validators)
    assert any(name.startswith("findings/") for name in world.members[world.keys[0]].disk.notes)
    world.run(lambda: all(task not in world.node(key).desks.parts for key in world.validators), 2_000)
    assert world.node(world.keys[0]).ledger.settling() == ()
    world.pass_time(5)
    assert not any(name.startswith("findings/") for name in world.members[world.keys[0]].disk.notes)
    assert pasts(world, task) == []
