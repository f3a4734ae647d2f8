"""The settings of training and evaluation; the defaults are the paper's (arXiv 2503.11197).

Sources of the defaults: src/train.py of the original (group size 8, temperature 1.0, one prompt a
GPU with two accumulation steps, 1000 steps, a checkpoint every 100), TRL 0.15.2's defaults that it
leaves unset (beta 0.04, learning rate 1e-6 falling linearly, gradient norm 1.0), transformers'
sampler (top-k 50). Fields marked `Idle` may be changed on a finished or a running training.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, cast

from pydantic import Discriminator, Field, Tag, model_validator

from model.prompt import PROMPTS, PromptSetting
from storage.config import BenchmarkConfig, Config, FileName, Idle, deciding
from storage.errors import PipelineError
from storage.manifest import digest_of
from storage.records.model import TRAINING_PREFIX

ControlName = Literal[
    "silence", "shuffled-audio", "first-choice", "longest-choice", "cyclic-shifts"
]
ScorerName = Literal["official", "strict"]
PartName = Literal["audio_encoder", "projector", "language_model"]
Precision = Literal["fp32", "bf16-mixed", "bf16"]
Attention = Literal["sdpa", "flex"]
DecodeWay = Literal["eager", "captured"]
AdvantageScale = Literal["group", "batch", "none"]
Number = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


# What the optimiser's state and the order of draws rest on.
CONTINUED = (
    *("method", "model", "seed", "prompts_per_step", "weight_decay", "precision", "optimizer"),
    *("lora", "freeze", "example_repeats", "max_prompt_tokens"),
)


class GrpoConfig(Config):
    """Group relative policy optimisation (arXiv 2402.03300), as R1-AQA uses it."""

    group_size: Annotated[int, Field(ge=2)] = 8
    """Completions sampled per prompt, G."""
    beta: Annotated[float, Field(ge=0)] = 0.04
    """Weight of the KL term against the start model; 0 holds no reference model."""
    learning_rate: Positive = 1e-6
    """Peak learning rate."""
    temperature: Positive = 1.0
    """Sampling temperature of the rollout."""
    top_k: Natural = 50
    """Tokens kept at each sampling step; 0: all. 50 is transformers' default, the original's."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: smallest share of probability kept."""
    min_new_tokens: Natural = 0
    """Tokens before which a completion cannot end."""
    max_completion_tokens: Number = 256
    """Tokens after which a completion is cut off."""
    loss_aggregation: Literal["sequence", "token", "constant"] = "sequence"
    """`sequence`: mean over tokens, then over completions (the paper); `token`: mean over all
    tokens of the batch (DAPO, arXiv 2503.14476); `constant`: sum over tokens divided by the longest
    completion allowed, mean over completions (Dr. GRPO, arXiv 2503.20783)."""
    advantage_scale: AdvantageScale = "group"
    """Divide the centred rewards by the standard deviation of the group (the paper) or of the batch
    (REINFORCE++, arXiv 2501.03262), or not at all (Dr. GRPO)."""
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The probability ratio is clipped at 1 - clip_low (arXiv 1707.06347)."""
    clip_high: Positive = 0.2
    """The probability ratio is clipped at 1 + clip_high; 0.28 in DAPO."""
    steps_per_rollout: Number = 1
    """Optimiser steps on each rollout; 1 in the paper, where the ratio is always 1."""
    zero_variance: Literal["keep", "skip", "resample"] = "keep"
    """Groups whose rewards are all alike: `keep` (the paper), `skip` (leave them out of the mean),
    `resample` (sample other prompts in their place, DAPO's dynamic sampling)."""
    resample_attempts: Number = 3
    """Times that other prompts are tried in place of such a group."""
    accuracy_weight: float = 1.0
    """Weight of the accuracy reward (0 or 1)."""
    format_weight: float = 1.0
    """Weight of the format reward (0 or 1)."""
    accuracy_rule: Literal["exact", "math-verify"] = "exact"
    """`exact`: the answer equals the right choice. `math-verify`: the original's rule, for
    comparison only: it pays for wrong choices that end in the same number."""
    ignore_case: bool = False
    """Count `dog` right for `Dog`."""
    ignore_final_punctuation: bool = False
    """Count `Dog.` right for `Dog`."""
    reward: str | None = None
    """Dotted path of your own, `(completion: str, example: dict) -> float`, added to the others."""


class SftConfig(Config):
    """Supervised fine-tuning on the right answer's text."""

    learning_rate: Positive = 1e-5
    """Peak learning rate."""
    random_target_share: Share = 0.0
    """Share of examples whose target is a random choice: a start that knows the answer's format."""


class LoraConfig(Config):
    """Low-rank adapters (arXiv 2106.09685) on the language model."""

    rank: Number = 16
    """Rank of the update."""
    alpha: Positive = 32.0
    """Scale of the update: alpha / rank."""
    dropout: Share = 0.05
    """Dropout on the adapter's input."""
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """Names of the adapted layers, in the language model only."""


class EveryConfig(Config):
    """Checkpoints at even distances."""

    every: Number
    """Steps between those that stay."""


class CheckpointsConfig(Config):
    """What of a training's checkpoints stays on the disk."""

    full: Number = 2
    """Newest checkpoints that keep what only resuming needs: optimiser, and fp32 weights where
    training is bf16-mixed. The others keep the weights to evaluate, in bf16 where it computes."""
    weights: Literal["all"] | tuple[Literal["best", "last"] | EveryConfig, ...] = "all"
    """Checkpoints whose weights stay, e.g. `[best, last, {every: 300}]`. Others go as the training
    passes them; with `best` they wait for their evaluation and for `python -m flows.prune`."""

    def may_go(self, step: int, *, is_measured: bool = False, is_best: bool = False) -> bool:
        """Whether the weights of a step that is not the last may go; the best's once measured."""
        even = (each.every for each in self.weights if isinstance(each, EveryConfig))
        if self.weights == "all" or any(step % number == 0 for number in even):
            return False
        return "best" not in self.weights or (is_measured and not is_best)


class StopConfig(Config):
    """When a training ends before `max_steps`."""

    patience: Number
    """Validations in a row, one at each checkpoint, no better than the best before, that end it.
    One that has ended goes on where this is raised."""


class TrainConfig(Config):
    """One training: one row of the leaderboard."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$"), Idle] = "grpo"
    """Folder name, by which later trainings start from it; it may change when a run goes on."""
    method: Literal["grpo", "sft"] = "grpo"
    """How it learns."""
    model: Annotated[str, Idle] = "Qwen/Qwen2-Audio-7B-Instruct"
    """Start model: a name on the hub, a folder, or `training:NAME` for the last checkpoint of an
    earlier training. Its digest decides, not where it lies."""
    prompt: PromptSetting = PROMPTS["answer"]
    """Of training and its evaluation: a name from model/prompts.yaml, or `{name: mine, text:
    T}`."""
    continues: Annotated[Annotated[str, Field(pattern=r"^.+@\d+$")] | None, Idle] = None
    """`NAME@STEP`: go on behind that step of an earlier entry, with its weights, optimiser, draws
    and reference, and what is not stated as there. The learning rate takes its course over all
    `max_steps`, as if they had been stated in the beginning. The checkpoint's digest decides."""
    max_steps: Number = 1000
    """Optimiser steps, those that it continues included."""
    save_steps: Annotated[Number, Idle] = 100
    """Optimiser steps between checkpoints."""
    checkpoints: Annotated[CheckpointsConfig, Idle] = CheckpointsConfig()
    """What of its checkpoints stays on the disk."""
    seed: int = 42
    """Seed of data order, sampling and initialisation of adapters."""
    prompts_per_step: Number = 16
    """Prompts of an optimiser step, over all devices (the paper: 8 GPUs, 2 passes, 1 prompt)."""
    prompts_per_device: Annotated[Number, Idle] = 1
    """Prompts in one forward pass of one device. As many passes follow as make a step."""
    warmup_steps: Natural = 0
    """Steps in which the learning rate rises."""
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    """Course of the learning rate, from transformers."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's weight decay."""
    max_grad_norm: Positive = 1.0
    """Gradients are scaled down to this norm."""
    precision: Precision = "bf16-mixed"
    """`bf16-mixed`: fp32 weights, bf16 compute (the paper); `bf16`: bf16 weights, which need an
    optimiser with stochastic rounding; `fp32`: for a CPU."""
    optimizer: Literal["adamw", "adamw-8bit-sr"] = "adamw"
    """`adamw-8bit-sr`: torchao's 8-bit AdamW with stochastic rounding, for bf16 weights."""
    attention: Annotated[Attention, Idle] = "sdpa"
    """Of the packed pass: `sdpa` computes it whole under a mask; `flex` (arXiv 2412.05496), on a
    GPU only, leaves out what no completion sees: for completions of a thousand tokens."""
    decode: Annotated[DecodeWay, Idle] = "eager"
    """How the rollout decodes: `captured` records a step's launches as a CUDA graph and plays them
    back: the same tokens, 1.4 to 2.3 times as fast on an H200. Eager where it cannot be."""
    gradient_checkpointing: Annotated[bool, Idle] = False
    """Recompute activations in the backward pass: less memory, more time."""
    sharding: Annotated[Literal["none", "zero2", "fsdp"], Idle] = "none"
    """Split over GPUs by torch's FSDP2: `zero2`: masters, gradients and optimiser state; `fsdp`:
    also the bf16 parameters, gathered layer by layer, slower and smaller."""
    num_gpus: Annotated[Natural | None, Idle] = None
    """GPUs of each host to train on; None: all that are visible. Any number trains the same."""
    num_hosts: Annotated[Number, Idle] = 1
    """Over one workspace; besides the first, each runs `python -m flows.train --join NUMBER`."""
    rendezvous: Annotated[Annotated[str, Field(pattern=r"^[^\s:]+:\d+$")] | None, Idle] = None
    """`HOST:PORT` where several hosts meet, on the first; None: its own name and a free port."""
    join_wait_s: Annotated[Positive | None, Idle] = None
    """Seconds after which the first host gives up waiting for the others; None: never."""
    freeze: tuple[PartName, ...] = ()
    """Parts that do not learn. The encoder's position table never does."""
    shuffle_choices: bool = False
    """Shuffle the order of the choices each time an example is seen."""
    example_repeats: str | None = None
    """Dotted path of your own `(line: dict) -> int`: how often the example of a line of train.jsonl
    is seen in each epoch; 0: never, and dropped.jsonl lists it. None: each once."""
    max_prompt_tokens: Annotated[int, Field(ge=16)] = 1024
    """Longest prompt, audio included (25 a second); longer examples are dropped and listed."""
    max_bad_share: Annotated[Share, Idle] = 0.01
    """Largest share of examples whose audio cannot be read; beyond it the training stops."""
    dataloader_workers: Annotated[Natural, Idle] = 2
    """Processes that decode audio and compute its features; 0: the training process itself."""
    feature_cache: Annotated[str | None, Idle] = None
    """Folder that keeps features between runs (0.5 MB a 10 s clip); None: no such folder."""
    threads: Annotated[Number | None, Idle] = None
    """CPU threads of torch; None: torch's choice."""
    progress_every_s: Annotated[Positive, Idle] = 2.0
    """Seconds between progress lines."""
    completions_every: Annotated[Number, Idle] = 50
    """Steps between samples of completions in the log."""
    report_to: Annotated[tuple[Literal["tensorboard", "wandb"], ...], Idle] = ()
    """Where metrics go besides metrics.jsonl."""
    validation_questions: Annotated[Natural, Idle] = 0
    """Held-out questions (of `annotations.validation`) that the training process answers at each
    checkpoint: a curve, judged as the accuracy reward judges. 0: none."""
    stop: StopConfig | None = None
    """End early by these questions; their number and `save_steps` then decide the outcome as
    well."""
    evaluate: Annotated[bool, Idle] = True
    """Whether its checkpoints are evaluated; a warm start's need not be."""
    grpo: GrpoConfig = GrpoConfig()
    """Settings of GRPO; used where method is `grpo`."""
    sft: SftConfig = SftConfig()
    """Settings of supervised fine-tuning; used where method is `sft`."""
    lora: LoraConfig | None = None
    """Train low-rank adapters instead of all weights."""

    @property
    def saved_steps(self) -> tuple[int, ...]:
        """Steps after which a checkpoint is written, the last step among them."""
        steps = (*range(self.save_steps, self.max_steps, self.save_steps), self.max_steps)
        return tuple(step for step in steps if step > self.steps_before)

    @property
    def steps_before(self) -> int:
        """Steps of the training that it continues."""
        return int(self.continues.rpartition("@")[2]) if self.continues else 0

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the models that it begins with: its start, and the checkpoint it continues."""
        return (self.model,) if self.continued is None else (self.model, self.continued)

    @property
    def continued(self) -> str | None:
        """The checkpoint that it continues as a model's name, `training:NAME@STEP`."""
        return self.continues and f"{TRAINING_PREFIX}{self.continues}"

    @property
    def steps_per_rollout(self) -> int:
        """Optimiser steps that use the same prompts."""
        return self.grpo.steps_per_rollout if self.method == "grpo" else 1

    @property
    def has_reference(self) -> bool:
        """Whether the start model lies beside it; an adapter's base is its own reference."""
        return self.method == "grpo" and self.grpo.beta > 0 and self.lora is None

    def check_continues(self, parent: "TrainConfig") -> None:
        """Refuse, by name, settings with which the optimiser or the draws would not fit."""
        other = [key for key in CONTINUED if getattr(self, key) != getattr(parent, key)]
        reuse = self.grpo.steps_per_rollout
        if reuse != parent.grpo.steps_per_rollout or self.steps_before % reuse:
            other.append(f"grpo.steps_per_rollout (or step {self.steps_before} is in one)")
        if self.max_steps <= self.steps_before:
            other.append(f"max_steps ({self.max_steps}, which must be more)")
        if other:
            msg = (
                f"training {self.name} continues {self.continues}: it cannot with another "
                f"{', '.join(other)}; take them out of the entry, or start it from "
                f"{self.continued}"
            )
            raise ValueError(msg)

    def num_passes(self, num_devices: int) -> int:
        """Forward passes of each device in a step; PipelineError where it does not divide."""
        wanted, at_once = self.prompts_per_step, self.prompts_per_device
        if wanted % (at_once * num_devices) == 0:
            return wanted // (at_once * num_devices)
        ways = {
            "prompts_per_step": _nearest(wanted, lambda n: n % (at_once * num_devices) == 0),
            "prompts_per_device": _nearest(at_once, lambda n: wanted % (n * num_devices) == 0),
            "devices": _nearest(num_devices, lambda n: wanted % (at_once * n) == 0),
        }
        msg = (
            f"training {self.name}: prompts_per_step {wanted} does not divide into "
            f"{num_devices} device(s) with prompts_per_device {at_once}; the nearest that do: "
            + ", or ".join(f"{name} {found}" for name, found in ways.items() if found)
        )
        raise PipelineError(msg)

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> "TrainConfig":
        resamples = self.method == "grpo" and self.grpo.zero_variance == "resample"
        if self.precision == "bf16" and self.optimizer == "adamw" and self.lora is None:
            msg = (
                "precision bf16 with optimizer adamw: at learning rates like 1e-6 98% of bf16 "
                "weights never move; use optimizer adamw-8bit-sr, or precision bf16-mixed"
            )
        elif self.stop is not None and not self.validation_questions:
            msg = "stop ends a training by its validation: set validation_questions, e.g. to 200"
        elif self.sharding == "fsdp" and resamples:
            msg = (
                "sharding fsdp with grpo.zero_variance resample: every process gathers each layer "
                "with all the others, so all must sample equally often; use sharding zero2, or "
                "zero_variance skip"
            )
        elif self.save_steps % self.steps_per_rollout:
            msg = (
                f"save_steps {self.save_steps} is no multiple of grpo.steps_per_rollout "
                f"{self.steps_per_rollout}: a checkpoint in the middle of a rollout could not be "
                "resumed; change one of them"
            )
        else:
            return self
        raise ValueError(msg)


def _nearest(number: int, fits: Callable[[int], bool]) -> str:
    """The nearest fitting numbers below and above; empty where there are none."""
    below = [n for n in range(number - 1, 0, -1) if fits(n)][:1]
    above = [n for n in range(number + 1, 2 * number + 2) if fits(n)][:1]
    return " or ".join(str(n) for n in below + above)


def deciding_settings(training: TrainConfig) -> dict[str, Any]:
    """The settings that decide a training's weights; those of the other method are unused."""
    unused = {"grpo", "sft", "stop"} - {training.method}
    found = {name: value for name, value in deciding(training).items() if name not in unused}
    if training.stop:
        by_it = {"stop", "save_steps", "validation_questions"}
        found |= training.model_dump(mode="json", include=by_it)
    return found


def idle_settings(training: TrainConfig) -> dict[str, Any]:
    """The other settings of a training, which may change on the way."""
    others = {*deciding_settings(training), "name", "grpo", "sft"}
    return training.model_dump(mode="json", exclude=others)


class ModelConfig(Config):
    """A model to evaluate besides the trainings."""

    name: FileName
    """Row name and folder name."""
    model: str
    """A name on the hub or a folder; a folder with a LoRA adapter is loaded on its base."""
    prompt: PromptSetting = PROMPTS["answer"]
    """Prompt to ask with: a name or a whole one."""


class EndpointConfig(Config):
    """A model to evaluate that answers elsewhere, by OpenAI's chat protocol with audio."""

    kind: Literal["endpoint"]
    """Says that it is one."""
    name: FileName
    """Row name and folder name."""
    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")]
    """Address up to `/v1`, e.g. `http://127.0.0.1:8000/v1`; holds no key."""
    model: str
    """Its name there."""
    prompt: PromptSetting = PROMPTS["answer"]
    """Prompt to ask with: a name or a whole one."""
    parameters: dict[str, Any] = Field(
        default_factory=lambda: {"temperature": 0, "top_p": 1, "seed": 0}
    )
    """What is said of decoding besides `max_tokens`. vLLM takes the checkpoint's own defaults for
    the rest: add `top_k: 1, repetition_penalty: 1` there."""
    audio_part: Annotated[Literal["input_audio", "audio_url"], Idle] = "input_audio"
    """How a clip is sent: OpenAI's way, or as a data URL, the only one that SGLang knows."""
    key_from: Annotated[str | None, Idle] = None
    """Environment variable that holds the key, e.g. `OPENAI_API_KEY`; None: none is needed."""
    concurrency: Annotated[int, Field(ge=1, le=256), Idle] = 8
    """Questions asked side by side."""
    attempts: Annotated[Number, Idle] = 5
    """Times that a question is asked before it counts as not answered."""
    retry_wait_s: Annotated[float, Field(ge=0), Idle] = 1.0
    """Wait before the second attempt, doubled before each further one."""
    timeout_s: Annotated[Positive, Idle] = 120.0
    """Seconds without a word after which an attempt is given up."""

    @property
    def digest(self) -> str:
        """Stands for what answers there, as far as it can be known."""
        return f"endpoint:{digest_of([self.url, self.model, self.parameters])}"


def _kind(entry: Any) -> str:  # noqa: ANN401  a profile's value, checked next
    is_set = isinstance(entry, dict) and cast("dict[str, Any]", entry).get("kind") == "endpoint"
    return "endpoint" if is_set or isinstance(entry, EndpointConfig) else "weights"


EvaluatedModel = Annotated[
    Annotated[ModelConfig, Tag("weights")] | Annotated[EndpointConfig, Tag("endpoint")],
    Discriminator(_kind),
]


class EvaluateConfig(Config):
    """What is evaluated and how. Decoding is greedy, whatever the checkpoint's own defaults say."""

    benchmarks: Annotated[tuple[BenchmarkConfig, ...], Idle] = (
        BenchmarkConfig(name="mmau-test-mini-original"),
        BenchmarkConfig(name="mmau-test-mini-v05.15.25"),
    )
    """Two versions of one are two benchmarks, each with its own runs."""
    limit: Annotated[Number | None, Idle] = None
    """Questions to ask of each benchmark: a stable sample, of each task its share, under a name of
    its own (`...-sample-100`); None: all. The held-out have `annotations.validation_size`."""
    base: Annotated[bool, Idle] = True
    """Also evaluate the model that each training started from."""
    models: Annotated[tuple[EvaluatedModel, ...], Idle] = ()
    """Further models, e.g. a released one, or `{name, kind: endpoint, url, model}`."""
    scorers: tuple[ScorerName, ...] = ("official", "strict")
    """Scorers in the tables; the first leads."""
    controls: Annotated[tuple[ControlName, ...], Idle] = ()
    """Run on start models and last checkpoints; `cyclic-shifts` asks three more times, with the
    choices rotated by one, two and three places."""
    batch_size: Annotated[Number | None, Idle] = None
    """Questions decoded together; None: as many as a GPU's free memory holds, 16 on a CPU."""
    max_new_tokens: Number = 256
    """Tokens after which an answer is cut off."""
    decode: Annotated[DecodeWay, Idle] = "eager"
    """As for `train.decode`; it pays where answers are long."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 on a GPU, fp32 on a CPU."""
    workers: Annotated[Natural, Idle] = 2
    """Processes that decode audio and compute its features."""
    threads: Annotated[Number | None, Idle] = None
    """CPU threads of torch; None: torch's choice."""
    parity_questions: Annotated[Natural, Idle] = 32
    """Questions answered alone and in a batch before the first run on a shape of model, card,
    precision and batch size; a disagreement stops it."""
    reuse: Annotated[bool, Idle] = True
    """Take over answers of the same model to the same prompt and clip from any experiment; one in a
    hundred is asked again, and all are if it differs. `--force` takes none over."""
    while_training: Annotated[bool, Idle] = False
    """Let `full_pipeline` evaluate each checkpoint as it comes, where a GPU is free (for a training
    that leaves one out, `train.num_gpus=7`); on a host without GPUs on the CPU."""
    declared_step: Annotated[int | None, Idle] = None
    """Step that leads the report, declared before the test is seen; None: by validation or last."""
