"""Capture conditions and augmentations as the papers call them, and data sets that adcli renders."""

from stages.datasets.config import SURFACES

KIND_NAMES = {"rotate90": "rotated", "pad20": "padded", "timestamp": "time stamp"}
CONDITION_NAMES = {
    "white_bg": "White BG",
    "cable_bg": "Cable BG",
    "mesh_bg": "Mesh BG",
    "low_light": "Low-light CD",
    "blurry": "Blurry CD",
} | KIND_NAMES
MADE_UP = {  # data set -> what its page says first
    "vidad-synthetic": "These images were rendered by adcli after the rules and counts of VID-AD. The figures say that"
    " the pipeline works; they are no results on VID-AD.",
    SURFACES: "These surfaces were rendered by adcli. The figures say that the program works, and nothing of any"
    " product.",
}


def condition_name(condition: str | None, unnamed: str = "all") -> str:
    """'white_bg+rotate90' -> 'White BG + rotated'; `unnamed` where there is no condition."""
    return " + ".join(CONDITION_NAMES.get(c, c) for c in condition.split("+")) if condition else unnamed
