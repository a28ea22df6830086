"""Write the scoreboard, `book/results.md`, from the records in `results/`.

    python scripts/scoreboard.py            # write the page and its picture
    python scripts/scoreboard.py --check    # fail if they are not what the records say

The words of the page are those of `scripts/scoreboard.md`. A line there such as
`<!-- translators: multi30k en-de -->` names one of the tables below, which takes its
place. Nothing else goes in: the same records give the same page.

A record is shown when a table links to it. One that no table shows is an error, so a
new kind of record needs a new table; a new run of a known kind needs nothing.
"""

import argparse
import html
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from annotated.data import DataError, replacing
from annotated.records import cased_score, filled, read_record
from annotated.transformer import PRESETS as TRANSFORMERS

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = ROOT / "scripts" / "scoreboard.md"
PAGE, PICTURE = Path("book/results.md"), Path("book/_static/scoreboard.svg")
MEND = "run `make scoreboard` and commit what it writes"
MARKER = re.compile(r"^<!-- (?P<table>\w+): (?P<options>.*) -->$", re.MULTILINE)
NONE = "–"
Record = dict[str, Any]
Columns = Mapping[str, str]


# What is not from a record


@dataclass(frozen=True)
class Published:
    """A score of others for the same test set, and where one can look it up."""

    data: str
    pair: str
    model: str
    paper: str
    address: str
    bleu: float
    updates: str
    hardware: str
    source: str


PUBLISHED = [
    Published(
        data="multi30k",
        pair="en-de",
        model="text-only Transformer `tiny`",
        paper="Wu et al. 2021",
        address="https://aclanthology.org/2021.acl-long.480/",
        bleu=41.02,
        updates="up to 8,000",
        hardware="2 GPUs",
        source="https://github.com/LividWo/Revisit-MMT/blob/master/README-baseline.md",
    )
]

# A measurement that waits for a GPU: its record, what it is, and the command that will
# write the record.
WANTED = {
    "transformer-benchmark-cuda": (
        "the Transformer `base` beside other programs",
        "python benchmarks/transformer.py --device cuda",
    ),
    "lm-benchmark-cuda": (
        "the language model beside Llama",
        "python benchmarks/lm.py --device cuda",
    ),
    "lm-124m-cuda": (
        "training `lm-124m`",
        "python benchmarks/lm.py --mode utilisation --device cuda",
    ),
    "lm-124m-books": (
        "`lm-124m` on books, its loss by updates",
        "annotated train lm --preset lm-124m --data books --length 1024 "
        "--tokens 32768 --vocabulary 50000 --precision bf16 --compile "
        "--device cuda --name lm-124m-books",
    ),
    "transformer-tiny-cuda-multi30k-en-de": (
        "`tiny` on Multi30k to 41 BLEU, in less than five minutes",
        "annotated train transformer --preset tiny --data multi30k --pair en-de "
        "--device cuda --name transformer-tiny-cuda-multi30k-en-de",
    ),
    "word2vec-benchmark-cuda": (
        "word vectors",
        "python benchmarks/word2vec.py --device cuda",
    ),
}


# Tables


