"""The commands of docs/your-data on real-size data against simple methods: python benchmarks/your_data.py SCRIPTS --out FOLDER

SCRIPTS holds scripts that write the raw files of a field: `eo.py`, `astro.py`, `speech.py`, `arm.py` (OUT COUNT SEED) and `emoji_vendors.py`
(OUT NPM). Each field runs the commands of its page in a folder of its own: init, run, and the transfers. The last samples by name are held out
(emoji: by the hash of the name). Simple methods are scikit-learn's, on the same split. `--more` repeats a transfer of each field with a further input.

Prints a table, and writes results.json: score, best constant, simple method, seconds of CPU time of all commands. Needs maskweave[all] and, for
speech, espeak-ng. The scripts are not part of this repository: any that write such files will do (see the tables at the top of the pages).
"""

import argparse
import json
import os
import re
import resource
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import your_data_references as references

PAGES = Path(__file__).parent.parent / "docs" / "your-data"
FIELDS = {
    "earth-observation": ("eo.py", "tiles", 300, 50),
    "astronomy": ("astro.py", "galaxies", 400, 80),
    "speech": ("speech.py", "speech", 320, 80),
    "robot-arm": ("arm.py", "arm", 400, 40),
    "emoji": ("emoji_vendors.py", "emoji", 1636, 327),
}
"""Script, folder of the raw files, samples and held-out samples of each page."""
TASKS = {
    "earth-observation": [("elevation", "MAE"), ("land", "mIoU"), ("biomass", "MAE"), ("bands", "MAE")],
    "astronomy": [("redshift", "MAE"), ("spectrum", "shape MAE")],
    "speech": [("phrase", "accuracy"), ("speaker", "accuracy")],
    "robot-arm": [("actions", "MAE"), ("joints", "MAE")],
    "emoji": [("category", "accuracy"), ("index", "R@10")],
}
MORE = {
    "earth-observation": ("elevation", "s2,s1", True),
    "astronomy": ("redshift", "spectrum,image", False),
    "speech": ("speaker", "wav,logmel", False),
    "robot-arm": ("actions", "video,instruction,cam2", True),
    "emoji": ("category", "twitter,google", False),
}
"""A transfer of each page, more inputs for it, and whether the new one is missing in some samples, all of which are to be scored."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scripts", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fields", nargs="*", default=list(FIELDS), choices=FIELDS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=2, help="time that init plans the run for")
    parser.add_argument("--npm", type=Path, help="emoji: folder of the unpacked npm packages")
    parser.add_argument(
        "--more", action="store_true", help="also a transfer of each field with more inputs than its page has"
    )
    given = parser.parse_args()
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for field in given.fields:
        for seed in range(given.seeds):
            for task, found in run_field(field, seed, given).items():
                rows.setdefault((field, task), []).append(found)
            write(rows, given.out / "results.json")
            print(table(rows), flush=True)


def run_field(field: str, seed: int, given: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Runs a page's commands. Returns the result of each task."""
    script, name, count, held_out = FIELDS[field]
    folder = (given.out / field / str(seed)).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    raw = folder / name
    if not (folder / "made").exists():
        last = [given.npm.resolve()] if field == "emoji" else [count, seed]
        subprocess.run([sys.executable, given.scripts / script, raw, *map(str, last)], check=True)
        (folder / "made").touch()
    text = (PAGES / f"{field}.md").read_text(encoding="utf-8")
    for file, content in re.findall(r"```yaml\n# (\S+\.yaml)\n(.*?)```", text, re.DOTALL):
        (folder / file).write_text(content, encoding="utf-8")
    split = [] if field == "emoji" else ["--data.split.by", "order"]
    more = {
        "init": ["--minutes", str(given.minutes)],
        "run": ["--data.validation", str(held_out), "--seed", str(seed), *split],
        "transfer": ["--data.validation", str(held_out), "--seed", str(seed), *split],
        "retrieve": [],
    }
    seconds: dict[str, float] = {}
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)[1:]
            if not words or words[0] not in more:
                continue
            place = words[words.index("--out") + 1] if "--out" in words else words[2]
            seconds[Path(place).name] = seconds.get(Path(place).name, 0) + timed([*words, *more[words[0]]], folder)
    tasks = list(TASKS[field])
    shared = sum(took for place, took in seconds.items() if place not in dict(tasks))
    if given.more:
        task, inputs, is_partial = MORE[field]
        out = place_of(folder, task).with_name(f"{task}-more")
        words = ["transfer", f"{task}.yaml", "--out", str(out), "--inputs", f"[{inputs}]"]
        words += ["--data.modality_dropout", "0.1"] if is_partial else []
        seconds[out.name] = timed([*words, *more["transfer"]], folder)
        tasks.append((out.name, dict(tasks)[task]))
    simple = references.FIELDS[field](raw, held_out)
    results = {}
    for task, metric in tasks:
        score, constant = read_score(folder, task, metric, held_out)
        results[task] = {
            "metric": metric,
            "score": score,
            "constant": constant,
            "simple": simple.get(task),
            "seconds": shared + seconds[task],
        }
    return results


def timed(words: list[str], folder: Path) -> float:
    """Runs a command. Returns its seconds of CPU time, with its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    log = folder / "log.txt"
    with log.open("a", encoding="utf-8") as file:
        done = subprocess.run(
            [sys.executable, "-m", "maskweave", *words],
            cwd=folder,
            stdout=file,
            stderr=file,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    if done.returncode:
        raise SystemExit(f"{shlex.join(words)} failed; see {log}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def place_of(folder: Path, task: str) -> Path:
    """Returns the folder of a transfer or an index; folders of raw files may have the same name."""
    places = folder.glob(f"*/{task}")
    (place,) = [path for path in places if (path / "recipe.yaml").exists() or (path / "recall.json").exists()]
    return place


def read_score(folder: Path, task: str, metric: str, held_out: int) -> tuple[float, float]:
    """Returns the score of a task and that of the best constant."""
    place = place_of(folder, task)
    if metric == "R@10":
        (row,) = json.loads((place / "recall.json").read_text(encoding="utf-8"))
        return row["at"]["10"], row["chance"]["10"]
    if metric == "shape MAE":
        return references.shape_error(place, folder, held_out)
    rows = json.loads((place / "evaluation.json").read_text(encoding="utf-8"))
    (row,) = [row for row in rows if row["metric"] == metric and not row["part"]]
    return row["value"], row["constant"]


def table(rows: dict[tuple[str, str], list[dict[str, Any]]]) -> str:
    lines = ["| field | task | metric | constant | simple | maskweave, each seed | CPU minutes |", "| --- " * 7 + "|"]
    for (field, task), found in rows.items():
        constant = statistics.mean(row["constant"] for row in found)
        scores, simple = (
            ", ".join(f"{x:.3g}" for row in found if (x := row[key]) is not None) for key in ("score", "simple")
        )
        minutes = statistics.median(row["seconds"] for row in found) / 60
        lines.append(
            f"| {field} | {task} | {found[0]['metric']} | {constant:.3g} | {simple or '–'} | {scores} | {minutes:.1f} |"
        )
    return "\n".join(lines)


def write(rows: dict[tuple[str, str], list[dict[str, Any]]], path: Path) -> None:
    path.write_text(
        json.dumps([{"field": f, "task": t, "seeds": found} for (f, t), found in rows.items()], indent=1),
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
