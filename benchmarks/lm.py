"""Chapter 5's language model beside Hugging Face's Llama: one machine, in turns.

Both have one shape and begin with the same weights, under Llama's names there; before
the clock starts their losses on two rows must be equal.

Training. Both make updates on the same rows of tokens, with the same fused AdamW, which
decays matrices alone, and the same clipping. Ours is the step of `annotated train lm`:
logits in chunks, numbers for the log after each update. Theirs is a plain loop around
`LlamaForCausalLM` with `labels=ids` and its default attention. Each trains in float32
and under autocast to bfloat16; `ours` and `hf` are the faster of the two, and the
record's `best` says which that was. On a CPU our loop has the C library keep freed
memory. A process has one such setting, so `hf` has a process of its own, where nobody
changed it, and `hf_kept` is the same plain loop in ours. What the words are does not
matter to the speed, so they are drawn at random. Counted are the tokens of a batch.
Llama learns from all but the first of a row, ours from as many as the row has.

Writing. Both continue prompts, one at a time, with the likeliest word and with a cache:
`ours` as `annotated generate --temperature 0` does, `ours_greedy` with
`decoding.greedy`, which also checks and scores, `hf` with `generate`. The texts must be
equal. Weights are drawn larger than a training would begin with, or else each word
would be followed by itself.

How much guesses are worth depends on what a model has learned. With `--run` a trained
model writes, behind places of its own test text, and on a CPU more take part.
`ours_ahead` has a rounded copy guess `--ahead` words, and `hf_lookup` guesses what
stood behind the same words earlier in the text (`prompt_lookup_num_tokens`).
`ours_compiled` reads as `annotated generate --compile` does, `hf_compiled` has its
forward pass compiled in the same way, and `ours_ahead_compiled` does both.
`generate_b1_ratio_hf` is the fastest of ours beside `hf` as it comes; like stands
beside like in `generate_b1_plain_ratio_hf`, `generate_b1_compiled_ratio_hf_compiled`
and `generate_b1_ahead_ratio_hf_lookup`.

All take turns, the first of which is for warming up, and the order goes round. Reported
are medians. A ratio is our speed divided by the peer's.

    python benchmarks/lm.py
    python benchmarks/lm.py --run runs/lm-15m-shakespeare
    python benchmarks/lm.py --device cuda
    python benchmarks/lm.py --preset lm-tiny --vocabulary 300 --turns 1    # a trial

How much of a GPU does training use? The other mode trains `lm-124m` in rows of 1,024,
in bfloat16, both compiled, and tells which share of the GPU's peak each reaches if both
are credited with the operations of chapter 5's equation, and how much memory each needs
at most.

    python benchmarks/lm.py --mode utilisation --device cuda
"""

import copy
import dataclasses
import itertools
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from apart import Apart
from asked import ask
from torch import nn

from annotated.data import DataError
from annotated.decoding import greedy
from annotated.language import (
    LANGUAGE,
    PRESETS,
    Sampling,
    Writer,
    flops_per_token,
    load_language_model,
    next_words,
    peak_flops,
    read_setup,
    utilisation,
)
from annotated.llama import SPECIAL_IDS, llama_config, llama_weights
from annotated.modern import Config, LanguageModel
from annotated.parallel import Batch
from annotated.records import markdown_table, read_record, write_record
from annotated.subwords import END, PAD, START, Words
from annotated.tokens import Packed, open_tokens
from annotated.training import (
    Copies,
    Process,
    Recipe,
    Run,
    keep_memory,
    make_optimizer,
    step,
)
from annotated.translation import check_device
from attention import speed, spread
from transformer import chosen_options, in_turns, peers, told

transformers, settle = peers.transformers, peers.settle

