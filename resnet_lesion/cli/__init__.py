"""The command ``resnet-lesion``. Below: everything."""
