"""The command line. Every command prints for people, or with `--json` for programs; errors say what to do.

Exit status: 0 done, 1 it failed or was refused, 2 the command was not understood, 3 there is no such system. Of `check`:
1 a requirement does not hold, 2 that cannot be told.
"""

from __future__ import annotations

import asyncio
import io
import shlex
import sys
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from layerscope import (
    check_command,
    classes_command,
    client,
    common_probe_command,
    dead_letters_command,
    index_command,
    leaderboard_command,
    predict_command,
    replay_command,
    similar_command,
    split_command,
    systems,
    terminal,
)
from layerscope.console import err, out, print_answer, print_json, say
from layerscope.options import At, Data, Deep, Images, Json, Name, Services
from layerscope.schemas.datasets import PartName
from layerscope.schemas.errors import LayerscopeError, Refused
from layerscope.schemas.identity import Identity, KeyRefused, identify
from layerscope.schemas.queries import ModelAnswer, ModelList
from layerscope.stack.programs import ServerError
from layerscope.stack.supervisor import AlreadyRunning
from layerscope.systems import Embedded, Located, NoSystem, Stack

T = TypeVar("T")
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
datasets_app = typer.Typer(no_args_is_help=True, help="The datasets that models are analysed on.")
app.add_typer(replay_command.app, name="replay")
app.add_typer(index_command.app, name="index")
app.add_typer(dead_letters_command.app, name="dead-letters")
app.add_typer(datasets_app, name="datasets")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"layerscope {version('layerscope')}")
        raise typer.Exit


@app.callback(help=__doc__)
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="print which version this is")
    ] = False,
) -> None:
    """Take what stands before the command."""


@app.command()
def demo(data: Data = None) -> None:
    """Train small networks on digits, upload them, and show what comes of it; no server, one process."""
    from layerscope.demo.demo import Showcase  # torch

    system = systems.make_embedded(data or systems.default_directory(systems.DEMO_DIRECTORY))
    say(f"system: {system.directory}")
    systems.remember(system, say)
    if not asyncio.run(Showcase(system.directory, out).run()):
        raise typer.Exit(1)


@app.command()
def up(
    data: Data = None,
    detach: Annotated[bool, typer.Option("--detach", help="return once it is ready")] = False,
    secure: Annotated[bool, typer.Option("--secure", help="TLS, a user for Kafka, buckets of other names")] = False,
) -> None:
    """Run the real stack here: MinIO, Kafka, Redis, Milvus Lite, every function and the data plane."""
    from layerscope.stack import local_stack

    made = systems.make_stack(data or systems.default_directory(systems.STACK_DIRECTORY), secured=secure)
    if detach:
        local_stack.start(made, say)  # which runs this command once more
        return
    say(f"system: {made.directory}")
    systems.remember(made, say)
    local_stack.run(made, say)


@app.command()
def down(data: Data = None) -> None:
    """Stop the real stack; its data stays."""
    from layerscope.stack import local_stack

    found = systems.find_stack(data)
    if found is None:
        say("there is no stack to stop")
        return
    say(found.sentence)
    assert isinstance(found.system, Stack)
    say("stopped" if local_stack.stop(found.system.directory, say) else "it does not run")


@app.command()
def init(at: Services = None) -> None:
    """Make what is missing of buckets, notifications, topics and the dataset digits.

    Without --at, the services are those that the environment names, as in the Job on a cluster.
    """
    from layerscope.functions.runtime.services import connect, embedded
    from layerscope.functions.runtime.settings import Settings
    from layerscope.initialise import initialise

    if at is None:
        import os

        settings = Settings.read(os.environ)
        say(f"system: {settings.s3_endpoint} and what else the environment names")
        initialise(connect(settings), say, settings)
    elif "://" in at:
        raise NoSystem(f"--at is a folder here, not {at}: a system elsewhere is prepared where its services are named")
    else:
        system = systems.make_embedded(Path(at))
        say(f"system: {system.directory}")
        initialise(embedded(system.directory), say)
        systems.remember(system, say)


