"""The main job, end to end through the command line: what stands after a retrain, and after the next ones."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import workspaces
from PIL import Image
from workspaces import UNSEEN, Place

from ayeaye.core.workspace import Workspace
from ayeaye.release.promotion import record_of

pytestmark = pytest.mark.slow
HEADLINE = {"T1", "U", "S", "H", "AUSUC", "seen_bias"}
STAGES = ("classes", "embed", "train", "evaluate")


def ran(done_err: str) -> list[str]:
    """The stages that a retrain really ran, by what it said."""
    return [name for name in STAGES if f"Stage {name} done" in done_err]


def tags(place: Place, version: int) -> dict[str, str]:
    return dict(registry(place).version(version).tags)


def registry(place: Place) -> Any:
    from ayeaye.release.promotion import registry_of

    return registry_of(Workspace(place.root))


def stopping_after(calls: int, function: Callable[..., None]) -> Callable[..., None]:
    """The function, interrupted when it has done its work so many times."""
    done: list[int] = []

    def stopping(*arguments: Any) -> None:
        function(*arguments)
        done.append(1)
        if len(done) == calls:
            raise KeyboardInterrupt

    return stopping


def one_line(done: workspaces.Done) -> str:
    """The error a command ended with, after it was seen to be short and no traceback."""
    fault = done.err[done.err.index("error: ") :].strip()
    assert len(fault.splitlines()) <= 2
    assert "Traceback" not in done.err
    return fault


class TestARetrainedWorkspace:
    def test_holds_a_checked_dataset_of_every_picture(self, trained: Place) -> None:
        dataset = trained.root / "data" / "dataset"
        manifest = pd.read_parquet(dataset / "manifest.parquet")
        assert len(manifest) == len(list(trained.source.glob("images/*/*"))) == manifest["id"].nunique()
        assert set(manifest["split"]) == {"train", "validation", "test_seen", "test_unseen"}
        assert set(manifest.loc[manifest["split"] == "test_unseen", "label"]) == set(UNSEEN)
        shards = {f"{name}.parquet" for name in manifest["shard"]}
        assert shards == {path.name for path in (dataset / "shards").iterdir()}

    def test_has_data_docs_of_its_checks(self, trained: Place) -> None:
        pages = list((trained.root / "checks").rglob("index.html"))
        assert pages
        validations = list((trained.root / "checks").rglob("validations/**/*.html"))
        assert len(validations) >= 3  # the manifest and class table, the embeddings, the class space

    def test_has_an_embedding_of_every_picture(self, trained: Place) -> None:
        shards = list((trained.root / "data" / "embeddings").glob("*.npy"))
        assert sum(len(np.load(path)) for path in shards) == len(list(trained.source.glob("images/*/*")))

    def test_has_a_class_space_of_every_class(self, trained: Place) -> None:
        from ayeaye.class_vectors.space import ClassSpace

        space = ClassSpace.load(trained.root / "data" / "class_space")
        assert sorted(space.names) == sorted(workspaces.paints())

    def test_has_a_bundle_without_pickles(self, trained: Place) -> None:
        found = {path.name for path in bundle_files(trained)}
        assert found >= {"bundle.json", "mapper.safetensors", "backbone.safetensors"}
        assert {Path(name).suffix for name in found} == {".json", ".onnx", ".safetensors", ".parquet"}

    def test_has_figures_under_the_promised_keys(self, trained: Place) -> None:
        figures = trained.read("reports/metrics.json")
        assert figures.keys() >= HEADLINE
        assert all(0 <= figures[name] <= 1 for name in HEADLINE - {"seen_bias"})
        assert figures["estimated_on"] == "unseen classes"
        assert figures["T1"] > 2 / len(UNSEEN)  # far from chance, as colours are easy
        none_of_these = figures["none_of_these"]
        assert none_of_these["false_accept"] == 0.5
        assert none_of_these["accepted"].keys() == {"unknown", "seen", "unseen"}
        assert all(0 <= share <= 1 for share in none_of_these["accepted"].values())

    def test_has_a_report_that_needs_no_other_file(self, trained: Place) -> None:
        page = (trained.root / "reports" / "index.html").read_text(encoding="utf-8")
        sources = re.findall(r"""(?:\bsrc|<link[^>]*\bhref)\s*=\s*["']([^"']*)""", page)
        assert sources
        assert all(source.startswith("data:") for source in sources)
        assert not re.search(r"url\(\s*['\"]?https?:|@import", page)

    def test_is_in_mlflow_with_all_that_belongs_to_a_run(self, trained: Place) -> None:
        from mlflow import MlflowClient

        database = trained.root / ".ayeaye" / "mlflow" / "mlflow.db"
        client = MlflowClient(f"sqlite:///{database}")
        run = client.get_run(trained.status["champion"]["run_id"])
        assert run.info.status == "FINISHED"
        assert run.data.params["train.select"] == "auto"
        assert run.data.params["prepare.source"] == "folder"
        assert run.data.metrics.keys() >= HEADLINE
        dataset = run.inputs.dataset_inputs[0].dataset
        assert json.loads(dataset.source)["digest"] == self.data_digest(trained)
        artifacts = {each.path for each in client.list_artifacts(run.info.run_id)}
        assert artifacts >= {"index.html", "metrics.json", "plots", "predictions.parquet", "model"}
        drawn = {Path(each.path).name for each in client.list_artifacts(run.info.run_id, "plots")}
        assert drawn == {path.name for path in (trained.root / "reports" / "plots").iterdir()}
        assert drawn >= {"common_space.png", "seen_unseen_curve.png", "hubness.png", "reliability.png"}
        bundle = {Path(each.path).name for each in client.list_artifacts(run.info.run_id, "model/bundle")}
        assert bundle == {path.name for path in (trained.root / "models" / "classifier").iterdir()}

    def test_is_registered_as_champion_with_its_origins_as_tags(self, trained: Place) -> None:
        version = registry(trained).alias("champion")
        assert version.number == 1
        assert version.tags["data_digest"] == self.data_digest(trained)
        assert version.tags["git_commit"] == self.git(trained, "rev-parse", "HEAD")
        assert version.tags["params_digest"] == Workspace(trained.root).params.digest()
        assert version.tags["gate"] == "passed"

    def test_has_a_decision_a_bento_and_a_promotion_on_record(self, trained: Place) -> None:
        decision = trained.read("release/decision.json")
        assert decision["verdict"] == "promoted"
        assert decision["version"] == 1
        entry = record_of(Workspace(trained.root)).state().entry
        assert entry is not None
        assert (entry.action, entry.from_, entry.to) == ("promote", None, 1)
        name, _, tag = entry.digests["bento"].partition(":")
        packed = trained.root / ".ayeaye" / "bentoml" / "bentos" / name / tag / "src"
        assert (packed / "bundle" / "bundle.json").is_file()
        assert (packed / "ayeaye" / "classifier" / "model.py").is_file()

    def test_is_committed_with_what_makes_it_again(self, trained: Place) -> None:
        files = self.git(trained, "ls-tree", "-r", "--name-only", "HEAD").splitlines()
        assert {"params.yaml", "dvc.yaml", "dvc.lock", "data/dataset.dvc"} <= set(files)
        assert not [name for name in files if name.endswith((".parquet", ".safetensors", ".npy"))]
        assert self.git(trained, "status", "--porcelain") == ""

    def test_has_its_dataset_in_the_dvc_remote(self, trained: Place) -> None:
        digest = self.data_digest(trained)
        remote = trained.root / ".ayeaye" / "remote" / "files" / "md5"
        listing = json.loads((remote / digest[:2] / digest[2:]).read_bytes())
        files = [path for path in (trained.root / "data" / "dataset").rglob("*") if path.is_file()]
        assert len(listing) == len(files)
        assert all((remote / each["md5"][:2] / each["md5"][2:]).is_file() for each in listing)

    def test_says_what_it_did(self, trained: Place) -> None:
        outcome = json.loads((trained.root.parent / "outcome.json").read_text())
        assert outcome["outcome"] == "promoted"
        assert outcome["version"] == outcome["champion"] == 1
        assert outcome["decision"]["verdict"] == "promoted"

    @staticmethod
    def data_digest(place: Place) -> str:
        found = re.search(r"md5: (\S+)", (place.root / "data" / "dataset.dvc").read_text())
        assert found
        return found[1]

    @staticmethod
    def git(place: Place, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=place.root, capture_output=True, text=True, check=True)
        return done.stdout.strip()


class TestTheCommands:
    def test_status_gives_champion_previous_and_candidates(self, trained: Place) -> None:
        status = trained.status
        assert status.keys() >= {"champion", "previous", "candidates"}
        champion = status["champion"]
        assert champion.keys() >= {"version", "run_id", "bento", "data_digest", "metrics"}
        assert champion["version"] == 1
        assert champion["bento"].startswith("ayeaye:v1-")
        assert champion["metrics"].keys() >= HEADLINE
        assert champion["metrics"]["T1"] == pytest.approx(trained.read("reports/metrics.json")["T1"])
        assert (status["previous"], status["candidates"]) == (None, [])
        assert status["agrees"] is True

    def test_classify_names_a_class_that_no_training_picture_showed(self, trained: Place) -> None:
        done = trained("classify", "--json", trained.source / "images" / "paint 210" / "000.png")
        assert done.code == 0, done.err
        assert_answer(done.json, version=1)
        assert (done.json["label"], done.json["seen"]) == ("paint 210", False)

    def test_explain_says_what_spoke_for_the_label(self, trained: Place) -> None:
        picture = trained.source / "images" / "paint 210" / "000.png"
        done = trained("explain", "--json", picture)
        assert done.code == 0, done.err
        explained = done.json
        assert (explained["label"], explained["seen"]) == ("paint 210", False)
        assert explained["model"] == trained("classify", "--json", picture).json["model"]
        counted = sum(part["contribution"] for part in explained["parts"])
        others = explained["hub_correction"] + explained["seen_offset"]
        assert counted + others == pytest.approx(explained["difference"], abs=1e-4)
        assert explained["sentence"].startswith(f"paint 210 rather than {explained['against']}: ")
        shown = trained("explain", picture, "--against", "paint 000")
        assert "(never seen, only described) rather than paint 000" in shown.out
        assert "difference of the scores" in shown.out

    def test_explain_refuses_what_it_cannot_compare_or_read(self, trained: Place, tmp_path: Path) -> None:
        picture = trained.source / "images" / "paint 210" / "000.png"
        assert "no class paint 21: did you mean paint 2" in one_line(
            trained("explain", picture, "--label", "paint 21")
        )
        assert "nothing.png: No such file" in one_line(trained("explain", tmp_path / "nothing.png"))

    def test_classify_gives_a_broken_picture_an_error_of_its_own(
        self, trained: Place, tmp_path: Path
    ) -> None:
        (tmp_path / "broken.png").write_bytes(b"not a picture")
        good = trained.source / "images" / "paint 000" / "000.png"
        done = trained("classify", "--json", tmp_path / "broken.png", good)
        assert done.code == 1
        assert done.json[0].keys() == {"image", "error"}
        assert_answer(done.json[1], version=1)

    def test_label_goes_on_where_an_interrupted_call_stopped(
        self, trained: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from ayeaye.release import champion

        monkeypatch.setattr(champion, "BATCH", 3)
        folder, other, out = tmp_path / "unlabelled", tmp_path / "other", tmp_path / "labels.csv"
        for name in ("paint 210", "paint 000"):
            workspaces.add_pictures(folder, name, range(50, 53))
        (folder / "broken.jpg").write_bytes(b"")
        command = ("label", folder, "--out", out, "--json")
        first = trained(*command)
        assert first.code == 0, first.err
        assert (first.json["labelled_now"], first.json["failed"]) == (6, 1)
        labels = pd.read_csv(out).set_index("image")
        assert labels.loc["broken.jpg", "error"]
        assert labels.loc[labels["error"].isna(), "label"].notna().all()

        out.unlink()
        with monkeypatch.context() as patched:
            patched.setattr(champion, "_keep", stopping_after(2, champion._keep))
            assert trained(*command).code == 130
        assert not out.exists()
        # A file that was replaced since is looked at again, and one that came first keeps nothing from counting.
        workspaces.add_pictures(folder, "paint 000", range(49, 51))
        second = trained(*command)
        assert second.code == 0, second.err
        assert second.json["labelled_now"] == 7 - 6 + 2
        again = pd.read_csv(out).set_index("image").drop("images/paint 000/049.png")
        # Pictures in a batch of another size differ in the last digits.
        pd.testing.assert_frame_equal(again, labels, atol=1e-5)

        # Another folder's pictures of the same names, labelled to the same file, get nothing of the first's.
        out.unlink()
        for name, content in (("paint 210", "paint 000"), ("paint 000", "paint 210")):
            for number in range(50, 53):
                (other / "images" / name).mkdir(parents=True, exist_ok=True)
                (other / "images" / name / f"{number:03d}.png").write_bytes(workspaces.paint(content, number))
        with monkeypatch.context() as patched:
            patched.setattr(champion, "_keep", stopping_after(2, champion._keep))
            assert trained(*command).code == 130
        third = trained("label", other, "--out", out, "--json")
        assert (third.json["pictures"], third.json["labelled_now"]) == (6, 6)
        swapped = pd.read_csv(out).set_index("image")
        assert len(swapped) == 6
        assert (
            swapped.loc["images/paint 210/050.png", "label"]
            == labels.loc["images/paint 000/050.png", "label"]
        )
        assert {path.name for path in tmp_path.iterdir()} == {"unlabelled", "other", "labels.csv"}

    def test_label_follows_links_tells_what_it_cannot_read_and_counts_what_it_leaves_out(
        self, trained: Place, tmp_path: Path
    ) -> None:
        folder, elsewhere, out = tmp_path / "unlabelled", tmp_path / "elsewhere", tmp_path / "labels.csv"
        folder.mkdir()
        workspaces.add_pictures(elsewhere, "paint 210", range(50, 52))
        (folder / "linked").symlink_to(elsewhere)
        (folder / "again").symlink_to(elsewhere)
        (folder / "broken.JPG").symlink_to(tmp_path / "nowhere.jpg")
        (folder / "unmounted").symlink_to(tmp_path / "no such disk")
        (folder / "notes.txt").write_text("seen at dusk")
        os.mkfifo(folder / "pipe.png")
        Image.new("L", (60_000, 2)).save(folder / "line.png")
        done = trained("label", folder, "--out", out, "--json")
        assert done.code == 0, done.err
        assert (done.json["pictures"], done.json["failed"], done.json["other_files"]) == (7, 5, 1)
        errors = pd.read_csv(out, keep_default_na=False).set_index("image")["error"]
        assert [name for name in errors.index if not errors[name]] == [
            f"again/images/paint 210/{number:03d}.png" for number in (50, 51)
        ]
        assert "read already" in errors["linked"] and "a pipe" in errors["pipe.png"]
        assert "is not there" in errors["broken.JPG"] and "is not there" in errors["unmounted"]
        assert "60000 by 2 pixels: too narrow to be looked at" in errors["line.png"]

    def test_label_lets_pictures_help_each_other_and_goes_on_after_a_kill(
        self, trained: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from ayeaye.release import champion

        folder, out = tmp_path / "unlabelled", tmp_path / "labels.csv"
        for name in ("paint 210", "paint 000"):
            workspaces.add_pictures(folder, name, range(50, 54))
        (folder / "broken.jpg").write_bytes(b"")
        command = ("label", folder, "--out", out, "--labelling", "propagation", "--json")
        monkeypatch.setattr(champion, "BATCH", 4)
        first = trained(*command)
        assert first.code == 0, first.err
        assert (first.json["labelled_now"], first.json["failed"]) == (8, 1)
        whole = out.read_text(encoding="utf-8")
        labels = pd.read_csv(out, keep_default_na=False)
        assert labels["image"].is_monotonic_increasing
        assert (labels["error"] != "").tolist() == (labels["image"] == "broken.jpg").tolist()
        assert {path.name for path in tmp_path.iterdir()} == {"unlabelled", "labels.csv"}

        # Stopped after the second chunk: two chunks of embeddings are there, and no CSV.
        out.unlink()
        with monkeypatch.context() as patched:
            patched.setattr(champion, "_keep", stopping_after(2, champion._keep))
            assert trained(*command).code == 130
        assert not out.exists()
        second = trained(*command)
        assert second.code == 0, second.err
        assert second.json["labelled_now"] == 1
        assert out.read_text(encoding="utf-8") == whole

    def test_a_picture_of_an_unknown_class_is_said_to_be_of_none(self, copied: Place) -> None:
        """With a threshold above every confidence no picture is of a known class; the label stays."""
        bento = copied.status["champion"]["bento"].replace(":", "/")
        described = copied.root / ".ayeaye" / "bentoml" / "bentos" / bento / "src/bundle/bundle.json"
        content = json.loads(described.read_bytes())
        assert 0 < content["threshold"] < 1
        described.write_text(json.dumps({**content, "threshold": 1.01}))
        path = copied.source / "images" / "paint 210" / "000.png"
        assert copied("classify", "--json", path).json["known"] is False
        said = copied("classify", path).out
        assert "none of the classes" in said
        assert "paint 210" in said


class TestTheServedBento:
    def test_labels_a_picture_of_an_unseen_class(self, service: str) -> None:
        answer = self.post(service, workspaces.paint("paint 210", 77))
        assert answer.status_code == 200, answer.text
        assert_answer(answer.json(), version=1)
        assert (answer.json()["label"], answer.json()["seen"]) == ("paint 210", False)

    def test_answers_as_classify_does(self, service: str, trained: Place) -> None:
        path = trained.source / "images" / "paint 201" / "003.png"
        offline = trained("classify", "--json", path).json
        served = self.post(service, path.read_bytes()).json()
        assert served["label"] == offline["label"]
        assert served["model"] == offline["model"]
        assert served["confidence"] == pytest.approx(offline["confidence"], abs=1e-4)

    @pytest.mark.parametrize(
        ("content", "status"),
        [
            pytest.param(b"\xff\xd8\xff\xe0 not a picture", 400, id="broken"),
            pytest.param(b"", 400, id="empty"),
            pytest.param(bytes(20_000_001), 413, id="oversized"),
        ],
    )
    def test_answers_a_bad_upload_with_a_reason(self, service: str, content: bytes, status: int) -> None:
        answer = self.post(service, content)
        assert answer.status_code == status
        assert answer.json()["error"]

    def test_refuses_a_picture_with_too_many_pixels(self, service: str) -> None:
        content = io.BytesIO()
        Image.new("1", (20_000, 20_000)).save(content, "PNG")
        answer = self.post(service, content.getvalue())
        assert 400 <= answer.status_code < 500
        assert "pixels" in answer.json()["error"]

    def test_refuses_text_and_fetches_no_address(self, service: str) -> None:
        address = f"{service}/livez"
        answer = httpx.post(f"{service}/classify", data={"image": address}, timeout=30)
        assert 400 <= answer.status_code < 500
        answer = httpx.post(f"{service}/classify", files={"image": (None, address)}, timeout=30)
        assert 400 <= answer.status_code < 500
        assert answer.json()["error"]

    def test_says_what_it_serves(self, service: str, trained: Place) -> None:
        about = httpx.get(f"{service}/model", timeout=30).json()
        champion = trained.status["champion"]
        assert (about["version"], about["bento"]) == (1, champion["bento"])
        assert about["bundle_digest"] == champion["bundle_digest"]
        assert about["classes"] == {"seen": len(workspaces.paints()) - len(UNSEEN), "unseen": len(UNSEEN)}

    def test_has_pictures_to_show_and_to_try(self, service: str, trained: Place) -> None:
        samples = httpx.get(f"{service}/samples", timeout=30).json()["samples"]
        shown = [each["label"] for each in samples if each["use"] == "class"]
        assert set(shown) == set(workspaces.paints()) - set(UNSEEN)
        assert max(map(shown.count, shown)) == 3
        assert {each["label"] for each in samples if each["use"] == "try"} & set(UNSEEN)
        assert "<title>ayeaye</title>" in httpx.get(f"{service}/", timeout=30).text

    @staticmethod
    def post(service: str, content: bytes) -> httpx.Response:
        return httpx.post(f"{service}/classify", files={"image": ("picture", content)}, timeout=60)


class TestTheNextRetrain:
    def test_with_nothing_changed_does_nothing(self, trained: Place) -> None:
        before = trained.status
        commit = TestARetrainedWorkspace.git(trained, "rev-parse", "HEAD")
        done = trained("retrain", "--json")
        assert done.code == 0, done.err
        assert done.json["outcome"] == "unchanged"
        assert ran(done.err) == []
        assert trained.status == before
        assert TestARetrainedWorkspace.git(trained, "rev-parse", "HEAD") == commit

    def test_embeds_only_new_photographs(self, copied: Place) -> None:
        before = cached_embeddings(copied)
        for name in list(workspaces.paints())[:5]:
            workspaces.add_pictures(copied.source, name, [100])
        outcome = copied.retrain()
        assert (outcome["outcome"], outcome["version"]) == ("promoted", 2)
        after = cached_embeddings(copied)
        assert {path: after[path] for path in before} == before  # not one was written again
        new = [np.load(path) for path in after if path not in before]
        assert sum(len(shard) for shard in new) == 5
        assert copied.status["champion"]["data_digest"] != copied.status["previous"]["data_digest"]

    def test_that_is_refused_ends_with_3_each_time_and_changes_no_champion(self, copied: Place) -> None:
        copied.set("train.folds=4", "release.minimum={T1: 1.0, S: 1.01}")
        for attempt in range(2):
            done = copied("retrain", "--json")
            assert done.code == 3, done.err
            assert done.json["outcome"] == "refused"
            assert done.json["champion"] == 1
            assert ran(done.err) == ([] if attempt else ["train", "evaluate"])
        status = copied.status
        assert status["champion"]["version"] == 1
        (candidate,) = status["candidates"]
        assert (candidate["version"], candidate["gate"], candidate["aliases"]) == (2, "refused", [])
        assert "S: " in tags(copied, 2)["reasons"]
        assert copied.read("release/decision.json")["verdict"] == "refused"
        entries = record_of(Workspace(copied.root)).entries()
        assert [(entry.action, entry.to) for entry in entries] == [("promote", 1), ("refuse", 2)]
        refused = copied("promote", 2)
        assert refused.code == 1
        assert "did not pass the gate" in one_line(refused)

    def test_of_two_at_once_lets_one_make_the_version(self, copied: Place) -> None:
        copied.set("train.folds=4")

        def retrain(_: int) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [workspaces.PROGRAM, "retrain", "--json", "--workspace", str(copied.root)],
                env={**os.environ, **copied.environment},
                capture_output=True,
                text=True,
            )

        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(retrain, range(2)))
        assert [done.returncode for done in both] == [0, 0], "\n".join(done.stderr for done in both)
        assert sorted(json.loads(done.stdout)["outcome"] for done in both) == ["promoted", "unchanged"]
        status = copied.status
        assert status["champion"]["version"] == 2
        assert [each["version"] for each in status["candidates"]] == [1]


class TestAChangedParameter:
    def test_makes_a_new_version_that_remembers_the_one_before(self, twice: Place) -> None:
        status = twice.status
        assert (status["champion"]["version"], status["previous"]["version"]) == (2, 1)
        assert status["champion"]["bundle_digest"] != status["previous"]["bundle_digest"]
        assert status["champion"]["data_digest"] == status["previous"]["data_digest"]
        assert status["champion"]["aliases"] == ["champion"]
        assert registry(twice).alias("previous").number == 1
        decision = twice.read("release/decision.json")
        assert decision["champion"] == 1
        assert {check["name"] for check in decision["checks"]} >= {"loss of T1", "loss of H"}

    def test_can_be_rolled_back_and_stays_so(self, twice: Place, tmp_path: Path) -> None:
        place = twice.copy(tmp_path)
        done = place("rollback", "--reason", "complaints", "--json")
        assert done.code == 0, done.err
        assert (done.json["champion"], done.json["before"]) == (1, 2)
        assert place.status["champion"]["version"] == registry(place).alias("champion").number == 1
        outcome = place.retrain()
        assert (outcome["outcome"], outcome["champion"]) == ("unchanged", 1)
        assert "rolled back" in outcome["message"]
        done = place("promote", 2, "--json")
        assert done.code == 0, done.err
        assert place.status["champion"]["version"] == 2
        entries = record_of(Workspace(place.root)).entries()
        assert [(entry.action, entry.to) for entry in entries] == [
            ("promote", 1), ("promote", 2), ("rollback", 1), ("promote", 2),
        ]  # fmt: skip
        assert entries[2].why == ("complaints",)

    def test_asked_for_by_a_dry_run_changes_nothing(self, twice: Place) -> None:
        before = twice.status
        assert twice("rollback", "--dry-run", "--json").code == 0
        assert twice("promote", 1, "--dry-run", "--json").code == 0
        assert twice.status == before

    def test_of_an_unknown_version_is_an_error_that_names_the_known(self, twice: Place) -> None:
        done = twice("promote", 7)
        assert done.code == 1
        assert "no version 7" in one_line(done)


class TestOtherSources:
    def test_features_become_a_champion_by_the_default_thresholds(
        self, environment: Mapping[str, str], tmp_path: Path
    ) -> None:
        source = workspaces.write_features(tmp_path / "features.npz")
        place = workspaces.make(tmp_path / "workspace", source, environment, *FEATURES)
        outcome = place.retrain()
        assert outcome["outcome"] == "promoted"
        names = {check["name"] for check in outcome["decision"]["checks"]}
        assert names >= {"T1_above_chance", "H", "AUSUC", "seen_bias", "hubness_excess", "class_space_p"}
        assert place.read("reports/metrics.json")["T1"] > 0.5

    def test_shuffled_descriptions_are_refused_by_the_default_thresholds(
        self, environment: Mapping[str, str], tmp_path: Path
    ) -> None:
        source = workspaces.write_features(tmp_path / "features.npz", shuffled=True)
        place = workspaces.make(tmp_path / "workspace", source, environment, *FEATURES)
        outcome = place.retrain(expect=3)
        assert outcome["champion"] is None
        assert "class_space_p" in tags(place, 1)["reasons"]
        assert place("serve").code == 1

    def test_unseen_classes_without_photographs_are_judged_on_class_folds(
        self, environment: Mapping[str, str], small: tuple[str, ...], tmp_path: Path
    ) -> None:
        seen = [name for name in workspaces.paints() if name not in UNSEEN]
        source = workspaces.write_paints(tmp_path / "paints", photographed=seen)
        place = workspaces.make(tmp_path / "workspace", source, environment, *small)
        assert place.retrain()["outcome"] == "promoted"
        figures = place.read("reports/metrics.json")
        assert figures["estimated_on"] == "class folds"
        assert figures.keys() >= HEADLINE
        assert place.read("release/decision.json")["estimated_on"] == "class folds"
        assert place.status["champion"]["estimated_on"] == "class folds"
        assert "The unseen classes have no pictures" in (place.root / "reports" / "index.html").read_text()
        assert "Not measured on real unseen classes" in place("card").out
        picture = tmp_path / "unseen.png"
        picture.write_bytes(workspaces.paint("paint 210", 0))
        assert place("classify", "--json", picture).json["label"] == "paint 210"


@pytest.mark.soak
class TestAFreshWorkspaceOfTheSameData:
    """One workspace: trained while MLflow cannot be reached, finished when it can.

    In short: test_upkeep makes a version again, bit by bit, and test_bad_input has an MLflow server that is away.
    """

    def test_gives_the_same_bundle_and_loses_no_training_without_mlflow(
        self, trained: Place, small: tuple[str, ...], tmp_path: Path
    ) -> None:
        away = "release.tracking=http://127.0.0.1:9"
        place = workspaces.make(tmp_path / "elsewhere", trained.source, trained.environment, *small, away)
        done = place("retrain")
        assert done.code == 1
        assert ran(done.err) == list(STAGES)
        assert "MLflow cannot be reached at http://127.0.0.1:9" in one_line(done)

        place.set("release.tracking=")
        done = place("retrain", "--json")
        assert done.code == 0, done.err
        assert done.json["outcome"] == "promoted"
        assert ran(done.err) == []
        champion, before = place.status["champion"], trained.status["champion"]
        assert champion["bundle_digest"] == before["bundle_digest"]
        assert champion["data_digest"] == before["data_digest"]
        assert champion["metrics"] == before["metrics"]


FEATURES = ("prepare.source=features", "classes.source=attributes")


def assert_answer(answer: dict[str, Any], version: int) -> None:
    """The shape that `classify --json` and POST /classify promise."""
    assert answer.keys() >= {"label", "seen", "known", "confidence", "alternatives", "model"}
    assert isinstance(answer["label"], str)
    assert isinstance(answer["seen"], bool)
    assert isinstance(answer["known"], bool)
    assert 0 <= answer["confidence"] <= 1
    assert len(answer["alternatives"]) == 5
    assert answer["alternatives"][0]["label"] == answer["label"]
    scores = [each["score"] for each in answer["alternatives"]]
    assert scores == sorted(scores, reverse=True)
    assert all(each.keys() == {"label", "seen", "score", "confidence"} for each in answer["alternatives"])
    assert answer["model"]["version"] == version
    assert answer["model"]["bento"].startswith(f"ayeaye:v{version}-")


def bundle_files(place: Place) -> list[Path]:
    return [path for path in (place.root / "models" / "classifier").rglob("*") if path.is_file()]


def cached_embeddings(place: Place) -> dict[Path, tuple[int, int]]:
    """Inode and time of each file in the cache of embeddings."""
    found = (place.root / ".ayeaye" / "embeddings").rglob("*.npy")
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}