RECIPE = dataclasses.replace(
    LANGUAGE, learning_rate=3e-4, schedule="constant", warmup=0
)
DEFAULTS: dict[str, dict[str, Any]] = {
    "compare": {"preset": "lm-15m", "vocabulary": 8192, "length": 256, "tokens": 2048},
    "utilisation": {
        "preset": "lm-124m",
        "vocabulary": 50_304,
        "length": 1024,
        "tokens": 32_768,
    },
}
RATIOS = {
    "train_ratio": "train_tokens_per_second",
    "train_cpu_ratio": "train_tokens_per_cpu_second",
}
PEERS = {"hf": "hf_llama", "hf_kept": "hf_llama_kept"}
PAIRS = (
    ("plain", "ours", "hf"),
    ("greedy", "ours_greedy", "hf"),
    ("ahead", "ours_ahead", "hf"),
    ("ahead", "ours_ahead", "hf_lookup"),
    ("compiled", "ours_compiled", "hf"),
    ("compiled", "ours_compiled", "hf_compiled"),
)
PACKAGES = ["transformers", "numpy"]
TRAINED = {
    "training": "*",
    "tokens/s": "{metrics[train_tokens_per_second_*]:,.0f}",
    "tokens/CPU-s": "{metrics[train_tokens_per_cpu_second_*]:,.0f}",
}
WRITTEN = {
    "writing": "*",
    "tokens/s": "{metrics[generate_b1_tokens_per_second_*]:,.1f}",
    "tokens/CPU-s": "{metrics[generate_b1_tokens_per_cpu_second_*]:,.1f}",
}
USED = {
    "training": "*",
    "tokens/s": "{metrics[tokens_per_second_*]:,.0f}",
    "share of the peak": "{metrics[mfu_*]:.3f}",
}
DIFFERENCES = {
    "ours": "logits in chunks, rounded to bf16 there; reads loss and norm each update",
    "hf": "all logits of a batch at once, in float32 for the loss",
    "hf_kept": "as hf, in the process whose freed memory is kept for ours",
    "ours_compiled": "reading is one program, as with `annotated generate --compile`",
    "ours_ahead": "a copy in eight bits guesses, the model checks",
    "ours_ahead_compiled": "a copy in eight bits guesses; both are compiled",
    "ours_greedy": "one step more than words, to score the end",
    "hf_compiled": "its forward pass is one program, made as ours is",
    "hf_lookup": "guesses are what followed the same words before",
}


@dataclass(frozen=True)
class Settings:
    """Measure the language model beside Llama."""

    mode: Literal["compare", "utilisation"] = "compare"
    """Train and write side by side, or tell how much of a GPU training uses."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to measure."""
    parts: tuple[Literal["training", "writing"], ...] = ("training", "writing")
    """What to compare."""
    precisions: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16")
    """In which to compare training; utilisation is measured in bf16."""
    preset: str | None = None
    """One of chapter 5's sizes: lm-15m, for utilisation lm-124m."""
    vocabulary: int | None = None
    """Words: 8,192, for utilisation 50,304."""
    length: int | None = None
    """Tokens of a row: 256, for utilisation 1,024."""
    tokens: int | None = None
    """Tokens of a batch: 2,048, for utilisation 32,768."""
    batches: int = 4
    """Updates of one turn of training, on the same batches in each turn."""
    warm_up: int = 1
    """Turns of each that do not count."""
    turns: int = 5
    """Turns of each that count."""
    prompts: int = 4
    """Texts of one turn of writing."""
    prompt_tokens: int = 32
    """Tokens of each prompt."""
    new_tokens: int = 128
    """Tokens to write behind each, at most."""
    run: Path | None = None
    """Folder of a trained model that is to write, of any size; else a random one."""
    ahead: int = 8
    """Words that are guessed, by ours and theirs, where a trained model writes."""
    threads: int = torch.get_num_threads()
    """CPU threads of each."""
    compiled: bool = True
    """Compile both, and of writing with a trained model time that as well."""
    peak_teraflops: float | None = None
    """The GPU's peak in bfloat16, dense, if it is none that the program knows."""
    name: str | None = None
    """The record's name, else lm-benchmark or the preset, on a GPU with -cuda."""
    scratch: Path = Path("runs/lm-benchmark")
    """Folder for records of trials."""

    @property
    def whole(self) -> "Settings":
        """These settings, with a number for each that was left to the mode."""
        given = {name: getattr(self, name) for name in DEFAULTS[self.mode]}
        chosen = {name: value for name, value in given.items() if value is not None}
        found = dataclasses.replace(self, **DEFAULTS[self.mode] | chosen)
        for name, value in dataclasses.asdict(found).items():
            if type(value) is int and value < 1:
                option = name.replace("_", "-")
                raise DataError(f"--{option} {value}: give 1 or more")
        if found.preset not in PRESETS:
            raise DataError(
                f"--preset {found.preset}: there are {', '.join(PRESETS)}; choose one"
            )
        return found

    @property
    def config(self) -> Config:
        """The model's."""
        return PRESETS[str(self.preset)]

    @property
    def record_name(self) -> str:
        """The name under which the book asks for the record."""
        made = "lm-benchmark" if self.mode == "compare" else str(self.preset)
        return self.name or made + ("-cuda" if self.device == "cuda" else "")

    @property
    def measured(self) -> bool:
        """Whether enough is measured to publish it."""
        usual = DEFAULTS[self.mode]
        if self.turns < 3 or any(getattr(self, n) != usual[n] for n in usual):
            return False
        if self.mode == "utilisation":
            return self.device == "cuda" and self.compiled
        writing = self.prompt_tokens == 32 and self.new_tokens == 128
        return writing and len(self.parts) == 2 and len(self.precisions) == 2


