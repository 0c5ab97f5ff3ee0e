def test_gradient_checkpointing_is_refused():
    model = timm.create_model("resnet18", num_classes=5)
    model.set_grad_checkpointing(True)
    with pytest.raises(ValueError, match="gradient checkpointing"):
        rl.PathGradient(model).analyze((torch.zeros(1, 3, 32, 32), torch.tensor([0])), **QUIET)
