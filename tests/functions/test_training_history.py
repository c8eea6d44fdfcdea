"""Training history: the logs that people have, written by the loggers themselves where they are installed here."""

from __future__ import annotations

import csv
import io
import json
import math
import struct
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.tensorboard import SummaryWriter

from layerscope.functions.training_history import columns, tfevents
from layerscope.functions.training_history.func import compute
from layerscope.schemas.errors import Refused
from layerscope.schemas.history import FIGURES, History
from layerscope.schemas.products.training_history import TrainingHistory
from layerscope.training_log import sidecar

TRAIN_LOSS = [1.5, 0.75, 0.5, 0.25]
TEST_LOSS = [1.25, 0.875, 0.625, 0.75]
TRAIN_ACCURACY = [0.5, 0.75, 0.875, 1.0]
TEST_ACCURACY = [0.5, 0.8125, 0.75, 0.8125]
LISTS = {
    "train_loss": TRAIN_LOSS,
    "test_loss": TEST_LOSS,
    "train_accuracy": TRAIN_ACCURACY,
    "test_accuracy": TEST_ACCURACY,
}
SVG = "{http://www.w3.org/2000/svg}"


def table(rows: list[dict[str, Any]]) -> bytes:
    """Return CSV as the loggers write it: the names of all columns, and empty cells."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def rows(**names: list[float]) -> list[dict[str, Any]]:
    return [dict(zip(names, values, strict=True)) for values in zip(*names.values(), strict=True)]


def series(product: TrainingHistory) -> dict[str, list[float | None]]:
    return {figure: [getattr(one, figure) for one in product.epochs] for figure in FIGURES}


def expected(product: TrainingHistory, epochs: list[int]) -> None:
    assert series(product) == LISTS
    assert [one.epoch for one in product.epochs] == epochs
    assert product.best_by_accuracy is not None and product.best_by_accuracy.epoch == epochs[1]
    assert product.best_by_loss is not None and product.best_by_loss.epoch == epochs[2]
    assert product.best_by_accuracy.accuracy_gap == 0.75 - 0.8125
    assert product.last.loss_gap == 0.5
    assert product.last.accuracy_gap == 0.1875


def test_our_own_file() -> None:
    epochs = [{"epoch": 5 * n, **row} for n, row in enumerate(rows(**LISTS), 1)]
    expected(compute({"history": json.dumps({"epochs": epochs}).encode()}), [5, 10, 15, 20])


def test_our_own_file_after_a_byte_order_mark() -> None:
    epochs = [{"epoch": 5 * n, **row} for n, row in enumerate(rows(**LISTS), 1)]
    content = b"\xef\xbb\xbf" + json.dumps({"epochs": epochs}).encode()
    expected(compute({"history": content}), [5, 10, 15, 20])


def test_epochs_without_a_number_count_from_one() -> None:
    expected(compute({"history": json.dumps({"epochs": rows(**LISTS)}).encode()}), [1, 2, 3, 4])


def test_a_log_of_keras() -> None:
    logged = rows(
        epoch=[0, 1, 2, 3],
        accuracy=TRAIN_ACCURACY,
        learning_rate=[0.1] * 4,
        loss=TRAIN_LOSS,
        val_accuracy=TEST_ACCURACY,
        val_loss=TEST_LOSS,
    )
    product = compute({"history_csv": table(logged)})
    expected(product, [0, 1, 2, 3])
    assert product.columns["test_accuracy"] == "val_accuracy"


def lightning() -> list[dict[str, Any]]:
    """Return what Lightning's CSVLogger writes: a row for each call of `log`, most cells empty."""
    found: list[dict[str, Any]] = []
    for epoch in range(4):
        for step, change in ((0, 0.125), (1, -0.125)):
            found.append({"epoch": epoch, "step": 10 * epoch + step, "train_loss_step": TRAIN_LOSS[epoch] + change})
        end = {"epoch": epoch, "step": 10 * epoch + 9}
        found.append({**end, "val_loss": TEST_LOSS[epoch], "val_acc": TEST_ACCURACY[epoch]})
        found.append({**end, "train_loss_epoch": TRAIN_LOSS[epoch], "train_acc": TRAIN_ACCURACY[epoch]})
    return [*found, {"epoch": 4, "step": 40, "test_acc": 0.25}]


def test_a_log_of_lightning_with_a_final_test() -> None:
    product = compute({"history_csv": table(lightning())})
    expected(product, [0, 1, 2, 3])
    assert product.columns["train_loss"] == "train_loss_epoch"
    assert product.columns["test_accuracy"] == "val_acc"


