"""Accounts are found, files given away, and root left for good."""

import grp
import json
import os
import pwd
import subprocess
import sys

import pytest

from ovirt_imageio.errors import ConfigError
from ovirt_imageio.service import privileges

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def nobody():
    account = pwd.getpwnam("nobody")
    return privileges.find_account("nobody", grp.getgrgid(account.pw_gid).gr_name)


def test_find(nobody):
    account = pwd.getpwnam("nobody")
    assert (nobody.uid, nobody.gid) == (account.pw_uid, account.pw_gid)


def test_unknown_user():
    with pytest.raises(ConfigError, match=r"\[daemon\] user_name = 'no-such-user': .*drop_privileges = false"):
        privileges.find_account("no-such-user", "root")


def test_unknown_group():
    with pytest.raises(ConfigError, match=r"\[daemon\] group_name = 'no-such-group'"):
        privileges.find_account("root", "no-such-group")


@needs_root
def test_own(nobody, tmp_path):
    path = tmp_path / "file"
    path.touch()
    nobody.own([str(path), str(tmp_path / "missing")])
    assert (path.stat().st_uid, path.stat().st_gid) == (nobody.uid, nobody.gid)


BECOME = """
import json, os, sys
from ovirt_imageio.service.privileges import find_account
find_account("nobody", sys.argv[1]).become()
try:
    os.setuid(0)
    back = True
except PermissionError:
    back = False
print(json.dumps([os.getresuid(), os.getresgid(), sorted(os.getgroups()), back]))
"""


@needs_root
def test_become(nobody):
    group = grp.getgrgid(nobody.gid).gr_name
    answer = subprocess.run([sys.executable, "-c", BECOME, group], check=True, stdout=subprocess.PIPE).stdout
    groups = sorted(set(os.getgrouplist("nobody", nobody.gid)))
    assert json.loads(answer) == [[nobody.uid] * 3, [nobody.gid] * 3, groups, False]


ACT = """
import json, os, sys
from ovirt_imageio.service.privileges import find_account
def identity():
    return [os.geteuid(), os.getegid(), sorted(os.getgroups())]
before = identity()
with find_account("nobody", sys.argv[1]).acting():
    during = identity()
print(json.dumps([before == identity(), during]))
"""


@needs_root
def test_act(nobody):
    group = grp.getgrgid(nobody.gid).gr_name
    answer = subprocess.run([sys.executable, "-c", ACT, group], check=True, stdout=subprocess.PIPE).stdout
    groups = sorted(set(os.getgrouplist("nobody", nobody.gid)))
    assert json.loads(answer) == [True, [nobody.uid, nobody.gid, groups]]
