"""Make a small pretrained detector that has seen nothing but drawings:

    python tools/pretrain_detector.py --out runs/bases/yolos-shapes

A YOLOS learns to find discs with a rim, large dark blobs, small dots and rectangles, up to 25 an image and often
overlapping, on backgrounds with gradients and noise. It is exported to OUT as a Transformers folder with its image
processor, after each ``--every`` steps and at the end.

Four things make it learn in minutes what a detection transformer learns in days. Detection tokens start where a grid
of anchors lies: their position is that of the patch there. Queries start equal to keys, so that each token looks at
what is near it. The same heads ask each patch for the object whose centre lies in it, and a middle layer as well. And
at first tokens are asked, at less and less weight, for the object whose centre lies in their cell of the grid of
anchors, so that each comes to look after a place; the matching takes over from there.
"""

from __future__ import annotations

from collections import deque
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image, ImageDraw, ImageFilter
from pretraining.short import begin, fit
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, l1_loss
from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessorPil

HEIGHT, WIDTH, PATCH = 160, 208, 16
ROWS, COLUMNS = HEIGHT // PATCH, WIDTH // PATCH
ANCHORS = (5, 8)  # rows and columns of detection tokens
LOCAL = 1.3  # size of the first queries and keys: with more, tokens look less far at first
TOKENS = ANCHORS[0] * ANCHORS[1]
GUIDED = 500  # steps in which tokens are led to look after their cell
CLASSES = ("disc", "blob", "dot", "box")
SIZES = ((20, 42), (36, 84), (7, 18), (16, 60))  # pixels
POOL, FIRST = 6000, 300  # drawings kept, drawings before the first step
HELD_OUT = 200

Target = dict[str, Tensor]  # "class_labels" (n) and "boxes" (n, 4): centre x, centre y, width, height in [0, 1]


def outline(kind: int, size: float, centre: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Points (n, 2) of a shape's border: a bent ellipse or a turned rectangle."""
    flat = CLASSES[kind] == "box"
    angles = np.linspace(0, 2 * np.pi, 4 if flat else 28, endpoint=False) + np.pi / 4
    radius = sum(rng.normal(0, 0.05) * np.cos(k * angles + rng.uniform(0, 6)) for k in (2, 3))
    points = np.stack([np.cos(angles), np.sin(angles)]) * (2**0.5 if flat else 1 + radius)
    x, y = points * ([1], [rng.uniform(0.4 if flat else 0.65, 1)])
    turn = rng.uniform(0, np.pi)
    turned = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 1)
    return turned * size / 2 + centre


def colour(rng: np.random.Generator, light: tuple[int, int], spread: int) -> np.ndarray:
    """A colour of random hue around a random lightness."""
    return np.clip(rng.uniform(*light) + rng.uniform(-spread, spread, 3), 0, 255)


def paint(draw: ImageDraw.ImageDraw, kind: int, points: np.ndarray, tone: np.ndarray, rng: np.random.Generator) -> None:
    """Fill a shape and give it the marks of its class."""

    def fill(shape: np.ndarray, shade: np.ndarray, alpha: float) -> None:
        rgba = (*np.clip(shade, 0, 255).astype(int).tolist(), int(alpha))
        draw.polygon([(float(a) * 2, float(b) * 2) for a, b in shape], fill=rgba)

    centre = points.mean(0)
    if CLASSES[kind] == "disc":  # a darker rim, a paler middle
        fill(points, tone - rng.uniform(0, 35), rng.uniform(140, 255))
        fill(centre + (points - centre) * rng.uniform(0.8, 0.95), tone, 255 * rng.random())
        middle = centre + rng.normal(0, 1, 2) + (points - centre) * rng.uniform(0.25, 0.65)
        fill(middle, tone + rng.uniform(10, 70), 230 * rng.random())
    elif CLASSES[kind] == "blob":  # a pale body, dark lobes
        fill(points, tone + rng.uniform(20, 80), rng.uniform(120, 255))
        for _ in range(rng.integers(1, 5)):
            lobe = centre + rng.normal(0, 0.12, 2) * np.ptp(points, 0) + (points - centre) * rng.uniform(0.35, 0.75)
            fill(lobe, tone + rng.normal(0, 8), rng.uniform(190, 255))
    else:
        fill(points, tone, rng.uniform(170, 255))


