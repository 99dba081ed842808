"""The application: settings and services in, one ASGI callable out.

Importing this module loads the web framework and nothing heavier, and making the application opens nothing, so that
the port can answer while everything else comes up behind it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from fooocusapi import files, health
from fooocusapi.errors import install_error_handlers
from fooocusapi.middleware import REQUEST_ID_HEADER, ErrorBoundary, OneSlashForm, RequestIds
from fooocusapi.openapi import DESCRIPTION, publish
from fooocusapi.security import DOCS_ASSETS, Access, ApiKeyGuard, BodyLimit
from fooocusapi.services import Opening, Services
from fooocusapi.settings import Settings
from fooocusapi.surfaces.classic import generation, routes
from fooocusapi.surfaces.tams import routes as staged
from fooocusapi.surfaces.tams.failures import OwnFailures, install_refusals
from fooocusapi.surfaces.tams.paths import is_own as is_staged
from fooocusapi.surfaces.tools import describe, masks
from fooocusapi.surfaces.unified import routes as unified

GZIP_FROM_BYTES = 1000
GZIP_LEVEL = 5
MASKED_AT_ONCE = 4
DESCRIBED_AT_ONCE = 4


def create_app(settings: Settings, open_services: Callable[[], Services]) -> FastAPI:
    """The server. ``open_services`` is called on a thread when it starts; what it opened is closed when it ends.

    Its documentation pages bring their scripts along: a server without a network shows them too.
    """
    opening = Opening(open_services)
    app = FastAPIOffline(
        title="fooocusapi",
        version=_version(),
        description=DESCRIPTION,
        lifespan=_lifespan,
        middleware=_middleware(settings),
        redirect_slashes=False,
        strict_content_type=False,
        static_url=DOCS_ASSETS,
    )
    app.state.opening = opening
    app.state.settings = settings
    app.state.unload_limiter = CapacityLimiter(1)
    app.state.mask_limiter = CapacityLimiter(MASKED_AT_ONCE)
    app.state.describe_limiter = CapacityLimiter(DESCRIBED_AT_ONCE)
    install_error_handlers(app)
    install_refusals(app)
    app.include_router(health.router)
    app.include_router(generation.router)
    app.include_router(routes.router)
    app.include_router(unified.router)
    app.include_router(describe.router)
    app.include_router(masks.router)
    app.include_router(files.router)
    for router in (staged.router, staged.keyless, staged.last):
        app.include_router(router)
    publish(app, opening, settings)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    opening: Opening = app.state.opening
    opening.start()
    try:
        yield
    finally:
        await opening.close()


def _middleware(settings: Settings) -> list[Middleware]:
    """From the outside in. Everything from CORS inwards answers browsers of other origins, errors included."""
    access = Access(settings.api_keys, settings.pictures_need_key, is_staged)
    return [
        Middleware(RequestIds),
        Middleware(
            CORSMiddleware,
            allow_origins=["*"],
            allow_credentials=True,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=[REQUEST_ID_HEADER],
        ),
        Middleware(GZipMiddleware, minimum_size=GZIP_FROM_BYTES, compresslevel=GZIP_LEVEL),
        Middleware(OwnFailures),
        Middleware(ErrorBoundary),
        Middleware(OneSlashForm),
        Middleware(ApiKeyGuard, access=access),
        Middleware(
            BodyLimit,
            max_bytes=settings.max_body_bytes,
            max_json_bytes=settings.max_json_bytes,
            within_s=settings.body_timeout_s,
        ),
    ]


def _version() -> str:
    try:
        return version("fooocusapi")
    except PackageNotFoundError:
        return "0.1.0"
