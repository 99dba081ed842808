"""The engine at SDXL's real size on a graphics card, beside diffusers on the same weights.

``python benchmarks/gpu.py [--markdown docs/performance.md] [--json FILE]``. Needs no file: the weights are random and
made on the card. Rows are measured in order of importance until the time is over; page and file are written after each,
so that nothing is lost. ``--tiny`` runs every part on any machine, and says nothing about speed.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import logging
import statistics
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler, LCMScheduler
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

ROOT = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):  # run as a script: the project's own packages are not on the path
    sys.path.insert(0, str(ROOT))

from benchmarks.random_sdxl import Question, RandomModel, Scale, called, published, tiny  # noqa: E402
from benchmarks.report import machine, shown, versions, write_section  # noqa: E402
from fooocus_core.metadata.files import encode_image  # noqa: E402
from fooocus_core.models import autoencoder, compiled, forward_pass  # noqa: E402
from fooocus_core.models.autoencoder import Autoencoder  # noqa: E402
from fooocus_core.models.compiled import Compiler  # noqa: E402
from fooocus_core.models.device import choose_placement  # noqa: E402
from fooocus_core.models.loaded import LATENT_SCALE  # noqa: E402
from fooocus_core.models.preview import LinearPreview, RunPreviews, fitted_colours  # noqa: E402
from fooocus_core.models.unet import DiffusionNetwork  # noqa: E402
from fooocus_core.models.upscaler import as_picture  # noqa: E402
from fooocus_core.sampling.guidance import GuidanceSettings  # noqa: E402
from fooocus_core.sampling.sample import PromptedNetwork, SampleSettings, sample_latents  # noqa: E402
from fooocus_core.sampling.samplers.contract import SamplerStep, Steps  # noqa: E402
from fooocus_core.stages.networks import Called  # noqa: E402
from fooocus_core.stages.together import sample_together  # noqa: E402

SCRIPT = "benchmarks/gpu.py"
PACKAGES = ("torch", "diffusers", "numpy", "pillow")
NOT_MEASURED = "not measured"
NO_CARD = "no CUDA card here; --tiny runs every part on the CPU, at a size that says nothing about speed"
GIB = 2**30
TERA = 1e12
SEED = 7
SCALE, ADAPTIVE_SCALE, SIZES_UNTIL = 4.0, 7.0, 0.3
"""Guidance as a request without wishes has it."""
USUAL_SHARPNESS = 2.0
MATRIX_SIDE, MATRIX_PRODUCTS, MATRIX_TRIES = 8192, 10, 8
CALL_ROWS = (2, 8)
CALLS_A_TRY = 4
"""Network calls that are timed as one, so that the host can run ahead as it does in a picture."""
COUNTED_STEPS = 6
MOST_FORMS = 64
"""Of one function may be compiled: rows, layouts and ways of compiling."""
COMPILING_S = 300.0
"""What takes longer is not waited for."""
WAIT_SIGN = "called a synchroniz"
"""Of torch's warnings."""
SDXL_SCHEDULE: Mapping[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
BACK_ENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
}

SECTION = """
## On a graphics card

SDXL at its real size beside diffusers, on the same random weights, in one run:

```sh
.venv/bin/python benchmarks/gpu.py --markdown docs/performance.md
```

<!-- figures: written by benchmarks/gpu.py -->
<!-- end of figures -->

A picture is 1024 x 1024, sampled and decoded to bytes in the computer's memory; texts and PNG are not in it. 30 steps
have guidance (two rows a call) and `dpmpp_2m_sde_gpu` on `karras`; 4 steps are `euler` on `sgm_uniform`, 8 steps `lcm`,
both without guidance. diffusers' rows are its `UNet2DConditionModel`, schedulers and decoder in its pipeline's loop.
Both sides calculate in float16 and decode in bfloat16, without sharpness and previews. Rate: of the card's own product
of two matrices of 8192 x 8192. Error: of one network call against diffusers' module in float32 on the same weights,
mean distance by mean size. Memory: the most that torch had allocated, without text encoders. Goals on one H200: 0.9 s a
picture, 0.8 s of four at once, 0.15 s in 4 steps, and diffusers' time, not compiled, by 2.5. What ten minutes are too
short for, a second run with `--go-on` and the same `--json FILE` measures.
"""

Figures = Mapping[str, float | str | None]
Picture = NDArray[np.uint8]
Call = Callable[[Question], Tensor]
OnStep = Callable[[SamplerStep], object]


@dataclass(frozen=True)
class Mode:
    """A way to paint; ``scheduler``: diffusers' form of it. One network call a step."""

    sampler: str
    list_name: str
    steps: int
    scale: float
    scheduler: Callable[[], Any]

    @property
    def rows(self) -> int:
        """Of one network call for one picture."""
        return 1 if self.scale == 1.0 else 2


