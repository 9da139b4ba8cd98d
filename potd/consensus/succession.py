"""From one set of validators to a later one, by certificates alone: what a newcomer with only genesis believes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from potd.consensus.quorum import Group, certificate_fault
from potd.wire.blocks import Certificate, validators_digest
from potd.wire.ids import Key


@dataclass(frozen=True)
class Handover:
    """The last height that one set of validators decides, certified by them, and the keys of the next set, in the order
    in which they become primary. The header names them by their digest."""

    certificate: Certificate
    keys: tuple[Key, ...]

    @property
    def height(self) -> int:
        return self.certificate.header.height


@dataclass(frozen=True)
class Line:
    """Sets of validators as one followed the other."""

    groups: tuple[Group, ...]
    handovers: tuple[Handover, ...]  # between them

    @staticmethod
    def begin(group: Group) -> Line:
        return Line((group,), ())

    @property
    def base(self) -> int:
        """The last height before those that the newest set decides."""
        return self.groups[-1].base

    def group_at(self, height: int) -> Group | None:
        """Who decides this height, as far as is known; None if those before the first set do."""
        return next((group for group in reversed(self.groups) if group.base < height), None)

    def certificate_fault(self, certificate: Certificate) -> str:
        """Why this proves nothing about its height, or nothing: a quorum of those who decide it must sign."""
        group = self.group_at(certificate.header.height)
        return (
            "certificate from before the validators that we know"
            if group is None
            else certificate_fault(certificate, group)
        )


def succeed(line: Line, handovers: Sequence[Handover]) -> Line | str:
    """The line with these handovers, which begin where it ends, or why they prove nothing. What it knows is skipped."""
    groups, known = list(line.groups), list(line.handovers)
    for handover in handovers:
        group = groups[-1]
        if handover.height <= group.base:
            continue
        fault = certificate_fault(handover.certificate, group)
        if fault:
            return fault
        if validators_digest(handover.keys) != handover.certificate.header.validators:
            return "handover to others than its header names"
        groups.append(Group(group.network, handover.keys, handover.height, group.keys))
        known.append(handover)
    return Line(tuple(groups), tuple(known))