def random_words(settings: Settings, count: int) -> np.ndarray:
    """Ids of words, special symbols not among them."""
    chance = np.random.default_rng(0)
    return chance.integers(END + 1, settings.vocabulary, count, dtype=np.int64)


def training_batches(settings: Settings) -> list[Batch]:
    """The batches that both learn from, all of one shape, where they are needed."""
    length, tokens = int(settings.length or 0), int(settings.tokens or 0)
    count = settings.batches * max(1, tokens // length) * length + 1
    packed = Packed(random_words(settings, count), length, tokens)
    return [batch.to(settings.device) for batch in packed.epoch()]


def our_model(settings: Settings) -> LanguageModel:
    """Ours, the same at each call."""
    torch.manual_seed(0)
    return LanguageModel(settings.config, int(settings.vocabulary or 0))


def as_llama(model: LanguageModel) -> Any:
    """Hugging Face's model of this shape, with copies of these weights."""
    weights = llama_weights(model.state_dict(), model.config)
    settings = llama_config(model.config, len(model.output.weight))
    with torch.device(model.output.weight.device):
        llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings))
    missing, unknown = llama.load_state_dict(weights, strict=False)
    if unknown or set(missing) - {"lm_head.weight"}:  # which is the embedding, if tied
        raise DataError(f"Llama has other weights: {[*missing, *unknown]}")
    return llama


class OurLearner:
    """Ours in training, by the step of `annotated train lm`."""

    def __init__(self, settings: Settings, precision: str) -> None:
        recipe = dataclasses.replace(RECIPE, precision=precision)
        model = our_model(settings).train()
        self.run = Run(model, recipe, Process(device=settings.device), Copies())

    def compile(self) -> None:
        """Compile what is between ids and the output layer."""
        model: Any = self.run.model
        model.features = torch.compile(model.features)

    def update(self, batch: Batch) -> float:
        """One update; the loss before it."""
        step(self.run, [batch])
        return float(self.run.place.means()["loss"])


class TheirLearner:
    """Llama in training, by a plain loop."""

    def __init__(self, settings: Settings, precision: str) -> None:
        self.model = as_llama(our_model(settings)).to(settings.device).train()
        self.low = precision == "bf16"
        self.recipe: Recipe = RECIPE
        self.optimizer = make_optimizer(self.model.parameters(), RECIPE, fused=True)

    def compile(self) -> None:
        """Compile all of the model, its loss too."""
        self.model.compile()

    def update(self, batch: Batch) -> torch.Tensor:
        """One update; the loss before it, which nothing waits for."""
        ids = batch.target_in
        self.optimizer.zero_grad()
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self.low):
            found = self.model(input_ids=ids, labels=ids, use_cache=False)
        found.loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        return found.loss.detach()


