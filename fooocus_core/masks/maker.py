"""Masks for callers who wait beside the worker: few threads, and one mask at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fooocus_core.masks.generate import generate_mask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fooocus_core.masks.models import MaskModels
    from fooocus_core.masks.options import MaskOptions


class MaskMaker:
    """For any thread. The networks may be shared with the engine."""

    def __init__(self, models: MaskModels) -> None:
        self._models = models

    def make(self, picture: NDArray[np.uint8], options: MaskOptions) -> NDArray[np.uint8]:
        """The mask of ``generate_mask``, which says what is raised; blocks while another is made."""
        from fooocus_core.models.threads import few_threads

        with self._models.in_use(), few_threads():
            return generate_mask(picture, options, self._models).mask

    def unload(self) -> None:
        """Gives the memory of the networks back; blocks while a mask is made."""
        self._models.unload()
