"""The paper's Figures 1 to 4 (Chen et al., AAAI 2020), drawn by code of our own.

Grey is a feature map, orange is HW x HW, green has D maps. The sides of a matrix are drawn to scale; the strong line in it
marks what belongs to position i or base map k. This writes the files of the documentation:

    python -c "from csametric.reproduction import diagrams; diagrams.write('docs/images')"
"""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from csametric.reproduction.attention_diagrams import compression, self_attention
from csametric.reproduction.drawing import svg
from csametric.reproduction.network_diagrams import framework, module

__all__ = ["DIAGRAMS", "svg", "write"]

DIAGRAMS: dict[str, Callable[[], Figure]] = {
    "figure1": self_attention,
    "figure2": compression,
    "figure3": module,
    "figure4": framework,
}


def write(folder: str | Path) -> None:
    """Draw every diagram of `DIAGRAMS` to folder/NAME.svg; the folder must exist."""
    for name, draw in DIAGRAMS.items():
        Path(folder, f"{name}.svg").write_bytes(svg(draw()))
