"""Blocks of ``timm.models.inception_next``: InceptionNeXt."""

from timm.models.inception_next import MetaNeXtBlock

from resnet_lesion import Branch, register_adapter


@register_adapter(MetaNeXtBlock)
def meta_next(_block: MetaNeXtBlock) -> Branch:
    """``x + drop_path(gamma * ...token_mixer(x))``."""
    return Branch(entry="token_mixer", exit="drop_path")
