"""The layers of other libraries' architectures, known by the names and shapes of a state dict alone.

    lookup      which architecture a state dict belongs to, and its layers
    stored      the files: an index, graphs in the safe form by family, and tensors that a state dict leaves out
    config_json `config.json`, which transformers writes beside the weights, against what a graph was made with

The files are written by `tests/tables` from an installed timm (Ross Wightman, Apache License 2.0,
https://github.com/huggingface/pytorch-image-models) and transformers (Hugging Face, Apache License 2.0,
https://github.com/huggingface/transformers). Neither is needed to read them, and nothing of either is in them but graphs.
"""