def learn(learner: Any, batches: Sequence[Batch], device: str) -> dict[str, Any]:
    """Updates on some batches, and how long they took."""
    settle(device)
    clock, cpu = time.perf_counter(), time.process_time()
    for batch in batches:
        loss = learner.update(batch)
    settle(device)
    return {
        "seconds": time.perf_counter() - clock,
        "cpu_seconds": time.process_time() - cpu,
        "tokens": sum(batch.target_in.numel() for batch in batches),
        "loss": float(loss),
    }


@torch.no_grad()
def check_same(settings: Settings, batch: Batch) -> str:
    """Both say the same of two rows, in float32; the attention that Llama takes."""
    model, ids = our_model(settings).to(settings.device), batch.target_in[:2]
    llama = as_llama(model)
    ours, theirs = model.loss(ids), llama(input_ids=ids, labels=ids).loss
    if not torch.isclose(ours, theirs, rtol=1e-4, atol=0):
        raise DataError(
            f"our loss is {ours:.6f} and Llama's {theirs:.6f} with the same weights: "
            "they are not the same model; run the tests of annotated.llama"
        )
    return str(llama.config._attn_implementation)


def training_measures(
    found: dict[str, list[dict[str, Any]]], precisions: Sequence[str]
) -> tuple[dict[str, float], dict[str, str]]:
    """Ratios, then medians and extremes, and which precision was whose fastest."""
    kind, metrics, best = "train_tokens_per_second", {}, {}
    for name, turns in found.items():
        metrics |= spread(kind, name, [speed(turn) for turn in turns])
        cpu = [turn["tokens"] / turn["cpu_seconds"] for turn in turns]
        metrics |= spread("train_tokens_per_cpu_second", name, cpu)
        metrics[f"last_loss_{name}"] = turns[-1]["loss"]
    peers = [who for who in PEERS if f"{who}_{precisions[0]}" in found]
    for who in ("ours", *peers):
        speeds = {f"{who}_{p}": metrics[f"{kind}_{who}_{p}"] for p in precisions}
        fastest = max(speeds, key=speeds.__getitem__)
        best[who] = fastest.removeprefix(f"{who}_")
        for each in RATIOS.values():
            metrics[f"{each}_{who}"] = metrics[f"{each}_{fastest}"]
    ratios = {}
    for (ratio, each), who in itertools.product(RATIOS.items(), peers):
        for of in ("", *(f"_{p}" for p in precisions)):
            ours, theirs = (metrics[f"{each}_{one}{of}"] for one in ("ours", who))
            ratios[f"{ratio}_{PEERS[who]}{of}"] = ours / theirs
    return ratios | metrics, best


def training_of(
    kind: type[OurLearner | TheirLearner],
    settings: Settings,
    precision: str,
    batches: Sequence[Batch],
) -> Callable[[], dict[str, Any]]:
    """A learner's work on the batches."""
    learner = kind(settings, precision)
    return told(learn, learner, batches, settings.device)


def training_apart(settings: Settings, precision: str) -> Callable[[], dict[str, Any]]:
    """Llama's, in a process that begins with it."""
    torch.set_num_threads(settings.threads)
    return training_of(TheirLearner, settings, precision, training_batches(settings))


def measure_training(settings: Settings) -> tuple[dict[str, float], dict[str, Any]]:
    """Train both, in each precision."""
    batches = training_batches(settings)
    attention = check_same(settings, batches[0])
    work: dict[str, Callable[[], dict[str, Any]]] = {}
    elsewhere = []
    for precision in settings.precisions:
        ours = training_of(OurLearner, settings, precision, batches)
        theirs = training_of(TheirLearner, settings, precision, batches)
        work[f"ours_{precision}"] = ours
        if settings.device == "cpu":
            work[f"hf_kept_{precision}"] = theirs
            theirs = Apart(training_apart, settings, precision)
            elsewhere.append(theirs)
        work[f"hf_{precision}"] = theirs
    title = f"training {settings.preset}"
    turns = in_turns(title, work, settings.warm_up, settings.turns, speed)
    for peer in elsewhere:
        peer.close()
    metrics, best = training_measures(turns, settings.precisions)
    metrics["parameters"] = sum(p.numel() for p in our_model(settings).parameters())
    return metrics, {"best": best, "hf_attention": attention, "training_turns": turns}


