"""Write datasets/tiny: one small made-up data set in three of MovieLens' own layouts, and two made-up click logs.

    python datasets/make_tiny.py

The films and people are invented (sparsefm.datasets.make_ratings), the file formats are real, down to
latin-1 in two of them. A few titles are made awkward on purpose. The click logs are noise, in the layouts of
Criteo and Avazu.
"""

import csv
from pathlib import Path

import numpy as np

from sparsefm.datasets import make_ratings

HERE = Path(__file__).parent / "tiny"
GENRES = (  # noqa: SIM905
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror "
    "Musical Mystery Romance Sci-Fi Thriller War Western"
).split()
# the brackets in which MovieLens 1M gives ages
AGES = (1, 18, 25, 35, 45, 50, 56)
AWKWARD = {1: 'Café "Nord", The', 2: "Straße der Möwen (Street of Gulls)", 3: "8½: The Return"}


def main() -> None:
    ml = make_ratings(10, 15, 60, n_factors=2, random_state=0)
    ratings = [(u, i, int(r), t) for u, i, r, t in ml.ratings.itertuples(index=False)]
    users = [
        (u, max(age for age in AGES if age <= years), gender, job, zip_code)
        for u, years, gender, job, zip_code in ml.users.itertuples(index=False)
    ]
    items = []
    for i, title, year, genres in ml.items.itertuples(index=False):
        title = AWKWARD.get(i, title)
        # one film without a year, one without genres
        items.append((i, title if i == 4 else f"{title} ({year})", year, [] if i == 5 else genres.split("|")))

    write("ml-100k/u.data", ["\t".join(map(str, row)) for row in ratings], "latin-1")
    write("ml-100k/u.user", ["|".join(map(str, row)) for row in users], "latin-1")
    write("ml-100k/u.genre", [f"{genre}|{number}" for number, genre in enumerate(GENRES)], "latin-1")
    flagged = []
    for i, title, year, genres in items:
        flags = [str(int(genre in (genres or ["unknown"]))) for genre in GENRES]
        flagged.append("|".join([str(i), title, f"01-Jan-{year}", "", "", *flags]))
    write("ml-100k/u.item", flagged, "latin-1")

    jobs = sorted({job for _, _, _, job, _ in users})
    write("ml-1m/ratings.dat", ["::".join(map(str, row)) for row in ratings], "latin-1")
    write(
        "ml-1m/users.dat",
        [f"{u}::{g}::{age}::{jobs.index(job)}::{z}" for u, age, g, job, z in users],
        "latin-1",
    )
    write("ml-1m/movies.dat", [f"{i}::{t}::{'|'.join(genres)}" for i, t, _, genres in items], "latin-1")

    write_csv("ml-latest/ratings.csv", [("userId", "movieId", "rating", "timestamp"), *ratings])
    movies = [(i, title, "|".join(genres) or "(no genres listed)") for i, title, _, genres in items]
    write_csv("ml-latest/movies.csv", [("movieId", "title", "genres"), *movies])
    write_csv("ml-latest/links.csv", [("movieId", "imdbId", "tmdbId"), *((i, f"{i:07d}", i) for i, *_ in items)])
    tags = [(u, i, f"seen, {'twice' if r > 3 else 'once'}", t) for u, i, r, t in ratings[:5]]
    write_csv("ml-latest/tags.csv", [("userId", "movieId", "tag", "timestamp"), *tags])

    write("criteo.tsv", ["\t".join(row) for row in criteo(60, np.random.default_rng(0))], "ascii")
    write("avazu.csv", [",".join(row) for row in avazu(60, np.random.default_rng(0))], "ascii")


def criteo(n_rows: int, rng: np.random.Generator) -> list[list[str]]:
    """Label, 13 counts and 26 hashes of 32 bits, a fifth of counts and hashes missing."""
    rows = []
    for _ in range(n_rows):
        counts = [str(count) for count in rng.negative_binomial(1, 0.05, 13)]
        counts[1] = str(rng.integers(-2, 100))  # the second count may be negative
        hashes = [f"{2_654_435_761 * int(level) % 2**32:08x}" for level in rng.zipf(1.5, 26)]
        known = rng.random(39) < 0.8
        features = [cell if k else "" for cell, k in zip(counts + hashes, known, strict=True)]
        rows.append([str(rng.integers(2)), *features])
    return rows


def avazu(n_rows: int, rng: np.random.Generator) -> list[list[str]]:
    """The header and rows in order of time; half of the ids are beyond int64."""
    hashed = "site_id site_domain site_category app_id app_domain app_category device_id device_ip device_model"
    codes = [f"C{i}" for i in range(14, 22)]
    rows = [["id", "click", "hour", "C1", "banner_pos", *hashed.split(), "device_type", "device_conn_type", *codes]]
    for hour in np.sort(rng.integers(24, size=n_rows)):
        rows.append(
            [
                str(rng.integers(2**64, dtype=np.uint64)),
                str(rng.integers(2)),
                f"141021{hour:02d}",
                "1005",
                str(rng.integers(2)),
                *(f"{2_654_435_761 * int(level) % 2**32:08x}" for level in rng.zipf(1.5, 9)),
                str(rng.integers(2)),
                str(rng.integers(3)),
                *(str(code) for code in rng.integers(15_000, 25_000, 6)),
                "-1" if rng.random() < 0.5 else str(rng.integers(100_000, 100_200)),
                str(rng.integers(300)),
            ]
        )
    return rows


def write(name: str, lines: list[str], encoding: str) -> None:
    path = HERE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))


def write_csv(name: str, rows: list[tuple[object, ...]]) -> None:
    path = HERE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\r\n").writerows(rows)


if __name__ == "__main__":
    main()
