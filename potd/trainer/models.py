"""The built-in architectures as functions of their parameters. Holds no weights and draws no chance. Needs torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from potd.trainer.layout import Floats, tensors
from potd.wire.tasks import ModelSpec


def parameter_tensors(
    spec: ModelSpec, weights: Floats, device: torch.device, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """The flat vector [parameters] as the model's tensors on the device, in order, each a leaf of the graph."""
    return [torch.tensor(view, device=device, dtype=dtype).requires_grad_() for view in tensors(spec, weights).values()]


def logits(spec: ModelSpec, parameters: Sequence[Tensor], features: Tensor) -> Tensor:
    """Scores [samples, classes] of features [samples, features]."""
    layers = list(zip(parameters[::2], parameters[1::2], strict=True))
    here = features
    if spec.architecture == "cnn":
        here = here.reshape(-1, *spec.sizes[:3])
        for weight, bias in layers[:-1]:
            here = halve(torch.relu(functional.conv2d(here, weight, bias, padding=1)))
        here = here.flatten(1)
        layers = layers[-1:]
    for weight, bias in layers[:-1]:
        here = torch.relu(functional.linear(here, weight, bias))
    weight, bias = layers[-1]
    return functional.linear(here, weight, bias)


def halve(images: Tensor) -> Tensor:
    """The greatest of each 2 x 2 pixels of [samples, channels, height, width]; an odd last row or column is left out.

    Of equal pixels the first passes the gradient.
    """
    if images.device.type == "cpu":
        return functional.max_pool2d(images, 2)
    # The same bits from elementwise choices: torch's own way back through a pool on CUDA adds atomically.
    height, width = images.shape[2] // 2 * 2, images.shape[3] // 2 * 2
    return halve_by_choice(images[:, :, :height, :width])


def halve_by_choice(images: Tensor) -> Tensor:
    """`halve` for even heights and widths, without a pooling kernel."""
    left, right = images[..., 0::2], images[..., 1::2]
    columns = torch.where(right > left, right, left)
    upper, lower = columns[:, :, 0::2], columns[:, :, 1::2]
    return torch.where(lower > upper, lower, upper)
