"""Who is measured by `benchmarks/transformer.py`: learners and translators.

A learner makes one update on one batch. A translator takes sentences as ids and gives
ids. JoeyNMT, which lives in another environment, is in `transformer_joeynmt.py`.
"""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ctranslate2
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from annotated.decoding import beam_search, greedy, search_all
from annotated.export import marian_config, to_marian
from annotated.parallel import Batch, pad
from annotated.subwords import END, PAD, START
from annotated.training import batch_loss
from annotated.transformer import Config, Positions, Transformer, causal
from annotated.translation import Translator

SMOOTHING, LEARNING_RATE, BETAS, CLIP = 0.1, 1e-3, (0.9, 0.98), 1.0
LIBRARIES = ["transformers", "ctranslate2", "tokenizers", "sacrebleu"]
Ids = list[list[int]]


class TorchTransformer(nn.Module):
    """`nn.Transformer` with embeddings, places and an output layer like ours.

    It ends each stack with one LayerNorm more than the paper's model. Its dropout is
    where ours is: embeddings, attention weights, inside the network, each sublayer.
    """

    def __init__(self, config: Config, vocab: int) -> None:
        super().__init__()
        d, self.scale = config.d_model, math.sqrt(config.d_model)
        self.output = nn.Linear(d, vocab, bias=False)
        nn.init.normal_(self.output.weight, std=d**-0.5)
        self.positions, self.dropout = Positions(config), nn.Dropout(config.dropout)
        self.body = nn.Transformer(
            d,
            config.heads,
            config.layers,
            config.layers,
            config.d_ff,
            config.dropout,
            batch_first=True,
        )

    def embed(self, ids: Tensor) -> Tensor:
        """Words and places."""
        words = F.embedding(ids, self.output.weight) * self.scale
        return self.dropout(self.positions(words))

    def forward(self, batch: Batch) -> Tensor:
        """Logits of all places.

        No mask hides the padding of the target: it stands behind all words, where the
        causal mask hides it already, and without it the mask takes torch's fast way.
        """
        padding = batch.source == PAD
        length, device = batch.target_in.shape[1], batch.target_in.device
        stream = self.body(
            self.embed(batch.source),
            self.embed(batch.target_in),
            tgt_mask=~causal(length, device),
            tgt_is_causal=True,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        return self.output(stream)


class Marian(nn.Module):
    """`MarianMTModel`, its own forward pass, with as many words as ours.

    Its dropout has the same places as ours, and its layers the same norms.
    """

    def __init__(self, config: Config, vocab: int) -> None:
        super().__init__()
        sizes = marian_config(config, vocab - 1)  # which counts one word for padding
        ids = {"pad_token_id": PAD, "decoder_start_token_id": START}
        settings = transformers.MarianConfig(**sizes | ids)
        self.model = transformers.MarianMTModel(settings)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of all places."""
        found = self.model(
            input_ids=batch.source,
            attention_mask=batch.source != PAD,
            decoder_input_ids=batch.target_in,
            use_cache=False,
        )
        return found.logits


def mean_loss(logits: Tensor, batch: Batch) -> Tensor:
    """What the peers minimise: smoothed cross-entropy by torch, padding left out."""
    return F.cross_entropy(
        logits.flatten(0, 1),
        batch.target_out.flatten(),
        ignore_index=PAD,
        label_smoothing=SMOOTHING,
    )


@dataclass
class Learner:
    """A model in training, and the loss of a batch."""

    model: nn.Module
    loss: Callable[[Batch], Tensor]
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=LEARNING_RATE, betas=BETAS, fused=True
        )
        self.model.train()

    @property
    def parameters(self) -> int:
        """How many numbers are learned."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def update(self, batch: Batch) -> Tensor:
        """Forward, backward, clip and step."""
        loss = self.loss(batch)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        return loss.detach()

    def learn(self, batches: Sequence[Batch], device: str = "cpu") -> dict[str, Any]:
        """Updates on some batches, and how long they took."""
        settle(device)
        clock, cpu = time.perf_counter(), time.process_time()
        for batch in batches:
            loss = self.update(batch)
        settle(device)
        return {
            "seconds": time.perf_counter() - clock,
            "cpu_seconds": time.process_time() - cpu,
            "tokens": sum(batch.tokens for batch in batches),
            "loss": loss.item(),
        }


def settle(device: str) -> None:
    """Let a GPU finish what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def our_learner(config: Config, vocab: int, precision: str) -> Learner:
    """Ours; with bf16 the products take inputs of that precision."""
    torch.manual_seed(0)
    model = Transformer(config, vocab)

    def loss(batch: Batch) -> Tensor:
        return batch_loss(model, batch, SMOOTHING, precision)[0] / batch.tokens

    return Learner(model, loss)


def their_learner(kind: type[nn.Module], config: Config, vocab: int) -> Learner:
    """A peer of the same sizes."""
    torch.manual_seed(0)
    model = kind(config, vocab)
    return Learner(model, lambda batch: mean_loss(model(batch), batch))


@dataclass(frozen=True)
class Order:
    """How to translate: a beam of 1 is the greedy search."""

    beam: int
    batch: int
    longest: int  # words before END

    def parts(self, sources: Ids) -> list[list[int]]:
        """Numbers of sentences that are translated together, the longest first."""
        order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
        return [order[at : at + self.batch] for at in range(0, len(order), self.batch)]


def in_parts(
    sources: Ids, order: Order, search: Callable[[Ids], Ids]
) -> list[list[int]]:
    """Batches of like length, and the answers in the order of the sources."""
    answers: Ids = [[] for _ in sources]
    for part in order.parts(sources):
        found = search([sources[i] for i in part])
        for i, ids in zip(part, found, strict=True):
            answers[i] = ids
    return answers


class Ours:
    """The book's search."""

    def __init__(self, translator: Translator) -> None:
        self.model = translator.model

    def prepare(self, sources: Ids) -> Any:
        """What is not on the clock: nothing."""
        return sources

    def translate(self, sources: Ids, order: Order) -> Ids:
        """Ids to ids."""
        options: dict[str, Any] = {"search": greedy}
        if order.beam > 1:
            options = {"search": beam_search, "beam": order.beam, "length_penalty": 1.0}
        found = search_all(
            self.model,
            sources,
            batch=order.batch,
            max_length=order.longest,
            progress=False,
            **options,
        )
        return [best.ids for best, *_ in found]


def compile_forward(model: Any) -> None:
    """A peer's forward pass as one program for any length, made as ours is."""
    torch._dynamo.config.recompile_limit = 64  # its cache makes many programs
    options = {"cpp_wrapper": True}
    model.forward = torch.compile(model.forward, dynamic=True, options=options)


class HuggingFace:
    """`generate` on the exported folder.

    It divides by the same length as ours. With its default, early_stopping off, a beam
    search ends when the best beginning, divided by its length so far, cannot win; ours
    goes on until no end within the limit could. `suppress_tokens` forbids padding and
    START at less cost than the folder's `bad_words_ids`, which does the same.
    """

    def __init__(self, folder: Path) -> None:
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
        config = self.model.generation_config
        self.padding = config.pad_token_id
        config.bad_words_ids = None
        config.suppress_tokens = [PAD, START, self.padding]

    def prepare(self, sources: Ids) -> Any:
        """What is not on the clock: nothing."""
        return sources

    def translate(self, sources: Ids, order: Order) -> Ids:
        """Ids to ids."""
        return in_parts(sources, order, lambda part: self.search(part, order))

    def search(self, sources: Ids, order: Order) -> Ids:
        """One batch."""
        source = pad([[*ids, END] for ids in sources])
        real = source != PAD
        found = self.model.generate(
            input_ids=source.masked_fill(~real, self.padding),
            attention_mask=real.long(),
            num_beams=order.beam,
            do_sample=False,
            max_length=order.longest + 2,  # START and END
        )
        return [row[1 : row.index(END)] for row in found.tolist()]


class CTranslate2:
    """The converted folder in CTranslate2: C++, whole in float32.

    Its scores are divided by the same length. It ends when the beam is full of ends.
    """

    def __init__(self, folder: Path, binary: Path, threads: int) -> None:
        converter = ctranslate2.converters.TransformersConverter(str(folder))
        converter.convert(str(binary), force=True)
        self.engine = ctranslate2.Translator(
            str(binary),
            device="cpu",
            compute_type="float32",
            inter_threads=1,
            intra_threads=threads,
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.words = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        self.ids = {word: i for i, word in enumerate(self.words)}

    def prepare(self, sources: Ids) -> Any:
        """It reads words, not ids; to look them up is not on the clock."""
        return [[self.words[i] for i in [*ids, END]] for ids in sources]

    def translate(self, sources: Any, order: Order) -> Ids:
        """Words to ids."""
        return in_parts(sources, order, lambda part: self.search(part, order))

    def search(self, sources: Any, order: Order) -> Ids:
        """One batch."""
        found = self.engine.translate_batch(
            sources,
            beam_size=order.beam,
            length_penalty=1.0,
            max_decoding_length=order.longest,
            min_decoding_length=0,
        )
        return [[self.ids[word] for word in some.hypotheses[0]] for some in found]


def translators(translator: Translator, folder: Path, threads: int) -> dict[str, Any]:
    """Ours and the two that read what we export; all but C++ also compiled."""
    to_marian(translator.model, translator.source, folder / "marian")
    ours, theirs = copy.deepcopy(translator), HuggingFace(folder / "marian")
    ours.compile()
    compile_forward(theirs.model)
    return {
        "ours": Ours(translator),
        "ours_compiled": Ours(ours),
        "hf": HuggingFace(folder / "marian"),
        "hf_compiled": theirs,
        "ctranslate2": CTranslate2(folder / "marian", folder / "ctranslate2", threads),
    }