def _dpm_solver() -> Any:
    return DPMSolverMultistepScheduler(  # type: ignore[no-untyped-call]
        **SDXL_SCHEDULE, algorithm_type="sde-dpmsolver++", use_karras_sigmas=True
    )


def _trailing_euler() -> Any:
    return EulerDiscreteScheduler(**SDXL_SCHEDULE, timestep_spacing="trailing")  # type: ignore[no-untyped-call]


def _lcm() -> Any:
    return LCMScheduler(**SDXL_SCHEDULE)  # type: ignore[no-untyped-call]


USUAL = Mode("dpmpp_2m_sde_gpu", "karras", 30, SCALE, _dpm_solver)
FOUR = Mode("euler", "sgm_uniform", 4, 1.0, _trailing_euler)
EIGHT = Mode("lcm", "lcm", 8, 1.0, _lcm)


# --- the two sides ------------------------------------------------------------------------------------------------


class Painter(Protocol):
    """Makes pictures of its own kind."""

    def get_ready(self, rows: int) -> None:
        """Compiles what is to be compiled for calls of so many rows."""

    def get_decoder_ready(self) -> None:
        """The same for decoding."""

    def answer(self, question: Question) -> Tensor:
        """One network call."""

    def sampled(self, mode: Mode, count: int) -> Tensor:
        """Un-scaled latents ``[count, 4, h, w]``."""

    def pictures(self, latents: Tensor) -> list[Picture]:
        """Decoded, in the computer's memory."""


class Backend:
    """torch's compiler, which counts how often what it made is called."""

    def __init__(self, name: str, mode: str | None = None) -> None:
        """``mode``: one of the compiler's own, for ``inductor`` alone."""
        self._name = name
        self._options = torch._inductor.list_mode_options(mode) if mode and name == "inductor" else {}
        self.runs = 0

    def __call__(self, graph: Any, examples: list[Any]) -> Callable[..., Any]:
        made: Callable[..., Any]
        if self._name == "inductor":
            made = torch._inductor.compile(graph, examples, options=dict(self._options))
        else:
            made = torch._dynamo.lookup_backend(self._name)(graph, examples)

        def run(*arguments: Any) -> Any:
            self.runs += 1
            return made(*arguments)

        return run


class Workshop:
    """The project's own compiler, which is waited for here, and asked whether it came to anything."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.compiler = Compiler(backend)

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """What is called inside is compiled when this is left. Raises ``RuntimeError`` where it could not be."""
        with complaints_of(compiled.__name__) as complaints:
            yield
            self.compiler.wait(COMPILING_S)
        if self.compiler.is_compiling:
            raise RuntimeError(f"not compiled after {COMPILING_S} s")
        if complaints:
            raise RuntimeError(complaints[0])

    @contextmanager
    def used(self) -> Iterator[None]:
        """Raises ``RuntimeError`` if nothing compiled was called inside."""
        before = self.backend.runs
        yield
        if self.backend.runs == before:
            raise RuntimeError("what was compiled is not used")


@contextmanager
def complaints_of(name: str) -> Iterator[list[str]]:
    """What a logger says meanwhile in warnings."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


@dataclass(frozen=True)
class Ours:
    """This project's sampling and decoding. ``each_step``: what looks at every step, as a preview does.

    ``workshop``: where network and autoencoder are compiled, if they are.
    """

    model: RandomModel
    network: DiffusionNetwork
    autoencoder: Autoencoder
    workshop: Workshop | None = None
    sharpness: float = 0.0
    each_step: OnStep | None = None

    def get_ready(self, rows: int) -> None:
        question = self.model.question(rows)
        self._made_ready(lambda: self.answer(question), forward_pass.WORTH_CALLS)

    def get_decoder_ready(self) -> None:
        """The same for decoding."""
        latents = self.model.latents()
        self._made_ready(lambda: self.autoencoder.decode(latents), autoencoder.WORTH_CALLS)

    def _made_ready(self, call: Callable[[], object], worth_calls: int) -> None:
        """Calls until it is compiled, and sees to it that this is what is called."""
        if self.workshop is None:
            return
        with self.workshop.finishing():
            for _ in range(worth_calls):
                call()
        with self.workshop.used():
            call()

    def answer(self, question: Question) -> Tensor:
        return self.network(question.latents, question.timesteps, question.context, question.adm)

    def sampled(self, mode: Mode, count: int) -> Tensor:
        begin = [partial(self.steps, mode, SEED + number) for number in range(count)]
        walk = sample_together(begin, Called(self.network))
        while True:
            try:
                _, step = next(walk)
            except StopIteration as finished:
                latents: list[Tensor] = finished.value
                return torch.cat(latents)
            if self.each_step is not None:
                self.each_step(step)

    def steps(self, mode: Mode, seed: int, asked: Called) -> Steps:
        """One picture's run, not yet begun."""
        positive, negative = self.model.texts
        side = self.model.scale.side
        return sample_latents(
            base=PromptedNetwork(asked.base, "eps", positive, negative),
            guidance=GuidanceSettings(mode.scale, self.sharpness, ADAPTIVE_SCALE, SIZES_UNTIL),
            settings=SampleSettings(mode.sampler, mode.list_name, mode.steps, seed),
            latent=torch.zeros(1, 4, side, side),
        )

    def pictures(self, latents: Tensor) -> list[Picture]:
        return [as_picture(self.autoencoder.decode_or_tiled(one)) for one in torch.split(latents, 1)]


