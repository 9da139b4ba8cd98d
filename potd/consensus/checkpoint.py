"""Signatures over headers, and the certificates they add up to. [4.3]"""

from __future__ import annotations

from potd.consensus.quorum import Group
from potd.wire.blocks import Certificate, Header
from potd.wire.envelope import Verified, attestation_of
from potd.wire.ids import Key


class Checkpoints:
    """Headers that are not certified yet, by validator: those above the stable one, and those that it overtook."""

    def __init__(self) -> None:
        self._signed: dict[int, dict[Key, Verified[Header]]] = {}
        self._newest: dict[Key, Verified[Header]] = {}  # of each validator, also where it came too late to count

    def add(self, message: Verified[Header]) -> None:
        """A validator's first word on a height stands."""
        self._signed.setdefault(message.body.height, {}).setdefault(message.sender, message)

    def heard(self, message: Verified[Header]) -> None:
        """Whatever becomes of it: its sender may have to be told one day that it has signed this."""
        newest = self._newest.get(message.sender)
        if newest is None or newest.body.height < message.body.height:
            self._newest[message.sender] = message

    def newest(self, key: Key) -> Verified[Header] | None:
        """The highest header heard of this key."""
        return self._newest.get(key)

    def own(self, key: Key) -> list[Verified[Header]]:
        """What this key has signed, by height."""
        return [by_key[key] for _, by_key in sorted(self._signed.items()) if key in by_key]

    def of(self, key: Key, height: int) -> Verified[Header] | None:
        """What this key has signed for this height."""
        return self._signed.get(height, {}).get(key)

    def certificate(self, height: int, group: Group) -> Certificate | None:
        """A quorum's signatures over one header of this height."""
        signed = self._signed.get(height, {})
        if len(signed) < group.quorum:
            return None
        agreeing: dict[Header, list[Verified[Header]]] = {}
        for _, message in sorted(signed.items()):
            agreeing.setdefault(message.body, []).append(message)
        for messages in agreeing.values():
            if len(messages) >= group.quorum:
                attestations = tuple(attestation_of(one.signed) for one in messages)
                return Certificate(messages[0].body, attestations)
        return None

    def heights(self) -> list[int]:
        return sorted(self._signed)

    def overtaken(self, height: int, stable: int) -> bool:
        """Whether a later height became stable while signatures for this one were being gathered."""
        return height <= stable and height in self._signed

    def forget(self, height: int) -> None:
        self._signed.pop(height, None)

    def forget_up_to(self, height: int) -> None:
        for old in [one for one in self._signed if one <= height]:
            del self._signed[old]
