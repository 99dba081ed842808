"""The door: what is answered before the application is there, and what reaches it afterwards."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, Request

from fooocusapi.doorway import Doorway
from tests.fooocusapi.fakes import PATIENCE_S


class House:
    """An application that is loaded when the test says so, and writes down how it lived."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.story: list[str] = []
        self.may_load = threading.Event()
        self._failure = failure

    def load(self) -> FastAPI:
        assert self.may_load.wait(PATIENCE_S)
        if self._failure:
            raise self._failure
        app = FastAPI(lifespan=self._lifespan)

        @app.get("/value")
        async def value(request: Request) -> str:
            return str(request.state.value)

        return app

    def give_up(self) -> None:
        self.story.append("given up")

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[dict[str, str]]:
        self.story.append("up")
        yield {"value": "from the lifespan"}
        self.story.append("down")


@asynccontextmanager
async def opened(house: House) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the door, whose lifespan is played as a server does."""
    door = Doorway(house.load, house.give_up)
    to_door: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    from_door: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    living = asyncio.create_task(door({"type": "lifespan"}, to_door.get, from_door.put))
    await to_door.put({"type": "lifespan.startup"})
    assert (await from_door.get())["type"] == "lifespan.startup.complete"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://door") as client:
        yield client
    await to_door.put({"type": "lifespan.shutdown"})
    assert (await from_door.get())["type"] == "lifespan.shutdown.complete"
    await living


def test_ping_is_answered_at_once_and_the_rest_waits() -> None:
    async def story() -> None:
        house = House()
        async with opened(house) as client:
            ping = await client.get("/ping")
            assert (ping.status_code, ping.json(), ping.headers["content-type"]) == (200, "pong", "application/json")
            early = asyncio.create_task(client.get("/value"))
            await asyncio.sleep(0)
            assert not early.done()
            house.may_load.set()
            assert (await early).json() == "from the lifespan"
            assert (await client.get("/ping")).status_code == 404, "now it is the application's own affair"
            assert house.story == ["up"]
        assert house.story == ["up", "down"]

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_an_application_that_cannot_be_loaded_ends_the_server() -> None:
    async def story() -> None:
        house = House(ImportError("no such thing"))
        house.may_load.set()
        async with opened(house) as client:
            answer = await client.get("/value")
            assert answer.status_code == 503
            assert "no such thing" not in answer.text
        assert house.story == ["given up"]

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_an_application_that_does_not_start_ends_the_server() -> None:
    class Broken(House):
        @asynccontextmanager
        async def _lifespan(self, app: FastAPI) -> AsyncIterator[dict[str, str]]:
            raise RuntimeError("cannot start")
            yield {}

    async def story() -> None:
        house = Broken()
        house.may_load.set()
        async with opened(house) as client:
            assert (await client.get("/value")).status_code == 503
        assert house.story == ["given up"]

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))


def test_an_end_before_the_application_is_there_waits_for_it() -> None:
    async def story() -> None:
        house = House()
        async with opened(house) as client:
            await client.get("/ping")
            asyncio.get_running_loop().call_soon(house.may_load.set)
        assert house.story == ["up", "down"]

    asyncio.run(asyncio.wait_for(story(), PATIENCE_S))