@dataclass(frozen=True)
class Theirs:
    """What diffusers' pipeline does between the texts and the picture; ``unet`` may be compiled."""

    model: RandomModel
    unet: Any

    def get_ready(self, rows: int) -> None:
        self.answer(self.model.question(rows))

    def get_decoder_ready(self) -> None:
        """It is not compiled."""

    def answer(self, question: Question) -> Tensor:
        # As in the loop, so that a compiled form of it is made for both.
        return called(self.unet, question.latents, question.timesteps[0], question)

    def sampled(self, mode: Mode, count: int) -> Tensor:
        device, side = self.model.placement.device, self.model.scale.side
        question = self._texts(mode, count)
        scheduler = mode.scheduler()
        scheduler.set_timesteps(mode.steps, device=device)
        generator = torch.Generator(device).manual_seed(SEED)
        latents = torch.randn(count, 4, side, side, generator=generator, device=device, dtype=question.context.dtype)
        latents *= scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            rows = scheduler.scale_model_input(torch.cat([latents] * mode.rows), timestep)
            noise = called(self.unet, rows.to(question.context.dtype), timestep.float(), question)
            if mode.rows == 2:
                negative, positive = noise.chunk(2)
                noise = negative + mode.scale * (positive - negative)
            latents = scheduler.step(noise, timestep, latents, generator=generator, return_dict=False)[0]
        return latents / LATENT_SCALE

    def _texts(self, mode: Mode, count: int) -> Question:
        """Text and vector of every row; the latents are the run's."""
        dtype, width = self.model.placement.network, self.model.scale.unet.adm_width or 0
        positive, negative = self.model.texts
        sides = [positive] if mode.rows == 1 else [negative, positive]
        vectors = [side.adm[:, :width] for side in sides if side.adm is not None]
        return Question(
            torch.empty(0),
            torch.empty(0),
            torch.cat([side.context for side in sides]).to(dtype).repeat_interleave(count, 0),
            torch.cat(vectors).to(dtype).repeat_interleave(count, 0),
        )

    @torch.no_grad()
    def pictures(self, latents: Tensor) -> list[Picture]:
        network: Any = self.model.autoencoder.network
        decoded: Tensor = network.decode(latents.to(self.model.autoencoder.dtype), return_dict=False)[0]
        return [as_picture(one) for one in torch.split((decoded.float() / 2 + 0.5).clamp(0, 1), 1)]


# --- measuring ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """``compiler``: the back end of ``torch.compile``; ``runs``: how often each figure is taken."""

    scale: Scale
    device: str = "cuda"
    runs: int = 5
    budget_s: float = 540.0
    compiler: str = "inductor"
    most_steps: int | None = None
    matrix_side: int = MATRIX_SIDE
    parts: tuple[str, ...] = ()

    def mode(self, mode: Mode) -> Mode:
        """The same with no more than the steps that are wished."""
        return mode if self.most_steps is None else replace(mode, steps=min(mode.steps, self.most_steps))


