"""How many threads torch calculates with in one thread of the program."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

FEW: Final = max(1, min(2, (os.cpu_count() or 1) // 2))
"""For what runs beside the worker, which shall keep half of the cores at least: 2, or 1 where there are no more than 3.
"""


@contextmanager
def few_threads(count: int = FEW) -> Iterator[None]:
    """Torch uses ``count`` threads at most in the calling thread, until the end of the block.

    The number belongs to the calling thread alone; threads that touch torch for the first time meanwhile start with it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(min(count, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)
