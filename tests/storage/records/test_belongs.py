"""Which evaluations are the profile's, told by digests."""

import pytest

from model.prompt import PROMPTS
from storage.records.leading import ProfileFacts, belongs
from tests.storage.records.made_run import make_run

FACTS = ProfileFacts(
    models=frozenset({("d" * 64, PROMPTS["answer"].sha256)}),
    benchmarks={"demo-1a2b3c4d": False, "validation-5e6f7a8b": False},
)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"control": "silence"}, True),
        ({"model": "another-name-of-it"}, True),
        ({"digest": "e" * 64}, False),
        ({"prompt": PROMPTS["think"]}, False),
        ({"benchmark": "demo-99999999"}, False),
        ({"silence": True}, False),
        ({"digest": "e" * 64, "prompt": "unknown", "role": "imported"}, True),
    ],
)
def test_a_run_belongs_by_its_models_digest_its_prompt_and_its_benchmark(change, expected):
    run = make_run(**({"benchmark": "demo-1a2b3c4d", "prompt": PROMPTS["answer"]} | change))
    assert belongs(run, FACTS) is expected