def table(columns: Columns, rows: Iterable[Mapping[str, Any]]) -> str:
    """A Markdown table of rows that fill the columns' cells.

    >>> print(table({"run": "{name}", "BLEU": "{bleu}"}, [{"name": "a", "bleu": 2}]))
    | run | BLEU |
    | :--- | ---: |
    | a | 2 |
    """
    cells = [[filled(cell, row) for cell in columns.values()] for row in rows]
    return markdown([list(columns), *cells])


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table of a header and its rows; numbers stand flush right."""
    head, *rows = lines
    texts = [any(map(is_text, column)) for column in zip(*rows, strict=True)]
    marks = [":---" if text else "---:" for text in texts]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, marks, *rows))


def is_text(cell: str) -> bool:
    """Whether a cell is no number, as those of text columns are."""
    number = r"(up to )?[\d.,]+%?( \([\d.]+×\))?"
    return cell not in (NONE, "not yet run") and not re.fullmatch(number, cell)


class Fields(dict[str, Any]):
    """A record or a part of one; what it lacks is an error that names the record."""

    name = ""

    @classmethod
    def of(cls, content: Any, name: str) -> Any:
        """The same content, its dictionaries as fields."""
        if not isinstance(content, dict):
            return content
        fields = cls({key: cls.of(value, name) for key, value in content.items()})
        fields.name = name
        return fields

    def __missing__(self, key: str) -> Any:
        """Say which record it is."""
        raise DataError(
            f"record {self.name}: the scoreboard needs its '{key}', and it has none; "
            "run its command again"
        )


@dataclass
class Board:
    """The records, and which of them a table has shown."""

    records: dict[str, Record]
    shown: set[str] = field(default_factory=set)

    def made(self, record: Record) -> str:
        """Links to the record, and to how it is made again; it counts as shown."""
        self.shown.add(record["name"])
        return f"[record](../results/{record['name']}.json), [how](#{record['name']})"

    def trained(self, metric: str) -> list[Record]:
        """The trained models with this measure, from the lowest to the highest."""
        found = [
            record
            for record in self.records.values()
            if record["kind"] == "training" and metric in record["metrics"]
        ]
        return sorted(found, key=lambda r: (r["metrics"][metric], r["name"]))

    def row(self, record: Record, **more: str) -> Record:
        """A trained model's record with what its row shows beside the metrics."""
        minutes = f"{record['metrics']['train_seconds'] / 60:,.0f}"
        found = {"machine": machine(record), "made": self.made(record)}
        return record | found | {"minutes": minutes} | more


def machine(record: Record) -> str:
    """The hardware in a few words: a GPU, or a processor and the threads in use."""
    hardware, config = record["hardware"], record["config"]
    name = re.sub(r"\((R|TM)\)| Processor| CPU", "", hardware["gpu"] or hardware["cpu"])
    if hardware["gpu"]:
        count = config.get("processes", 1)
        return f"{count} × {name}" if count > 1 else name
    count = config.get("threads", config.get("workers", hardware["cores"]))
    return f"{name}, {count} thread{'s' if count > 1 else ''}"


def wanted(board: Board, _: str) -> str:
    """What a GPU has been measured at, and what is not yet run."""
    rows = []
    for name, (title, command) in WANTED.items():
        if record := board.records.get(name):
            speed = "{tokens_per_second:,.0f} tokens/s ({mfu:.0%} of the peak)"
            result = lenient(speed, record["metrics"]).replace(NONE, "see its table")
            made = f"{board.made(record)}, {machine(record)}"
        else:
            result, made = "not yet run", f"`{command}`"
        rows.append({"title": title, "result": result, "made": made})
    return table(
        {"measurement": "{title}", "result": "{result}", "made by": "{made}"}, rows
    )


# Trained models


TRAINED = {
    "parameters": "{metrics[parameters]:,.0f}",
    "updates": "{metrics[updates]:,.0f}",
    "minutes": "{minutes}",
    "tokens/s": "{metrics[tokens_per_second]:,.0f}",
}
MADE = {"trained on": "{machine}", "made by": "{made}"}
TRANSLATORS = {
    "model": "{model}",
    "BLEU, lower case": "{metrics[bleu_tok_lc]:.1f}",
    "BLEU, Moses": "{moses}",
    "BLEU, cased": "{cased}",
    **TRAINED,
    "sentences/s": "{metrics[sentences_per_second]:,.0f}",
    **MADE,
}


def model_words(config: Mapping[str, Any]) -> tuple[str, list[str]]:
    """A translator's name, and what sets this one apart from others of the name."""
    model, run = config["model"], run_words(config)
    match model["family"]:
        case "seq2seq":
            name = model["cell"].upper()
            name += ", source reversed" if model["reverse"] else ""
            name += ", vector fed at each step" if model["feed"] else ""
            return name, run
        case "attention" if model["score"] == "additive":
            return "Bahdanau's attention", run
        case "attention":
            return f"Luong's attention, {model['score']}", run
        case "transformer":
            return f"Transformer {size(model)}", parts(model) + run
    raise DataError(
        f"the scoreboard has no name for the family '{model['family']}': give it one "
        "in scripts/scoreboard.py"
    )


def size(model: Mapping[str, Any]) -> str:
    """The preset with these layers, width and heads, or else the numbers."""
    keys = ("layers", "d_model", "heads")
    for name, preset in TRANSFORMERS.items():
        if all(getattr(preset, key) == model[key] for key in keys):
            return f"`{name}`"
    return f"with {model['layers']} + {model['layers']} layers, {model['d_model']} wide"