class Bench:
    """What the rows share: networks, both painters, and the card's own rate."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.placement = choose_placement("cuda" if settings.device == "cuda" else "cpu")
        self.model = RandomModel(settings.scale, self.placement)
        self.has_card = settings.device == "cuda"

    @cached_property
    def ours(self) -> Ours:
        return Ours(self.model, self.model.network(), self.model.autoencoder)

    @cached_property
    def ours_compiled(self) -> Ours:
        return self.compiled()

    @cached_property
    def theirs(self) -> Theirs:
        return Theirs(self.model, self.model.unet)

    @cached_property
    def theirs_compiled(self) -> Theirs:
        return Theirs(self.model, torch.compile(self.model.unet, dynamic=False, backend=self.settings.compiler))

    @cached_property
    def quickest(self) -> Ours:
        """Compiled where that works."""
        try:
            self.ours_compiled.get_ready(USUAL.rows)
        except Exception:
            return self.ours
        return self.ours_compiled

    def compiled(
        self, unet: nn.Module | None = None, decoder: Autoencoder | None = None, mode: str | None = None
    ) -> Ours:
        """As the server compiles: over the common weights or others, in one of the compiler's modes."""
        workshop = Workshop(Backend(self.settings.compiler, mode))
        network = self.model.network(unet)
        decoder = decoder or self.model.autoencoder
        decoder = Autoencoder(decoder.network, decoder.shape)
        network.compiler = decoder.compiler = workshop.compiler
        return Ours(self.model, network, decoder, workshop)

    def forget_compiled(self) -> None:
        """All that is compiled is compiled anew when it is next asked for."""
        torch.compiler.reset()
        for name in ("ours_compiled", "theirs_compiled", "quickest"):
            self.__dict__.pop(name, None)

    @cached_property
    def half_rate(self) -> float:
        """Operations a second of a large product in the denoising network's dtype."""
        return self.matrix_rate(self.placement.network)

    def matrix_rate(self, dtype: torch.dtype) -> float:
        """The best of several tries, on random numbers."""
        side = self.settings.matrix_side
        a, b = (torch.randn(side, side, device=self.placement.device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)

        def products() -> None:
            for _ in range(MATRIX_PRODUCTS):
                torch.mm(a, b, out=out)

        products()
        best_s = min(self.seconds(products) for _ in range(MATRIX_TRIES))
        return MATRIX_PRODUCTS * 2 * float(side) ** 3 / best_s

    def seconds(self, action: Callable[[], object]) -> float:
        """Until the card has done what it was told."""
        self.wait()
        started_s = time.perf_counter()
        action()
        self.wait()
        return time.perf_counter() - started_s

    def median_s(self, action: Callable[[], object]) -> float:
        """After one that does not count."""
        action()
        return statistics.median(self.seconds(action) for _ in range(self.settings.runs))

    def wait(self) -> None:
        if self.has_card:
            torch.cuda.synchronize()

    def begin_row(self) -> None:
        """Nothing of the row before is left over."""
        if self.has_card:
            gc.collect()
            torch.cuda.empty_cache()

    def reset_peak(self) -> None:
        if self.has_card:
            torch.cuda.reset_peak_memory_stats()

    def peak_gib(self) -> float | None:
        return torch.cuda.max_memory_allocated() / GIB if self.has_card else None

    def call_ms(self, call: Call, rows: int) -> float:
        """One network call as it takes in a row of them."""
        question = self.model.question(rows)

        def calls() -> None:
            for _ in range(CALLS_A_TRY):
                call(question)

        return 1000 * self.median_s(calls) / CALLS_A_TRY


def picture_figures(painter: Callable[[Bench], Painter], mode: Mode, count: int, bench: Bench) -> Figures:
    """Pictures that are painted together, per picture. Raises ``ArithmeticError`` for numbers that are none."""
    paints, mode = painter(bench), bench.settings.mode(mode)
    decoder_complaints: list[str] = []
    rows = mode.rows * count
    ready_s = bench.seconds(lambda: paints.get_ready(rows))
    ready_s += bench.seconds(lambda: decoder_complaints.append(_complaint_of(paints.get_decoder_ready)))
    error = bench.model.error_of(paints.answer(bench.model.question(rows)))
    with paints.workshop.used() if isinstance(paints, Ours) and paints.workshop else nullcontext():
        latents = paints.sampled(mode, count)
    if not latents.isfinite().all():
        raise ArithmeticError("the latents are not finite")
    bench.reset_peak()
    taken = [_picture_seconds(bench, paints, mode, count) for _ in range(bench.settings.runs + 1)][1:]
    sampled_s, whole_s = (statistics.median(column) for column in zip(*taken, strict=True))
    work = rows * mode.steps * bench.model.row_flop + count * bench.model.decoding_flop
    return {
        "picture_s": whole_s / count,
        "step_ms": 1000 * sampled_s / mode.steps,
        "peak_gib": bench.peak_gib(),
        "rate_share": work / whole_s / bench.half_rate,
        "error": error,
        "ready_s": ready_s,
        "decoder": "".join(decoder_complaints),
    }


def _complaint_of(action: Callable[[], None]) -> str:
    """Why a decoder is not compiled, which the server decodes without; nothing if it is or was not to be."""
    try:
        action()
    except RuntimeError as error:
        return str(error)
    return ""


def _picture_seconds(bench: Bench, painter: Painter, mode: Mode, count: int) -> tuple[float, float]:
    """Until the latents are there, and until the pictures are."""
    bench.wait()
    started_s = time.perf_counter()
    latents = painter.sampled(mode, count)
    bench.wait()
    sampled_s = time.perf_counter() - started_s
    painter.pictures(latents)
    return sampled_s, time.perf_counter() - started_s


def call_figures(made: Callable[[Bench], AbstractContextManager[Call]], bench: Bench) -> Figures:
    """The network call alone, for one guided picture and for four."""
    with made(bench) as call:
        two, eight = CALL_ROWS
        error = bench.model.error_of(call(bench.model.question(two)))
        return {"two_rows_ms": bench.call_ms(call, two), "eight_rows_ms": bench.call_ms(call, eight), "error": error}


@contextmanager
def eager_call(bench: Bench, *, around: Callable[[], AbstractContextManager[object]] = nullcontext) -> Iterator[Call]:
    """The straight pass as it is, in a context."""
    with around():
        yield bench.ours.answer


@contextmanager
def compiled_call(bench: Bench, *, mode: str | None = None) -> Iterator[Call]:
    """The straight pass compiled, in one of the compiler's modes."""
    if mode is None:
        yield _made_ready(bench.ours_compiled).answer
        return
    # What is compiled twice for the same inputs is not told apart later: the one must be gone before the other comes.
    bench.forget_compiled()
    try:
        yield _made_ready(bench.compiled(mode=mode)).answer
    finally:
        bench.forget_compiled()


@contextmanager
def channels_last_call(bench: Bench, *, is_compiled: bool) -> Iterator[Call]:
    """The straight pass over a copy of the weights whose convolutions have their channels last."""
    unet: nn.Module = copy.deepcopy(bench.model.unet)
    unet = unet.to(memory_format=torch.channels_last)
    if is_compiled:
        yield _made_ready(bench.compiled(unet)).answer
    else:
        yield replace(bench.ours, network=bench.model.network(unet)).answer


def _made_ready(painter: Ours) -> Ours:
    for rows in CALL_ROWS:
        painter.get_ready(rows)
    return painter


@contextmanager
def recorded_call(bench: Bench, *, painter: Callable[[Bench], Ours]) -> Iterator[Call]:
    """Kernels recorded once for each count of rows and replayed: no launch waits for Python. Needs a CUDA card."""
    answer = _made_ready(painter(bench)).answer
    recorded: dict[int, tuple[Any, Tensor, Question]] = {}

    def call(question: Question) -> Tensor:
        """The question is always the same one; the first of its length is kept where the kernels read it."""
        rows = len(question.latents)
        if rows not in recorded:
            recorded[rows] = (*_recorded(lambda: answer(question)), question)
        graph, out, _ = recorded[rows]
        graph.replay()
        return out

    yield call


def _recorded(action: Callable[[], Tensor]) -> tuple[Any, Tensor]:
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            action()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = action()
    return graph, out


@contextmanager
def tried_convolutions() -> Iterator[None]:
    """cuDNN tries its convolutions out before it chooses."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def decoding_figures(bench: Bench, *, is_compiled: bool = False, channels_last: bool = False) -> Figures:
    """Decoding one picture, by the project's own autoencoder."""
    painter = bench.ours_compiled if is_compiled else bench.ours
    if channels_last:
        network: Any = copy.deepcopy(bench.model.autoencoder.network).to(memory_format=torch.channels_last)
        decoder = Autoencoder(network, bench.model.autoencoder.shape)
        painter = bench.compiled(decoder=decoder) if is_compiled else replace(bench.ours, autoencoder=decoder)
    painter.get_decoder_ready()
    decoder = painter.autoencoder
    latents = bench.model.latents()
    error = bench.model.decoding_error(decoder)
    bench.reset_peak()
    taken_s = bench.median_s(lambda: decoder.decode(latents))
    share = bench.model.decoding_flop / taken_s / bench.matrix_rate(decoder.dtype)
    return {"picture_ms": 1000 * taken_s, "peak_gib": bench.peak_gib(), "rate_share": share, "error": error}


def rate_figures(dtype: torch.dtype, bench: Bench) -> Figures:
    """What the card itself can do."""
    return {"measured": f"{shown(bench.matrix_rate(dtype) / TERA)} TFLOP/s"}


def cost_figures(bench: Bench, *, sharpness: float = 0.0, each_step: OnStep | None = None) -> Figures:
    """What sampling takes longer with something beside it, measured in pairs."""
    mode = bench.settings.mode(USUAL)
    plain = bench.quickest
    other = replace(plain, sharpness=sharpness, each_step=each_step)
    for painter in (plain, other):
        painter.sampled(mode, 1)
    pairs = [
        (bench.seconds(lambda: plain.sampled(mode, 1)), bench.seconds(lambda: other.sampled(mode, 1)))
        for _ in range(bench.settings.runs)
    ]
    plain_s, other_s = (statistics.median(column) for column in zip(*pairs, strict=True))
    share = (other_s - plain_s) / plain_s
    return {"measured": f"{1000 * (other_s - plain_s):.1f} ms a picture, {100 * share:.1f} % of its steps"}


def preview_figures(bench: Bench) -> Figures:
    """Previews by the linear map that serves where no preview network is on the disk."""
    return cost_figures(bench, each_step=previewing(bench.model))


def previewing(model: RandomModel) -> OnStep:
    """Previews of the steps of one run, as a job has them."""
    preview = LinearPreview(fitted_colours(model.autoencoder, LATENT_SCALE), device=model.placement.device)
    shown = RunPreviews()
    return lambda step: shown.next(preview, step.denoised)


def png_figures(bench: Bench) -> Figures:
    """Packing a picture of this size: something smooth under a little noise, as photographs are."""
    side = bench.model.scale.pixels
    waves = np.sin(np.linspace(0, 9, side))[:, None, None] * np.cos(np.linspace(0, 7, side))[None, :, None]
    noise = np.random.default_rng(SEED).normal(0, 3, (side, side, 3))
    picture = (128 + 100 * waves * np.array([1.0, 0.8, 0.6]) + noise).clip(0, 255).astype(np.uint8)
    taken_s = statistics.median(bench.seconds(lambda: encode_image(picture, "png")) for _ in range(bench.settings.runs))
    return {"measured": f"{1000 * taken_s:.0f} ms"}


# --- waiting for the card -----------------------------------------------------------------------------------------


def waiting_figures(bench: Bench) -> Figures:
    """How often, between the first step and the last, the host waits for the card; and where. Previews are made."""
    if not bench.has_card:
        return {"measured": None}
    mode = replace(USUAL, steps=min(COUNTED_STEPS, bench.settings.mode(USUAL).steps))
    painter = replace(bench.ours, sharpness=USUAL_SHARPNESS)
    painter.sampled(mode, 1)
    with waits_noted() as known:
        torch.ones(1, device=bench.placement.device).item()
    if not known:
        raise RuntimeError("torch says nothing of a call that waits")
    steps = painter.steps(mode, SEED, Called(painter.network))
    places = waits_between_steps(steps, mode.steps, previewing(bench.model))
    found = ", ".join(f"{place} {times} x" for place, times in Counter(places).most_common())
    return {"measured": f"{len(places)} in {mode.steps} steps" + (f": {found}" if found else "")}


def waits_between_steps(steps: Generator[SamplerStep, None, Tensor], count: int, each_step: OnStep) -> list[str]:
    """Where the host waits from the first step's record to the last one's."""
    each_step(next(steps))
    with waits_noted() as places:
        for _ in range(count - 1):
            each_step(next(steps))
    steps.close()
    return places


@contextmanager
def waits_noted() -> Iterator[list[str]]:
    """torch's own warnings of calls that wait, each by the innermost line of the core that led to it."""
    places: list[str] = []

    def note(message: Warning | str, *_: object, **__: object) -> None:
        if WAIT_SIGN in str(message):
            places.append(_innermost_of_core(traceback.extract_stack()))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        _warn_of_waits("warn")
        try:
            yield places
        finally:
            _warn_of_waits("default")


def _warn_of_waits(mode: str) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode(mode)


def _innermost_of_core(stack: Sequence[traceback.FrameSummary]) -> str:
    core = [frame for frame in stack if "fooocus_core" in frame.filename]
    frame = core[-1] if core else stack[-2]
    return f"{Path(frame.filename).name}:{frame.lineno}"


# --- rows ---------------------------------------------------------------------------------------------------------

PICTURES, CALLS, DECODING, AROUND = "pictures", "calls", "decoding", "around"
"""Parts, each a table."""
COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    PICTURES: {
        "picture_s": "s a picture",
        "step_ms": "ms a step",
        "peak_gib": "peak GiB",
        "rate_share": "share of the rate",
        "error": "error",
        "ready_s": "ready after, s",
    },
    CALLS: {"two_rows_ms": "2 rows, ms", "eight_rows_ms": "8 rows, ms", "error": "error"},
    DECODING: {
        "picture_ms": "ms a picture",
        "peak_gib": "peak GiB",
        "rate_share": "share of the rate",
        "error": "error",
    },
    AROUND: {"measured": "measured"},
}
TITLES: Final[Mapping[str, str]] = {
    PICTURES: "pictures",
    CALLS: "one network call",
    DECODING: "decoding one picture",
    AROUND: "around it",
}


