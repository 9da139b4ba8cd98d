"""How much one peer, and all together, may take of us. Knows no connection, only numbers of them."""

import ipaddress
import math
from collections.abc import Collection
from dataclasses import dataclass

from libp2p.network.config import ConnectionConfig

from potd.runtime.network import Allowance, Allowances, NetworkConfig


class Bucket:
    """A token bucket that may go into debt, and says how long the debt lasts."""

    def __init__(self, allowance: Allowance, now: float) -> None:
        self._allowance = allowance
        self._tokens = allowance.burst
        self._at = now

    def _refill(self, now: float) -> None:
        self._tokens = min(self._allowance.burst, self._tokens + (now - self._at) * self._allowance.rate)
        self._at = now

    def spend(self, units: float, now: float) -> float:
        """Take the units and return the seconds to wait for them, 0 if there were enough."""
        self._refill(now)
        self._tokens -= units
        return max(0.0, -self._tokens / self._allowance.rate)

    def has(self, units: float, now: float) -> bool:
        """Whether nobody would have to wait for the units."""
        self._refill(now)
        return self._tokens >= units

    def allows(self, now: float) -> bool:
        """Take one unit if there is one."""
        self._refill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass(frozen=True)
class Buckets:
    """The buckets of one peer."""

    frames: Bucket
    frame_bytes: Bucket
    gossip: Bucket
    gossip_bytes: Bucket
    questions: Bucket
    answer_bytes: Bucket


def full_buckets(may: Allowances, now: float) -> Buckets:
    """What a peer that has just connected may spend."""
    return Buckets(
        Bucket(may.frames, now), Bucket(may.frame_bytes, now), Bucket(may.gossip, now), Bucket(may.frame_bytes, now),
        Bucket(may.questions, now), Bucket(may.answer_bytes, now),
    )  # fmt: skip


def swarm_limits(config: NetworkConfig) -> ConnectionConfig:
    """The limits that libp2p's own swarm keeps."""
    seconds = math.ceil(config.handshake_s)  # 0.8.1 truncates
    return ConnectionConfig(
        max_connections=config.connections_max, high_watermark=config.connections_max, low_watermark=0,
        min_connections=0, max_connections_per_peer=config.connections_max,  # `Connections` limits these
        inbound_upgrade_timeout=config.handshake_s, outbound_upgrade_timeout=config.handshake_s,
        outbound_stream_protocol_negotiation_timeout=seconds,
        inbound_stream_protocol_negotiation_timeout=seconds,
    )  # fmt: skip


def no_room_for(
    host: str, connected: Collection[str], shaking_hands: Collection[str], config: NetworkConfig
) -> str | None:
    """Why one more connection from this IP address is too many, given the addresses of the others, or None."""
    if len(connected) >= config.connections_max:
        return "too many connections"
    if ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        return None
    there = sum(other == host for other in (*connected, *shaking_hands))
    return "too many from one address" if there >= config.connections_per_address_max else None