@app.command()
def env(at: At = None, as_json: Json = False) -> None:
    """Print what an S3 client needs: `eval "$(layerscope env)"`. It holds the secret key."""
    environment = _running_stack(at).client_environment()
    if as_json:
        print_json(environment)
    else:
        for name, value in environment.items():
            typer.echo(f"export {name}={shlex.quote(value)}")


@app.command()
def status(
    at: At = None,
    watch: Annotated[bool, typer.Option("--watch", help="again and again, until Ctrl-C")] = False,
    as_json: Json = False,
) -> None:
    """Say how a system fares: processes, what waits, the oldest unserved upload, repair, dead letters, replays."""
    from layerscope import status_command

    asking = status_command.Asking(systems.locate(at))
    try:
        if watch:
            status_command.watch(lambda: asyncio.run(asking.look()), out, as_json=as_json)
        else:
            told = asyncio.run(asking.look())
            print_answer(told.as_json(), status_command.shown(told), as_json)
    finally:
        asking.close()


@app.command()
def doctor(at: Services = None, as_json: Json = False, deep: Deep = False) -> None:
    """Say what is missing, in the order in which to mend it, and how.

    In a pod, or wherever the environment names the services and no --at is given, it is those that are looked at.
    """
    import os

    from layerscope.doctor import stored_objects
    from layerscope.doctor.examination import examine

    marks = {True: ("ok  ", None), False: ("FAIL", "red"), None: ("-   ", "dim")}
    findings = []
    for one in chain(examine(at, os.environ, say), stored_objects.examine(at, os.environ) if deep else ()):
        findings.append(one)
        if not as_json:
            mark, style = marks[one.ok]
            out.print(f"{mark} {one.check}: {one.found}", style=style, markup=False)
            if one.ok is False:
                out.print("\n".join(f"     {line}" for line in one.advice.splitlines()), style="cyan", markup=False)
    if as_json:
        print_json([one.as_dict() for one in findings])
    if any(one.ok is False for one in findings):
        raise typer.Exit(1)


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    name: Name,
    at: At = None,
    architecture: Annotated[
        str | None, typer.Option(help="what a state dict belongs to: a name such as resnet18, or a JSON file of blocks")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(metavar="DATASET/MODEL/VERSION", help="the stored version whose layers a state dict has"),
    ] = None,
    images: Images = None,
    history: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="log of its training")] = None,
    wait: Annotated[float, typer.Option(help="seconds to wait for its products; 0: do not wait")] = 600,
    as_json: Json = False,
) -> None:
    """Put a model file into the bucket, wait for its analysis, and show it."""
    from layerscope.sidecars import sidecar_files

    if as_json and not wait:
        raise ValueError("--json prints the analysis, for which --wait 0 does not wait: leave one of them out")
    if like is not None and architecture is not None:
        raise ValueError("--like and --architecture both say what the file's layers are: leave one of them out")
    system, identity = systems.locate(at), Identity.parse(name)
    identify(f"{identity.subject}{file.suffix}")
    sidecars = sidecar_files(Identity.parse(like).subject if like else architecture, history, images)
    asyncio.run(client.upload(system, identity, file, file.suffix, say, sidecars=sidecars))
    if wait:
        answer = asyncio.run(_outcome(system, identity, wait))
        print_answer(answer, terminal.model(answer), as_json)
        if answer.state != "complete":
            raise typer.Exit(1)


@app.command()
def pack(
    target: Annotated[str, typer.Argument(metavar="MODULE:OBJECT", help="your module, or a function that returns it")],
    to: Annotated[Path, typer.Option("--out", help="file to write")] = Path("model.safetensors"),
    images: Images = None,
) -> None:
    """Write a model of your own code in the safe form. This imports your module, in this process."""
    from layerscope.packer import pack_object

    sys.path.insert(0, str(Path.cwd()))
    content = pack_object(target, images)
    to.write_bytes(content)
    say(f"wrote {to} ({len(content):,} bytes)")


