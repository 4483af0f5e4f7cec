"""Capture conditions and augmentations as the papers call them."""

KIND_NAMES = {"rotate90": "rotated", "pad20": "padded", "timestamp": "time stamp"}
CONDITION_NAMES = {
    "white_bg": "White BG",
    "cable_bg": "Cable BG",
    "mesh_bg": "Mesh BG",
    "low_light": "Low-light CD",
    "blurry": "Blurry CD",
} | KIND_NAMES


def condition_name(condition: str | None, unnamed: str = "all") -> str:
    """'white_bg+rotate90' -> 'White BG + rotated'; `unnamed` where there is no condition."""
    return " + ".join(CONDITION_NAMES.get(c, c) for c in condition.split("+")) if condition else unnamed
