"""Where each parameter of a built-in architecture lies in the flat weight vector. Computes nothing; needs no torch.

The order is the forward order, each layer's weight before its bias, every tensor in row-major order:

    mlp   0.weight [hidden, features], 0.bias [hidden], 1.weight ... [classes, hidden], 1.bias [classes]
    cnn   0.weight [filters, channels, 3, 3], 0.bias [filters], ... n.weight [classes, filters * height * width], n.bias
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors

from potd.wire.codec import Malformed
from potd.wire.tasks import ModelSpec

Floats = npt.NDArray[np.float32]

ARCHITECTURES = ("cnn", "mlp")
PARAMETERS_MAX = 2**31  # of a built-in architecture; a float32 vector of 8 GiB
KERNEL = 3  # height and width of every convolution, padded by one
MICRO_BATCH_MAX = 1024  # samples that go through a model together, at most
ACTIVATIONS_MAX = 2**26  # floats of activations that go through a model together, at most, unless one sample needs more
_SIZES_MIN = {"mlp": 2, "cnn": 5}


@dataclass(frozen=True)
class Parameter:
    """One tensor of the model. `fan_in` is the number of inputs that one of its outputs sums."""

    name: str
    shape: tuple[int, ...]
    fan_in: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class RawTensor:
    """A tensor as it lies in a safetensors file: `dtype` as the format names it, `data` little-endian."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def model_problems(architecture: str, sizes: tuple[int, ...]) -> tuple[str, ...]:
    """Everything that is wrong with an architecture and its sizes, as sentences."""
    if architecture not in ARCHITECTURES:
        return (f"unknown architecture {architecture!r}: it is one of {', '.join(ARCHITECTURES)}",)
    least = _SIZES_MIN[architecture]
    if len(sizes) < least:
        return (f"{architecture} takes at least {least} sizes, not {len(sizes)}",)
    problems = [f"size {i} of {architecture} is {size}, not at least 1" for i, size in enumerate(sizes) if size < 1]
    if sizes[-1] == 1:
        problems.append(f"{architecture} of one class: a classifier needs at least 2")
    if architecture == "cnn" and not problems:
        halvings = len(sizes) - 4
        if min(sizes[1], sizes[2]) >> halvings < 1:
            problems.append(
                f"{sizes[1]} x {sizes[2]} samples can't be halved {halvings} times, once for each layer of filters"
            )
    if not problems:
        count = sum(one.count for one in _parameters(architecture, sizes))
        if count > PARAMETERS_MAX:
            problems.append(f"{architecture} of {count} parameters, at most {PARAMETERS_MAX}")
    return tuple(problems)


def parameters(spec: ModelSpec) -> tuple[Parameter, ...]:
    """The model's tensors in the order of the weight vector. Raises Malformed with every mistake in the spec."""
    problems = list(model_problems(spec.architecture, spec.sizes))
    if not problems:
        found = _parameters(spec.architecture, spec.sizes)
        count = sum(one.count for one in found)
        if count == spec.parameters:
            return found
        problems.append(f"{spec.architecture} of these sizes has {count} parameters, not {spec.parameters}")
    raise Malformed("; ".join(problems))


def model_spec(architecture: str, sizes: tuple[int, ...]) -> ModelSpec:
    """The spec with its parameters counted. Raises Malformed with every mistake."""
    problems = model_problems(architecture, sizes)
    if problems:
        raise Malformed("; ".join(problems))
    return ModelSpec(architecture, sizes, sum(one.count for one in _parameters(architecture, sizes)))


def features(spec: ModelSpec) -> int:
    """Values in one sample."""
    return math.prod(spec.sizes[:3]) if spec.architecture == "cnn" else spec.sizes[0]


def classes(spec: ModelSpec) -> int:
    return spec.sizes[-1]


