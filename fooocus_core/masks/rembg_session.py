"""rembg's way of running a background-removal network, on a file that is named to it.

rembg's own sessions look for their file in a folder of the user's home and fetch it where it is not there, which no
request may do, and those for isnet take other means than the reference (specification 07, section 2.1). What is used
of it is therefore its base class.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
import numpy as np
import onnxruntime  # type: ignore[import-untyped] # rembg ends the process where this is not installed
from numpy.typing import NDArray
from PIL import Image

from fooocus_core.models.threads import FEW


@contextmanager
def _nothing_compiled() -> Iterator[None]:
    """rembg imports mattings that numba compiles for 40 s when a machine first imports them, and that no mask needs."""
    config: Any = numba.config
    usual = config.DISABLE_JIT
    config.DISABLE_JIT = True
    try:
        yield
    finally:
        config.DISABLE_JIT = usual


with _nothing_compiled():
    from rembg.sessions.base import BaseSession  # type: ignore[import-untyped]


class FileSession(BaseSession):  # type: ignore[misc]
    """A network of one ONNX file, on the CPU and with few threads. Raises what onnxruntime raises."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = FEW
        options.inter_op_num_threads = 1
        # Threads that wait by turning round and round would take the time of those that make pictures.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        super().__init__(path.stem, options, path, providers=["CPUExecutionProvider"])

    @classmethod
    def download_models(cls, *args: Any, **_: Any) -> Path:
        """The file; rembg asks this of a session, whose own name for it is not ours to choose."""
        path: Path = args[0]
        return path

    def run(
        self, picture: NDArray[np.uint8], side_px: int, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> NDArray[np.float32]:
        """What the network makes of RGB bytes ``[h, w, 3]``: its first output, ``[1, channels, side_px, side_px]``.

        The picture goes in as a square, divided by its brightest value.
        """
        fed = self.normalize(Image.fromarray(picture), mean, std, (side_px, side_px))
        output: NDArray[np.float32] = self.inner_session.run(None, fed)[0]
        return output
