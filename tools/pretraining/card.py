"""Export: the Transformers folder that ships, its figures in ``pretraining.json``, and a model card made from them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import torch
import typer
from tokenizers import Tokenizer, processors
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from pretraining import baselines
from pretraining.architectures import CONTEXT
from pretraining.heldout import Figures
from pretraining.loop import Plan
from pretraining.text import END, MASK, PAD, Corpus

FIGURES = "pretraining.json"


def export(
    model: PreTrainedModel,
    kind: str,
    corpus: Corpus,
    plan: Plan,
    curve: list[dict[str, Any]],
    work: Path,
    out: Path,
    evaluate: Callable[[], Figures],
) -> None:
    """Write weights (bf16), tokenizer, figures and card. The figures are those of the rounded weights."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    typer.echo("evaluating on all of the held-out text")
    figures = {
        "kind": kind,
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": plan.steps * plan.blocks * CONTEXT,
        "plan": asdict(plan),
        "text": json.loads((work / "sources.json").read_text()),
        "heldout": {"base": evaluate(), **_counted(kind, corpus, plan)},
        "curve": curve,
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")},
    }
    model.config.use_cache = kind == "decoder"
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(out)
    _tokenizer(corpus.tokenizer, kind).save_pretrained(out)
    (out / FIGURES).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    write(out)


def write(folder: Path) -> None:
    """The model card ``README.md`` of a base, from its figures."""
    figures = json.loads((folder / FIGURES).read_text(encoding="utf-8"))
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    text = templates.get_template("card.md.j2").render(name=folder.name.replace("_", "-"), **figures)
    (folder / "README.md").write_text(text, encoding="utf-8")


def _counted(kind: str, corpus: Corpus, plan: Plan) -> dict[str, Figures]:
    """The same figures for models that only count."""
    if kind == "decoder":
        return {
            "unigram": baselines.ngram_bits_per_byte(corpus, 1),
            f"{baselines.ORDER}-gram": baselines.ngram_bits_per_byte(corpus, baselines.ORDER),
        }
    return baselines.neighbours_accuracy(corpus, plan.windows[1])


def _tokenizer(tokenizer: Tokenizer, kind: str) -> PreTrainedTokenizerFast:
    """The same tokens for both; the encoder's texts stand between two ends of text, as it was trained."""
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    if kind == "encoder":
        ends = [(END, tokenizer.token_to_id(END))]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{END} $A {END}", pair=f"{END} $A {END} $B {END}", special_tokens=ends
        )
    named = {"bos_token": END} if kind == "decoder" else {"cls_token": END, "sep_token": END}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        mask_token=MASK,
        model_max_length=CONTEXT,
        model_input_names=["input_ids", "attention_mask"],
        **named,
    )
