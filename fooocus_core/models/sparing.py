"""Networks that are called so that they take less of the device's memory; each answers in its network's place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fooocus_core.models.residence import CPU
from fooocus_core.sampling.network import Control, ControlResiduals, NetworkCall, NetworkWrapper

if TYPE_CHECKING:
    from fooocus_core.conditioning.adm import PromptSide
    from fooocus_core.models.device import Placement
    from fooocus_core.models.unet import DiffusionNetwork


@dataclass(frozen=True)
class RowByRow(NetworkWrapper):
    """A network that is asked for one row after the other, in place of all at once."""

    def __call__(
        self, latents: Tensor, timesteps: Tensor, context: Tensor, adm: Tensor | None, call: NetworkCall
    ) -> Tensor:
        return torch.cat(
            [
                self.network(latents[row], timesteps[row], context[row], _of_row(adm, row), _call_of_row(call, row))
                for row in _rows(latents)
            ]
        )


@dataclass(frozen=True)
class ControlRowByRow:
    """The same of what looks on; a ``Control``."""

    control: Control

    def residuals(
        self,
        latents: Tensor,
        timesteps: Tensor,
        context: Tensor,
        adm: Tensor | None,
        sigma: float,
        sides: Sequence[PromptSide],
    ) -> ControlResiduals | None:
        """As the control's own, of which ``sigma`` alone decides whether there are any."""
        found = [
            self.control.residuals(latents[row], timesteps[row], context[row], _of_row(adm, row), sigma, sides[row])
            for row in _rows(latents)
        ]
        rows = [one for one in found if one is not None]
        if not rows:
            return None
        skips = zip(*(row.skips for row in rows), strict=True)
        return ControlResiduals(tuple(map(torch.cat, skips)), torch.cat([row.middle for row in rows]))


def _rows(latents: Tensor) -> list[slice]:
    return [slice(index, index + 1) for index in range(len(latents))]


def _of_row(adm: Tensor | None, row: slice) -> Tensor | None:
    return None if adm is None else adm[row]


def _call_of_row(call: NetworkCall, row: slice) -> NetworkCall:
    """The call of one row alone."""
    residuals = call.residuals
    if residuals is not None:
        residuals = ControlResiduals(tuple(skip[row] for skip in residuals.skips), residuals.middle[row])
    return replace(call, sides=call.sides[row], residuals=residuals)


def place(network: DiffusionNetwork, device: torch.device) -> None:
    """Bring all weights of a network to a device, as they are now; it need not lie there already."""
    if network.device.type != device.type:
        network.weights_changed()
        network.unet.to(device)
        network.weights_changed()


@dataclass(frozen=True)
class Turns:
    """Networks of which one is on ``device`` at a time, the others in the computer's memory."""

    networks: Sequence[DiffusionNetwork]
    device: torch.device
    place: Callable[[DiffusionNetwork, torch.device], None] = place

    def take(self, network: DiffusionNetwork) -> None:
        """It is this one's turn: the others make room first."""
        for other in self.networks:
            if other is not network:
                self.place(other, CPU)
        self.place(network, self.device)


def turns_of(first: DiffusionNetwork, second: DiffusionNetwork, placement: Placement) -> Turns | None:
    """How two networks share the device; ``None``: they are there together."""
    return Turns((first, second), placement.device) if placement.residence.second == "in computer" else None


@dataclass(frozen=True)
class InTurn(NetworkWrapper):
    """A network, perhaps under adaptations, that takes its turn before every call. ``own``: whose weights it uses."""

    own: DiffusionNetwork
    turns: Turns

    @property
    def device(self) -> torch.device:
        """Where it works, also while it is not there."""
        return self.turns.device

    def __call__(
        self, latents: Tensor, timesteps: Tensor, context: Tensor, adm: Tensor | None, call: NetworkCall
    ) -> Tensor:
        self.turns.take(self.own)
        return self.network(latents, timesteps, context, adm, call)
