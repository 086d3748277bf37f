"""The seven parts every method is built from, and the generators that may produce their rows."""

from graftune.parts.generators import Generator, PromptLSTM, PromptMLP, TableMLP
from graftune.parts.named import NamedModules, NamedParameters
from graftune.parts.output_function import Bias, Bottleneck
from graftune.parts.parameter_copy import ParameterCopy
from graftune.parts.rows import HiddenRows, KeyValueRows, Rows, TokenRows
from graftune.parts.scale import Scale
from graftune.parts.sites import AttentionSite, EmbeddingSite, LayerSite, LinearSite, ModuleSite, Site, SubLayerSite
from graftune.parts.weight_delta import DecomposedLowRank, LowRank

__all__ = [
    "AttentionSite",
    "Bias",
    "Bottleneck",
    "DecomposedLowRank",
    "EmbeddingSite",
    "Generator",
    "HiddenRows",
    "KeyValueRows",
    "LayerSite",
    "LinearSite",
    "LowRank",
    "ModuleSite",
    "NamedModules",
    "NamedParameters",
    "ParameterCopy",
    "PromptLSTM",
    "PromptMLP",
    "Rows",
    "Scale",
    "Site",
    "SubLayerSite",
    "TableMLP",
    "TokenRows",
]
