"""`adcli data`: index a data set into a manifest, check or augment it, ask questions about it, or render scenes."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from adcli import describe
from adcli.ending import ANEW, DONE, FAILED_ROWS
from adcli.options import command

if TYPE_CHECKING:
    from stages.base.config import RunOptions
    from stages.datasets.config import CheckConfig

VIDAD = """Index VID-AD: 10 scenarios x 5 capture conditions.

The folders on the way from ROOT to an image name the scenario (fruits, ...), the capture condition
(white_bg, Cable BG, low-light CD, ...) and `train` or `test`, nested in any order or several in one
name (Sticks_White_BG, 01_Sticks, train_normal); case, numbers and punctuation do not matter. As in the
authors' layout (Sticks_Mesh_BG/, Sticks/), a folder that names a scenario alone is White BG. Below
`test`, folders named normal, good or ok hold normal images, any other folder names the violated aspect
(quantity, Q, Single-Aspect-A, Q+L, Dual-Aspects, ...). Scenes rendered by `adcli data synth vidad` are
recognised and named `vidad-synthetic`.

Example: adcli data index vidad runs/demo/scenes --out runs/demo/manifest.parquet
"""

TILES = """Index the magnetic tile defects: MT_<class>/Imgs/<name>.jpg, mask <name>.png beside it.

Half of the normal tiles (MT_Free) go to train, split by tile and not by picture.

Example: adcli data index magnetic-tile ../shared/data/magnetic-tile --out runs/tiles/manifest.parquet
"""

MVTEC = """Index MVTec AD: <category>/train/good, test/<defect>, ground_truth/<defect>/NNN_mask.png.

Masks are paired by stem, with or without _mask; masks that are missing are counted and named.

Example: adcli data index mvtec-ad /data/mvtec_anomaly_detection --out runs/mvtec/manifest.parquet
"""

VISA = """Index VisA, as published (Data/Images, Data/Masks) or as its copy in the layout of MVTec AD (1cls).

What is train and what is test in the published layout says split_csv/1cls.csv beside the categories;
image_anno.csv in each category names the defects.

Example: adcli data index visa /data/VisA --out runs/visa/manifest.parquet
"""

LOCO = """Index MVTec LOCO AD: <category>/{train,validation,test}/..., a folder of masks per anomalous image.

Each mask is a region of its own, with the saturation that defects_config.json gives its kind (sPRO).

Example: adcli data index mvtec-loco /data/mvtec_loco_anomaly_detection --out runs/loco/manifest.parquet
"""

BTAD = """Index BTAD (beanTech): <category>/train/ok, test/{ok,ko}, ground_truth/ko; categories 01, 02, 03.

Masks are paired by stem, whatever their ending; masks that are missing are counted and named.

Example: adcli data index btad /data/BTech_Dataset_transformed --out runs/btad/manifest.parquet
"""

KSDD2 = """Index KolektorSDD2: train/NNNNN.png and test/NNNNN.png, the mask NNNNN_GT.png beside each.

A picture is anomalous when its mask is not empty, so every mask is decoded. The defective pictures in train
keep their label.

Example: adcli data index ksdd2 /data/KolektorSDD2 --out runs/ksdd2/manifest.parquet
"""

DAGM = """Index DAGM 2007: Class<K>/{Train,Test}/NNNN.PNG with Label/NNNN_label.PNG and Label/Labels.txt.

Labels.txt says which images are defective; without it, those that have a mask. The defective images in Train
keep their label.

Example: adcli data index dagm /data/DAGM --categories Class1,Class2 --out runs/dagm/manifest.parquet
"""

DTD = """Index DTD-Synthetic, which has the layout of MVTec AD: <category>/train/good, test/<defect>, ground_truth.

Masks are paired by stem, with or without _mask; masks that are missing are counted and named.

Example: adcli data index dtd-synthetic /data/DTD-Synthetic --out runs/dtd/manifest.parquet
"""

WFDD = """Index WFDD, woven fabrics in the layout of MVTec AD: <category>/train/good, test/<defect>, ground_truth.

Masks are paired by stem, with or without _mask; masks that are missing are counted and named.

Example: adcli data index wfdd /data/WFDD --out runs/wfdd/manifest.parquet
"""

MPDD = """Index MPDD, painted metal parts in the layout of MVTec AD: <category>/train/good, test/<defect>, ground_truth.

SAGE asks questions about it: `adcli data questions` makes some, `adcli data import-questions` reads others.

Example: adcli data index mpdd /data/MPDD --out runs/mpdd/manifest.parquet
"""

RIAD = """Index RIAD, the data set of VMAD: an object's folder, images in it, COCO files with their defects anywhere.

The masks are drawn into PNG files below --masks. Objects are held out for test as a whole, 8 of 24; the texts are
imported by `adcli data import-questions --format riad`.