def test_values_of_batches_are_averaged_over_their_epoch() -> None:
    logged = [{k: v for k, v in row.items() if k != "train_loss_epoch"} for row in lightning()]
    assert series(compute({"history_csv": table(logged)}))["train_loss"] == TRAIN_LOSS


def wandb() -> list[dict[str, Any]]:
    logged = rows(
        **{"train/loss": TRAIN_LOSS, "train/acc": TRAIN_ACCURACY, "val/loss": TEST_LOSS, "val/acc": TEST_ACCURACY}
    )
    return [
        {"_step": 100 * n, "_runtime": 3.5 * n, "_timestamp": 1.7e9 + n, "epoch": n, **row, "note": {"nested": [1]}}
        for n, row in enumerate(logged)
    ]


def test_an_exported_history_of_weights_and_biases() -> None:
    expected(compute({"history_jsonl": jsonl(wandb())}), [0, 1, 2, 3])


def test_its_exported_table() -> None:
    expected(
        compute({"history_csv": table([{k: v for k, v in row.items() if k != "note"} for row in wandb()])}),
        [0, 1, 2, 3],
    )


def test_an_exported_chart_of_weights_and_biases() -> None:
    name = "brisk-test-3 - val/acc"
    logged = [{"Step": 50 * n, name: v, f"{name}__MIN": v, f"{name}__MAX": 9.0} for n, v in enumerate(TEST_ACCURACY)]
    product = compute({"history_csv": table(logged)})
    assert series(product)["test_accuracy"] == TEST_ACCURACY
    assert (product.unit, [one.epoch for one in product.epochs]) == ("step", [0, 50, 100, 150])


def written_by_tensorboard(folder: Path, steps: list[int], between: int = 0) -> bytes:
    names = {
        "Loss/train": TRAIN_LOSS,
        "Loss/test": TEST_LOSS,
        "Accuracy/train": TRAIN_ACCURACY,
        "Accuracy/test": TEST_ACCURACY,
    }
    with SummaryWriter(str(folder)) as writer:
        for name, values in names.items():
            for step, value in zip(steps, values, strict=True):
                writer.add_scalar(name, value, step)
                for back in range(1, between + 1):
                    if name == "Loss/train":
                        writer.add_scalar(name, value, step - back)
        writer.add_text("note", "ignored", 1)
        writer.add_histogram("weights", np.array([0.0, 1.0]), 1)
        writer.add_scalar("new/style", 0.5, 1, new_style=True)
    (path,) = folder.glob("*tfevents*")
    return path.read_bytes()


def test_an_event_file_of_tensorboard(tmp_path: Path) -> None:
    expected(compute({"tfevents": written_by_tensorboard(tmp_path, [0, 1, 2, 3])}), [0, 1, 2, 3])


def test_batches_in_an_event_file_belong_to_the_next_test(tmp_path: Path) -> None:
    product = compute({"tfevents": written_by_tensorboard(tmp_path, [9, 19, 29, 39], between=3)})
    expected(product, [9, 19, 29, 39])
    assert product.unit == "step"


