"""Large Movie Review Dataset: 50,000 reviews, positive or negative, by A. L. Maas et al. (2011).

The archive is read as it is: it is fetched into ``aclimdb/``, or put there. A review is a file
``aclImdb/{train,test}/{pos,neg}/{id}_{rating}.txt``; what else the archive holds is not read.
"""

import hashlib
import os
import re
import tarfile
from typing import NamedTuple

from experiments.datasets import DataError
from experiments.datasets.archives import OF_DAMAGE, fetched

ADDRESS = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
CLASSES = ("negative", "positive")
_NAME = re.compile(r"(?:.*/)?(train|test)/(neg|pos)/\d+_\d+\.txt")


class Review(NamedTuple):
    """The bytes of a review, and its class."""

    text: bytes
    label: int


def load_reviews(root: str | os.PathLike[str] | None = None) -> tuple[dict[str, list[Review]], str]:
    """Return the reviews of ``train`` and ``test``, in the order of their names, and a digest.

    The archive is fetched if it is not there yet; DataError if that fails, or if it is damaged.
    """
    file = fetched("aclimdb", ADDRESS, root)
    found: dict[str, tuple[str, Review]] = {}
    try:
        with tarfile.open(file) as archive:
            for member in archive:
                match, content = _NAME.fullmatch(member.name), archive.extractfile(member)
                if match and content:
                    review = Review(content.read(), int(match[2] == "pos"))
                    found[member.name] = match[1], review
    except (*OF_DAMAGE, OSError, tarfile.TarError) as error:
        reason = str(error).partition(":\n")[0]
        raise DataError(f"{file} is damaged ({reason}): get it anew from {ADDRESS}") from error
    reviews: dict[str, list[Review]] = {"train": [], "test": []}
    digest = hashlib.sha256()
    for name in sorted(found):
        part, review = found[name]
        if review.text:
            reviews[part].append(review)
            digest.update(hashlib.sha256(review.text).digest())
    for part, some in reviews.items():
        if {review.label for review in some} != {0, 1}:
            raise DataError(
                f"{file} holds no reviews of both classes in its part {part}: get it anew from "
                f"{ADDRESS}"
            )
    return reviews, digest.hexdigest()


def prepare(root: str | os.PathLike[str] | None = None) -> str:
    """Fetch and read the archive, and return a one-line summary."""
    reviews, _ = load_reviews(root)
    sizes = ", ".join(f"{len(some):,} to {part}" for part, some in reviews.items())
    return f"Large Movie Review Dataset: {sizes}"
