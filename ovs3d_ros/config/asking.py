"""Parameters of queries and of refinement: how a finished map is asked."""

from __future__ import annotations

from dataclasses import dataclass

from ovs3d_ros.config.leaf import MACHINE, RUNTIME, SESSION, leaf

_NEGATIVES = ("object", "things", "stuff", "texture")


@dataclass(frozen=True, slots=True)
class RefineConfig:
    """Refinement of the map for a vocabulary: sharpen, align neighbours, then check on views kept aside."""

    views: int = leaf(
        24,
        SESSION,
        "Number of keyframe poses from which cosines are rendered and sharpened, evenly spread over all "
        "keyframes.",
        low=1,
        high=100_000,
    )
    image_size: int = leaf(
        240,
        SESSION,
        "Longer side of the views rendered for sharpening and the check.",
        unit="px",
        low=16,
        high=2048,
    )
    background: tuple[str, ...] = leaf(
        _NEGATIVES, SESSION, "Names for all that is not in the vocabulary; they compete with its names."
    )
    temperature: float = leaf(
        0.03,
        SESSION,
        "Temperature of the softmax over the cosines with all names. Lower it for harder decisions. The "
        "default is calibrated for the bundled encoder.",
        low=0.001,
        high=10.0,
    )
    sharpen_radius: float = leaf(
        0.02,
        SESSION,
        "Standard deviation of the blur that sharpening removes. Raise it for an encoder that mixes more of "
        "the surroundings into its features.",
        unit="longer image sides",
        low=0.001,
        high=0.5,
    )
    sharpen_steps: int = leaf(
        3,
        SESSION,
        "Rounds of sharpening, which removes the influence of the surroundings on the features of small "
        "things. 0: no sharpening.",
        low=0,
        high=20,
    )
    neighbours: int = leaf(
        24, SESSION, "Number of nearest Gaussians with which each Gaussian is aligned.", low=3, high=64
    )
    normal_scale: float = leaf(
        0.1,
        SESSION,
        "Difference of surface normals, as the square root of 1 - cosine, at which the affinity of two "
        "Gaussians falls to 1/e. Lower it to separate things at weaker edges.",
        low=0.001,
        high=10.0,
    )
    color_scale: float = leaf(
        10.0,
        SESSION,
        "CIELAB distance of two colours at which the affinity of two Gaussians falls to 1/e. Lower it to "
        "separate things of similar colours.",
        low=0.1,
        high=1e4,
    )
    strength: float = leaf(
        100.0,
        SESSION,
        "Weight of the alignment among neighbours relative to the alignment with the lifted features. Raise "
        "it for smoother labels. 0: no alignment.",
        low=0.0,
        high=1e6,
    )
    adaptation: float = leaf(
        0.3,
        SESSION,
        "Weight of what the map itself teaches about the look of the names, relative to the features. Raise "
        "it for an encoder that confuses surfaces. 0: nothing is learned.",
        low=0.0,
        high=10.0,
    )
    train_steps: int = leaf(
        0,
        SESSION,
        "Steps of gradient descent on the RDA and FDA losses of 3D-OVS at the keyframes of the map, after "
        "the alignment of neighbours. Off, because it takes a minute and hardly gains in rendered rooms; 100 "
        "is a start. A map from a file needs its keyframes (map.keep_keyframes).",
        low=0,
        high=100_000,
    )
    check_views: int = leaf(
        6,
        SESSION,
        "Number of views kept aside for the check. A refinement that does not lower the objective on them is "
        "discarded.",
        low=1,
        high=1000,
    )
    attract: float = leaf(
        210.0,
        SESSION,
        "Weight, in the check and in training, of the FDA loss for patches that look alike. The RDA loss has "
        "weight 1.",
        low=0.0,
        high=1e4,
    )
    repel: float = leaf(
        2.5,
        SESSION,
        "Weight, in the check and in training, of the FDA loss for patches that look different. The RDA loss "
        "has weight 1.",
        low=0.0,
        high=1e4,
    )
    divergence: str = leaf(
        "js",
        SESSION,
        "Divergence between class distributions in the FDA loss. js is bounded; kl follows the "
        "code of 3D-OVS, but a single patch can dominate.",
        choices=("js", "kl"),
    )
    similarity: float = leaf(
        0.85,
        SESSION,
        "Cosine of DINO features above which the FDA loss takes two patches for the same thing. "
        "Take 0.7 for DINO ViT-B/8, as 3D-OVS does.",
        low=-1.0,
        high=1.0,
    )


@dataclass(frozen=True, slots=True)
class QueryConfig:
    """Text queries: what counts as found, and what is one object."""

    negatives: tuple[str, ...] = leaf(
        _NEGATIVES, SESSION | RUNTIME, "Names a prompt competes against in relevancy mode."
    )
    threshold: float = leaf(
        -1.0,
        SESSION | RUNTIME,
        "Relevancy above which a Gaussian gets the label of a prompt. Raise it for fewer, surer labels. "
        "Below 0: the calibrated value of the encoder.",
        low=-1.0,
        high=1.0,
    )
    calibration: str = leaf(
        "",
        MACHINE,
        "File that `ovs3d calibrate` wrote for the encoder in use. Empty: the calibration shipped with the "
        "encoder, which only the bundled one has.",
    )
    presence: float = leaf(
        0.6,
        SESSION | RUNTIME,
        "A prompt counts as found if the probability that the map holds it is at least this. Raise it for "
        "fewer false finds.",
        low=0.0,
        high=1.0,
    )
    absent: float = leaf(
        0.2,
        SESSION | RUNTIME,
        "A prompt counts as absent if that probability is below this. Between the two values the answer is "
        "uncertain.",
        low=0.0,
        high=1.0,
    )
    min_weight: float = leaf(
        1.0,
        SESSION | RUNTIME,
        "Queries pass over Gaussians that cover less than this in all keyframes together. Raise it to drop "
        "Gaussians that were barely seen.",
        unit="px",
        low=0.0,
    )
    instance_gap: float = leaf(
        0.06,
        SESSION | RUNTIME,
        "Gaussians of one label closer than this belong to one instance. Raise it if one thing is split into "
        "several, lower it if neighbouring things merge.",
        unit="m",
        low=1e-4,
        high=100.0,
    )
    upright: str = leaf(
        "auto",
        SESSION | RUNTIME,
        "Boxes of objects that stand upright along the z axis of the world. auto: if the cameras say that z "
        "points up, as REP 103 has it. never: boxes lie along the principal axes of the object.",
        choices=("auto", "always", "never"),
    )
    min_instance: int = leaf(
        12,
        SESSION | RUNTIME,
        "Instances of fewer Gaussians are dropped. Raise it to suppress specks.",
        unit="Gaussians",
        low=1,
    )
