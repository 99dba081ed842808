"""A few single-threaded worker processes that train one network by averaging gradients.

Threads of one process wait for the slowest core at every small operation; processes meet once a step.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn


def launch(worker: Callable[..., None], workers: int, work_dir: Path, *arguments: Any) -> None:
    """Runs ``worker(rank, workers, *arguments)`` in so many processes; in this one if there is only one."""
    if workers == 1:
        seed_everything(0)
        worker(0, 1, *arguments)
        return
    rendezvous = work_dir / f"rendezvous-{time.time_ns()}"
    torch.multiprocessing.spawn(  # type: ignore[no-untyped-call]
        _enter, args=(worker, workers, rendezvous, arguments), nprocs=workers
    )
    rendezvous.unlink(missing_ok=True)


def _enter(
    rank: int, worker: Callable[..., None], workers: int, rendezvous: Path, arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    seed_everything(rank)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=workers)
    worker(rank, workers, *arguments)
    dist.destroy_process_group()


def seed_everything(rank: int) -> None:
    """Every worker draws other batches and noise; a resumed run draws new ones."""
    seed = (time.time_ns() // 1000 + 7919 * rank) % 2**31
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def same_start(module: nn.Module) -> None:
    """Gives every worker the first worker's parameters."""
    if dist.is_initialized():
        for parameter in module.parameters():
            dist.broadcast(parameter.data, 0)


def average_gradients(parameters: Iterable[Tensor], workers: int) -> None:
    """Replaces every gradient by its mean over the workers, in one message of half the width."""
    if workers == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients]).to(torch.bfloat16)
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.float().div_(workers).split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def agree(value: float, workers: int) -> float:
    """The first worker's number, for decisions (time is up) that all workers must take together."""
    if workers == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(shared, 0)
    return float(shared[0])