Ids = list[int]
Write = Callable[[Ids], Ids]


def our_writer(
    model: LanguageModel, new: int, ahead: int = 0, compiled: bool = False
) -> Write:
    """As `annotated generate` writes at temperature 0, from ids to ids."""
    how, race = Sampling(temperature=0.0), torch.zeros(1, dtype=torch.int64)
    vocabulary = Words.learn([])  # which ids do not need
    writer = Writer(copy.copy(model), vocabulary, ahead=ahead)
    if compiled:
        writer.compile()

    def choose(logits: torch.Tensor, n: int) -> torch.Tensor:
        return next_words(logits, how, race)

    def write(prompt: Ids) -> Ids:
        found: Ids = []
        for (word,) in writer.words([prompt], choose, new):
            found.append(word)
            if word == END:
                break
        return found

    return write


def our_greedy(model: LanguageModel, new: int) -> Write:
    """Our search for translations, with a text for a sentence."""
    device = model.output.weight.device

    def write(prompt: Ids) -> Ids:
        ids, length = torch.tensor([prompt]), torch.tensor([len(prompt)])
        found = greedy(model, ids.to(device), length.to(device), max_length=new)
        words = found[0][0].ids
        return [*words, END][:new]

    return write


def their_writer(llama: Any, new: int, ahead: int = 0) -> Write:
    """Hugging Face's `generate`; what ours never says, it must not say either."""
    how = transformers.GenerationConfig(
        **SPECIAL_IDS,
        suppress_tokens=[PAD, START],
        do_sample=False,
        use_cache=True,
        max_new_tokens=new,
        prompt_lookup_num_tokens=ahead or None,
    )

    def write(prompt: Ids) -> Ids:
        ids = torch.tensor([prompt], device=llama.device)
        found = llama.generate(ids, how, attention_mask=torch.ones_like(ids))
        return list(found[0, len(prompt) :].tolist())

    return write


def write_all(write: Write, prompts: list[Ids], device: str) -> dict[str, Any]:
    """A text behind each prompt, one at a time, and how long that took."""
    settle(device)
    clock, cpu = time.perf_counter(), time.process_time()
    texts = [write(prompt) for prompt in prompts]
    settle(device)
    return {
        "seconds": time.perf_counter() - clock,
        "cpu_seconds": time.process_time() - cpu,
        "tokens": sum(map(len, texts)),
        "texts": texts,
    }


def check_texts(texts: dict[str, list[Ids]]) -> None:
    """All wrote the same words."""
    for name, theirs in texts.items():
        for number, (a, b) in enumerate(zip(texts["ours"], theirs, strict=True), 1):
            if a != b:
                pairs = enumerate(zip(a, b, strict=False))
                at = next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))
                raise DataError(
                    f"{name}: text {number} is not ours, from word {at} on; with the "
                    "same weights it should be, so there is no speed to compare"
                )


def trained(settings: Settings, folder: Path) -> tuple[LanguageModel, Any, str]:
    """A run's model, prompts from its test text, and how the run was made."""
    writer = load_language_model(folder, settings.device)
    place = folder / read_setup(folder).get("tokens", "tokens")
    ids = np.asarray(open_tokens(place, "test", writer.vocabulary).ids, dtype=np.int64)
    size, each = settings.prompts, settings.prompt_tokens
    first = np.linspace(0, len(ids) - each, size, dtype=np.int64)
    record = folder / f"{folder.resolve().name}.json"
    made = read_record(record)["command"] if record.is_file() else "not recorded"
    return writer.model, ids[first[:, None] + np.arange(each)], made


def random_model(settings: Settings) -> tuple[LanguageModel, Any, str]:
    """Ours with matrices five times as large, so that a text has many words."""
    model = our_model(settings).to(settings.device).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5.0 if parameter.dim() > 1 else 1.0)
    size = settings.prompts, settings.prompt_tokens
    words = random_words(settings, size[0] * size[1])
    return model, words.reshape(size), "none"


