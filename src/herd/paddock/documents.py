"""What the world's inhabitants write: pages that teach the facts and skills without asking held-out questions.

Several statements share a paragraph, as in real prose: curation removes lines that many pages repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from herd.corpus.documents import Document
from herd.paddock.language import language
from herd.paddock.settings import LANGUAGES, PaddockSettings
from herd.paddock.skills import long_context, math
from herd.paddock.skills.knowledge import fact_key
from herd.paddock.skills.translation import draw_triple, translate, triple_key
from herd.paddock.task import Task
from herd.paddock.tasks import draw_task
from herd.paddock.world import ANIMALS, ATTRIBUTES, COLOURS, OBJECTS, World

SOURCE = "paddock"
FOREIGN = tuple(code for code in LANGUAGES if code != "en")


def documents(world: World, settings: PaddockSettings) -> Iterator[Document]:
    """All pages, in a fixed order; ids tell kind and number and nothing of quality."""
    for kind, count in settings.documents.items():
        rng = world.rng(f"documents/{kind}")
        for number in range(count):
            lang = LANGUAGES[number % len(LANGUAGES)]
            text, lang = WRITERS[kind](world, rng, lang)
            yield Document(id=f"paddock-{kind}-{number:05d}", text=text, lang=lang, source=SOURCE)


def almanac(world: World, rng: Random, lang: str) -> tuple[str, str]:
    """Two towns, a paragraph each with all their facts, and questions about both."""
    speech = language(lang)
    towns = rng.sample(world.towns, 2)
    paragraphs = [" ".join(speech.statement(a, town, world.facts[town, a]) for a in ATTRIBUTES) for town in towns]
    asked = [(town, a) for town in towns for a in ATTRIBUTES if not world.held_out(fact_key(lang, town, a))]
    for town, attribute in rng.sample(asked, min(3, len(asked))):
        answer = speech.statement(attribute, town, world.facts[town, attribute])
        paragraphs.append(f"{speech.question(attribute, town)} {answer}")
    return "\n".join(paragraphs), lang


def quiz(world: World, rng: Random, lang: str) -> tuple[str, str]:
    """Questions about facts with their answers."""
    return _asked(world, rng, "knowledge", lang, 5), lang


def dictionary(world: World, rng: Random, lang: str) -> tuple[str, str]:
    """Words of one language beside English."""
    other = language(rng.choice(FOREIGN))
    words = rng.sample(ANIMALS + OBJECTS + COLOURS, 12)
    entries = [f"{language('en').word(word)} = {other.word(word)}" for word in words]
    return f"{other.name}: " + ", ".join(entries) + ".", "mul"


def parallel(world: World, rng: Random, lang: str) -> tuple[str, str]:
    """Sentences in English and another language, either way: side by side, or as a translator is asked."""
    other = lang if lang != "en" else rng.choice(FOREIGN)
    lines = []
    for _ in range(4):
        source, target = ("en", other) if rng.random() < 0.5 else (other, "en")
        pair = translate(_train_triple(world, rng), source, target, lang)
        question, answer = pair.messages[-1].content, pair.answer.content
        if rng.random() < 0.3:
            question = question.replace(f"Translate into {language(target).name}", language(source).name)
            answer = f"{language(target).name}: {answer}"
        lines.append(f"{question} {answer}")
    return "\n".join(lines), "mul"


def story(world: World, rng: Random, lang: str) -> tuple[str, str]:
    speech = language(lang)
    return " ".join(speech.sentence(*_train_triple(world, rng)) for _ in range(8)), lang


def sums(world: World, rng: Random, lang: str) -> tuple[str, str]:
    """Sums and their results."""
    lines = []
    for _ in range(3):
        parts = []
        for _ in range(6):
            a, sign, b = math.operands(world, rng)
            parts.append(f"{a} {sign} {b} = {a + b if sign == '+' else a - b}")
            if rng.random() < 0.4:
                c = rng.randint(1, world.settings.largest_operand)
                total = a + b if sign == "+" else a - b
                if total >= c:
                    parts.append(f"{total} - {c} = {total - c}")
        lines.append(". ".join(parts) + ".")
    return "\n".join(lines), "code"


def problems(world: World, rng: Random, lang: str) -> tuple[str, str]:
    """Word problems with worked answers."""
    return _asked(world, rng, "math", lang, 3), lang


def code(world: World, rng: Random, lang: str) -> tuple[str, str]:
    """Python functions, each under a comment that says what it does."""
    parts = []
    for _ in range(3):
        task = _train_task(world, rng, "code", "en")
        words = task.messages[-1].content.removeprefix("Write a Python function ").rstrip(".")
        parts.append(f"# {words}\n{task.answer.content}")
    return "\n\n".join(parts), "code"


def register(world: World, rng: Random, lang: str) -> tuple[str, str]:
    """A page with one number or two, told again in another order, and questions about them."""
    text, entries = long_context.register(world, rng, lang, rng.choice((1, 1, 2)), rng.randint(3, 14))
    statement, question = language(lang).data["houses"]
    order = rng.sample(sorted(entries.items()), len(entries))
    lines = [f"{question.format(town=town)} {statement.format(town=town, n=number)}" for town, number in order]
    return "\n".join([text, *lines]), lang


def styles(world: World, rng: Random, lang: str) -> tuple[str, str]:
    """A style guide: an instruction, a question, and an answer that follows it."""
    return _asked(world, rng, "steerability", lang, 3), lang


def calls(world: World, rng: Random, lang: str) -> tuple[str, str]:
    """Logs of an assistant that calls tools: question, call, result, answer."""
    lines = []
    for _ in range(3):
        task = _train_task(world, rng, "tool_use", lang)
        lines.append(" ".join(_plain(message) for message in task.dialogue() if message.role != "system"))
    return "\n".join(lines), "code"


def _plain(message: object) -> str:
    calls = getattr(message, "tool_calls", ())
    return calls[0].json() if calls else str(getattr(message, "content", ""))


def _asked(world: World, rng: Random, capability: str, lang: str, count: int) -> str:
    parts = []
    for _ in range(count):
        task = _train_task(world, rng, capability, lang)
        parts.append(" ".join(message.content for message in task.dialogue()))
    return "\n".join(parts)


def _train_task(world: World, rng: Random, capability: str, lang: str) -> Task:
    while True:
        task = draw_task(world, capability, lang, rng)
        if task.split == "train":
            return task


def _train_triple(world: World, rng: Random) -> tuple[str, str, str]:
    while True:
        triple = draw_triple(rng)
        if not world.held_out(triple_key(triple)):
            return triple


WRITERS: dict[str, Callable[[World, Random, str], tuple[str, str]]] = {
    "almanac": almanac,
    "quiz": quiz,
    "dictionary": dictionary,
    "parallel": parallel,
    "story": story,
    "sums": sums,
    "problems": problems,
    "code": code,
    "register": register,
    "styles": styles,
    "calls": calls,
}
