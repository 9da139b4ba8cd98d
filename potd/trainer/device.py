"""From what the operator asked for to a torch device that computes in plain float32. Needs torch."""

from __future__ import annotations

import re

import torch

THREADS = 1  # per trainer: bits depend on the number of threads, and a rig runs one trainer per device
RIG_CLASS = "float32"  # what a trainer set up here computes in; tasks name the class that they want
_NAME_MAX = 64  # characters of a device's description on the wire


def open_device(asked: str) -> torch.device:
    """`auto`, `cpu` or `cuda:N` as a device. Raises ValueError with a sentence if there is none."""
    if asked not in ("auto", "cpu") and not re.fullmatch(r"cuda:\d{1,3}", asked):
        raise ValueError(f"no device {asked!r}: it is auto, cpu or cuda:N")
    if asked == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if asked == "auto":
        return torch.device("cuda:0" if count else "cpu")
    index = int(asked.removeprefix("cuda:"))
    if torch.version.cuda is None:
        raise ValueError(f"no CUDA device {index}: this torch, {torch.__version__}, is built without CUDA")
    if index >= count:
        raise ValueError(f"no CUDA device {index}: {count} found")
    return torch.device(asked)


def make_exact(device: torch.device) -> None:
    """Set torch up for the whole process: one thread, deterministic kernels, float32 and nothing shorter."""
    torch.set_num_threads(THREADS)
    # As use_deterministic_algorithms(True), which imports a compiler of 70 MB: a kernel that varies raises.
    torch.set_deterministic_debug_mode("error")
    torch.set_float32_matmul_precision("highest")
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False  # on by default for convolutions
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False  # would pick its kernels by timing them


def description(device: torch.device) -> str:
    """The device for people: `cpu`, or `cuda:0 NVIDIA H100`."""
    if device.type == "cpu":
        return "cpu"
    return f"{device} {torch.cuda.get_device_name(device)}"[:_NAME_MAX]
