"""``[[a,b,c]]``: one alternative per picture, all combinations in turn (specification 01, section 6.2)."""

from __future__ import annotations


def pick_from_arrays(text: str, index: int) -> str:
    """``text`` with every ``[[...]]`` replaced by one of its entries, which are not trimmed.

    ``index`` counts pictures from 0. The first group changes fastest; after all combinations it starts over.
    """
    picked = []
    for literal, entries in _split_groups(text):
        picked.append(literal)
        if entries:
            picked.append(entries[index % len(entries)])
            index //= len(entries)
    return "".join(picked)


def _split_groups(text: str) -> list[tuple[str, list[str]]]:
    """Pairs of literal text and the entries of the group after it; the last pair has none."""
    pairs = []
    start = 0
    while (opened := text.find("[[", start)) >= 0 and (closed := text.find("]]", opened + 2)) >= 0:
        pairs.append((text[start:opened], text[opened + 2 : closed].split(",")))
        start = closed + 2
    return [*pairs, (text[start:], [])]
