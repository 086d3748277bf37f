"""The keys of a recipe, in groups: each with its type, its default, and what it says.

The first sentence is what `--help` shows; the reference page has all of it.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from graftune.config.described import RATE, USUAL, Group, key


class General(Group):
    """What is run"""

    method: str | None = key(None, "The method to train.", "train", metavar="NAME", usual="lora, of rank 8")
    base: str = key(
        "tiny-decoder",
        "A Transformers folder, a Hub name, or a shipped base. The Hub name is `owner/model`.",
        *USUAL, "evaluate", "generate", metavar="DIR|NAME",
    )  # fmt: skip
    task: str = key(
        "generate",
        "generate, translate, summarize, instruct, classify, multi-label, cloze, tag, extract, regress, image-classify "
        "or detect. What each one does, its columns and its options are in [tasks.md](tasks.md).",
        *USUAL, "evaluate", "generate", metavar="NAME",
    )  # fmt: skip
    seed: int = key(0, "Seed of data order, start values and drawn examples.", ge=0, lt=2**32)
    threads: int | None = key(None, "CPU threads.", "train", "compare", "evaluate", "generate", usual="torch's", ge=1)
    processes: int | None = key(None, "Processes that tokenise a large data set.", usual="all cores", ge=1)
    trackers: list[str] = key(
        list, "Trackers that get the curve, such as tensorboard or wandb. Through Accelerate.", metavar="A,B"
    )


class Data(Group):
    """Data"""

    train: str | None = key(
        None,
        "Training data: a file or folder in any usual format, or a Hub data set name[@config][:split]. "
        "The formats are in [data.md](data.md).",
        metavar="FILE", usual="sample data",
    )  # fmt: skip
    eval: str | None = key(
        None,
        "Evaluation data, or a share of the training rows.",
        *USUAL, "evaluate", metavar="FILE|SHARE", usual="0.1",
    )  # fmt: skip
    input: str | None = key(
        None, "Column with the inputs.", *USUAL, "evaluate", "generate", metavar="COLUMN", usual="guessed from its name"
    )
    target: str | None = key(
        None, "Column with the targets.", *USUAL, "evaluate", metavar="COLUMN", usual="guessed from its name"
    )
    train_rows: int | None = key(None, "So many training rows, drawn by the seed.", usual="all", ge=1)
    eval_rows: int | None = key(
        None, "So many evaluation inputs, the same ones for every seed.", *USUAL, "evaluate", usual="all", ge=1
    )
    bad_rows: float = key(
        0.01,
        "Share of a file's lines that may be unusable. They are left out, counted and named; more are an error.",
        *USUAL, "evaluate", ge=0, lt=1,
    )  # fmt: skip
    max_length: int | None = key(
        None,
        "Longest sequence in tokens. Only the input is cut, and the number of cut inputs is told.",
        usual="the base's positions", ge=1,
    )  # fmt: skip


class Training(Group):
    """Training"""

    batch_size: int = key(16, "Rows a step.", *USUAL, "evaluate", "generate", ge=1)
    max_steps: int | None = key(None, "Length of training in steps. It excludes `epochs`.", ge=1)
    epochs: float | None = key(None, "Length of training in passes over the training rows.", usual="3", gt=0)
    lr: float | None = key(
        None, "Peak learning rate. A section's own `lr` wins.", metavar="RATE", usual="the method's usual one", **RATE
    )
    head_lr: float | None = key(
        None, "Peak learning rate of a new head.", metavar="RATE", usual="that of a linear probe", **RATE
    )
    schedule: Literal["linear", "cosine", "constant"] = key(
        "linear", "How the rate goes on after the warm-up: linear or cosine to zero, or constant.", metavar="NAME"
    )
    warmup: float = key(0.06, "Share of the steps with a rising rate.", ge=0, lt=1)
    label_smoothing: float = key(
        0.0, "Share of each target's probability that is spread over all classes. In training only.", ge=0, lt=1
    )
    weight_decay: float = key(0.0, "Weight decay of tensors of two dimensions and more.", ge=0)
    clip: float = key(1.0, "Largest norm of the gradient.", gt=0)
    eval_every: int | None = key(
        None, "Steps between points of the evaluation curve.", usual="an eighth of the steps", ge=1
    )
    checkpoint_every: int | None = key(
        None,
        "Steps between checkpoints. One is always written on Ctrl-C.",
        "train", usual="as `eval_every`", ge=1,
    )  # fmt: skip
    patience: int | None = key(
        None, "Stop after so many evaluations without a lower loss. The best adapter is kept.", usual="never", ge=1
    )
    keep_best: bool = key(False, "Give back the adapter of the lowest evaluation loss.")


class Memory(Group):
    """Precision and memory"""

    precision: Literal["fp32", "bf16", "auto"] = key(
        "auto",
        "Precision of the base: fp32, bf16 or auto. Auto is bf16 where the hardware multiplies it natively; adapters "
        "and trained copies are kept in fp32.",
        *USUAL, "evaluate", "generate", metavar="NAME",
    )  # fmt: skip
    quantize: Literal["int8", "nf4"] | None = key(
        None,
        "Frozen weights in 8 bits (int8) or in 4 (nf4). int8 is torchao's; nf4 is bitsandbytes's and needs CUDA. For "
        "methods that leave these weights alone.",
        *USUAL, "evaluate", "generate", metavar="NAME", usual="neither",
    )  # fmt: skip
    products: Literal["auto", "onednn", "torch"] = key(
        "auto",
        "Who multiplies fp32 matrices on a CPU: onednn, torch or auto. Auto is oneDNN where torch would use MKL on a "
        "processor that is not Intel's.",
        metavar="NAME",
    )
    micro_tokens: int | None = key(
        None,
        "Tokens of a micro-batch. The gradient does not depend on it ([training.md](training.md)).",
        usual="by device and width", ge=1,
    )  # fmt: skip
    gradient_checkpointing: bool = key(False, "Compute activations again in the backward pass: less memory, more time.")
    cache_trunk: bool = key(True, "Keep what frozen layers below the trained ones give.")
    cache_memory: float = key(2.0, "GiB of memory for that.", ge=0)
    cache_disk: float = key(8.0, "GiB of disk for that.", ge=0)
    shard: bool = key(
        False, "Spread the frozen base over the processes. See [distributed.md](distributed.md).", "train"
    )


class Compare(Group):
    """A comparison"""

    methods: list[str] | None = key(
        None,
        "Methods with commas between, also with options: lora,lora(rank=64).",
        "compare", metavar="A,B,C", usual="all",
    )  # fmt: skip
    effort: Literal["none", "quick", "normal", "thorough"] | None = key(
        None,
        "How much is spent on finding rates: none, quick, normal or thorough. See [comparison.md](comparison.md).",
        "compare", metavar="NAME", usual="normal; quick on sample data",
    )  # fmt: skip
    seeds: int | None = key(
        None,
        "How many seeds are reported, from `seed` upward.",
        "compare", usual="1 with none or quick, 3 with normal, 6 with thorough", ge=1,
    )  # fmt: skip
    known: dict[str, Annotated[float, Field(**RATE)]] = key(
        dict, "A rate that is not searched for.", "compare", metavar="METHOD.lr=RATE"
    )
    limit: dict[str, str] = key(
        dict, "What you can afford: stored=1MB, memory=2GB or ms=20.", "compare", metavar="KIND=SIZE"
    )
    rows: list[int | Literal["all"]] = key(
        list, "Numbers of training rows for curves over them.", "compare", metavar="50,200,all"
    )
    group: str | None = key(
        None, "Column of groups, a fifth of which are never trained on.", "compare", metavar="COLUMN"
    )
    test: str | None = key(None, "One more file to report on.", "compare", metavar="FILE")
    neutral: str | None = key(
        None,
        "Text file of passages to measure forgetting on, with blank lines between them.",
        "compare", metavar="FILE", usual="those of the package",
    )  # fmt: skip
    search: Literal["grid", "optuna"] = key(
        "grid",
        "How a rate is searched: grid, or optuna for a rate and the options in `space` together. See "
        "[comparison.md](comparison.md).",
        "compare", metavar="NAME",
    )  # fmt: skip
    space: dict[str, Any] = key(
        dict,
        "Options that Optuna searches: values in brackets, or {low: 0, high: 0.2}.",
        "compare", metavar="METHOD.OPTION=VALUES",
    )  # fmt: skip
    trials: int | None = key(
        None,
        "Short runs of a candidate whose options are searched.",
        "compare",
        usual="four times the rates of the grid",
        ge=1,
    )
    workers: Annotated[int, Field(ge=0)] | Literal["ray"] | None = key(
        None,
        "Trials at a time, or ray. With 0 they run in this process, and peak memory depends on what ran before.",
        "compare", metavar="N|ray", usual="1",
    )  # fmt: skip


#: The groups by the name that their keys may stand below in a file; those of the first stand alone.
GROUPS: Final[dict[str, type[Group]]] = {
    "": General,
    "data": Data,
    "training": Training,
    "memory": Memory,
    "compare": Compare,
}

#: Every key's name.
KEYS: Final = frozenset(name for group in GROUPS.values() for name in group.model_fields)


def group_of(name: str) -> str | None:
    """The name of the group that has a key; None for what is no key."""
    return next((group for group, keys in GROUPS.items() if name in keys.model_fields), None)
