"""Identity is a pure function of the key."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerscope.schemas import keys
from layerscope.schemas.identity import Identity, KeyRefused, identify, is_name

NAMES = st.text(string.ascii_letters + string.digits + "._=-", min_size=1, max_size=64).filter(is_name)


@pytest.mark.parametrize(
    ("key", "subject"),
    [
        ("mnist/lenet/3.pth", "mnist/lenet/3"),
        ("mnist/lenet/3.pt", "mnist/lenet/3"),
        ("mnist/lenet/1.0.2.safetensors", "mnist/lenet/1.0.2"),
        ("mnist/lenet/3.onnx", "mnist/lenet/3"),
        ("mnist/lenet/epoch=9-step=100.ckpt", "mnist/lenet/epoch=9-step=100"),
        ("mnist/lenet/pytorch_model.bin", "mnist/lenet/pytorch_model"),
        ("mnist/lenet/3.pt2", "mnist/lenet/3"),
        ("mnist/model_lenet_v3.pth", "mnist/lenet/3"),
        ("mnist/model_a_v1_v2.pth", "mnist/a_v1/2"),
    ],
)
def test_key_names_dataset_model_and_version(key: str, subject: str) -> None:
    assert identify(key).identity.subject == subject
    assert identify(key).sidecar is None


def test_a_file_beside_a_model_has_the_models_identity() -> None:
    assert identify("mnist/lenet/3.history.json").identity == Identity("mnist", "lenet", "3")
    assert identify("mnist/lenet/3.history.json").sidecar == "history"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "lenet.pth",
        "mnist/lenet.pth",
        "mnist/lenet/3",
        "mnist/lenet/3.zip",
        "mnist/le net/3.pth",
        "mnist/le+net/3.pth",
        "mnist/lenét/3.pth",
        "mnist/lenet/3\n.pth",
        "mnist/../3.pth",
        "mnist//3.pth",
        "/mnist/lenet/3.pth",
        "mnist/lenet/sub/3.pth",
        f"mnist/{'x' * 65}/3.pth",
        "mnist/lenet/.pth",
        "mnist/.lenet/3.pth",
    ],
)
def test_any_other_key_is_refused_with_the_rule(key: str) -> None:
    with pytest.raises(KeyRefused, match=r"DATASET/MODEL/VERSION\.EXT"):
        identify(key)


def test_an_older_name_at_the_top_of_the_bucket_is_told_that_the_folder_is_missing() -> None:
    with pytest.raises(
        KeyRefused, match=r"the folder that names its dataset is missing, as in 'digits/model_1_v2\.pth'"
    ):
        identify("model_1_v2.pth")
    assert identify("digits/model_1_v2.pth").identity == Identity("digits", "1", "2")
    with pytest.raises(KeyRefused) as other:
        identify("lenet.pth")
    assert "folder" not in str(other.value).partition("A model's key")[0]


@given(NAMES, NAMES, NAMES)
def test_our_own_keys_are_read_back(dataset: str, model: str, version: str) -> None:
    identity = Identity(dataset, model, version)
    key = keys.upload(identity)
    assert Identity.parse(identity.subject) == identity
    assert identify(key).identity == identity
    assert any(key.startswith(prefix) for prefix in keys.upload_prefixes(identity))


@given(st.text(max_size=200))
def test_no_key_breaks_identify(key: str) -> None:
    try:
        identify(key)
    except KeyRefused as refused:
        assert str(refused).endswith(".")
