"""The configuration: YAML, command line and overrides agree; each mistake gives one clear line."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from ovs3d_ros.config import Config, leaves, override, resolve_device, resolve_rasterizer
from ovs3d_ros.config.yaml_io import load, parse_assignments, to_yaml
from ovs3d_ros.types import UserError


def flat(config: Config) -> dict:
    return {spec.path: value for spec, value in leaves(config)}


def test_every_leaf_is_documented_and_has_a_valid_default() -> None:
    specs = [spec for spec, _ in leaves()]
    assert len(specs) > 50 and len({spec.path for spec in specs}) == len(specs)
    assert all(spec.doc for spec in specs)
    assert override(Config(), flat(Config())) == Config()


def test_override_copies_and_replaces() -> None:
    config = Config()
    changed = override(config, {"map.max_gaussians": 5000, "seed.spacing": 2})
    assert changed.map.max_gaussians == 5000 and isinstance(changed.seed.spacing, float)
    assert config == Config()
    different = {path for path, value in flat(changed).items() if value != flat(config)[path]}
    assert different == {"map.max_gaussians", "seed.spacing"}
    assert Config.from_settings({"map.max_gaussians": 5000, "seed.spacing": 2}) == changed


@pytest.mark.parametrize(
    "path, value, words",
    [
        (
            "map.max_gausians",
            5,
            ["no such parameter; did you mean map.max_gaussians?", "ovs3d config"],
        ),
        ("mapping.max_gaussians", 5, ["did you mean map.max_gaussians"]),
        ("map.max_gaussians", 5.5, ["expected a whole number", "5.5"]),
        ("map.max_gaussians", True, ["expected a whole number"]),
        ("map.max_gaussians", 1, ["1 is outside", "give 100 to 20000000"]),
        ("train.exposure", 1, ["expected true or false"]),
        ("input.silence", 0.1, ["outside", "give at least 0.5 s"]),
        ("seed.opacity", float("nan"), ["outside"]),
        ("train.lr_means", float("inf"), ["outside"]),
        ("train.densify_gradient", float("inf"), ["outside"]),
        ("train.densify_gradient", 1e39, ["outside"]),
        ("train.densify_gradient", 1e-46, ["outside"]),
        ("train.densify_every", 2**63, ["outside"]),
        ("input.extrinsics", [1e39, 0, 0, 0, 0, 0, 1], ["outside"]),
        ("seed.opacity", "much", ["expected a number", "much"]),
        ("clip.mode", "fast", ["none of", "pyramid"]),
        ("clip.model", 7, ["expected text"]),
        ("clip.crop_divisors", 5.0, ["expected a list"]),
        ("clip.crop_divisors", ["wide"], ["clip.crop_divisors", "wide"]),
        ("clip.crop_divisors", [0.0, 3.0], ["outside"]),
        ("query.negatives", [7], ["expected text"]),
        ("query.negatives", [], ["must not be empty"]),
        ("clip.crop_metres", [0.0, 0.3], ["outside", "empty list"]),
        ("output.vocabulary", [7], ["expected text"]),
        ("compute.seed", 2**64, ["outside"]),
        ("map.max_gaussians", 10**400, ["outside"]),
        ("train.lr_means", 10**400, ["expected a number"]),
    ],
)
def test_bad_values_are_refused_by_name(path: str, value, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        override(Config(), {path: value})
    message = str(caught.value)
    assert "\n" not in message and path in message
    assert all(word in message for word in words)


def test_command_line_assignments_are_parsed() -> None:
    values = parse_assignments(
        [
            "clip.model=a:b=c",
            "train.lr_means=1e-4",
            "clip.crop_divisors=4, 6.5",
            "clip.dense_sizes=480,960",
            "query.negatives=no,wall paint",
            "train.exposure=false",
            "map.max_gaussians=700",
        ]
    )
    config = override(Config(), values)
    assert config.clip.model == "a:b=c"
    assert config.train.lr_means == 1e-4
    assert config.clip.crop_divisors == (4.0, 6.5) and config.clip.dense_sizes == (480, 960)
    assert config.query.negatives == ("no", "wall paint")
    assert config.train.exposure is False
    assert config.map.max_gaussians == 700


@pytest.mark.parametrize("path", [spec.path for spec, _ in leaves()])
def test_printed_values_are_assignments(path: str) -> None:
    """What `ovs3d config` prints behind a parameter's name can be given to `--set`."""
    printed, group = {}, ""
    for line in to_yaml().splitlines():
        name, sign, value = line.strip().partition(": ")
        if line.startswith("    ") and not line.strip().startswith("#"):
            if not sign:
                group = name.removesuffix(":") + "."
            printed[(group if line.startswith("      ") else "") + name] = value
    config = override(Config(), parse_assignments([f"{path}={printed[path]}"]))
    assert config == Config()


def test_lists_are_assigned_as_yaml() -> None:
    texts = ["query.negatives=[object, 'a, b', no, 1]", "clip.crop_metres=[0.2, 0.3]", "clip.dense_sizes=[]"]
    config = override(Config(), parse_assignments(texts))
    assert config.query.negatives == ("object", "a, b", "no", "1")
    assert config.clip.crop_metres == (0.2, 0.3) and config.clip.dense_sizes == ()
    with pytest.raises(UserError, match=r"clip.crop_metres: .* as \[a, b\]"):
        parse_assignments(["clip.crop_metres=[0.2, 0.3"])


