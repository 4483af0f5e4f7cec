"""The options of `adcli data`'s commands. Loads without pyarrow and numpy."""

from dataclasses import dataclass
from pathlib import Path

from stages.base.config import argument, option

RULES = ("first", "random", "nearest")  # --reference, see references.py
SURFACES, SURFACES_MARK = "surfaces-synthetic", "SYNTHETIC_SURFACES"  # data set that adcli renders, file in its root
AUGMENTATIONS = ("rotate90", "pad20", "timestamp")  # --kind, see augment.py
CONDITIONS = {  # ours, in the paper's order -> names accepted
    "white_bg": {"whitebg", "white", "whitebackground"},
    "cable_bg": {"cablebg", "cable", "cables", "cablebackground"},
    "mesh_bg": {"meshbg", "mesh", "meshbackground"},
    "low_light": {"lowlight", "lowlightcd", "lowlightcondition", "dark"},
    "blurry": {"blurry", "blurrycd", "blur", "blurred", "blurrycondition"},
}


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """For a data set without categories of its own: there is nothing to choose."""

    root: Path = argument("folder that holds the data set")
    out: Path = option("the manifest to write")


@dataclass(frozen=True, kw_only=True)
class VidadConfig:
    root: Path = argument("folder that holds the scenarios, or the capture conditions")
    out: Path = option("the manifest to write")
    scenarios: str = option("only these, comma-separated", "")
    conditions: str = option(f"only these, comma-separated, of {', '.join(CONDITIONS)}", "")


@dataclass(frozen=True, kw_only=True)
class MagneticTileConfig:
    root: Path = argument("folder that holds MT_Free, MT_Blowhole, ...")
    out: Path = option("the manifest to write")
    train_fraction: float = option("share of the normal tiles that goes to train, 0 to 1", 0.5)
    train_defects: float = option("share of the defects that goes to train, for methods that learn from masks", 0.0)
    seed: int = option("which tiles those are", 0)


@dataclass(frozen=True, kw_only=True)
class MvtecConfig:
    root: Path = argument("folder that holds the categories")
    out: Path = option("the manifest to write")
    categories: str = option("only these, comma-separated", "")


@dataclass(frozen=True, kw_only=True)
class VisaConfig:
    root: Path = argument("folder that holds candle, capsules, ...")
    out: Path = option("the manifest to write")
    layout: str = option("raw (Data/Images), 1cls (train/good), or auto: the one that is there", "auto")
    split_csv: Path | None = option(
        "the split of the raw layout, if not split_csv/1cls.csv beside the categories", None
    )


@dataclass(frozen=True, kw_only=True)
class RiadConfig:
    root: Path = argument("folder that holds the data set")
    out: Path = option("the manifest to write")
    masks: Path = option("folder for the masks, drawn from the COCO files; not below the data set")
    test_objects: int = option("objects held out for test; the paper: 8 of 24, or none to test on other data sets", 8)
    test: str = option("which, comma-separated; by default those that Table II names, and others at random", "")
    seed: int = option("of the random ones", 0)


@dataclass(frozen=True, kw_only=True)
class MetaJsonConfig:
    root: Path = argument("folder that holds meta.json")
    out: Path = option("the manifest to write")
    name: str = option("data set name; by default the folder's", "")


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    root: Path = argument("folder that holds the images, however deep")
    out: Path = option("the manifest to write")
    train_normal: str = option(
        "normal images to train on: a folder below ROOT (ok/train) or a glob ('ok/train/*.png')", ""
    )
    test_normal: str = option("normal images to test on, likewise", "")
    test_anomalous: str = option("anomalous images to test on, likewise; the file's folder names the defect", "")
    test: str = option("images to test on whose label nobody knows, likewise", "")
    labels: Path | None = option(
        "CSV file in place of these patterns: image,label[,split,category,mask,defect]."
        " Labels: normal, good, ok or 0; anomalous, defect, bad, ng or 1; empty = unknown."
        " Splits: train, val, test",
        None,
    )
    masks: str = option(
        "masks of anomalous images, a folder or a glob: paired by stem, with or without mask, gt, label"
        " or segmentation before or behind it, and a number",
        "",
    )
    annotations: Path | None = option(
        "folder of Pascal VOC's XML or labelme's JSON files, paired like masks: boxes and"
        " polygons are drawn as masks into --out. Without a pattern, images with a shape"
        " are anomalous, those with none in their file normal",
        None,
    )
    name: str = option("data set name; by default the folder's", "")
    category: str = option(
        "category of all images; {1} stands for the first folder below ROOT on the way to an image, {2} for the second",
        "all",
    )


@dataclass(frozen=True, kw_only=True)
class GoodAndNewConfig:
    good: Path = option("folder of good pictures, however deep")
    test: Path = option("folder of the pictures to look at, likewise")
    out: Path = option("the manifest to write")
    defects: str = option(
        "names of folders below --test that hold defective pictures, comma-separated; by default those whose names say"
        " so (scratch, dents, ng), and where one is called good or ok, all others",
        "",
    )
    name: str = option("data set name; by default that of the folder that holds both", "")


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    manifest: Path = argument("what to check: manifest artifact, a folder of them, or a Parquet file")
    root: Path | None = option("where the manifest's paths start, if not where it was indexed", None)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    manifest: Path = argument("whose test images to augment: manifest artifact or Parquet file")
    kind: str = option(f"{', '.join(AUGMENTATIONS)}; several, comma-separated, are applied in this order")
    out: Path = option("the manifest to write")
    images: Path = option("folder for the new images and masks (PNG)")
    root: Path | None = option("where the manifest's paths start, if not where it was indexed", None)
    workers: int = option("processes; 0 = one per core", 0)


@dataclass(frozen=True, kw_only=True)
class SynthConfig:
    out: Path = option("folder for the images; truth.parquet goes beside them")
    scenarios: str = option("only these, comma-separated, e.g. fruits,sticks", "")
    conditions: str = option(f"only these, comma-separated, of {', '.join(CONDITIONS)}", "")
    size: int = option("side of the square pictures, px", 1080)
    seed: int = option("other seed, other pictures", 0)
    workers: int = option("processes; 0 = one per core", 0)


@dataclass(frozen=True, kw_only=True)
class SurfacesConfig:
    out: Path = option("folder for the images; truth.parquet goes beside them")
    good: int = option("pictures in OUT/good", 100)
    new: int = option("pictures in OUT/new: a fifth of them with a scratch, a fifth with a spot, the others good", 90)
    size: int = option("side of the square pictures, px", 256)
    seed: int = option("other seed, other pictures", 0)
