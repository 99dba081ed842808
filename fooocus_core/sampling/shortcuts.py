"""What takes less time and gives another picture than the reference: only where somebody asks for it."""

from __future__ import annotations

from dataclasses import dataclass

from fooocus_core.sampling.network import StepMemory


@dataclass(frozen=True)
class Shortcuts:
    """As they stand, there are none.

    ``guidance_until`` (0 to 1): how far a run is guided; after that share of it, by the network's timesteps, the
    negative side is left out. ``whole_pass_every``: of so many calls of the network one is a whole pass; the others
    reuse what that one has found below the outermost level.
    """

    guidance_until: float = 1.0
    whole_pass_every: int = 1

    def guides(self, progress: float) -> bool:
        """Whether the negative side is asked when a run has come so far."""
        return self.guidance_until >= 1 or progress < self.guidance_until

    def memory(self) -> StepMemory | None:
        """A new one for a run; ``None``: every pass is whole."""
        return StepMemory(self.whole_pass_every) if self.whole_pass_every > 1 else None


NO_SHORTCUTS = Shortcuts()