@dataclass(frozen=True)
class Row:
    """``rank``: rows of a lower one are measured first. ``about_s``: what it takes on a card of today, at a guess."""

    part: str
    name: str
    rank: int
    about_s: float
    measure: Callable[[Bench], Figures]


def picture_rows() -> list[Row]:
    def row(name: str, rank: int, about_s: float, painter: str, mode: Mode, count: int = 1) -> Row:
        return Row(
            PICTURES, name, rank, about_s, partial(picture_figures, lambda bench: getattr(bench, painter), mode, count)
        )

    return [
        row("30 steps, diffusers", 3, 25, "theirs", USUAL),
        row("30 steps, diffusers compiled", 13, 100, "theirs_compiled", USUAL),
        row("30 steps, fooocusapi not compiled", 1, 20, "ours", USUAL),
        row("30 steps, fooocusapi", 2, 100, "ours_compiled", USUAL),
        row("30 steps, 4 pictures, diffusers", 5, 70, "theirs", USUAL, 4),
        row("30 steps, 4 pictures, diffusers compiled", 15, 110, "theirs_compiled", USUAL, 4),
        row("30 steps, 4 pictures, fooocusapi not compiled", 12, 60, "ours", USUAL, 4),
        row("30 steps, 4 pictures, fooocusapi", 4, 110, "ours_compiled", USUAL, 4),
        row("4 steps, diffusers", 11, 5, "theirs", FOUR),
        row("4 steps, fooocusapi not compiled", 11, 5, "ours", FOUR),
        row("4 steps, fooocusapi", 9, 60, "ours_compiled", FOUR),
        row("8 steps, diffusers", 11, 6, "theirs", EIGHT),
        row("8 steps, fooocusapi not compiled", 11, 6, "ours", EIGHT),
        row("8 steps, fooocusapi", 10, 60, "ours_compiled", EIGHT),
    ]


