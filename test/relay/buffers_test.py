"""Aligned buffers that are lent and come back."""

from __future__ import annotations

import mmap

import pytest

from ovirt_imageio.relay import buffers


@pytest.mark.parametrize("size", [0, 1, 512, 4096, 1024**2 + 1])
def test_aligned(size):
    view = buffers.aligned(size)
    assert len(view) == size
    assert bytes(view) == bytes(size)
    assert size == 0 or buffers.is_aligned(view, mmap.PAGESIZE)


@pytest.mark.parametrize("skip,block,expected", [(0, 4096, True), (512, 4096, False), (512, 512, True), (1, 1, True)])
def test_is_aligned(skip, block, expected):
    assert buffers.is_aligned(buffers.aligned(8192)[skip:], block) == expected


def test_what_is_read_only_is_not_known_to_be_aligned():
    assert not buffers.is_aligned(memoryview(b"data"), 1)


def test_lent_buffers_are_different():
    pool = buffers.Pool(size=4096)
    with pool.lend(2) as (first, second):
        first[:] = b"1" * 4096
        second[:] = b"2" * 4096
        assert bytes(first[:1]) == b"1"


def test_buffers_are_reused():
    pool = buffers.Pool(size=4096)
    with pool.lend() as (buffer,):
        buffer[:4] = b"mark"
    with pool.lend() as (again,):
        assert bytes(again[:4]) == b"mark"


def test_the_last_one_that_came_back_is_lent_first():
    pool = buffers.Pool(size=4096)
    first, second = pool.take(), pool.take()
    pool.give(first)
    pool.give(second)
    assert pool.take() is second
    assert pool.take() is first
    assert pool.take() is not first


def test_a_huge_page_is_two_buffers():
    pool = buffers.Pool()
    first, second = pool.take(), pool.take()
    assert first.obj is second.obj
    first[:] = b"1" * pool.size
    second[:] = b"2" * pool.size
    assert first == b"1" * pool.size
    assert all(buffers.is_aligned(buffer, mmap.PAGESIZE) for buffer in (first, second))
    assert pool.take().obj is not first.obj


def test_a_kernel_without_huge_pages(monkeypatch):
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", -1)
    assert len(buffers.Pool().take()) == buffers.SLOT


def test_buffers_come_back_after_an_error():
    pool = buffers.Pool(size=4096)
    with pytest.raises(RuntimeError), pool.lend() as (buffer,):
        buffer[:4] = b"mark"
        raise RuntimeError
    with pool.lend() as (again,):
        assert bytes(again[:4]) == b"mark"


def test_a_limited_number_is_kept():
    pool = buffers.Pool(size=4096, max_idle=2)
    with pool.lend(6) as lent:
        for buffer in lent:
            buffer[:4] = b"mark"
    with pool.lend(6) as lent:
        assert sum(bytes(buffer[:4]) == b"mark" for buffer in lent) == 2
