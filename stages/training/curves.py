"""The loss of a training as a picture."""

from stages.base.plots import as_png, pyplot


def loss_curves(history: list[dict], parts: tuple[str, ...]) -> bytes:
    """Training loss and its parts by step. history: rows with `step`, `loss` and the parts."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(6, 3))
    for name in ("loss", *parts):
        axes.plot([h["step"] for h in history], [h[name] for h in history], lw=2 if name == "loss" else 1, label=name)
    axes.set(xlabel="step", ylabel="loss")
    axes.legend(frameon=False, fontsize=8)
    return as_png(figure)