def measure_writing(settings: Settings) -> tuple[dict[str, float], dict[str, Any]]:
    """Continue the prompts with all of them."""
    transformers.utils.logging.set_verbosity_error()
    folder, new, ahead = settings.run, settings.new_tokens, settings.ahead
    found = trained(settings, folder) if folder else random_model(settings)
    (model, prompts, made), llama = found, as_llama(found[0]).eval()
    writers = {
        "ours": our_writer(model, new),
        "ours_greedy": our_greedy(model, new),
        "hf": their_writer(llama, new),
    }
    if folder and settings.device == "cpu":
        writers["ours_ahead"] = our_writer(model, new, ahead)
        writers["hf_lookup"] = their_writer(llama, new, ahead)
    if folder and settings.device == "cpu" and settings.compiled:
        writers["ours_compiled"] = our_writer(model, new, compiled=True)
        writers["ours_ahead_compiled"] = our_writer(model, new, ahead, compiled=True)
        peers.compile_forward(compiled_llama := copy.deepcopy(llama))
        writers["hf_compiled"] = their_writer(compiled_llama, new)
    work = {
        name: told(write_all, write, prompts.tolist(), settings.device)
        for name, write in writers.items()
    }
    turns = in_turns("writing", work, settings.warm_up, settings.turns, speed)
    texts = {name: done[-1].pop("texts") for name, done in turns.items()}
    check_texts(texts)
    metrics = writing_measures(turns)
    kinds = [len(set(text)) for text in texts["ours"]]
    return metrics, {"different_words_of_each_text": kinds, "training_of_run": made}


