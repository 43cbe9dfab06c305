"""--serve: who may ask, what is saved, two browsers at once, and a hundred thousand samples in a real one."""

import json
import stat
from http.client import HTTPConnection
from io import BytesIO
from threading import Thread

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pseudokit.config.keys import Config
from pseudokit.data.csv_text import read_csv, unescape_formulas
from pseudokit.report.load_run import image_hash
from pseudokit.run_folder.corrections import read_corrections
from pseudokit.run_folder.folder import Run
from pseudokit.run_folder.serve import MAX_BODY_BYTES, ORIGINAL, ReviewServer
from tests.conftest import run_script
from tests.naming import process_refused
from tests.report.browser import severe_faults
from tests.warm import Script

N = 100_000
CLASSES = ["cat", "dog", "=owl"]


def ids(*rows):
    return [f"={row}" if row == 3 else f"{row:06d}" for row in rows]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The tables of a finished run with 100,000 suspects, all of one image; no models."""
    run = tmp_path_factory.mktemp("serve") / "x"
    run.mkdir()
    for kind in ("png", "tif"):
        Image.fromarray(np.full((30, 40, 3), 200, np.uint8)).save(run / f"image.{kind}")
    issues = pd.DataFrame({"id": ids(*range(N)), "path": str(run / "image.png")})
    issues.loc[N - 1, "path"] = str(run / "image.tif")
    issues["given_label"] = np.take(CLASSES, np.arange(N) % 3)
    issues["predicted"] = np.take(CLASSES, np.arange(1, N + 1) % 3)
    issues = issues.assign(confidence=0.9, p_wrong=0.8, decision="relabel")
    issues.to_csv(run / "label_issues.csv", index=False)
    issues[:6].assign(split="train").to_csv(run / "samples.csv", index=False)
    (run / "duplicates.csv").write_text("cluster,id,path,split,given_label,conflict\n")
    metrics = {"round": 1, "rounds": [{"round": 1, "classes": CLASSES}]}
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "student").mkdir()
    (run / "student" / "model.json").write_text(json.dumps({"classes": CLASSES}))
    (run / "config.yaml").write_text("name: x\n")
    return run


@pytest.fixture(scope="module")
def started(run):
    server = ReviewServer(run, 0)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def server(started):
    """One that nobody has asked yet."""
    started.file.unlink(missing_ok=True)
    started.lines, started.history = {}, []
    return started


def ask(server, method, address, body=None, **headers):
    """Status and content of an answer; `address` is below that of the page where it does not begin with a slash."""
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    address = address if address.startswith("/") else server.prefix + address
    connection.request(method, address, body, {k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read()


def save(server, since, *decisions):
    status, content = ask(
        server, "POST", "decisions", json.dumps({"since": since, "decisions": decisions})
    )
    assert status == 200
    answer = json.loads(content)
    return answer["version"], {name: line and line[2:4] for name, line in answer["others"].items()}


def saved(server):
    table = unescape_formulas(read_csv(server.file))
    return {row.id: (row.action, row.label) for row in table.itertuples()}


GOOD = json.dumps({"since": 0, "decisions": [["000001", "drop", ""]]})
REFUSED = {
    "no token": ("GET", "/", None, {}),
    "another token": ("GET", f"/{'x' * 43}/", None, {}),
    "a host that was rebound": ("GET", "", None, {"Host": "evil.example"}),
    "a page of another origin": ("POST", "decisions", GOOD, {"Origin": "https://evil.example"}),
    "a file without origin": ("POST", "decisions", GOOD, {"Origin": "null"}),
    "a server beside ours": ("GET", "image/0/96", None, {"Origin": "http://127.0.0.1:1"}),
    "a path": ("GET", "image/../../metrics.json", None, {}),
    "a path in two parts": ("GET", "image/..%2f..%2fmetrics.json/96", None, {}),
    "a row that is not there": ("GET", f"image/{N}/96", None, {}),
    "another method": ("PUT", "decisions", GOOD, {}),
    "a body that is too long": ("POST", "decisions", None, {"Content_Length": str(MAX_BODY_BYTES + 1)}),
    "a body without end": ("POST", "decisions", None, {"Content_Length": "-1"}),
    "no JSON": ("POST", "decisions", "[" * 10**5, {}),
    "another shape": ("POST", "decisions", "[]", {}),
    "a sample of no row": ("POST", "decisions", GOOD.replace("000001", "nobody"), {}),
    "another action": ("POST", "decisions", GOOD.replace("drop", "burn"), {}),
    "no class": ("POST", "decisions", GOOD.replace('drop", "', 'relabel", "cow'), {}),
}  # fmt: skip


def test_who_may_not_ask_is_refused_and_nothing_is_written(server):
    for name, (method, address, body, headers) in REFUSED.items():
        status, _ = ask(server, method, address, body, **headers)
        assert status >= 400, name
    assert not server.file.exists()
    assert ask(server, "GET", "", Host=f"localhost:{server.server_port}")[0] == 200


def test_an_original_is_the_file_itself_where_browsers_can_show_it(server, run):
    assert ask(server, "GET", f"image/0/{ORIGINAL}") == (200, (run / "image.png").read_bytes())
    _, content = ask(server, "GET", f"image/{N - 1}/{ORIGINAL}")
    assert Image.open(BytesIO(content)).format in ("PNG", "JPEG")


def test_what_two_pages_decide_at_once_is_all_in_a_file_that_apply_takes(server, run):
    rows = {"one": range(0, 60, 2), "other": range(1, 60, 2)}

    def decide(name):
        version = 0
        for row in rows[name]:
            version, _ = save(server, version, (*ids(row), "relabel", "=owl"))

    threads = [Thread(target=decide, args=[name]) for name in rows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert saved(server) == dict.fromkeys(ids(*range(60)), ("relabel", "=owl"))
    back = [(name, "", "") for name in ids(*range(6, 60))]
    save(server, 60, (*ids(0), "keep", "cat"), (*ids(1), "drop", ""), *back)
    lines = read_corrections(Run(run, "denoise", Config()), server.file)
    assert dict(zip(lines.id, lines.action, strict=True)) == {
        **dict.fromkeys(ids(2, 3, 4, 5), "relabel"),
        **dict(zip(ids(0, 1, 2, 5), ["keep", "drop", "keep", "keep"], strict=True)),
    }
    assert set(read_csv(server.file).image_sha256) == {image_hash(run / "image.png")}
    again = ReviewServer(run, 0)
    again.server_close()
    assert saved(again) == saved(server), "a server that starts again goes on"
    assert (again.lines.keys(), len(again.history)) == ({*ids(*range(6))}, 6)


def test_of_two_decisions_on_a_sample_the_later_one_wins_and_the_other_page_is_told(server):
    first, _ = save(server, 0, ("000001", "drop", ""), ("000002", "drop", ""))
    second, told = save(server, 0, ("000001", "ambiguous", ""))
    assert told == {"000002": ["drop", ""]}
    assert saved(server)["000001"] == ("ambiguous", "")
    assert save(server, first) == (second, {"000001": ["ambiguous", ""]})
    third, _ = save(server, second, ("000001", "", ""))
    assert save(server, second) == (third, {"000001": ""})
    assert saved(server) == {"000002": ("drop", "")}


def test_a_hundred_thousand_samples_in_two_browsers(server, browser):
    address = f"http://127.0.0.1:{server.server_port}{server.prefix}"
    pages = [browser.new_page(viewport={"width": 1440, "height": 900}) for _ in range(2)]
    faults = []
    for page in pages:
        page.on("pageerror", lambda error: faults.append(error))
        page.goto(address)
        page.wait_for_selector("#count:not(:empty)")
    one, other = pages
    assert one.evaluate("document.querySelector('#single img').decode()") is None
    with one.expect_response("**/decisions"):
        one.keyboard.press("d")
    with other.expect_response("**/decisions"):
        other.keyboard.press("x")
    assert saved(server) == {"000000": ("ambiguous", "")}
    with one.expect_response("**/decisions"):
        one.keyboard.press("a")
    assert saved(server)["000001"] == ("relabel", "=owl")
    one.reload()
    one.wait_for_selector("#count:not(:empty)")
    assert one.inner_text("#count").startswith("2 of ")
    one.set_viewport_size({"width": 390, "height": 844})
    one.emulate_media(color_scheme="dark")
    assert [severe_faults(page) for page in pages] == [[], []]
    assert not faults
    for page in pages:
        page.close()


def test_the_command_shows_its_address_and_ends_with_the_next_command(run, tmp_path):
    """The browser that it opens ends it (a job in the background ignores Ctrl-C)."""
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/address\nkill $PPID\n')
    browser.chmod(stat.S_IRWXU)
    (run / "review.csv").write_text("id,given_label,action,label,image_sha256\n000001,dog,drop,,\n")
    command = ["pseudo.py", "--serve", "--run", run]
    done = Script(*command, DISPLAY=":0", BROWSER=str(browser)).wait()
    assert done.returncode == 0, done.stderr
    address = (tmp_path / "address").read_text().strip()
    assert address.startswith("http://127.0.0.1:")
    assert address in done.stdout
    assert f"--corrections {run / 'review.csv'}" in done.stdout
    process_refused(run_script("pseudo.py", "--serve", "--run", tmp_path), tmp_path)
