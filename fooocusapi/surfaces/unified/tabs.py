"""What is done with the pictures of a request (contract section 4, pipeline 01 section 10)."""

from __future__ import annotations

from collections.abc import Collection

from fooocusapi.errors import Location
from fooocusapi.surfaces.unified.schemas import ENHANCE_IMAGE, INPAINT_IMAGE, UOV_IMAGE, CurrentTab, GenerateRequest


def tab_of(body: GenerateRequest, sent: Collection[Location]) -> CurrentTab:
    """The first of enhance, image prompts, vary or upscale, and inpaint that has a picture; else what was said.

    ``sent``: the places of all pictures that are there.
    """
    if ENHANCE_IMAGE in sent:
        return CurrentTab.ENHANCE
    if any(loc in sent for loc, _ in body.guides()):
        return CurrentTab.IP
    if UOV_IMAGE in sent:
        return CurrentTab.UOV
    if INPAINT_IMAGE in sent:
        return CurrentTab.INPAINT
    return body.current_tab or CurrentTab.UOV


def varies_or_enlarges(body: GenerateRequest, tab: CurrentTab) -> bool:
    """Whether the picture of that tab takes part; beside image prompts only where it was asked for."""
    return tab is CurrentTab.UOV or (tab is CurrentTab.IP and body.mixing_image_prompt_and_vary_upscale)


def repaints(body: GenerateRequest, tab: CurrentTab) -> bool:
    """The same for the picture to be repainted."""
    return tab is CurrentTab.INPAINT or (tab is CurrentTab.IP and body.mixing_image_prompt_and_inpaint)
