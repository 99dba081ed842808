"""What a picture shows: a sentence for a photograph, tags for a drawing, or both (specification 07, section 3).

It works beside the worker: on the CPU, with few threads, one picture at a time. torch is imported on first use.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from fooocus_core.errors import UnknownModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fooocus_core.describe.photograph import Captioner
    from fooocus_core.describe.tagger import Tagger
    from fooocus_core.library import Library
    from fooocus_core.model_files.catalogue import Catalogue

Content = Literal["photo", "anime"]
"""What a picture is taken for."""

CAPTION_FILE: Final = "model_base_caption_capfilt_large.pth"
TAGGER_FILE: Final = "wd-v1-4-moat-tagger-v2.onnx"
TAGS_FILE: Final = "wd-v1-4-moat-tagger-v2.csv"
SEEDS: Final = 2**63


def _drawn_seed() -> int:
    return secrets.randbelow(SEEDS)


class Describer:
    """Both networks, each loaded when it is first needed and kept until ``unload``. For any thread."""

    def __init__(self, library: Library, catalogue: Catalogue, draw_seed: Callable[[], int] = _drawn_seed) -> None:
        """``draw_seed``: a number in 0 ... 2**63 - 1 for every sentence, which as a rule is never the same twice."""
        self._library = library
        self._catalogue = catalogue
        self._draw_seed = draw_seed
        self._captioner: Captioner | None = None
        self._tagger: Tagger | None = None
        self._in_use = threading.Lock()

    def describe(self, picture: NDArray[np.uint8], contents: Collection[Content]) -> str:
        """The texts for ``contents``, that of a photograph first; ``picture`` as ``to_rgb`` takes it.

        Blocks while another picture is described. Raises ``UnknownModel`` naming a file that is missing, its folder and
        its address, and ``ModelError`` for one of no use.
        """
        from fooocus_core.images.pixels import to_rgb
        from fooocus_core.models.threads import few_threads

        rgb = to_rgb(picture)
        texts = []
        with self._in_use, few_threads():
            if "photo" in contents:
                texts.append(self._captioning().caption(rgb, self._draw_seed()))
            if "anime" in contents:
                texts.append(self._tagging().describe(rgb))
        return ", ".join(texts)

    def unload(self) -> None:
        """Forgets both networks; blocks while a picture is described."""
        with self._in_use:
            self._captioner = self._tagger = None

    def _captioning(self) -> Captioner:
        from fooocus_core.describe.photograph import load_captioner

        if self._captioner is None:
            self._captioner = load_captioner(self._file(CAPTION_FILE, "describing photographs"))
        return self._captioner

    def _tagging(self) -> Tagger:
        from fooocus_core.describe.tagger import load_tagger

        if self._tagger is None:
            needed_for = "describing drawings"
            self._tagger = load_tagger(self._file(TAGGER_FILE, needed_for), self._file(TAGS_FILE, needed_for))
        return self._tagger

    def _file(self, name: str, needed_for: str) -> Path:
        try:
            return self._library.file("clip_vision", name, needed_for)
        except UnknownModel as missing:
            published = self._catalogue.find(missing.kind, name)
            if published is None:
                raise
            raise missing.published_at(published.name, published.url) from missing
