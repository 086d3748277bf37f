"""Make a small pretrained image classifier and the data to adapt it to, from scikit-learn's 8x8 digits:

    python tools/pretrain_vit.py --data runs/data/digits --out runs/bases/vit-digits

The digits 0-4 are the source, 5-9 the target. DATA gets grey PNGs and a train and a dev file of JSON lines for each of
the two, with a line {"image": "images/0007.png", "label": "7"} an image. A vision transformer is trained on the source
alone, on images shifted by up to a pixel, and exported to OUT as a Transformers folder with its image processor.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from pretraining.short import begin, fit
from sklearn.datasets import load_digits
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

SIDE = 8
TRAIN_SHARE = 0.75
SOURCE = range(0, 5)


def write_data(folder: Path, seed: int) -> dict[str, list[dict[str, str]]]:
    """Write images and JSON lines; the rows by name of their file."""
    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    parts: dict[str, list[dict[str, str]]] = {
        f"{domain}-{split}": [] for domain in ("source", "target") for split in ("train", "dev")
    }
    order = np.random.default_rng(seed).permutation(len(grey))
    for domain in ("source", "target"):
        chosen = [int(i) for i in order if (digits.target[i] in SOURCE) == (domain == "source")]
        for position, i in enumerate(chosen):
            name = f"images/{i:04d}.png"
            Image.fromarray(grey[i]).save(folder / name)
            split = "train" if position < TRAIN_SHARE * len(chosen) else "dev"
            parts[f"{domain}-{split}"].append({"image": name, "label": str(digits.target[i])})
    for name, rows in parts.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return parts


def tensors(folder: Path, rows: list[dict[str, str]], processor: ViTImageProcessorPil) -> tuple[Tensor, Tensor]:
    """Pixels (rows, 1, 8, 8) as the processor gives them, and labels (rows)."""
    images = [Image.open(folder / row["image"]) for row in rows]
    labels = torch.tensor([int(row["label"]) for row in rows])
    return processor(images, return_tensors="pt")["pixel_values"], labels


def shifted(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Each image moved by -1, 0 or 1 pixels along both axes, with background (-1) where nothing was."""
    wide = nn.functional.pad(pixels, (1, 1, 1, 1), value=-1.0)
    moves = torch.randint(0, 3, (len(pixels), 2), generator=generator).tolist()
    return torch.stack([image[:, y : y + SIDE, x : x + SIDE] for image, (y, x) in zip(wide, moves, strict=True)])


def accuracy(model: ViTForImageClassification, pixels: Tensor, labels: Tensor) -> float:
    """Share of the images whose class is found."""
    model.eval()
    with torch.no_grad():
        return (model(pixels).logits.argmax(-1) == labels).float().mean().item()


def main(
    data: Annotated[Path, typer.Option(help="Folder for images and JSON lines.")],
    out: Annotated[Path, typer.Option(help="Folder of the exported base.")],
    steps: Annotated[int, typer.Option(help="Training steps.")] = 2000,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 64,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Split, start values, order and shifts.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Write the data, train on its source half, evaluate and export."""
    begin(threads, seed)
    parts = write_data(data, seed)
    typer.echo(", ".join(f"{name}: {len(rows)} images" for name, rows in parts.items()))
    processor = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_mean=[0.5], image_std=[0.5])
    pixels, labels = tensors(data, parts["source-train"], processor)
    held_out = tensors(data, parts["source-dev"], processor)
    config = ViTConfig(
        image_size=SIDE,
        patch_size=2,
        num_channels=1,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
        hidden_dropout_prob=0.1,
        id2label={i: str(digit) for i, digit in enumerate(SOURCE)},
        label2id={str(digit): i for i, digit in enumerate(SOURCE)},
    )
    model = ViTForImageClassification(config)
    generator = torch.Generator().manual_seed(seed)

    def loss_at(step: int) -> Tensor:
        rows = torch.randint(0, len(pixels), (batch,), generator=generator)
        return model(shifted(pixels[rows], generator), labels=labels[rows]).loss

    seconds = fit(model, loss_at, steps, lr)
    parameters = sum(p.numel() for p in model.parameters())
    typer.echo(f"{parameters} parameters, {seconds:.0f} s, source-dev accuracy {accuracy(model, *held_out):.4f}")
    model.save_pretrained(out)
    processor.save_pretrained(out)


if __name__ == "__main__":
    typer.run(main)
