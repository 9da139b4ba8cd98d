from __future__ import annotations

import pytest
import torch

from potd.trainer.device import description, make_exact, open_device


@pytest.mark.parametrize("asked", ["gpu", "cuda", "cuda:", "cuda:-1", "cuda:1234", "cpu:0", ""])
def test_a_device_that_is_none_is_refused(asked: str) -> None:
    with pytest.raises(ValueError, match=f"no device '{asked}': it is auto, cpu or cuda:N"):
        open_device(asked)


def test_a_cuda_device_that_is_not_there_is_named() -> None:
    absent = torch.cuda.device_count()
    reason = f"no CUDA device {absent}: " + (f"{absent} found" if torch.version.cuda else "this torch, ")
    with pytest.raises(ValueError, match=reason):
        open_device(f"cuda:{absent}")


def test_auto_takes_the_first_cuda_device_or_the_cpu() -> None:
    assert open_device("auto") == torch.device("cuda:0" if torch.cuda.device_count() else "cpu")
    assert open_device("cpu") == torch.device("cpu")
    assert description(torch.device("cpu")) == "cpu"


def test_an_exact_process_has_one_thread_and_no_short_floats() -> None:
    make_exact(torch.device("cpu"))
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_float32_matmul_precision() == "highest"
