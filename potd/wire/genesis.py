"""Genesis: what every node of a network must agree on before the first message. Its digest is the network's name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from potd.wire.codec import U16, U32, U63, Range, Size, encode, message
from potd.wire.ids import Digest, Key, digest

PROTOCOL = 1  # the protocol number that this release speaks
TICK_MS = 50  # the unit of every duration in messages and parameters
SUPPLY_MAX = 10**18  # micro-units; keeps every sum of amounts far inside 63 bits


@message(10)
@dataclass(frozen=True, order=True)
class Allotment:
    """The opening balance of the account made from `owner_key`."""

    owner_key: Key
    amount_micro: Annotated[int, Range(0, SUPPLY_MAX)]


@message(11)
@dataclass(frozen=True)
class Parameters:
    """What all nodes must agree on. Durations in ticks of 50 ms."""

    patience_ticks: Annotated[int, Range(2, 72_000)] = 80  # without progress for so long, a primary is replaced
    work_ticks_max: U32 = 1_200  # the longest that a replica's own aggregation may hold a view's timer
    reveal_ticks: U32 = 100  # how long a validator waits for sealed payloads before it reports what it holds
    window_heights: Annotated[int, Range(1, 1024)] = 16  # sequences in flight above the stable checkpoint
    batch_records_max: Annotated[int, Range(1, 4096)] = 512
    fee_per_byte_micro: U32 = 10
    lapses_max: Annotated[int, Range(1, 255)] = 3  # lapsed rounds in a row that put a task to sleep
    misses_max: Annotated[int, Range(1, 255)] = 3  # missed rounds in a row that suspend a miner
    seat_bond_micro: Annotated[int, Range(0, SUPPLY_MAX)] = 100_000_000_000  # what a validator's seat locks
    unbonding_heights: Annotated[int, Range(1, 2**31)] = 10_000  # how long a seat given up can be accused
    bond_rounds: U32 = 20  # of pay, that a miner's enrolment locks
    audit_ppm: Annotated[int, Range(0, 1_000_000)] = 100_000  # of contributions, that the honest validators replay
    audit_rounds: Annotated[int, Range(4, 64)] = 16  # a quarter to promise, a quarter to tell, the rest to rule
    audit_pay_ppm: Annotated[int, Range(0, 1_000_000)] = 500_000  # of the validators' share, to those who audit
    vest_rounds: Annotated[int, Range(1, 100_000)] = 200  # until pay is paid, and the bond of who leaves goes back
    settle_heights: Annotated[int, Range(4, 2**31)] = 600  # the same after a task is done, for all that it owes


@message(12)
@dataclass(frozen=True)
class Genesis:
    """A network. Validators are listed by key, in the order in which they become primary."""

    name: Annotated[str, Size(1, 64)]
    protocol: U32
    created_unix: U63  # seconds; tells apart networks that are otherwise the same
    validators: Annotated[tuple[Key, ...], Size(1, 1024)]
    balances: Annotated[tuple[Allotment, ...], Size(0, 65_536)]
    parameters: Parameters


def genesis_digest(genesis: Genesis) -> Digest:
    return digest("genesis", encode(genesis))


@message(13)
@dataclass(frozen=True)
class Hello:
    """What two hosts tell each other first, on a protocol that is the same on every network."""

    network: Digest
    protocol: U32
    height: U63
    release: Annotated[str, Size(1, 32)]
    validator: bool
    listening: U16  # how many addresses it can be dialled at; 0 behind a NAT
