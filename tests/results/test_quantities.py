import pytest

from resnet_lesion.results.quantities import percent


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (0.0045, "0.45 %"),
        (0.0134, "1.3 %"),
        (0.0999, "10 %"),
        (0.815, "81.5 %"),
        (0.9996, "99.96 %"),
        (0.99999, "99.99 %"),
        (1, "100 %"),
    ],
)
def test_percent(share, text):
    assert percent(share) == text