def micro_batch(spec: ModelSpec) -> int:
    """Samples that go through the model together. Follows from the spec alone, so that every rig sums in one order."""
    return max(1, min(MICRO_BATCH_MAX, ACTIVATIONS_MAX // _activations(spec)))


def memory_bytes(spec: ModelSpec, samples: int) -> int:
    """A generous estimate of what one gradient over `samples` samples needs, beside torch and the cached shards."""
    # Weights, the gradient of a micro-batch, the sum of them, and the codes with what makes them.
    vectors = 4 * 4 * spec.parameters
    together = min(samples, micro_batch(spec))
    return vectors + 4 * (3 * together * _activations(spec) + samples * features(spec))


def tensors(spec: ModelSpec, weights: Floats) -> dict[str, Floats]:
    """Views of the flat vector, by name, in order."""
    assert weights.shape == (spec.parameters,)
    views: dict[str, Floats] = {}
    offset = 0
    for one in parameters(spec):
        views[one.name] = weights[offset : offset + one.count].reshape(one.shape)
        offset += one.count
    return views


def weights_from_bytes(spec: ModelSpec, raw: bytes) -> Floats:
    """A model blob (float32 little-endian) as a read-only vector [parameters]. Raises Malformed at another length."""
    _check_length(spec, raw)
    return np.frombuffer(raw, dtype="<f4").astype(np.float32, copy=False)


def weights_to_bytes(weights: Floats) -> bytes:
    return weights.astype("<f4", copy=False).tobytes()


def to_safetensors(spec: ModelSpec, raw: bytes, metadata: Mapping[str, str]) -> bytes:
    """A model blob as a safetensors file of named tensors. Raises Malformed if `raw` has the wrong length.

    The same model and metadata give the same bytes: the header's keys are sorted, and spaces pad it to a multiple of 8,
    while the package's own writer orders metadata anew each time. What follows the header is the blob itself.
    """
    _check_length(spec, raw)
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for one in parameters(spec):
        end = offset + 4 * one.count
        header[one.name] = {"dtype": "F32", "shape": list(one.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + raw


def read_tensors(data: bytes) -> dict[str, RawTensor]:
    """What is in the bytes of a foreign safetensors file, by name. Raises Malformed if they are none."""
    read: Any = safetensors.deserialize  # untyped in the package
    try:
        found = read(data)
    except safetensors.SafetensorError as error:
        raise Malformed(f"not a safetensors file: {error}") from None
    return {name: RawTensor(one["dtype"], tuple(one["shape"]), bytes(one["data"])) for name, one in found}


def from_safetensors(spec: ModelSpec, data: bytes) -> bytes:
    """The model blob of a safetensors file. Raises Malformed with every tensor that is missing, strange or wrong."""
    found = read_tensors(data)
    wanted = parameters(spec)
    problems = [f"no tensor {one.name}" for one in wanted if one.name not in found]
    problems += [f"unknown tensor {name}" for name in sorted(set(found) - {one.name for one in wanted})]
    for one in wanted:
        tensor = found.get(one.name)
        if tensor is None:
            continue
        if tensor.dtype != "F32":
            problems.append(f"tensor {one.name} is {tensor.dtype}, not F32")
        if tensor.shape != one.shape:
            problems.append(f"tensor {one.name} has the shape {list(tensor.shape)}, not {list(one.shape)}")
    if problems:
        raise Malformed("; ".join(problems))
    return b"".join(found[one.name].data for one in wanted)


def _check_length(spec: ModelSpec, raw: bytes) -> None:
    if len(raw) != 4 * spec.parameters:
        raise Malformed(f"weights of {len(raw)} bytes, not {4 * spec.parameters}")


def _parameters(architecture: str, sizes: tuple[int, ...]) -> tuple[Parameter, ...]:
    found: list[Parameter] = []

    def layer(shape: tuple[int, ...]) -> None:
        index, fan_in = len(found) // 2, math.prod(shape[1:])
        found.append(Parameter(f"{index}.weight", shape, fan_in))
        found.append(Parameter(f"{index}.bias", shape[:1], fan_in))

    if architecture == "mlp":
        for inputs, outputs in pairwise(sizes):
            layer((outputs, inputs))
        return tuple(found)
    channels, height, width, *filters, outputs = sizes
    for count in filters:
        layer((count, channels, KERNEL, KERNEL))
        channels, height, width = count, height // 2, width // 2
    layer((outputs, channels * height * width))
    return tuple(found)


def _activations(spec: ModelSpec) -> int:
    """Floats that one sample leaves behind for the way back."""
    if spec.architecture == "mlp":
        return sum(spec.sizes)
    channels, height, width, *filters, outputs = spec.sizes
    total = channels * height * width + outputs
    for count in filters:
        total += 4 * count * height * width  # the convolution, the ReLU, and the pool's two halves
        height, width = height // 2, width // 2
    return total
