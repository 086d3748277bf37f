"""`graftune inspect`: any base as it was saved, its sites by stack, and why a method does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from all_families import FAMILIES


@pytest.fixture
def inspect(graftune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "250")

    def run(family: str) -> tuple[list[str], dict[str, str]]:
        """The lines of the tree without its branches, and the last column of the table."""
        FAMILIES[family].base().save_pretrained(tmp_path / family)
        done = graftune("inspect", "--base", tmp_path / family)
        assert done.code == 0, done.err
        tree, _, table = done.out.partition("methods at their defaults")
        cells = [[cell.strip() for cell in line.split("│")] for line in table.splitlines() if line.startswith("│")]
        return [line.lstrip("│├└─ ") for line in tree.splitlines()], {row[1]: row[4] for row in cells}

    return run


def test_a_vision_transformer(inspect) -> None:
    tree, methods = inspect("vit")
    assert "ViTForImageClassification, 23,378 parameters, 3 layers" in tree[0]
    assert "input  pixel_values, no table of tokens" in tree
    assert "q      vit.layers.0.attention.q_proj  32 → 32" in tree
    assert "head  classifier" in tree
    assert methods["lora"] == methods["prefix"] == methods["full"] == "yes"
    for method in ("p-tuning", "hard-prompt"):
        assert methods[method] == "no: this base has no table of token embeddings (received: ViTPatchEmbeddings)"


def test_an_encoder_decoder_is_shown_by_stack_and_kind_of_attention(inspect) -> None:
    tree, methods = inspect("t5")
    assert [line for line in tree if line.endswith("layers")] == [
        tree[0],
        "encoder.block  3 layers",
        "decoder.block  2 layers",
    ]
    cross = tree.index("cross attention  decoder.block.0.layer.1.EncDecAttention  4 key/value heads of 6")
    assert tree[cross + 1 : cross + 6] == [
        *(f"{role}      decoder.block.0.layer.1.EncDecAttention.{role}  32 → 24" for role in "qkv"),
        "o      decoder.block.0.layer.1.EncDecAttention.o  24 → 32",
        "output decoder.block.0.layer.1.dropout  32",
    ]
    assert {fits for name, fits in methods.items() if name != "head"} == {"yes"}
    assert methods["head"].startswith("no: LinearProbe fits no site of this base")


def test_a_detector(inspect) -> None:
    tree, methods = inspect("yolos")
    assert "YolosForObjectDetection" in tree[0]
    assert "q      vit.encoder.layer.0.attention.attention.query  32 → 32" in tree
    assert [line for line in tree if line.startswith("head")] == [
        "head  class_labels_classifier",
        "head  bbox_predictor",
    ]
    assert methods["lora"] == "yes"


def test_attention_that_cannot_be_extended_stops_only_what_extends_it(inspect) -> None:
    tree, methods = inspect("deberta")
    assert "linear deberta.encoder.layer.0.attention.self.query_proj  32 → 32" in tree
    assert methods["prefix"] == "no: no attention of this base can take key/value rows (received: DebertaV2ForMaskedLM)"
    assert methods["prompt"] == methods["bitfit"] == methods["freeze"] == methods["full"] == "yes"


def test_a_config_without_a_known_class_is_loaded_as_a_trunk(graftune, tmp_path: Path) -> None:
    FAMILIES["bert"].base().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["OurOwnBert"]}))
    done = graftune("inspect", "--base", tmp_path)
    assert done.code == 0
    assert ": BertModel," in done.out


def test_a_folder_without_weights_is_named(graftune, tmp_path: Path) -> None:
    FAMILIES["bert"].base().config.save_pretrained(tmp_path)
    done = graftune("inspect", "--base", tmp_path)
    assert done.code == 2
    assert "cannot load the base" in done.err
