"""Several processes: each takes its share of a step's rows, and all make the same update.

The base is the same in every process and the adapter small, so that one sum over the adapter's gradients a step
is all there is to say. Started by ``accelerate launch`` or ``torchrun``; alone, everything here does nothing.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from hashlib import sha256
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from graftune.errors import GraftuneError
from graftune.model.adapted import AdaptedModel
from graftune.model.override import forward_replaced

T = TypeVar("T")

ANSWER = timedelta(minutes=10)  # between processes that compute the same thing
PATIENCE = timedelta(days=7)  # for what the first process does alone, such as an evaluation


def join() -> None:
    """Join the other processes, where this one was started as one of several.

    Raises GraftuneError where they do not come.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not _several():
        with _answered():
            PartialState(timeout=ANSWER)
        atexit.register(_leave)


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if _several() else 0


def size() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if _several() else 1


def first() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def dealt(items: Sequence[T]) -> list[Sequence[T]]:
    """The share of each process: every size-th item."""
    return [items[start :: size()] for start in range(size())]


def summed(values: Sequence[Tensor]) -> None:
    """Add up each tensor over all processes, in place and in one message. Raises GraftuneError without an answer."""
    if size() == 1:
        return
    flat = torch.cat([v.reshape(-1) for v in values])
    with _answered():
        distributed.all_reduce(flat)
    for value, total in zip(values, flat.split([v.numel() for v in values]), strict=True):
        value.copy_(total.view_as(value))


def sum_gradients(parameters: Sequence[nn.Parameter], *others: Tensor) -> None:
    """Add up gradients, and ``others``, over all processes; what has a gradient in none of them gets none."""
    if size() == 1:
        return
    given = torch.tensor([float(p.grad is not None) for p in parameters], device=others[0].device)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    summed([given, *others, *gradients])
    for parameter, gradient, count in zip(parameters, gradients, given.tolist(), strict=True):
        parameter.grad = gradient if count else None


def anywhere(flag: bool, device: torch.device) -> bool:
    """Whether ``flag`` is set in any process."""
    count = torch.tensor([float(flag)], device=device)
    summed([count])
    return bool(count.item())


def agree(what: str, value: object) -> None:
    """Raise GraftuneError, in every process, where ``value`` has not the same text in all of them."""
    if size() == 1:
        return
    found: list[Any] = [None] * size()
    with _answered():
        distributed.all_gather_object(found, sha256(repr(value).encode()).hexdigest())
    differing = [number for number, digest in enumerate(found) if digest != found[0]]
    if differing:
        raise GraftuneError(
            f"the processes do not have the same {what}",
            received=f"another one than process 0's in process {', '.join(map(str, differing))}",
            expected="one command for all processes, on files that all of them see",
            do="start them by one torchrun or accelerate launch a machine, on a disk that the machines share",
        )


def told(value: T) -> T:
    """The first process's ``value``, in all of them; the others wait for it as long as it takes."""
    if size() == 1:
        return value
    box = [value]
    with _answered():
        group = distributed.new_group(backend="gloo", timeout=PATIENCE)
        distributed.broadcast_object_list(box, src=0, group=group)
        distributed.destroy_process_group(group)
    return box[0]


@contextmanager
def sharded(model: AdaptedModel, wanted: bool, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Within the block each process holds its part of every layer of the base, and the whole only while it computes.

    Every process has to run the base equally often. Adapters, embeddings and heads stay whole. After the block the
    base's parameters are what they were, unless it failed: then the processes may no longer stand at one place.
    """
    if not wanted or size() == 1:
        if wanted:
            say("shard=true changes nothing: there is one process")
        yield
        return
    mesh = init_device_mesh(model.device.type, (size(),))
    layers = [model.anatomy.modules[layer.path] for layer in model.anatomy.layers]
    with ExitStack() as stack:
        shells = [_Shell(layer) for layer in layers]
        for shell in shells:
            shell.shard(mesh)
            stack.enter_context(forward_replaced(shell.layer, shell))
        yield
        for shell in shells:
            shell.join()


def is_sharded(model: nn.Module) -> bool:
    """Whether some parameter is held in parts."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


class _Shell(nn.Module):
    """Stands around a layer and is sharded in its place, so that the layer's class and hooks stay as they are."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.function: Callable[..., Any] = layer.forward
        # Parts attached to the layer itself exchange its own parameters before the shell sees the call.
        self.kept = {p for p in layer.parameters() if p.dim() == 0} | set(layer.parameters(recurse=False))
        self.places = [
            (module, name, parameter)
            for module in layer.modules()
            for name, parameter in module._parameters.items()
            if parameter is not None and parameter not in self.kept
        ]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def shard(self, mesh: Any) -> None:
        """Keep this process's part and free the rest."""
        fully_shard(self, mesh=mesh, reshard_after_forward=True, ignored_params=self.kept)
        for _, _, parameter in self.places:
            parameter.data = parameter.new_empty(0)

    def join(self) -> None:
        """Give the layer its whole parameters back, the very ones it had."""
        assert isinstance(self, FSDPModule)
        self.unshard()
        whole = [module._parameters[name].detach().clone() for module, name, _ in self.places]  # type: ignore[union-attr]
        self.reshard()
        for (module, name, parameter), value in zip(self.places, whole, strict=True):
            parameter.data = value
            module._parameters[name] = parameter


@contextmanager
def _answered() -> Iterator[None]:
    """Say in plain words that the other processes are gone or stand still."""
    try:
        yield
    except RuntimeError as error:
        raise GraftuneError(
            "another process does not answer",
            received=" ".join(str(error).split())[:300],
            expected=f"{os.environ.get('WORLD_SIZE', size())} processes that are all at work",
            do="look at what the other processes say; then start all of them again (with --resume)",
        ) from error


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()
