"""Files to pixels: sound ones bit by bit, odd ones as is said, hostile ones refused with a sentence."""

from __future__ import annotations

import numpy as np
import pytest

from layerscope.functions.analysis.pictures.form import file_in
from layerscope.functions.analysis.pictures.picture import read
from layerscope.functions.inference.rejected import Rejected
from layerscope.schemas.errors import Refused
from tests.functions.pictures import EVERY, HOSTILE, ODD, encoded, grey, npy

SHAPE = (28, 28, 1)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_picture_is_refused_with_a_sentence(name: str) -> None:
    content, status, sentence = HOSTILE[name]
    with pytest.raises(Refused) as refused:
        read(content, "image/png", SHAPE)
    assert sentence in refused.value.message
    assert refused.value.hint
    assert Rejected.picture(refused.value).status == status


@pytest.mark.parametrize("name", ODD)
def test_an_odd_picture_is_read_and_it_is_said_how(name: str) -> None:
    content, done = ODD[name]
    picture = read(content, "image/png", SHAPE)
    assert picture.pixels.shape == SHAPE
    assert picture.pixels.dtype == np.uint8
    assert done in "; ".join(picture.steps)


@pytest.mark.parametrize("name", ["16 bits", "grey and alpha", "Fortran order", "big-endian", "floats", "int64"])
def test_what_is_the_same_picture_gives_the_same_pixels(name: str) -> None:
    np.testing.assert_array_equal(read(ODD[name][0], "", SHAPE).pixels[..., 0], grey())


@pytest.mark.parametrize("kind", ["PNG", "npy"])
def test_pixels_of_the_dataset_s_shape_are_left_as_they_are(kind: str) -> None:
    colours = np.asarray(EVERY)
    content = encoded(EVERY) if kind == "PNG" else npy(colours)
    picture = read(content, "image/gif", (28, 28, 3))
    np.testing.assert_array_equal(picture.pixels, colours)
    assert picture.steps == ("its 28 × 28 pixels are those of the dataset's images: not resized",)


def test_the_transparent_is_white_and_the_opaque_as_it_was() -> None:
    pixels = np.dstack([grey(), grey(), grey(), np.full((28, 28), 255, np.uint8)])
    pixels[:14, :, 3] = 0
    found = read(encoded(pixels), "", (28, 28, 3)).pixels
    assert (found[:14] == 255).all()
    np.testing.assert_array_equal(found[14:], pixels[14:, :, :3])


def test_a_picture_is_resized_as_those_of_a_folder_are() -> None:
    large = EVERY.resize((90, 60))
    expected = np.asarray(large.resize((28, 28), 2), np.uint8)  # 2: Pillow's bilinear
    np.testing.assert_array_equal(read(encoded(large), "", (28, 28, 3)).pixels, expected)


def test_a_form_brings_its_field_file_byte_by_byte() -> None:
    content = b"\r\n--x\r\n\r\n--\r\n" + bytes(range(256))
    form = (
        b'--edge\r\nContent-Disposition: form-data; name="other"\r\n\r\nno\r\n'
        b'--edge\r\ncontent-disposition: form-data; name="file"; filename="a;b.png"\r\nContent-Type: x\r\n\r\n'
        + content
        + b"\r\n--edge--\r\n"
    )
    assert file_in(form, 'multipart/form-data; boundary="edge"') == content


@pytest.mark.parametrize(
    ("form", "content_type", "code"),
    [
        (b"", "multipart/form-data", "broken-form"),
        (b"--e\r\nno end", "multipart/form-data; boundary=e", "broken-form"),
        (b"--e--\r\n", "multipart/form-data; boundary=e", "no-file"),
        (
            b'--e\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n' * 1_000,
            "multipart/form-data; boundary=e",
            "no-file",
        ),
    ],
)
def test_a_form_without_the_field_is_refused(form: bytes, content_type: str, code: str) -> None:
    with pytest.raises(Refused) as refused:
        file_in(form, content_type)
    assert refused.value.code == code
