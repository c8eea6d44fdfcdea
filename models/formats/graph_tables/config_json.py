"""`config.json` against what a graph was made with: where they differ in what decides outputs, it is another network. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

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
    """Return what `config.json` says; None where these bytes are no such file."""
    if raw is None:
        return None
    try:
        found = json.loads(raw)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get(KIND), str) else None


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a configuration that decide what a model computes."""
    return {key: value for key, value in config.items() if key not in IDLE and "drop" not in key}


def difference(said: Mapping[str, Any], made_with: Mapping[str, Any]) -> str | None:
    """Name the first key in which `config.json` says another thing; one that it leaves out is the library's default."""
    for key, value in sorted(made_with.items()):
        if key in said and said[key] != value:
            return key
    return None
