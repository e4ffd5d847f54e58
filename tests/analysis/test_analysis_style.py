"""Is a figure the same whatever settings of matplotlib are about?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl

CODE = """
import sys
from pathlib import Path
from vmsim.analysis import bars  # imports matplotlib before the style does
from vmsim.analysis.style import figure, save
with figure() as (fig, axes):
    axes.plot([1, 2, 3])
    axes.set_title("title")
    save(fig, Path(sys.argv[1]))
"""
SETTINGS = "text.usetex: True\ntext.latex.preamble: \\input{evil}\nlines.linewidth: 9\nfigure.facecolor: red\n"


def test_settings_of_the_current_folder_and_of_the_user_change_nothing(tmp_path: Path) -> None:
    made, fonts = [], [*Path(mpl.get_cachedir()).glob("fontlist-*.json")]
    for number, place in enumerate((None, "matplotlibrc", "home/matplotlibrc")):
        folder = tmp_path / str(number)
        (folder / "home").mkdir(parents=True)
        if place:
            (folder / place).write_text(SETTINGS)
        for listed in fonts:  # or each process would look for all fonts, which is most of what the test takes
            shutil.copy(listed, folder / "home")
        subprocess.run(
            [sys.executable, "-c", CODE, "figure.svg"],
            cwd=folder,
            env={**os.environ, "MPLCONFIGDIR": str(folder / "home"), "PYTHONPATH": str(_root())},
            check=True,
        )
        made.append((folder / "figure.svg").read_bytes())
    assert made[0] == made[1] == made[2]


def _root() -> Path:
    return Path(__file__).parents[2]
