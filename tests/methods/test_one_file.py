"""A new method is one new file and one line; nothing else in the package knows any method by name."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import graftune.methods
from families import FAMILIES, base, batch
from graftune.errors import GraftuneError
from graftune.methods.method import PRESETS, make
from graftune.model.adapted import AdaptedModel

SOURCE = Path(graftune.methods.__file__).parents[1]

#: One new file. Gated bias: h ← h + tanh(g)·b at the output of chosen maps; both parts are stock ones.
NEW_FILE = '''
"""Biases and scales: y ← l ⊙ y at some maps, y ← y + b at others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from graftune.methods.method import Build, Method
from graftune.parts import Bias, Scale


@dataclass(frozen=True)
class ScaleAndShift(Method):
    """d_out parameters a map."""

    scaled: tuple[str, ...] = ("k",)
    shifted: tuple[str, ...] = ("o", "down")

    presets: ClassVar[dict[str, dict[str, Any]]] = {"ssf": {}, "shift-only": {"scaled": ()}}
    learning_rate: ClassVar[float] = 5e-3

    def build(self, context: Any) -> Build:
        linears = context.anatomy.linears
        scales = [(site, Scale(site.outputs, "output")) for site in linears(self.scaled)]
        return Build(scales + [(site, Bias(site.outputs)) for site in linears(self.shifted)])
'''


@pytest.fixture
def new_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type]:
    """The new file, imported as the one line in ``methods/__init__.py`` would."""
    (tmp_path / "scale_and_shift.py").write_text(NEW_FILE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    before = dict(PRESETS)
    yield importlib.import_module("scale_and_shift").ScaleAndShift
    PRESETS.clear()
    PRESETS.update(before)
    del sys.modules["scale_and_shift"]


@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_new_file_is_a_whole_method(new_method: type, family: str, tmp_path: Path) -> None:
    method = make("ssf", shifted=["o"])
    assert isinstance(method, new_method)
    assert make("shift-only").preset == "shift-only"
    plain, inputs = base(family), batch()
    expected = plain(**inputs).logits
    model = AdaptedModel(plain)
    model.add("a", method)
    kv = 16 if family == "llama" else 32
    assert model.count("a").trained == model.count("a").stored == 3 * (kv + 32)
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs, adapters="a").logits, expected)
        for parameter in model.parameters_of("a"):
            parameter.add_(0.3)
        live = model(**inputs, adapters=["a", None, "a", None]).logits
    assert not torch.allclose(live[0], expected[0], atol=1e-3)
    torch.testing.assert_close(live[1], expected[1], atol=1e-5, rtol=1e-5)
    model.train()(**inputs, adapters="a").logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters_of("a"))
    other = AdaptedModel(base(family))
    other.load("b", model.save("a", tmp_path / "a"))
    with torch.no_grad():
        assert torch.equal(other(**inputs, adapters=["b", None, "b", None]).logits, live)
    with pytest.raises(GraftuneError, match="cannot be merged exactly") as error:
        model.merge("a")
    assert "Bias of ScaleAndShift" in str(error.value)
    model.remove("a")
    assert torch.equal(plain(**inputs).logits, expected)


def test_a_new_file_gets_the_messages_of_all_methods(new_method: type) -> None:
    with pytest.raises(GraftuneError, match="did you mean 'ssf'"):
        make("sfs")
    with pytest.raises(GraftuneError, match="did you mean 'scaled'"):
        make("ssf", scale=("k",))
    with pytest.raises(GraftuneError, match="what makes the method 'shift-only'"):
        make("shift-only", scaled=("q",))
    with pytest.raises(GraftuneError, match="unknown target"):
        AdaptedModel(base("gpt2")).add("a", make("ssf", scaled=("kk",)))


def test_every_method_is_one_short_file_and_one_line() -> None:
    folder = SOURCE / "methods"
    lines = [line for line in (folder / "__init__.py").read_text().splitlines() if line.startswith("from")]
    files = {f.stem for f in folder.glob("*.py")} - {"__init__", "method", "rates"}
    assert sorted(line.split()[1].rpartition(".")[2] for line in lines) == sorted(files)
    assert {cls.__module__.rpartition(".")[2] for cls, _ in PRESETS.values()} == files
    for file in folder.glob("*.py"):
        assert len(file.read_text().splitlines()) < 200, file


#: Where a method may be named: the methods themselves, the public names, readers of other formats, and the
#: comparison's choice of methods, groups and colours.
ALLOWED = ("methods/", "__init__.py", "checkpoint/peft_methods.py", "comparison/")
#: Words that are presets' names and mean something else where they stand.
OTHER_MEANING = {
    "model/keeper.py": {"head"},  # the kind of a name that is not known
    "bases/quantize.py": {"head"},  # a module's name
    "datasets/sources/conll.py": {"head"},  # a column of CoNLL-U
    "parts/output_function.py": {"lora"},  # an initialisation of adapters
    "cli/commands.py": {"lora"},  # the default of --method
    "datasets/columns.py": {"prompt"},  # a column of the data
    "datasets/values/__init__.py": {"prompt"},  # the messages to answer
    "tasks/instruct.py": {"prompt"},
}


def test_nothing_else_knows_a_method_by_name() -> None:
    classes = {cls.__name__ for cls, _ in PRESETS.values()}
    found = []
    for file in SOURCE.rglob("*.py"):
        place = file.relative_to(SOURCE).as_posix()
        if place.startswith(ALLOWED):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = {getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None)} & classes
            value = node.value if isinstance(node, ast.Constant) else None
            strings = {value} & (PRESETS.keys() | classes) if isinstance(value, str) else set()
            found += [(place, name) for name in names | (strings - OTHER_MEANING.get(place, set()))]
    assert not found
