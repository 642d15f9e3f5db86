"""Leakage: unseen classes of which a pretrained backbone has seen pictures.

A class is unseen only as far as nobody showed it to the backbone. One that was pretrained on ImageNet knows
rams and sorrels, so that `sheep` and `horse` are no news to it (Xian et al., 2019, chose their splits so as to
avoid the names, which leaves these). Names are compared without regard to case, hyphens and plurals; kin
is looked up in a hierarchy of `child parent` pairs such as WordNet's (Miller, 1995).

    exact        the name is that of a pretraining class
    synonym      another name, or the synset, is
    descendant   a pretraining class is a kind of it
    ancestor     it is a kind of a pretraining class

The first that holds is the class's flag, and among kin the nearest. What a name alone suggests is no flag, but
listed as possible: the class may be meant, or a kind of it.

    head         the name is what a pretraining class's name ends in, as `panda` of `giant panda`, less what stands
                 in brackets, as in `crane (machine)`
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ayeaye.class_vectors.text import folded, name_words, stem
from ayeaye.core.unicode_checks import normal

_BRACKETS = re.compile(r"\s*[(\[].*?[)\]]")
_SENSE = re.compile(r"^(.+)\.[nvasr]\.\d+$")  # dolphin.n.02, a synset as NLTK writes it

Pair = tuple[str, str]


class Named(NamedTuple):
    """A class by its names, and by its synset where that is known."""

    name: str
    synonyms: tuple[str, ...] = ()
    synset: str = ""


class Flag(NamedTuple):
    """How a class leaks, and the pretraining class by which it does."""

    kind: str
    match: str


def fold(name: str) -> str:
    """A name without regard to case, hyphens, underscores and plurals: `Killer-Whales` is `killer whale`."""
    return " ".join(stem(folded(word)) for word in name_words(name))


@dataclass(frozen=True)
class Hierarchy:
    """Who is a kind of whom. `places` leads from a folded name or synset to the nodes of that name."""

    parents: dict[str, list[str]]
    children: dict[str, list[str]]
    places: dict[str, list[str]]

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> Hierarchy:
        """From pairs of child and parent: names, synset ids, or senses such as `dolphin.n.02`."""
        parents, children, places = defaultdict(list), defaultdict(list), defaultdict(list)
        spelled: dict[str, str] = {}
        for child, parent in pairs:
            parents[_node(child)].append(_node(parent))
            children[_node(parent)].append(_node(child))
            spelled |= {_node(child): child, _node(parent): parent}
        for node, text in spelled.items():
            sense = _SENSE.match(text)
            for key in {fold(text), fold(sense[1]) if sense else ""} - {""}:
                places[key].append(node)
        return cls(dict(parents), dict(children), dict(places))

    def nodes(self, named: Named) -> list[str]:
        """The nodes of a class: that of its synset, else those of its names, in every sense these have."""
        if named.synset and (own := self.places.get(fold(named.synset))):
            return own
        return [node for name in (named.name, *named.synonyms) for node in self.places.get(fold(name), ())]

    def below(self, nodes: Iterable[str]) -> Iterator[str]:
        """All descendants, the nearest first; in a circle each node comes once."""
        return _walk(self.children, nodes)

    def above(self, nodes: Iterable[str]) -> Iterator[str]:
        """All ancestors, the nearest first; in a circle each node comes once."""
        return _walk(self.parents, nodes)


def flags(
    classes: Iterable[Named], pretrained: Sequence[Named], pairs: Iterable[Pair] = ()
) -> dict[str, Flag]:
    """The classes that leak, by name and in their order; `pretrained` are the backbone's own classes."""
    hierarchy = Hierarchy.of(pairs)
    names: dict[str, str] = {}
    places: dict[str, str] = {}
    for known in pretrained:
        for key in filter(None, map(fold, (known.name, *known.synonyms, known.synset))):
            names.setdefault(key, known.name)
        for node in hierarchy.nodes(known):
            places.setdefault(node, known.name)
    found = {named.name: _flag(named, names, places, hierarchy) for named in classes}
    return {name: flag for name, flag in found.items() if flag}


def possible(classes: Iterable[Named], pretrained: Sequence[Named]) -> dict[str, Flag]:
    """The classes that may leak by their name alone, in their order, with the first pretraining class that says so."""
    ends: dict[str, str] = {}
    for known in pretrained:
        for name in (known.name, *known.synonyms):
            words = _bare(name).split()
            for first in range(len(words)):
                ends.setdefault(" ".join(words[first:]), known.name)
    found = {
        named.name: next(
            (ends[key] for key in map(_bare, (named.name, *named.synonyms)) if key in ends), None
        )
        for named in classes
    }
    return {name: Flag("head", match) for name, match in found.items() if match}


def _bare(name: str) -> str:
    return fold(_BRACKETS.sub("", name))


def _flag(named: Named, names: dict[str, str], places: dict[str, str], hierarchy: Hierarchy) -> Flag | None:
    if match := names.get(fold(named.name)):
        return Flag("exact", match)
    nodes = hierarchy.nodes(named)
    same = [names.get(fold(other)) for other in (*named.synonyms, named.synset)]
    same += [places.get(node) for node in nodes]
    for kind, matches in (
        ("synonym", same),
        ("descendant", map(places.get, hierarchy.below(nodes))),
        ("ancestor", map(places.get, hierarchy.above(nodes))),
    ):
        if match := next(filter(None, matches), None):
            return Flag(kind, match)
    return None


def _node(text: str) -> str:
    # Plurals stay apart here: glasses are no kind of glass.
    return " ".join(re.split(r"[\s_-]+", normal(text).strip().lower()))


def _walk(edges: dict[str, list[str]], nodes: Iterable[str]) -> Iterator[str]:
    level = list(dict.fromkeys(nodes))
    met = set(level)
    while level:
        level = [
            node
            for node in dict.fromkeys(n for here in level for n in edges.get(here, ()))
            if node not in met
        ]
        met.update(level)
        yield from level
