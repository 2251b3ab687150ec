"""Sample conversations: what the models replied, right or wrong, chosen by a rule that cannot flatter.

From the suite and, of more than one turn, from the probe of conversations.

Of each capability: the first items in the order of a hash of their ids, in as many languages as there are items, and
one item that the flagship got wrong, if there is one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from herd.evaluate.suite import Item
from herd.paddock.settings import TURNS
from herd.report.data import Conversation, Reply, Turn
from herd.road.summary.folders import Folders

PER_CAPABILITY = 4
TALKERS = ("small-taught", "small-alone")  # beside the flagship

CHOICE = (
    f"Of each capability, the first {PER_CAPABILITY} items of the held-out suite in the order of a hash of their ids, "
    "each in another language, whatever was replied; and one more, the next that the flagship got wrong, if there is "
    "one. So too of the second turns, third turns and follow-ups of the probe of conversations. Replies are greedy."
)

_TURN = re.compile(r"<\|start_header_id\|>(.*?)<\|end_header_id\|>\n\n(.*?)(?:<\|eot_id\|>|<\|eom_id\|>|\Z)", re.DOTALL)


def conversations(folders: Folders) -> tuple[Conversation, ...]:
    """Prompts with the replies of the flagship and of the small model, taught and not, chosen as `CHOICE` says."""
    names = [name for name in (folders.flagship, *TALKERS) if name in folders.results]
    if not names:
        return ()
    answered = {name: (*folders.results[name].items, *_later_turns(folders, name)) for name in names}
    replies = {name: {item.id: item for item in items} for name, items in answered.items()}
    return tuple(_conversation(item, replies) for item in chosen(answered[names[0]]))


def _later_turns(folders: Folders, name: str) -> tuple[Item, ...]:
    """The probe without its first turns, which look like the suite's."""
    probed = folders.talk_results.get(name)
    return tuple(item for item in probed.items if item.capability != TURNS[0]) if probed else ()


def chosen(items: Sequence[Item]) -> list[Item]:
    """The rule above, over the items of the first model."""
    found: list[Item] = []
    for capability in dict.fromkeys(item.capability for item in items):
        ordered = sorted((item for item in items if item.capability == capability), key=_place)
        picked = _languages_first(ordered)[:PER_CAPABILITY]
        wrong = next((item for item in ordered if not item.ok and item not in picked), None)
        found += [*picked, *([wrong] if wrong else [])]
    return found


def _languages_first(ordered: Sequence[Item]) -> list[Item]:
    """The first of each language, then the second of each, and so on; within that, as ordered."""
    seen: dict[str, int] = {}
    turns: list[tuple[int, Item]] = []
    for item in ordered:
        turns.append((seen.get(item.lang, 0), item))
        seen[item.lang] = seen.get(item.lang, 0) + 1
    return [item for _, item in sorted(turns, key=lambda pair: pair[0])]


def _place(item: Item) -> bytes:
    return hashlib.sha256(item.id.encode()).digest()


def _conversation(item: Item, replies: Mapping[str, Mapping[str, Item]]) -> Conversation:
    said = ((name, by_id[item.id]) for name, by_id in replies.items() if item.id in by_id)
    return Conversation(
        prompt=turns(item.prompt),
        replies=tuple(Reply(name, one.reply, one.ok, one.reason) for name, one in said),
        capability=item.capability,
        lang=item.lang,
    )


def turns(prompt: str) -> tuple[Turn, ...]:
    """A spelled prompt taken apart at its headers, without the open one of the reply; as it is where it has none."""
    found = tuple(Turn(role, content) for role, content in _TURN.findall(prompt))
    if found and found[-1].role == "assistant" and not found[-1].content:
        found = found[:-1]
    return found or (Turn("prompt", prompt),)