def parts(model: Mapping[str, Any]) -> list[str]:
    """In which parts a Transformer is not that of 2017."""
    gates = {"sigmoid": "GLU", "relu": "ReGLU", "gelu": "GEGLU", "silu": "SwiGLU"}
    groups, rope = model.get("kv_heads", model["heads"]), model.get("rope")
    places = {"learned": "learned places", "none": "" if rope else "no places"}
    found = [
        "norm first" if model["norm"] == "pre" else "",
        "RMSNorm" if model.get("rms") else "",
        "RoPE" if rope else "",
        places.get(model["positions"], ""),
        gates.get(model.get("gate", "none"), ""),
        f"keys in {groups} groups" if groups < model["heads"] else "",
        "" if model.get("bias", True) else "no biases",
    ]
    return [words for words in found if words]


def run_words(config: Mapping[str, Any]) -> list[str]:
    """What a run did otherwise than its preset's plain run."""
    dropped, start = config.get("bpe_dropout"), config.get("start")
    agreed = config["recipe"].get("r_drop")  # older records have none
    found = [
        "small letters" if config.get("lowercase") else "",
        f"BPE-dropout {dropped:g}" if dropped else "",
        f"R-Drop {agreed:g}" if agreed else "",
        f"continues `{start}`" if start else "",
    ]
    return [words for words in found if words]


CHAPTERS = {"seq2seq": "02_seq2seq", "attention": "03_attention"}
OF_2017 = {"norm first", "learned places", "no places"}  # chapter 4 has these as well


def chapter(model: Mapping[str, Any]) -> str:
    """The address of the chapter that builds the model."""
    page = CHAPTERS.get(model["family"])
    if page is None:
        page = "05_modern" if set(parts(model)) - OF_2017 else "04_transformer"
    return f"../notebooks/{page}.ipynb"


def corpus(record: Record) -> str:
    """What a translator was trained on, and from which language to which."""
    return f"{Path(record['config']['data']).name} {record['config']['pair']}"


def translators(board: Board, options: str) -> str:
    """The translators of a corpus and a pair, what others report, how all score."""
    found = [r for r in board.trained("bleu_tok_lc") if corpus(r) == options]
    rows = [translator(board, record) for record in found]
    titles = [row["model"] for row in rows]
    for row in rows:
        if titles.count(row["model"]) > 1:
            row["model"] += f" (`{row['name']}`)"
    lines = [table(TRANSLATORS, rows)]
    lines += [published_row(p) for p in PUBLISHED if f"{p.data} {p.pair}" == options]
    return "\n".join([*lines, "", scoring(found)]).strip()


def translator(board: Board, record: Record) -> Record:
    """A translator's record with what its row shows."""
    name, details = model_words(record["config"])
    return board.row(
        record,
        model=", ".join([f"[{name}]({chapter(record['config']['model'])})", *details]),
        cased=cased_score(record),
        moses=moses_score(record),
    )


def moses_score(record: Record) -> str:
    """The score with words as Moses cuts them, where it was computed."""
    score = record["metrics"].get("bleu_moses_lc")
    return NONE if score is None else f"{score:.1f}"


def published_row(score: Published) -> str:
    """What others report, as a row of the table of translators."""
    cells = {
        "model": f"*published:* {score.model}, [{score.paper}]({score.address})",
        "BLEU, Moses": f"{score.bleu:.2f}",
        "updates": score.updates,
        "trained on": score.hardware,
        "made by": f"[source]({score.source})",
    }
    return f"| {' | '.join(cells.get(column, NONE) for column in TRANSLATORS)} |"


def scoring(found: Iterable[Record]) -> str:
    """Test set, beam and signatures of these runs; each once."""
    names = {
        "bleu_tok_lc": "lower case",
        "bleu_moses_lc": "Moses",
        "bleu_cased": "cased",
    }
    tests: dict[str, dict[str, str]] = {}
    for config in (record["config"] for record in found):
        test = f"Tested on `{config['split']}` with beam {config['beam']}."
        tests.setdefault(test, {}).update(config["signatures"])
    said = []
    for test, texts in sorted(tests.items()):
        each = [f"`{texts[key]}` for {names[key]}" for key in names if key in texts]
        said.append(f"{test} Signatures: {', '.join(each)}.")
    return "\n".join(said)


