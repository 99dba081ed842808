"""From the texts of a request to what is encoded for each picture (specification 01, sections 4 to 7)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from fooocus_core.metadata.record import EXPANSION_STYLE
from fooocus_core.plan import Diffuse, Lora, Prompts
from fooocus_core.prompts.arrays import pick_from_arrays
from fooocus_core.prompts.lines import PromptLines, split_lines
from fooocus_core.prompts.lora_tags import find_by_stem, lora_candidates, merge_loras, take_lora_tags
from fooocus_core.prompts.styles import Style, StyleBook
from fooocus_core.prompts.wildcards import Wildcards, fill_wildcards

SEED_COUNT: Final = 2**63
"""Where the seeds of pictures wrap, unless something else is asked for."""

Expand = Callable[[str, int], str | None]
"""The prompt expansion: from a picture's main prompt and seed to a longer text; ``None`` where it cannot be had."""


@dataclass(frozen=True)
class PromptTask:
    """The resolved texts of one picture."""

    seed: int
    prompt: str
    """The main line after wildcards and arrays, without style texts."""
    positive: tuple[str, ...]
    """Encoded one by one and joined; never empty."""
    negative: tuple[str, ...]
    positive_top_k: int
    """How many of the first texts' pooled vectors are summed; the expansion's is not."""
    negative_top_k: int
    logged_prompt: str
    logged_negative_prompt: str
    styles: tuple[str, ...]
    """The styles that took part, drawn ones by their real names."""
    use_expansion: bool
    """Whether the expansion was asked for and there was a prompt to expand."""
    expansion: str
    """What the expansion wrote; empty without one."""
    loras: tuple[Lora, ...]
    """In the order in which they are merged, the performance mode's last; the same for all pictures of a request."""

    @property
    def is_expanded(self) -> bool:
        """Whether the expansion ran; its text, which may be empty, is then the last of the positive ones."""
        return len(self.positive) > self.positive_top_k

    @property
    def lacks_expansion(self) -> bool:
        """Whether the expansion was asked for but could not be had."""
        return self.use_expansion and not self.is_expanded


def prepare_tasks(
    prompts: Prompts,
    *,
    seed: int,
    image_number: int,
    seed_increment: bool,
    styles: StyleBook,
    wildcards: Wildcards,
    loras: Sequence[Lora] = (),
    performance_lora: Lora | None = None,
    lora_names: Sequence[str] = (),
    expand: Expand | None = None,
    seed_count: int = SEED_COUNT,
) -> list[PromptTask]:
    """One task for each picture; its seeds wrap at ``seed_count``.

    ``loras`` are the request's, ``lora_names`` the library's files, which tags in the prompt may name and among which
    the performance mode's LoRA must be to take part. Without ``expand`` the expansion is noted but not run.
    """
    if prompts.syntax == "web_ui":
        merged = (*loras, *_on_disk(performance_lora, lora_names))
        seeds = _seeds(seed, image_number, seed_increment=seed_increment, seed_count=seed_count)
        return [_plain_task(prompts, each, merged) for each in seeds]
    main, extra = split_lines(prompts.prompt)
    tagged = take_lora_tags(main, find_by_stem(lora_candidates(lora_names, performance_lora)))
    merged = merge_loras(loras, tagged.loras, prompts.max_loras)
    texts = _Texts(
        positive=PromptLines(tagged.prompt, extra),
        negative=split_lines(prompts.negative_prompt),
        styles=tuple(name for name in prompts.styles if name != EXPANSION_STYLE),
        use_expansion=EXPANSION_STYLE in prompts.styles and main != "",
        in_order=prompts.read_wildcards_in_order,
        loras=merged + _on_disk(performance_lora, lora_names),
    )
    words = wildcards.reread()
    seeds = _seeds(seed, image_number, seed_increment=seed_increment, seed_count=seed_count)
    return [_prepare_task(texts, index, each, styles, words, expand) for index, each in enumerate(seeds)]


