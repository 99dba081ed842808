"""Bodies as clients really send them: JSON without a type, under a wrong type, or broken; forms of any length.

The framework alone would refuse the first two, answer 400 to some of the third, and leave the files of forms open.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import FormData, MutableHeaders

from fooocusapi.form_bodies import FormLimits, read_multipart, read_urlencoded
from fooocusapi.security import is_form_with_files
from fooocusapi.threads import run_in_threadpool

MAX_JSON_PARTS = 2**18
"""Commas and opening brackets of a body. The parser stops everything else while it works, some hundred nanoseconds for
each part; pictures as text, which make bodies long, have none."""

MAX_WIDE_BYTES = 2**22
"""Bytes of characters beyond ASCII, several times what all prompts of a request may have."""

LONG_TEXT_BYTES = 2**22
"""A text beyond this is a picture, and has no characters beyond Latin."""

_LONG_BODY = 2**20
_WIDE = re.compile(rb"[\x80-\xff]+")
_ASCII = bytes(range(128))
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+', re.DOTALL)
_BEYOND_LATIN = re.compile(rb"\\u(?!00)")
_BEFORE_AN_OBJECT = b" \t\r\n\xef\xbb\xbf"
"""Blanks, and the mark that some editors put in front of UTF-8."""


class LenientRequest(Request):
    """A request whose JSON is read strictly, and whose form is read under limits and closed with it."""

    _form_read: FormData | None = None

    async def json(self) -> Any:
        """The body as JSON values, once: it is let go.

        What is no JSON, whatever is wrong with it, is a ``JSONDecodeError``: ``NaN`` and ``Infinity`` too, and nesting
        beyond the parser's depth. Raises ``HTTPException`` (413) for more values, or more characters beyond ASCII, than
        any request has.
        """
        body = await self.body()
        self._body = b""
        if sum(body.count(mark) for mark in b",[{") > MAX_JSON_PARTS:
            raise HTTPException(413, f"the body holds more than {MAX_JSON_PARTS} values")
        try:
            body = _narrow(body)
            _check_long_texts(body)
            return json.loads(body, parse_constant=_refuse_constant)
        except json.JSONDecodeError:
            raise
        except UnicodeDecodeError as error:
            raise _broken("the text is not UTF-8", body, error.start) from error
        except RecursionError as error:
            raise _broken("too many nested levels", body) from error
        except ValueError as error:
            raise _broken(str(error), body) from error

    async def read_form(self, limits: FormLimits) -> FormData:
        """The body as a form, whose files are open as long as the request. Raises as ``read_multipart`` does."""
        if is_form_with_files(self.headers):
            self._form_read = await read_multipart(self.headers["content-type"], self.stream(), limits)
        else:
            self._form_read = await run_in_threadpool(read_urlencoded, await self.body(), limits)
        return self._form_read

    async def close(self) -> None:
        """Lets the body go, and closes the files of the form."""
        self._body = b""
        if self._form_read is not None:
            await self._form_read.close()


class LenientRoute(APIRoute):
    """A route that takes a body which starts with ``{`` for JSON, whatever its type says."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_leniently(request: Request) -> Response:
            lenient = LenientRequest(request.scope, request.receive)
            try:
                if _may_be_json(request) and (await lenient.body()).lstrip(_BEFORE_AN_OBJECT).startswith(b"{"):
                    MutableHeaders(scope=lenient.scope)["content-type"] = "application/json"
                return await handle(lenient)
            finally:
                await lenient.close()

        return handle_leniently


def _may_be_json(request: Request) -> bool:
    """Multipart bodies are left unread: they may hold large files."""
    return request.method == "POST" and not is_form_with_files(request.headers)


def _narrow(body: bytes) -> bytes:
    """A long body in ASCII: a single character beyond would make each character of its text take four bytes."""
    if len(body) <= _LONG_BODY or body.isascii() or not json.detect_encoding(body).startswith("utf-8"):
        return body
    if len(body.translate(None, _ASCII)) > MAX_WIDE_BYTES:
        raise HTTPException(413, f"the body holds more than {MAX_WIDE_BYTES} bytes of characters beyond ASCII")
    return _WIDE.sub(_escaped, body.removeprefix(codecs.BOM_UTF8))


def _check_long_texts(body: bytes) -> None:
    """As above: pictures as text are as long as bodies may be. Some clients escape signs within them."""
    if len(body) <= LONG_TEXT_BYTES or _BEYOND_LATIN.search(body) is None:
        return
    for text in _TEXT.finditer(body):
        start, end = text.span()
        if end - start > LONG_TEXT_BYTES and _BEYOND_LATIN.search(body, start, end) is not None:
            raise HTTPException(413, f"a text of more than {LONG_TEXT_BYTES} bytes has characters beyond Latin")


def _escaped(wide: re.Match[bytes]) -> bytes:
    """As JSON writes characters in ASCII, without the quotes around them; they can only stand in texts."""
    return json.dumps(wide[0].decode())[1:-1].encode()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _broken(reason: str, body: bytes, position: int = 0) -> json.JSONDecodeError:
    return json.JSONDecodeError(reason, body[:_LONG_BODY].decode("utf-8", "replace"), position)
