"""hsa (seed 003): hierarchical semantic attention and feedback masking."""
