"""The network that learns, behind one contract: its forward does whatever it is given to do.

DDP and FSDP synchronise only what goes through the forward of the module that they wrap, and a
rollout, a packed pass and a reference pass are three different things to do with one network.
"""

from collections.abc import Callable
from typing import TypeVar

from torch import nn
from transformers import PreTrainedModel

from model.network.lora import without_adapter

Done = TypeVar("Done")
PREFIX = "network."  # of its parameters' names, which no file has


class Policy(nn.Module):
    """A network, perhaps with adapters, that is called with what to do."""

    def __init__(self, network: nn.Module) -> None:
        """Wrap a model of transformers, or peft's wrapper of one."""
        super().__init__()
        self.network = network

    def forward(self, run: Callable[[PreTrainedModel], Done]) -> Done:
        """Call `run` with the network, adapters in its layers, and return what it returns."""
        return run(without_adapter(self.network))
