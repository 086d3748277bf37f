"""Pretrain the small decoder that ships with Graftune.

One command makes tokenizer, weights and card numbers again:

    python tools/pretrain.py --text TEXT_DIR --work WORK_DIR --out src/graftune/bases/tiny_decoder

TEXT_DIR holds ``*.txt.xz`` files (a paragraph a line, a blank line between documents).
WORK_DIR keeps tokens and checkpoints; a killed run started again goes on from the last one.
"""

from __future__ import annotations

import json
import lzma
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 4096
END = "<|endoftext|>"
SPECIALS = [END, "<|pad|>", "<|mask|>"]
HELD_OUT = 100  # every 100th document of each source is held out
WINDOW = 256  # training window; positions up to 512 work at use because RoPE is relative
CONTEXT = 512


def documents(path: Path) -> Iterator[str]:
    """Documents of one ``.txt.xz`` file."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        paragraphs: list[str] = []
        for line in lines:
            if line.strip():
                paragraphs.append(line.strip())
            elif paragraphs:
                yield "\n".join(paragraphs)
                paragraphs = []
        if paragraphs:
            yield "\n".join(paragraphs)


def chunks(document: str, size: int = 4000) -> Iterator[str]:
    """Pieces of a document of about ``size`` characters, cut between paragraphs."""
    piece: list[str] = []
    length = 0
    for paragraph in document.split("\n"):
        piece.append(paragraph)
        length += len(paragraph)
        if length > size:
            yield "\n".join(piece) + "\n"
            piece, length = [], 0
    if piece:
        yield "\n".join(piece)


def train_tokenizer(files: list[Path], characters: int) -> Tokenizer:
    """Byte-level BPE trained on an equal share of every source."""

    def sample() -> Iterator[str]:
        for path in files:
            left = characters // len(files)
            for number, document in enumerate(documents(path)):
                if number % HELD_OUT == 0:
                    continue
                text = document[:100_000]
                yield text
                left -= len(text)
                if left <= 0:
                    break

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample(), trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, files: list[Path], work: Path) -> None:
    """Write ``train.npy`` (all sources) and ``heldout_SOURCE.npy`` with its byte count."""
    end = tokenizer.token_to_id(END)
    train: list[np.ndarray] = []
    held_bytes: dict[str, int] = {}
    for path in files:
        source = path.name.removesuffix(".txt.xz")
        held: list[np.ndarray] = []
        for number, document in enumerate(documents(path)):
            pieces = tokenizer.encode_batch(list(chunks(document)))
            ids = np.array([i for piece in pieces for i in piece.ids] + [end], dtype=np.uint16)
            if number % HELD_OUT == 0:
                ids = ids[:60_000]  # a slice of each held-out book is enough
                text = tokenizer.decode(ids.tolist(), skip_special_tokens=True)
                held_bytes[source] = held_bytes.get(source, 0) + len(text.encode())
                held.append(ids)
            else:
                train.append(ids)
        np.save(work / f"heldout_{source}.npy", np.concatenate(held))
        typer.echo(f"encoded {source}: {sum(map(len, train)) / 1e6:.1f} M training tokens so far")
    np.save(work / "train.npy", np.concatenate(train))
    (work / "heldout.json").write_text(json.dumps(held_bytes))


def build(layers: int, hidden: int) -> LlamaForCausalLM:
    """Llama with grouped-query attention and tied embeddings."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 64,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
        initializer_range=0.02,
    )
    return LlamaForCausalLM(config)


