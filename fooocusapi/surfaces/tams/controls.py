"""Pictures that steer a ``DIFFUSION`` stage (contract sections 5.10 and 13.9), as far as there are networks for them.

Edges are the one kind that the pipeline and the web UI have in common. Everything else is declined here, in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from fooocus_core.plan import Guide, GuideKind, Guides
from fooocus_core.resolve import MAX_GUIDES
from fooocusapi.surfaces.tams.judge import Judge
from fooocusapi.surfaces.tams.pictures import picture_name
from fooocusapi.surfaces.tams.schemas import ControlnetArg

EDGES: Final[GuideKind] = "PyraCanny"
EDGE_MODELS: Final = ("canny", "mlsd")
"""What the names of control networks for edges have in them."""
NO_MODEL: Final = ("", "none")
NO_PREPROCESSOR: Final = "none"
MAX_WEIGHT: Final = 2.0

HasNetwork = Callable[[GuideKind], bool]
CheckPicture = Callable[[str, str | None], object]
"""Notes an identifier, at a field, that is of no picture."""


def guides(
    path: str, args: Sequence[ControlnetArg], judge: Judge, has_network: HasNetwork, check_picture: CheckPicture
) -> Guides | None:
    """What all entries ask for; ``None`` where none of them names a model."""
    named = [(f"{path}[{place}]", arg) for place, arg in enumerate(args) if not _is_off(arg)]
    if not named:
        return None
    if len(named) > MAX_GUIDES:
        judge.refuse(path, f"at most {MAX_GUIDES} entries are allowed")
    ready = {(arg.preprocessor or "").strip().lower() == NO_PREPROCESSOR for _, arg in named}
    if len(ready) > 1:
        judge.decline(path, "pictures that are edges already cannot stand beside others")
    steering = tuple(_guide(place, arg, judge, has_network, check_picture) for place, arg in named)
    return Guides(steering, use_preprocessor=ready != {True})


def _is_off(arg: ControlnetArg) -> bool:
    return arg.model is not None and arg.model.strip().lower() in NO_MODEL


def _guide(path: str, arg: ControlnetArg, judge: Judge, has_network: HasNetwork, check_picture: CheckPicture) -> Guide:
    _decline_others(path, arg, judge, has_network)
    if arg.model is None:
        judge.refuse(f"{path}.model", "is needed")
    if not arg.preprocessor:
        judge.refuse(f"{path}.preprocessor", "is needed")
    if not arg.input_image_resource_id:
        judge.refuse(f"{path}.inputImageResourceId", "is needed")
    check_picture(f"{path}.inputImageResourceId", arg.input_image_resource_id)
    judge.within(f"{path}.weight", arg.weight, 0, MAX_WEIGHT)
    judge.within(f"{path}.guidanceEnd", arg.guidance_end, 0, 1)
    return Guide(
        picture_name(arg.input_image_resource_id or ""), EDGES, stop=arg.guidance_end or 1.0, weight=arg.weight or 1.0
    )


def _decline_others(path: str, arg: ControlnetArg, judge: Judge, has_network: HasNetwork) -> None:
    name = (arg.model or "").lower()
    if name and not any(edges in name for edges in EDGE_MODELS):
        judge.decline(f"{path}.model", "of control networks, this server has those for edges (canny)")
    elif name and not has_network(EDGES):
        judge.decline(f"{path}.model", "the control network for edges is not there")
    if arg.mask or arg.mask_resource_id:
        judge.decline(f"{path}.maskResourceId", "masks of control networks are not offered by this server")
    if arg.guidance_start:
        judge.decline(f"{path}.guidanceStart", "control begins with the first step")
    if arg.control_mode not in (None, "DEFAULT", "BALANCED"):
        judge.decline(f"{path}.controlMode", "BALANCED is the one that this server has")
