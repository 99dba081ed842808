"""The networks that read guides, and the store that keeps them loaded (specification 06; 08, section 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar, cast

import torch
from numpy.typing import NDArray

from fooocus_core.adapters.control import ControlNetwork, build_control
from fooocus_core.adapters.image_prompt import attention_widths, clip_pixels
from fooocus_core.errors import UnknownModel, UnsupportedModel
from fooocus_core.images.pixels import Picture, as_floats
from fooocus_core.library import Library, ModelKind
from fooocus_core.models.checkpoint import Checkpoint, FileState, file_state, open_checkpoint, read_content
from fooocus_core.models.clip_vision import ClipVisionEncoder, load_clip_vision
from fooocus_core.models.device import Placement
from fooocus_core.models.face_detector import FACE_DETECTOR_FILE, Face, load_face_detector
from fooocus_core.models.image_adapter import ImageAdapter, load_image_adapter, negative_tokens, require_fitting
from fooocus_core.plan import Guide, GuideKind, Guides
from fooocus_core.presets.preset import first_on_disk
from fooocus_core.sampling.network import KeysValues

if TYPE_CHECKING:
    import numpy as np

    from fooocus_core.models.unet import DiffusionNetwork

Loaded = TypeVar("Loaded")


class Faces(Protocol):
    """What finds faces."""

    def detect(self, picture: Picture, min_score: float) -> list[Face]:
        """The faces of ``[h, w, 3]`` that are surer, by falling score."""

    def landmarks(self, picture: Picture) -> NDArray[np.float32] | None:
        """Five points ``[5, 2]`` (``x, y``) of the surest face of ``[h, w, 3]``; ``None``: there is none."""


class GuideFile(NamedTuple):
    """A file by the name under which it is published."""

    folder: ModelKind
    name: str


ENCODER: Final = GuideFile("clip_vision", "clip_vision_vit_h.safetensors")
NEGATIVE: Final = GuideFile("controlnet", "fooocus_ip_negative.safetensors")
DETECTOR: Final = GuideFile("controlnet", FACE_DETECTOR_FILE)
CONTROL_FILES: Final[Mapping[GuideKind, GuideFile]] = MappingProxyType(
    {
        "PyraCanny": GuideFile("controlnet", "control-lora-canny-rank128.safetensors"),
        "CPDS": GuideFile("controlnet", "fooocus_xl_cpds_128.safetensors"),
    }
)
"""In the order in which control networks are chained."""
ADAPTER_FILES: Final[Mapping[GuideKind, GuideFile]] = MappingProxyType(
    {
        "ImagePrompt": GuideFile("controlnet", "ip-adapter-plus_sdxl_vit-h.bin"),
        "FaceSwap": GuideFile("controlnet", "ip-adapter-plus-face_sdxl_vit-h.bin"),
    }
)
"""In the order in which their tokens follow the text's."""
GUIDE_ORDER: Final[tuple[GuideKind, ...]] = (*CONTROL_FILES, *ADAPTER_FILES)


# --- which files guides need --------------------------------------------------------------------------------------


def active_guides(guides: Guides) -> tuple[Guide, ...]:
    """Those that do something, grouped by their kinds, in the order of their slots within a kind.

    A control network of no weight is not asked; an image prompt of no weight still takes part in the attention.
    """
    ordered = sorted(guides.pictures, key=lambda guide: GUIDE_ORDER.index(guide.kind))
    return tuple(guide for guide in ordered if guides.only_prepare or _takes_part(guide))


def _takes_part(guide: Guide) -> bool:
    return guide.stop > 0 and (guide.weight != 0 or guide.kind in ADAPTER_FILES)


def needed_files(guides: Guides) -> dict[GuideFile, GuideKind]:
    """Every file that is needed, in the order of their use, with the kind of guide that needs it first.

    Preparing alone takes no network but that which finds faces.
    """
    needed: dict[GuideFile, GuideKind] = {}
    for guide in active_guides(guides):
        for file in _files_of(guide.kind, guides):
            needed.setdefault(file, guide.kind)
    return needed


def _files_of(kind: GuideKind, guides: Guides) -> list[GuideFile]:
    faces = [DETECTOR] if kind == "FaceSwap" and guides.use_preprocessor else []
    if guides.only_prepare:
        return faces
    return [CONTROL_FILES[kind]] if kind in CONTROL_FILES else [*faces, ENCODER, NEGATIVE, ADAPTER_FILES[kind]]


