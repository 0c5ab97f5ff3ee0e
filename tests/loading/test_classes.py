import codecs
import pickle

import pytest

from resnet_lesion.loading.classes import labels_of, output_names, read_names


def test_folders_are_numbered_as_timm_sorts_them_in_every_process():
    assert labels_of(["b", "10", "2", "B", "b"]) == {"2": 0, "10": 1, "B": 2, "b": 3}


@pytest.fixture
def names(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("cow\ndog\ncat\n")
    return path


def test_a_class_map_orders_and_chooses(names):
    assert labels_of(["cat", "dog"], class_map=names) == {"cow": 0, "dog": 1, "cat": 2}
    assert labels_of(["cat", "cow", "dog", "owl"], class_map=names) == {"cow": 0, "dog": 1, "cat": 2}
    with pytest.raises(ValueError, match=r"got 'cat', which is not one, and no line for 'kat'\.$"):
        labels_of(["kat", "cow", "dog"], class_map=names)


def test_a_folder_is_the_output_of_its_name(names):
    assert labels_of(["cat"], classes=str(names)) == {"cow": 0, "dog": 1, "cat": 2}
    message = r"one of the 3 outputs in classes='.*names\.txt', got 'Cat' and 1 more\. Rename it, or take it away\."
    with pytest.raises(ValueError, match=message):
        labels_of(["cow", "cat", "dog", "owl", "Cat"], classes=names)
    with pytest.raises(ValueError, match="expected class_map= or classes=, got both"):
        labels_of(["cat"], classes=names, class_map=names)


def test_timm_knows_imagenets_outputs():
    synsets = output_names("imagenet-1k")
    assert (len(synsets), synsets[207], synsets == sorted(synsets)) == (1000, "n02099601", True)  # golden retriever
    assert labels_of(["n02099601"], classes="imagenet-1k")["n02099601"] == 207
    with pytest.raises(
        FileNotFoundError, match=r"or as a list that timm has, such as 'imagenet-1k', got 'imagenet-2k'"
    ):
        output_names("imagenet-2k")


@pytest.mark.parametrize(
    "content",
    [
        b"cat\ndog\n",
        b"cat\r\ndog",
        b"cat\rdog\r",
        b" cat \n dog\n\n\n",
        codecs.BOM_UTF8 + b"cat\ndog\n",
        "cat\r\ndog\r\n".encode("utf-16"),
        codecs.BOM_UTF16_BE + "cat\ndog".encode("utf-16-be"),
    ],
)
def test_text_of_any_system_is_read(tmp_path, content):
    (tmp_path / "names.txt").write_bytes(content)
    assert read_names(tmp_path / "names.txt", "class_map") == ["cat", "dog"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"cat\n\ndog\n", r"class_map='.*' whose line 2 is blank"),
        ("x.txt", b"", "line 1 is blank"),
        ("x.txt", b"cat\ndog\ncat \n", r"got 'cat' in the lines 1 and 3 of class_map='.*x\.txt'\. Delete one\."),
        ("x.txt", "größe\n".encode("latin-1"), "in UTF-8, got .* which is not text: 'utf-8' codec"),
        ("x.txt", "cat\ndog".encode("utf-16-le"), "which has zero bytes"),
        ("x.csv", b"cat,0\ndog,1\n", r"got '.*x\.csv'\. Write the names alone into a \.txt file\."),
        ("x.PKL", b"cat", r"got '.*x\.PKL'\. Write the names alone"),
    ],
)
def test_what_is_no_list_of_names(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"^expected class_map= as a text file with one name a line.*{message}"):
        read_names(tmp_path / name, "class_map")


class Smuggled:
    def __reduce__(self):
        return print, ("this must not run",)


@pytest.mark.parametrize("name", ["x.pkl", "x.txt"])
def test_a_pickle_is_refused_and_not_run(tmp_path, capsys, name):
    (tmp_path / name).write_bytes(pickle.dumps({"cat": Smuggled()}))
    with pytest.raises(ValueError, match="expected class_map= as a text file"):
        read_names(tmp_path / name, "class_map")
    assert capsys.readouterr().out == ""


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"expected classes= as a text file .* got '.*none\.txt', which is no file"
    ):
        read_names(tmp_path / "none.txt", "classes")