def call_rows() -> list[Row]:
    def row(name: str, rank: int, about_s: float, made: Callable[[Bench], AbstractContextManager[Call]]) -> Row:
        return Row(CALLS, name, rank, about_s, partial(call_figures, made))

    attention = [
        row(f"{name} attention", 7, 6, partial(eager_call, around=partial(sdpa_kernel, back_end)))
        for name, back_end in BACK_ENDS.items()
    ]
    return [
        row("straight pass", 7, 6, eager_call),
        *attention,
        row("convolutions tried out", 8, 12, partial(eager_call, around=tried_convolutions)),
        row("channels last", 7, 8, partial(channels_last_call, is_compiled=False)),
        row("recorded", 12, 8, partial(recorded_call, painter=lambda bench: bench.ours)),
        row("compiled", 8, 6, compiled_call),
        row("compiled, recorded", 12, 8, partial(recorded_call, painter=lambda bench: bench.ours_compiled)),
        row("compiled, channels last", 14, 130, partial(channels_last_call, is_compiled=True)),
        row("compiled, kernels tried out", 16, 200, partial(compiled_call, mode="max-autotune-no-cudagraphs")),
    ]


def decoding_rows() -> list[Row]:
    def row(name: str, rank: int, about_s: float, *, is_compiled: bool = False, channels_last: bool = False) -> Row:
        measured = partial(decoding_figures, is_compiled=is_compiled, channels_last=channels_last)
        return Row(DECODING, name, rank, about_s, measured)

    return [
        row("as it is", 6, 6),
        row("channels last", 6, 6, channels_last=True),
        row("compiled", 6, 45, is_compiled=True),
        row("compiled, channels last", 11, 45, is_compiled=True, channels_last=True),
    ]


