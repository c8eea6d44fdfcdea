"""The main job on the real stack: an upload alone, by a foreign client, leads to its analysis."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest
from boto3.s3.transfer import TransferConfig

from layerscope.events.kafka_log import KafkaLog
from layerscope.events.topics import DEAD_LETTERS, EVENTS, S3_RAW
from tests.small_networks import ANALYSED, PRODUCTS, packed
from tests.stack import ROOT, RealStack, eventually, layerscope

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]


def complete(stack: RealStack, subject: str) -> dict[str, Any]:
    """Wait until every product of a model is complete, and return what query says of it."""
    return eventually(lambda: (m := stack.model(subject)) and m["state"] == "complete" and m)


def computations(stack: RealStack, subject: str) -> dict[str, int]:
    return {name: stack.computations(name, subject) for name in ["admit", *sorted(PRODUCTS)]}


ONCE = dict.fromkeys(["admit", *sorted(ANALYSED)], 1) | {"training_history": 0}  # refused before anything is computed


def test_a_put_alone_leads_to_every_product(stack: RealStack) -> None:
    # Given the environment that `layerscope env` prints, and nothing else
    printed = layerscope("env", "--at", str(stack.stack.directory)).stdout
    shell = subprocess.run(["bash", "-c", f"{printed}\nenv -0"], capture_output=True, text=True, check=True)
    environment = dict(line.split("=", 1) for line in shell.stdout.split("\0") if "=" in line)
    s3 = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    )
    # When one object is put
    s3.put_object(Bucket="models", Key="digits/put/1.safetensors", Body=packed(1))
    # Then everything is there
    model = complete(stack, "digits/put/1")
    assert set(model["products"]) == PRODUCTS
    assert {name for name, line in model["products"].items() if line["state"] == "complete"} == ANALYSED
    assert model["products"]["training_history"]["state"] == "refused"  # there is no log of its training
    assert computations(stack, "digits/put/1") == ONCE
    # And each file is what its manifest says
    for name in ANALYSED:
        for file in stack.query.get(f"/models/digits/put/1/products/{name}").json()["files"]:
            answer = stack.query.get(file["url"])
            assert (answer.status_code, len(answer.content)) == (200, file["size"])


def test_a_multipart_upload_does_as_well(stack: RealStack) -> None:
    parts = TransferConfig(multipart_threshold=1024, multipart_chunksize=5 * 1024 * 1024)
    stack.s3.upload_fileobj(io.BytesIO(packed(2)), "models", "digits/multipart/1.safetensors", Config=parts)
    assert stack.s3.head_object(Bucket="models", Key="digits/multipart/1.safetensors")["ETag"].endswith('-1"')
    assert complete(stack, "digits/multipart/1")["content"]


def test_a_server_side_copy_does_as_well_and_has_the_same_content(stack: RealStack) -> None:
    stack.s3.put_object(Bucket="models", Key="digits/original/1.safetensors", Body=packed(3))
    original = complete(stack, "digits/original/1")
    source = {"Bucket": "models", "Key": "digits/original/1.safetensors"}
    stack.s3.copy_object(Bucket="models", Key="digits/copied/1.safetensors", CopySource=source)
    assert complete(stack, "digits/copied/1")["content"] == original["content"]


@pytest.mark.parametrize("key", ["digits/my net/1.pth", "digits/a+b/1.pth", "digits/größe/1.pth", "digits/lenet.pth"])
def test_a_key_outside_the_rule_is_refused_where_people_look(stack: RealStack, key: str) -> None:
    stack.s3.put_object(Bucket="models", Key=key, Body=b"a model")

    def refusal() -> Any:
        return [one for one in stack.query.get("/refusals").json()["refusals"] if one["key"] == key]

    (told,) = eventually(refusal)
    assert told["code"] == "bad-key"
    assert "DATASET/MODEL/VERSION.EXT" in told["message"]


def test_a_file_that_is_no_model_is_refused_with_a_hint(stack: RealStack) -> None:
    stack.s3.put_object(Bucket="models", Key="digits/text/1.pth", Body=b"these are not weights\n")
    eventually(lambda: stack.state("digits/text/1") == "refused")
    shown = layerscope("show", "digits/text/1", "--at", str(stack.stack.directory))
    told = stack.model("digits/text/1")
    assert told is not None
    assert told["refusal"]["hint"]
    assert told["refusal"]["message"] in shown.stdout


def test_the_same_bytes_twice_compute_nothing_again(stack: RealStack) -> None:
    for _ in range(2):
        stack.s3.put_object(Bucket="models", Key="digits/twice/1.safetensors", Body=packed(4))
        complete(stack, "digits/twice/1")
    eventually(lambda: heard(stack, "digits/twice/1") >= 2)
    assert computations(stack, "digits/twice/1") == ONCE


def test_a_then_b_then_a_shows_a_and_computes_nothing_for_the_third(stack: RealStack) -> None:
    key, subject = "digits/changing/1.safetensors", "digits/changing/1"
    contents = []
    for seed in (5, 6, 5):
        before = contents[-1] if contents else None
        stack.s3.put_object(Bucket="models", Key=key, Body=packed(seed))
        eventually(lambda was=before: (m := stack.model(subject)) and m["content"] not in (None, was))
        contents.append(complete(stack, subject)["content"])
    assert contents[0] == contents[2] != contents[1]
    eventually(lambda: heard(stack, subject) >= 3)
    assert computations(stack, subject) == {name: 2 * count for name, count in ONCE.items()}


def test_a_removed_model_is_gone_from_similar(stack: RealStack) -> None:
    for name, seed in (("stays", 7), ("goes", 8)):
        stack.s3.put_object(Bucket="models", Key=f"digits/{name}/1.safetensors", Body=packed(seed))
    complete(stack, "digits/stays/1")
    complete(stack, "digits/goes/1")

    def similar() -> set[str]:
        path = "/models/digits/stays/1/layers/4/similar"
        hits = stack.query.get(path, params={"k": 100, "metric": "cka"}).raise_for_status().json()["hits"]
        return {hit["model"] for hit in hits}

    eventually(lambda: "goes" in similar())
    stack.s3.delete_object(Bucket="models", Key="digits/goes/1.safetensors")
    eventually(lambda: "goes" not in similar())
    assert stack.query.get("/models/digits/goes/1").status_code == 404


def test_no_secret_is_in_a_log_a_product_an_answer_a_page_or_an_event(stack: RealStack, tmp_path: Path) -> None:
    held = stack.stack.credentials
    secrets = [held.secret_key, held.functions_secret_key, held.uploader_secret_key, held.redis_password]
    texts = {path.name: path.read_bytes() for path in (stack.stack.directory / "logs").iterdir()}
    texts |= {one.key: stack.store.get("products", one.key) for one in stack.store.list("products")}
    names = [
        f"{one['dataset']}/{one['model']}/{one['version']}" for one in stack.query.get("/models").json()["models"][:5]
    ]
    paths = ["/models", "/refusals", "/metrics", "/openapi.json", "/nothing", *(f"/models/{name}" for name in names)]
    for accept in ("*/*", "text/html"):
        for path in paths:
            answer = stack.query.get(path, headers={"accept": accept}, follow_redirects=True)
            texts[f"{path} as {accept}"] = f"{answer.headers} {answer.text}".encode()
    page = tmp_path / "page.html"
    exported = layerscope("export", names[0], "--out", str(page), "--at", str(stack.stack.directory))
    texts |= {"export": page.read_bytes(), "said of it": f"{exported.stdout} {exported.stderr}".encode()}
    with closing(KafkaLog(stack.stack.function_environment()["KAFKA_BOOTSTRAP_SERVERS"])) as log:
        for topic in (S3_RAW, EVENTS, DEAD_LETTERS):
            for at, record in enumerate(log.backlog(topic, "nobody", start="earliest")):
                texts[f"{topic} {at}"] = repr((record.key, record.headers)).encode() + (record.value or b"")
    assert any(name.startswith(EVENTS) for name in texts) and any(name.startswith("blobs/") for name in texts)
    assert not [name for secret in secrets for name, text in texts.items() if secret.encode() in text]


def test_the_python_client_uploads_to_the_stack(stack: RealStack) -> None:
    code = (
        "import layerscope, torch\n"
        "from layerscope.demo.networks import Residual\n"
        "torch.manual_seed(9)\n"
        "layerscope.upload(Residual(), 'digits/client/1')\n"
    )
    environment = {**os.environ, "LAYERSCOPE_URL": str(stack.stack.directory), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)
    assert set(complete(stack, "digits/client/1")["products"]) == PRODUCTS


def heard(stack: RealStack, subject: str) -> int:
    said = f"admit received io.layerscope.model.uploaded.v1 of {subject},"
    return sum(line["message"].startswith(said) for line in stack.log("admit"))
