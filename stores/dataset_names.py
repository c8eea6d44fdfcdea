"""Which datasets there are, and what is said of a name that is none: often it is misspelt in an upload's key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from layerscope.schemas import keys
from layerscope.schemas.errors import Refused
from layerscope.stores.object_store import ObjectStore


def dataset_names(store: ObjectStore) -> list[str]:
    """Return the names of the datasets in the bucket."""
    folders = ((one.key, one.key.partition("/")[0]) for one in store.list(keys.DATASETS))
    return sorted(name for key, name in folders if key == keys.dataset_description(name))


def probably_meant(name: str, names: Iterable[str]) -> str | None:
    """Return the name that is written almost like this one; None where there is none."""
    near = difflib.get_close_matches(name, sorted({*names} - {name}), n=1)
    return near[0] if near else None


def no_dataset(store: ObjectStore, name: str, so: str = "") -> Refused:
    """Return the refusal of what needs a dataset that is not there, with the name that was probably meant.

    Args:
        store: where the datasets are.
        name: what it was called.
        so: what follows from it, as the rest of the sentence.
    """
    near = probably_meant(name, dataset_names(store))
    added = f"layerscope datasets add {name} --test test.npz --classes a,b,c"
    hint = f"did you mean {near}? Then upload it as {near}/MODEL/VERSION; or: {added}" if near else added
    return Refused("no-dataset", f"There is no dataset {name!r}{so}.", hint)
