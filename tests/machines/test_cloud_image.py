# SPDX-License-Identifier: MIT
"""A distribution's image, Debian's packages with systemd and cloud-init, boots with the NoCloud disk and its agent
works. Minutes without KVM, so at night only: CHELA_NIGHTLY=1 (tools/run_tests.py sets it)."""

import os
import pathlib
import shutil
import subprocess
import time

import pytest
from test_qemu import TOOLS, Fleet
from wait import eventually

pytestmark = pytest.mark.xdist_group("qemu")


@pytest.fixture(scope="module")
def cloud_images():
    if not os.environ.get("CHELA_NIGHTLY"):
        pytest.skip("boots a distribution, which takes minutes: at night only (CHELA_NIGHTLY)")
    if not shutil.which("qemu-system-x86_64"):
        assert not os.environ.get("CHELA_CI"), "qemu-system-x86_64 is not installed"
        pytest.skip("qemu-system-x86_64 is not installed")
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    directory = base / "chela" / "cloud-images"
    done = subprocess.run([TOOLS / "cloud_image", directory], capture_output=True, text=True)
    if done.returncode:
        assert not os.environ.get("CHELA_CI"), done.stderr
        pytest.skip(f"no cloud image: {done.stderr.strip()}")
    return directory


def test_a_distribution_with_cloud_init_boots_to_an_agent_that_works(start, cloud_images):
    fleet = Fleet(start("--machine.accel=tcg", f"--machine.images={cloud_images}", "--machine.create_timeout=20m"))
    name = "cloudy"
    began = time.monotonic()
    fleet.create(name, image="debian", memory="768M", disk="3G", cpus=2)

    def connected():
        machine = fleet.http.get(f"/machines/{name}").json()["machine"]
        assert machine["state"] != "failed", (machine, fleet.logs(name))
        return machine["online"]
    eventually(connected, 1200, 1)
    print(f"create to connected agent: {time.monotonic() - began:.0f} s")
    fleet.settled(name, "running", 300)
    # as whom it works, in what, and that it cannot become more
    assert fleet.run(name, "id -un; . /etc/os-release; echo $ID; cat /proc/1/comm; hostname").split() == \
        ["vm-agent", "debian", "systemd", name]
    assert fleet.run(name, "sudo -n true 2>/dev/null || su -c true </dev/null 2>/dev/null || echo no") == "no"
    assert fleet.run(name, "test ! -w /usr/local/bin/chela-agent && test ! -w /etc && echo no") == "no"
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@x", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@x"}
    fleet.run(name, "mkdir -p ~/one && cd ~/one && git init -q && echo 1 > f && git add f && git commit -qm first", env=who)
    fleet.result(name, "git:clone", repo="/home/vm-agent/one", destination="/home/vm-agent/two")
    assert fleet.run(name, "cat ~/two/f") == "1"
    fleet.destroy(name)
