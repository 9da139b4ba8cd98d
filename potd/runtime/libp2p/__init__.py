"""The network as a libp2p host on a thread of its own. Knows bytes and peers, not what nodes say to each other.

libp2p is trio, the daemon is asyncio: `Libp2pNetwork` is the asyncio side, `Host` the trio side, and `Crossing`
carries calls between the two threads in batches. Everything but `network` runs on the trio side, unless it says
otherwise. This package alone imports libp2p and trio.

Streams of a pair of nodes:

- `/potd/hello/1`, once per connection, from the dialer: hello, hello and verdict, verdict.
- `/potd/<network>/votes/1`, one each way, kept open: length-prefixed frames. A frame whose connection broke may
  arrive twice, or not at all.
- `/potd/<network>/ask/<kind>/1`, up to four a kind, kept open: question, answer, question, ...
- `/ipfs/ping/1.0.0`, one per connection, kept open.

Topics are `/potd/<network>/<topic>/1` on the wire and `<topic>` everywhere else.
"""

from potd.runtime.libp2p.network import Libp2pNetwork

__all__ = ["Libp2pNetwork"]
