from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
from hypothesis import given
from hypothesis import strategies as st

from potd.trainer.layout import (
    ACTIVATIONS_MAX,
    MICRO_BATCH_MAX,
    Parameter,
    from_safetensors,
    memory_bytes,
    micro_batch,
    model_problems,
    model_spec,
    parameters,
    tensors,
    to_safetensors,
    weights_to_bytes,
)
from potd.trainer.weights import initial_weights
from potd.wire.codec import Malformed
from potd.wire.tasks import ModelSpec

MLP = model_spec("mlp", (4, 3, 2))
CNN = model_spec("cnn", (1, 9, 8, 5, 6, 3))


def test_parameters_lie_in_forward_order_weight_before_bias() -> None:
    assert parameters(MLP) == (
        Parameter("0.weight", (3, 4), 4),
        Parameter("0.bias", (3,), 4),
        Parameter("1.weight", (2, 3), 3),
        Parameter("1.bias", (2,), 3),
    )
    assert parameters(CNN) == (
        Parameter("0.weight", (5, 1, 3, 3), 9),
        Parameter("0.bias", (5,), 9),
        Parameter("1.weight", (6, 5, 3, 3), 45),
        Parameter("1.bias", (6,), 45),
        Parameter("2.weight", (3, 6 * 2 * 2), 24),
        Parameter("2.bias", (3,), 24),
    )
    assert MLP.parameters == 4 * 3 + 3 + 3 * 2 + 2


def test_views_cover_the_vector_without_copying_it() -> None:
    vector = np.arange(MLP.parameters, dtype=np.float32)
    views = tensors(MLP, vector)
    assert np.array_equal(np.concatenate([view.ravel() for view in views.values()]), vector)
    assert all(np.shares_memory(view, vector) for view in views.values())


@pytest.mark.parametrize(
    ("architecture", "sizes", "problems"),
    [
        ("gpt", (4, 2), ("unknown architecture 'gpt': it is one of cnn, mlp",)),
        ("mlp", (4,), ("mlp takes at least 2 sizes, not 1",)),
        ("mlp", (0, 0, 2), ("size 0 of mlp is 0, not at least 1", "size 1 of mlp is 0, not at least 1")),
        ("mlp", (4, 1), ("mlp of one class: a classifier needs at least 2",)),
        ("mlp", (2**20, 2**20, 2), ("mlp of 1099514773506 parameters, at most 2147483648",)),
        ("cnn", (1, 8, 8, 10), ("cnn takes at least 5 sizes, not 4",)),
        (
            "cnn",
            (1, 8, 3, 4, 4, 10),
            ("8 x 3 samples can't be halved 2 times, once for each layer of filters",),
        ),
        ("mlp", (64, 10), ()),
    ],
)
def test_every_mistake_in_the_sizes_is_a_sentence(
    architecture: str, sizes: tuple[int, ...], problems: tuple[str, ...]
) -> None:
    assert model_problems(architecture, sizes) == problems


def test_a_wrong_count_of_parameters_is_refused() -> None:
    with pytest.raises(Malformed, match="has 23 parameters, not 24"):
        parameters(ModelSpec("mlp", (4, 3, 2), 24))


@given(st.sampled_from([MLP, CNN]), st.integers(0, 100))
def test_safetensors_give_back_the_same_bytes(spec: ModelSpec, seed: int) -> None:
    raw = weights_to_bytes(initial_weights(spec, seed))
    assert from_safetensors(spec, to_safetensors(spec, raw, {"round": "3"})) == raw


def test_safetensors_carry_names_shapes_and_metadata() -> None:
    data = to_safetensors(MLP, weights_to_bytes(initial_weights(MLP, 1)), {"task": "digits", "round": "3"})
    assert {name: one.shape for name, one in safetensors.numpy.load(data).items()} == {
        "0.weight": (3, 4),
        "0.bias": (3,),
        "1.weight": (2, 3),
        "1.bias": (2,),
    }
    assert b'"task":"digits"' in data
    assert b'"round":"3"' in data


def test_the_same_model_and_metadata_make_the_same_file_on_every_rig() -> None:
    told = {f"potd.{name}": name for name in ("task", "round", "height", "naïve")}
    raw = weights_to_bytes(initial_weights(CNN, 1))
    data = to_safetensors(CNN, raw, told)
    assert to_safetensors(CNN, raw, dict(reversed(told.items()))) == data
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    header = json.loads(data[8 : 8 + length])
    assert list(header) == sorted(header)
    assert header["__metadata__"] == told
    assert data[8 + length :] == raw


@pytest.mark.parametrize("metadata", [{}, {"round": "3"}])
def test_other_programs_read_the_file(metadata: dict[str, str]) -> None:
    weights = initial_weights(CNN, 1)
    data = to_safetensors(CNN, weights_to_bytes(weights), metadata)
    wanted = tensors(CNN, weights)
    by_numpy, by_torch = safetensors.numpy.load(data), safetensors.torch.load(data)
    assert set(by_numpy) == set(by_torch) == set(wanted)
    for name, view in wanted.items():
        assert np.array_equal(by_numpy[name], view)
        assert np.array_equal(by_torch[name].numpy(), view)


def test_foreign_weights_are_refused_with_every_reason() -> None:
    found: dict[str, np.ndarray] = {
        "0.weight": np.zeros((3, 5), np.float32),
        "0.bias": np.zeros(3, np.float64),
        "1.weight": np.zeros((2, 3), np.float32),
        "extra": np.zeros(1, np.float32),
    }
    with pytest.raises(Malformed) as caught:
        from_safetensors(MLP, safetensors.numpy.save(found))
    assert str(caught.value).split("; ") == [
        "no tensor 1.bias",
        "unknown tensor extra",
        "tensor 0.weight has the shape [3, 5], not [3, 4]",
        "tensor 0.bias is F64, not F32",
    ]


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_no_weights(data: bytes) -> None:
    with pytest.raises(Malformed):
        from_safetensors(MLP, data)


def test_a_blob_of_another_length_is_no_model() -> None:
    with pytest.raises(Malformed, match="weights of 4 bytes, not 92"):
        to_safetensors(MLP, b"abcd", {})


def test_micro_batches_follow_from_the_spec_and_bound_the_memory() -> None:
    assert micro_batch(MLP) == MICRO_BATCH_MAX
    large = model_spec("cnn", (3, 512, 512, 64, 10))
    assert 1 <= micro_batch(large) < 8
    assert micro_batch(model_spec("cnn", (3, 4096, 4096, 8, 2))) == 1
    assert memory_bytes(large, 10_000) < 4 * (4 * ACTIVATIONS_MAX + 10_000 * 3 * 512 * 512 + 4 * large.parameters)


def test_what_the_daemon_needs_imports_no_torch() -> None:
    names = ("data", "digits", "layout", "task", "weights")
    code = "".join(f"import potd.trainer.{name}\n" for name in names) + "import sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