def writing_measures(turns: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Ratios, then medians and extremes.

    ``generate_b1_ratio_X`` is of our fastest way to a peer's way X; where a word stands
    before ``ratio``, of this way of ours.
    """
    metrics, ratios = {}, {}
    for cpu in ("", "cpu_"):
        kind, rate = f"generate_b1_tokens_per_{cpu}second", {}
        for name, done in turns.items():
            rates = [turn["tokens"] / turn[f"{cpu}seconds"] for turn in done]
            metrics |= spread(kind, name, rates)
            rate[name] = metrics[f"{kind}_{name}"]
        best = max(rate[name] for name in rate if name.startswith("ours"))
        for name in (name for name in rate if name.startswith("hf")):
            ratios[f"generate_b1_{cpu}ratio_{name}"] = best / rate[name]
        for way, ours, theirs in PAIRS:
            if ours in rate and theirs in rate:
                ratio = f"generate_b1_{way}_{cpu}ratio_{theirs}"
                ratios[ratio] = rate[ours] / rate[theirs]
    return ratios | metrics


def peak_of(settings: Settings) -> float:
    """Operations a second at best."""
    peak = (settings.peak_teraflops or 0) * 1e12 or peak_flops(settings.device)
    if peak is None:
        raise DataError(
            f"--device {settings.device}: its peak is not known here; give "
            "--peak-teraflops, dense, in bfloat16"
        )
    return float(peak)


def ready(
    kind: type[OurLearner | TheirLearner], settings: Settings, batch: Batch
) -> tuple[OurLearner | TheirLearner, float | None]:
    """A learner that has made two updates, and the most GiB that the second took.

    Counted is what came with this learner: its weights, their gradients, the
    optimizer's tensors and what an update needs for a while.
    """
    cuda = settings.device == "cuda"
    before = torch.cuda.memory_allocated() if cuda else 0
    learner = kind(settings, "bf16")
    if settings.compiled:
        learner.compile()
    learn(learner, [batch], settings.device)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    learn(learner, [batch], settings.device)
    most = torch.cuda.max_memory_allocated() - before if cuda else None
    return learner, None if most is None else most / 2**30


def measure_utilisation(settings: Settings) -> tuple[dict[str, float], dict[str, Any]]:
    """Train both, and tell what share of the peak that is."""
    peak = peak_of(settings)
    batches = training_batches(settings)
    attention = check_same(settings, batches[0])
    if settings.device == "cuda":
        torch.set_float32_matmul_precision("high")
    metrics, work = {}, {}
    for name, kind in (("ours", OurLearner), ("hf", TheirLearner)):
        learner, memory = ready(kind, settings, batches[0])
        work[name] = told(learn, learner, batches, settings.device)
        if memory is not None:
            metrics[f"peak_memory_gib_{name}"] = memory
    title = f"training {settings.preset}"
    turns = in_turns(title, work, settings.warm_up, settings.turns, speed)
    sizes = int(settings.vocabulary or 0), int(settings.length or 0)
    flops = flops_per_token(settings.config, *sizes)
    found = utilisation_measures(turns, flops, peak) | metrics
    about = {"flops_per_token": flops, "peak_flops": peak, "hf_attention": attention}
    return found, about | {"turns_of_training": turns}


def utilisation_measures(
    turns: dict[str, list[dict[str, Any]]], flops: int, peak: float
) -> dict[str, float]:
    """Speed and share of the peak: of ours without a name, and of each by name."""
    metrics: dict[str, float] = {}
    for name, done in turns.items():
        rates = [speed(turn) for turn in done]
        metrics |= spread("tokens_per_second", name, rates)
        shares = [utilisation(rate, flops, peak) for rate in rates]
        metrics |= spread("mfu", name, shares)
        metrics[f"last_loss_{name}"] = done[-1]["loss"]
    ours = {kind: metrics[f"{kind}_ours"] for kind in ("mfu", "tokens_per_second")}
    ratio = metrics["tokens_per_second_ours"] / metrics["tokens_per_second_hf"]
    return ours | {"train_ratio_hf_llama": ratio} | metrics


def measure(settings: Settings) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics, and what the record's config tells beside the settings."""
    check_device(settings.device)
    keep_memory()
    torch.set_num_threads(settings.threads)
    before = {"load_before": os.getloadavg()[0]}
    if settings.mode == "utilisation":
        metrics, about = measure_utilisation(settings)
        return metrics, before | about
    if settings.run:
        trained(settings, settings.run)  # a wrong folder is said before the training
    metrics, about = {}, {}
    parts = {"training": measure_training, "writing": measure_writing}
    for part in settings.parts:
        more, told_more = parts[part](settings)
        metrics, about = metrics | more, about | told_more
    ratios = {name: value for name, value in metrics.items() if "ratio" in name}
    return ratios | metrics, before | about


def tables(record: dict[str, Any], settings: Settings) -> str:
    """What was measured, to be read."""
    if settings.mode == "utilisation":
        return markdown_table([record], USED, ["ours", "hf"])
    found = []
    if "training" in settings.parts:
        names = ["ours", *(who for who in PEERS if who in record["config"]["best"])]
        rows = [f"{who}_{p}" for p in settings.precisions for who in names]
        found.append(markdown_table([record], TRAINED, rows))
    if "writing" in settings.parts:
        kind = "generate_b1_tokens_per_second_"
        names = [name for name in DIFFERENCES if f"{kind}{name}" in record["metrics"]]
        found.append(markdown_table([record], WRITTEN, names))
    return "\n\n".join(found)


def report(settings: Settings) -> None:
    """Measure, write the record and print it as tables."""
    settings = settings.whole
    metrics, about = measure(settings)
    chosen = dataclasses.asdict(settings)
    for key in ("name", "scratch", "run"):
        del chosen[key]
    chosen |= {
        "model": dataclasses.asdict(settings.config),
        "recipe": dataclasses.asdict(RECIPE),
        "differences": DIFFERENCES,
    }
    path = write_record(
        settings.record_name,
        kind="benchmark",
        command=shlex.join(["python", "benchmarks/lm.py", *chosen_options()]),
        config=chosen | about,
        metrics=metrics,
        packages=PACKAGES,
        folder=None if settings.measured else settings.scratch,
    )
    print(f"\n{tables(read_record(path), settings)}\n")
    for name, value in metrics.items():
        if "ratio" in name:
            print(f"{name}: {value:.3f}")
    print(f"Record: {path}")


if __name__ == "__main__":
    sys.exit(ask(Settings, report, __doc__))
