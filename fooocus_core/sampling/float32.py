"""Float32 arithmetic whose every bit is settled, whatever the processor.

Brownian times are rounded to six decimals, and from sigma 8 on one float32 step is larger than that, so the last bit
of a noise level reaches the picture (specification 03, section 4). torch's own ``linspace`` and ``pow`` differ in that
bit from one instruction set to another; these do not.
"""

from __future__ import annotations

import torch
from torch import Tensor


def linspace(first: float, last: float, count: int) -> Tensor:
    """``count`` float32 values from first to last: each half counted from its own end, one rounding per value."""
    first, last = rounded(first), rounded(last)
    if count == 1:
        return torch.tensor([first])
    step = rounded(rounded(last - first) / (count - 1))
    index = torch.arange(count, dtype=torch.float64)
    from_first = first + index * step
    from_last = last - (count - 1 - index) * step
    return torch.where(index < count // 2, from_first, from_last).float()


def power(x: Tensor, exponent: float) -> Tensor:
    """A float32 tensor to the power of a Python number, correctly rounded by way of float64."""
    return x.double().pow(exponent).float()


def rounded(x: float) -> float:
    """A Python number rounded to float32."""
    return torch.tensor(x, dtype=torch.float32).item()
