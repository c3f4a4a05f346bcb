"""CLIP's weights and architecture from a local checkpoint, in open_clip's or transformers' format.

OpenAI trained CLIP with QuickGELU, x sigmoid(1.702 x), instead of GELU. Weights say nothing of it: put into an
architecture with the other activation they load without a word and give wrong features. So a checkpoint is
refused unless the activation of the architecture is the one that its configuration states, and a bare file of
weights, which states nothing, is taken only by an architecture with QuickGELU.
"""

import json
import re
from pathlib import Path

import torch

from ..errors import InputError
from ..hashes import sha256_of
from ..torchvision_cpu import import_torchvision

_CONFIGURATIONS = ("config.json", "open_clip_config.json")
_WEIGHTS = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")

# transformers -> open_clip, with the text tower under "text."
_RENAME = (
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"^text_model\.embeddings\.token_embedding\.", "text.token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "text.positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "text.ln_final."),
    (r"^text_model\.encoder\.layers\.", "text.transformer.resblocks."),
    (r"^visual_projection\.weight$", "visual.proj"),
    (r"^text_projection\.weight$", "text.text_projection"),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)


def architecture_config(architecture):
    """open_clip's configuration of a named architecture, or of a JSON file.

    Raises InputError if it is unknown, no configuration, or of a model with another tokenizer than CLIP's.
    """
    import_torchvision()  # open_clip imports it
    import open_clip

    if Path(architecture).suffix == ".json":
        config = _read_json(Path(architecture))
    else:
        config = open_clip.get_model_config(architecture)
    if config is None:
        raise InputError(f"Architecture {architecture!r} is unknown to open_clip; for CLIP use ViT-B-16-quickgelu.")
    if not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
        raise InputError(
            f"{architecture} lacks embed_dim, vision_cfg or text_cfg; give open_clip's JSON of a model."
        )
    tokenizer = config["text_cfg"].get("hf_tokenizer_name")
    if tokenizer:
        raise InputError(f"{architecture} takes the tokens of {tokenizer}, and only CLIP's are known here.")
    return config


def _read_json(path):
    """The object in a JSON file; raises InputError where there is none."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as JSON ({error}); expected the configuration of a model."
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object; expected the configuration of a model.")
    return content


def read_checkpoint(path, sha256=""):
    """Weights and what states their activation, from a file, or a folder as transformers saves it.

    Returns (state dict with open_clip's names, text tower under "text."; True, False or None for QuickGELU, GELU
    or not stated; SHA-256 of the weights). Raises InputError for a missing, foreign or altered file.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        path = next((path / name for name in _WEIGHTS if (path / name).exists()), path / _WEIGHTS[0])
    if not path.exists():
        raise InputError(f"Checkpoint {path} does not exist; give a file of CLIP weights, or a folder with one.")
    digest = sha256_of(path)
    if sha256 and digest != sha256.lower():
        raise InputError(f"{path} has SHA-256 {digest}, expected {sha256}; fetch it again.")
    state = _load(path)
    if any(name.startswith("vision_model.") for name in state):
        state = _from_transformers(state)
    import_torchvision()
    from open_clip.model import convert_to_custom_text_state_dict

    return convert_to_custom_text_state_dict(state), _stated_quick_gelu(folder), digest


def _load(path):
    """The tensors of a file of weights, by name."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # (each format fails in its own way, all mean the same to a user)
        raise InputError(
            f"{path} cannot be read as weights ({type(error).__name__}); expected a state dict saved by open_clip "
            "or transformers (of OpenAI's own TorchScript files, save the state_dict first)."
        ) from None
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    state = {str(name).removeprefix("module."): value for name, value in state.items() if torch.is_tensor(value)}
    if not any(name.startswith(("visual.", "vision_model.")) for name in state):
        raise InputError(f"{path} holds no CLIP: no weight is named visual.* (open_clip) or vision_model.*.")
    return state


def _from_transformers(state):
    """Names and layouts of open_clip for a state dict of transformers' CLIPModel."""
    converted, attention = {}, {}
    for name, value in state.items():
        if name.endswith("position_ids"):
            continue
        if name in ("visual_projection.weight", "text_projection.weight"):
            value = value.T
        for pattern, new in _RENAME:
            name = re.sub(pattern, new, name)
        parts = re.match(r"(.*)\.self_attn\.([qkv])_proj\.(weight|bias)$", name)
        if parts:
            attention.setdefault(f"{parts[1]}.attn.in_proj_{parts[3]}", {})[parts[2]] = value
        else:
            converted[name] = value
    return converted | {name: torch.cat([part[k] for k in "qkv"]) for name, part in attention.items()}


def _stated_quick_gelu(folder):
    """Whether a configuration in the folder states QuickGELU (True) or another activation; None without one."""
    for name in _CONFIGURATIONS:
        if (folder / name).exists():
            config = _read_json(folder / name)
            if "vision_config" in config:
                # transformers leaves out what is its default: CLIP's activation is quick_gelu
                return config["vision_config"].get("hidden_act", "quick_gelu") == "quick_gelu"
            if "model_cfg" in config:
                return bool(config["model_cfg"].get("quick_gelu", False))
    return None


def check_activation(stated, config, checkpoint, architecture):
    """Refuse a checkpoint whose stated activation is not the architecture's (see the head of this module)."""
    has = bool(config.get("quick_gelu", False))
    if stated is None and not has:
        raise InputError(
            f"{checkpoint} does not state its activation and {architecture} uses GELU, but OpenAI's CLIP needs "
            "QuickGELU; use ViT-B-16-quickgelu, or put the weights' open_clip_config.json beside the file."
        )
    if stated is not None and stated != has:
        names = {True: "QuickGELU", False: "GELU"}
        raise InputError(
            f"{checkpoint} was trained with {names[stated]} and {architecture} uses {names[has]}: it would load "
            f"and be wrong; choose an architecture {'with' if stated else 'without'} quickgelu."
        )
