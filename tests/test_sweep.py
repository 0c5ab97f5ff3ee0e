"""All of timm: every name structurally, every structure of a ResNet by value. Minutes, so only with ``-m sweep``."""

import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import pytest
import timm
import torch
import write_tables
from helpers import sweep

import resnet_lesion as rl

pytestmark = pytest.mark.sweep


@pytest.fixture(scope="module")
def pool():
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, initializer=torch.set_num_threads, initargs=(1,)) as executor:
        yield executor


@pytest.fixture(scope="module")
def answers():
    return {answer.name: answer for answer in rl.supported_models() if answer.module.startswith("timm.")}


def test_every_resnet_is_covered_and_most_of_timm(answers, capsys):
    by_name = [answer for name, answer in answers.items() if sweep.in_the_name(name)]
    missed = [answer for name, answer in answers.items() if sweep.missed_by_the_name(name)]
    residual = [answer for answer in answers.values() if answer.covered and answer.block_classes != ("VGG",)]
    covered = [sum(answer.covered for answer in group) for group in (by_name, missed)]
    with capsys.disabled():
        print(
            f"\ncovered: {covered[0]} of {len(by_name)} names with 'resne', {covered[1]} of {len(missed)} ResNets that "
            f"the name misses, {len(residual)} residual networks of {len(answers)} names of timm {timm.__version__}; "
            f"{sum(answer.path_gradients for answer in residual)} of them with path gradients"
        )
    assert [answer.name for answer in by_name + missed if not answer.covered] == []
    assert len(by_name) >= 171
    assert len(missed) >= 11
    assert len(residual) >= 900
    assert all(answer.reason for answer in answers.values() if not (answer.covered and answer.path_gradients))


def test_the_page_says_the_same(answers):
    said = write_tables.section(write_tables.MODELS_PAGE, "models")
    if f"timm {timm.__version__}," not in said:
        pytest.skip(f"the page's table is of another version than timm {timm.__version__}")
    assert said == write_tables.models_table(answers.values()), "run python docs/helpers/write_tables.py --models"


def test_every_structure_of_a_resnet_by_value(answers, pool):
    """At full width, every block of the smallest network of each structure: identity, deletion, gradient, hooks."""
    names = [name for name in answers if sweep.in_the_name(name) or sweep.missed_by_the_name(name)]
    smallest = {}
    for name, (size, key) in zip(names, pool.map(sweep.structure, names), strict=True):
        smallest[key] = min(smallest.get(key, (size, name)), (size, name))
    chosen = sorted(name for _, name in smallest.values())
    assert len(chosen) >= 56
    assert sweep.failures(chosen, pool.map(sweep.deviation, chosen)) == {}


@pytest.mark.parametrize("drop_path_rate", [0.0, 0.1])
def test_every_adapter_by_value(answers, pool, drop_path_rate):
    """The same for the least work there is in each of timm's files, without and with stochastic depth."""

    least = {}
    for answer in answers.values():
        if answer.covered:
            work = answer.n_blocks * math.prod(timm.get_pretrained_cfg(answer.name).input_size)
            least.setdefault(answer.module, {}).setdefault(work, []).append(answer.name)
    alike = [works[min(works)] for works in least.values()]
    # of blocks as many on images as large, the narrowest
    names = [name for names in alike for name in names]
    sizes = dict(zip(names, pool.map(sweep.n_parameters, names), strict=True))
    chosen = [min(names, key=sizes.__getitem__) for names in alike]
    assert len(chosen) > 40
    assert sweep.failures(chosen, pool.map(partial(sweep.deviation, drop_path_rate=drop_path_rate), chosen)) == {}
