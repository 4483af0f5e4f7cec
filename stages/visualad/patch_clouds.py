"""VisualAD's Figure 5: how far normal and anomalous patches lie apart, as a picture."""

import numpy as np

from stages.base.plots import as_png, pyplot


def patch_clouds(clouds: dict[str, tuple[np.ndarray, np.ndarray]]) -> bytes:
    """Patches in the plane of their first two principal components, a panel per stage (VisualAD's Figure 5).

    clouds: stage -> (normal (N, C), anomalous (M, C)). The titles say which share of the variance lies along the first
    axis, and how far the means are apart.
    """
    from sklearn.decomposition import PCA

    plt = pyplot()
    figure, axes = plt.subplots(1, len(clouds), figsize=(4 * len(clouds), 3.8), layout="constrained")
    for axis, (stage, (normal, anomalous)) in zip(axes, clouds.items(), strict=True):
        plane = PCA(2, random_state=0).fit(np.vstack([normal, anomalous]))
        for cloud, colour, name in ((normal, "#9ecae1", "normal"), (anomalous, "#08306b", "anomalous")):
            axis.scatter(*plane.transform(cloud).T, s=4, alpha=0.5, lw=0, color=colour, label=f"{name}, {len(cloud)}")
        first = plane.explained_variance_ratio_[0]
        axis.set_title(f"{stage}\nfirst axis {first:.0%}, means {apart(normal, anomalous):.2f} apart", fontsize=9)
        axis.set(xticks=[], yticks=[])
    axes[-1].legend(frameon=False, fontsize=8, markerscale=3)
    return as_png(figure)


def apart(normal: np.ndarray, anomalous: np.ndarray) -> float:
    """Distance of the means of (N, C) and (M, C), in root mean square distances from the own mean."""
    spread = np.sqrt((normal.var(0).sum() + anomalous.var(0).sum()) / 2)
    return float(np.linalg.norm(normal.mean(0) - anomalous.mean(0)) / spread)
