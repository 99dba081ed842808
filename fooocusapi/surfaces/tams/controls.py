"""Pictures that steer a stage (contract sections 5.10 and 13.9), as far as the pipeline has a network of their type.

It has two: one for edges, and one for structure out of light and dark. Every other type is declined here, in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from fooocus_core.plan import Guide, GuideKind, Guides, ResizeMode
from fooocus_core.resolve import MAX_GUIDES
from fooocusapi.surfaces.tams.judge import Judge
from fooocusapi.surfaces.tams.model_table import Table, file_in
from fooocusapi.surfaces.tams.pictures import mask_name, picture_name
from fooocusapi.surfaces.tams.schemas import Controlnet, ControlnetArg

NO_MODEL: Final = "none"
NO_PREPROCESSOR: Final = "none"
MAX_WEIGHT: Final = 2.0
DECAY: Final = 0.9
"""How much less the shallowest block counts than the deepest where the prompt is more important."""


class ControlType(NamedTuple):
    """``models``: what names of its networks have in them; ``preprocessors``: the same of what reads its pictures."""

    kind: GuideKind
    models: tuple[str, ...]
    preprocessors: tuple[str, ...] = ()


TYPES: Final = (
    ControlType("PyraCanny", ("canny", "mlsd"), preprocessors=("canny", "mlsd")),
    ControlType("CPDS", ("qrcode", "brightness")),
)

_RESIZES: Final[Mapping[str, ResizeMode]] = MappingProxyType(
    {"JUST_RESIZE": "stretch", "CROP_AND_RESIZE": "cover", "RESIZE_AND_FILL": "contain"}
)

CheckPicture = Callable[[str, str | None], object]
"""Notes an identifier, at a field, that is of no picture."""


@dataclass(frozen=True)
class ControlMeans:
    """What entries are judged by."""

    judge: Judge
    table: Table
    has_network: Callable[[GuideKind], bool]
    check_picture: CheckPicture


def asked_entries(path: str, block: Controlnet | None) -> list[tuple[str, ControlnetArg]]:
    """The entries that ask for anything, each with its path; those that say ``None`` for the model are off."""
    args: Sequence[ControlnetArg] = (block.args if block is not None else None) or ()
    return [(f"{path}.args[{place}]", arg) for place, arg in enumerate(args) if not _is_off(arg)]


def guides(path: str, block: Controlnet | None, means: ControlMeans) -> Guides | None:
    """What all entries ask for; ``None`` where none of them names a model."""
    entries = asked_entries(path, block)
    if not entries:
        return None
    if len(entries) > MAX_GUIDES:
        means.judge.refuse(f"{path}.args", f"at most {MAX_GUIDES} entries are allowed")
    return Guides(tuple(_guide(place, arg, means) for place, arg in entries), softness=0.0)


def _is_off(arg: ControlnetArg) -> bool:
    return arg.model is not None and arg.model.strip().lower() == NO_MODEL


def _guide(path: str, arg: ControlnetArg, means: ControlMeans) -> Guide:
    found, judge = _type_of(path, arg, means), means.judge
    for name, value in (
        ("model", arg.model),
        ("preprocessor", arg.preprocessor),
        ("inputImageResourceId", arg.input_image_resource_id),
    ):
        if not value:
            judge.refuse(f"{path}.{name}", "is needed")
    means.check_picture(f"{path}.inputImageResourceId", arg.input_image_resource_id)
    judge.within(f"{path}.weight", arg.weight, 0, MAX_WEIGHT)
    start, stop = arg.guidance_start or 0.0, arg.guidance_end or 1.0
    judge.within(f"{path}.guidanceStart", start, 0, 1)
    judge.within(f"{path}.guidanceEnd", stop, 0, 1)
    if start > stop:
        judge.refuse(path, "guidanceStart must not be above guidanceEnd")
    return Guide(
        picture_name(arg.input_image_resource_id or ""),
        found.kind,
        stop=stop,
        weight=arg.weight or 1.0,
        start=start,
        softness=DECAY if arg.control_mode == "MY_PROMPT_IS_MORE_IMPORTANT" else None,
        mask=_mask(path, arg, means),
        resize=_RESIZES.get(arg.resize_mode or "", "cover"),
        is_prepared=_preprocessor(arg) == NO_PREPROCESSOR,
        only_positive=arg.control_mode == "CONTROLNET_IS_MORE_IMPORTANT",
    )


def _type_of(path: str, arg: ControlnetArg, means: ControlMeans) -> ControlType:
    """The type that the model is of; the first one, once that is declined, for a model that is of none."""
    name, said = arg.model or "", _said_of(arg.model or "", means.table)
    found = next((one for one in TYPES if any(part in said for part in one.models)), None)
    if name and found is None:
        offered = ", ".join(part for one in TYPES for part in one.models)
        means.judge.decline(f"{path}.model", f"of control networks, this server has those for: {offered}")
    elif name and found is not None and not means.has_network(found.kind):
        means.judge.decline(f"{path}.model", "the file of this control network is not there")
    if found is not None:
        _check_preprocessor(path, _preprocessor(arg), found, means.judge)
    return found or TYPES[0]


def _check_preprocessor(path: str, name: str, of_type: ControlType, judge: Judge) -> None:
    if name in ("", NO_PREPROCESSOR) or any(part in name for part in of_type.preprocessors):
        return
    known = ", ".join((NO_PREPROCESSOR, *of_type.preprocessors))
    judge.decline(f"{path}.preprocessor", f"with this model, this server has: {known}")


def _said_of(name: str, table: Table) -> str:
    """A name, or what the table of models says of it: the type, or else the file."""
    mapped = table.named("controlnets", name)
    kind = mapped.get("type") if isinstance(mapped, dict) else None
    return str(kind or file_in(mapped) or name).lower()


def _preprocessor(arg: ControlnetArg) -> str:
    return (arg.preprocessor or "").strip().lower()


def _mask(path: str, arg: ControlnetArg, means: ControlMeans) -> str | None:
    """Where it steers, by either name of the field; the newer one counts where both are said."""
    for name, resource_id in (("maskResourceId", arg.mask_resource_id), ("mask", arg.mask)):
        if resource_id:
            means.check_picture(f"{path}.{name}", resource_id)
            return mask_name(resource_id)
    return None
