"""JSON bodies as clients really send them: without a type, under a wrong type, or broken.

The framework alone would refuse the first two and answer 400 to some of the third.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import MutableHeaders

from fooocusapi.security import is_form_with_files

MAX_JSON_PARTS = 2**18
"""Commas and opening brackets of a body. The parser stops everything else while it works, some hundred nanoseconds for
each part; pictures as text, which make bodies long, have none."""

_BEFORE_AN_OBJECT = b" \t\r\n\xef\xbb\xbf"
"""Blanks, and the mark that some editors put in front of UTF-8."""


class JsonRequest(Request):
    """A request whose JSON is read strictly: what is no JSON is a ``JSONDecodeError``, whatever is wrong with it."""

    async def json(self) -> Any:
        """The body as JSON values. ``NaN`` and ``Infinity`` are no JSON, nor is nesting beyond the parser's depth.

        Raises ``HTTPException`` (413) for more values than any request has.
        """
        body = await self.body()
        if sum(body.count(mark) for mark in b",[{") > MAX_JSON_PARTS:
            raise HTTPException(413, f"the body holds more than {MAX_JSON_PARTS} values")
        try:
            return json.loads(body, parse_constant=_refuse_constant)
        except json.JSONDecodeError:
            raise
        except UnicodeDecodeError as error:
            raise _broken("the text is not UTF-8", body, error.start) from error
        except RecursionError as error:
            raise _broken("too many nested levels", body) from error
        except ValueError as error:
            raise _broken(str(error), body) from error


class LenientRoute(APIRoute):
    """A route that takes a body which starts with ``{`` for JSON, whatever its type says."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_leniently(request: Request) -> Response:
            if not _may_be_json(request):
                return await handle(request)
            lenient = JsonRequest(request.scope, request.receive)
            if (await lenient.body()).lstrip(_BEFORE_AN_OBJECT).startswith(b"{"):
                MutableHeaders(scope=lenient.scope)["content-type"] = "application/json"
            return await handle(lenient)

        return handle_leniently


def _may_be_json(request: Request) -> bool:
    """Multipart bodies are left unread: they may hold large files."""
    return request.method == "POST" and not is_form_with_files(request.headers)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _broken(reason: str, body: bytes, position: int = 0) -> json.JSONDecodeError:
    return json.JSONDecodeError(reason, body.decode("utf-8", "replace"), position)