def test_scalars_are_read_as_tensorboard_reads_them(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    content = written_by_tensorboard(tmp_path, [2, 3, 5, 8])
    theirs = EventAccumulator(str(tmp_path))
    theirs.Reload()
    ours = tfevents.read_scalars(content)
    for tag in theirs.Tags()["scalars"]:
        assert [(row["step"], row[tag]) for row in ours if tag in row] == [
            (e.step, e.value) for e in theirs.Scalars(tag)
        ]
    assert [row["new/style"] for row in ours if "new/style" in row] == [0.5]


def test_a_killed_writer_leaves_what_it_had_written(tmp_path: Path) -> None:
    content = written_by_tensorboard(tmp_path, [0, 1, 2, 3])
    whole, cut = tfevents.read_scalars(content), tfevents.read_scalars(content[:-3])
    assert [{tag: value for tag, value in row.items() if tag != "new/style"} for row in whole] == cut


def test_a_damaged_event_file_is_refused(tmp_path: Path) -> None:
    content = bytearray(written_by_tensorboard(tmp_path, [0, 1, 2, 3]))
    content[len(content) // 2] ^= 1
    with pytest.raises(Refused, match="checksum"):
        tfevents.read_scalars(bytes(content))


@given(st.binary(max_size=80))
def test_no_bytes_break_the_reader_of_messages(message: bytes) -> None:
    import crc32c

    def masked(data: bytes) -> int:
        value = crc32c.crc32c(data)
        return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF

    length = struct.pack("<Q", len(message))
    framed = length + struct.pack("<I", masked(length)) + message + struct.pack("<I", masked(message))
    try:
        tfevents.read_scalars(framed)
    except Refused as refused:
        assert refused.code == "bad-history"


def test_a_checkpoints_own_figures() -> None:
    product = compute({"checkpoint": b'{"epoch": 12, "loss": 0.25, "best_acc": 93.75}'})
    assert (product.last.epoch, product.last.train_loss, product.last.test_accuracy) == (12, 0.25, 0.9375)
    assert product.percent == ("test_accuracy",)


def test_a_checkpoints_own_lists() -> None:
    content = json.dumps(
        {"epoch": 4, "train_losses": TRAIN_LOSS, "val_losses": TEST_LOSS, "accs": TEST_ACCURACY}
    ).encode()
    found = series(compute({"checkpoint": content}))
    assert (found["train_loss"], found["test_loss"], found["test_accuracy"]) == (TRAIN_LOSS, TEST_LOSS, TEST_ACCURACY)


def test_the_file_made_for_it_is_believed_before_others() -> None:
    product = compute({"history_csv": b"epoch,loss\n1,9\n", "history": b'{"epochs": [{"train_loss": 0.5}]}'})
    assert (product.source, product.last.train_loss) == ("history", 0.5)


def test_per_cent_becomes_shares_and_is_told() -> None:
    product = compute({"history_csv": b"epoch,val_acc,train_acc\n1,50,0.5\n2,87.5,0.75\n"})
    assert series(product)["test_accuracy"] == [0.5, 0.875]
    assert series(product)["train_accuracy"] == [0.5, 0.75]
    assert product.percent == ("test_accuracy",)


def test_what_is_not_finite_is_left_out_and_counted() -> None:
    product = compute({"history_csv": b"epoch,loss,val_loss\n1,0.5,1\n2,nan,inf\n3,0.25,\n"})
    assert series(product)["train_loss"] == [0.5, None, 0.25]
    assert series(product)["test_loss"] == [1.0, None, None]
    assert product.non_finite == 2
    assert product.last.loss_gap is None


def test_fractions_of_an_epoch_belong_to_it() -> None:
    product = compute({"history_jsonl": jsonl(rows(epoch=[0.5, 1.0, 1.5, 2.0], loss=[1.0, 0.5, 0.5, 0.25]))})
    assert [(one.epoch, one.train_loss) for one in product.epochs] == [(1, 0.75), (2, 0.375)]


def test_of_many_epochs_the_best_the_last_and_even_ones_are_kept() -> None:
    accuracies = [0.5 + 0.4 * math.sin(n) for n in range(5_000)]
    accuracies[1_234] = 1.0
    product = compute({"history_csv": table(rows(epoch=list(range(5_000)), val_acc=accuracies))})
    assert product.epochs_logged == 5_000
    assert 900 < len(product.epochs) <= 1_000
    assert product.best_by_accuracy is not None and product.best_by_accuracy.epoch == 1_234
    assert {0, 1_234, 4_999} <= {one.epoch for one in product.epochs}
    assert len(product.curves) < 60_000


@pytest.mark.parametrize(
    ("kind", "content", "code"),
    [
        ("history", b"{}", "bad-history"),
        ("history", b"\xff", "bad-history"),
        ("history", b'{"epochs": []}', "bad-history"),
        ("history", b'{"epochs": [{"epoch": 1}]}', "bad-history"),
        ("history", b'{"epochs": [{"test_accuracy": 1.5}]}', "bad-history"),
        ("history", b'{"epochs": [{"epoch": 2, "train_loss": 1}, {"epoch": 1, "train_loss": 1}]}', "bad-history"),
        ("history", b'{"epochs": [{"train_loss": NaN}]}', "bad-history"),
        ("history", b'{"epochs": [{"wrong": 1}]}', "bad-history"),
        ("history_csv", b"", "no-figures"),
        ("history_csv", b"a,b\n1,2\n", "no-figures"),
        ("history_csv", b"\x89PNG\xff\xfe", "bad-history"),
        ("history_csv", b"epoch,val_acc\n1,400\n", "bad-history"),
        ("history_csv", b"epoch,val_acc\n-1,0.4\n", "bad-history"),
        ("history_csv", b"epoch,val_acc\nnan,0.4\n", "bad-history"),
        ("history_jsonl", b"[1]", "bad-history"),
        ("history_jsonl", b"[" * 100_000, "bad-history"),
        ("tfevents", b"", "no-figures"),
        ("tfevents", b"not an event file at all", "bad-history"),
    ],
)
def test_what_cannot_be_read_is_refused(kind: str, content: bytes, code: str) -> None:
    with pytest.raises(Refused) as refused:
        compute({kind: content})
    assert refused.value.code == code
    assert refused.value.hint


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("train_loss", "train_loss"),
        ("Loss/train", "train_loss"),
        ("trainLoss", "train_loss"),
        ("training loss", "train_loss"),
        ("loss", "train_loss"),
        ("valid_loss", "test_loss"),
        ("validation/cross_entropy", "test_loss"),
        ("testloss", "test_loss"),
        ("eval/accuracy", "test_accuracy"),
        ("val_acc1", "test_accuracy"),
        ("val/acc@1", "test_accuracy"),
        ("val_sparse_categorical_accuracy", "test_accuracy"),
        ("train/top1", "train_accuracy"),
        ("val_acc5", None),
        ("top5", None),
        ("lr", None),
        ("grad_norm/train_loss", None),
        ("accuracy_loss", None),
        ("glossy", None),
    ],
)
def test_columns_are_known_by_their_words(name: str, figure: str | None) -> None:
    assert columns.figures({name: 1}) == ({figure: name} if figure else {})