Example: adcli data index riad /data/RIAD --masks runs/riad/masks --out runs/riad/manifest.parquet
"""

BRAIN_AD = """Index Brain-AD, the brain data set of BMAD (BraTS2021_slice): {train,valid,test}/{good,Ungood}.

Below them lie img and anomaly_mask (or label), as the archive has it. valid becomes the split `val`.

Example: adcli data index brain-ad /data/BMAD/Brain_AD --out runs/brain-ad/manifest.parquet
"""

OCT17 = """Index OCT17, retinal OCT scans: {train,val,test}/{good,Ungood} of BMAD, or {NORMAL,CNV,DME,DRUSEN}.

There are no masks. Known counts are those of BMAD, which left the anomalous training images out.

Example: adcli data index oct17 /data/BMAD/Retina_OCT2017_AD --out runs/oct17/manifest.parquet
"""

HIS = """Index HIS, the histopathology data set of BMAD (camelyon16_256): {train,valid,test}/{good,Ungood}.

There are no masks. valid becomes the split `val`.

Example: adcli data index his /data/BMAD/Histopathology_AD --out runs/his/manifest.parquet
"""

BRAIN_MRI = """Index BrainMRI: brain_tumor_dataset/no and brain_tumor_dataset/yes.

There are no masks and no split: every picture is a test image. The copy of both folders that the archive holds
beside brain_tumor_dataset is not read.

Example: adcli data index brain-mri /data/BrainMRI --out runs/brain-mri/manifest.parquet
"""

CLINICDB = """Index CVC-ClinicDB: Original and Ground Truth, or images and masks; a polyp in every picture.

All are anomalous test images, so that there are pixel metrics only.

Example: adcli data index cvc-clinicdb /data/CVC-ClinicDB --out runs/clinicdb/manifest.parquet
"""

COLONDB = """Index CVC-ColonDB: images and masks; a polyp in every picture.

All are anomalous test images, so that there are pixel metrics only.

Example: adcli data index cvc-colondb /data/CVC-ColonDB --out runs/colondb/manifest.parquet
"""

ENDO = """Index Endo, the test set of EndoTect 2020: images and masks; a polyp in every picture.

All are anomalous test images, so that there are pixel metrics only.

Example: adcli data index endo /data/EndoTect_2020_Segmentation_Test_Dataset --out runs/endo/manifest.parquet
"""

KVASIR = """Index Kvasir-SEG: images and masks, both JPEG files; a polyp in every picture.

All are anomalous test images, so that there are pixel metrics only.

Example: adcli data index kvasir /data/Kvasir-SEG --out runs/kvasir/manifest.parquet
"""

META_JSON = """Index what meta.json lists, the file that AnomalyCLIP and its descendants make of a data set.

Give the data set's name where the folder's is another, so that `adcli data check` knows its counts. Masks that
were paired with other images' names are paired by name instead, and their number is said.

Example: adcli data index meta-json /data/mvtec --name mvtec-ad --out runs/mvtec/manifest.parquet
"""

FOLDER = """Index any folder of images.

Without a pattern every image is an unlabelled test image, which can still be captioned, scored and ranked. A
pattern is a folder below ROOT, which means everything in it, or a glob. Masks are paired by stem, with or without
mask, gt, label or the like around it. --labels takes a CSV file in place of the patterns; --annotations draws masks
from Pascal VOC's or labelme's files. What belongs to nothing is counted and named.

Example: adcli data index folder runs/demo/scenes --out runs/demo/unlabelled.parquet

Example: adcli data index folder runs/demo/scenes/fruits/white_bg --train-normal 'train/normal/*.jpg' \\
  --test-normal 'test/normal/*.jpg' --test-anomalous 'test/*type/*.jpg' --out runs/demo/labelled.parquet

Example: adcli data index folder ../shared/data/cookies --test-normal 'images/normal-*' \\
  --test-anomalous 'images/anomaly-*' --masks masks --out runs/cookies/manifest.parquet

Example: adcli data index folder runs/demo/scenes --train-normal '*/*/train' --test '*/*/test' --category '{1}' \\
  --out runs/demo/to-be-judged.parquet
"""

GOOD_AND_NEW = """Index a folder of good pictures and one of new ones, wherever they are, for a model to compare.

A fifth of the good ones is held out (split val), where there are 25 and more: the line between usual and unusual is
drawn from pictures that no model was fitted to. Folders of the same names below both are kinds of pictures, each
compared with its own. Folder names below --test such as scratch or good are labels. `adcli inspect` goes on from here.

Example: adcli data index good-and-new --good photos/normal --test photos/new --out runs/photos/manifest.parquet
"""

SYNTH = """Render the ten scenarios of VID-AD's Table 2 under its five capture conditions.