EMPTY = {
    "clip.crop_metres",
    "clip.dense_sizes",
    "input.cameras",
    "output.vocabulary",
    "navigation.keep_out",
}


def test_lists_empty_by_default_may_be_emptied_everywhere(tmp_path) -> None:
    assert {spec.path for spec, _ in leaves() if spec.may_be_empty} == EMPTY
    full = {"clip.crop_metres": [0.2], "clip.dense_sizes": [320], "input.cameras": ["a"]}
    full |= {"output.vocabulary": ["mug"], "navigation.keep_out": ["cable"]}
    config = override(Config(), full)
    assert override(config, {path: [] for path in EMPTY}) == Config()
    assert override(config, parse_assignments([f"{path}=" for path in EMPTY])) == Config()
    (tmp_path / "c.yaml").write_text("".join(f"{path}: []\n" for path in EMPTY), encoding="utf-8")
    assert load(tmp_path / "c.yaml", config) == Config()
    assert "vocabulary: []\n" in to_yaml()


def test_files_with_the_placeholders_of_earlier_versions_are_read(tmp_path) -> None:
    old = "input.cameras: ['']\nclip: {crop_metres: [0.0], dense_sizes: [0]}\noutput: {vocabulary: ['']}\n"
    (tmp_path / "c.yaml").write_text(old, encoding="utf-8")
    assert load(tmp_path / "c.yaml") == Config()


@pytest.mark.parametrize(
    "text", ["clip.model", "map.max_gaussians={", "map.max_gaussians=", "train.lr_means=fast"]
)
def test_bad_assignments_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=text.split("=")[0]):
        override(Config(), parse_assignments([text]))


def test_yaml_holds_every_leaf_and_reads_back(tmp_path) -> None:
    changed = override(
        Config(),
        {
            "train.lr_means": 3e-5,
            "clip.crop_divisors": (2.5,),
            "clip.model": "no",
            "query.negatives": ("a: b", "on"),
            "output.save_on_exit": "~/x # y.ovs3d",
        },
    )
    path = tmp_path / "c.yaml"
    path.write_text(to_yaml(changed), encoding="utf-8")
    assert load(path) == changed
    parameters = yaml.safe_load(to_yaml())["/**"]["ros__parameters"]
    assert set(parameters) == {f.name for f in dataclasses.fields(Config)}


def test_partial_yaml_without_ros_wrapper_is_read(tmp_path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("map:\n  max_gaussians: 900\ntrain.lr_means: 1e-4\n", encoding="utf-8")
    base = override(Config(), {"seed.spacing": 5.0})
    config = load(path, base)
    assert (config.map.max_gaussians, config.train.lr_means, config.seed.spacing) == (900, 1e-4, 5.0)


@pytest.mark.parametrize("text", ["/**:\n  ros__parameters:\n", "", "# nothing\n"])
def test_empty_yaml_changes_nothing(tmp_path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    assert load(path) == Config()


@pytest.mark.parametrize(
    "content, word",
    [
        (b"map: [", "YAML"),
        (b"- 1\n- 2\n", "mapping"),
        (b"map:\n  nothing: 1\n", "map.nothing"),
        (b"\xff\xfe\x00x", "YAML"),
        (b"map: 3\n", "map"),
    ],
)
def test_bad_yaml_is_refused(tmp_path, content: bytes, word: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=word) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_missing_yaml_names_the_remedy(tmp_path) -> None:
    with pytest.raises(UserError, match="ovs3d config"):
        load(tmp_path / "none.yaml")


def test_auto_device_and_rasterizer_follow_the_machine() -> None:
    import torch

    cpu = override(Config(), {"compute.device": "cpu"}).compute
    assert resolve_device(cpu) == "cpu" and resolve_rasterizer(cpu) == "cpu"
    cuda = override(Config(), {"compute.device": "cuda"}).compute
    if torch.cuda.is_available():
        assert resolve_device(cuda) == "cuda" and resolve_rasterizer(cuda) == "gsplat"
    else:
        assert resolve_device(Config().compute) == "cpu"
        with pytest.raises(UserError, match=r"compute\.device=cpu"):
            resolve_device(cuda)


@pytest.mark.parametrize("gpu", [False, True])
def test_rasterizer_must_fit_the_device(monkeypatch, gpu: bool) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)

    def resolved(rasterizer: str, device: str) -> str:
        return resolve_rasterizer(
            override(Config(), {"compute.rasterizer": rasterizer, "compute.device": device}).compute
        )

    assert (
        resolved("auto", "auto")
        == resolved("gsplat" if gpu else "cpu", "auto")
        == ("gsplat" if gpu else "cpu")
    )
    with pytest.raises(
        UserError, match=r"rasterizer is gsplat but compute\.device is cpu: set compute\.device=cuda too"
    ):
        resolved("gsplat", "cpu")
    if gpu:
        with pytest.raises(
            UserError, match=r"rasterizer is cpu but compute\.device is cuda: set compute\.device=cpu too"
        ):
            resolved("cpu", "auto")
