"""The images, run as Knative runs them against real servers; for a machine where they are built (docs/images.md).

LAYERSCOPE_IMAGES says what their names begin with, such as localhost/layerscope. Building them takes minutes and a
network, so without it these tests are left out, in CI too; `tests/knative/test_images.py` checks what needs no image.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from layerscope.events.topics import S3_RAW
from layerscope.functions.__main__ import names
from layerscope.stack import roles, servers
from layerscope.stack.ports import free_ports
from layerscope.stack.process import Process
from layerscope.stack.supervisor import Supervisor
from layerscope.systems import MANIFESTS, Stack, make_stack
from tests.containers import Image, buildah, unpacked
from tests.requirements import distribution, pinned
from tests.small_networks import ANALYSED, packed
from tests.stack import ROOT, eventually, s3_client

pytestmark = [
    pytest.mark.services,
    pytest.mark.timeout(3600),
    pytest.mark.skipif("LAYERSCOPE_IMAGES" not in os.environ, reason="LAYERSCOPE_IMAGES names no images"),
]

POD = "127.0.0.2"  # an address of this machine that a server on 127.0.0.1 does not answer at
NOBODY = "1000680000:0"  # as some platforms run containers: a user that no image knows
NOT_CUDAS = ("libtorch_cuda", "libcudart", "libcublas", "libcudnn", "libnccl")
TARGETS = ("base", "compute-cpu", "compute-cuda")
KEY = "a-key-of-the-test"


@dataclass(frozen=True)
class Container:
    """The container of a Service: an image, what its manifest has it run, and the environment that is given there."""

    function: str
    image: str
    command: tuple[str, ...]
    arguments: tuple[str, ...]
    environment: Mapping[str, str]


def containers() -> list[Container]:
    """Return the container of each function, from the first of its Services, with what its ConfigMap holds."""
    documents = list(yaml.safe_load_all(MANIFESTS.read_text()))
    held = {one["metadata"]["name"]: one["data"] for one in documents if one["kind"] == "ConfigMap"}
    found: dict[str, Container] = {}
    for document in documents:
        if document["kind"] == "Service":
            (one,) = document["spec"]["template"]["spec"]["containers"]
            given = {variable["name"]: variable["value"] for variable in one["env"]}
            for source in one["envFrom"]:
                given |= held[source["configMapRef"]["name"]] if "configMapRef" in source else {}
            (function,) = one["args"]
            made = Container(function, one["image"], tuple(one["command"]), tuple(one["args"]), given)
            found.setdefault(function, made)
    return list(found.values())


def built() -> list[str]:
    """Return the targets of which there are images."""
    there = [image["names"] or [] for image in json.loads(buildah("images", "--json"))]
    names_there = {name.rpartition(":")[0] for listed in there for name in listed}
    return [target for target in TARGETS if f"{os.environ['LAYERSCOPE_IMAGES']}-{target}" in names_there]


@pytest.fixture(scope="module")
def images() -> Iterator[Mapping[str, Image]]:
    """Return the images by their targets."""
    with ExitStack() as held:
        prefix = os.environ["LAYERSCOPE_IMAGES"]
        yield {target: held.enter_context(unpacked(f"{prefix}-{target}")) for target in built()}


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Return a folder that a container can write to, whatever its user."""
    return writable(tmp_path / "scratch")


def writable(folder: Path) -> Path:
    folder.mkdir()
    folder.chmod(0o1777)
    for above in folder.parents[:4]:
        above.chmod(0o755)  # pytest's folders are its user's alone
    return folder


def test_every_image_has_a_numeric_user_one_volume_and_labels(images: Mapping[str, Image]) -> None:
    assert "base" in images
    for target, image in images.items():
        assert (image.config["User"], list(image.config["Volumes"])) == ("65532:65532", ["/tmp"]), target
        labels = image.config["Labels"]
        assert labels["org.opencontainers.image.title"] == "layerscope"
        assert labels["org.opencontainers.image.version"] == version_of(image)


def version_of(image: Image) -> str:
    (metadata,) = image.root.glob("opt/layerscope/lib/python3*/site-packages/layerscope-*.dist-info")
    return metadata.name.removeprefix("layerscope-").removesuffix(".dist-info")


def test_the_sbom_lists_what_is_installed_and_pinned(images: Mapping[str, Image]) -> None:
    for target, image in images.items():
        told = json.loads((image.root / "usr/share/sbom/layerscope.cdx.json").read_text())
        assert told["bomFormat"] == "CycloneDX"
        listed = {distribution(one["name"]): one["version"] for one in told["components"]}
        places = image.root.glob("opt/layerscope/lib/python3*/site-packages/*.dist-info")
        assert len(listed) == len({place.name for place in places})
        wanted = pinned("base" if target == "base" else "compute")
        assert listed.pop("layerscope") == version_of(image)
        assert {name for name, found in listed.items() if found.partition("+")[0] not in wanted[name]} == set(), target
        assert ("torch" in listed) == (target != "base")


def test_only_the_image_for_gpus_has_cudas_libraries(images: Mapping[str, Image]) -> None:
    for target, image in images.items():
        held = {one.name for one in (image.root / "opt").rglob("*.so*") if one.name.startswith(NOT_CUDAS)}
        assert bool(held) == (target == "compute-cuda"), target


