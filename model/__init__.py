"""Prompts, rewards, training and inference of Qwen2-Audio."""

import logging

# On import, torchao warns of CUDA files that this torch cannot load, and torch of torchao's habits.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