def around_rows() -> list[Row]:
    def row(name: str, rank: int, about_s: float, measure: Callable[[Bench], Figures]) -> Row:
        return Row(AROUND, name, rank, about_s, measure)

    return [
        row("rate of a product in float16", 0, 3, partial(rate_figures, torch.float16)),
        row("the same in bfloat16", 0, 3, partial(rate_figures, torch.bfloat16)),
        row("waits for the card between steps", 2, 6, waiting_figures),
        row("sharpness", 7, 15, partial(cost_figures, sharpness=USUAL_SHARPNESS)),
        row("previews of every step", 7, 15, preview_figures),
        row("PNG, on the processor", 7, 3, png_figures),
    ]


ROWS: Final = (*picture_rows(), *call_rows(), *decoding_rows(), *around_rows())
"""In the order of the tables."""


@dataclass(frozen=True)
class Measured:
    """One row's figures, or why there are none."""

    figures: Figures | None
    remark: str = ""


Results = dict[Row, Measured]
Tell = Callable[[Results], None]


def measure(
    rows: Sequence[Row], settings: Settings, tell: Tell, started_s: float, known: Results | None = None
) -> Results:
    """All rows that time allows, by rank, but for those that are ``known``; ``tell`` hears of each.

    A row that fails says why, and the next follows.
    """
    bench = Bench(settings)
    results: Results = dict(known or {})
    for row in sorted(rows, key=lambda row: row.rank):
        if row in results or (settings.parts and row.part not in settings.parts):
            continue
        left_s = settings.budget_s - (time.perf_counter() - started_s)
        if left_s < (row.about_s if bench.has_card else 0):
            continue
        results[row] = _measured(row, bench)
        tell(results)
    return results


def _measured(row: Row, bench: Bench) -> Measured:
    try:
        bench.begin_row()
        return Measured(row.measure(bench))
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        return Measured(None, f"{type(error).__name__}: {reason[0]}"[:200])


# --- the report ---------------------------------------------------------------------------------------------------


def rows_of(part: str) -> list[Row]:
    """One table's."""
    return [row for row in ROWS if row.part == part]


