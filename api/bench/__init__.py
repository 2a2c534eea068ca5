"""What guishu's speed is measured by: each figure beside another one, taken in the same run."""