Every logical layout is the same under all conditions. The pictures are made up: figures measured on
them are no results on VID-AD.

Example: adcli data synth vidad --out runs/demo/scenes --scenarios fruits --conditions white_bg --size 360
"""

SURFACES = """Render surfaces of brushed metal: good ones, and new ones of which some have a scratch or a spot.

OUT/good and OUT/new are what `adcli inspect` takes; the folders in OUT/new say what is in them, OUT/masks where. No two
surfaces are alike in light, colour and grain, and good ones have marks of the brush and dust, too. They are made up:
figures measured on them say nothing of any product.

Example: adcli data synth surfaces --out runs/demo/surfaces --good 40 --new 20
"""


CHECK = """Decode every image and mask of a manifest, count them, and compare with the known counts.

Known are those of MVTec AD, VisA, VID-AD, the magnetic tiles, Brain-AD, OCT17, HIS and Kvasir-SEG; anything
else is only counted. Exit code 3 when something is missing, too much or unreadable; when a mask has another size
than its image, is empty though the image is anomalous, covers more than half of it, or belongs to several images or
none; or when a picture in train is also in test.

Example: adcli data check runs/demo/manifest.parquet
"""

AUGMENT = """Turn, frame or stamp the test images, masks alike (LVLM paper, section 4.3).

rotate90: 90 degrees counter-clockwise; pad20: a white border of 20 px; timestamp: a date in the top right
corner. The new manifest holds the training images too, as they are, under a condition that names the kinds.

Example: adcli data augment runs/demo/manifest.parquet --kind rotate90,timestamp \\
  --out runs/demo/turned.parquet --images runs/demo/turned
"""

QUESTIONS = """Make five questions about every image, with four answers each from best to worst (after AD-PL, SAGE's
preference data).

The answers are filled from label, name of the defect and mask; no model is needed. 1: right verdict, kind, place and
consequence. 2: right but vague. 3: wrong kind, place or extent. 4: wrong verdict. Wordings lie below
prompts/sage/questions. --vlm NAME asks a model to write them instead, from the same facts and the image's caption; what
is not four lines in the form asked for is drawn again, up to five times. An anomalous image needs a mask, every image
a normal training image of its category.

Example: adcli data questions runs/tiles/manifest.parquet --out runs/tiles/questions.parquet

Example: adcli data questions runs/tiles/manifest.parquet --vlm qwen2.5-vl --captions runs/tiles/captions.parquet \\
  --out runs/tiles/questions-qwen.parquet
"""

IMPORT = """Import questions from a file of another project, or from a folder of such files.

ad-pl: JSON with pair_type, test_image, reference_image and question_answer. conversations: JSON lines as InternVL's
trainers read them, human and gpt by turns, or question, chosen and rejected. mmad: mmad.json. manta: JsonData of MANTA.
riad: description, impact and suggestion of RIAD.
Index the images first (`adcli data index folder`, where the data set has no loader). A path is looked up relative to
the manifest's root, then by its end; one that fits no image or several gives a failed row.

Example: adcli data import-questions /data/MMAD/mmad.json --format mmad --manifest runs/mmad/manifest.parquet \\
  --out runs/mmad/questions.parquet
"""

SCORES = """Import scores of another program, and its anomaly maps, so that they are evaluated like any others.

SOURCE has a line per image: CSV with the names of the columns in its first line (commas, semicolons or tabs), or JSON
lines. An image is named by its path relative to the manifest's root, by its absolute path, or by its name where only
one image has it. Higher scores are more anomalous. What fits no image, or several, and what is no number, is a failed
row; nothing gets a default. Maps (--maps) are read as the numbers they hold: .npy, PNG and TIFF of one channel, paths
relative to SOURCE's folder.

Example: adcli data import-scores /data/csad/scores.csv --manifest runs/vidad/manifest.parquet --name CSAD \
  --image-column file --maps runs/csad/maps.parquet --out runs/csad/scores.parquet
