"""What a second job of the same kind costs: its steps, and nothing of what was loaded, merged or read for the first."""

from __future__ import annotations

import builtins
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fooocus_core.events import Finished, ImageFinished, Progress
from fooocus_core.library import POCKET_NAME
from fooocus_core.models import checkpoint
from fooocus_core.models.loaded import PREVIEW_FILE, LoadedModel
from fooocus_core.models.preview import PreviewNetwork, _Convolutions
from fooocus_core.models.text_encoders import ClipTextEncoder
from fooocus_core.plan import Lora, Plan, Prompts
from fooocus_core.prompts.expansion import PromptExpansion
from tests.fooocus_core.prompts.expansion_folder import write_expansion_folder
from tests.fooocus_core.stages.rendering import Studio


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """With all that a job can need from disk: a LoRA, an embedding, a preview network, the prompt expansion."""
    studio = Studio(tmp_path_factory.mktemp("second"))
    for folder in ("loras", "embeddings", "vae_approx"):
        (studio.root / folder).mkdir()
    torch.save(_Convolutions().state_dict(), studio.root / "vae_approx" / PREVIEW_FILE)
    write_expansion_folder(studio.root / "expansion")
    studio.engine.expansion = PromptExpansion(studio.root / "expansion")
    model = base_of(studio)
    model.sidecar = replace(model.sidecar, preview=None)
    vectors = {key: torch.ones(2, width) for key, width in (("clip_l", model.text.l.width), ("clip_g", 4))}
    save_file(vectors, studio.root / "embeddings" / "fruit.safetensors")
    write_lora(studio.root / "loras" / "all.safetensors", model)
    return studio


def base_of(studio: Studio) -> LoadedModel:
    return studio.engine.models.checkpoint(studio.plan().stages[0].models)


def write_lora(path: Path, model: LoadedModel) -> None:
    """A change of one weight of each network."""
    key = next(key for key in model.network.parameter_names if key.endswith("attn1.to_q.weight"))
    modules = {
        "lora_unet_" + key.removesuffix(".weight").replace(".", "_"): model.network.originals[
            model.network.parameter_names[key]
        ]
    }
    for number, text in ((1, model.text.l), (2, model.text.g)):
        weight = text.originals["encoder.layers.0.self_attn.q_proj.weight"]
        modules[f"lora_te{number}_text_model_encoder_layers_0_self_attn_q_proj"] = weight
    save_file({f"{module}.diff": 0.5 * weight.float() for module, weight in modules.items()}, path)


def everything(studio: Studio, prompt: str = "a red embedding:fruit, icon", image_number: int = 1) -> Plan:
    plan = studio.plan(loras=[Lora("all.safetensors", 0.5)])
    (stage,) = plan.stages
    models = replace(stage.models, refiner=POCKET_NAME)
    prompts = Prompts(prompt, negative_prompt="blurry", styles=("Fooocus V2",))
    stage = replace(stage, models=models, prompts=prompts, image_number=image_number)
    return replace(plan, stages=(stage,), output=replace(plan.output, preview=True))


def pictures(studio: Studio, plan: Plan) -> list[np.ndarray]:
    events = list(studio.engine.run(plan, lambda: False))
    assert events[-1] == Finished()
    assert any(isinstance(event, Progress) and event.preview is not None for event in events)
    return [event.pixels for event in events if isinstance(event, ImageFinished)]


def modules_of(studio: Studio) -> Iterator[nn.Module]:
    model, store, expansion = base_of(studio), studio.engine.models, studio.engine.expansion
    yield from (model.network.unet, model.text.l.model, model.text.g.model, model.autoencoder.network)
    assert isinstance(model.preview, PreviewNetwork)
    yield model.preview._network
    assert store._refiner is not None
    yield store._refiner[1].network.unet
    assert expansion is not None
    assert expansion._model is not None
    yield expansion._model.network


def weights_of(studio: Studio) -> list[tuple[int, int, int]]:
    """Which parameters there are, where they lie and how often each was changed in place."""
    return [
        (id(weight), weight.data_ptr(), weight._version)
        for module in modules_of(studio)
        for weight in module.parameters()
    ]


def test_a_second_job_opens_no_file_and_touches_no_weight(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pictures(studio, everything(studio))
    before = weights_of(studio)
    opened: list[str] = []

    def noted(owner: Any, name: str) -> None:
        plain = getattr(owner, name)

        def call(file: Any, *rest: Any, **named: Any) -> Any:
            opened.append(str(file))
            return plain(file, *rest, **named)

        monkeypatch.setattr(owner, name, call)

    # Every weight file goes through one of the last two; the first two are all that Python itself opens.
    for owner, name in (
        (builtins, "open"),
        (io, "open"),
        (checkpoint, "_open_safetensors"),
        (checkpoint, "_unpickled"),
    ):
        noted(owner, name)
    second = pictures(studio, everything(studio))
    assert opened == []
    assert weights_of(studio) == before
    assert all(map(np.array_equal, first, second))
    studio.engine.unload()
    pictures(studio, everything(studio))
    names = {Path(file).name for file in opened}
    assert {POCKET_NAME, "all.safetensors", "fruit.safetensors", "positive.txt"} <= names


def test_texts_are_encoded_once_for_all_pictures_of_all_jobs(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[ClipTextEncoder] = []
    plain = ClipTextEncoder.encode

    def counted(encoder: ClipTextEncoder, *arguments: Any) -> Any:
        calls.append(encoder)
        return plain(encoder, *arguments)

    monkeypatch.setattr(ClipTextEncoder, "encode", counted)

    def encodings(prompt: str, image_number: int, loras: tuple[Lora, ...] = ()) -> int:
        calls.clear()
        plan = studio.plan(loras=loras)
        prompts = Prompts(prompt, negative_prompt="blurry")
        (stage,) = plan.stages
        studio.finished(replace(plan, stages=(replace(stage, prompts=prompts, image_number=image_number),)))
        return len(calls)

    assert encodings("a red apple", 2) == 4  # positive and negative by both encoders
    assert encodings("a red apple", 1) == 0
    assert encodings("a green apple", 1) == 2
    assert encodings("a red apple", 1, (Lora("all.safetensors", 0.5),)) == 4
    assert encodings("a red apple", 1, (Lora("all.safetensors", 0.5),)) == 0
    assert encodings("a red apple", 1) == 4
