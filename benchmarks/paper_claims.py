"""Claims of the papers on small bases, each as a comparison under the protocol of docs/comparison.md.

    python benchmarks/paper_claims.py prefix --data DATA --out runs/claims

DATA has the folders e2e, pros_cons and ncbi_disease with train.jsonl and dev.jsonl. Each candidate of a claim is at the
best rate that is found for it. What is claimed of two candidates holds where the 95 % interval of their difference, by
the bootstrap over seeds and rows, is above zero, fails where it is below, and is open otherwise. What is claimed to be
level is level where the interval is within twice the margin. OUT/NAME is the comparison; docs/results/claim-NAME.md is
made of it by `--publish`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from graftune.comparison import results, table
from graftune.comparison.compare import compare
from graftune.comparison.verdict import difference

Relation = Literal["above", "level with"]


@dataclass(frozen=True)
class Claim:
    """What a paper says, the data and keys it is looked at with, the candidates, and what is expected of pairs."""

    says: str
    data: str
    candidates: tuple[str, ...]
    expected: tuple[tuple[str, Relation, str], ...]
    keys: Mapping[str, Any]


TABLES = {"base": "tiny-decoder", "task": "generate", "batch_size": 16, "max_steps": 120, "train_rows": 2000}
TABLES |= {"input": "table", "target": "text", "eval_rows": 60}
PHRASES = {"base": "tiny-encoder", "task": "classify", "batch_size": 16, "max_steps": 150, "train_rows": 3000}
PHRASES |= {"eval_rows": 1000}
#: Words of the task, and as many that have nothing to do with it.
TASK_WORDS = "table of a restaurant: name; food; price; area; rating; near. In one sentence:"
OTHER_WORDS = "winter of an engine: stone; milk; seven; door; slowly; upon. By some mountain:"
RANDOM, OTHER, OWN = (
    "prefix(reparameterize=false, length=20)",
    f"prefix(reparameterize=false, text={OTHER_WORDS})",
    f"prefix(reparameterize=false, text={TASK_WORDS})",
)
#: Where six trained rows are, and a word among them.
FRONT, BEHIND, AROUND, ANCHORED = (
    f"p-tuning(pattern='{pattern}')"
    for pattern in ("{P:6}{input}", "{input}{P:6}", "{P:3}{input}{P:3}", "{P:3}{input}{P:2} opinion{P:1}")
)

CLAIMS: dict[str, Claim] = {
    "prefix": Claim(
        "Rows in every attention beat rows in the embeddings alone, and more rows do not rescue these "
        "(Q1; Li and Liang 2021, table 4)",
        "e2e",
        ("prompt(length=10)", "prompt(length=20)", "prefix(length=5)", "prefix(length=20)"),
        (
            ("prefix(length=5)", "above", "prompt(length=10)"),
            ("prefix(length=20)", "above", "prompt(length=20)"),
            ("prompt(length=20)", "level with", "prompt(length=10)"),
        ),
        TABLES,
    ),
    "words": Claim(
        "With little data a prefix that starts from words beats a random one, words of the task the most "
        "(Q5; Li and Liang 2021, figure 5)",
        "e2e",
        (RANDOM, OTHER, OWN),
        ((OTHER, "above", RANDOM), (OWN, "above", OTHER)),
        {**TABLES, "train_rows": 200, "max_steps": 60},
    ),
    "length": Claim(
        "Quality rises with the number of rows, then falls (Q6; Li and Liang 2021, figure 4)",
        "pros_cons",
        tuple(f"p-tuning-v2(length={n})" for n in (1, 5, 20, 100)),
        (
            ("p-tuning-v2(length=5)", "above", "p-tuning-v2(length=1)"),
            ("p-tuning-v2(length=20)", "above", "p-tuning-v2(length=100)"),
        ),
        {**PHRASES, "train_rows": 500},
    ),
    "rows": Claim(
        "With few rows a prefix from words is above full fine-tuning, and the gap shrinks with the rows "
        "(Q7; Li and Liang 2021, figure 3)",
        "e2e",
        (OWN, "full"),
        ((OWN, "above", "full"),),
        {**TABLES, "max_steps": 60, "train_rows": 500, "rows": [50, 100, 200, "all"]},
    ),
    "budget": Claim(
        "With very few parameters a prefix is above an adapter, with many the adapter on the FFN is above the prefix "
        "(Q9; He et al. 2022, section 4.4)",
        "e2e",
        ("prefix(length=1)", "pfeiffer(bottleneck=1)", "prefix(length=50)", "parallel(bottleneck=64)"),
        (
            ("prefix(length=1)", "above", "pfeiffer(bottleneck=1)"),
            ("parallel(bottleneck=64)", "above", "prefix(length=50)"),
        ),
        TABLES,
    ),
    "start": Claim(
        "On small models a prompt that starts from class labels is above one from the vocabulary, and this above a "
        "random one (Q11; Lester et al. 2021, figure 3b)",
        "pros_cons",
        tuple(f"prompt(init={init})" for init in ("random", "vocabulary", "labels")),
        (
            ("prompt(init=labels)", "above", "prompt(init=vocabulary)"),
            ("prompt(init=vocabulary)", "above", "prompt(init=random)"),
        ),
        PHRASES,
    ),
    "size": Claim(
        "Adapters from 8 to 256 are of one quality, and a start of more than 1e-2 hurts "
        "(Q12; Houlsby et al. 2019, section 3.6)",
        "pros_cons",
        (
            "houlsby(bottleneck=8)",
            "houlsby(bottleneck=64)",
            "houlsby(bottleneck=256)",
            "houlsby(bottleneck=64, std=0.5)",
        ),
        (
            ("houlsby(bottleneck=64)", "level with", "houlsby(bottleneck=8)"),
            ("houlsby(bottleneck=256)", "level with", "houlsby(bottleneck=64)"),
            ("houlsby(bottleneck=64)", "above", "houlsby(bottleneck=64, std=0.5)"),
        ),
        PHRASES,
    ),
    "scale": Claim(
        "The scale of an adapter matters: 4 is above 1 (Q13; He et al. 2022, section 4.6)",
        "e2e",
        ("parallel(scale=1)", "parallel(scale=4)", "lora(alpha=8)", "lora(alpha=32)"),
        (("parallel(scale=4)", "above", "parallel(scale=1)"), ("lora(alpha=32)", "above", "lora(alpha=8)")),
        TABLES,
    ),
    "rank": Claim(
        "LoRA on q and v is of one quality from rank 1 to 64, and q alone is worse "
        "(Q14; Hu et al. 2021, tables 5 and 6)",
        "e2e",
        ("lora(rank=1)", "lora(rank=8)", "lora(rank=64)", "lora(rank=8, targets=[q])"),
        (
            ("lora(rank=8)", "level with", "lora(rank=1)"),
            ("lora(rank=64)", "level with", "lora(rank=8)"),
            ("lora(rank=8)", "above", "lora(rank=8, targets=[q])"),
        ),
        TABLES,
    ),
    "positions": Claim(
        "Where the trained rows of P-tuning lie, and words as anchors among them, matter, and a frozen small model "
        "does not reach fine-tuning (Q15; Liu et al. 2021, section 4)",
        "pros_cons",
        (FRONT, BEHIND, AROUND, ANCHORED, "full"),
        ((AROUND, "above", FRONT), (AROUND, "above", BEHIND), (ANCHORED, "above", AROUND), ("full", "above", AROUND)),
        PHRASES,
    ),
    "groups": Claim(
        "On topics that were never trained on, prefix, adapter and LoRA are above full fine-tuning, which is ahead on "
        "the others (Q8; Li and Liang 2021, section 6.4)",
        "e2e",
        ("prefix", "houlsby", "lora", "full"),
        (("full", "above", "prefix"), ("full", "above", "lora")),
        {**TABLES, "group": "food"},
    ),
}


def prepared(claim: Claim, data: Path, out: Path) -> dict[str, Any]:
    """The keys of the comparison. For groups the kind of food of each table becomes a column."""
    files = {name: data / claim.data / f"{split}.jsonl" for name, split in (("train", "train"), ("eval", "dev"))}
    if "group" in claim.keys:
        for name, file in files.items():
            rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            cells = [dict(cell.split(" : ", 1) for cell in row["table"].split(" | ")) for row in rows]
            found = [{**row, "food": cell["food"]} for row, cell in zip(rows, cells, strict=True) if "food" in cell]
            files[name] = out / f"{name}.jsonl"
            files[name].parent.mkdir(parents=True, exist_ok=True)
            files[name].write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return {**claim.keys, **{name: str(file) for name, file in files.items()}}


def seen(claim: Claim, comparison: results.Comparison) -> list[str]:
    """What came out of each pair, in words."""
    said = []
    for first, relation, second in claim.expected:
        found = difference(comparison, first, second)
        if found is None:
            said.append(f"{first} {relation} {second}: not measured")
            continue
        margin = 0.01 * (1 if abs(found.mean) < 1 and comparison.header.metric != "bleu" else 100)
        if relation == "above":
            word = "holds" if found.low > 0 else "does not hold" if found.high < 0 else "open"
        else:
            inside = max(abs(found.low), abs(found.high)) <= 2 * margin
            word = "holds" if inside else "does not hold" if found.low > 0 or found.high < 0 else "open"
        interval = f"{found.mean:+.3g} ({found.low:+.3g} to {found.high:+.3g})"
        said.append(f"{first} {relation} {second}: **{word}**, {interval}")
    return said


def text(claim: Claim, comparison: results.Comparison) -> str:
    """The claim, what came out of it, and the table."""
    own = table.markdown(comparison)
    more = _unseen(comparison) if "group" in claim.keys else []
    return "\n".join([f"# {claim.says}", "", *(f"- {one}" for one in [*seen(claim, comparison), *more]), "", own])


def _unseen(comparison: results.Comparison) -> list[str]:
    """The score on groups that were trained on and on the others, by method."""
    lines = []
    for label in dict.fromkeys(run.label for run in comparison.reported):
        own = [run for run in comparison.reported if run.label == label and run.status == "done"]
        means = [
            sum(run.metrics[f"{comparison.header.metric} {word}"] for run in own) / len(own)
            for word in ("seen", "unseen")
        ]
        lines.append(f"{label}: {means[0]:.1f} on groups that were trained on, {means[1]:.1f} on others")
    return lines


def main(
    name: Annotated[str, typer.Argument(help=", ".join(CLAIMS))],
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")],
    out: Annotated[Path, typer.Option(help="Folder of the comparisons.")],
    publish: Annotated[Path | None, typer.Option(help="Folder that the table is written to.")] = None,
    effort: Annotated[str, typer.Option(help="As in a comparison.")] = "quick",
    seeds: Annotated[int, typer.Option(min=1, help="Reported seeds.")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Trials at a time.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each.")] = 1,
) -> None:
    """Compare, and say what came out of the claim."""
    claim = CLAIMS[name]
    keys = prepared(claim, data, out / f"{name}-data")
    more = {"effort": effort, "seeds": seeds, "workers": workers, "threads": threads}
    base = keys.pop("base")
    compare(base, list(claim.candidates), out=out / name, say=lambda said: typer.echo(said, err=True), **keys, **more)
    found = text(claim, results.load(out / name))
    typer.echo(found)
    if publish is not None:
        (publish / f"claim-{name}.md").write_text(found, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
