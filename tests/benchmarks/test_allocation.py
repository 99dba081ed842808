"""What calculations hold at a time, counted without a device."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.allocation import WITHOUT_MEMORY, most_allocated_bytes

FLOAT_BYTES = 4


def test_the_most_that_is_held_at_a_time_is_counted() -> None:
    def work() -> None:
        first = torch.empty(1000)
        second = first + 1
        del first
        third = second * 2
        del second
        torch.cat([third, third[:500]])

    assert most_allocated_bytes(work) == (1000 + 1500) * FLOAT_BYTES


def test_views_and_weights_take_nothing() -> None:
    network = nn.Linear(100, 50, bias=False, device=WITHOUT_MEMORY)

    def work() -> list[Tensor]:
        row = torch.empty(1, 100)
        return [network(row.view(100)[None]), network.weight.t().reshape(10, 500)]

    assert most_allocated_bytes(work, [network]) == (100 + 50 + 5000) * FLOAT_BYTES
    assert most_allocated_bytes(work) == (100 + 50 + 5000 + 5000) * FLOAT_BYTES


def test_attention_makes_no_table_of_all_pairs() -> None:
    def work() -> Tensor:
        query, keys, values = (torch.empty(2, 4, tokens, 8) for tokens in (4096, 77, 77))
        return functional.scaled_dot_product_attention(query, keys, values)

    assert most_allocated_bytes(work) == 2 * 4 * 8 * (2 * 4096 + 2 * 77) * FLOAT_BYTES
