"""Networks in ONNX files, on the CPU and with few threads: they run beside the worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fooocus_core.errors import UnreadableModel
from fooocus_core.models.threads import FEW

Lengths = tuple[int | str | None, ...]
"""Of the sides of an array; a name or ``None`` where any length will do."""


class OnnxNetwork:
    """An open file with one input. For any thread."""

    def __init__(self, path: Path) -> None:
        """Raises ``UnreadableModel`` for a file that is damaged or none at all."""
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = FEW
        options.inter_op_num_threads = 1
        # Threads that wait for work would otherwise keep their cores busy.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library has an exception of its own for every kind of damage
            raise UnreadableModel(path.name, "damaged, or not an ONNX file") from error
        self.name = path.name

    @property
    def input_lengths(self) -> Lengths:
        return tuple(self._session.get_inputs()[0].shape)

    @property
    def output_lengths(self) -> Lengths:
        """Of the first output."""
        return tuple(self._session.get_outputs()[0].shape)

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The first output."""
        asked, given = self._session.get_inputs()[0].name, self._session.get_outputs()[0].name
        result: NDArray[np.float32] = self._session.run([given], {asked: values})[0]
        return result
