"""Under which names LoRA files address the weights (specification 08, section 4.1).

Parameters are called as in single files: ``diffusion_model.out.2.weight``, ``clip_l.transformer.text_model.…``,
``clip_g.transformer.text_model.…``, ``clip_g.text_projection``. The order of a table matters: where a file names one
parameter in several ways, the last of them wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

UNET = "diffusion_model."
TEXT_MODELS = {"l": "clip_l.transformer.text_model.", "g": "clip_g.transformer.text_model."}
TEXT_PROJECTION = "clip_g.text_projection"
_WEIGHT = ".weight"
_TEXT_MODULES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")
_TEXT_PREFIXES = {"l": (("lora_te", "lora_te1"), "text_encoder."), "g": (("lora_te2",), "text_encoder_2.")}


def unet_module_names(diffusers_names: Mapping[str, str]) -> dict[str, str]:
    """Every recognised name of a UNet module to the parameter it means.

    ``diffusers_names``: ldm key (``input_blocks.0.0.weight``) to diffusers key (``conv_in.weight``), for all keys.
    """
    names: dict[str, str] = {}
    weights = [(ldm, name) for ldm, name in diffusers_names.items() if ldm.endswith(_WEIGHT)]
    for ldm, _ in weights:
        names["lora_unet_" + _flat(ldm.removesuffix(_WEIGHT))] = UNET + ldm
    for ldm, name in weights:
        for module in _spellings(name.removesuffix(_WEIGHT)):
            names["lora_unet_" + _flat(module)] = UNET + ldm
            processor = _processor_path(module)
            names[processor] = names["unet." + processor] = UNET + ldm
    return names | {UNET + ldm: UNET + ldm for ldm in diffusers_names}


def _spellings(module: str) -> Iterator[str]:
    """The added condition's MLP has two names in diffusers, by how a network was configured."""
    yield module
    if module.startswith("class_embedding."):
        yield module.replace("class_embedding.", "add_embedding.")


def _processor_path(module: str) -> str:
    path = module.replace(".to_", ".processor.to_")
    return path.removesuffix(".0") if path.endswith(".to_out.0") else path


def text_module_names(encoder: str, parameters: Iterable[str]) -> dict[str, str]:
    """Every recognised name of a text encoder's module (``encoder``: ``l`` or ``g``) to the parameter it means.

    ``parameters``: keys in transformers' names, ``text_projection`` among bigG's.
    """
    names: dict[str, str] = {}
    known = list(parameters)
    flat_prefixes, dotted_prefix = _TEXT_PREFIXES[encoder]
    layers = [key.removesuffix(_WEIGHT) for key in known if key.removesuffix(_WEIGHT).endswith(_TEXT_MODULES)]
    layers = [module for module in layers if not module.endswith(".bias")]
    for prefix in flat_prefixes:
        names |= {f"{prefix}_text_model_{_flat(module)}": _parameter(encoder, module + _WEIGHT) for module in layers}
    names |= {f"{dotted_prefix}text_model.{module}": _parameter(encoder, module + _WEIGHT) for module in layers}
    return names | {_parameter(encoder, key): _parameter(encoder, key) for key in known}


def _parameter(encoder: str, key: str) -> str:
    return TEXT_PROJECTION if key == "text_projection" else TEXT_MODELS[encoder] + key


def _flat(module: str) -> str:
    return module.replace(".", "_")
