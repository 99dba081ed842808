"""Build ``fooocus_core/conditioning/data/clip_merges.txt.gz`` from CLIP's ``bpe_simple_vocab_16e6.txt.gz``.

The original list (MIT, OpenAI) ships inside the registry package ``open_clip_torch`` as
``open_clip/bpe_simple_vocab_16e6.txt.gz``. Only its first 48,894 merges are CLIP's: the 49,408 tokens are 256 bytes,
the same with an end-of-word mark, one token a merge, and two specials. The result is the same for every run.

Usage: ``python -m tools.tokenizer.build_clip_merges path/to/bpe_simple_vocab_16e6.txt.gz``
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

VOCABULARY = 49408
MERGES = VOCABULARY - 2 * 256 - 2
TARGET = Path(__file__).parents[2] / "fooocus_core" / "conditioning" / "data" / "clip_merges.txt.gz"


def clip_merges(original: bytes) -> list[str]:
    """The merges that CLIP uses, best first, one ``left right`` pair each. The list's first line is a version mark."""
    lines = gzip.decompress(original).decode("utf-8").split("\n")
    return lines[1 : MERGES + 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("original", type=Path)
    merges = clip_merges(parser.parse_args().original.read_bytes())
    TARGET.write_bytes(gzip.compress("\n".join(merges).encode("utf-8"), compresslevel=9, mtime=0))


if __name__ == "__main__":
    main()