def prepare_stage(
    stage: Diffuse,
    styles: StyleBook,
    wildcards: Wildcards,
    lora_names: Sequence[str],
    expand: Expand | None = None,
) -> list[PromptTask]:
    """The tasks of a text-to-image stage."""
    return prepare_tasks(
        stage.prompts,
        seed=stage.seed,
        image_number=stage.image_number,
        seed_increment=stage.seed_increment,
        styles=styles,
        wildcards=wildcards,
        loras=stage.models.loras,
        performance_lora=stage.models.performance_lora,
        lora_names=lora_names,
        expand=expand,
        seed_count=stage.seed_count,
    )


def lora_tags(prompts: Prompts) -> tuple[Lora, ...]:
    """What the tags of a prompt name, under the names that they write, on disk or not."""
    if prompts.syntax == "web_ui":
        return ()
    main, _ = split_lines(prompts.prompt)
    return take_lora_tags(main, str).loras


def _seeds(first: int, count: int, *, seed_increment: bool, seed_count: int) -> list[int]:
    return [(first + index * seed_increment) % seed_count for index in range(count)]


def _plain_task(prompts: Prompts, seed: int, loras: tuple[Lora, ...]) -> PromptTask:
    """Both texts as they are."""
    return PromptTask(
        seed=seed,
        prompt=prompts.prompt,
        positive=(prompts.prompt,),
        negative=(prompts.negative_prompt,),
        positive_top_k=1,
        negative_top_k=1,
        logged_prompt=prompts.prompt,
        logged_negative_prompt=prompts.negative_prompt,
        styles=(),
        use_expansion=False,
        expansion="",
        loras=loras,
    )


class _Texts(NamedTuple):
    """What all pictures of a request have in common."""

    positive: PromptLines
    negative: PromptLines
    styles: tuple[str, ...]
    use_expansion: bool
    in_order: bool
    loras: tuple[Lora, ...]


def _prepare_task(
    texts: _Texts, index: int, seed: int, book: StyleBook, wildcards: Wildcards, expand: Expand | None
) -> PromptTask:
    # One generator for everything, drawn from in this order: the same seed has to give the same words.
    rng = random.Random(seed)

    def fill(text: str) -> str:
        return fill_wildcards(text, wildcards, rng, index, texts.in_order)

    prompt = pick_from_arrays(fill(texts.positive.main), index)
    negative_prompt = fill(texts.negative.main)
    extra = [fill(text) for text in texts.positive.extra]
    negative_extra = [fill(text) for text in texts.negative.extra]
    styles = book.choose(texts.styles, rng)

    positive = _positive_texts(prompt, extra, styles)
    negative = _negative_texts(negative_prompt, negative_extra, styles)
    expansion = expand(prompt, seed) if texts.use_expansion and expand is not None else None
    return PromptTask(
        seed=seed,
        prompt=prompt,
        positive=positive if expansion is None else (*positive, expansion),
        negative=negative,
        positive_top_k=len(positive),
        negative_top_k=len(negative),
        logged_prompt="\n".join([prompt, *extra]),
        logged_negative_prompt="\n".join([negative_prompt, *negative_extra]),
        styles=tuple(style.name for style in styles),
        use_expansion=texts.use_expansion,
        expansion=expansion or "",
        loras=texts.loras,
    )


def _positive_texts(prompt: str, extra: Sequence[str], styles: Sequence[Style]) -> tuple[str, ...]:
    """The styled prompts, then the extra lines; the bare prompt first where no style holds it."""
    styled = [style.apply(prompt) for style in styles]
    texts = [text for each in styled for text in each.positive]
    if not any(each.holds_prompt for each in styled):
        texts.insert(0, prompt)
    return tuple(text for text in (*texts, *extra) if text) or (prompt,)


def _negative_texts(prompt: str, extra: Sequence[str], styles: Sequence[Style]) -> tuple[str, ...]:
    """The styles' texts, then the request's own main line, then its extra lines."""
    texts = [text for style in styles for text in style.apply(prompt).negative]
    return tuple(text for text in (*texts, prompt, *extra) if text) or (prompt,)


def _on_disk(lora: Lora | None, names: Sequence[str]) -> tuple[Lora, ...]:
    """The performance mode's LoRA by its listed name; nothing if it is not on disk."""
    if lora is None:
        return ()
    wanted = PurePosixPath(lora.name).name
    listed = next((name for name in names if PurePosixPath(name).name == wanted), None)
    return () if listed is None else (Lora(listed, lora.weight),)
