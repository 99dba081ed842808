"""The places where pictures lie, all below the outputs folder, as the settings describe them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from fooocusapi.images.kept import KeptPictures
from fooocusapi.images.outputs import OutputStore, encode_with_core
from fooocusapi.images.shown import ShownPictures
from fooocusapi.settings import Settings


@dataclass(frozen=True)
class PictureStores:
    """Those that were made, those that jobs start from, and those that records show."""

    outputs: OutputStore
    kept: KeptPictures
    shown: ShownPictures


def picture_stores(settings: Settings) -> PictureStores:
    """The stores of one server. Writes nothing yet."""
    return PictureStores(
        outputs=OutputStore(
            settings.output_path,
            settings.public_url,
            base64_prefix=not settings.bare_base64,
            encode=partial(encode_with_core, png_level=settings.png_level),
        ),
        kept=kept_pictures(settings),
        shown=ShownPictures(settings.output_path / "sent", settings.public_url),
    )


def kept_pictures(settings: Settings) -> KeptPictures:
    """The pictures that came with requests, beside those that were made."""
    return KeptPictures(settings.output_path / "inputs")