def draw(rng: np.random.Generator) -> tuple[np.ndarray, Target]:
    """One image, uint8 (h, w, 3), and what is on it."""
    base = colour(rng, (150, 235) if rng.random() < 0.8 else (20, 150), 35)
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j][..., None]
    pixels = base + x * rng.normal(0, 14, 3) + y * rng.normal(0, 14, 3)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).resize((WIDTH * 2, HEIGHT * 2))
    canvas = ImageDraw.Draw(image, "RGBA")
    others = [int(rng.integers(0, 3)), int(rng.integers(0, 5)), int(rng.integers(0, 3))]
    kinds = [0] * int(rng.integers(1, 26 - sum(others)) if rng.random() < 0.9 else 1)
    kinds += [kind for kind, n in enumerate(others, 1) for _ in range(n)]
    tones = [colour(rng, (90, 200), 50), *(colour(rng, (30, 140), 60) for _ in range(3))]
    tones = [tone if np.abs(tone - base).max() > 40 else 255 - base for tone in tones]
    typical = rng.uniform(*SIZES[0])  # discs of one image resemble each other
    placed: list[tuple[np.ndarray, float]] = []
    labels, boxes = [], []
    for kind in kinds:
        size = np.clip(typical * rng.normal(1, 0.12), *SIZES[0]) if kind == 0 else rng.uniform(*SIZES[kind])
        centre = rng.uniform((2, 2), (WIDTH - 2, HEIGHT - 2))
        if any(np.hypot(*(centre - c)) < 0.27 * (size + s) * (kind != 2) for c, s in placed):
            continue  # one would hide the other
        points = outline(kind, size, centre, rng)
        paint(canvas, kind, points, tones[kind] + rng.normal(0, 8, 3), rng)
        low, high = np.clip(points.min(0) / (WIDTH, HEIGHT), 0, 1), np.clip(points.max(0) / (WIDTH, HEIGHT), 0, 1)
        placed.append((centre, size))
        labels.append(kind)
        boxes.append([*(low + high) / 2, *(high - low)])
    image = image.reduce(2)
    if rng.random() < 0.6:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.0)))
    noise = rng.standard_normal((HEIGHT, WIDTH, 1), dtype=np.float32) * np.float32(rng.uniform(0, 9))
    target = {"class_labels": torch.tensor(labels), "boxes": torch.tensor(boxes, dtype=torch.float32)}
    return np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8), target


class Drawings:
    """A pool of drawings: some new ones at each step, the others used again, mirrored along either axis."""

    def __init__(self, seed: int, fresh: int) -> None:
        self.rng, self.fresh = np.random.default_rng(seed), fresh
        self.pool = deque((draw(self.rng) for _ in range(FIRST)), maxlen=POOL)

    def batch(self, size: int) -> tuple[Tensor, list[Target]]:
        """Pixels (size, 3, h, w) in [-1, 1], as the exported processor gives them, and targets."""
        self.pool.extend(draw(self.rng) for _ in range(self.fresh))
        images, targets = [], []
        for i in self.rng.integers(0, len(self.pool), size):
            image, target = self.pool[i]
            boxes = target["boxes"].clone()
            for axis in (0, 1):
                if self.rng.random() < 0.5:
                    image = np.flip(image, axis)
                    boxes[:, 1 - axis] = 1 - boxes[:, 1 - axis]
            images.append(image)
            targets.append({"class_labels": target["class_labels"], "boxes": boxes})
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1, targets


