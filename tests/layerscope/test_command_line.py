"""The command line on a system that is one directory: what a user types, and what comes of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from layerscope.stack.ports import free_ports
from tests.small_networks import ANALYSED, PRODUCTS, packed
from tests.stack import ROOT, eventually, layerscope

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MODULE = """
from torch import nn

def lenet():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 10))

class Choosing(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x

choosing = Choosing()
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with one analysed model, digits/lenet/1."""
    directory = tmp_path_factory.mktemp("system")
    made = layerscope("init", "--at", str(directory))
    assert made.returncode == 0, made.stderr
    model = directory / "model.safetensors"
    model.write_bytes(packed(1))
    uploaded = layerscope("upload", str(model), "digits/lenet/1", "--at", str(directory), "--json")
    assert uploaded.returncode == 0, uploaded.stderr
    answer = json.loads(uploaded.stdout)
    assert {name for name, line in answer["products"].items() if line["state"] == "complete"} == ANALYSED
    return directory


def test_show_lists_models_and_shows_one(system: Path) -> None:
    listed = json.loads(layerscope("show", "--at", str(system), "--json").stdout)
    assert [(line["model"], line["state"]) for line in listed["models"]] == [("lenet", "complete")]
    shown = layerscope("show", "digits/lenet/1", "--at", str(system))
    assert all(name in shown.stdout for name in PRODUCTS)


def test_similar_finds_the_layers_of_a_second_model(system: Path) -> None:
    second = system / "second.safetensors"
    second.write_bytes(packed(2))
    assert layerscope("upload", str(second), "digits/lenet/2", "--at", str(system)).returncode == 0
    asked = layerscope("similar", "digits/lenet/1", "4", "--metric", "cka", "--at", str(system), "--json")
    hits = json.loads(asked.stdout)["hits"]
    assert {hit["version"] for hit in hits} == {"2"}
    assert hits == sorted(hits, key=lambda hit: -hit["score"])
    shown = layerscope("similar", "digits/lenet/1", "4", "--at", str(system), COLUMNS="200").stdout
    assert "95 % of halves" in shown and "above untrained" in shown


def test_alike_and_depths_compare_with_the_second_model(system: Path) -> None:
    told = json.loads(layerscope("alike", "digits/lenet/1", "--at", str(system), "--json").stdout)
    assert [(hit["version"], hit["family"]) for hit in told["hits"]] == [("2", "same_architecture")]
    shown = layerscope("alike", "digits/lenet/1", "--family", "same_weights", "--at", str(system)).stdout
    assert "none is of the family same_weights" in " ".join(shown.split())
    roles = json.loads(layerscope("depths", "digits/lenet/1", "4", "--at", str(system), "--json").stdout)["roles"]
    assert [one["version"] for one in roles] == ["2"]
    narrowed = ("--per", "model", "--architecture", "same", "--min-depth", "0.9", "--leave-out", "model")
    none = layerscope("similar", "digits/lenet/1", "4", *narrowed, "--at", str(system))
    assert "other than every version of digits/lenet" in " ".join(none.stdout.split())


def test_the_leaderboard_ranks_both_and_the_versions_of_their_model_are_told_apart(system: Path) -> None:
    board = json.loads(layerscope("leaderboard", "digits", "--at", str(system), "--json").stdout)
    accuracies = [one["figures"]["accuracy"] for one in board["models"]]
    assert len(accuracies) == 2 and accuracies == sorted(accuracies, reverse=True)
    shown = layerscope("leaderboard", "digits", "--sort", "name", "--architecture", "Sequential", "--at", str(system))
    assert shown.stdout.index("lenet/1") < shown.stdout.index("lenet/2") and "to" in shown.stdout
    none = layerscope("leaderboard", "digits", "--max-parameters", "1", "--at", str(system)).stdout
    assert "None of the 2 model versions on digits is one with at most 1 parameters." in " ".join(none.split())
    told = json.loads(layerscope("versions", "digits/lenet", "--at", str(system), "--json").stdout)
    assert [one["version"] for one in told["versions"]] == ["1", "2"]
    step = told["versions"][1]["step"]
    gained = told["versions"][1]["figures"]["accuracy"] - told["versions"][0]["figures"]["accuracy"]
    assert step["fixed"] - step["broken"] == pytest.approx(step["images"] * gained)
    of_class = layerscope("versions", "digits/lenet", "--label", "3", "--at", str(system)).stdout
    assert "class ‘3’" in of_class and "of 3 right" in of_class
    misspelt = layerscope("leaderboard", "digit", "--at", str(system))
    assert misspelt.returncode == 1 and "did you mean digits?" in misspelt.stderr
    assert layerscope("versions", "digits", "--at", str(system)).returncode == 2


def test_classes_of_two_models_are_compared_and_untrained_ones_are_not_said_to_recognise_anything(system: Path) -> None:
    answer = json.loads(layerscope("classes", "digits/lenet/1", "3", "--at", str(system), "--json").stdout)
    assert (answer["class_name"], answer["class_index"]) == ("3", 3)
    assert [(hit["version"], hit["judgement"]["untrained_networks"]) for hit in answer["hits"]] == [("2", 8)]
    for asked in (("classes", "3"), ("depths", "4")):
        command, what = asked
        others = layerscope(command, "digits/lenet/1", what, "--family", "same_weights", "--at", str(system)).stdout
        assert "none is of the family same_weights" in " ".join(others.split())
    found = ("digits/lenet/1", "3", "--at", str(system))
    elsewhere = layerscope("classes", "digits/lenet/1", "3", "--other-datasets", "--at", str(system)).stdout
    assert "on other datasets than digits" in " ".join(elsewhere.split())
    _stands_under("model", "digits/lenet/2", layerscope("classes", *found, COLUMNS="200").stdout)
    _stands_under("model", "digits/lenet/2", layerscope("alike", found[0], *found[2:], COLUMNS="200").stdout)


def _stands_under(name: str, value: str, table: str) -> None:
    head, row = table.splitlines()[:2]
    assert {"above untrained", "above stored"} <= set(re.split(r" {2,}", head.strip())), head
    assert head.index(f" {name} ") + 1 == row.index(value) if not head.startswith(name) else row.startswith(value)


def test_export_writes_the_page_as_one_file(system: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    written = layerscope("export", "digits/lenet/1", "--out", str(file), "--at", str(system))
    assert written.returncode == 0 and f"wrote {file}" in written.stderr + written.stdout
    html = file.read_text(encoding="utf-8")
    assert "Verdict" in html and "data:image/png;base64," in html and not re.search(r'(src|href)="(?!#|data:)', html)
    assert "most like 4" in html and "digits/lenet/2" in html  # of the layers of the second model
    missing = layerscope("export", "digits/lenet/9", "--out", str(tmp_path / "none.html"), "--at", str(system))
    assert missing.returncode != 0 and "There is no model digits/lenet/9." in missing.stderr
    assert not (tmp_path / "none.html").exists()


def test_serve_shows_the_pages_of_a_directory(system: Path) -> None:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "layerscope.cli", "serve", "--at", str(system), "--port", str(port)]
    serving = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"accept": "text/html"}) as browser:
            listed = eventually(lambda: browser.get("/models"))
            assert "lenet" in listed.text
            assert browser.get("/models/digits/lenet/1").status_code == 200
            assert browser.get("/models", headers={"host": "evil.example"}).status_code == 421
    finally:
        serving.terminate()
        said, _ = serving.communicate(timeout=30)
    assert f"http://127.0.0.1:{port}/models" in said


def test_why_follows_an_upload_and_names_what_is_like_a_name_that_is_not_there(system: Path) -> None:
    found = json.loads(layerscope("why", "digits/lenet/1", "--at", str(system), "--json").stdout)
    assert found["finding"]["code"] == "complete"
    assert [one["step"] for one in found["steps"]] == ["upload", "notification", "event", "answer", "index"]
    told = layerscope("why", "digits/lenet/1", "evaluation", "--at", str(system))
    assert told.returncode == 0 and "evaluation is complete" in told.stdout and "manifest" in told.stdout
    missed = layerscope("why", "digits/lennet/1", "--at", str(system)).stdout
    assert "there is digits/lenet/1" in missed and "what would help" in missed
    unknown = layerscope("why", "digits/lenet/1", "verdict", "--at", str(system))
    assert unknown.returncode == 1 and "There is no product 'verdict'" in unknown.stderr


def test_all_that_comes_of_an_upload_is_one_trace(system: Path) -> None:
    places = [
        *system.glob("products/manifests/digits/lenet/1/**/*.json"),
        *system.glob("products/uploads/digits/lenet/1/*"),
    ]
    told = [json.loads(path.read_text())["traceparent"] for path in places]
    assert len(told) == len(PRODUCTS) + 1
    assert len({one.split("-")[1] for one in told}) == 1


def test_doctor_finds_nothing_wrong_with_a_directory(system: Path) -> None:
    found = json.loads(layerscope("doctor", "--at", str(system), "--json").stdout)
    assert {one["check"]: one["ok"] for one in found[-3:]} == {
        "object store": True,
        "dataset digits": True,
        "query": True,
    }


def test_nothing_is_missing_afterwards(system: Path) -> None:
    planned = json.loads(layerscope("replay", "plan", "--at", str(system), "--json").stdout)
    assert planned["entries"] == [] and planned["there"] > len(PRODUCTS)


def test_what_was_put_in_behind_everybodys_back_is_planned_run_and_told(system: Path) -> None:
    at = ("--at", str(system))
    folder = system / "models" / "digits" / "lenet"
    (folder / "9.safetensors").write_bytes(packed(9))  # nobody is notified
    planned = layerscope("replay", "plan", "--version", "9", *at)
    assert planned.returncode == 0 and "digits/lenet/9" in planned.stdout and "never read" in planned.stdout
    (digest,) = re.findall(r"^plan ([0-9a-f]{32})$", planned.stdout, re.MULTILINE)
    moved = layerscope("replay", "run", "--version", "9", "--plan", "0" * 32, *at)
    assert moved.returncode == 1 and "The plan has moved" in moved.stderr
    command = [sys.executable, "-m", "layerscope.cli", "replay", "run", "--version", "9", "--plan", digest, *at]
    killed = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert killed.stderr is not None
    (name,) = re.findall(r"run (\S+)", next(line for line in killed.stderr if line.startswith("run ")))
    killed.kill()
    killed.communicate()
    assert json.loads(layerscope("replay", "status", name, *at, "--json").stdout)["state"] == "running"
    ended = layerscope("replay", "status", name, "--follow", *at, "--json")
    answer = json.loads(ended.stdout)
    assert (answer["state"], answer["planned"], answer["failed"], answer["none"]) == ("finished", 1, 0, 0)
    assert answer["computed"] + answer["there"] == 1
    shown = json.loads(layerscope("show", "digits/lenet/9", *at, "--json").stdout)
    assert shown["state"] == "complete"
    assert "nothing to do" in layerscope("replay", "run", "--version", "9", *at).stdout
    assert name in layerscope("replay", "status", *at).stdout


def test_a_directory_without_dead_letters_says_so(system: Path) -> None:
    at = ("--at", str(system))
    assert "there are no dead letters" in layerscope("dead-letters", "list", *at).stdout
    unknown = layerscope("dead-letters", "show", "0" * 32, *at)
    assert unknown.returncode == 1 and "There is no dead letter" in unknown.stderr
    assert layerscope("dead-letters", "discard", "0" * 32, *at).returncode == 2  # why is asked for


def test_pack_writes_a_model_of_the_users_own_code(tmp_path: Path) -> None:
    (tmp_path / "my_models.py").write_text(MODULE)
    packing = [sys.executable, "-m", "layerscope.cli", "pack"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}

    def pack(target: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*packing, target], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=100
        )

    assert pack("my_models:lenet").returncode == 0
    assert (tmp_path / "model.safetensors").stat().st_size > 1000
    refused = pack("my_models:choosing")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert "forward" in refused.stderr or "x.sum()" in refused.stderr


def test_a_dataset_of_ones_own_is_added_and_a_misfit_names_both_shapes(system: Path, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    np.savez(
        tmp_path / "test.npz",
        images=chance.integers(0, 256, (60, 8, 8, 3), np.uint8),
        labels=np.arange(60) % 3,
    )
    added = layerscope(
        "datasets",
        "add",
        "shapes",
        "--test",
        str(tmp_path / "test.npz"),
        "--classes",
        "circle,square,star",
        "--at",
        str(system),
    )
    assert added.returncode == 0, added.stderr
    names = [one["name"] for one in json.loads(layerscope("datasets", "list", "--at", str(system), "--json").stdout)]
    assert names == ["digits", "shapes"]
    renewed = layerscope("datasets", "renew-common", "shapes", "--at", str(system))
    assert "shapes: common probe images from it alone" in renewed.stderr
    model = system / "model.safetensors"
    misfit = layerscope("upload", str(model), "shapes/lenet/1", "--at", str(system), "--json")
    products = json.loads(misfit.stdout)["products"]
    told = products["predictions"]["refusal"]["message"]
    assert products["evaluation"]["state"] == "refused"
    assert "3x8x8" in told
    assert "expects 1 channel" in told


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["show", "digits/lenet"], 2, "is not DATASET/MODEL/VERSION"),
        (["show", "digits/nobody/1"], 1, "There is no model digits/nobody/1"),
        (["similar", "digits/lenet/1", "nolayer"], 1, "has no layer 'nolayer'"),
        (["classes", "digits/lenet/1", "eleven"], 1, "has no class 'eleven'"),
        (["datasets", "renew-common", "nowhere"], 1, "There is no dataset 'nowhere'"),
        (["env"], 3, "only a stack"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(system: Path, arguments: list[str], status: int, said: str) -> None:
    done = layerscope(*arguments, "--at", str(system))
    assert (done.returncode, "Traceback" in done.stderr) == (status, False)
    assert said in done.stderr


def test_without_a_system_it_says_how_to_make_one(tmp_path: Path) -> None:
    done = layerscope("show", "--at", str(tmp_path / "nowhere"))
    assert done.returncode == 3
    assert "layerscope init --at" in done.stderr
