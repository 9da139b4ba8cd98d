from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from potd.arithmetic.bounds import check_bounds
from potd.trainer import digits
from potd.trainer.data import MANIFEST_FILE, import_arrays, write_data_set
from potd.trainer.layout import model_spec, to_safetensors, weights_to_bytes
from potd.trainer.task import UNITS_TOTAL_MAX, Prepared, TaskError, publish, rate_table, read_task
from potd.trainer.weights import initial_weights
from potd.wire.blobs import blob_path, blob_ref, read_blob
from potd.wire.codec import decode, encode
from potd.wire.rules import CLIP, MEAN
from potd.wire.tasks import EncodingSpec, OptimiserSpec, TaskSpec

TASKS = Path(__file__).resolve().parents[2] / "docs" / "tasks"
SMALL = """
name = "small"
[model]
architecture = "mlp"
sizes = [64, 10]
[data]
set = "digits"
[optimiser]
rate = 0.1
[training]
unit_batch = 16
rounds = 20
[pay]
per_sample = 1
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "task.toml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(TaskError) as caught:
        read_task(written(folder, text))
    return caught.value.problems


def test_the_demos_task_is_this_spec() -> None:
    task = read_task(TASKS / "digits.toml")
    model = model_spec("mlp", (64, 256, 10))
    assert task.spec == TaskSpec(
        name="digits",
        model=model,
        weights=blob_ref(weights_to_bytes(initial_weights(model, 1))),
        manifest=blob_ref(encode(digits.data_set().manifest)),
        samples=1437,
        loss="cross_entropy",
        optimiser=OptimiserSpec("nesterov", 900_000, (500_000,)),
        encoding=EncodingSpec("int8", 256, -24, -4),
        rule=MEAN,
        rig_class="float32",
        unit_batch=64,
        rounds=130,
        window_rounds=10,
        miners_min=2,
        pay_micro=1000,
        validators_ppm=100_000,
        deadline_ticks_min=20,
        deadline_ticks_max=400,
        evaluate_every=10,
        tolerance_nano=100,
    )


@pytest.mark.parametrize("path", sorted(TASKS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_documented_task_is_valid_under_the_rule_with_the_longest_sums(path: Path) -> None:
    spec = read_task(path).spec
    assert decode(encode(spec), TaskSpec) == spec
    check_bounds(replace(spec, rule=CLIP), UNITS_TOTAL_MAX)


def check_published(task: Prepared, folder: Path) -> None:
    folder.mkdir()
    for ref, path in zip(task.refs(), publish(task, folder), strict=True):
        assert read_blob(path.parent, ref) == path.read_bytes()
        assert blob_ref(path.read_bytes()) == ref


def test_a_published_task_has_every_blob_under_its_name(tmp_path: Path) -> None:
    task = read_task(written(tmp_path, SMALL))
    assert len(task.refs()) == 2 + 15 + 4
    check_published(task, tmp_path / "blobs")


def own_data(folder: Path, classes: int = 3) -> None:
    chance = np.random.default_rng(0)
    features = chance.random((20, 2, 8, 8), np.float32)
    labels = np.arange(20, dtype=np.int64) % classes
    data_set = import_arrays(features, labels, np.arange(20) < 4, name="own", classes=classes, shard_samples=8)
    write_data_set(data_set, folder)


def test_own_data_and_own_weights_are_taken_from_beside_the_file(tmp_path: Path) -> None:
    own_data(tmp_path / "data")
    model = model_spec("cnn", (2, 8, 8, 4, 3))
    raw = weights_to_bytes(initial_weights(model, 9))
    (tmp_path / "start.safetensors").write_bytes(to_safetensors(model, raw, {}))
    text = SMALL.replace('"mlp"', '"cnn"').replace("[64, 10]", '[2, 8, 8, 4, 3]\nweights = "start.safetensors"')
    task = read_task(written(tmp_path, text.replace('set = "digits"', 'folder = "data"')))
    assert task.spec.weights == blob_ref(raw)
    assert task.spec.samples == 16
    check_published(task, tmp_path / "blobs")


def test_every_mistake_is_listed_at_once(tmp_path: Path) -> None:
    text = """
