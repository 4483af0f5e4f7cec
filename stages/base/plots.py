"""What all plots need: matplotlib without a screen, and a figure as PNG."""

import io
import warnings
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def as_png(figure: "Figure") -> bytes:
    """The figure as the bytes of a PNG; it is closed."""
    import matplotlib.pyplot as plt

    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return data.getvalue()


def pyplot() -> ModuleType:
    """matplotlib.pyplot, set to draw into memory, in the style that all figures here have."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False}
    )  # names are text, `$` too
    warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # a box is drawn in its place
    return plt
