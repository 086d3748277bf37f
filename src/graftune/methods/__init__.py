"""Every method: one file each, and one line here."""

from graftune.methods.bitfit import BitFit as BitFit
from graftune.methods.bottleneck_adapter import BottleneckAdapter as BottleneckAdapter
from graftune.methods.few_shot import FewShot as FewShot
from graftune.methods.freeze import Freeze as Freeze
from graftune.methods.full_fine_tuning import FullFineTuning as FullFineTuning
from graftune.methods.hard_prompt import HardPrompt as HardPrompt
from graftune.methods.ia3 import IA3 as IA3
from graftune.methods.linear_probe import LinearProbe as LinearProbe
from graftune.methods.lora import LoRA as LoRA
from graftune.methods.p_tuning import PTuning as PTuning
from graftune.methods.p_tuning_v2 import PTuningV2 as PTuningV2
from graftune.methods.prefix_tuning import PrefixTuning as PrefixTuning
from graftune.methods.prompt_tuning import PromptTuning as PromptTuning
