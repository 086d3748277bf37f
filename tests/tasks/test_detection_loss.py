"""The loss of a detector, image by image, is the base's own loss of all images together."""

from __future__ import annotations

import pytest
import torch
import transformers as t

from graftune.model.adapted import AdaptedModel
from graftune.tasks.detection_loss import DetectionLoss

SMALL = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 5, "num_labels": 3,
}  # fmt: skip


def resnet(stages: list[str]) -> t.ResNetConfig:
    return t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], out_features=stages)


def detector(kind: str, auxiliary: bool) -> t.PreTrainedModel:
    backbone = {"use_timm_backbone": False, "backbone": None, "use_pretrained_backbone": False}
    torch.manual_seed(0)
    if kind == "yolos":
        sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = t.YolosConfig(**sizes, image_size=[32, 32], patch_size=8, num_detection_tokens=5, num_labels=3)
        return t.YolosForObjectDetection(config)
    if kind == "detr":
        config = t.DetrConfig(**SMALL, **backbone, backbone_config=resnet(["stage2"]), auxiliary_loss=auxiliary)
        return t.DetrForObjectDetection(config)
    if kind == "conditional":
        config = t.ConditionalDetrConfig(
            **SMALL, **backbone, backbone_config=resnet(["stage2"]), auxiliary_loss=auxiliary
        )
        return t.ConditionalDetrForObjectDetection(config)
    config = t.DeformableDetrConfig(
        **SMALL,
        **backbone,
        backbone_config=resnet(["stage1", "stage2"]),
        auxiliary_loss=auxiliary,
        num_feature_levels=2,
    )
    return t.DeformableDetrForObjectDetection(config)


def targets(counts: tuple[int, ...]) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "class_labels": torch.randint(3, (count,), generator=generator),
            "boxes": 0.2 + 0.3 * torch.rand(count, 4, generator=generator),
        }
        for count in counts
    ]


@pytest.mark.parametrize("counts", [(1, 2, 4), (0, 3), (0, 0)])
@pytest.mark.parametrize("auxiliary", [False, True])
@pytest.mark.parametrize("kind", ["yolos", "detr", "conditional", "deformable"])
def test_the_terms_add_up_to_the_bases_own_loss_and_gradient(kind, auxiliary, counts):
    if kind == "yolos" and auxiliary:
        pytest.skip("YOLOS keeps one layer only")
    base = detector(kind, auxiliary).eval()
    batch = {"pixel_values": torch.randn(len(counts), 3, 32, 32), "labels": targets(counts)}
    model = AdaptedModel(base)
    base.requires_grad_(True)
    reference = base(**batch).loss
    reference.backward()
    expected = [None if p.grad is None else p.grad.clone() for p in base.parameters()]
    base.zero_grad()
    loss = DetectionLoss(base.config)
    totals = loss.counts(batch["labels"]).sum(0)
    found = loss.run(model, batch, None).losses.sum(0) / torch.where(totals == 0, 1.0, totals)
    torch.testing.assert_close(found.sum(), reference.detach(), rtol=1e-4, atol=1e-5, check_dtype=False)
    found.sum().backward()
    for parameter, gradient in zip(base.parameters(), expected, strict=True):
        if gradient is not None:
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


def test_an_image_beside_a_wider_one_is_as_it_is_alone():
    """YOLOS takes no mask of padding, so that images of other shapes may not share its batch."""
    base = detector("yolos", False).eval()
    model = AdaptedModel(base)
    alone = torch.randn(1, 3, 32, 32)
    wide = torch.zeros(2, 3, 32, 48)
    wide[0, :, :, :32], wide[1] = alone[0], torch.randn(3, 32, 48)
    mask = torch.ones(2, 32, 48, dtype=torch.long)
    mask[0, :, 32:] = 0
    loss = DetectionLoss(base.config)
    with torch.no_grad():
        together = loss.run(model, {"pixel_values": wide, "pixel_mask": mask, "labels": targets((1, 1))}, None)
        torch.testing.assert_close(together.logits[:1], base(alone).logits)
