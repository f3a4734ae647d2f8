"""Complete prompts greedily, in batches that fit into memory and change no answer.

Decoding is greedy whatever the checkpoint's generation_config says: R1-AQA's script passes no
`do_sample`, so there the checkpoint decides. The encoder and the decoding loop are those of
training (`model.network.packed`, `model.network.sampling`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, ProcessorMixin

from model.config import DecodeWay
from model.network.features import Batch, Prompt, collate
from model.network.kv_cache import in_groups, rows_that_fit
from model.network.loading import stop_tokens
from model.network.packed import Prefilled, prefill, read_on, score_completions
from model.network.sampling import decode
from storage.errors import PipelineError

# Two completions that part where the model finds both tokens about equally likely are no fault of
# the batch: bf16 keeps 8 bits, so sums in another order move a logit near 20 by up to 0.125, and
# each of the two tokens by as much.
TIE_NATS = {torch.float32: 1e-3, torch.bfloat16: 0.25}
MOST_AT_ONCE = 128  # prompts: beyond it reading them takes longer than the steps that it saves


class Completion(NamedTuple):
    """What the model wrote."""

    text: str
    """Without special tokens."""
    token_ids: list[int]
    """With the end token, where it ended."""
    finished: bool
    """Whether it ended by itself."""


class Disagreement(NamedTuple):
    """A question that the model answers otherwise alone than in a batch."""

    id: str
    alone: str
    in_batch: str
    gap_nats: float
    """Difference of log-probability at the token where the two part."""


class Decoder:
    """A model that completes prompts; halves its batches when memory runs out, and remembers."""

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        *,
        max_new_tokens: int,
        batch_size: int | None,
        way: DecodeWay = "eager",
    ) -> None:
        """Keep the model.

        Args:
            model: In evaluation mode, on its device.
            processor: Of the model.
            max_new_tokens: Length at which a completion is cut off.
            batch_size: Prompts decoded together, at most; None: as many as memory holds.
            way: Of decoding; changes no completion.
        """
        self.model = model
        self._batch_size = batch_size
        self._way: DecodeWay = way
        self._tokenizer = processor.tokenizer
        self._max_new_tokens = max_new_tokens
        self._stop_ids = stop_tokens(model, processor)
        self._begun: tuple[list[bytes], Prefilled] | None = None

    def complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
        """Complete prompts, as many at once as memory allows.

        Raises:
            PipelineError: If memory does not suffice for a single prompt.
        """
        longest = max((len(prompt.token_P) for prompt in prompts), default=0)
        try:
            parts, self._batch_size = in_groups(prompts, self.at_once(longest), self._complete)
        except torch.OutOfMemoryError as error:
            msg = (
                f"out of memory with a single prompt of {longest} tokens and up to "
                f"{self._max_new_tokens} new ones: free the GPU, lower evaluate.max_new_tokens, "
                "or set evaluate.precision to bf16"
            )
            raise PipelineError(msg) from error
        return [completion for part in parts for completion in part]

    def at_once(self, prompt_tokens: float) -> int:
        """Prompts decoded together, those of this length being the longest."""
        if self._batch_size is None:
            fitting = rows_that_fit(
                self.model.config,
                self.model.device,
                num_tokens=prompt_tokens + self._max_new_tokens,
                element_bytes=self.model.dtype.itemsize,
            )
            self._batch_size = max(1, int(min(fitting, MOST_AT_ONCE)))
        return self._batch_size

    def gap_nats(self, prompt: Prompt, first: Completion, second: Completion) -> float:
        """How much likelier one of the two tokens is at which completions part, asked alone."""
        pairs = enumerate(zip(first.token_ids, second.token_ids, strict=False))
        shorter = min(len(first.token_ids), len(second.token_ids))
        place = next((i for i, (one, other) in pairs if one != other), shorter)
        rows = [completion.token_ids[: place + 1] for completion in (first, second)]
        if len(rows[0]) != len(rows[1]):
            return float("inf")  # one goes on where the other stops without an end token
        completion_1GC = torch.tensor([rows], device=self.model.device)
        with torch.no_grad():
            scores = score_completions(
                self.model,
                self._batch([prompt]),
                completion_ids=completion_1GC,
                completion_mask=torch.ones_like(completion_1GC, dtype=torch.bool),
            )
        first_nats, second_nats = scores.logprob_BGC[0, :, place].tolist()
        return abs(first_nats - second_nats)

    @torch.no_grad()
    def _complete(self, prompts: Sequence[Prompt]) -> list[Completion]:
        completed = decode(
            self.model,
            self._read(prompts),
            stop_ids=self._stop_ids,
            pad_id=self._tokenizer.pad_token_id,
            max_new_tokens=self._max_new_tokens,
            way=self._way,
        )
        lengths = completed.mask_BGC[:, 0].sum(-1).tolist()
        rows = completed.token_BGC[:, 0].tolist()
        ids = [row[:length] for row, length in zip(rows, lengths, strict=True)]
        texts = self._tokenizer.batch_decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        ends = completed.finished_BG[:, 0].tolist()
        return [Completion(*parts) for parts in zip(texts, ids, ends, strict=True)]

    def _read(self, prompts: Sequence[Prompt]) -> Prefilled:
        """Read prompts; what several share, up to the end of their audio, is read once.

        A beginning that all of a batch share is kept for the next one: of silence there is one.
        """
        audio = self.model.config.audio_token_id
        ends = [int((prompt.token_P == audio).nonzero()[-1]) + 1 for prompt in prompts]
        pairs = list(zip(prompts, ends, strict=True))
        heard = [Prompt(prompt.token_P[:end], prompt.mel) for prompt, end in pairs]
        keys = [token_P.numpy().tobytes() + mel.mel_MF.numpy().tobytes() for token_P, mel in heard]
        unlike = dict(zip(keys, heard, strict=True))
        if 2 * len(unlike) > len(prompts):
            return prefill(self.model, self._batch(prompts))
        if self._begun is None or self._begun[0] != list(unlike):
            self._begun = list(unlike), prefill(self.model, self._batch(list(unlike.values())))
        read = self._begun[1]
        if len(unlike) > 1:
            self._begun = None
        rest = [prompt.token_P[end:] for prompt, end in pairs]
        lengths = torch.tensor([len(token_S) for token_S in rest])
        token_BS = pad_sequence(rest, batch_first=True, padding_value=self._tokenizer.pad_token_id)
        mask_BS = torch.arange(token_BS.shape[1]) < lengths[:, None]
        row_of = {key: row for row, key in enumerate(unlike)}
        rows = torch.tensor([row_of[key] for key in keys])
        moved = (tensor.to(self.model.device) for tensor in (rows, token_BS, mask_BS))
        return read_on(self.model, read, *moved)

    def _batch(self, prompts: Sequence[Prompt]) -> Batch:
        batch = collate(prompts, self._tokenizer.pad_token_id)
        return {name: tensor.to(self.model.device) for name, tensor in batch.items()}


def find_disagreements(
    decoder: Decoder,
    ids: Sequence[str],
    prompts: Sequence[Prompt],
    in_batch: Sequence[Completion],
) -> list[Disagreement]:
    """Ask each prompt alone, too; more than a tie between that and the batch is a fault.

    A padding or type fault in a batch costs points unseen: in one published case 57.1 instead of
    72.4.

    Args:
        decoder: The model.
        ids: Of the questions.
        prompts: Of different lengths, so that there was padding.
        in_batch: What was said in batches.
    """
    tolerance = TIE_NATS.get(decoder.model.dtype, TIE_NATS[torch.bfloat16])
    found: list[Disagreement] = []
    for name, prompt, batched in zip(ids, prompts, in_batch, strict=True):
        (alone,) = decoder.complete([prompt])
        if alone.token_ids == batched.token_ids:
            continue
        gap_nats = decoder.gap_nats(prompt, alone, batched)
        if gap_nats > tolerance:
            found.append(Disagreement(name, alone.text, batched.text, gap_nats))
    return found