def other_translators(board: Board, known: str) -> str:
    """The translators of all corpora and pairs but the known ones."""
    names = {corpus(record) for record in board.trained("bleu_tok_lc")}
    others = sorted(names - set(known.split(", ")))
    return "\n\n".join(f"### {o}\n\n{translators(board, o)}" for o in others)


def language_models(board: Board, _: str) -> str:
    """The trained language models, if there are any."""
    rows = []
    for record in board.trained("bits_per_byte"):
        text = " and ".join(Path(data).name for data in record["config"]["data"])
        rows.append(
            board.row(record, model=f"`{record['config']['preset']}` on {text}")
        )
    measures = {
        "bits per byte": "{metrics[bits_per_byte]:.3f}",
        "perplexity of a token": "{metrics[perplexity]:,.1f}",
    }
    columns = {"model": "{model}", **measures, **TRAINED, **MADE}
    return table(columns, rows) if rows else ""


def vectors(board: Board, _: str) -> str:
    """The word vectors that were trained for themselves, if there are any."""
    rows = [board.row(record) for record in board.trained("words_per_second")]
    columns = {"run": "`{name}`", "words/s": "{metrics[words_per_second]:,.0f}"}
    for title, cell in VECTORS.items():
        metric = cell.removeprefix("{").removesuffix("_*:.3f}")
        if all(metric in row["metrics"] for row in rows):
            columns[title] = f"{{metrics[{metric}]:.3f}}"
    return table(columns | {"minutes": "{minutes}"} | MADE, rows) if rows else ""


# Measurements: one record, a row for each program or model


VECTORS = {
    "WordSim-353": "{wordsim353_*:.3f}",
    "SimLex-999": "{simlex999_*:.3f}",
    "analogies": "{analogies_*:.3f}",
}
CHANGES = {
    "chapter4": "none, as in chapter 4",
    "rms_norm": "RMSNorm",
    "pre_norm": "norm first",
    "rope": "RoPE",
    "swiglu": "SwiGLU",
    "grouped_query": "two groups of keys",
    "no_biases": "no biases",
    "all": "all of these",
    "chosen": "none: norm first, labels smoothed",
    "post_norm": "norm after the sum",
    "no_smoothing": "labels not smoothed",
}
RACE = {
    "change": "",
    "validation loss": "{validation_loss_*:.2f}",
    "BLEU, lower case": "{bleu_tok_lc_*:.1f}",
    "bits per byte": "{bits_per_byte_*:.2f}",
    "BLEU, greedy": "{bleu_greedy_last_*:.1f}",
    "beam 5": "{bleu_beam_last_*:.1f}",
    "mean of 5 checkpoints, greedy": "{bleu_greedy_mean_*:.1f}",
    "mean, beam 5": "{bleu_beam_mean_*:.1f}",
    "parameters": "{parameters_*:,.0f}",
}
# For each kind of record its tables. The first column has the row's title. In a cell
# the star stands for the row's key; what follows the first space may be missing.
MEASURED: dict[str, list[Columns]] = {
    "transformer-benchmark": [
        {
            "training, words/s": "",
            **{
                f"`{size}`": f"{{train_tokens_per_second_{size}_*:,.0f}}"
                f" ({{train_ratio_*_{size}:.2f}}×)"
                for size in ("tiny", "d256", "base")
            },
        },
        {
            "translating, sentences/s": "",
            **{
                f"{search}, {many}": f"{{{key}_sentences_per_second_*:,.0f}}"
                f" ({{{key}_ratio_*:.2f}}×)"
                for search, name in (("greedy", "greedy"), ("beam 5", "beam5"))
                for many, key in (
                    ("one", f"{name}_b1"),
                    ("100 at once", f"{name}_b100"),
                )
            },
        },
    ],
    "attention-benchmark": [
        {
            "program": "",
            "training, words/s": "{train_tokens_per_second_*:,.0f}"
            " ({train_ratio_*:.2f}×)",
            "beam 5, sentences/s": "{beam5_sentences_per_second_*:,.0f}"
            " ({beam5_ratio_*:.2f}×)",
        }
    ],
    "lm-benchmark": [
        {
            "tokens/s": "",
            "training, 32 bits": "{train_tokens_per_second_*_fp32:,.0f}"
            " ({train_ratio_*_fp32:.2f}×)",
            "training, 16 bits": "{train_tokens_per_second_*_bf16:,.0f}"
            " ({train_ratio_*_bf16:.2f}×)",
            "writing, 32 bits": "{generate_b1_tokens_per_second_*:,.0f}"
            " ({generate_b1_ratio_*:.2f}×)",
        }
    ],
    "word2vec-benchmark": [
        {
            "vectors": "",
            "words/s": "{words_per_second_*:,.0f} ({ratio_*:.2f}×)",
            **VECTORS,
        }
    ],
    "modern-ablation-multi30k": [RACE],
    "modern-ablation-shakespeare": [RACE],
    "recipe-ablation-multi30k": [RACE],
    "little-language": [
        {
            "model": "",
            **{
                test: f"{{exact_{test}_*:.1%}}"
                for test in ("random", "longer", "unseen")
            },
            "parameters": "{parameters_*:,.0f}",
            "seconds": "{seconds_*:,.0f}",
        }
    ],
    "mutants": [{"put back": "", "bugs": "{total:.0f}", "noticed": "{caught:.0f}"}],
}
# Names of metrics that do not say whose they are, or say it otherwise.
ALIASES = {"hf_llama_kept": "hf_kept", "hf_llama": "hf"}
ALIASES |= {"words_per_second_ratio": "ratio_gensim"}