@app.command()
def inspect(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, metavar="FILE...")],
    architecture: Annotated[
        str | None, typer.Option(help="what a state dict belongs to: a name such as resnet18, or a JSON file of blocks")
    ] = None,
    images: Images = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON: of several files, a line each")] = False,
) -> None:
    """Tell what is in model files, and whether they would be taken; nothing in them is executed, and nothing is sent."""
    if not asyncio.run(_inspect(files, architecture, images, as_json)):
        raise typer.Exit(1)


async def _inspect(files: list[Path], architecture: str | None, images: str | None, as_json: bool) -> bool:
    """Print what is in each file as soon as it is read; return whether all would be taken."""
    from layerscope import confined_inspection

    taken = 0
    async for found in confined_inspection.inspect(files, architecture, images):
        taken += found.would_be_admitted
        if len(files) == 1:
            print_answer(found, terminal.inspection(found), as_json)
        elif as_json:
            typer.echo(found.model_dump_json())
        else:
            out.print(terminal.inspection_line(found))
    if len(files) > 1 and not as_json:
        say(f"{taken} of {len(files)} would be admitted")
    return taken == len(files)


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(metavar="[DATASET/MODEL/VERSION]")] = None,
    at: At = None,
    as_json: Json = False,
) -> None:
    """Show one model version, or a list of all."""
    system = systems.locate(at)
    if name is None:
        listed = ModelList.model_validate(asyncio.run(_get(system, "/models")))
        print_answer(listed, terminal.models(listed.models), as_json)
    else:
        answer = ModelAnswer.model_validate(asyncio.run(_get(system, client.model_path(Identity.parse(name)))))
        print_answer(answer, terminal.model(answer), as_json)


@app.command()
def why(
    name: Name,
    product: Annotated[str | None, typer.Argument(metavar="[PRODUCT]", help="one product; else all of them")] = None,
    at: At = None,
    as_json: Json = False,
) -> None:
    """Follow an upload to where it stands, and say what would help."""
    from layerscope import why_command

    found = asyncio.run(why_command.asked(systems.locate(at), Identity.parse(name), product))
    print_answer(found, why_command.shown(found), as_json)


@app.command()
def serve(
    at: At = None, port: Annotated[int | None, typer.Option(min=1, max=65535, help="by default 8080")] = None
) -> None:
    """Show the pages of a system that is one directory, until Ctrl-C. The real stack has them at its URL."""
    system = systems.locate(at)
    if not isinstance(system, Embedded):
        if port is not None:
            raise ValueError(f"--port is for a system that is one directory; this one has its pages at {system.url}")
        out.print(f"open {system.url}/models")
        return
    from layerscope.local_pages import run

    out.print(f"open http://127.0.0.1:{port or 8080}/models", markup=False)
    run(system.directory, port or 8080)


@app.command()
def export(
    name: Name,
    to: Annotated[Path | None, typer.Option("--out", help="file to write; by default MODEL-VERSION.html")] = None,
    at: At = None,
) -> None:
    """Write a model's page as one HTML file that needs nothing else."""
    from layerscope.export import page

    identity = Identity.parse(name)
    path = to or Path(f"{identity.model}-{identity.version}.html")
    system = systems.locate(at)

    async def made() -> str:
        async with client.querying(system) as query:
            return await page(client.object_store(system), query, identity)

    content = asyncio.run(made()).encode()
    path.write_bytes(content)
    say(f"wrote {path} ({len(content):,} bytes)")


app.command()(check_command.check)
app.command()(predict_command.predict)
app.command()(leaderboard_command.leaderboard)
app.command()(leaderboard_command.versions)
app.command()(similar_command.similar)
app.command()(similar_command.depths)
app.command()(similar_command.alike)
app.command()(split_command.split)
app.command()(classes_command.classes)
datasets_app.command("renew-common")(common_probe_command.renew_common)