def waves(rows: int, columns: int, width: int) -> Tensor:
    """Sines and cosines (rows * columns, width) of the centres of the cells of a grid over the image."""
    y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
    angles = torch.stack([x, y], -1).flatten(0, 1)[..., None] * torch.pi * 2.0 ** torch.linspace(-1, 4, width // 4)
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(1)


def build(layers: int, width: int) -> YolosForObjectDetection:
    """The detector, its detection tokens on a grid of anchors."""
    config = YolosConfig(
        image_size=[HEIGHT, WIDTH],
        patch_size=PATCH,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=4 * width,
        num_detection_tokens=TOKENS,
        use_mid_position_embeddings=False,
        eos_coefficient=0.25,
        id2label=dict(enumerate(CLASSES)),
        label2id={name: i for i, name in enumerate(CLASSES)},
    )
    model = YolosForObjectDetection(config)
    model.set_attn_implementation("eager")  # in bf16 on a CPU, half the time a step
    positions = model.vit.embeddings.position_embeddings
    with torch.no_grad():
        positions[0, 1:] = 0.5 * torch.cat([waves(ROWS, COLUMNS, width), waves(*ANCHORS, width)])
        for layer in model.vit.encoder.layer:  # queries like keys: each token looks at what is near
            attention = layer.attention.attention
            nn.init.orthogonal_(attention.query.weight, gain=LOCAL)
            attention.key.weight.copy_(attention.query.weight)
    return model


def cell_loss(logits: Tensor, boxes: Tensor, targets: list[Target], rows: int, columns: int) -> Tensor:
    """The answers of a grid of tokens (n, rows * columns, ...) against the objects whose centres lie in its cells."""
    classes = torch.full(logits.shape[:2], len(CLASSES))
    wanted = torch.zeros_like(boxes)
    for i, target in enumerate(targets):
        x, y = (target["boxes"][:, :2] * torch.tensor([columns, rows])).long().unbind(1)
        cells = y.clamp(max=rows - 1) * columns + x.clamp(max=columns - 1)
        classes[i, cells], wanted[i, cells] = target["class_labels"], target["boxes"]
    full = classes < len(CLASSES)
    found = cross_entropy(logits.flatten(0, 1), classes.flatten())
    return 2 * found + 5 * l1_loss(boxes[full], wanted[full], reduction="sum") / full.sum()


def loss(model: YolosForObjectDetection, pixels: Tensor, targets: list[Target], guidance: float) -> Tensor:
    """The model's own loss, that of the cells of the patches, and ``guidance`` times that of the cells of the tokens.

    For the last layer, and at half the weight for one below it.
    """
    with torch.autocast("cpu", torch.bfloat16):
        states = model.vit(pixels, output_hidden_states=True).hidden_states
    total = torch.zeros(())
    for depth, hidden in enumerate((states[-1], states[-3])):
        hidden = model.vit.layernorm(hidden[:, 1:].float())
        logits, boxes = model.class_labels_classifier(hidden), model.bbox_predictor(hidden).sigmoid()
        (of_patches, of_tokens), (at_patches, at_tokens) = (
            x.split([ROWS * COLUMNS, TOKENS], 1) for x in (logits, boxes)
        )
        own = model.loss_function(of_tokens, targets, "cpu", at_tokens, model.config)[0]
        guided = guidance * cell_loss(of_tokens, at_tokens, targets, *ANCHORS) if guidance else 0.0
        total = total + 0.5**depth * (own + guided + cell_loss(of_patches, at_patches, targets, ROWS, COLUMNS))
    return total


@torch.no_grad()
def precision(
    model: YolosForObjectDetection, processor: YolosImageProcessorPil, drawings: list[tuple[np.ndarray, Target]]
) -> dict[str, float]:
    """Mean average precision on drawings, as COCO counts it: overlaps from a half on, and from 0.5 to 0.95."""
    model.eval()
    found, truth = [], []
    for i, (image, target) in enumerate(drawings):
        outputs = model(**processor(Image.fromarray(image), return_tensors="pt"))
        (one,) = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=[(HEIGHT, WIDTH)])
        for score, kind, (left, top, right, bottom) in zip(*(one[k].tolist() for k in one), strict=True):
            found.append([i, left, top, right - left, bottom - top, score, kind])
        centre, extent = (target["boxes"] * torch.tensor([WIDTH, HEIGHT] * 2)).split(2, 1)
        boxes = torch.cat([centre - extent / 2, extent], 1).tolist()
        for kind, box in zip(target["class_labels"].tolist(), boxes, strict=True):
            place = {"bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            truth.append({"id": len(truth) + 1, "image_id": i, "category_id": kind, **place})
    images, classes = ([{"id": i} for i in range(n)] for n in (len(drawings), len(CLASSES)))
    with redirect_stdout(StringIO()):
        answers = COCO()
        answers.dataset = {"images": images, "categories": classes, "annotations": truth}
        answers.createIndex()
        evaluation = COCOeval(answers, answers.loadRes(np.array(found)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    each = evaluation.eval["precision"][0, :, :, 0, -1].mean(0)  # at an overlap of a half, by class
    return {"mAP50": evaluation.stats[1], "mAP": evaluation.stats[0], **dict(zip(CLASSES, each, strict=True))}


def main(
    out: Annotated[Path, typer.Option(help="Folder of the exported base.")],
    steps: Annotated[int, typer.Option(help="Training steps.")] = 5000,
    minutes: Annotated[float, typer.Option(help="Time limit: with less time, fewer steps.")] = 30,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 16,
    fresh: Annotated[int, typer.Option(help="New drawings a step.")] = 3,
    layers: Annotated[int, typer.Option(help="Layers.")] = 5,
    width: Annotated[int, typer.Option(help="Hidden size.")] = 128,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 3e-3,
    seed: Annotated[int, typer.Option(help="Start values and drawings.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    every: Annotated[int, typer.Option(help="Steps between exports.")] = 500,
) -> None:
    """Draw, train, evaluate on other drawings, export."""
    begin(threads, seed)
    model = build(layers, width)
    processor = YolosImageProcessorPil(
        size={"height": HEIGHT, "width": WIDTH}, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_pad=False
    )
    drawings = Drawings(seed, fresh)
    other = np.random.default_rng(seed + 1)
    held_out = [draw(other) for _ in range(HELD_OUT)]
    typer.echo(f"{sum(p.numel() for p in model.parameters())} parameters")

    def export(step: int) -> None:
        figures = precision(model, processor, held_out)
        typer.echo(f"held out at {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items()))
        model.save_pretrained(out)
        processor.save_pretrained(out)

    def loss_at(step: int) -> Tensor:
        return loss(model, *drawings.batch(batch), guidance=max(0.0, 1 - step / GUIDED))

    typer.echo(f"{fit(model, loss_at, steps, lr, minutes, export, every):.0f} s")


if __name__ == "__main__":
    typer.run(main)
