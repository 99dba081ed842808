"""The order of seeds, LoRAs and texts over the pictures of a request."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fooocus_core.metadata.describe import EXPANSION_SKIPPED, describe_image
from fooocus_core.plan import Diffuse, Lora, Models, Prompts
from fooocus_core.prompts.styles import Style, StyleBook
from fooocus_core.prompts.tasks import prepare_stage, prepare_tasks
from fooocus_core.prompts.wildcards import Wildcards

NO_WORDS = Wildcards(())
BOOK = StyleBook([Style("Plain", "{prompt}, plainly", "ornate")])


def _stage(**fields: object) -> Diffuse:
    values: dict[str, object] = {
        "models": Models("base.safetensors"),
        "prompts": Prompts("a boat", "ugly", ("Fooocus V2", "Plain")),
        "width_px": 512,
        "height_px": 640,
        "seed": 7,
        "image_number": 2,
    }
    return Diffuse(**{**values, **fields})  # type: ignore[arg-type]


@given(
    prompt=st.text(max_size=60),
    negative=st.text(max_size=60),
    styles=st.lists(st.sampled_from(["Plain", "Random Style", "Fooocus V2", "Nope"]), max_size=4),
    seed=st.integers(0, 2**63 - 1),
    count=st.integers(1, 4),
    increment=st.booleans(),
)
def test_any_prompt_gives_complete_tasks(
    prompt: str, negative: str, styles: list[str], seed: int, count: int, increment: bool
) -> None:
    tasks = prepare_tasks(
        Prompts(prompt, negative, tuple(styles)),
        seed=seed,
        image_number=count,
        seed_increment=increment,
        styles=BOOK,
        wildcards=NO_WORDS,
    )
    assert [task.seed for task in tasks] == [(seed + index * increment) % 2**63 for index in range(count)]
    for task in tasks:
        assert len(task.positive) == task.positive_top_k >= 1
        assert len(task.negative) == task.negative_top_k >= 1
        assert not task.is_expanded


def test_the_expansion_is_noted_and_run_only_where_there_is_one() -> None:
    without, _ = prepare_stage(_stage(), BOOK, NO_WORDS, [])
    assert (without.use_expansion, without.is_expanded, without.expansion) == (True, False, "")
    assert without.lacks_expansion
    assert prepare_stage(_stage(), BOOK, NO_WORDS, [], expand=lambda prompt, seed: None)[0] == without
    first, second = prepare_stage(_stage(), BOOK, NO_WORDS, [], expand=lambda prompt, seed: f"{prompt} {seed}")
    assert first.positive == ("a boat, plainly", "a boat 7")
    assert not first.lacks_expansion
    assert second.positive == ("a boat, plainly", "a boat 8")
    assert first.positive_top_k == 1


def test_the_mode_s_lora_comes_last_does_not_count_and_needs_its_file() -> None:
    models = Models("base.safetensors", loras=(Lora("own.safetensors", 0.3),), performance_lora=Lora("fast.st", 1.0))
    stage = _stage(models=models, prompts=Prompts("a <lora:ink:0.5> <lora:fast:2> boat", max_loras=2))
    names = ["ink.safetensors", "sub/fast.st", "own.safetensors"]
    assert prepare_stage(stage, BOOK, NO_WORDS, names)[0].loras == (
        Lora("own.safetensors", 0.3),
        Lora("ink.safetensors", 0.5),
        Lora("sub/fast.st", 1.0),
    )
    assert Lora("fast.st", 1.0) not in prepare_stage(stage, BOOK, NO_WORDS, names[:1])[0].loras


def test_the_record_of_a_picture_tells_what_was_encoded() -> None:
    stage = _stage(models=Models("base.safetensors", loras=(Lora("own.safetensors", 0.3),)))
    _, task = prepare_stage(stage, BOOK, NO_WORDS, [], expand=lambda prompt, seed: "more")
    record = describe_image(stage, task, checkpoint_hash="aa", lora_hash=lambda name: name[:3])
    assert record.seed == 8
    assert record.full_prompt == ("a boat, plainly", "more")
    assert record.full_negative_prompt == ("ornate", "ugly")
    assert record.styles == ("Fooocus V2", "Plain")
    assert (record.prompt, record.negative_prompt) == ("a boat", "ugly")
    assert [(lora.name, lora.file_hash) for lora in record.loras if lora] == [("own.safetensors", "own")]
    assert (record.width_px, record.height_px, record.checkpoint_hash) == (512, 640, "aa")


def test_the_record_tells_of_an_expansion_that_was_skipped() -> None:
    skipped = describe_image(_stage(), prepare_stage(_stage(), BOOK, NO_WORDS, [])[0])
    assert skipped.prompt_expansion == EXPANSION_SKIPPED
    assert skipped.styles == ("Plain",)
    plain = _stage(prompts=Prompts("a boat", styles=("Plain",)))
    assert describe_image(plain, prepare_stage(plain, BOOK, NO_WORDS, [])[0]).prompt_expansion == ""


def test_edited_words_count_from_the_next_job_on(tmp_path: Path) -> None:
    words = Wildcards((tmp_path,))
    stage = _stage(prompts=Prompts("a __boat__"))
    for word in ("raft", "ship"):
        (tmp_path / "boat.txt").write_text(word, encoding="utf-8")
        assert prepare_stage(stage, BOOK, words, [])[0].prompt == f"a {word}"


def test_texts_of_the_web_uis_kind_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "boat.txt").write_text("raft", encoding="utf-8")
    prompt = "a __boat__, [[red, blue]]\n<lora:fast:1>"
    mode_lora = Lora("mode.st", 0.5)
    stage = _stage(
        models=Models("base.safetensors", loras=(Lora("own.st", 0.3),) * 6, performance_lora=mode_lora),
        prompts=Prompts(prompt, "", ("Plain", "Fooocus V2"), syntax="web_ui"),
        seed=2**32 - 1,
        seed_count=2**32,
    )
    tasks = prepare_stage(stage, BOOK, Wildcards((tmp_path,)), ["fast.st", "mode.st"], lambda prompt, seed: "more")
    assert [task.seed for task in tasks] == [2**32 - 1, 0]
    for task in tasks:
        assert (task.positive, task.negative, task.styles, task.expansion) == ((prompt,), ("",), (), "")
        assert task.loras == (Lora("own.st", 0.3),) * 6 + (mode_lora,)