def test_nothing_can_be_written_but_scratch_and_every_module_is_compiled(
    images: Mapping[str, Image], scratch: Path
) -> None:
    write = "touch /tmp/written && ! touch /written 2>/dev/null && ! touch /opt/layerscope/written 2>/dev/null"
    for target, image in images.items():
        for user in ("", NOBODY):
            done = image.run(scratch, "-c", write, entrypoint=["sh"], user=user)
            assert done.returncode == 0, f"{target}: {done.stderr}"
            (scratch / "written").unlink()
        packages = next(image.root.glob("opt/layerscope/lib/python3*/site-packages/layerscope"))
        sources = list(packages.rglob("*.py"))
        compiled = [one for one in sources if list(one.parent.glob(f"__pycache__/{one.stem}.*.pyc"))]
        assert compiled == sources


def test_an_image_runs_the_command_line_as_any_user(images: Mapping[str, Image], scratch: Path) -> None:
    for target, image in images.items():
        for user in ("", NOBODY):
            done = image.run(scratch, "--help", entrypoint=["layerscope"], user=user)
            assert (done.returncode, "doctor" in done.stdout) == (0, True), f"{target}: {done.stderr}"


@pytest.mark.parametrize("target", TARGETS[1:])
def test_an_upload_leads_to_every_product_in_containers(
    target: str, images: Mapping[str, Image], real_servers: None, tmp_path: Path
) -> None:
    if target not in images:
        pytest.skip(f"there is no image {target}")
    stack = make_stack(tmp_path / "stack")
    with Supervisor(stack.directory) as supervisor:
        supervisor.start(*data_servers(stack))
        roles.grant(stack)
        done = images["base"].run(
            writable(tmp_path / "init"), "init", entrypoint=["layerscope"], given=stack.administrator_environment()
        )
        assert done.returncode == 0, done.stderr
        with functions(supervisor, stack, images, target, tmp_path) as addresses:
            supervisor.start(data_plane(stack, addresses))
            upload(stack, "digits/image/1", packed(1))
            query = httpx.Client(
                base_url=addresses["query"], headers={"authorization": f"Bearer {KEY}"}, trust_env=False, timeout=60
            )
            with query:
                model = eventually(lambda: finished(query, "/models/digits/image/1"), seconds=1800)
    states = {name: line["state"] for name, line in model["products"].items()}
    assert states == dict.fromkeys(ANALYSED, "complete") | {"training_history": "refused"}


def data_servers(stack: Stack) -> tuple[Process, ...]:
    data, ports, held = stack.directory / "data", stack.ports, stack.credentials
    kafka = f"127.0.0.1:{ports['kafka']}"
    return (
        servers.minio(data / "minio", ports["minio"], held.access_key, held.secret_key, kafka, S3_RAW),
        servers.kafka(data / "kafka", ports["kafka"], ports["controller"]),
        servers.redis(data / "redis", ports["redis"], held.redis_password),
        servers.milvus(data / "milvus", ports["milvus"]),
    )


@contextmanager
def functions(
    supervisor: Supervisor, stack: Stack, images: Mapping[str, Image], target: str, folder: Path
) -> Iterator[dict[str, str]]:
    """Start the container of every function; yields their addresses by the names of their Services."""
    made = containers()
    assert {one.function for one in made} == set(names())
    ports = free_ports(2 * len(made))
    addresses = {}
    for one, port, metrics in zip(made, ports[::2], ports[1::2], strict=True):
        image = images["base" if "layerscope-base" in one.image else target]
        service = one.function.replace("_", "-")
        addresses[service] = f"http://{POD}:{port}"
        # Where things are here, what the Secret holds, what Knative sets, and what sharing a machine's cores asks for.
        held = {**stack.function_environment(), "LAYERSCOPE_API_KEY": KEY, "LAYERSCOPE_HOSTS": POD}
        set_by_knative = {"K_SERVICE": service, "PORT": str(port)}
        shared = {"LAYERSCOPE_METRICS_ADDRESS": f"127.0.0.1:{metrics}", "OMP_NUM_THREADS": "1"}
        command = image.command(writable(folder / service), *one.arguments, entrypoint=one.command)
        supervisor.start(
            Process(
                service,
                tuple(command),
                image.environment({**one.environment, **held, **set_by_knative, **shared}),
                partial(is_ready, addresses[service]),
            )
        )
    yield addresses


def data_plane(stack: Stack, addresses: Mapping[str, str]) -> Process:
    (port,) = free_ports(1)
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        **stack.function_environment(),
        "PYTHONPATH": str(ROOT),
        "LAYERSCOPE_FUNCTIONS": json.dumps(addresses),
        "LAYERSCOPE_DATAPLANE_PORT": str(port),
    }
    command = (sys.executable, "-m", "layerscope.dataplane")
    return Process("dataplane", command, environment, partial(is_ready, f"http://127.0.0.1:{port}"))


def is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health/readiness", trust_env=False, timeout=10).is_success
    except httpx.TransportError:
        return False


def upload(stack: Stack, subject: str, body: bytes) -> None:
    environment = stack.client_environment()
    s3_client(environment).put_object(Bucket="models", Key=f"{subject}.safetensors", Body=body)


def finished(query: httpx.Client, path: str) -> dict[str, Any] | None:
    answer = query.get(path)
    if answer.status_code == httpx.codes.NOT_FOUND:
        return None
    model: dict[str, Any] = answer.raise_for_status().json()
    return model if model["state"] in ("complete", "failed", "refused") else None
