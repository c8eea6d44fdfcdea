"""What a checkout lacks: each missing thing in a sentence, with the command that mends it. `test_wiring.py` asks."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from layerscope.deployment.manifests import files
from layerscope.schemas.products import declared_products

PRODUCTS = [one.declared.name for one in declared_products()]
PARTS = ("__init__.py", "func.py")
MADE_PARTS = ("func.yaml", "pyproject.toml")
BASE = Path("knative/base")
TEMPLATES = Path("functions/query/page/templates/products")


def functions(root: Path) -> list[str]:
    """Return the names of all functions: the folders that hold a func.py."""
    return sorted(path.parent.name for path in root.glob("functions/*/func.py"))


def known(root: Path) -> list[str]:
    """Return the names of all functions, and of products that have no folder yet."""
    return sorted(dict.fromkeys([*functions(root), *PRODUCTS]))


def lacking_folders(root: Path) -> Iterator[str]:
    for name in PRODUCTS:
        for part in PARTS:
            if not (root / "functions" / name / part).exists():
                yield f"the product {name} has no functions/{name}/{part}: {mending(name)}"
    for name in known(root):
        for part in MADE_PARTS:
            if not (root / "functions" / name / part).exists():
                yield f"there is no functions/{name}/{part}: `make manifests` writes it"


def lacking_schemas(root: Path) -> Iterator[str]:
    for name in functions(root):
        if name not in PRODUCTS and "ProductFunction(" in (root / "functions" / name / "func.py").read_text():
            yield (
                f"functions/{name} makes a product that no class in schemas/products declares: "
                f"`make product NAME={name}` writes one"
            )


def lacking_tests(root: Path) -> Iterator[str]:
    for name in known(root):
        path = root / f"tests/functions/test_{name}.py"
        if not path.exists():
            yield f"nothing tests functions/{name}: {mending(name, f'write tests/functions/test_{name}.py')}"
        elif not any(f"{one}.".startswith(f"layerscope.functions.{name}.") for one in imported(path)):
            yield f"tests/functions/test_{name}.py imports nothing of functions/{name}: test what it computes there"
        elif not re.search(r"^(async )?def test_", path.read_text(), re.MULTILINE):
            yield f"tests/functions/test_{name}.py has no test: compare what functions/{name} computes with a reference"


def lacking_readme_rows(root: Path) -> Iterator[str]:
    rows = re.findall(r"^\| `(\w+)` \|", (root / "README.md").read_text(), re.MULTILINE)
    for name in known(root):
        if name not in rows:
            yield f"README.md has no row for {name}: {mending(name, 'add it to the table of functions')}"


def lacking_json_schemas(root: Path) -> Iterator[str]:
    present = sorted(path.stem for path in (root / "schemas/json/products").glob("*.json"))
    yield from (f"there is no JSON Schema of {one}: `make schemas` writes it" for one in PRODUCTS if one not in present)
    for name in present:
        if name not in PRODUCTS:
            yield f"schemas/json/products/{name}.json is of no product: `make schemas` removes it"


def differing_manifests(root: Path) -> Iterator[str]:
    wanted = {f"knative/{name}": text for name, text in files().items()}
    there = [path.relative_to(root).as_posix() for path in (root / BASE).rglob("*.yaml")]
    for name in sorted({*wanted, *there}):
        path = root / name
        if name not in wanted:
            yield f"{name} is of no function: `make manifests` removes it"
        elif not path.exists():
            yield f"there is no {name}: `make manifests` writes it"
        elif path.read_text(encoding="utf-8") != wanted[name]:
            yield f"{name} is not what the declarations lead to: `make manifests` writes it"


def templates_without_product(root: Path) -> Iterator[str]:
    for path in sorted((root / TEMPLATES).glob("*")):
        if path.stem not in PRODUCTS:
            yield f"{TEMPLATES}/{path.name} is of no product, so no page shows it: call it as the product, or remove it"


def mending(name: str, otherwise: str = "write it") -> str:
    """Return what writes what a product lacks; a function that makes none has no skeleton."""
    return f"`make product NAME={name}` writes it" if name in PRODUCTS else otherwise


def imported(path: Path) -> Iterable[str]:
    """Return the modules, and what is imported from them, of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{one.name}" for one in node.names)


CHECKS: tuple[Callable[[Path], Iterator[str]], ...] = (
    lacking_folders,
    lacking_schemas,
    lacking_tests,
    lacking_readme_rows,
    lacking_json_schemas,
    differing_manifests,
    templates_without_product,
)
