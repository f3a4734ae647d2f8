"""What a model's controls say: controls.json beside its proper run."""

from dataclasses import dataclass
from typing import ClassVar

from storage.config import Config
from storage.records.document import Document
from storage.records.evaluation import RunKey, Tally


@dataclass(frozen=True, slots=True)
class Heard:
    """Right answers to the same questions with the clip and under a control."""

    num_heard: int
    num_control: int
    num_questions: int


class Contribution(Config):
    """What the audio is worth under one scorer, against one control."""

    overall: Heard
    """All questions."""
    groups: dict[str, dict[str, Heard]]
    """By `task`, `difficulty`, `category` or `sub-category`, then by label."""


class OrderConsistency(Config):
    """How often the chosen text is the same in every order of the choices."""

    num_consistent: int
    """Questions with one text in all orders; what is no choice is consistent with nothing."""
    num_right_in_all: int
    """Questions with the right text in all orders."""
    num_questions: int
    """Questions asked."""
    num_orders: int
    """Orders asked, the proper one included."""


class ControlReport(Document):
    """What a model's controls say: controls.json beside its proper run."""

    what: ClassVar[str] = "a report of controls"

    key: RunKey
    """The proper run."""
    contribution: dict[str, dict[str, Contribution]]
    """By scorer and control; a cyclic shift changes no audio and is left out."""
    needs_audio: dict[str, Tally]
    """By scorer: right answers to the questions that the start model gets wrong under silence."""
    order: OrderConsistency | None
    """None where no shift was asked."""
