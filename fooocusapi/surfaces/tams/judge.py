"""Notes what is wrong with a body while it is read: all of it, so that one answer names every field."""

from __future__ import annotations

from fooocusapi.surfaces.tams.failures import Problem, Refusal

BAD_SIZE, BAD_COUNT = "invalid_height_or_width", "invalid_samples"
"""The two problems that have documented names (3.1)."""


class Judge:
    """Problems by their paths. What is not offered outranks every broken rule (3.2)."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []
        self._unoffered: list[Problem] = []

    def refuse(self, field: str, message: str, name: str = "") -> None:
        """A rule that is broken."""
        self._problems.append(Problem(field, message, name))

    def decline(self, field: str, message: str) -> None:
        """Something that this server does not do."""
        self._unoffered.append(Problem(field, message))

    def within(self, field: str, value: float | None, lowest: float, highest: float, name: str = "") -> None:
        """That a value, where there is one, is from ``lowest`` to ``highest``."""
        if value is not None and not lowest <= value <= highest:
            self.refuse(field, f"must be from {lowest:g} to {highest:g}", name)

    def end(self) -> None:
        """Raises ``Refusal``, 501 or 400, where anything was noted."""
        if self._unoffered:
            raise Refusal.of(self._unoffered, 501)
        if self._problems:
            raise Refusal.of(self._problems)

    @property
    def has_problems(self) -> bool:
        """Whether anything was noted so far."""
        return bool(self._problems or self._unoffered)
