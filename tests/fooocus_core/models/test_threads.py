"""Torch is given back the number of threads that it had."""

from __future__ import annotations

import pytest
import torch

from fooocus_core.models.threads import few_threads


@pytest.fixture(autouse=True)
def three_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_few_within_the_block_and_as_many_as_before_behind_it() -> None:
    with few_threads(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 3


def test_never_more_than_there_were() -> None:
    with few_threads(8):
        assert torch.get_num_threads() == 3


def test_an_error_changes_nothing_of_that() -> None:
    with pytest.raises(KeyError), few_threads(1):
        raise KeyError
    assert torch.get_num_threads() == 3
