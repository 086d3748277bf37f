"""Data sets of the Hub: `name[@config][:split]`."""

from __future__ import annotations

from graftune.datasets.sources.arrow import ArrowRecords
from graftune.datasets.sources.records import Records
from graftune.errors import GraftuneError


def read(source: str, files: str) -> Records:
    """The split `train` where none is named. Raises GraftuneError where it cannot be loaded."""
    import datasets

    name, _, split = source.partition(":")
    name, _, config = name.partition("@")
    try:
        return ArrowRecords(datasets.load_dataset(name, *([config] if config else []), split=split or "train"))
    except Exception as error:  # whatever the connection, the files or their script raise, the name is to be looked at
        found = _config_or_split(source, name, config, split) if isinstance(error, ValueError) else None
        raise found or GraftuneError(
            f"{source!r} is no existing file, and no Hub dataset of that name could be loaded",
            received=f"{type(error).__name__}: {error}",
            expected=f"a {files} file, or a dataset name[@config][:split]",
            do="check the path or the name, the config, the split, and the connection",
        ) from error


def _config_or_split(source: str, name: str, config: str, split: str) -> GraftuneError | None:
    """The error that shows what to type, where the data set is there and the config or the split is not."""
    import datasets

    try:
        configs = datasets.get_dataset_config_names(name)
        asked = [config] if config in configs else configs
        splits = {one: its for one in asked if (its := datasets.get_dataset_split_names(name, one))}
    except (ValueError, OSError, RuntimeError):
        return None  # what was raised first is told then
    if not splits:
        return None
    named = split.partition("[")[0] or "train"
    chosen = next((one for one, its in splits.items() if named in its), next(iter(splits)))
    if named not in splits[chosen]:
        split = splits[chosen][0]
    elif config in configs or (not config and len(configs) == 1):
        return None  # both are right: something else is wrong
    typed = f"{name}@{chosen}" if len(configs) > 1 else name
    return GraftuneError(
        f"the data set {name!r} is read by its config and split",
        received=source,
        expected="; ".join(f"{one} with {', '.join(its)}" for one, its in splits.items()),
        do=f"name one of them, such as {typed}:{split or named}",
    )
