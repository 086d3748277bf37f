"""Reader of Hugging Face PEFT folders."""
from pathlib import Path

CONFIG = "adapter_config.json"


def load(model, name, path):
    raise NotImplementedError