def titles(record: Record) -> dict[str, str]:
    """The keys of a record's rows and what they stand for, programs with versions."""
    version, name = record["versions"], record["name"]
    face = f"transformers {version.get('transformers')}"
    hf = f"{'Llama' if name.startswith('lm-') else 'Pegasus'}, {face}"
    joeynmt = record["config"].get("joeynmt_versions", {}).get("joeynmt")
    programs = {
        "ours": "this book",
        "ours_fp32": "this book, 32 bits",
        "nn_transformer": f"`nn.Transformer`, torch {version['torch']}",
        "marian": f"Marian, {face}",
        "hf": hf,
        "hf_kept": f"{hf}, memory kept",
        "ours_ahead": "this book, guessing ahead",
        "ours_compiled": "this book, compiled",
        "ours_ahead_compiled": "this book, guessing ahead, compiled",
        "hf_lookup": f"{hf}, guessing by look-up",
        "hf_compiled": f"{hf}, compiled",
        "joeynmt": f"JoeyNMT {joeynmt}",
        "ctranslate2": f"CTranslate2 {version.get('ctranslate2')}",
        "gensim": f"gensim {version.get('gensim')}",
    }
    if name.startswith("word2vec"):
        dims = record["config"]["dims"]
        both = [(who, dim) for dim in dims for who in ("ours", "gensim")]
        return {f"{who}_d{dim}": f"{programs[who]}, d = {dim}" for who, dim in both}
    if "-ablation-" in name:
        return {key: CHANGES.get(key, key) for key in record["config"]["models"]}
    if name == "little-language":
        return {
            "one_vector": "one vector, chapter 2",
            "attention": "attention, chapter 3",
            "transformer": "attention alone, chapter 4",
        }
    if name == "mutants":
        return {"": f"the bugs of {len(record['config']['pitfalls'])} pitfalls"}
    return programs


def measured(board: Board, prefix: str) -> str:
    """The tables of each record that is named so, and where it comes from."""
    found = []
    for name, record in board.records.items():
        if name.startswith(prefix):
            when = f"{record['date'][:10]}: {board.made(record)}."
            where = f"{machine(record)}, torch {record['versions']['torch']}"
            found += [grid(record, columns) for columns in MEASURED[prefix]]
            found.append(f"{noise(record)}{where}, {when}")
    return "\n\n".join(filter(None, found))


def grid(record: Record, columns: Columns) -> str:
    """One table of a record, without the rows and the columns that it lacks."""
    metrics = dict(record["metrics"])
    for old, new in ALIASES.items():
        metrics = {name.replace(old, new): value for name, value in metrics.items()}
    rows = [list(columns)]
    for key, title in titles(record).items():
        cells = [lenient(cell.replace("*", key), metrics) for cell in columns.values()]
        if set(cells) != {NONE}:
            rows.append([title, *cells[1:]])
    used = [column for column in zip(*rows, strict=True) if set(column[1:]) != {NONE}]
    return markdown(list(zip(*used, strict=True))) if len(used) > 1 else ""


