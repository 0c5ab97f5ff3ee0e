"""What is refused before a variable is read: damage, other files, and more memory than a file can be of."""

import netCDF4
import numpy as np
import pytest
import xarray as xr
from helpers.hostile_files import HOSTILE

import resnet_lesion as rl
from resnet_lesion.results.inspection import refuse_inflated, refuse_unfit, seal


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """Give a result's bytes: of counts, masks, text and scalars, compressed and not."""
    path = tmp_path_factory.mktemp("whole") / "result.nc"
    rl.save(example(), path)
    return path.read_bytes()


def example():
    return xr.Dataset(
        {
            "correct": ("layer", np.arange(40)),
            "deleted": (("layer", "draw"), np.eye(40, dtype=bool)),
            "word": ("layer", [f"größe {i}" for i in range(40)]),
            "total": ((), 41),
        },
        {"layer": [f"layer1.{i}" for i in range(40)]},
        {"title": "small", "unit": "é", "n_blocks": 3},
    )


def test_a_flipped_bit_anywhere_is_refused(content, tmp_path):
    """Or the bit does not matter; and each byte of the digest itself does."""
    random, n_refused = np.random.default_rng(0), 0
    places = [*random.integers(len(content), size=150), *range(len(content) - 86, len(content))]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(random.integers(8))
        (tmp_path / "damaged.nc").write_bytes(damaged)
        try:
            found = rl.open(tmp_path / "damaged.nc")
        except ValueError:
            n_refused += 1
        else:
            xr.testing.assert_identical(found, example())
            assert place >= len(content) - 86, "all before the seal is sealed"
    assert n_refused >= 150 + 64


def test_netcdf_keeps_checksums_for_those_who_do_not_know_the_seal(content, tmp_path):
    with netCDF4.Dataset("result.nc", memory=content) as file:
        checked = {name for name, array in file.variables.items() if array.filters()["fletcher32"]}
        assert checked == {"correct", "deleted"}, "all that is neither text nor scalar"


def test_whoever_edits_the_file_breaks_no_seal(content, tmp_path):
    path = tmp_path / "result.nc"
    path.write_bytes(content)
    with netCDF4.Dataset(path, "a") as file:
        file.history = "edited"
        file["total"][...] = 50
    edited = rl.open(path)
    assert edited.attrs["history"] == "edited"
    assert int(edited.total) == 50
    rl.open(path).assign_attrs(title="renamed").to_netcdf(tmp_path / "again.nc")
    assert rl.open(tmp_path / "again.nc").attrs["title"] == "renamed"


def test_other_tools_read_it(content, tmp_path):
    (tmp_path / "result.nc").write_bytes(content)
    with xr.open_dataset(tmp_path / "result.nc") as found:
        xr.testing.assert_identical(found.load(), example())


@pytest.mark.parametrize("name", ["external storage", "virtual", "external link", "dense link"])
def test_what_is_in_other_files_is_not_read(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(b"what somebody keeps beside it, and more than 64 bytes in all.....")
    with netCDF4.Dataset("secret.nc", "w") as file:
        file.createDimension("x", 4)
        file.createVariable("b", "f8", () if "link" in name else ("x",))[:] = 3.0
    (tmp_path / "result.nc").write_bytes(HOSTILE[name])
    with netCDF4.Dataset("result.nc") as file:
        assert file.variables.keys() & {"a", "v"}, "netCDF itself would follow it"
    with pytest.raises(ValueError, match="it refers to data in other files, which are not read"):
        rl.open("result.nc")


def test_more_than_a_file_can_hold_is_not_made(tmp_path):
    (tmp_path / "result.nc").write_bytes(HOSTILE["huge"])
    with pytest.raises(ValueError, match="it declares 32,000,000,000 bytes, which its 447 cannot hold"):
        rl.open(tmp_path / "result.nc")


def test_what_compresses_best_is_opened(tmp_path):
    zeros = xr.Dataset({"zeros": ("x", np.zeros(10_000_000))})
    rl.save(zeros, tmp_path / "zeros.nc")
    assert (tmp_path / "zeros.nc").stat().st_size < 200_000
    with netCDF4.Dataset(tmp_path / "zeros.nc") as file:
        refuse_inflated(file, (tmp_path / "zeros.nc").stat().st_size)
        with pytest.raises(ValueError, match="it declares 80,000,000 bytes"):
            refuse_inflated(file, 60_000)
    assert rl.open(tmp_path / "zeros.nc").sizes == {"x": 10_000_000}


def test_what_looks_like_a_reference_among_numbers_is_none(tmp_path):
    """Where a pattern occurs among numbers, what it would point to is not there."""
    numbers = np.random.default_rng(0).integers(0, 2**16, 300_000).astype("i8")
    result = xr.Dataset({"numbers": ("x", numbers), "ones": ("y", np.full(1_000, 0x0001_0001_0000_0001))})
    result.to_netcdf(tmp_path / "plain.nc")  # not compressed
    xr.testing.assert_identical(rl.open(tmp_path / "plain.nc"), result)


def test_the_seal_is_of_all_bytes():
    content = b"CDF\x01" + bytes(range(200))
    refuse_unfit(content + seal(content))
    refuse_unfit(content)  # nobody sealed it
    for damaged in (content[:-1] + seal(content), content + seal(content)[:-1], content + seal(content + b"x")):
        with pytest.raises(ValueError, match="it is not as it was written"):
            refuse_unfit(damaged)
