"""What several tests share: models, slow reference implementations, results, images, analyses."""
