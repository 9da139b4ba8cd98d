"""Who votes, how many votes decide, and what a certificate is worth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from potd.wire.blocks import Block, Certificate, batch_digest, header_digest
from potd.wire.consensus import quorum_of
from potd.wire.envelope import attests
from potd.wire.ids import Digest, Key


@dataclass(frozen=True)
class Group:
    """The validators of an era, a stretch of heights decided by one set, in the order in which they become primary.

    `base` is the last height that others decided, and `before` are these others; 0 and nobody for those of genesis.
    """

    network: Digest
    keys: tuple[Key, ...]
    base: int = 0
    before: tuple[Key, ...] = ()

    @property
    def faults(self) -> int:
        """f: how many may lie or be silent."""
        return (len(self.keys) - 1) // 3

    @property
    def quorum(self) -> int:
        """How many votes decide: any two such sets share an honest member, and n - f replicas can always form one.

        The paper's 2f + 1 is this for n = 3f + 1 only; of six, two sets of 2f + 1 = 3 need not meet.
        """
        return quorum_of(len(self.keys))

    @property
    def some_honest(self) -> int:
        """f + 1: so many always have an honest one among them."""
        return self.faults + 1

    def primary(self, view: int) -> Key:
        return self.keys[view % len(self.keys)]

    def certifiers(self, height: int) -> tuple[Key, ...]:
        """Whose signatures make this height permanent, as far as these validators can tell: nobody's below `base`."""
        if height > self.base:
            return self.keys
        return self.before if height == self.base else ()

    def __contains__(self, key: Key) -> bool:
        return key in self.keys


def certificate_fault(certificate: Certificate, group: Group) -> str:
    """Why this certificate proves nothing to the group, or nothing if it does.

    That of `base` is the last of the validators before; what lies below it, and what lies beyond the end of the era,
    is for other groups to check.
    """
    header = certificate.header
    if header.network != group.network:
        return "certificate of another network"
    certifiers = group.certifiers(header.height)
    if not certifiers:
        return "certificate of a height that earlier validators decided"
    quorum = quorum_of(len(certifiers))
    signers = [one.key for one in certificate.attestations]
    if signers != sorted(set(signers)):
        return "certificate with signers out of order or twice"
    if len(signers) < quorum:
        return f"certificate with {len(signers)} signatures of {quorum}"
    for one in certificate.attestations:
        if one.key not in certifiers:
            return "certificate signed by a stranger"
        if not attests(one, group.network, header):
            return "certificate with a wrong signature"
    return ""


def least(certificate: Certificate, group: Group) -> Certificate:
    """The same with no more signatures than prove it. What has to fit a message is reckoned so."""
    quorum = quorum_of(len(group.certifiers(certificate.header.height)))
    return Certificate(certificate.header, certificate.attestations[:quorum])


def blocks_fault(blocks: Sequence[Block], group: Group) -> str:
    """Why these blocks of consecutive heights, the last of them certified, prove nothing, or nothing if they do."""
    certificate = blocks[-1].certificate()
    if certificate is None:
        return "blocks that end without a certificate"
    fault = certificate_fault(certificate, group)
    if fault:
        return fault
    for block, following in pairwise(blocks):
        if following.header.previous != header_digest(block.header):
            return "blocks that are not a chain"
    for block in blocks:
        if batch_digest(block.batch) != block.header.batch:
            return "block with another batch than its header names"
    return ""


def certified_runs(blocks: Iterable[Block]) -> list[tuple[Block, ...]]:
    """Blocks cut behind each certificate; what comes after the last one is left out."""
    runs: list[tuple[Block, ...]] = []
    run: list[Block] = []
    for block in blocks:
        run.append(block)
        if block.attestations:
            runs.append(tuple(run))
            run = []
    return runs