def test_curves_are_two_panels_in_the_colour_of_the_text() -> None:
    curves = compute({"history": json.dumps({"epochs": rows(**LISTS)}).encode()}).curves
    svg = ET.fromstring(curves)
    assert svg.get("width") == "400" and svg.get("role") == "img" and "dashed" in str(svg.get("aria-label"))
    assert len(svg.findall(f"{SVG}g")) == 2
    assert not {"style", "class", "id", "href", "onload"} & {name for one in svg.iter() for name in one.attrib}
    colours = {one.get(name) for one in svg.iter() for name in ("fill", "stroke") if one.get(name)}
    assert colours == {"currentColor", "none"}
    drawn = {text: one for one in svg.iter(f"{SVG}text") if (text := one.text or "")}
    assert {"train 1", "test 0.812", "train 0.25", "test 0.75", "best 2"} <= set(drawn)
    dashed = [one for one in svg.iter(f"{SVG}path") if one.get("stroke-dasharray") == "5 3"]
    assert len(dashed) == 2


def test_points_of_the_curve_lie_where_their_values_are() -> None:
    curves = compute({"history": json.dumps({"epochs": rows(test_accuracy=[0.25, 0.5, 1.0])}).encode()}).curves
    dots = [(float(one.get("cx", 0)), float(one.get("cy", 0))) for one in ET.fromstring(curves).iter(f"{SVG}circle")]
    assert dots[1][0] - dots[0][0] == pytest.approx(dots[2][0] - dots[1][0], abs=0.2)
    assert (dots[0][1] - dots[1][1]) * 2 == pytest.approx(dots[1][1] - dots[2][1], abs=0.4)


def test_texts_of_a_panel_do_not_touch() -> None:
    best_first = rows(train_accuracy=[0.75, 0.75, 0.75], test_accuracy=[1.0, 0.5, 0.75])
    curves = compute({"history": json.dumps({"epochs": best_first}).encode()}).curves
    title, best, *_, train, test = sorted(
        (float(one.get("y", 0)), one.text or "")
        for one in ET.fromstring(curves).iter(f"{SVG}text")
        if (one.text or "x")[0].isalpha()
    )
    assert [one[1].split()[0] for one in (title, best)] == ["accuracy", "best"]
    assert best[0] - title[0] >= 13 and test[0] - train[0] >= 13


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30, -3.0, 1e30])
def test_one_value_is_a_curve_too(value: float) -> None:
    history = History.model_validate({"epochs": [{"train_loss": value}]})
    curves = compute({"history": history.model_dump_json().encode()}).curves
    assert "nan" not in curves and len(list(ET.fromstring(curves).iter(f"{SVG}circle"))) == 1


def test_upload_takes_lists_mappings_and_paths(tmp_path: Path) -> None:
    expected(compute({"history": sidecar(LISTS)[1]}), [1, 2, 3, 4])
    expected(
        compute({"history": sidecar([{"epoch": n, **row} for n, row in enumerate(rows(**LISTS))])[1]}), [0, 1, 2, 3]
    )
    keras = {"loss": TRAIN_LOSS, "val_loss": TEST_LOSS, "accuracy": TRAIN_ACCURACY, "val_accuracy": TEST_ACCURACY}
    expected(compute({"history": sidecar(keras)[1]}), [1, 2, 3, 4])
    for name, ending in [("metrics.csv", ".history.csv"), ("events.out.tfevents.17.host.1.0", ".tfevents")]:
        (tmp_path / name).write_bytes(b"bytes")
        assert sidecar(tmp_path / name) == (ending, b"bytes")


def test_upload_says_at_once_what_is_no_history(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="None of the columns"):
        sidecar({"lr": [0.1, 0.2]})
    with pytest.raises(ValueError, match="no log"):
        sidecar(tmp_path / "picture.png")
