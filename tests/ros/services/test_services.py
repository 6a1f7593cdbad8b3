"""Services that save, load, export and control the map, called over DDS on a node in its own process.

One node serves the module. Its tests run in order: the last ones reset its map and kill it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")
pytest.importorskip("std_srvs")
interfaces = pytest.importorskip("ovs3d_interfaces.srv")
if not hasattr(interfaces, "SaveMap"):
    pytest.skip(
        "the installed ovs3d_interfaces are older; pip install ./ovs3d_interfaces", allow_module_level=True
    )
pytestmark = [pytest.mark.ros, pytest.mark.slow]

from helpers.ros_env import SPHERES, use_child_environment, wait_until  # noqa: E402
from helpers.ros_session import FRAMES, SETTINGS, Client, Session, documented, start_node, timeless  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402

from ovs3d_interfaces.srv import EncodeText, ExportPly, GetObjects, LoadMap, QueryText, SaveMap  # noqa: E402
from ovs3d_ros.pipeline import Ovs3d  # noqa: E402
from ovs3d_ros.ros import conversions  # noqa: E402
from ovs3d_ros.ros.environment import free_domain_id  # noqa: E402
from ovs3d_ros.ros.outputs.publishers import LATCHED  # noqa: E402

OK, NO_MAP, BAD_REQUEST = QueryText.Response.OK, QueryText.Response.NO_MAP, QueryText.Response.BAD_REQUEST


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Iterator[Session]:
    with pytest.MonkeyPatch.context() as patch:
        use_child_environment(patch)
        folder = tmp_path_factory.mktemp("node")
        patch.setenv("AUDIT_LOG", str(folder / "audit"))
        session = Session(folder, {"clip.model": "helpers.audited_encoder:AuditedEncoder"})
        try:
            session.run()
            yield session
        finally:
            session.close()


def center(item) -> np.ndarray:
    return np.array([item.pose.position.x, item.pose.position.y, item.pose.position.z])


def test_kernels_are_compiled_before_the_node_subscribes(session):
    log = session.node.output()
    assert log.index("warming up") < log.index("warmed up in") < log.index("ready:")


def test_documentation_lists_services_of_running_node(session):
    written = {}
    for names, kinds, _ in documented("service"):
        package = ""
        for name, kind in zip(re.findall(r"\w+", names), re.findall(r"[\w/]+", kinds), strict=True):
            package = kind.partition("/")[0] if "/" in kind else package
            written[f"/ovs3d/{name}"] = f"{package}/srv/{kind.rpartition('/')[2]}"
    offered = dict(session.client.node.get_service_names_and_types_by_node("ovs3d", "/"))
    others = ("rcl_interfaces/", "type_description_interfaces/", "lifecycle_msgs/")
    assert written == {
        name: kinds[0]
        for name, kinds in offered.items()
        if not kinds[0].startswith(others) and "/_action/" not in name
    }


def test_get_objects_returns_the_objects_of_the_query(session):
    answer = session.client.call(GetObjects, "get_objects")
    assert answer.error_code == BAD_REQUEST and "call ~/query first" in answer.error_msg
    query = session.client.query("red ball", "purple elephant", mode=QueryText.Request.RELEVANCY)
    for asked in ([], ["red ball", "purple elephant"]):
        answer = session.client.call(GetObjects, "get_objects", prompts=asked)
        assert (answer.error_code, answer.error_msg) == (OK, "")
        assert (answer.prompts, list(answer.found)) == (["red ball", "purple elephant"], [True, False])
        assert answer.verdict == query.verdict and answer.observed == query.observed
        assert answer.presence == query.presence and answer.map_version == query.map_version
        assert answer.header.frame_id == "map"
        assert timeless(answer.objects) == timeless(query.objects)
    (item,) = answer.objects
    assert np.linalg.norm(center(item) - SPHERES[0][0]) < SPHERES[0][1]
    strict = session.client.call(GetObjects, "get_objects", min_score=min(1.0, item.score + 0.01))
    assert (strict.error_code, len(strict.objects), strict.found) == (OK, 0, answer.found)
    for fields, problem in (
        ({"min_score": float("nan")}, "min_score"),
        ({"prompts": ["a"] * 129}, "129 prompts"),
        ({"prompts": ["x" * 10_000]}, "10000 characters"),
    ):
        answer = session.client.call(GetObjects, "get_objects", **fields)
        assert answer.error_code == BAD_REQUEST and problem in answer.error_msg


def test_question_without_options_uses_the_calibrated_threshold(session):
    usual = session.client.call(QueryText, "query", **yaml.safe_load("{prompts: ['red ball']}"))
    calibrated = session.client.query("red ball", threshold=-1.0)
    everything = session.client.query("red ball", threshold=0.0)
    assert usual.error_code == OK and timeless(usual.objects) == timeless(calibrated.objects)
    assert usual.cloud.width == calibrated.cloud.width < everything.cloud.width
    assert usual.masks and usual.header.frame_id == "map"


def test_prompt_may_say_where_the_thing_is(session):
    answer = session.client.query("red ball next to the blue ball", "red ball on the blue ball")
    assert list(answer.found) == [True, False] and answer.presence[1] == 0
    plain = session.client.query("red ball").objects[0]
    (item,) = answer.objects
    assert item.label == "red ball next to the blue ball" and item.pose == plain.pose
    labels = conversions.from_cloud(answer.cloud)["label"]
    assert set(labels.tolist()) <= {0, 1} and (labels == 1).sum() > 20


def test_cloud_and_masks_are_left_out_on_request(session):
    full = session.client.query("red ball")
    brief = session.client.query("red ball", cloud=False, masks=False)
    assert full.cloud.width and full.masks
    assert not brief.cloud.width and not len(brief.cloud.data) and not brief.masks
    assert timeless(brief.objects) == timeless(full.objects)
    assert (brief.keyframe_stamp, brief.found) == (full.keyframe_stamp, full.found)


def test_text_embeddings_are_unit_vectors_of_the_map_encoder(session):
    answer = session.client.call(EncodeText, "encode_text", prompts=["red ball", "blue ball", "red cup"])
    assert (answer.error_code, answer.encoder, answer.dim) == (OK, "tests/colors", 16)
    vectors = np.array(answer.embeddings).reshape(3, answer.dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert vectors[0] @ vectors[2] == pytest.approx(1.0, abs=1e-5) and abs(vectors[0] @ vectors[1]) < 1e-5
    for prompts, problem in (([], "no prompt"), (["a", ""], "empty"), (["a"] * 129, "129 prompts")):
        answer = session.client.call(EncodeText, "encode_text", prompts=prompts)
        assert answer.error_code == BAD_REQUEST and problem in answer.error_msg and not answer.embeddings


def test_saved_map_answers_outside_the_node(session):
    answer = session.client.call(SaveMap, "save_map", name="room.ovs3d")
    assert (answer.error_code, answer.error_msg) == (OK, "")
    path = session.maps / "room.ovs3d"
    assert answer.path == str(path) and answer.num_bytes == path.stat().st_size
    restored = Ovs3d.load(path)
    assert restored.stats["num_gaussians"] == answer.num_gaussians > 500
    result = restored.query(["red ball", "purple elephant"])
    assert list(result.found) == [True, False]
    assert np.linalg.norm(result.objects[0].center - SPHERES[0][0]) < SPHERES[0][1]


def test_existing_files_are_overwritten_only_on_request(session):
    path = session.maps / "room.ovs3d"
    before = path.read_bytes()
    answer = session.client.call(SaveMap, "save_map", name="room.ovs3d")
    assert answer.error_code == BAD_REQUEST and "set overwrite" in answer.error_msg
    assert path.read_bytes() == before
    answer = session.client.call(SaveMap, "save_map", name="room.ovs3d", overwrite=True)
    assert answer.error_code == OK and answer.map_version > 0
    assert sorted(p.name for p in session.maps.iterdir()) == ["room.ovs3d"]


def test_exported_ply_has_the_gaussians_of_the_map(session):
    answer = session.client.call(ExportPly, "export_ply", name="room.ply")
    assert (answer.error_code, answer.error_msg) == (OK, "")
    head = (session.maps / "room.ply").read_bytes()[:200]
    assert (
        head.startswith(b"ply\nformat binary_little_endian") and b"vertex %d\n" % answer.num_gaussians in head
    )
    again = session.client.call(ExportPly, "export_ply", name="room.ply")
    assert again.error_code == BAD_REQUEST and "exists" in again.error_msg
    assert sorted(p.name for p in session.maps.iterdir()) == ["room.ovs3d", "room.ply"]


@pytest.mark.parametrize(
    "name",
    [
        "../out{s}",
        "{folder}/out{s}",
        "a/../../out{s}",
        "link{s}",
        "",
        "out",
        "~/out{s}",
        "../outside{s}",
        "{folder}/outside{s}",
        "maps/../../outside{s}",
        "..",
        "/",
        "a\\..\\out{s}",
        ".hidden{s}",
        "x" * 300 + "{s}",
    ],
)
def test_no_file_outside_map_directory_is_opened(session, name):
    opened = session.folder / f"audit.{session.node.child.pid}"
    for kind, service, suffix in (
        (SaveMap, "save_map", ".ovs3d"),
        (ExportPly, "export_ply", ".ply"),
        (LoadMap, "load_map", ".ovs3d"),
    ):
        outside = session.folder / f"outside{suffix}"
        outside.write_text("not yours")
        link = session.maps / f"link{suffix}"
        if not link.is_symlink():
            os.symlink(outside, link)
        fields = {} if kind is LoadMap else {"overwrite": True}
        answer = session.client.call(
            kind, service, name=name.format(s=suffix, folder=session.folder), **fields
        )
        assert answer.error_code == BAD_REQUEST and answer.error_msg and "\n" not in answer.error_msg
        assert outside.read_text() == "not yours"
        link.unlink()
    touched = [line.partition(" ")[2] for line in opened.read_text().splitlines()]
    assert str(session.maps) in "".join(touched), "the audit log is empty"
    strange = [
        t
        for t in touched
        if ("out" in Path(t).name or "link" in Path(t).name or "hidden" in Path(t).name)
        and Path(t).suffix in (".ovs3d", ".ply")
    ]
    assert not strange and not list(session.folder.glob("out.*")) and "Traceback" not in session.node.output()


def test_load_refuses_unusable_map_and_keeps_current(session):
    (session.maps / "broken.ovs3d").write_bytes((session.maps / "room.ovs3d").read_bytes()[:5000])
    other = Ovs3d.load(session.maps / "room.ovs3d", {"input.world_frame": "elsewhere"})
    other.save(session.maps / "elsewhere.ovs3d")
    other.clip.name = "tests/another"
    other.configure(Ovs3d.load(session.maps / "room.ovs3d").config)
    other.save(session.maps / "another.ovs3d")
    for name, problem in (
        ("nothing.ovs3d", "no such file"),
        ("broken.ovs3d", "truncated or damaged"),
        ("elsewhere.ovs3d", "frame 'elsewhere'"),
        ("another.ovs3d", "encoder tests/another"),
    ):
        answer = session.client.call(LoadMap, "load_map", name=name)
        assert answer.error_code == BAD_REQUEST and problem in answer.error_msg
        (session.maps / name).unlink(missing_ok=True)
    assert session.client.query("red ball").found == [True]


def test_ingest_can_be_switched_off_and_on(session):
    received = int(session.client.value(": mapping", "frames_received"))
    keyframes = session.client.value(": mapping", "keyframes")
    answer = session.client.call(SetBool, "set_ingest", data=False)
    assert answer.success and "ignored" in answer.message
    session.play("--rate", "8")
    session.settle(received + FRAMES)
    assert session.client.value(": mapping", "frames_ignored") == FRAMES
    assert session.client.value(": mapping", "keyframes") == keyframes
    assert "ingest off" in session.client.diagnostic(": mapping")[0]
    assert session.client.call(SetBool, "set_ingest", data=True).success
    wait_until(lambda: "ingest off" not in session.client.diagnostic(": mapping")[0], 10)


def test_training_can_be_switched_off_and_on(session):
    received, steps = (int(session.client.value(": mapping", k)) for k in ("frames_received", "steps"))
    assert session.client.call(SetBool, "set_training", data=False).success
    session.play("--rate", "4")
    session.settle(received + FRAMES)
    assert session.client.value(": mapping", "steps") == steps
    assert session.client.call(SetBool, "set_training", data=True).success
    wait_until(lambda: session.client.value(": mapping", "steps") > steps, 30)
    session.settle(received + FRAMES)


def test_reset_empties_map_and_topics_and_load_restores_them(session):
    before = session.client.query("red ball", "purple elephant")
    answer = session.client.call(Trigger, "reset")
    assert answer.success, answer.message
    assert session.client.query("red ball").error_code == NO_MAP
    assert session.client.call(SaveMap, "save_map", name="empty.ovs3d").error_code == NO_MAP
    assert not (session.maps / "empty.ovs3d").exists()
    for topic in ("map_cloud", "query_cloud"):
        assert session.client.receive(f"/ovs3d/{topic}", conversions.PointCloud2, LATCHED).width == 0
    answer = session.client.call(LoadMap, "load_map", name="room.ovs3d")
    assert (answer.error_code, answer.error_msg) == (OK, "")
    assert (
        answer.num_gaussians > 500 and answer.num_keyframes >= 4 and answer.map_version > before.map_version
    )
    after = session.client.query("red ball", "purple elephant")
    assert list(after.found) == [True, False] and after.map_version >= answer.map_version
    wait_until(lambda: session.client.newest["/ovs3d/map_cloud"].width > 500, 20)


def test_loaded_map_can_be_extended(session):
    received = int(session.client.value(": mapping", "frames_received"))
    version = session.client.query("red ball").map_version
    session.play("--rate", "4")
    session.settle(received + FRAMES)
    answer = session.client.query("red ball", "blue ball")
    assert list(answer.found) == [True, True] and answer.map_version > version


def test_saved_map_answers_as_before_after_kill(session):
    session.client.call(SaveMap, "save_map", name="last.ovs3d")
    before = session.client.call(GetObjects, "get_objects", prompts=["red ball", "blue ball"])
    session.restart()
    assert session.client.query("red ball").error_code == NO_MAP
    assert session.client.call(LoadMap, "load_map", name="last.ovs3d").error_code == OK
    after = session.client.call(GetObjects, "get_objects", prompts=["red ball", "blue ball"])
    assert (after.error_code, after.found) == (OK, before.found)
    np.testing.assert_allclose(after.presence, before.presence, atol=1e-3)
    assert [o.label for o in after.objects] == [o.label for o in before.objects]
    for item, old in zip(after.objects, before.objects, strict=True):
        np.testing.assert_allclose(center(item), center(old), atol=2e-3)
        assert item.num_gaussians == old.num_gaussians


def test_unwritable_map_directory_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    domain_id = free_domain_id()
    node = start_node(
        {**SETTINGS, "map.directory": tmp_path / "file" / "maps"}, domain_id, tmp_path / "node.log"
    )
    client = Client(domain_id)
    try:
        node.wait_for("ready", 120)
        answer = client.call(SaveMap, "save_map", name="a.ovs3d")
        assert answer.error_code == BAD_REQUEST and "map.directory" in answer.error_msg
    finally:
        client.close()
        node.stop()
