"""Answers kept by what decides them, for all experiments of a workspace; knows no torch.

```
answers/<digest of model and decoding>/<digest of the evaluation>.jsonl
```

The key holds the model's digest and commit, what turns a question into a prompt, the text, the
system's text, the clip's content, decoding, precision, kind of device and versions: 655 of 1,000
questions are put alike in both versions of MMAU test-mini, and are asked once. Each evaluation
writes a file of its own, so that none tears another's line. How an answer is read decides nothing:
it is taken out of the completion anew.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from model.infer.jobs import InferenceJob, Item, read_answer
from storage.jsonl import AppendLog, Record, read_appended
from storage.manifest import digest_of, file_digest
from storage.records.evaluation import Answer

CHECKED_OF = 100  # one of so many answers that are taken over is asked again
KEPT = ("completion", "num_tokens", "finished", "cut")


class KeptAnswers:
    """What was answered before to the same, and a log of what is answered now."""

    def __init__(self, folder: Path, job: InferenceJob, decides: Sequence[object]) -> None:
        """Read what other evaluations left.

        Args:
            folder: Of the workspace's answers.
            job: Whose answers.
            decides: What decides an answer besides model, decoding, versions and question.
        """
        run, decoding = job.run, job.decoding
        asked = [decoding.max_new_tokens, decoding.precision]
        self._decides = [run.model.digest, asked, run.versions, *decides]
        self._prompt = job.prompt
        self._place = "/".join(job.output.parts[-5:])
        own = folder / digest_of(self._decides)[:16]
        lines = (line for path in sorted(own.glob("*.jsonl")) for line in read_appended(path))
        self._known: Mapping[str, Record] = {line["key"]: line for line in lines}
        self._log = AppendLog(own / f"{digest_of(self._place)[:16]}.jsonl")

    def find(self, items: Iterable[Item]) -> dict[str, Answer]:
        """The answers that were given before, by the ids of the questions as they are asked now."""
        found: dict[str, Answer] = {}
        for item in items:
            line = None if item.error else self._known.get(self._key(item))
            if line is not None:
                said = {name: line[name] for name in (*KEPT, "made_in")}
                found[item.id] = read_answer(item, self._prompt, **said)
        return found

    def keep(self, item: Item, answer: Answer) -> None:
        """Keep what was just answered; what could not be asked is no answer."""
        if answer.error is None:
            said = {name: getattr(answer, name) for name in KEPT}
            self._log.append({"key": self._key(item), **said, "made_in": self._place})

    def _key(self, item: Item) -> str:
        clip = item.clip
        heard = item.silence_s if clip is None else _content(clip, clip.stat().st_mtime_ns)
        return digest_of([self._decides, item.text, item.system, heard])


@lru_cache(maxsize=100_000)  # the clips of a benchmark, for each model again
def _content(clip: Path, _mtime_ns: int) -> str:
    return file_digest(clip)
