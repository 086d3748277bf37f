"""Named: modules and parameters under names that others chose, such as ``values`` or ``type``."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


class NamedModules(nn.ModuleDict):
    """A ModuleDict that also takes names which are attributes of a module."""

    def __setitem__(self, key: str, module: nn.Module) -> None:
        self._modules[key] = module

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # an attribute stays one beside a module of its name (training)


class NamedParameters(nn.Module):
    """Parameters by name; unlike a ParameterDict it also takes names which are attributes of a module."""

    def update(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Add parameters, or put them in the place of those with the same names."""
        self._parameters.update(parameters)

    def items(self) -> list[tuple[str, nn.Parameter]]:
        """Names and parameters."""
        return [(name, parameter) for name, parameter in self._parameters.items() if parameter is not None]

    def __getitem__(self, name: str) -> nn.Parameter:
        parameter = self._parameters[name]
        assert parameter is not None
        return parameter
