"""What endpoints are handed, as named annotated types."""

from __future__ import annotations

from typing import Annotated, cast

from anyio import CapacityLimiter
from fastapi import Depends, Request

from fooocusapi.services import Opening, Services
from fooocusapi.settings import Settings


def _opening_of(request: Request) -> Opening:
    return cast("Opening", request.app.state.opening)


def _settings_of(request: Request) -> Settings:
    return cast("Settings", request.app.state.settings)


def _unload_limiter_of(request: Request) -> CapacityLimiter:
    return cast("CapacityLimiter", request.app.state.unload_limiter)


def _describe_limiter_of(request: Request) -> CapacityLimiter:
    return cast("CapacityLimiter", request.app.state.describe_limiter)


def _mask_limiter_of(request: Request) -> CapacityLimiter:
    return cast("CapacityLimiter", request.app.state.mask_limiter)


async def _services_of(request: Request) -> Services:
    return await _opening_of(request).wait()


OpeningServices = Annotated[Opening, Depends(_opening_of)]
"""The promise of the services, for endpoints that answer before it is kept."""

OpenServices = Annotated[Services, Depends(_services_of)]
"""The services; a request that comes before they are open waits for them, and gets 503 if that fails."""

ServerSettings = Annotated[Settings, Depends(_settings_of)]

UnloadLimiter = Annotated[CapacityLimiter, Depends(_unload_limiter_of)]
"""Lets one caller at a time wait on a thread for the engine's memory; the others wait without one."""

MaskLimiter = Annotated[CapacityLimiter, Depends(_mask_limiter_of)]
"""Lets a few pictures into memory that wait for their masks, while one of them is made."""

DescribeLimiter = Annotated[CapacityLimiter, Depends(_describe_limiter_of)]
"""Lets a few pictures into memory that wait to be described, while one of them is."""