@datasets_app.command("list")
def datasets_list(at: At = None, as_json: Json = False) -> None:
    """List the datasets."""
    from layerscope.diagnosis import datasets_of

    print_answer(*datasets_of(client.object_store(systems.locate(at))), as_json)


@datasets_app.command("add")
def datasets_add(
    name: Annotated[str, typer.Argument(help="mnist, fashion_mnist, cifar10, cifar100, svhn, emnist, or your own")],
    root: Annotated[Path | None, typer.Option(help="where torchvision keeps its datasets, or may put this one")] = None,
    download: Annotated[bool | None, typer.Option(help="fetch what is not in --root (by default) or not")] = None,
    folder: Annotated[Path | None, typer.Option(exists=True, file_okay=False, help="of test/CLASS/*.png")] = None,
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH that pictures of --folder are brought to")] = None,
    test: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help=".npz of images and labels")] = None,
    classes: Annotated[str | None, typer.Option(help="names, comma-separated, in the order of the labels")] = None,
    train: Annotated[Path | None, typer.Option(exists=True, dir_okay=False)] = None,
    probe: Annotated[Path | None, typer.Option(exists=True, dir_okay=False)] = None,
    mean: Annotated[str | None, typer.Option(help="of each channel, comma-separated, of pixels scaled to 0..1")] = None,
    std: Annotated[str | None, typer.Option(help="likewise")] = None,
    at: At = None,
) -> None:
    """Add a dataset: one that torchvision knows, a folder of pictures, or arrays.

    Arrays are .npz files with `images` (uint8 NHWC or NHW) and `labels`.
    """
    from layerscope.datasets.sources import add

    system = systems.locate(at)
    parts: dict[PartName, Path | None] = {"test": test, "train": train, "probe": probe}
    given = {part: path for part, path in parts.items() if path is not None}
    made = add(
        client.object_store(system),
        name,
        given,
        root=root,
        folder=folder,
        size=size,
        classes=classes,
        mean=mean,
        std=std,
        download=download,
        say=say,
    )
    say(f"added {name}: " + ", ".join(f"{part} {one.images:,}" for part, one in sorted(made.parts.items())))
    if made.common is not None and name not in made.common.sources:
        say(common_probe_command.advice(made.common, name))
    if isinstance(system, Embedded):
        asyncio.run(client.settle(system, say))


def main() -> None:
    """Run the command line, and end with a sentence where something is wrong."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a locale without our signs is no reason to end
    try:
        app()
    except NoSystem as error:
        _end(str(error), status=3)
    except Refused as error:
        _end(f"{error.message}\n{error.hint}".strip())
    except (LayerscopeError, KeyRefused, ServerError, AlreadyRunning, TimeoutError) as error:
        _end(str(error))
    except OSError as error:  # a folder that cannot be written, a full disk
        _end(f"{error.filename or 'this machine'}: {error.strerror or error}")
    except ValueError as error:
        _end(str(error), status=2)


async def _get(system: Located, path: str, **parameters: Any) -> Any:
    async with client.querying(system) as query:
        return await client.get(query, path, **parameters)


async def _outcome(system: Located, identity: Identity, seconds: float) -> ModelAnswer:
    async with client.querying(system) as query:
        return await client.outcome(query, identity, seconds, say)


def _running_stack(at: str | None) -> Stack:
    from layerscope.stack.local_stack import is_running

    system = systems.locate(at)
    if not isinstance(system, Stack):
        raise NoSystem("only a stack that `layerscope up` made has an environment to print")
    if not is_running(system.directory):
        again = f"`layerscope up --detach --data {shlex.quote(str(system.directory))}` starts it"
        raise LayerscopeError(f"the stack of {system.directory} does not run: {again}")
    return system


def _end(message: str, status: int = 1) -> NoReturn:
    err.print(message, style="red", markup=False)
    sys.exit(status)


if __name__ == "__main__":
    main()
