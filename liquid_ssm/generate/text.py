"""Small stand-ins for IMDB and AAN, in exactly their layouts.

They are not the published sets and no model of them: sentences are put together from a few words by rules, so that
the class can be learnt from the text and nothing else about real text can.  An accuracy on them is comparable with
other accuracies on them only.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from ..data_folder import Generated, write_generated
from ..environment import package_version
from ..errors import ParameterError
from .draw import Draw, at_least, new_folder

Progress = Callable[[int, int, str], None]

_GOOD = ("great", "wonderful", "moving", "brilliant", "charming", "clever", "superb", "gripping", "funny", "honest")
_BAD = ("awful", "boring", "dull", "clumsy", "terrible", "silly", "tedious", "hollow", "weak", "noisy")
_ASPECTS = ("plot", "acting", "music", "ending", "script", "camera work", "dialogue", "cast", "pace", "humour")
_DEGREES = ("", "really ", "quite ", "rather ", "truly ")
_JUDGEMENTS = ("The {aspect} is {degree}{word}.", "I found the {aspect} {degree}{word}.", "What {word} {aspect}!")
_NEGATIONS = ("The {aspect} is not {word}.", "I did not find the {aspect} {word}.", "The {aspect} is never {word}.")
_FILLERS = (
    "I saw it on a rainy Sunday with two friends.",
    "It was made some years ago and runs for about ninety minutes.",
    "The story is set in a small town near the sea.",
    "Most people will have heard of the director.",
    "We talked about it on the way home.",
    "It starts with a long journey by train.",
)
# Stars of a review: of those of their class, by how clear the verdict is.
_STARS = {"neg": (4, 3, 2, 1), "pos": (7, 8, 9, 10)}

# fmt: off
_COMMON = (
    "we", "show", "that", "the", "model", "of", "a", "and", "in", "this", "paper", "for", "each", "method", "with",
    "results", "on", "data", "which", "is", "used", "to", "from", "by", "as", "an", "are", "our", "approach", "can",
    "be", "task", "system", "than", "more", "set", "first", "two", "also", "other", "between",
)
_ONSETS = (
    "b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "cl", "dr", "pl", "st", "tr",
)
# fmt: on
_NUCLEI, _CODAS = "aeiou", ("", "l", "n", "r", "s")


def generate_imdb(
    folder: Path,
    *,
    seed: int = 0,
    train: int = 2_000,
    test: int = 2_000,
    min_sentences: int = 4,
    max_sentences: int = 16,
    negated: float = 0.3,
    progress: Progress | None = None,
) -> Generated:
    """Write made-up reviews as `aclImdb/{train,test}/{pos,neg}/ID_RATING.txt`.

    A review has sentences with one word of praise or blame each, some of them negated, and fillers between; its class
    is that of the majority of its sentences, so counting words without their negations is not enough.

    Args:
        folder: new or empty.
        seed: of the draws; the same seed gives the same bytes.
        train, test: reviews of each set, half of them of each class.
        min_sentences, max_sentences: of a review that judge, fillers apart.
        negated: probability that a sentence that judges is negated.
        progress: told (done, total, set).

    Raises:
        ParameterError: a number out of range, or a folder that is not empty.
    """
    at_least(0, seed=seed)
    at_least(1, min_sentences=min_sentences)
    at_least(2, train=train, test=test)
    for name, count in {"train": train, "test": test}.items():
        if count % 2:
            raise ParameterError(f"{name} is {count}; an even number is needed, half for each class.")
    if max_sentences < min_sentences:
        raise ParameterError(f"max_sentences is {max_sentences}, less than min_sentences, {min_sentences}.")
    if not 0 <= negated <= 1:
        raise ParameterError(f"negated is {negated}; a probability from 0 to 1 is needed.")
    place = new_folder(Path(folder)) / "aclImdb"
    draw = Draw(seed)
    files: list[Path] = []
    for name, count in {"train": train, "test": test}.items():
        for i in range(count // 2):
            for label in ("neg", "pos"):
                text, clear = _review(draw, label == "pos", min_sentences, max_sentences, negated)
                path = place / name / label / f"{i}_{_STARS[label][min(int(clear * 4), 3)]}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8", newline="")
                files.append(path)
                if progress is not None:
                    progress(len(files), train + test, name)
    options = {"min_sentences": min_sentences, "max_sentences": max_sentences, "negated": negated}
    about = Generated("imdb", seed, package_version("liquid-ssm"), {"train": train, "test": test}, options)
    write_generated(Path(folder), about, files)
    return about


def generate_aan(
    folder: Path,
    *,
    seed: int = 0,
    train: int = 4_000,
    validation: int = 500,
    test: int = 500,
    topics: int = 20,
    min_words: int = 60,
    max_words: int = 240,
    topic_share: float = 0.25,
    progress: Progress | None = None,
) -> Generated:
    """Write made-up pairs of papers as `aan/new_aan_pairs.{train,eval,test}.tsv`.

    A paper has common words, and words that only its topic has.  A pair is related where the topics are the same,
    which half of the pairs are.  As in the published files, texts are byte literals of Python, and columns are
    separated by tabulators, without a header.

    Args:
        folder: new or empty.
        seed: of the draws; the same seed gives the same bytes.
        train, validation, test: pairs of each part.
        topics: number of them.
        min_words, max_words: of a paper.
        topic_share: probability that a word is one of the topic.
        progress: told (done, total, part).

    Raises:
        ParameterError: a number out of range, or a folder that is not empty.
    """
    counts = {"train": train, "validation": validation, "test": test}
    at_least(0, seed=seed)
    at_least(1, **counts, min_words=min_words)
    at_least(2, topics=topics)
    if topics > _MOST_TOPICS:
        raise ParameterError(f"topics is {topics}; at most {_MOST_TOPICS} have words of their own.")
    if max_words < min_words:
        raise ParameterError(f"max_words is {max_words}, less than min_words, {min_words}.")
    if not 0 < topic_share <= 1:
        raise ParameterError(f"topic_share is {topic_share}; a probability above 0 and up to 1 is needed.")
    place = new_folder(Path(folder)) / "aan"
    place.mkdir()
    draw = Draw(seed)
    words = draw.shuffled(_WORDS)
    of_topic = [words[i * _WORDS_OF_A_TOPIC : (i + 1) * _WORDS_OF_A_TOPIC] for i in range(topics)]

    def paper(topic: int) -> str:
        n_words = draw.within(min_words, max_words)
        found = [draw.choice(of_topic[topic] if draw.uniform() < topic_share else _COMMON) for _ in range(n_words)]
        # Chance must not leave a paper without its topic.
        found[draw.below(n_words)] = draw.choice(of_topic[topic])
        return repr(" ".join(found).encode("ascii"))

    files, done, total = [], 0, sum(counts.values())
    for part, name in (("train", "train"), ("validation", "eval"), ("test", "test")):
        files.append(place / f"new_aan_pairs.{name}.tsv")
        with files[-1].open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, csv.excel_tab)
            for i in range(counts[part]):
                # Classes in turn, so that the first few pairs hold both; training shuffles them.
                label, first = i % 2, draw.below(topics)
                second = first if label else (first + 1 + draw.below(topics - 1)) % topics
                ids = (f"{draw.choice('ACDEHNPWX')}{draw.below(20):02d}-{draw.within(1000, 9999)}" for _ in range(2))
                rows.writerow([label, *ids, paper(first), paper(second)])
                done += 1
                if progress is not None:
                    progress(done, total, part)
    options = {"topics": topics, "min_words": min_words, "max_words": max_words, "topic_share": topic_share}
    about = Generated("aan", seed, package_version("liquid-ssm"), counts, options)
    write_generated(Path(folder), about, files)
    return about


def _review(draw: Draw, positive: bool, least: int, most: int, negated: float) -> tuple[str, float]:
    """The text, and by how much of its sentences the majority is larger, above 0 and up to 1."""
    n = draw.within(least, most)
    # A majority that is one sentence at least.
    agreeing = draw.within(n // 2 + 1, n)
    verdicts = draw.shuffled([positive] * agreeing + [not positive] * (n - agreeing))
    sentences = []
    for good in verdicts:
        turned = draw.uniform() < negated
        sentences.append(
            draw.choice(_NEGATIONS if turned else _JUDGEMENTS).format(
                aspect=draw.choice(_ASPECTS),
                degree=draw.choice(_DEGREES),
                word=draw.choice(_GOOD if good != turned else _BAD),
            )
        )
        if draw.uniform() < 0.3:
            sentences.append(draw.choice(_FILLERS))
    middle = len(sentences) // 2
    # Paragraphs are separated as in the published files.
    text = " ".join(sentences[:middle]) + "<br /><br />" * (middle > 0) + " ".join(sentences[middle:])
    return text, (2 * agreeing - n) / n


# Made-up words of two syllables; each belongs to one topic, and none is a common one.
_SYLLABLES = [onset + nucleus + coda for onset in _ONSETS for nucleus in _NUCLEI for coda in _CODAS]
_WORDS = [
    word
    for word in dict.fromkeys(first + second for first in _SYLLABLES[::4] for second in _SYLLABLES[::7])
    if word not in _COMMON
]
_WORDS_OF_A_TOPIC = 12
_MOST_TOPICS = len(_WORDS) // _WORDS_OF_A_TOPIC