"""


INDEX = {  # data set -> its configuration, what runs it (both below `stages.`), its help
    "vidad": ("datasets.config:VidadConfig", "datasets.vidad:run", VIDAD),
    "magnetic-tile": ("datasets.config:MagneticTileConfig", "datasets.magnetic_tile:run", TILES),
    "mvtec-ad": ("datasets.config:MvtecConfig", "datasets.mvtec:run", MVTEC),
    "mvtec-loco": ("datasets.config:MvtecConfig", "datasets.loco:run", LOCO),
    "visa": ("datasets.config:VisaConfig", "datasets.visa:run", VISA),
    "btad": ("datasets.config:MvtecConfig", "datasets.btad:run", BTAD),
    "ksdd2": ("datasets.config:IndexConfig", "datasets.ksdd2:run", KSDD2),
    "dagm": ("datasets.config:MvtecConfig", "datasets.dagm:run", DAGM),
    "dtd-synthetic": ("datasets.config:MvtecConfig", "datasets.mvtec:dtd_synthetic", DTD),
    "wfdd": ("datasets.config:MvtecConfig", "datasets.mvtec:wfdd", WFDD),
    "mpdd": ("datasets.config:MvtecConfig", "datasets.mvtec:mpdd", MPDD),
    "riad": ("datasets.config:RiadConfig", "datasets.riad:run", RIAD),
    "brain-ad": ("datasets.config:IndexConfig", "datasets.bmad:brain_ad", BRAIN_AD),
    "oct17": ("datasets.config:IndexConfig", "datasets.bmad:oct17", OCT17),
    "his": ("datasets.config:IndexConfig", "datasets.bmad:his", HIS),
    "brain-mri": ("datasets.config:IndexConfig", "datasets.brain_mri:run", BRAIN_MRI),
    "cvc-clinicdb": ("datasets.config:IndexConfig", "datasets.polyps:cvc_clinicdb", CLINICDB),
    "cvc-colondb": ("datasets.config:IndexConfig", "datasets.polyps:cvc_colondb", COLONDB),
    "endo": ("datasets.config:IndexConfig", "datasets.polyps:endo", ENDO),
    "kvasir": ("datasets.config:IndexConfig", "datasets.polyps:kvasir", KVASIR),
    "meta-json": ("datasets.config:MetaJsonConfig", "datasets.meta_json:run", META_JSON),
    "folder": ("datasets.config:FolderConfig", "datasets.folder:run", FOLDER),
    "good-and-new": ("datasets.config:GoodAndNewConfig", "datasets.good_and_new:run", GOOD_AND_NEW),
}


def check_and_say(config: "CheckConfig", options: "RunOptions") -> None:
    """Print what was found. Leaves with exit code 3 when it differs from what is known."""
    from stages.datasets import check

    found = check.run(config, options)
    if options.json:
        print(json.dumps(asdict(found)))
    elif not options.quiet:
        print(check.as_text(found))
    raise typer.Exit(FAILED_ROWS if found.differences else DONE)


def add_to(app: typer.Typer, arguments: list[str]) -> None:
    """Add `data index ...`, `data check`, `data augment`, `data questions`, `data import-questions`,
    `data import-scores`, `data synth ...` and `data describe`; with options only what `arguments` name."""

    def group(text: str) -> typer.Typer:
        return typer.Typer(help=text, no_args_is_help=True, rich_markup_mode=None)

    def leaf(place: typer.Typer, words: str, config: str, run: Any, text: str, *more: Any, **others: Any) -> None:
        """words: after `adcli data`."""
        *_, name = words.split()
        if arguments[1 : 1 + len(words.split())] == words.split():
            command(place, name, f"stages.{config}", run, text, *more, **others)
        else:
            place.command(name, help=text.partition("\n\n")[0])(lambda: None)

    data = group("Index, check and augment data sets, ask questions about them, or render synthetic scenes.")
    index = group("Manifest of a data set in its original layout.")
    synth = group("Render scenes with known logical state, or surfaces with known defects.")
    for name, (config, run, text) in INDEX.items():
        leaf(index, f"index {name}", config, f"stages.{run}", text)
    without = ("shard", "max_errors", "overwrite", "retry")
    leaf(data, "check", "datasets.config:CheckConfig", check_and_say, CHECK, without=without, again=ANEW)
    leaf(data, "augment", "datasets.config:AugmentConfig", "stages.datasets.augment:run", AUGMENT)
    make = "stages.questions.make:run"
    leaf(data, "questions", "questions.config:QuestionsConfig", make, QUESTIONS, ("vlm", "captions"), limit=True)
    leaf(data, "import-questions", "questions.config:ImportConfig", "stages.questions.imports:run", IMPORT)
    place = "stages.results.import_scores:run"
    leaf(data, "import-scores", "results.config:ImportScoresConfig", place, SCORES, ("maps",))
    leaf(synth, "synth vidad", "datasets.config:SynthConfig", "stages.datasets.synth.vidad:run", SYNTH)
    leaf(synth, "synth surfaces", "datasets.config:SurfacesConfig", "stages.datasets.synth.surfaces:run", SURFACES)
    if arguments[1:2] == ["describe"]:
        config, run = describe.DescribeConfig, describe.describe_and_say
        command(data, "describe", config, run, describe.DOC, without=describe.WITHOUT, again=ANEW)
    else:
        data.command("describe", help=describe.DOC.partition("\n\n")[0])(lambda: None)
    data.add_typer(index, name="index")
    data.add_typer(synth, name="synth")
    app.add_typer(data, name="data")