@torch.inference_mode()
def bits_per_byte(model: LlamaForCausalLM, work: Path, windows: int = 32) -> dict[str, float]:
    """Held-out bits per byte of each source, over non-overlapping windows of ``CONTEXT`` tokens."""
    model.eval()
    result: dict[str, float] = {}
    total_nats = total_bytes = 0.0
    for source, size in json.loads((work / "heldout.json").read_text()).items():
        ids = np.load(work / f"heldout_{source}.npy").astype(np.int64)
        bytes_per_token = size / len(ids)
        step = max(CONTEXT, len(ids) // windows)
        nats = count = 0.0
        for start in range(0, len(ids) - CONTEXT, step):
            window = torch.from_numpy(ids[start : start + CONTEXT])[None]
            nats += model(input_ids=window, labels=window).loss.item() * (CONTEXT - 1)
            count += CONTEXT - 1
        result[source] = nats / math.log(2) / (count * bytes_per_token)
        total_nats += nats
        total_bytes += count * bytes_per_token
    result["all"] = total_nats / math.log(2) / total_bytes
    model.train()
    return result


def learning_rate(progress: float, peak: float) -> float:
    """Trapezoid: 1 % warm-up, constant, linear decay to zero over the last 40 %."""
    return peak * min(1.0, progress / 0.01, (1.0 - progress) / 0.4 + 1e-3)


def export(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path, card: dict[str, object]) -> None:
    """Write the Transformers folder that ships: bf16 safetensors, tokenizer and card numbers."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token="<|pad|>",
        mask_token="<|mask|>",
        model_max_length=CONTEXT,
    )
    import copy

    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(out)
    fast.save_pretrained(out)
    (out / "pretraining.json").write_text(json.dumps(card, indent=2) + "\n")


def main(
    text: Annotated[Path, typer.Option(help="Folder of .txt.xz files.")],
    work: Annotated[Path, typer.Option(help="Folder for tokens and checkpoints.")],
    out: Annotated[Path, typer.Option(help="Folder of the exported base.")],
    tokens: Annotated[float, typer.Option(help="Training tokens.")] = 12e6,
    batch: Annotated[int, typer.Option(help="Windows a step.")] = 24,
    layers: int = 6,
    hidden: int = 256,
    lr: float = 3e-3,
    threads: int = 1,
    seed: int = 0,
    every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 100,
) -> None:
    """Train the tokenizer, encode the text, train the decoder, evaluate and export it."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    work.mkdir(parents=True, exist_ok=True)
    files = sorted(text.glob("*.txt.xz"))
    if not (work / "tokenizer.json").exists():
        train_tokenizer(files, 24_000_000).save(str(work / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    if not (work / "heldout.json").exists():
        encode(tokenizer, files, work)
    data = np.load(work / "train.npy", mmap_mode="r")

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build(layers, hidden).to(device)
    typer.echo(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {len(data) / 1e6:.1f} M tokens")
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
        lr=lr,
        betas=(0.9, 0.95),
        fused=True,
    )
    # One permutation of disjoint windows per pass over the data: no window twice before all were seen.
    starts = len(data) // WINDOW - 1
    steps = int(tokens / (batch * WINDOW))
    first = 0
    curve: list[dict[str, float]] = []
    checkpoint = work / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, curve = state["step"], state["curve"]
        typer.echo(f"resumed at step {first}")
    began = time.monotonic()
    for step in range(first, steps):
        order = np.random.default_rng((seed, step * batch // starts)).permutation(starts)
        rows = [int(order[(step * batch + i) % starts]) for i in range(batch)]
        ids = torch.from_numpy(np.stack([data[r * WINDOW : (r + 1) * WINDOW + 1] for r in rows]).astype(np.int64)).to(
            device
        )
        for group in optimizer.param_groups:
            group["lr"] = learning_rate((step + 1) / steps, lr)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(input_ids=ids[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0 or step + 1 == steps:
            speed = (step - first + 1) * batch * WINDOW / (time.monotonic() - began)
            typer.echo(f"step {step}/{steps} loss {loss.item():.3f} {speed:.0f} tokens/s")
        if (step + 1) % every == 0 or step + 1 == steps:
            held = bits_per_byte(model, work, windows=32 if step + 1 == steps else 4)
            curve.append({"step": step + 1, "loss": loss.item(), "bits_per_byte": held["all"]})
            typer.echo(f"held out: {held}")
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step + 1,
                "curve": curve,
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").rename(checkpoint)
    card = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": steps * batch * WINDOW,
        "heldout_bits_per_byte": bits_per_byte(model, work),
        "seed": seed,
        "learning_rate": lr,
        "batch_windows": batch,
        "window": WINDOW,
        "sources": [path.name for path in files],
        "curve": curve,
    }
    export(model, tokenizer, out, card)


if __name__ == "__main__":
    typer.run(main)
