"""The map file: a round trip keeps the map, and loading refuses damaged files."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle

import numpy as np
import pytest
import torch
from helpers import synthetic
from safetensors import safe_open
from safetensors.torch import save_file

from ovs3d_ros.map_file import load_map, save_map
from ovs3d_ros.mapping.gaussians import PARAMETERS, Gaussians
from ovs3d_ros.semantics.codec import CodecFitter
from ovs3d_ros.semantics.packing import pack_codes
from ovs3d_ros.types import MapSnapshot, RefinedField, UserError

COUNT, SCALES, FRAMES = 9, 2, 3


def make_map(sh_degree: int = 1, semantic: bool = True) -> tuple[dict[str, torch.Tensor], MapSnapshot]:
    """Parameters and a snapshot with random contents."""
    generator = torch.Generator().manual_seed(0)
    g = Gaussians(synthetic.make_config().train, sh_degree, "cpu")
    g.insert(
        torch.randn(COUNT, 3, generator=generator),
        torch.rand(COUNT, 3, generator=generator),
        torch.rand(COUNT, generator=generator) + 0.1,
        0.4,
    )
    params = {name: torch.randn(p.shape, generator=generator) for name, p in g.params.items()}
    codec, codes, level_codes = None, torch.zeros(COUNT, 1), torch.zeros(COUNT, 0, 1)
    if semantic:
        fitter = CodecFitter(16, 5)
        fitter.add(torch.randn(50, 16, generator=generator) + 1)
        codec = fitter.fit()
        level_codes = codec.normalize(codec.encode(torch.randn(COUNT, SCALES, 16, generator=generator) + 1))
        codes = codec.normalize(level_codes.sum(1))
    camera = synthetic.make_camera()
    return params, MapSnapshot(
        version=41,
        gaussians={},
        packed_codes=pack_codes(codes),
        packed_levels=pack_codes(level_codes),
        weight=torch.rand(COUNT, generator=generator) * 100,
        views=torch.ones(COUNT),
        selection=torch.zeros(COUNT, level_codes.shape[1]),
        codec=codec,
        camtoworlds=np.stack(synthetic.orbit(FRAMES)),
        stamps=1.7e9 + np.arange(FRAMES) / 3,
        cameras=[camera] * FRAMES,
        names=["ä", "b", "c"],
        meta=dict(
            clip="tests/colors" if semantic else None,
            steps=12,
            psnr=None,
            config={"map.sh_degree": sh_degree},
        ),
    )


@pytest.mark.parametrize("sh_degree, semantic", [(0, True), (2, True), (1, False)])
def test_save_and_load_round_trip(tmp_path, sh_degree: int, semantic: bool) -> None:
    params, snapshot = make_map(sh_degree, semantic)
    path = tmp_path / "room.ovs3d"
    save_map(path, params, snapshot)
    loaded, past = load_map(path)
    assert all(torch.equal(loaded[name], params[name]) for name in PARAMETERS)
    assert torch.equal(past.weight, snapshot.weight) and torch.equal(past.views, snapshot.views)
    np.testing.assert_array_equal(past.camtoworlds, snapshot.camtoworlds)
    # Stamps are float64: today's time to the microsecond.
    np.testing.assert_array_equal(past.stamps, snapshot.stamps)
    assert past.version == 41 and past.names == snapshot.names and past.meta == snapshot.meta
    assert [c.width for c in past.cameras] == [64] * FRAMES
    np.testing.assert_array_equal(past.cameras[0].K, snapshot.cameras[0].K)
    if semantic:
        assert torch.equal(past.codec.basis, snapshot.codec.basis) and torch.equal(
            past.codec.gram, snapshot.codec.gram
        )
        cosine = (past.codec.decode(past.codes) * snapshot.codec.decode(snapshot.codes)).sum(-1)
        torch.testing.assert_close(cosine, torch.ones(COUNT), atol=0.02, rtol=0)  # 8 bits of random numbers
        assert torch.equal(past.packed_levels.values, snapshot.packed_levels.values)
        torch.testing.assert_close(past.packed_levels.steps, snapshot.packed_levels.steps)
    else:
        assert past.codec is None


def with_field(snapshot: MapSnapshot) -> MapSnapshot:
    probabilities = torch.rand(COUNT, 3, generator=torch.Generator().manual_seed(1)).softmax(-1)
    field = RefinedField(
        ("mug", "rote Tür"), ("object",), torch.eye(3, 16), 0.03, probabilities, {"checked": 2}
    )
    return dataclasses.replace(snapshot, refined=field)


def test_refined_field_round_trip(tmp_path) -> None:
    params, snapshot = make_map()
    save_map(tmp_path / "m.ovs3d", params, with_field(snapshot))
    loaded, expected = load_map(tmp_path / "m.ovs3d")[1].refined, with_field(snapshot).refined
    assert (loaded.names, loaded.background, loaded.temperature, loaded.summary) == (
        expected.names,
        expected.background,
        expected.temperature,
        expected.summary,
    )
    assert torch.equal(loaded.texts, expected.texts)
    torch.testing.assert_close(loaded.probabilities, expected.probabilities, atol=1e-3, rtol=0)


BAD_FIELDS = {
    "rows": (dict(refined_probabilities=torch.rand(COUNT + 1, 3)), {}, "refined_probabilities"),
    "columns": (dict(refined_probabilities=torch.rand(COUNT, 2)), {}, "refined_probabilities"),
    "sign": (dict(refined_probabilities=-torch.rand(COUNT, 3)), {}, "negative"),
    "texts": (dict(refined_texts=torch.rand(3, 5)), {}, "refined_texts"),
    "missing": (dict(refined_texts=None), {}, "refined_texts"),
    "version": ({}, dict(version=99), "version 99"),
    "names twice": ({}, dict(names=["mug", "mug"]), "garbled"),
    "temperature": ({}, dict(temperature=0), "garbled"),
    "temperature of float64": ({}, dict(temperature=1e-60), "garbled"),
    "summary": ({}, dict(summary=[]), "garbled"),
}


@pytest.mark.parametrize("tensors, entry, word", BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_load_refuses_bad_refined_fields(tmp_path, tensors, entry, word: str) -> None:
    params, snapshot = make_map()
    path = tmp_path / "m.ovs3d"
    save_map(path, params, with_field(snapshot))
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["ovs3d"])
        stored = {name: file.get_tensor(name) for name in file.keys()} | tensors  # noqa: SIM118 - not a mapping
    header["refined"] |= entry
    save_file(
        {name: t for name, t in stored.items() if t is not None}, path, metadata={"ovs3d": json.dumps(header)}
    )
    with pytest.raises(UserError, match=word):
        load_map(path)


def test_codes_beyond_half_precision_are_clamped(tmp_path) -> None:
    params, snapshot = make_map()
    huge = snapshot.packed_levels.unpack()
    huge[0] *= 1e6
    save_map(tmp_path / "m.ovs3d", params, dataclasses.replace(snapshot, packed_levels=pack_codes(huge)))
    assert torch.isfinite(load_map(tmp_path / "m.ovs3d")[1].codes).all()


BAD_PARTS = {
    "means": lambda params, snapshot: params["means"].__setitem__((2, 1), float("nan")),
    "far": lambda params, snapshot: params["means"].__setitem__((2, 1), 1e20),
    "large": lambda params, snapshot: params["log_scales"].__setitem__((2, 0), 200.0),
    "weight": lambda params, snapshot: snapshot.weight.__setitem__(2, float("inf")),
    "codes": lambda params, snapshot: snapshot.packed_levels.scales.__setitem__((2, 0), float("nan")),
    "pose": lambda params, snapshot: snapshot.camtoworlds.__setitem__((1, 0, 3), 1e39),
    "stamp": lambda params, snapshot: snapshot.stamps.__setitem__(1, np.inf),
    "codec": lambda params, snapshot: snapshot.codec.basis.fill_(float("nan")),
    "texts": lambda params, snapshot: snapshot.refined.texts.fill_(float("nan")),
}


@pytest.mark.parametrize("part", BAD_PARTS)
def test_poisoned_map_is_saved_without_its_bad_parts(part: str, tmp_path, caplog) -> None:
    params, snapshot = make_map()
    snapshot = with_field(snapshot)
    BAD_PARTS[part](params, snapshot)
    save_map(tmp_path / "rescued.ovs3d", params, snapshot)
    loaded, past = load_map(tmp_path / "rescued.ovs3d")
    bad_row, bad_keyframe = part in list(BAD_PARTS)[:5], part in ("pose", "stamp")
    rows = torch.arange(COUNT) != 2 if bad_row else torch.arange(COUNT) >= 0
    assert torch.equal(loaded["quats"], params["quats"][rows]) and len(past.codes) == rows.sum()
    assert past.names == (["ä", "c"] if bad_keyframe else ["ä", "b", "c"])
    assert (past.codec is None) == (part == "codec") and (past.refined is None) == (
        part in ("codec", "texts")
    )
    assert "the map is saved without" in caplog.text


def test_empty_map_round_trip(tmp_path) -> None:
    params, snapshot = make_map(semantic=False)
    empty = dataclasses.replace(
        snapshot,
        weight=torch.zeros(0),
        views=torch.zeros(0),
        camtoworlds=np.zeros((0, 4, 4)),
        stamps=np.zeros(0),
        cameras=[],
        names=[],
    )
    save_map(tmp_path / "m.ovs3d", {name: p[:0] for name, p in params.items()}, empty)
    loaded, past = load_map(tmp_path / "m.ovs3d")
    assert len(loaded["means"]) == 0 and past.cameras == []


def test_file_is_safetensors_with_a_json_header(tmp_path) -> None:
    save_map(tmp_path / "m.ovs3d", *make_map())
    with safe_open(tmp_path / "m.ovs3d", framework="np") as file:
        header = json.loads(file.metadata()["ovs3d"])
        assert header["format_version"] == 3 and header["meta"]["clip"] == "tests/colors"
        assert file.get_tensor("means").shape == (COUNT, 3)


def damaged(path, tensors=None, header=None) -> None:
    """Rewrites a map with changed tensors or header entries; None drops one."""
    with safe_open(path, framework="pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()} | (tensors or {})  # noqa: SIM118 - not a mapping
        entries = json.loads(file.metadata()["ovs3d"]) | (header or {})
    save_file(
        {n: t for n, t in stored.items() if t is not None},
        path,
        metadata={"ovs3d": json.dumps({k: v for k, v in entries.items() if v is not None})},
    )


@pytest.mark.parametrize("version", [1, 2])
def test_files_with_codes_in_half_precision_open(version: int, tmp_path) -> None:
    params, snapshot = make_map()
    save_map(tmp_path / "m.ovs3d", params, snapshot)
    codes = dict(code_values=None, code_scales=None, code_steps=None)
    old = codes | dict(scale_codes=snapshot.packed_levels.unpack().half())
    damaged(
        tmp_path / "m.ovs3d", old, dict(format_version=version) | ({"frame": None} if version == 1 else {})
    )
    past = load_map(tmp_path / "m.ovs3d")[1]
    torch.testing.assert_close(past.codes, snapshot.codes, atol=0.02, rtol=0)
    assert not past.frame.origin.any() and past.frame.unit == 1


CAMERA = dict(K=[[50, 0, 32], [0, 50, 24], [0, 0, 1]], width=64, height=48)


@pytest.mark.parametrize(
    "tensors, header, word",
    [
        (dict(means=torch.full((COUNT, 3), float("nan"))), None, "means has NaN"),
        (dict(code_scales=torch.full((COUNT, SCALES), float("inf")).half()), None, "code_scales has NaN"),
        (dict(code_values=torch.zeros(COUNT, SCALES, 5, dtype=torch.uint8)), None, "code_values holds"),
        (dict(camtoworlds=torch.eye(4).expand(FRAMES, 4, 4).contiguous() * 2), None, "not a rotation"),
        (dict(means=torch.zeros(COUNT, 2)), None, "means has shape"),
        (dict(quats=torch.zeros(COUNT - 1, 4)), None, "quats has shape"),
        (dict(means=torch.zeros(())), None, "lacks or garbles"),
        (dict(means=torch.zeros(COUNT, 3, dtype=torch.int64)), None, "int64"),
        (dict(weight=torch.zeros(COUNT + 1)), None, "weight has shape"),
        (dict(means=torch.full((COUNT, 3), 1e39, dtype=torch.float64)), None, "means has NaN or inf"),
        (dict(means=torch.full((COUNT, 3), 1e30)), None, "too far away"),
        (dict(log_scales=torch.full((COUNT, 3), 90.0)), None, "too large"),
        (dict(stamps=torch.full((FRAMES,), 1e39, dtype=torch.float64)), None, "keyframe 0: the stamp"),
        (dict(opacity_logits=None), None, "opacity_logits"),
        (dict(code_values=None), None, "code_values"),
        (dict(code_values=torch.zeros(COUNT, SCALES, 4)), None, "code_values has shape"),
        (dict(code_steps=torch.zeros(4)), None, "code_steps has shape"),
        (dict(selection=torch.zeros(COUNT)), None, "selection has shape"),
        (dict(codec_mean=torch.zeros(7)), None, "codec"),
        (dict(codec_basis=torch.zeros(16)), None, "codec"),
        (dict(stamps=torch.zeros(1)), None, "stamps has shape"),
        (None, dict(format_version=4), "format 4"),
        (None, dict(format_version=None), "format None"),
        (None, dict(cameras=None), "cameras"),
        (None, dict(cameras=7), "lacks or garbles"),
        (None, dict(cameras=[CAMERA] * 2), "names"),
        (None, dict(cameras=[CAMERA | dict(K=[[1, 2], [3]])] * FRAMES), "lacks or garbles"),
        (None, dict(cameras=[CAMERA | dict(width="wide")] * FRAMES), "lacks or garbles"),
        (None, dict(cameras=[CAMERA | dict(K=[[0, 0, 32], [0, 50, 24], [0, 0, 1]])] * FRAMES), "focal"),
        (None, dict(names=["a", 2, "c"]), "garbled"),
        (None, dict(map_version="new"), "lacks or garbles"),
        (None, dict(map_version=2**64), "in 63 bits"),
        (None, dict(meta=dict(clip="x", steps=-1)), "steps is -1"),
        (None, dict(meta=dict(clip="x", psnr=float("nan"))), "psnr is nan"),
        (None, dict(meta=dict(clip="x", psnr="good")), "lacks or garbles"),
        (None, dict(meta=[1]), "garbled"),
        (None, dict(meta=dict(clip="x", config=[1])), "garbled"),
        (None, dict(meta=dict(steps=3)), "encoder"),
    ],
)
def test_load_names_the_bad_tensor_or_entry(tmp_path, tensors, header, word: str) -> None:
    path = tmp_path / "room.ovs3d"
    save_map(path, *make_map())
    damaged(path, tensors, header)
    with pytest.raises(UserError, match=word) as caught:
        load_map(path)
    assert "room.ovs3d" in str(caught.value) and "\n" not in str(caught.value)


def test_load_refuses_truncated_files(tmp_path) -> None:
    path = tmp_path / "room.ovs3d"
    save_map(path, *make_map())
    whole = path.read_bytes()
    for length in [0, 1, 7, 8, 9, 100, len(whole) // 3, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"room\.ovs3d"):
            load_map(path)


def test_load_survives_flipped_bytes(tmp_path) -> None:
    path = tmp_path / "room.ovs3d"
    save_map(path, *make_map())
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for position in [*range(60), *rng.integers(0, len(whole), 150)]:
        path.write_bytes(
            whole[:position] + bytes([whole[position] ^ rng.integers(1, 256)]) + whole[position + 1 :]
        )
        try:
            params, _ = load_map(path)
            assert all(torch.isfinite(p).all() for p in params.values())
        except UserError:
            refused += 1
    assert refused > 40  # a flipped bit of a float is still a float


def test_load_refuses_other_files_without_unpickling(tmp_path) -> None:
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = tmp_path / "m.ovs3d"
    for content in (pickle.dumps(Trap()), b"ply\nformat ascii 1.0\n", os.urandom(500), b"{" * 200_000):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"m\.ovs3d"):
            load_map(path)
    save_file(dict(weights=torch.zeros(3)), path)
    with pytest.raises(UserError, match="not an ovs3d map"):
        load_map(path)
    deep = "[" * 100_000
    save_file(dict(weights=torch.zeros(3)), path, metadata={"ovs3d": deep})
    with pytest.raises(UserError, match="not a readable map"):
        load_map(path)
    assert not (tmp_path / "sprung").exists()


def test_loaded_map_does_not_live_in_its_file(tmp_path) -> None:
    path = tmp_path / "room.ovs3d"
    params, snapshot = make_map()
    save_map(path, params, snapshot)
    loaded, past = load_map(path)
    with open(path, "r+b") as file:  # as `cp` and `rsync --inplace` do
        file.write(bytes(path.stat().st_size))
    assert all(torch.equal(loaded[name], params[name]) for name in PARAMETERS)
    os.truncate(path, 0)  # a mapped file would kill the process here (SIGBUS)
    assert all(torch.equal(loaded[name], params[name]) for name in PARAMETERS)
    np.testing.assert_array_equal(past.camtoworlds, snapshot.camtoworlds)
    assert torch.equal(past.weight, snapshot.weight) and torch.equal(past.codec.basis, snapshot.codec.basis)


def test_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch) -> None:
    path = tmp_path / "room.ovs3d"
    save_map(path, *make_map())
    stat_before = os.fstat

    def touch_and_stat(descriptor: int) -> os.stat_result:
        result = stat_before(descriptor)
        os.utime(path, ns=(0, result.st_mtime_ns + 1))
        return result

    monkeypatch.setattr(os, "fstat", touch_and_stat)
    with pytest.raises(UserError, match=r"room\.ovs3d.*changed the file while it was read"):
        load_map(path)


def test_missing_files_and_folders_name_the_remedy(tmp_path) -> None:
    with pytest.raises(UserError, match="no such map"):
        load_map(tmp_path / "none.ovs3d")
    with pytest.raises(UserError, match="is a folder; give a map file"):
        load_map(tmp_path)
    with pytest.raises(UserError, match="create the folder"):
        save_map(tmp_path / "none" / "m.ovs3d", *make_map())
    with pytest.raises(UserError, match="cannot write"):
        save_map(tmp_path, *make_map())
    assert list(tmp_path.iterdir()) == [] and list(tmp_path.parent.glob("*.part")) == []


def test_failed_write_keeps_the_old_map(tmp_path, monkeypatch) -> None:
    path = tmp_path / "room.ovs3d"
    params, snapshot = make_map()
    save_map(path, params, snapshot)
    before = path.read_bytes()

    def full(*_, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, full)
            with pytest.raises(UserError, match="No space left"):
                save_map(path, params, dataclasses.replace(snapshot, version=42))
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["room.ovs3d"]
    save_map(path, params, dataclasses.replace(snapshot, version=42))
    assert load_map(path)[1].version == 42
    assert [p.name for p in tmp_path.iterdir()] == ["room.ovs3d"]
