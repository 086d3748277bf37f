"""Pretrain the two small bases that ship with Graftune. One command each makes tokenizer, weights and card:

    python tools/pretrain.py decoder --text TEXT --work WORK --out src/graftune/bases/tiny_decoder
    python tools/pretrain.py encoder --text TEXT --work WORK --out src/graftune/bases/tiny_encoder

TEXT is a folder of ``*.txt.xz`` files with a paragraph a line and a blank line between documents. WORK keeps tokens
and checkpoints: a killed run started again goes on from the last one, and both bases share its tokenizer. The same
command runs on CPUs (bf16 products) and on one GPU.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer
from pretraining import architectures, card, heldout, loop, objectives, text
from torch import Tensor

from graftune.training.allocator import keep_freed_memory

CAUSAL_SHARE = 0.4  # of the encoder's steps: it first learns to predict the next token, then the hidden ones
HIDDEN_SHARE = 0.3  # of the tokens, while the encoder learns


class Kind(StrEnum):
    """Which base."""

    decoder = "decoder"
    encoder = "encoder"


def main(
    kind: Kind,
    text_folder: Annotated[Path, typer.Option("--text", help="Folder of .txt.xz files.")],
    work: Annotated[Path, typer.Option(help="Folder for tokens and checkpoints.")],
    out: Annotated[Path, typer.Option(help="Folder of the exported base.")],
    tokens: Annotated[float, typer.Option(help="Training tokens.")] = 16e6,
    blocks: Annotated[int, typer.Option(help="Blocks of 512 tokens a step.")] = 16,
    layers: Annotated[int, typer.Option(help="Layers.")] = 6,
    width: Annotated[int, typer.Option(help="Hidden size, a multiple of 128.")] = 256,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 4e-3,
    seed: Annotated[int, typer.Option(help="Start values, order of the text, hidden tokens.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 100,
    only_text: Annotated[bool, typer.Option("--only-text", help="Stop when the text is encoded.")] = False,
) -> None:
    """Train the tokenizer, encode the text, train the model, evaluate and export it."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    corpus = text.prepare(text_folder, work)
    if only_text:
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = getattr(architectures, kind)(layers, width)
    model.model.to(device)
    model.trunk.compile(dynamic=False)
    parameters = sum(p.numel() for p in model.model.parameters())
    typer.echo(f"{parameters / 1e6:.2f} M parameters, {len(corpus.train) / 1e6:.1f} M tokens of text")
    windows = (256, 512) if kind == Kind.decoder else (128, 256)
    plan = loop.Plan(tokens, blocks, lr, windows, seed, every)

    def ask(ids: Tensor, progress: float, generator: torch.Generator) -> objectives.Question:
        if kind == Kind.decoder:
            return objectives.next_token(ids)
        model.causal(progress < CAUSAL_SHARE)
        if progress < CAUSAL_SHARE:
            return objectives.next_token(ids)
        return objectives.hidden_tokens(ids, corpus.mask, corpus.end, HIDDEN_SHARE, generator)

    def evaluate(at_most: int | None) -> heldout.Figures:
        if kind == Kind.decoder:
            return heldout.bits_per_byte(model, corpus, at_most)
        return heldout.masked_accuracy(model, corpus, windows[1], at_most)

    def point(progress: float) -> heldout.Figures:
        seen = kind == Kind.decoder or progress >= CAUSAL_SHARE
        return {"heldout": evaluate(16)["all"]} if seen else {}

    curve = loop.train(model, corpus, plan, ask, point, work / f"{kind}.pt")
    with torch.compiler.set_stance("force_eager"), torch.autocast(device.type, torch.bfloat16):
        card.export(model.model, kind, corpus, plan, curve, work, out, lambda: evaluate(None))


if __name__ == "__main__":
    typer.run(main)
