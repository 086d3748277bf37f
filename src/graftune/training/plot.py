"""The loss curve of a run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any


def curve_svg(curve: Sequence[dict[str, Any]]) -> str:
    """Training loss per step and evaluation loss where it was measured, as an SVG picture."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([p["step"] for p in curve], [p["loss"] for p in curve], color="#9db4d6", lw=1, label="training")
    measured = [p for p in curve if p.get("eval_loss") is not None]
    if measured:
        axes.plot(
            [p["step"] for p in measured],
            [p["eval_loss"] for p in measured],
            "o-",
            color="#c2410c",
            label="evaluation",
        )
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "graftune"}):  # the same curve, the same file
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
