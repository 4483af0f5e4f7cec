"""What benchmarks.own_pictures says of a ranking and of a process, on figures that can be checked by hand."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.own_pictures import copied, judged, measured, rendered, resident, tiles


def test_a_ranking_is_judged_by_scores(tmp_path):
    lines = ["file,score,percentile among the good,above the line"]
    rows = [("a", "9", "yes"), ("b", "7", "yes"), ("c", "7", "yes"), ("d", "1", "no"), ("e", "", "no score")]
    lines += [f"photos/new/{name}.png,{score},50.0,{above}" for name, score, above in rows]
    (tmp_path / "ranking.csv").write_text("\n".join(lines))
    found = judged(tmp_path / "ranking.csv", {"a.png", "c.png", "e.png"})
    assert found["auroc"] == pytest.approx(3.5 / 4)  # of 4 pairs 3 are right and one is a tie
    assert (found["pictures"], found["defective"], found["defective_among_as_many"]) == (4, 2, 1)
    assert (found["above_line_good"], found["above_line_defective"]) == (1, 2)


@pytest.mark.slow
def test_memory_and_time_are_those_of_the_whole_tree(tmp_path):
    inner = "x = bytearray(300_000_000); import time; time.sleep(1)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    found = measured([sys.executable, "-c", outer], tmp_path)
    assert found["peak_gb"] > 0.29 and found["seconds"] > 1
    assert resident(os.getpid()) > 10_000_000
    with pytest.raises(SystemExit):
        measured([sys.executable, "-c", "raise SystemExit(2)"], tmp_path)


def test_no_tile_is_in_both_folders_and_names_say_nothing(tmp_path):
    for kind, count in (("MT_Free", 700), ("MT_Break", 3)):
        (tmp_path / kind / "Imgs").mkdir(parents=True)
        for n in range(count):  # two pictures of each tile
            (tmp_path / kind / "Imgs" / f"exp1_num_{1000 * (n // 2) + n % 2}.jpg").write_bytes(kind.encode())
    good, new = tiles(tmp_path, neighbours=False)
    tile = {p: p.stem[:-1] for p in [*good, *(p for p, _ in new)] if "MT_Free" in p.parts}
    assert len(good) == 300 and len(new) == 203 and sum(d for _, d in new) == 3
    assert not {tile[p] for p in good} & {tile[p] for p, defective in new if not defective}
    names = copied(good, new, tmp_path / "photos")
    assert all((tmp_path / "photos" / "new" / n).read_bytes() == b"MT_Break" for n in names) and len(names) == 3
    assert tiles(tmp_path, False, 0) == (good, new) and set(tiles(tmp_path, False, 1)[0]) != set(good)
    follow = tiles(tmp_path, neighbours=True)[0]
    assert sum(tile[a] == tile[b] for a, b in pairwise(follow)) == 150


def test_one_in_ten_made_up_pictures_has_a_blot(tmp_path):
    import cv2

    names = rendered(40, tmp_path)
    dark = {p.name for p in (tmp_path / "new").iterdir() if (cv2.imread(str(p), 0) < 40).sum() > 200}
    assert dark == names == {"00000.png", "00010.png"} and len(list((tmp_path / "normal").iterdir())) == 20


def test_it_says_what_it_takes():
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.own_pictures", "--help"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0 and "tiles" in done.stdout and "cookies" in done.stdout and "many" in done.stdout
    for kind in ("tiles", "cookies"):
        words = [sys.executable, "-m", "benchmarks.own_pictures", kind, "data", "--seed", "1", str(root)]
        done = subprocess.run(words, cwd=root, capture_output=True, text=True)
        assert done.returncode == 1 and done.stderr == f"own_pictures: {root} exists; give another OUT\n"
