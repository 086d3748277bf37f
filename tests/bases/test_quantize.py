"""Quantized bases: training through frozen weights in 8 bits, and clear refusals."""

from __future__ import annotations

import pytest
import torch

from graftune.bases.loading import load_base, load_config, load_processor
from graftune.errors import GraftuneError
from graftune.model.adapted import AdaptedModel
from graftune.tasks import registry
from training.tiny import Toys, small, tensors


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    return Toys(tmp_path_factory.mktemp("toys"))


@pytest.mark.parametrize("method", ["lora", "prompt", "prefix", "p-tuning", "houlsby"])
def test_gradients_are_those_through_the_weights_that_the_bits_stand_for(toys, method):
    pytest.importorskip("torchao")
    method = small(method) if method != "houlsby" else small(method, norms=False)
    task, tokenizer = registry.make("generate"), load_processor(toys.llama)
    packed = load_base(toys.llama, task.head(load_config(toys.llama)), tokenizer, quantize="int8")
    plain = load_base(toys.llama, task.head(load_config(toys.llama)), tokenizer)
    quantized = 0
    with torch.no_grad():
        for name, parameter in packed.named_parameters():
            if type(parameter.data) is not torch.Tensor:
                quantized += 1
                plain.get_parameter(name).copy_(parameter.dequantize())
    assert quantized == 2 * 7  # every map of both layers; not the head
    gradients = []
    ids = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(0))
    first = plain.get_input_embeddings().weight.shape[0]
    virtual = first + torch.arange(4)
    if not method.front:
        ids = torch.cat([virtual[:2].expand(2, 2), ids, virtual[2:].expand(2, 2)], 1)
    for base in (packed, plain):
        model = AdaptedModel(base, tokenizer).train()
        model.add("a", method, seed=0)
        labels = ids.masked_fill(ids >= first, -100)
        model(input_ids=ids, labels=labels, adapters="a").loss.backward()
        gradients.append([p.grad for p in model.parameters_of("a")])
    for mine, reference in zip(*gradients, strict=True):
        assert mine is not None
        torch.testing.assert_close(mine, reference, atol=1e-4, rtol=1e-3)


def test_a_run_on_a_quantized_base_is_used_again_on_one(toys, tmp_path):
    pytest.importorskip("torchao")
    from graftune.datasets.rows import read
    from graftune.inference.predictor import load

    for task, base in (("generate", "llama"), ("classify", "bert")):
        run = toys.train(tmp_path / task, "lora", base=base, task=task, quantize="int8", products="onednn")
        assert tensors(tmp_path / task)
        again = load(tmp_path / task / "adapter")
        assert again.evaluate(read(toys.data[task][1]), batch_size=8).metrics == run.metrics


@pytest.mark.parametrize("method", ["dora", "freeze", "full"])
def test_methods_that_need_plain_weights_say_so(toys, tmp_path, method):
    pytest.importorskip("torchao")
    with pytest.raises(GraftuneError, match=r"needs the plain weights[\s\S]*load the base without quantize"):
        toys.train(tmp_path / "out", method, quantize="int8")
    assert not (tmp_path / "out").exists()


def test_a_quantized_base_takes_nothing_in(toys):
    pytest.importorskip("torchao")
    task, tokenizer = registry.make("generate"), load_processor(toys.llama)
    model = AdaptedModel(
        load_base(toys.llama, task.head(load_config(toys.llama)), tokenizer, quantize="int8"), tokenizer
    )
    model.add("a", small("lora"))
    with pytest.raises(GraftuneError, match=r"merging needs the plain weights[\s\S]*which is quantized"):
        model.merge("a")


def test_four_bits_need_cuda(toys, tmp_path, monkeypatch):
    monkeypatch.setattr("graftune.bases.quantize.find_spec", lambda name: object())
    with pytest.raises(GraftuneError, match="cannot be trained through on this device"):
        toys.train(tmp_path / "out", quantize="nf4")


def test_a_package_that_is_not_there_is_named(toys, tmp_path, monkeypatch):
    monkeypatch.setattr("graftune.bases.quantize.find_spec", lambda name: None)
    with pytest.raises(GraftuneError, match="pip install torchao"):
        toys.train(tmp_path / "out", quantize="int8")
