"""A batch over files: `cd examples && python -m reviews.batch reviews/data/*.txt`."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from warmset import MethodExecutor

from .warm import raters, registry

executor = MethodExecutor(registry)


def review(path: str) -> str:
    text = Path(path).read_text(encoding="utf-8")
    language = executor.execute("LanguageGuesser", "guess", text=text)
    rating = executor.execute(raters.key(language), "rate", text=text)
    verdict = executor.execute("Reviewer", "describe", rating=rating)
    return f"{Path(path).name} {language} {rating:+d} {verdict}"


def main(paths: list[str]) -> None:
    # Leaving the block closes what is warm.
    with registry, ThreadPoolExecutor(4) as threads:
        for line in threads.map(review, paths):
            print(line)
        stats = registry.stats()
        print(f"{stats.builds} builds for {stats.lookups} look-ups")


if __name__ == "__main__":
    main(sys.argv[1:])