def cells(row: Row, results: Results) -> list[str]:
    """What the columns of a row's part say of it."""
    columns = COLUMNS[row.part]
    found = results.get(row)
    if found is None or found.figures is None:
        said = NOT_MEASURED if found is None else f"failed: {found.remark}"
        return [said, *[""] * (len(columns) - 1)]
    return [_cell(key, found.figures[key]) for key in columns]


def _cell(key: str, value: float | str | None) -> str:
    if isinstance(value, str):
        return value
    if value is not None and key == "rate_share":
        return f"{100 * value:.0f} %"
    if value is not None and key == "error":
        return f"{value:.1e}"
    return shown(value)


def as_markdown(results: Results, said: str) -> str:
    """The tables of the documentation."""
    lines = [f"{said}:"]
    for part, columns in COLUMNS.items():
        head = f"| {' | '.join([TITLES[part], *columns.values()])} |"
        lines += ["", head, f"|---|{'---:|' * len(columns)}"]
        lines += [f"| {' | '.join([row.name, *_escaped(row, results)])} |" for row in rows_of(part)]
    return "\n".join(lines)


def _escaped(row: Row, results: Results) -> list[str]:
    return [cell.replace("|", "\\|") for cell in cells(row, results)]


def as_json(results: Results, said: str) -> str:
    """The raw figures of what was measured, in that order."""
    rows = [
        {"part": row.part, "name": row.name, "figures": found.figures, "remark": found.remark}
        for row, found in results.items()
    ]
    return json.dumps({"conditions": said, "rows": rows}, indent=2) + "\n"


def from_json(stored: str, said: str) -> Results:
    """What an earlier run has measured under the same conditions; what failed then is left out."""
    content = json.loads(stored)
    if content["conditions"] != said:
        return {}
    known = {(row["part"], row["name"]): row["figures"] for row in content["rows"] if row["figures"] is not None}
    return {row: Measured(known[row.part, row.name]) for row in ROWS if (row.part, row.name) in known}


def print_report(results: Results, said: str) -> None:
    """The tables for people at a terminal."""
    console = Console(width=140)
    console.print(said)
    for part, columns in COLUMNS.items():
        table = Table(TITLES[part], *columns.values())
        for row in rows_of(part):
            table.add_row(row.name, *cells(row, results))
        console.print(table)


def conditions(settings: Settings) -> str:
    """What the figures were taken with, in a line."""
    is_real = settings.most_steps is None
    card = torch.cuda.get_device_name() if settings.device == "cuda" and torch.cuda.is_available() else "no CUDA card"
    what = f"medians of {settings.runs}" if is_real else "tiny networks, which say nothing about speed"
    return f"{card}; {machine()}; {what}; {versions(PACKAGES)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write page and file after every row."""
    started_s = time.perf_counter()
    given = _arguments(arguments)
    settings = _settings(given)
    said = conditions(settings)

    def write(results: Results) -> None:
        if given.markdown:
            write_section(given.markdown, SECTION, as_markdown(results, said), SCRIPT)
        if given.json:
            given.json.write_text(as_json(results, said), encoding="utf-8")

    def tell(results: Results) -> None:
        row, found = list(results.items())[-1]
        taken_s = time.perf_counter() - started_s
        print(f"{taken_s:6.0f} s  {row.part}, {row.name}: {found.remark or _in_line(found)}", flush=True)  # noqa: T201
        write(results)

    if settings.device == "cuda" and not torch.cuda.is_available():
        if given.markdown:
            write_section(given.markdown, SECTION, as_markdown({}, said), SCRIPT)
        raise SystemExit(NO_CARD)
    torch._dynamo.config.recompile_limit = MOST_FORMS
    torch.backends.cudnn.allow_tf32 = False  # the float32 that errors are told against is to be one
    known: Results = {}
    if given.go_on and given.json and given.json.exists():
        known = from_json(given.json.read_text(encoding="utf-8"), said)
    print_report(measure(ROWS, settings, tell, started_s, known), said)


def _in_line(found: Measured) -> str:
    return ", ".join(f"{key} {_cell(key, value)}" for key, value in (found.figures or {}).items())


def _settings(given: argparse.Namespace) -> Settings:
    if not given.tiny:
        return Settings(published(), "cuda", given.runs, given.budget_s, given.compiler, parts=given.parts)
    return Settings(
        tiny(), "cpu", given.runs, given.budget_s, given.compiler, most_steps=2, matrix_side=64, parts=given.parts
    )


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="how often each figure is taken")
    parser.add_argument("--budget-s", type=float, default=540, help="rows that would end later are left out")
    parser.add_argument("--parts", nargs="*", choices=tuple(COLUMNS), default=(), help="these tables alone")
    parser.add_argument(
        "--go-on", action="store_true", help="leave out what the file of --json has from an earlier run"
    )
    parser.add_argument("--compiler", default="inductor", help="the back end of torch.compile")
    parser.add_argument("--tiny", action="store_true", help="small networks on the CPU: whether everything runs")
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="put the tables between the marks of this page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
