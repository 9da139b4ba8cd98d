"""What a node asks of the network, and what the network tells it. Knows no library that does the work.

Peers are named by their Ed25519 public key. Frames, gossip, questions and answers are bytes; what they mean
is decided elsewhere. One asyncio thread uses a `Network`; the methods of `Callbacks` say on which thread
they are called.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol, Self

from potd.gossip.admit import Screening

NodeKey = bytes  # an Ed25519 public key, 32 bytes

FRAME_BYTES_MAX = 8 << 20  # one frame on the votes stream: any message
HELLO_BYTES_MAX = 4 << 10
QUESTION_BYTES_MAX = 64 << 10
GOSSIP_BYTES_MAX = 64 << 10  # announcements are a few hundred bytes; whatever is large is pulled by digest
REASON_BYTES_MAX = 256


class Refused(Exception):
    """The other side heard the question and will not answer it. `reason` is its own sentence."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unreachable(OSError):
    """No answer came: no connection, a connection lost, or patience at its end."""


@dataclass(frozen=True)
class PeerUp:
    """A peer said a good hello. `address` is where it is connected from or to, as a multiaddr."""

    peer: NodeKey
    address: str


@dataclass(frozen=True)
class PeerDown:
    """The last connection to a peer that was up is gone."""

    peer: NodeKey
    reason: str


@dataclass(frozen=True)
class Framed:
    """A frame came over the votes stream of a peer that is up."""

    peer: NodeKey
    frame: bytes


@dataclass(frozen=True)
class Gossiped:
    """A message came over a topic and passed the screen. `peer` is its origin, whose gossip signature was
    verified; it need not be connected. Own messages are not heard."""

    topic: str
    peer: NodeKey
    data: bytes


@dataclass(frozen=True)
class Mismatched:
    """One of the two sides refused the hello of the other, so the connection was closed."""

    peer: NodeKey
    address: str
    reason: str


NetworkEvent = PeerUp | PeerDown | Framed | Gossiped | Mismatched


@dataclass(frozen=True)
class PeerInfo:
    """One connected peer. `rtt_ms` is None until the first ping is answered. A guest never said hello: it may
    ping, identify and gossip, and nothing else."""

    key: NodeKey
    address: str
    direction: Literal["in", "out"]
    connected_s: float  # how long ago it connected
    rtt_ms: float | None
    frames_in: int
    frames_out: int
    bytes_in: int
    bytes_out: int
    frames_dropped: int  # the oldest of ours, when its outbox was full or it was away too long
    refused: int  # inputs of this peer that were refused
    guest: bool


@dataclass(frozen=True)
class Allowance:
    """A token bucket: `rate` units a second on average, `burst` at once."""

    rate: float
    burst: float


@dataclass(frozen=True)
class Allowances:
    """What one peer may ask of us. Frames, questions and answers beyond it wait, so that the peer's own
    stream fills up and it slows down; gossip beyond it is dropped and counted."""

    frames: Allowance = Allowance(400, 4_000)  # a PBFT round is a handful of frames a peer
    frame_bytes: Allowance = Allowance(8 << 20, 32 << 20)
    gossip: Allowance = Allowance(200, 2_000)  # messages, by forwarder
    questions: Allowance = Allowance(400, 2_000)
    answer_bytes: Allowance = Allowance(256 << 20, 512 << 20)  # above what one stream can carry: off by default


@dataclass(frozen=True)
class NetworkConfig:
    """What one operator may choose about connections. Every number is a local choice; nobody has to agree on it."""

    listen: tuple[str, ...] = ("/ip4/0.0.0.0/tcp/0",)
    announce: tuple[str, ...] = ()  # addresses to give to others instead of the listening ones, without /p2p
    connections_max: int = 128
    connections_per_peer_max: int = 4  # two simultaneous dials and one stale connection each way
    connections_per_address_max: int = 32  # counts hosts behind one IP address; loopback is exempt
    handshakes_max: int = 32  # connections that have not finished Noise and Yamux
    handshake_s: float = 5.0
    unfinished_s: float = 30.0  # a frame or question once begun must be complete by then
    guests_max: int = 8
    streams_per_peer_max: int = 64  # inbound, at once
    peers_target: int = 16  # ask peers for more peers below this
    peers_every_s: float = 30.0
    addresses_max: int = 256  # learnt from other peers, beside the bootstrap list
    dials_max: int = 4  # at once
    backoff_first_s: float = 0.5  # doubled, with jitter, up to backoff_last_s
    backoff_last_s: float = 30.0
    ping_every_s: float = 5.0
    ping_patience_s: float = 8.0
    outbox_frames_max: int = 1_024  # per peer; the oldest is dropped
    outbox_bytes_max: int = 32 << 20
    away_s: float = 10.0  # frames for a peer that is not connected are dropped when older than this
    streams_per_kind_max: int = 4  # outbound question streams per peer and kind
    answers_at_once_max: int = 64  # answers being prepared for all peers together
    heartbeat_s: float = 1.0  # of gossip
    allowances: Allowances = field(default_factory=Allowances)


class Callbacks(Protocol):
    """What the network calls. None of these may block its thread."""

    def heard(self, event: NetworkEvent) -> None:
        """Take an event. On the asyncio thread, in order per peer; never raises."""

    def screen(self, topic: str, data: bytes) -> Screening:
        """Whether gossip may be forwarded and heard. On the network's thread: changes nothing, never raises."""

    def hello(self) -> bytes:
        """Our hello, at most `HELLO_BYTES_MAX`. On the network's thread, afresh for every handshake."""

    def admit(self, peer: NodeKey, hello: bytes) -> str | None:
        """Why this peer is refused, or None. On the network's thread: pure, never raises."""

    async def answer(self, peer: NodeKey, kind: str, question: bytes) -> bytes:
        """Answer a peer's question. On the asyncio thread; cancelled when the peer gives up.

        Raises `Refused`, whose reason the asker hears; anything else reaches it as "internal error".
        """


class Network(Protocol):
    """A running host. Used from one asyncio thread."""

    @property
    def key(self) -> NodeKey:
        """Our own key."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Full multiaddrs, ending in /p2p/ID, for bootstrap lists. Known once started."""

    async def __aenter__(self) -> Self:
        """Listen. Raises OSError, in a sentence, when an address cannot be had."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up on every peer and stop, in less than two seconds."""

    def send(self, peer: NodeKey, frame: bytes) -> None:
        """Queue a frame of at most `FRAME_BYTES_MAX` for one peer. Never waits; a full outbox drops its oldest."""

    def publish(self, topic: str, data: bytes) -> None:
        """Gossip at most `GOSSIP_BYTES_MAX` bytes on one of our topics. Never waits."""

    async def ask(
        self, peer: NodeKey, kind: str, question: bytes, *, answer_bytes_max: int, patience_s: float
    ) -> bytes:
        """The answer of one peer. Cancelling it resets its stream and nothing else.

        Raises `Refused` with the peer's reason, or `Unreachable`.
        """

    def dial(self, addresses: Sequence[str]) -> None:
        """Keep connected to these multiaddrs, each with /p2p/ID, until stopped. Raises ValueError on a bad one."""

    def drop(self, peer: NodeKey, reason: str) -> None:
        """Hang up on a peer, and do not seek it again for a minute."""

    def peers(self) -> tuple[PeerInfo, ...]:
        """Everyone connected, ordered by key."""

    def counters(self) -> Mapping[str, int]:
        """Totals since the start by name, among them `refused <protocol>: <reason>`."""
