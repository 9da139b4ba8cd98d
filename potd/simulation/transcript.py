"""What a run looks like: as bytes for its trace, and as lines for people."""

from __future__ import annotations

from collections.abc import Mapping

from potd.node import events as ev
from potd.simulation.network import Place
from potd.simulation.words import body_of, signed_in
from potd.wire.blocks import Batch, Certificate, Header, header_digest
from potd.wire.codec import Malformed, decode, encode
from potd.wire.consensus import Commit, NewView, Prepare, Prepared, PrePrepare, Refusal, ViewChange
from potd.wire.envelope import Signed
from potd.wire.ids import short
from potd.wire.rounds import Draft, Link, Report, Step


def trace_of(effect: ev.Effect) -> bytes:
    """What an effect adds to the trace of a run: enough that no two are taken for each other."""
    match effect:
        case ev.Send(to, data):
            return b"send" + to + data
        case ev.Publish(topic, data):
            return b"publish" + topic.encode() + data
        case ev.Keep(seq, Signed() as signed):
            return b"keep%d" % seq + signed.signature
        case ev.Keep(seq, Prepared() | Batch() as record):
            return b"keep%d" % seq + encode(record)
        case ev.Store(header, _, _):
            return b"store" + encode(header)
        case ev.StoreCertificate(certificate):
            signatures = b"".join(one.signature for one in certificate.attestations)
            return b"certificate" + certificate.header.state + signatures
        case ev.StoreSnapshot(certificate, _):
            return b"snapshot" + encode(certificate)
        case ev.Note(name, data):
            return b"note" + name.encode() + data
        case ev.Fetch(ref, holders):
            return b"fetch" + ref.root + b"".join(holders)
        case _:
            return repr(effect).encode()


def line_of(effect: ev.Effect, names: Mapping[Place, str]) -> str:
    """An effect for people; nothing for those that would only tire them."""
    match effect:
        case ev.Send(to, data):
            text = _frame(data)
            return f"{text} -> {names.get(to, short(to))}" if text else ""
        case ev.Keep(_, Prepared(view, seq, batch)):
            return f"has prepared {short(batch)} at {seq} in view {view}"
        case ev.Store(header, _, _):
            return f"EXECUTES height {header.height}: {short(header_digest(header))}"
        case ev.StoreCertificate(certificate):
            return f"CERTIFIED height {certificate.header.height}: {short(header_digest(certificate.header))}"
        case ev.Log(_, text):
            return f"# {text}"
        case _:
            return ""


def _frame(data: bytes) -> str:
    """The words of consensus in a frame."""
    signed = signed_in(data)
    if signed is not None:
        return _word(body_of(signed.payload))
    try:
        certificate = decode(data, Certificate)
    except Malformed:
        return ""
    return f"shows the certificate of height {certificate.header.height}"


def _word(body: object) -> str:
    match body:
        case PrePrepare(view, seq, batch):
            return f"PRE-PREPARE view {view}, seq {seq}: {short(batch)}"
        case Prepare(view, seq, batch, _):
            return f"PREPARE view {view}, seq {seq}: {short(batch)}"
        case Commit(view, seq, batch):
            return f"COMMIT view {view}, seq {seq}: {short(batch)}"
        case Refusal(view, seq, batch, _, reason):
            return f"REFUSAL view {view}, seq {seq}: {short(batch)}: {reason}"
        case Header():
            return f"HEADER of height {body.height}: {short(header_digest(body))}"
        case ViewChange(view, stable, _, prepared):
            proofs = ", ".join(f"{one.seq}: {short(one.batch)} of view {one.view}" for one in prepared)
            return f"VIEW-CHANGE to {view}, stable {stable}, prepared [{proofs}]"
        case NewView(view, changes, orders):
            carried = ", ".join(_carried(one) for one in orders)
            return f"NEW-VIEW {view} of {len(changes)} view changes, carries [{carried}]"
        case Report():
            said = f"{len(body.names)} named, {len(body.links)} links"
            return f"REPORT {Step(body.step).name.lower()} of round {body.round}: {said}"
        case Draft():
            return f"DRAFT of round {body.round} in view {body.view}: {len(body.reports)} reports"
        case Link():
            return f"LINK of round {body.round}: {short(body.link)}"
        case _:
            return ""


def _carried(signed: Signed) -> str:
    order = body_of(signed.payload)
    return f"{order.seq}: {short(order.batch)}" if isinstance(order, PrePrepare) else "?"
