"""The pieces of ``tools/pretrain.py``: text, models, objectives, the loop, held-out figures and the card."""