def lenient(cell: str, metrics: Mapping[str, float]) -> str:
    """The cell filled as far as the metrics go, else a dash.

    >>> lenient("{a:.1f} ({b:.2f}×)", {"a": 1}), lenient("{b}", {"a": 1})
    ('1.0', '–')
    """
    for part in (cell, cell.partition(" ")[0]):
        try:
            return part.format(**metrics) or NONE
        except KeyError:
            pass
    return NONE


def noise(record: Record) -> str:
    """How far apart the draws of a race lie."""
    spread = record["metrics"].get("noise_validation_loss_pooled")
    if spread is None:
        return ""
    return (
        f"Means of {record['config']['seeds']} draws; the loss of one draw has a "
        f"standard deviation of {spread:.3f}, pooled over the rows. "
    )


# How to make each again


LINE = 78  # letters of a command that a page shows without scrolling


def commands(board: Board, kind: str) -> str:
    """A heading for each record of a kind, its command, and where it was run."""
    found = [record for record in board.records.values() if record["kind"] == kind]
    return "\n\n".join(command(record) for record in found)


def command(record: Record) -> str:
    """How to make a record again, and where it was made."""
    commit, hardware = record["commit"], record["hardware"]
    code = f"commit `{commit[:10]}`" if commit != "unknown" else "commit unknown"
    code += ", with changes not committed" if commit.endswith("-dirty") else ""
    where = [hardware["gpu"], hardware["cpu"], f"{hardware['cores']} cores"]
    where += [f"{hardware['memory_gib']:g} GiB"] if hardware["memory_gib"] else []
    versions = [f"{name} {version}" for name, version in record["versions"].items()]
    note = record["config"].get("note", "").strip("()")
    made = [record["date"][:10], code, *filter(None, where), *versions]
    first = record["config"].get("training_of_run", "")  # of a model that it needs
    needed = [first] if first.startswith("annotated") else []
    lines = "\n".join(map(broken, [*needed, record["command"]]))
    return (
        f"#### {record['name']}\n\n```bash\n{lines}\n```\n\n"
        f"{', '.join(made)}.{f' Note: {note}.' if note else ''}"
    )


def broken(line: str) -> str:
    r"""A long command on several lines, as a shell reads it.

    >>> print(broken("annotated train " + "--an-option value " * 4 + "--the-last"))
    annotated train --an-option value --an-option value --an-option value \
        --an-option value --the-last
    """
    first, *options = re.split(r" (?=--)", line)
    lines = [first]
    for option in options:
        if len(f"{lines[-1]} {option}") < LINE:
            lines[-1] += f" {option}"
        else:
            lines.append(f"    {option}")
    return " \\\n".join(lines)


# The picture


COLOURS = {"en-de": "German", "en-fr": "French"}
LONGEST = 84  # per cent of the width; what is left holds the number


def picture(board: Board) -> str:
    """The best score of each translator along the road, as bars of both languages."""
    best: dict[str, dict[str, float]] = {}
    for record in board.trained("bleu_tok_lc"):  # the last one is the best
        data, pair = corpus(record).split()
        if data == "multi30k" and pair in COLOURS:
            name, _ = model_words(record["config"])
            best.setdefault(name, {})[pair] = record["metrics"]["bleu_tok_lc"]
    order = sorted(best, key=lambda name: best[name].get("en-de", 0.0))
    bars = {name.replace("`", ""): best[name] for name in order}
    bars |= {f"published: {p.paper}": {p.pair: p.bleu} for p in PUBLISHED}
    return drawing(bars)


def drawing(bars: Mapping[str, Mapping[str, float]]) -> str:
    """Bars as SVG. Widths are shares of the page, so that letters keep their size."""
    scale = LONGEST / max(
        (s for pairs in bars.values() for s in pairs.values()), default=1
    )
    lines, said, y = [], [], 30
    for name, scores in bars.items():
        look = "published " if name.startswith("published") else ""
        lines.append(f'<text class="name" y="{y + 13}">{html.escape(name)}</text>')
        y += 20
        for pair, score in sorted(scores.items()):
            width = f"{score * scale:.2f}%"
            bar = f'<rect class="{look}{pair}" y="{y}" width="{width}" height="11"/>'
            lines.append(
                f'{bar}<text x="{width}" dx="7" y="{y + 10}">{score:.1f}</text>'
            )
            y += 16
        y += 10
        each = [
            f"{score:.1f} {COLOURS[pair]}" for pair, score in sorted(scores.items())
        ]
        said.append(f"{name}: {', '.join(each)}")
    words = html.escape("; ".join(said))
    return SVG.format(height=y, bars="\n  ".join(lines), said=words)


