"""What the guides of a stage put beside its text and its latents (specification 06)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fooocus_core.adapters.control import ControlChain, ControlNetwork, ControlUnit
from fooocus_core.adapters.image_prompt import CLIP_PX, ImagePrompt
from fooocus_core.errors import UnsupportedModel
from fooocus_core.images.faces import aligned_face
from fooocus_core.images.masked_area import grey_mask, resized
from fooocus_core.images.pixels import Mask, Picture, as_floats, to_rgb
from fooocus_core.images.preprocessors import cpds, pyramid_canny
from fooocus_core.images.resizing import lanczos
from fooocus_core.models.guide_models import (
    ADAPTER_FILES,
    CONTROL_FILES,
    Faces,
    GuideModels,
    active_guides,
    needed_files,
)
from fooocus_core.plan import Guide, GuideKind, Guides, ImagePromptWeighting
from fooocus_core.presets.sizes import Size
from fooocus_core.sampling.network import KeysValues

if TYPE_CHECKING:
    from fooocus_core.models.loaded import LoadedModel
    from fooocus_core.models.unet import DiffusionNetwork
    from fooocus_core.sampling.network import Control
    from fooocus_core.sampling.prediction import NoiseLevels
    from fooocus_core.stages.start import Pictures


class PreparedGuide(NamedTuple):
    """A guide and its picture as the networks see it: ``[height, width, 3]`` of the stage, or 224 pixels a side.

    ``mask``: ``[height, width]`` of the stage, if it has one.
    """

    guide: Guide
    picture: Picture
    mask: Mask | None = None


@dataclass(frozen=True)
class PreparedGuides:
    """What joins a stage's network calls. ``control`` is ``None``, and ``prompts`` empty, where there are none."""

    control: Control | None
    prompts: tuple[ImagePrompt, ...]
    weighting: ImagePromptWeighting


def require_guidable(guides: Guides, model: LoadedModel) -> None:
    """Raises ``UnsupportedModel`` for a checkpoint that no guide's files fit: one that has an area of its own.

    To be asked before the files themselves: to fetch them would be of no use.
    """
    needed = needed_files(guides)
    if guides.only_prepare or not needed or model.native_area_px is None:
        return
    kinds = ", ".join(dict.fromkeys(needed.values()))
    names = [file.name for file in needed]
    raise UnsupportedModel(
        model.name,
        f"guides of the kind {kinds} need an SDXL checkpoint, which this is not; with one they need the files "
        f"{', '.join(names)}, fetched by: main.py download {' '.join(names)}",
    )


def _nothing() -> None:
    """What comes before a picture by default."""


def guide_pictures(
    guides: Guides,
    pictures: Pictures,
    size: Size,
    faces: Callable[[], Faces],
    before_picture: Callable[[], None] = _nothing,
) -> tuple[PreparedGuide, ...]:
    """The pictures of all guides that do something, in the order of their use (specification 06, section 2).

    ``size``: that of what the stage diffuses. ``faces`` is called only if a face is looked for. What ``before_picture``
    raises ends it. Raises ``CoreError``.
    """
    prepared = []
    for guide in active_guides(guides):
        before_picture()
        picture = _prepared(guide, guides, to_rgb(pictures(guide.picture)), size, faces)
        mask = None if guide.mask is None else _mask(pictures(guide.mask), guide, size)
        prepared.append(PreparedGuide(guide, picture, mask))
    return tuple(prepared)


def _mask(mask: NDArray[np.uint8], guide: Guide, size: Size) -> Mask:
    """A mask of any kind at the size of the stage."""
    return np.ascontiguousarray(resized(to_rgb(grey_mask(mask)), size, guide.resize)[:, :, 0])


def _prepared(guide: Guide, guides: Guides, picture: Picture, size: Size, faces: Callable[[], Faces]) -> Picture:
    if guide.kind in CONTROL_FILES:
        return _control_picture(guide, guides, resized(picture, size, guide.resize))
    if guide.kind == "FaceSwap" and guides.use_preprocessor:
        picture = aligned_face(picture, faces().landmarks(picture))
    return lanczos(picture, CLIP_PX, CLIP_PX)


def _control_picture(guide: Guide, guides: Guides, picture: Picture) -> Picture:
    """Edges or structure, unless the picture already is that."""
    if guide.is_prepared or not guides.use_preprocessor:
        return picture
    return to_rgb(
        cpds(picture) if guide.kind == "CPDS" else pyramid_canny(picture, guides.canny_low, guides.canny_high)
    )


def prepare_guides(
    guides: Guides,
    prepared: Sequence[PreparedGuide],
    network: DiffusionNetwork,
    levels: NoiseLevels,
    models: GuideModels,
    before_picture: Callable[[], None] = _nothing,
) -> PreparedGuides:
    """Reads the pictures with the guides' networks.

    Control networks are made over the weights that ``network`` has now. ``levels`` are those of the run, by which
    control networks know when to stop. What ``before_picture`` raises ends it. Raises ``CoreError``.
    """
    models.require(guides)
    controls = [one for one in prepared if one.guide.kind in CONTROL_FILES]
    images = [one for one in prepared if one.guide.kind in ADAPTER_FILES]
    units = list(_control_units(controls, network, models, before_picture))
    return PreparedGuides(
        control=ControlChain(units, guides.softness, levels) if units else None,
        prompts=tuple(_image_prompts(images, network, models, before_picture)),
        weighting=guides.weighting,
    )


def _control_units(
    prepared: Sequence[PreparedGuide],
    network: DiffusionNetwork,
    models: GuideModels,
    before_picture: Callable[[], None],
) -> Iterator[ControlUnit]:
    """All pictures of a kind share its network."""
    made: dict[GuideKind, ControlNetwork] = {}
    for guide, picture, mask in prepared:
        before_picture()
        if guide.kind not in made:
            made[guide.kind] = models.control(guide.kind, network)
        yield ControlUnit(
            made[guide.kind],
            hint=_channels_first(picture).to(network.device),
            strength=guide.weight,
            stop=guide.stop,
            start=guide.start,
            softness=guide.softness,
            mask=None if mask is None else _channels_first(mask[:, :, None]).to(network.device),
            only_positive=guide.only_positive,
        )


def _channels_first(picture: NDArray[np.uint8]) -> Tensor:
    """``[h, w, channels]`` as ``[1, channels, h, w]`` in ``[0, 1]``."""
    return torch.from_numpy(as_floats(picture)).movedim(-1, 1)


def _image_prompts(
    prepared: Sequence[PreparedGuide],
    network: DiffusionNetwork,
    models: GuideModels,
    before_picture: Callable[[], None],
) -> Iterator[ImagePrompt]:
    for guide, picture, _ in prepared:
        before_picture()
        reader = models.reader(guide.kind)
        reader.require_fitting(network)
        yield ImagePrompt(
            positive=_placed(reader.read(picture), network),
            negative=_placed(reader.negative, network),
            weight=guide.weight,
            stop=guide.stop,
        )


def _placed(layers: Sequence[KeysValues], network: DiffusionNetwork) -> tuple[KeysValues, ...]:
    """On the network's device and in its dtype."""
    return tuple(KeysValues(*(part.to(network.device, network.dtype) for part in layer)) for layer in layers)