# --- the networks -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PictureReader:
    """What makes keys and values of pictures for one kind of image prompt.

    ``negative`` is what stands on the negative side in place of any picture.
    """

    encoder: ClipVisionEncoder
    adapter: ImageAdapter
    negative: Sequence[KeysValues]

    def read(self, picture: Picture) -> tuple[KeysValues, ...]:
        """Of a picture ``[224, 224, 3]``, for every cross-attention."""
        pixels = clip_pixels(torch.from_numpy(as_floats(picture)))
        look = self.encoder.features if self.adapter.is_plus else self.encoder.embedding
        return self.adapter.keys_values(self.adapter.tokens(look(pixels)))

    def require_fitting(self, network: DiffusionNetwork) -> None:
        """Raises ``UnsupportedModel`` where the adapter was made for another network."""
        if self.adapter.widths != attention_widths(network):
            raise UnsupportedModel(
                self.adapter.name, "this IP-Adapter was made for a network with other cross-attentions"
            )


class GuideModels:
    """Keeps what guides need loaded, so that a second job with it costs little. For one thread.

    At most one version of every file of this module is held: the image encoder at home, control files and the larger
    part of the adapters mapped. ``placement`` may change; what is loaded already stays where it is.
    """

    def __init__(self, library: Library, placement: Placement) -> None:
        self._library = library
        self.placement = placement
        self._kept: dict[GuideFile, _Kept] = {}

    def require(self, guides: Guides) -> None:
        """Raises ``UnknownModel`` for the first file that is not on disk, naming all of them. Loads nothing."""
        missing = [(file, kind) for file, kind in needed_files(guides).items() if self._listed(file) is None]
        if missing:
            (file, kind), *others = missing
            also = ", ".join(other.name for other, _ in others)
            raise UnknownModel(
                file.folder, file.name, f"guides of the kind {kind}" + (f" (missing too: {also})" if also else "")
            )

    def faces(self) -> Faces:
        """What finds faces, on the CPU. Raises ``CoreError``, as all that follow."""

        def load(path: Path) -> Faces:
            file = open_checkpoint(path)
            return load_face_detector(file.tensors, file.name)

        return self._loaded(DETECTOR, load)

    def control(self, kind: GuideKind, network: DiffusionNetwork) -> ControlNetwork:
        """The control network of a kind, over ``network`` as its weights stand now. It is made anew every time."""
        file: Checkpoint = self._loaded(CONTROL_FILES[kind], open_checkpoint)
        return build_control(file.tensors, file.name, network)

    def reader(self, kind: GuideKind) -> PictureReader:
        """What reads the pictures of a kind of image prompt."""
        encoder = self._encoder()
        negative: Checkpoint = self._loaded(NEGATIVE, open_checkpoint)

        def load(path: Path) -> PictureReader:
            adapter = load_image_adapter(read_content(path), path.name, device=encoder.device, dtype=encoder.dtype)
            require_fitting(adapter, encoder, ENCODER.name)
            tokens = negative_tokens(negative.tensors, negative.name, adapter)
            return PictureReader(encoder, adapter, adapter.keys_values(tokens))

        return self._loaded(ADAPTER_FILES[kind], load, ENCODER, NEGATIVE)

    def unload(self) -> None:
        """Forget every network."""
        self._kept.clear()

    def _encoder(self) -> ClipVisionEncoder:
        home = self.placement.home
        # Half precision is the reference's on graphics cards, where the card is good at it.
        is_half = home.type != "cpu" and self.placement.network != torch.float32

        def load(path: Path) -> ClipVisionEncoder:
            dtype = torch.float16 if is_half else torch.float32
            return load_clip_vision(open_checkpoint(path), device=home, dtype=dtype)

        return self._loaded(ENCODER, load)

    def _loaded(self, file: GuideFile, load: Callable[[Path], Loaded], *others: GuideFile) -> Loaded:
        """What ``load`` makes of a file and of ``others``: once, for as long as none of them changes."""
        path = self._path(file)
        states = (file_state(path), *(file_state(self._path(other)) for other in others))
        kept = self._kept.get(file)
        if kept is None or kept.states != states:
            self._kept.pop(file, None)  # never two at once
            kept = self._kept[file] = _Kept(states, load(path))
        return cast(Loaded, kept.loaded)

    def _path(self, file: GuideFile) -> Path:
        listed = self._listed(file)
        if listed is None:
            raise UnknownModel(file.folder, file.name, "guides")
        return self._library.path(file.folder, listed)

    def _listed(self, file: GuideFile) -> str | None:
        """A file's name in the library: in any sub-folder, and as safetensors in place of a pickle."""
        safer = PurePosixPath(file.name).with_suffix(".safetensors").name
        return first_on_disk((file.name, safer), self._library.names(file.folder))


@dataclass(frozen=True)
class _Kept:
    """What was made of files, and what tells their versions."""

    states: tuple[FileState, ...]
    loaded: Any
