"""`config.json` against what a graph was made with: where they differ in what decides outputs, it is another network. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from layerscope.models.file_kinds import UPLOAD_CALL
from layerscope.models.safe_form.safetensors_file import strict_json
from layerscope.schemas.errors import Refused

MAX_BYTES: Final = 2**20
MAX_NESTING: Final = 16
KIND: Final = "model_type"
"""What `config.json` of transformers has, and a list of blocks never."""
IDLE: Final = frozenset(
    {
        *("architectures", "auto_map", "bos_token_id", "chunk_size_feed_forward", "cross_attention_hidden_size"),
        *("decoder_start_token_id", "dtype", "eos_token_id", "finetuning_task", "id2label", "initializer_factor"),
        *(
            "initializer_range",
            "is_decoder",
            "is_encoder_decoder",
            "label2id",
            "mask_ratio",
            "mask_token_id",
            "name_or_path",
        ),
        *("normalize_pixel_loss", "num_channels", "num_labels", "out_features", "out_indices", "output_attentions"),
        *(
            "output_hidden_states",
            "pad_token_id",
            "problem_type",
            "return_dict",
            "semantic_loss_ignore_index",
            "sep_token_id",
        ),
        *(
            "tf_legacy_loss",
            "tie_word_embeddings",
            "tokenizer_class",
            "torch_dtype",
            "torchscript",
            "transformers_version",
        ),
        *("use_bfloat16", "use_cache", "use_mask_token", "_name_or_path", "_attn_implementation"),
    }
)
"""Keys that decide nothing in eval mode, or that the shapes of the tensors tell; any key with `drop` in it likewise."""


def config_of(raw: bytes | None) -> Mapping[str, Any] | None:
    """Return what `config.json` says; None where these bytes are no such file, and may be a list of blocks.

    Raises:
        Refused: `bad-json`, it is broken, too large or nested too deep.
    """
    if raw is None or not raw.lstrip().startswith(b"{"):
        return None
    if len(raw) > MAX_BYTES:
        raise _refused(f"config.json has {len(raw):,} bytes; {MAX_BYTES:,} are allowed.")
    try:
        found = strict_json(raw, "config.json")
    except Refused as refused:
        raise _refused(refused.message) from refused
    if not isinstance(found, dict) or not isinstance(found.get(KIND), str):
        return None
    if _is_deep(found):
        raise _refused(f"config.json has values that are nested more than {MAX_NESTING} deep.")
    return found


def _is_deep(value: Any) -> bool:
    """Tell of nesting without a call for each level, of which a file may have more than Python allows."""
    level = [value]
    for _ in range(MAX_NESTING):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return bool(level)


def _refused(message: str) -> Refused:
    return Refused("bad-json", message, f"Give the config.json that lies beside the weights. {UPLOAD_CALL}")


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a configuration that decide what a model computes."""
    return {key: value for key, value in config.items() if key not in IDLE and "drop" not in key}


def difference(said: Mapping[str, Any], made_with: Mapping[str, Any]) -> str | None:
    """Name the first key in which `config.json` says another thing; one that it leaves out is the library's default."""
    for key, value in sorted(made_with.items()):
        if key in said and said[key] != value:
            return key
    return None