name = ""
colour = 1
[model]
architecture = "gtp"
sizes = [64, 10]
sed = 1
[data]
set = "mnist"
[optimiser]
kind = "adam"
momentum = 1
rate = "fast"
schedule = "cosine"
step_rounds = [3]
[training]
unit_batch = true
rounds = 0
deadline_seconds_min = 70
loss = "hinge"
rig_class = "bf16"
[rule]
kind = "median"
faults = 0.1
bucket = 300
[encoding]
kind = "int4"
block = 8
exponent_min = 5
[pay]
per_sample = "0.0000001"
validators_share = nan
"""
    assert problems(tmp_path, text) == (
        "name is '', not a text",
        "colour is not known here",
        "model.architecture is 'gtp', not one of cnn, mlp",
        "data.set is 'mnist', not one of digits",
        "training.rounds is 0, not an integer in 1..4294967296",
        "training.loss is 'hinge', not one of cross_entropy",
        "optimiser.kind is 'adam', not one of sgd, nesterov",
        "optimiser.momentum is 1, not a number in 0..0.999999",
        "optimiser.rate is 'fast', not a number in 0.000001..4000",
        "optimiser.step_rounds is not for the schedule cosine",
        "encoding.kind is 'int4', not one of int8",
        "encoding.block is 8, not an integer in 16..65536",
        "rule.faults is nothing that rule median takes",
        "rule.bucket is 300, not an integer in 1..255",
        "training.rig_class is 'bf16', not one of float32",
        "training.unit_batch is True, not an integer in 1..4112",
        "pay.per_sample is 1E-7, finer than a millionth",
        "pay.validators_share is NaN, not a number in 0..1",
        "training.deadline_seconds_min is above deadline_seconds_max",
        "model.sed is not known here; did you mean seed?",
        "exponents from 5 down to -4",
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[64, 10]", "[64, 9]", "model.sizes: the model has 9 classes, and the data have 10"),
        ("[64, 10]", "[60, 10]", "model.sizes: the model takes 60 values a sample, and the data have 8 x 8"),
        ("[64, 10]", "[64]", "model.sizes can't be: mlp takes at least 2 sizes, not 1"),
        ("[64, 10]", '"64, 10"', "model.sizes is '64, 10', not a list of integers in 1..4294967295"),
        ("sizes = [64, 10]", "", "model.sizes is missing"),
        (
            "unit_batch = 16",
            "unit_batch = 2000",
            "training.unit_batch is 2000, and the data have 1437 training samples",
        ),
        ('set = "digits"', "", "data.set or data.folder: give one of them"),
        ("[pay]", "[encoding]\nexponent_min = -60\n[pay]", "sums could overflow: 57 exponents leave room"),
        ("rounds = 20", "rounds = 20\nround = 3", "training.round is not known here; did you mean rounds?"),
        ("rate = 0.1", "rate = 0.1\nwarmup_rounds = 21", "optimiser.warmup_rounds is 21, not an integer in 0..20"),
        ("sizes = [64, 10]", 'sizes = [64, 10]\nweights = "w"', "model.weights can't be read: No such file"),
        ("sizes = [64, 10]", 'sizes = [64, 10]\nseed = 1\nweights = "w"', "model.weights and model.seed exclude"),
    ],
)
def test_a_mistake_has_its_sentence(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert any(one.startswith(expected) for one in problems(tmp_path, SMALL.replace(old, new)))


def test_files_that_are_no_tasks_say_so(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="can't read .*none.toml: No such file"):
        read_task(tmp_path / "none.toml")
    assert "is not TOML" in problems(tmp_path, "name = ")[0]
    (tmp_path / "task.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(TaskError, match="is not TOML"):
        read_task(tmp_path / "task.toml")
    assert "model is not a table" in problems(tmp_path, SMALL.replace("[model]", "model = 3\n[other]"))


@given(
    st.dictionaries(
        st.sampled_from(["name", "model", "data", "optimiser", "training", "encoding", "pay", "x"]),
        st.sampled_from(
            [
                "1",
                "[]",
                "{}",
                "'text'",
                "nan",
                "true",
                "1979-05-27",
                "{sizes = [[]]}",
                "{folder = '..', rate = inf, rounds = -1, per_sample = '', block = []}",
            ]
        ),
    )
)
def test_no_file_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, str]) -> None:
    text = "".join(f"{key} = {value}\n" for key, value in tree.items())
    assert problems(tmp_path_factory.getbasetemp(), text)


def test_data_that_are_wrong_are_found_before_anything_is_spent(tmp_path: Path) -> None:
    own_data(tmp_path / "data")
    text = SMALL.replace("[64, 10]", "[128, 3]").replace('set = "digits"', 'folder = "data"')
    task = read_task(written(tmp_path, text))
    first, second = (blob_path(tmp_path / "data", shard.blob) for shard in task.manifest.training)
    first.unlink()
    broken = np.full((8, 2, 8, 8), np.nan, np.float32)
    second.write_bytes(save({"features": broken, "labels": np.zeros(8, np.int64)}))
    assert problems(tmp_path, text) == (
        f"data.folder: training shard 0 is missing: no file {first}",
        "data.folder: training shard 1 does not have the digest that the manifest names",
    )
    (tmp_path / "data" / MANIFEST_FILE).write_bytes(b"junk")
    assert problems(tmp_path, text)[0].startswith("data.folder has a manifest that is none")


def test_weights_that_are_wrong_are_found_before_anything_is_spent(tmp_path: Path) -> None:
    model = model_spec("mlp", (64, 10))
    raw = weights_to_bytes(np.full(model.parameters, np.inf, np.float32))
    (tmp_path / "start.safetensors").write_bytes(to_safetensors(model, raw, {}))
    text = SMALL.replace("[64, 10]", '[64, 10]\nweights = "start.safetensors"')
    assert problems(tmp_path, text) == ("model.weights hold a value that is not a finite number",)
    (tmp_path / "start.safetensors").write_bytes(b"junk")
    assert problems(tmp_path, text)[0].startswith("model.weights don't fit the model: not a safetensors file")


def test_schedules_are_tables_of_integers() -> None:
    assert rate_table("constant", 100, 500_000) == (500_000,)
    assert rate_table("constant", 4, 600_000, warmup_rounds=2) == (200_000, 400_000, 600_000, 600_000)
    assert rate_table("linear", 4, 400_000, rate_end_micro=0) == (400_000, 300_000, 200_000, 100_000)
    assert rate_table("cosine", 4, 400_000, rate_end_micro=200_000) == (400_000, 370_711, 300_000, 229_289)
    steps = rate_table("step", 5, 1_000_000, step_rounds=(2, 4), step_factor=Decimal("0.1"))
    assert steps == (1_000_000, 1_000_000, 100_000, 100_000, 10_000)
    assert len(rate_table("cosine", 100_000, 1)) == 4096