SVG = """\
<svg class="scores" xmlns="http://www.w3.org/2000/svg" width="100%" height="{height}" \
role="img" aria-labelledby="scores-title scores-desc">
  <title id="scores-title">BLEU of the book's translators on Multi30k</title>
  <desc id="scores-desc">{said}.</desc>
  <style>
    .scores {{ --ink: #1f2430; --soft: #515a6b; --de: #1f5fa8; --fr: #a3400c;
      display: block; font-family: var(--annotated-sans, sans-serif); font-size: 13px;
      margin: 1.5rem 0; max-width: 42rem; }}
    @media (prefers-color-scheme: dark) {{ .scores {{ --ink: #e8eaf0; --soft: #b4bccb;
      --de: #7db7f5; --fr: #ffb27a; }} }}
    /* On the site the page's theme decides, not the system's. */
    html[data-theme="light"] .scores {{ --ink: #1f2430; --soft: #515a6b;
      --de: #1f5fa8; --fr: #a3400c; }}
    html[data-theme="dark"] .scores {{ --ink: #e8eaf0; --soft: #b4bccb;
      --de: #7db7f5; --fr: #ffb27a; }}
    .scores text {{ fill: var(--soft); }}
    .scores .name {{ fill: var(--ink); font-weight: 600; }}
    .scores .en-de {{ fill: var(--de); stroke: var(--de); }}
    .scores .en-fr {{ fill: var(--fr); stroke: var(--fr); }}
    .scores .published {{ fill: none; }}
  </style>
  <rect class="en-de" x="0" y="2" width="11" height="11"/>
  <text x="18" y="12">to German</text>
  <rect class="en-fr" x="100" y="2" width="11" height="11"/>
  <text x="118" y="12">to French</text>
  {bars}
</svg>
"""


# The page


TABLES: dict[str, Callable[[Board, str], str]] = {
    "translators": translators,
    "other_translators": other_translators,
    "language_models": language_models,
    "vectors": vectors,
    "measured": measured,
    "wanted": wanted,
    "commands": commands,
}


def page(board: Board, template: str) -> str:
    """The template with each marker's table in its place."""

    def put(marker: re.Match[str]) -> str:
        if marker["table"] not in TABLES:
            known = ", ".join(TABLES)
            raise DataError(f"{TEMPLATE.name}: {marker.group()}: known are {known}")
        return TABLES[marker["table"]](board, marker["options"])

    text = MARKER.sub(put, template)
    if missed := sorted(set(board.records) - board.shown):
        raise DataError(
            f"no table shows the record {', '.join(missed)}: give its kind a table in "
            "scripts/scoreboard.py and a marker in scripts/scoreboard.md, or take the "
            "record away"
        )
    return re.sub(r"\n{3,}", "\n\n", text)


def outputs(results: Path) -> dict[Path, str]:
    """The files that the records of a folder make, by their paths in the book."""
    read = {path.stem: read_record(path) for path in sorted(results.glob("*.json"))}
    board = Board({name: Fields.of(record, name) for name, record in read.items()})
    template = TEMPLATE.read_text(encoding="utf-8")
    return {PAGE: page(board, template), PICTURE: picture(board)}


def stale(made: Mapping[Path, str], root: Path) -> list[str]:
    """What is not as the records say, a line for each file."""
    wrong = []
    for path, text in made.items():
        file = root / path
        there = file.read_text(encoding="utf-8") if file.exists() else ""
        if there != text:
            both = zip(there.splitlines(), text.splitlines(), strict=False)
            line = 1 + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], both))
            wrong.append(f"{path}:{line}: is not what results/ say; {MEND}")
    return wrong


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Write the files, or with --check compare them; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    wrong = []
    try:
        made = outputs(root / "results")
        if parser.parse_args(arguments).check:
            wrong = stale(made, root)
        else:
            write(made, root)
    except DataError as error:
        wrong = [str(error)]
    print("".join(f"{line}\n" for line in wrong), end="", file=sys.stderr)
    return int(bool(wrong))


def write(made: Mapping[Path, str], root: Path) -> None:
    """Write the files, each whole or not at all."""
    for path, text in made.items():
        with replacing(root / path) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
