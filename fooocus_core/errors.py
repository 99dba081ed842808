"""Everything the core can refuse or fail at. None of it knows of HTTP.

The tree::

    CoreError
    ├── InvalidRequest        a field holds a value that cannot be run
    ├── UnknownModel          a named weight file is not in the library
    ├── MissingPicture        a picture that came with the request is gone
    ├── DownloadFailed        a weight file cannot be fetched
    ├── ModelError
    │   ├── UnreadableModel   the file is broken or unsafe to open
    │   └── UnsupportedModel  the file is sound but of a kind this engine cannot run
    ├── OutOfMemory           the device has no room for the job
    ├── Interrupted           somebody asked the running job to stop
    └── Skipped               somebody asked to leave out the picture in work
"""

from __future__ import annotations

from collections.abc import Iterable


class CoreError(Exception):
    """The root: its text is fit to be shown to a client (no paths, no traces)."""


class InvalidRequest(CoreError):
    """A field of what was asked cannot be run.

    ``field`` is the dialect-neutral name of the field (the attribute of ``GenerationRequest``), ``reason`` says what
    is wrong and, where the values form a closed set, names them.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason

    @classmethod
    def unknown_name(cls, field: str, name: str, known: Iterable[str]) -> InvalidRequest:
        """A name outside a closed set; the answer lists the set."""
        return cls(field, f"unknown name {name!r}; known: {', '.join(known)}")


class UnknownModel(CoreError):
    """``name`` is not a file of the library's ``kind`` folder (checkpoints, loras, vae ...).

    ``needed_for`` says what wants it, where nobody has asked for it by name; ``url`` where it is published.
    """

    def __init__(self, kind: str, name: str, needed_for: str = "", url: str = "") -> None:
        wanted = f", needed for {needed_for}" if needed_for else ""
        published = f"; it is published at {url} and fetched by: main.py download {name}" if url else ""
        super().__init__(f"{kind}: no file named {name!r}{wanted}{published}")
        self.kind = kind
        self.name = name
        self.needed_for = needed_for
        self.url = url

    def published_at(self, name: str, url: str) -> UnknownModel:
        """The same with the file's whole name and where it can be got."""
        return UnknownModel(self.kind, name, self.needed_for, url)


class MissingPicture(CoreError):
    """A picture that a plan starts from is not kept any more, or cannot be read."""

    def __init__(self) -> None:
        super().__init__("a picture that the request names is not there, or not there any more")


class DownloadFailed(CoreError):
    """A weight file cannot be fetched. ``name`` is the file's name; the text never shows where it would have gone."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} cannot be downloaded: {reason}")
        self.name = name
        self.reason = reason


class ModelError(CoreError):
    """A weight file that cannot be used. ``name`` is the file's name without its folder."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class UnreadableModel(ModelError):
    """The file is truncated, corrupt, or would have to be unpickled unsafely."""


class UnsupportedModel(ModelError):
    """The file can be read, but its network is not one this engine runs."""


OUT_OF_MEMORY = (
    "the device has no room for this picture, also when nothing else is on it: a smaller picture, a smaller upscale or "
    "fewer pictures that guide it take less"
)


class OutOfMemory(CoreError):
    """The device has no room for the job."""


class Interrupted(CoreError):
    """Somebody asked the running job to stop."""


class Skipped(CoreError):
    """Somebody asked to leave out the picture in work."""
